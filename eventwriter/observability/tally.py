"""Counts by reason, of which messages decide how many there are and how often: kept few, and told seldom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

log = logging.getLogger("eventwriter.worker")

REASONS = 100
"""Reasons of a stream that are counted by themselves."""
OTHER = "other"
_PAUSE = 1.0
"""Seconds between two lines of the log."""


def count(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Adds to what is counted; what would be one reason too many counts as OTHER."""
    for reason, number in more.items():
        known = reason in counts or (len(counts) < REASONS and len(reason) <= REASONS)
        name = reason if known else OTHER
        counts[name] = counts.get(name, 0) + number


class Letters:
    """Tells of dead letters: the first at once, those that follow soon together."""

    def __init__(self, stream: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._extra = {"stream": stream}
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._next = 0.0

    def add(self, rejects: Mapping[str, int]) -> None:
        """Some more."""
        count(self._counts, rejects)
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Tells of those that are not told yet, if it is time to."""
        if self._counts and (now or self._clock() >= self._next):
            told = ", ".join(f"{reason} {number}" for reason, number in sorted(self._counts.items()))
            log.warning("%d dead letters (%s)", sum(self._counts.values()), told, extra=self._extra)
            self._counts.clear()
            self._next = self._clock() + _PAUSE
