"""A ledger that vanished under running workers: nothing is acknowledged without its row, and somebody is told."""

from __future__ import annotations

import contextlib
import time

import psutil
import pytest

from fix_failover import TOLD_WITHIN, Fallible, load, missing, wait_complete
from fix_service import World, only, wait_until
from processes import Process
from traffic import Publication

NAMES = ("LOGS", "TELEMETRY", "EVENTS")
BROKEN = Publication("logs.syslog", b"\xff not a message", (), 1)


def seconds_of(service: Process, during: float) -> float:
    """CPU seconds of a service and its workers within a while in which nothing arrives."""
    tree = [psutil.Process(service.pid), *psutil.Process(service.pid).children(recursive=True)]

    def used() -> float:
        return sum(times.user + times.system for times in (process.cpu_times() for process in tree))

    before = used()
    time.sleep(during)
    return used() - before


def acknowledged(world: World, name: str) -> bool:
    """Whether JetStream waits for no acknowledgement of what was published."""
    return bool(world.consumer(name).ack_floor.stream_seq == len(world.published[name]))


@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.long)], ids=["idle", "under load"])
def test_a_ledger_truncated_under_running_workers(world: World, busy: bool) -> None:
    """Numbers of rows start again, and several workers of several streams hold old ones: none mistakes another's."""
    environment = {"EVENTWRITER_STREAMS__LOGS__PROCESSES": "2", "EVENTWRITER_WRITER__BATCH_MESSAGES": "20"}
    service = world.start(**only(*NAMES), **environment)
    world.traffic(NAMES, count=120, broken=0)
    world.wait_settled()
    with load(world, NAMES, broken=0) if busy else contextlib.nullcontext():
        for _ in range(2):
            world.execute("TRUNCATE eventwriter.ledger RESTART IDENTITY CASCADE")
            told = lambda: all(  # noqa: E731
                any(name in line and "replay" in line for line in world.log.splitlines()) for name in NAMES
            )
            wait_until(told, lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
            world.traffic(NAMES, count=60, broken=0)
    wait_complete(world)
    world.assert_exact()
    for name in NAMES:
        wait_until(lambda: acknowledged(world, name), f"the acks of {name}")  # noqa: B023 - called at once
    assert len(world.query("SELECT FROM eventwriter.ledger")) == len(NAMES)
    assert seconds_of(service, 3) < 1
    assert service.poll() is None
    assert world.stop(service, 10) == 0


@pytest.mark.parametrize("busy", [pytest.param(False, marks=pytest.mark.long), True], ids=["idle", "under load"])
def test_a_database_of_before_the_ledger(fallible: Fallible, busy: bool) -> None:
    """Restored to before its first start: new messages are written; what is missing is said, not guessed."""
    world = fallible.world
    fallible.mark("restored")
    service = world.start(**only("LOGS"))
    world.traffic(["LOGS"], count=120, broken=0)
    world.wait_settled()
    wait_until(lambda: acknowledged(world, "LOGS"), "the acks")
    with load(world, ["LOGS"], broken=0) if busy else contextlib.nullcontext():
        lost = fallible.go_back("restored")["LOGS"]
        assert lost
        told = lambda: any("LOGS" in line and "replay" in line for line in world.log.splitlines())  # noqa: E731
        wait_until(told, lambda: f"it says so\n{world.log[-5000:]}", TOLD_WITHIN)
        world.traffic(["LOGS"], count=100, broken=0)
    wait_until(lambda: missing(world).get("LOGS", set()) <= lost, lambda: f"the new ones\n{world.log[-5000:]}")
    assert missing(world).get("LOGS") == lost
    world.run("replay", "--stream", "LOGS", "--from-seq", "1")
    wait_complete(world)
    world.assert_exact()
    assert service.poll() is None
    assert world.stop(service, 10) == 0


def test_a_part_of_a_batch_needs_no_ledger_once_it_is_committed(world: World) -> None:
    """What a worker that died had in hand is written in parts: those before do not come again with those after."""
    world.traffic(["LOGS"], count=64, broken=0)
    settings = {"EVENTWRITER_WRITER__ACK_WAIT": "2", "EVENTWRITER_WRITER__LINGER": "0.5"}
    dead = world.start("worker", "--stream", "LOGS", **settings, EVENTWRITER_CRASH_AT="LOGS:after_copy")
    wait_until(lambda: dead.poll() is not None, "its end")
    world.execute(
        "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF EXISTS (SELECT FROM logs) THEN PERFORM pg_advisory_xact_lock_shared(42); END IF; RETURN NULL; END $$"
    )
    world.execute("CREATE TRIGGER wait BEFORE INSERT ON logs EXECUTE FUNCTION wait()")
    waiting = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 42 AND NOT granted"
    with world.connect() as gate:
        gate.execute("SELECT pg_advisory_lock(42)")
        process = world.start("worker", "--stream", "LOGS", **settings)
        wait_until(lambda: world.query(waiting), lambda: f"a part is written, the next one waits\n{world.log[-5000:]}")
        assert 0 < world.query("SELECT count(*) FROM logs")[0][0] < sum(len(p.records) for p in world.published["LOGS"])
        world.execute("TRUNCATE eventwriter.ledger CASCADE")
    wait_complete(world)
    wait_until(lambda: acknowledged(world, "LOGS"), "the acks")
    world.assert_exact()
    assert world.stop(process) == 0


def test_dead_letters_that_outlive_their_ledger(world: World) -> None:
    """Those of an earlier row with the same number stand in nobody's way."""
    world.publish("LOGS", [BROKEN])
    process = world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    assert world.stop(process) == 0
    world.execute("TRUNCATE eventwriter.ledger RESTART IDENTITY CASCADE")
    world.call(lambda client: client.jetstream().delete_consumer("LOGS", "eventwriter-logs"))
    process = world.start("worker", "--stream", "LOGS")
    world.traffic(["LOGS"], count=50, broken=0)
    wait_until(lambda: world.counts("LOGS") == (50, 1), lambda: f"all of them\n{world.log[-5000:]}")
    world.assert_exact()
    assert world.stop(process) == 0
