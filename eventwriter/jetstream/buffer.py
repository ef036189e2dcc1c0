"""What waits between the loop thread, which receives, and the main thread, which writes."""

from __future__ import annotations

from collections import deque
from enum import Enum
from time import monotonic

from eventwriter.jetstream.deliveries import Portion
from eventwriter.stream import Batch


class Gap(Enum):
    """Stands where what follows may not continue what came before."""

    LOST = "the connection was lost, and perhaps deliveries with it"
    PAUSE = "for a while there was no pull: nothing can have been lost"


class Buffer:
    """Portions in the order of their arrival.

    Every field is written by one of the two threads only, or atomically under the interpreter lock. Messages are
    counted before they are appended: what can be taken has been counted.
    """

    def __init__(self, messages: int, size: int) -> None:
        """What makes a batch: so many messages, or bytes of payload."""
        self._messages = messages
        self._size = size
        self._waiting: deque[Portion | Gap] = deque()
        self._gaps = 0
        self._gaps_taken = 0
        self.received = 0
        self.received_bytes = 0
        self.taken = 0
        self.taken_bytes = 0
        self.first_at = 0.0
        """When the first message came that was put into an empty buffer."""

    # --- the loop thread -----------------------------------------------------------------------------------------

    def put(self, portion: Portion) -> None:
        """Appends what has arrived."""
        if not self._waiting:
            self.first_at = monotonic()
        self.received += len(portion.messages)
        self.received_bytes += portion.size
        self._waiting.append(portion)

    def mark(self, gap: Gap) -> None:
        """Appends a gap."""
        self._gaps += 1
        self._waiting.append(gap)

    def reply_subjects(self) -> list[bytes]:
        """The reply subjects of all that waits, by portion."""
        return [portion.reply_subjects for portion in list(self._waiting) if isinstance(portion, Portion)]

    # --- both ------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """How many messages wait."""
        return self.received - self.taken

    @property
    def size(self) -> int:
        """Bytes of payload that wait."""
        return self.received_bytes - self.taken_bytes

    @property
    def full(self) -> bool:
        """Whether there is enough for a batch that shall not grow."""
        return len(self) >= self._messages or self.size >= self._size

    # --- the main thread -------------------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether there is nothing to take, no gap either."""
        return not self._waiting

    @property
    def gap(self) -> bool:
        """Whether a gap waits."""
        return self._gaps_taken != self._gaps

    @property
    def pending(self) -> int:
        """How many messages the consumer still had for us after the last that came; 0 if that is not known."""
        last = self._waiting[-1]
        return 0 if isinstance(last, Gap) else last.pending

    def take(self) -> list[Portion] | Gap:
        """What makes a batch: what came in a row, up to the bytes of one and one more message; or the gap before it."""
        portions: list[Portion] = []
        messages, size = self._messages, self._size
        while messages > 0 and size > 0 and self._waiting:
            first = self._waiting.popleft()
            if isinstance(first, Gap):
                if not portions:
                    self._gaps_taken += 1
                    return first
                self._waiting.appendleft(first)
                break
            count = _fitting(first, messages, size)
            if count < len(first.messages):
                first, rest = first.split(count)
                self._waiting.appendleft(rest)
            portions.append(first)
            messages -= count
            size -= first.size
        self.taken += sum(len(portion.messages) for portion in portions)
        self.taken_bytes += sum(portion.size for portion in portions)
        return portions


class Rereads:
    """Batches of what was missing and is read again, a few at a time."""

    def __init__(self) -> None:
        self._waiting: deque[Batch] = deque()
        self._taken = 0

    # --- the loop thread -----------------------------------------------------------------------------------------

    def put(self, batch: Batch) -> None:
        """Appends one."""
        self._waiting.append(batch)

    def clear(self) -> None:
        """Forgets those that wait: all is read again from the beginning."""
        self._waiting.clear()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._waiting)

    # --- the main thread -----------------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether all that was read is taken and committed."""
        return not self._waiting and not self._taken

    def take(self) -> Batch | None:
        """The next one, None if there is none (any more)."""
        self._taken += 1  # first: between the two it must not seem as if all were committed
        try:
            return self._waiting.popleft()
        except IndexError:
            self._taken -= 1
            return None

    def committed(self) -> None:
        """One that was taken is in the tables."""
        self._taken -= 1


def _fitting(portion: Portion, messages: int, size: int) -> int:
    """How many of a portion's messages belong to a batch that has room for so many messages and bytes."""
    count = min(len(portion.messages), messages)
    if portion.size >= size:
        for place, bytes_of in enumerate(portion.sizes(count), 1):
            size -= bytes_of
            if size <= 0:
                return place
    return count
