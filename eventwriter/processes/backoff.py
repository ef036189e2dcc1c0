"""How long to wait before the next try: exponential, with jitter, forgetting failures after a healthy while."""

from __future__ import annotations

import random


class Backoff:
    """Delays of one thing that fails and is tried again; holds no clock, so ``now`` is any monotonic time in seconds.

    The n-th failure in a row waits ``initial * factor ** (n - 1)`` seconds, at most ``maximum``, of which a random
    share of up to ``jitter`` (0 to 1) is taken off, so that what failed together does not come back together.
    Failures count as "in a row" until the thing has worked for ``reset_after`` seconds: 0 forgets at the first success.

    Create it, and ``rng``, after a fork: two processes with the same random state would wait in step.
    """

    __slots__ = ("_factor", "_initial", "_jitter", "_maximum", "_next", "_reset_after", "_rng", "_working_since")

    def __init__(
        self,
        initial: float,
        maximum: float,
        factor: float = 2.0,
        jitter: float = 0.5,
        reset_after: float = 0.0,
        *,
        rng: random.Random | None = None,
    ) -> None:
        """Raises ValueError for values with which the delays would not grow from above 0 to ``maximum``."""
        if not (0 < initial <= maximum and factor >= 1 and 0 <= jitter <= 1 and reset_after >= 0):
            raise ValueError(f"no backoff with {initial=}, {maximum=}, {factor=}, {jitter=}, {reset_after=}")
        self._initial = initial
        self._maximum = maximum
        self._factor = factor
        self._jitter = jitter
        self._reset_after = reset_after
        self._rng = rng or random.Random()
        self._next = initial
        self._working_since: float | None = None

    def failed(self, now: float) -> float:
        """The seconds to wait before the next try."""
        if self._working_since is not None and now - self._working_since >= self._reset_after:
            self._next = self._initial
        self._working_since = None
        delay = self._next
        self._next = min(self._maximum, delay * self._factor)
        return delay * (1 - self._jitter * self._rng.random())

    def succeeded(self, now: float) -> None:
        """Notes that it works as of ``now``; cheap enough to call after every success."""
        if self._working_since is None:
            self._working_since = now
