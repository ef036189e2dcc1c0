"""What lies between the messages of batches, and was taken to be of other subjects while the consumer delivered ours.

Somebody may edit the consumer's filters, which is noticed seconds later. Until then deliveries in a row only tell that
nothing lies between them that these filters match.
"""

from __future__ import annotations

from eventwriter.coverage import Range
from eventwriter.stream import Batch

MOST = 1_000_000
"""Ranges without a look at the consumer, of 128 bytes each: a look comes every few seconds, in which no worker takes as
many messages, so that only a consumer that cannot be asked leads to as many."""


class Claims:
    """Of one worker, since its consumer was last but one seen to be as it should be."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._before: list[list[Range]] = []
        self._now: list[list[Range]] = []
        self._count = 0

    @property
    def full(self) -> bool:
        """Whether nothing more shall be pulled until the consumer is seen."""
        return self._count >= self._most

    def add(self, batch: Batch) -> None:
        """A batch that is about to be written, with all that lies between its messages."""
        if batch.span is not None and batch.span[1] - batch.span[0] + 1 == len(batch.messages):
            return
        between = zip(batch.each_first(), batch.messages, strict=True)
        found = [(first, message.sequence - 1) for first, message in between if first < message.sequence]
        if found:
            self._now.append(found)
            self._count += len(found)

    def seen(self) -> None:
        """The consumer is as it should be."""
        self._before, self._now, self._count = self._now, [], 0

    def ranges(self) -> list[Range]:
        """What may hold messages of ours after all."""
        return [each for ranges in (*self._before, *self._now) for each in ranges]
