"""What may come of a batch, whatever its messages are: what is more is for the next transaction.

A few bytes of a message may be many rows, large ones, or many dead letters, and may take long to decode.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import thread_time

from eventwriter.stream import Row

_SIZE, _STAGED_SIZE = 128 * 2**20, 32 * 2**20
"""Bytes of rows. Those that are staged are all in memory at once."""
_STAGED_ROWS = 100_000
_REJECTS = 20_000
_SECONDS = 5.0
"""Of a processor: the largest of ordinary batches take one."""


class TooMuchError(Exception):
    """The first messages of a batch are enough for a transaction."""

    def __init__(self, messages: int) -> None:
        super().__init__(f"{messages} messages are enough")
        self.messages = messages
        """So many of them, at least one."""


class Budget:
    """Of one attempt to write a batch."""

    __slots__ = ("_until", "rows", "size")

    def __init__(self, size: int = _SIZE, rows: int = 1 << 62) -> None:
        self.size = size
        """Bytes that its rows may still have."""
        self.rows = rows
        """Rows that there may still be."""
        self._until = thread_time() + _SECONDS

    @classmethod
    def staged(cls) -> Budget:
        """That of one that is staged."""
        return cls(_STAGED_SIZE, _STAGED_ROWS)

    def take(self, rows: Sequence[Row]) -> None:
        """Counts the rows of a message, all for as large as the first."""
        self.rows -= len(rows)
        if rows:
            self.size -= len(rows) * sum(len(value) for value in rows[0] if isinstance(value, (bytes, str)))

    def enough(self, messages: int, rejects: int) -> int:
        """How many messages are enough, if so many are too much with so many rejects; else 0."""
        if thread_time() > self._until:  # next time they may take longer
            return max(1, messages // 2)
        return messages if self.size <= 0 or self.rows <= 0 or rejects > _REJECTS else 0
