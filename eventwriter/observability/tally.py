"""Counts, added up; and reasons, of which messages decide how many there are: kept few, and told seldom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

log = logging.getLogger("eventwriter.worker")

REASONS = 100
"""Reasons of a stream that are counted by themselves."""
LENGTH = 100
"""Bytes of JSON of such a reason: all of them, of rejects and of repairs, are in a slot of the board."""
OTHER = "other"
_PAUSE = 60.0
"""Seconds between two lines of the log, as between those of an outage."""


def count(counts: dict[str, int], more: Mapping[str, int]) -> None:
    """Adds to what is counted; what would be one reason too many counts as OTHER."""
    for reason, number in more.items():
        known = reason in counts or (len(counts) < REASONS and len(msgspec.json.encode(reason)) <= LENGTH)
        name = reason if known else OTHER
        counts[name] = counts.get(name, 0) + number


class Seldom:
    """Tells of what is counted: of the first at once, of those of the next minute together."""

    def __init__(self, stream: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._extra = {"stream": stream}
        self._clock = clock
        self._counts: dict[str, int] = {}
        self._next = 0.0

    def add(self, counts: Mapping[str, int]) -> None:
        """Some more."""
        count(self._counts, counts)
        self.tell()

    def tell(self, *, now: bool = False) -> None:
        """Tells of those that are not told yet, if it is time to."""
        if self._counts and (now or self._clock() >= self._next):
            log.log(self._level, "%s", self._words(sum(self._counts.values())), extra=self._extra)
            self._counts.clear()
            self._next = self._clock() + _PAUSE

    _level = logging.INFO

    def _words(self, total: int) -> str:
        raise NotImplementedError


class Letters(Seldom):
    """Of dead letters, by reason."""

    _level = logging.WARNING

    def _words(self, total: int) -> str:
        told = ", ".join(f"{reason} {number}" for reason, number in sorted(self._counts.items()))
        return f"{total} dead letter{'s' * (total > 1)} ({told})"


class Known(Seldom):
    """Of messages that came again after they were written."""

    def _words(self, total: int) -> str:
        return f"{total} message{'s were' if total > 1 else ' was'} delivered again and known"


def latest(times: Iterable[float | None]) -> float | None:
    """The latest of those that are known."""
    return max((each for each in times if each), default=None)


def added(maps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The sum of counters, name by name."""
    total: dict[str, float] = {}
    for each in maps:
        for key, value in each.items():
            total[key] = total.get(key, 0) + value
    return total


def columns(lists: Iterable[Sequence[int]]) -> list[int]:
    """The sum of histograms, bucket by bucket."""
    return [sum(column) for column in zip(*lists, strict=True)]
