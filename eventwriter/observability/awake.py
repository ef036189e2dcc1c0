"""How long something has lasted, for a process that may have been frozen meanwhile together with what it looks at."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSE = 3.0
"""Seconds between two looks after which this process was kept from looking; it looks every second."""


class Awake:
    """The monotonic clock of somebody who sleeps through a suspended machine or a frozen container, and knows it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._woke = float("-inf")

    def look(self) -> float:
        """The time on the clock; to be called every second."""
        now = self._clock()
        if now - self._looked > PAUSE:
            self._woke = now
        self._looked = now
        return now

    def since(self, moment: float) -> float:
        """Seconds since then; what was before our own last pause counts for nobody."""
        return self.look() - max(moment, self._woke)
