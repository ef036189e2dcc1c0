"""An outage in the log: a handful of lines, however long it lasts and however often something is tried meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic

CAUSES = 3
"""So many causes are told when they are first met; most often the second is the one that a reader looks for."""
SUMMARY = 60.0
"""Seconds between two lines while it lasts."""


class Outage:
    """What one end of a worker cannot reach. A cause is told once, then how long it lasts, at last that it is over."""

    def __init__(
        self, log: logging.Logger, what: str, extra: Mapping[str, object], clock: Callable[[], float] = monotonic
    ) -> None:
        """``what`` is missing, such as PostgreSQL."""
        self._log = log
        self._what = what
        self._extra = extra
        self._clock = clock
        self._since: float | None = None
        self._told = 0.0
        self._tries = 0
        self._causes: list[str] = []

    def failed(self, cause: str, then: str = "trying again") -> None:
        """A try failed, perhaps the first."""
        now = self._clock()
        if self._since is None:
            self._since, self._told, self._tries, self._causes = now, now, 0, []
        self._tries += 1
        if cause not in self._causes and len(self._causes) < CAUSES:
            self._causes.append(cause)
            self._log.error("%s: %s", cause, then, extra=self._extra)
        elif now - self._told >= SUMMARY:
            self._told = now
            told = "no %s for %.0f s, %d tries: %s"
            self._log.error(told, self._what, now - self._since, self._tries, cause, extra=self._extra)

    def over(self) -> None:
        """It is there, perhaps again."""
        if self._since is not None:
            self._log.info("%s is back after %.1f s", self._what, self._clock() - self._since, extra=self._extra)
            self._since = None
