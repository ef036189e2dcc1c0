"""A database that went back in time: what it forgot and the stream still holds is in the tables again, once."""

from __future__ import annotations

import contextlib
from typing import get_args

import psycopg
import pytest

import failover
from eventwriter.embedded import free_port
from fix_failover import SETTINGS, TOLD_WITHIN, Fallible, How, load, missing
from fix_service import World, only, wait_until
from proxy import Proxy

NAMES = ("LOGS", "TELEMETRY", "EVENTS")
"""One with OTLP, one with arrays, one whose rows have a key."""


def settle(world: World) -> None:
    """Everything arrives once, and nobody had to restart anything."""
    world.wait_settled()
    world.assert_exact()
    assert [service.poll() for service in world.services] == [None]


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "under load"])
@pytest.mark.parametrize("how", get_args(How))
def test_what_the_database_forgot_is_written_again(fallible: Fallible, how: How, busy: bool) -> None:
    """A standby that lagged takes over, a base backup is restored, a crash forgets commits: the messages come back."""
    world = fallible.world
    service = world.start(**only(*NAMES))
    world.traffic(NAMES, count=100)
    world.wait_settled()
    fallible.mark(how)
    with load(world, NAMES) if busy else contextlib.nullcontext():
        world.traffic(NAMES, count=200)
        wait_until(lambda: all(sum(world.counts(name)) >= 300 for name in NAMES), "what will be lost")
        lost = fallible.go_back(how)
        assert all(lost.values()), lost
        told = lambda: fallible.reread(NAMES) and world.log.count("read again and written") >= len(NAMES)  # noqa: E731
        wait_until(told, f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
        if busy:  # and the live messages go on beside
            done = world.counts("LOGS")
            wait_until(lambda: world.counts("LOGS") > done, "live traffic")
    settle(world)
    assert fallible.endpoint.answers("/readyz", 200)
    assert world.stop(service) == 0


def test_a_standby_among_several_hosts_of_the_dsn(fallible: Fallible) -> None:
    """libpq finds the new primary by itself; what it never received is written to it."""
    world, primary = fallible.world, fallible.server
    port = free_port()
    world.environment["EVENTWRITER_POSTGRES__DSN"] = psycopg.conninfo.make_conninfo(
        world.dsn, host="127.0.0.1,127.0.0.1", port=f"{primary.port},{port}", target_session_attrs="read-write"
    )
    service = world.start(**only(*NAMES))
    world.traffic(NAMES, count=100)
    world.wait_settled()
    fallible.standby = failover.follow(primary, primary.folder.parent / "standby", SETTINGS, port)
    failover.detach(fallible.standby)
    world.traffic(NAMES, count=100)
    world.wait_settled()
    failover.crash(primary)
    fallible.standby.promote()
    world.dsn = psycopg.conninfo.make_conninfo(world.dsn, port=port)
    assert set(missing(world)) == set(NAMES)
    wait_until(lambda: fallible.reread(NAMES), f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
    settle(world)
    assert world.stop(service) == 0


def test_a_network_that_breaks_while_messages_are_read_again(fallible: Fallible) -> None:
    """What a broken connection swallowed is not taken for read, nor is what was read before written twice."""
    world, count = fallible.world, 6_000
    with Proxy(world.nats.port) as to_nats:
        world.environment["EVENTWRITER_NATS__URL"] = f"nats://127.0.0.1:{to_nats.port}"
        service = world.start(**only("LOGS"), EVENTWRITER_WRITER__BATCH_MESSAGES="500")
        world.traffic(["LOGS"], count=10)
        world.wait_settled()
        fallible.mark("restored")
        world.traffic(["LOGS"], count=count)
        world.wait_settled()
        fallible.go_back("restored")
        to_nats.delay = 0.01
        for part in range(1, 4):
            wait_until(lambda: sum(world.counts("LOGS")) > part * count / 5, world.log[-3000:])  # noqa: B023 - at once
            to_nats.cut()
        to_nats.delay = 0.0
        settle(world)
        assert world.stop(service) == 0
