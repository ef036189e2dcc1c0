"""A database that went back in time: what it forgot and the stream still holds is in the tables again, once."""

from __future__ import annotations

import contextlib
import json
from typing import Any, get_args

import psycopg
import pytest
from nats.js.api import StreamConfig

import failover
from eventwriter import registry
from eventwriter.embedded import free_port
from fix_failover import SETTINGS, TOLD_WITHIN, Fallible, How, load, missing, wait_acknowledged
from fix_service import LOADED, STREAMS, World, only, wait_until
from proxy import Proxy
from traffic import Publication, Traffic

NAMES = ("LOGS", "TELEMETRY", "EVENTS")
"""One with OTLP, one with arrays, one whose rows have a key."""
QUICK = (("promoted", True), ("crashed", False))
"""Ways to go back, idle and under load; a backup is restored by most of the others."""


def settle(world: World) -> None:
    """Everything arrives once, and nobody had to restart anything."""
    world.wait_settled()
    world.assert_exact()
    assert [service.poll() for service in world.services] == [None]


@pytest.mark.parametrize(
    ("how", "busy"),
    [
        pytest.param(how, busy, marks=[] if (how, busy) in QUICK else [pytest.mark.long])
        for how in get_args(How)
        for busy in (False, True)
    ],
)
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
        if not busy:
            wait_acknowledged(world, NAMES)
        lost = fallible.go_back(how)
        assert all(lost.values()), lost
        told = lambda: fallible.reread(NAMES) and world.log.count("read again and written") >= len(NAMES)  # noqa: E731
        wait_until(told, lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
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
    wait_until(lambda: fallible.reread(NAMES), lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
    settle(world)
    assert world.stop(service) == 0


def test_a_network_that_breaks_while_messages_are_read_again(fallible: Fallible) -> None:
    """What a broken connection swallowed is not taken for read, nor is what was read before written twice."""
    world, count = fallible.world, 3_000
    with Proxy(world.nats.port) as to_nats:
        world.environment["EVENTWRITER_NATS__URL"] = f"nats://127.0.0.1:{to_nats.port}"
        service = world.start(**only("LOGS"), EVENTWRITER_WRITER__BATCH_MESSAGES="250")
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


def test_a_database_that_went_back_while_the_service_was_stopped(fallible: Fallible) -> None:
    """New traffic has moved everything on before the first look: the hole is found all the same."""
    world = fallible.world
    service = world.start(**only(*NAMES))
    world.traffic(NAMES, count=100)
    world.wait_settled()
    fallible.mark("restored")
    world.traffic(NAMES, count=200)
    world.wait_settled()
    assert world.stop(service) == 0
    assert all(fallible.go_back("restored").values())
    world.services.clear()
    with load(world, NAMES):
        world.start(**only(*NAMES))
        wait_until(lambda: fallible.reread(NAMES), lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
    settle(world)


def test_back_again_while_messages_are_read_again(fallible: Fallible) -> None:
    """What was read again is forgotten once more, in the middle of it, and NATS restarts with it."""
    world = fallible.world
    world.start(**only("LOGS"), EVENTWRITER_WRITER__BATCH_MESSAGES="100")
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    fallible.mark("restored")
    world.traffic(["LOGS"], count=3000)
    world.wait_settled()
    for round in range(3):
        fallible.go_back("restored")
        wait_until(lambda: sum(world.counts("LOGS")) > 200, "some of it")
        if round == 1:
            world.nats.kill()
            world.nats.start()
    settle(world)


def test_several_processes_of_several_streams_on_one(fallible: Fallible) -> None:
    """On a shared stream most of what lies in a gap is somebody else's; three workers of one ledger notice the loss."""
    world = fallible.world
    shared_stream(world)
    environment = {f"EVENTWRITER_STREAMS__{name}__STREAM": "shared" for name in NAMES}
    environment |= {"EVENTWRITER_STREAMS__LOGS__PROCESSES": "3", "EVENTWRITER_WRITER__BATCH_MESSAGES": "30"}
    world.start(**only(*NAMES), **environment)
    mixed(world, 100)
    world.wait_settled()
    fallible.mark("restored")
    mixed(world, 200)
    world.wait_settled()
    wait_acknowledged(world, NAMES, "shared")
    assert all(fallible.go_back("restored").values())
    mixed(world, 100)
    wait_until(lambda: fallible.reread(NAMES), lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
    settle(world)


def shared_stream(world: World) -> None:
    """One JetStream stream for all subjects."""
    declared = registry.load()

    async def create(client: Any) -> None:
        for name in STREAMS:
            await client.jetstream().delete_stream(name)
        subjects = [subject for name in STREAMS for subject in declared[name].subjects]
        await client.jetstream().add_stream(StreamConfig(name="shared", subjects=subjects))

    world.call(create)


def mixed(world: World, count: int) -> None:
    """Messages of three streams, and of four others that nobody takes, in turns."""
    begins = {name: max((n for m in world.published.get(name, []) for n in m.records), default=0) for name in NAMES}
    sources = {name: Traffic(name, seed=count, records=3, number=begins.get(name, 0)) for name in STREAMS}

    async def publish(client: Any) -> None:
        for number in range(count * len(STREAMS)):
            name = STREAMS[number * 3 % len(STREAMS) if number % 5 else 0]
            message = sources[name].next()
            await client.publish(message.subject, message.payload, headers=message.headers)
            if name in NAMES:
                world.published.setdefault(name, []).append(message)
        await client.flush()

    world.call(publish)


@pytest.mark.parametrize("ack", ["each", pytest.param("all", marks=pytest.mark.long)])
def test_messages_larger_than_a_batch(fallible: Fallible, ack: str) -> None:
    """They are read again one at a time, between small ones."""
    world = fallible.world
    environment = {"EVENTWRITER_WRITER__BATCH_BYTES": "64KiB", "EVENTWRITER_WRITER__ACK": ack}
    world.start(**only("LOGS"), **environment)
    world.traffic(["LOGS"], count=20)
    world.wait_settled()
    fallible.mark("restored")
    for number in range(10):
        text = json.dumps({"body": "x" * 100_000, "attributes": {"n": LOADED + number}}).encode()
        world.publish("LOGS", [Publication("logs.otel.processed", text, (LOADED + number,))])
        world.traffic(["LOGS"], count=20, seed=number)
    world.wait_settled()
    assert fallible.go_back("restored")["LOGS"]
    settle(world)


def test_an_older_row_that_is_read_again_replaces_no_newer_one(fallible: Fallible) -> None:
    """For tables with a key the latest message wins, also when its predecessor comes once more and later."""
    world = fallible.world

    def event(number: int, text: str) -> Publication:
        data = {"version": "1.1", "host": "h", "short_message": text, "timestamp": 1.0}
        envelope = {"specversion": "1.0", "id": f"e-{number}", "source": "s", "type": "t", "data": data}
        envelope |= {"time": "2026-01-01T00:00:00Z", "subject": "events.syslog.processed"}
        return Publication("events.syslog.processed", json.dumps(envelope).encode(), (number,))

    world.start(**only("EVENTS"), EVENTWRITER_WRITER__BATCH_MESSAGES="50")
    world.publish("EVENTS", [event(1, "first")])
    world.wait_settled()
    fallible.mark("restored")
    world.publish("EVENTS", [event(number, "earlier") for number in range(2, 500)])
    world.wait_settled()
    fallible.proxy.stall()
    world.publish("EVENTS", [event(number, "later") for number in range(2, 500)])
    fallible.go_back("restored")
    fallible.proxy.resume()
    wait_until(lambda: fallible.reread(["EVENTS"]), lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
    world.wait_settled()
    found = world.query("SELECT count(*), count(*) FILTER (WHERE short_message = 'later') FROM events")
    assert found == [(499, 498)]
