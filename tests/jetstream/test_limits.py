"""Pulls that keep to what a consumer allows."""

from __future__ import annotations

import pytest

from eventwriter.jetstream.limits import Limits

SECOND = 1_000_000_000


def test_without_limits_a_pull_is_long_and_has_heartbeats() -> None:
    """Silence for two heartbeats means that it is lost."""
    body = Limits.of({}).request(20_000, 1 << 24)
    assert body == {"batch": 20_000, "expires": 30 * SECOND, "idle_heartbeat": 5 * SECOND, "max_bytes": 1 << 24}
    assert str(Limits.of({})) == ""


def test_a_pull_is_clipped() -> None:
    """To each limit that is there."""
    limits = Limits.of({"max_batch": 10, "max_expires": SECOND, "max_bytes": 65536})
    assert limits.request(20_000, 1 << 24) == {"batch": 10, "expires": SECOND, "max_bytes": 65536}
    assert limits.request(5, 100) == {"batch": 5, "expires": SECOND, "max_bytes": 100}
    assert limits.request(1, 0) == {"batch": 1, "expires": SECOND}
    assert str(limits) == "max_batch 10, max_expires 1s, max_bytes 65536"


@pytest.mark.parametrize("seconds", [0.001, 1, 9.999, 10, 11, 30, 3600])
def test_heartbeats_are_half_of_a_pull_at_most(seconds: float) -> None:
    """The server refuses others; a pull that ends before the second heartbeat needs none."""
    body = Limits(expires=int(seconds * SECOND)).request(1, 0)
    assert body["expires"] == min(seconds, 30) * SECOND
    assert 2 * body.get("idle_heartbeat", 0) <= body["expires"]
    assert ("idle_heartbeat" in body) == (seconds >= 10)
