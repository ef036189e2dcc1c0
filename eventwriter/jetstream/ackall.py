"""When one acknowledgement may cover everything before it (JetStream's AckAll): only if nothing before it is missing.

An ack of a sequence acknowledges every lower one, also those that were delivered to a worker that died, or that were
lost with a connection: these would never come again. So a worker alone on its durable first waits for what its
predecessor left behind, and starts again when deliveries of its own are lost.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic

from eventwriter.errors import UnavailableError


class AckAll:
    """Decides for one worker, from ``bind`` on, whether the last message of a batch may be acknowledged."""

    def __init__(self, durable: str, owed: int, until: int, patience: float) -> None:
        """``owed`` messages with sequences up to ``until`` were delivered before, and are not acknowledged.

        They come again within ``patience`` seconds, unless they were deleted: then binding anew counts them right.
        """
        self._durable = durable
        self._owed = owed
        self._until = until
        self._deadline = monotonic() + patience
        self._came: set[int] = set()

    def lost(self) -> UnavailableError:
        """What ends the worker when deliveries may have been lost on the way."""
        return UnavailableError(
            f'deliveries of consumer {self._durable} were lost with the connection: starting again (ack = "all")'
        )

    def committed(self, sequences: Iterable[int]) -> bool:
        """Whether what is committed now may be acknowledged; raises UnavailableError past the patience."""
        if self._owed == 0:
            return True
        self._came.update(sequence for sequence in sequences if sequence <= self._until)
        if len(self._came) >= self._owed:
            self._owed = 0
            self._came.clear()
            return True
        if monotonic() > self._deadline:
            raise UnavailableError(
                f"{self._owed - len(self._came)} messages that consumer {self._durable} had delivered before do not "
                "come again: starting again"
            )
        return False
