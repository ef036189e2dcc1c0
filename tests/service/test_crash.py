"""Workers that die at every point of a message's way leave each message in its table exactly once."""

from __future__ import annotations

import collections
import contextlib
import functools
import itertools
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from eventwriter import registry
from eventwriter.embedded import PostgresServer
from fix_service import CRASHED, STREAMS, World, wait_until
from patience import PATIENCE

POINTS = (
    "at_start",
    "at_consumer",
    "after_pull",
    "after_decode",
    "in_copy",
    "after_copy",
    "after_ledger",
    "after_dead_letters",
    "after_commit",
    "in_acks",
    "after_acks",
    "in_drain",
)
QUICK = {"EVENTWRITER_WRITER__ACK_WAIT": "1s"}
SMALL = {"EVENTWRITER_WRITER__BATCH_MESSAGES": "20"}


def waits(world: World, stream: str) -> bool:
    """Whether the worker of a stream waits for a lock, long enough to receive the next batch."""
    return bool(
        world.query(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s "
            "AND wait_event_type = 'Lock' AND now() - state_change > '100 ms'",
            f"eventwriter {stream}",
        )
    )


def crash(world: World, point: str, names: Sequence[str], **environment: str) -> None:
    """Runs one worker for each stream, all at once, until every one has died at ``point``."""
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(psycopg.connect(world.dsn))
        if point == "in_drain":  # only a worker that is told to end while it holds something gets there
            lock.execute("SELECT 1 FROM eventwriter.ledger FOR UPDATE")
        running = {
            name: world.start(
                "worker", "--stream", name, EVENTWRITER_CRASH_AT=f"{name}:{point}", **QUICK, **environment
            )
            for name in names
        }
        if point == "in_drain":
            for name in names:
                wait_until(functools.partial(waits, world, name), f"{name} writes")
            for process in running.values():
                process.send_signal(signal.SIGTERM)
    missed = []
    for name, process in running.items():
        try:
            status = process.wait(20 * PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{name} never came to {point}\n{world.log}")
        if point == "in_drain" and not status:  # it had not received anything yet but what it wrote
            missed.append(name)
        else:
            assert status == CRASHED, f"{name} {point}\n{world.log}"
    if missed:
        crash(world, point, missed, **environment)


def rows(world: World, dsn: str, stream: str) -> collections.Counter[tuple[Any, ...]]:
    """The rows of a stream's table, in the columns that the stream fills."""
    declared = registry.load()[stream]
    with psycopg.connect(dsn) as connection:
        known = {
            row[0]
            for row in connection.execute(
                "SELECT column_name FROM information_schema.columns WHERE table_name = %s", [declared.table]
            )
        }
        names = ", ".join(f"{column.name}::text" for column in declared.columns if column.name in known)
        return collections.Counter(connection.execute(f"SELECT {names} FROM {declared.table}"))


def letters(dsn: str) -> list[tuple[Any, ...]]:
    """The dead letters with everything that a decoder and JetStream say of them."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT logical_stream, sequence, record_index, reason, detail, sqlstate, subject, headers::text, payload, "
            "message_time FROM eventwriter.dead_letters ORDER BY 1, 2, 3"
        ).fetchall()


def assert_undisturbed(world: World, postgres_server: PostgresServer, name: str) -> None:
    """Writes the same messages once more into another database, in peace, and compares every column."""
    control = postgres_server.create_database(name)
    environment = {"EVENTWRITER_POSTGRES__DSN": control}
    environment |= {f"EVENTWRITER_STREAMS__{stream}__DURABLE": "control" for stream in STREAMS}
    world.run("schema", "apply", EVENTWRITER_POSTGRES__DSN=control)
    service = world.start("supervise", **environment)
    peaceful = World(world.nats, control, world.folder, world.environment, published=world.published)
    peaceful.wait_settled()
    assert world.stop(service) == 0
    for stream in world.published:
        assert rows(world, world.dsn, stream) == rows(world, control, stream), stream
    assert letters(world.dsn) == letters(control)


@pytest.mark.parametrize("each", [1, pytest.param(len(STREAMS), marks=pytest.mark.long)])
def test_a_crash_at_any_point_of_any_stream(
    world: World, postgres_server: PostgresServer, database: str, each: int
) -> None:
    """Whatever was in hand is delivered again, and is in its table once; column by column as if nothing happened.

    At every point workers of so many streams; which ones, takes turns.
    """
    turns = itertools.cycle(STREAMS)
    for number, point in enumerate(POINTS):
        names = [*itertools.islice(turns, each)]
        world.traffic(names, count=400 if point == "in_drain" else 60, broken=0.05, seed=number)
        crash(world, point, names, **SMALL)
    service = world.start("supervise", **QUICK)
    world.wait_settled()
    world.assert_exact()
    assert world.stop(service) == 0
    for stream in STREAMS:
        assert world.consumer(stream).num_ack_pending == 0, stream
    assert_undisturbed(world, postgres_server, f"{database.rpartition('=')[2]}_control")


def test_the_same_message_may_kill_many_workers(world: World) -> None:
    """Crash upon crash after the commit and before the acks: the ledger knows the batch every time."""
    world.traffic(["LOGS", "EVENTS"], count=50, broken=0.05)
    for _ in range(4):
        crash(world, "after_commit", ["LOGS", "EVENTS"])
    world.start("worker", "--stream", "LOGS", **QUICK)
    world.start("worker", "--stream", "EVENTS", **QUICK)
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    world.wait_settled()
    world.assert_exact()


def test_with_ack_all_what_a_dead_worker_held_is_not_acknowledged_by_the_next(world: World) -> None:
    """The next worker gets newer messages first: acknowledging these must not acknowledge what is still to come."""
    environment = {"EVENTWRITER_WRITER__ACK": "all", "EVENTWRITER_WRITER__BATCH_MESSAGES": "50"}
    world.traffic(["LOGS"], count=300, broken=0.05)
    crash(world, "after_decode", ["LOGS"], **environment)
    process = world.start("worker", "--stream", "LOGS", **QUICK, **environment)
    world.wait_settled(20)
    world.assert_exact()
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    assert world.stop(process) == 0
