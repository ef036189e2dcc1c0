"""Backoff: delays grow, are bounded and jittered, and start afresh after a healthy while."""

from __future__ import annotations

import random

import pytest

from eventwriter.processes.backoff import Backoff


def steady(reset_after: float = 0.0) -> Backoff:
    """A backoff without jitter: 1, 2, 4, 8, 10, 10 … seconds."""
    return Backoff(1, 10, 2, 0, reset_after)


def test_delays_grow_to_the_maximum_and_stay_there() -> None:
    """Failures in a row wait longer each time, up to the maximum, however many there are."""
    backoff = steady()
    assert [backoff.failed(now) for now in range(7)] == [1, 2, 4, 8, 10, 10, 10]
    assert max(backoff.failed(now) for now in range(5000)) == 10


def test_jitter_only_shortens() -> None:
    """Jitter takes off at most its share, so the maximum holds and a first retry is never late."""
    backoff = Backoff(1, 1, 2, 0.5, rng=random.Random(7))
    delays = [backoff.failed(now) for now in range(1000)]
    assert 0.5 <= min(delays) < 0.51
    assert 0.99 < max(delays) <= 1
    assert len(set(delays)) > 900


def test_the_random_source_decides() -> None:
    """The same random source gives the same delays."""
    one, other = (Backoff(1, 60, 2, 1, rng=random.Random(3)) for _ in range(2))
    assert [one.failed(0) for _ in range(9)] == [other.failed(0) for _ in range(9)]


def test_success_resets_at_once_by_default() -> None:
    """Without reset_after, one success makes the next failure the first."""
    backoff = steady()
    assert [backoff.failed(0), backoff.failed(0)] == [1, 2]
    backoff.succeeded(5)
    assert backoff.failed(5) == 1


@pytest.mark.parametrize(("healthy", "delay"), [(0, 4), (59.9, 4), (60, 1), (3600, 1)])
def test_reset_needs_a_healthy_while(healthy: float, delay: float) -> None:
    """With reset_after, failures are forgotten only if it worked that long."""
    backoff = steady(reset_after=60)
    assert [backoff.failed(0), backoff.failed(1)] == [1, 2]
    backoff.succeeded(100)
    assert backoff.failed(100 + healthy) == delay


def test_health_counts_from_the_first_success() -> None:
    """Repeated successes do not postpone the reset, and a failure ends the healthy while."""
    backoff = steady(reset_after=60)
    backoff.failed(0)
    for now in range(10, 80, 10):
        backoff.succeeded(now)
    assert backoff.failed(80) == 1
    assert backoff.failed(500) == 2


@pytest.mark.parametrize(
    "wrong",
    [(0, 1, 2, 0, 0), (2, 1, 2, 0, 0), (1, 2, 0.5, 0, 0), (1, 2, 2, 1.1, 0), (1, 2, 2, -0.1, 0), (1, 2, 2, 0, -1)],
)
def test_values_that_cannot_back_off_are_refused(wrong: tuple[float, float, float, float, float]) -> None:
    """A backoff that would spin, shrink or go negative cannot be made."""
    with pytest.raises(ValueError, match="no backoff with"):
        Backoff(*wrong)
