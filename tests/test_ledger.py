"""The ledger and the delivery protocol: every sequence is written once, whoever dies and whatever comes again."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg import sql

from eventwriter import registry
from eventwriter.config import PostgresConfig
from eventwriter.ledger import Done, Identity, Ledger, merge, to_multirange
from eventwriter.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")


def decode(message: Message) -> Decoded:
    """A row with the message's number, unless it says that it is bad."""
    if message.payload == b"bad":
        return Decoded((), [Reject("malformed", "it says so")])
    return Decoded([(int(message.payload),)])


STREAM = Stream("NUMBERS", ("numbers.>",), "numbers", (Column("n", "bigint"),), decode)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a fresh database with eventwriter's own tables and a table of numbers."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        connection.execute("CREATE TABLE numbers (n bigint)")
        yield connection


def open_sink(dsn: str) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn), STREAM, "numbers")
    sink.open()
    sink.begin(IDENTITY)
    return sink


def message(sequence: int, payload: bytes | None = None) -> Message:
    """One message, whose number is its sequence."""
    return Message("numbers.x", str(sequence).encode() if payload is None else payload, sequence, sequence)


def numbers(connection: psycopg.Connection[Any]) -> list[int]:
    """What is in the table."""
    return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


def test_a_message_that_is_twice_in_a_batch_is_written_once(connection: Any, database: str) -> None:
    """Delivered again while its first delivery still waited: the ledger knows neither, and the batch must tell."""
    sink = open_sink(database)
    messages = [message(1), message(2, b"bad"), message(3), message(1), message(2, b"bad"), message(4)]
    outcome = sink.write(Batch(messages, [1, 2, 3, 1, 2, 4]))
    sink.close()
    assert numbers(connection) == [1, 3, 4]
    assert (outcome.written, outcome.deadlettered, outcome.already_done) == (3, 1, 2)
    assert connection.execute("SELECT sequence FROM eventwriter.dead_letters").fetchall() == [(2,)]


def test_merge_and_multirange() -> None:
    """Touching and overlapping ranges become one; PostgreSQL gets half-open ones."""
    assert merge([(5, 6), (1, 1), (2, 3), (3, 4), (9, 9)]) == [(1, 6), (9, 9)]
    assert merge([(1, 10), (2, 3)]) == [(1, 10)]
    assert merge([]) == []
    assert to_multirange([(1, 6), (9, 9)]) == "{[1,7),[9,10)}"


def test_guard_and_record(connection: Any) -> None:
    """A range of which anything is done is refused as a whole; without guard it is added; counts add up."""
    ledger = Ledger.open(connection, IDENTITY)
    assert Ledger.open(connection, IDENTITY).row == ledger.row
    assert ledger.highest(connection) == 0
    assert ledger.record(connection, [(1, 5)], Done(messages_written=4, messages_deadlettered=1, rows_written=9))
    assert not ledger.record(connection, [(5, 7)], Done(messages_written=3))
    assert ledger.record(connection, [(5, 7)], Done(messages_written=2), guard=False)
    assert ledger.highest(connection) == 7
    assert ledger.known(connection, [4, 7, 8]) == {4, 7}
    row = connection.execute("SELECT messages_written, messages_deadlettered, rows_written FROM eventwriter.ledger")
    assert row.fetchone() == (6, 1, 9)


def test_resume_fold_and_distrust(connection: Any) -> None:
    """A consumer begins again at the first gap; gaps are closed below the ack floor, but never what is distrusted."""
    ledger = Ledger.open(connection, IDENTITY)
    ledger.record(connection, [(3, 5), (10, 12), (20, 20)], Done())
    assert [ledger.resume(connection, first) for first in (1, 3, 5, 7, 10)] == [1, 6, 6, 7, 13]
    ledger.distrust(connection, 7)
    ledger.distrust(connection, 2)
    ledger.fold(connection, 12)
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[3,6),[8,13),[20,21)}",)
    ledger.fold(connection, 5)  # an ack floor from before
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[3,6),[8,13),[20,21)}",)


class Crashed(Exception):
    """A worker that died at a point of its transaction."""


@dataclass
class Worker:
    """One process: a sink, what was delivered to it, and what the source remembers of the last delivery."""

    sink: Sink
    crash_at: list[str]
    inbox: list[tuple[int, int, bool]] = field(default_factory=list)
    """(consumer sequence, stream sequence, first delivery)"""
    previous: tuple[int, int] | None = None


@dataclass
class Consumer:
    """JetStream's side of a durable pull consumer with explicit acks and a filter."""

    next: int = 1
    """The stream sequence at which the search for the next message begins."""
    deliveries: int = 0
    pending: set[int] = field(default_factory=set)
    again: list[int] = field(default_factory=list)
    floor: int = 0


class Delivery(RuleBasedStateMachine):
    """A stream with foreign messages, a consumer, and two workers, all of which may fail between any two steps."""

    connection: psycopg.Connection[Any]
    sinks: tuple[tuple[Sink, list[str]], tuple[Sink, list[str]]]
    """Of the two workers, with the point at which each crashes next; opened once, for that takes long."""

    def __init__(self) -> None:
        super().__init__()
        for table in ("numbers", "eventwriter.dead_letter_messages", "eventwriter.ledger"):
            self.connection.execute(sql.SQL(f"DELETE FROM {table}"))
        self.stream: list[bool] = []  # whether the message with sequence index + 1 is ours
        self.consumer = Consumer()
        self.earlier = Consumer()
        self.workers = [self._worker(0), self._worker(1)]

    def teardown(self) -> None:
        """In the end everything that was lost in between has come again."""
        self._finish()

    def _worker(self, which: int) -> Worker:
        sink, crash_at = self.sinks[which]
        crash_at.clear()
        sink.begin(IDENTITY)
        return Worker(sink, crash_at)

    @rule(kinds=st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=20))
    def publish(self, kinds: list[bool]) -> None:
        """Messages of ours and of others."""
        self.stream.extend(kinds)

    @initialize()
    def published_before(self) -> None:
        """Something to begin with."""
        self.stream.extend([True, False, True, True] * 6)

    @rule(which=st.integers(0, 1), count=st.integers(1, 6))
    def deliver(self, which: int, count: int) -> None:
        """Redeliveries go before new messages, each with the next consumer sequence."""
        consumer, worker = self.consumer, self.workers[which]
        for _ in range(count):
            if consumer.again:
                sequence, first = consumer.again.pop(0), False
            else:
                while consumer.next <= len(self.stream) and not self.stream[consumer.next - 1]:
                    consumer.next += 1
                if consumer.next > len(self.stream):
                    return
                sequence, first = consumer.next, True
                consumer.next += 1
                consumer.pending.add(sequence)
            consumer.deliveries += 1
            worker.inbox.append((consumer.deliveries, sequence, first))

    def _take(self, worker: Worker, count: int) -> Batch:
        """What Source._collect does: the first sequence of which each message tells."""
        messages, firsts = [], []
        for delivery, sequence, new in worker.inbox[:count]:
            first = sequence
            if new:
                if worker.previous and worker.previous[0] + 1 == delivery and worker.previous[1] < sequence:
                    first = worker.previous[1] + 1
                worker.previous = (delivery, sequence)
            else:
                worker.previous = None
            messages.append(message(sequence, b"bad" if sequence % 7 == 0 else None))
            firsts.append(first)
        del worker.inbox[:count]
        return Batch(messages, firsts)

    @rule(
        which=st.integers(0, 1),
        count=st.integers(1, 12),
        fate=st.sampled_from(["fine"] * 4 + ["after_copy", "after_ledger", "after_commit", "ambiguous", "half acked"]),
        ahead=st.booleans(),
    )
    def write(self, which: int, count: int, fate: str, ahead: bool) -> None:
        """A batch is written and acknowledged, or the worker dies on the way, or does not know whether it committed."""
        worker = self.workers[which]
        if not worker.inbox:
            self.deliver(which=which, count=count)
        batch = self._take(worker, count)
        if not batch.messages:
            return
        if ahead:
            worker.sink.prepare(batch)
        if fate in ("after_copy", "after_ledger"):
            worker.crash_at.append(fate)
        try:
            worker.sink.write(batch)
        except Crashed:
            self._replace(which)
            return
        if fate == "after_commit":
            self._replace(which)
            return
        if fate == "ambiguous":
            assert worker.sink.write(batch).written == 0
        acked = [m.sequence for m in batch.messages]
        self._ack(acked[: len(acked) // 2] if fate == "half acked" else acked)

    def _ack(self, sequences: list[int]) -> None:
        consumer = self.consumer
        consumer.pending.difference_update(sequences)
        consumer.again = [sequence for sequence in consumer.again if sequence not in sequences]
        consumer.floor = min(consumer.pending, default=consumer.next) - 1

    def _replace(self, which: int) -> None:
        self.workers[which] = self._worker(which)

    @rule()
    def ack_wait_passes(self) -> None:
        """What is not acknowledged comes again, in any order, also what still waits in a worker's hands."""
        self.consumer.again = sorted(self.consumer.pending, key=lambda sequence: sequence * 7 % 11)

    @rule()
    def server_saves(self) -> None:
        """The consumer's state reaches the disk."""
        self.earlier = copy.deepcopy(self.consumer)

    @rule()
    def server_restarts(self) -> None:
        """The consumer's state is that of some time ago; connections, and what was on its way, are lost."""
        self.consumer = copy.deepcopy(self.earlier)
        for worker in self.workers:
            worker.previous = None
        self.ack_wait_passes()

    @rule(share=st.floats(0, 1))
    def consumer_is_created_again(self, share: float) -> None:
        """At any sequence up to the first that is not done, as somebody may who knows less than the ledger."""
        ledger = self.workers[0].sink._opened_ledger
        start = max(1, int(share * ledger.resume(self.connection, 1)))
        self.consumer = Consumer(next=start, floor=start - 1)
        self.earlier = copy.deepcopy(self.consumer)
        for worker in self.workers:  # the pull ends with the consumer, and the worker with the pull
            worker.inbox.clear()
            worker.previous = None
        if start > 1:
            ledger.distrust(self.connection, start - 1)

    @rule()
    def fold(self) -> None:
        """The ledger's gaps are closed below the ack floor."""
        if self.consumer.floor:
            self.workers[0].sink.fold(self.consumer.floor)

    @invariant()
    def exact(self) -> None:
        """Nothing twice; what the ledger claims is written, a dead letter, or somebody else's."""
        written = [row[0] for row in self.connection.execute("SELECT n FROM numbers")]
        dead = [row[0] for row in self.connection.execute("SELECT sequence FROM eventwriter.dead_letters")]
        assert len(written) == len(set(written))
        assert len(dead) == len(set(dead))
        claimed = self.connection.execute(
            "SELECT lower(r), upper(r) FROM eventwriter.ledger, unnest(done) r"
        ).fetchall()
        done = {sequence for lower, upper in claimed for sequence in range(lower, upper)}
        ours = {n for n, mine in enumerate(self.stream, 1) if mine}
        assert set(written) | set(dead) == done & ours
        assert set(dead) == {n for n in done & ours if n % 7 == 0}

    def _finish(self) -> None:
        for which in (0, 1):
            self._replace(which)
        self.ack_wait_passes()
        for _ in range(2 + len(self.stream)):
            self.deliver(which=0, count=6)
            self.write(which=0, count=12, fate="fine", ahead=True)
        self.exact()
        ours = [n for n, mine in enumerate(self.stream, 1) if mine]
        written = self.connection.execute(
            "SELECT n FROM numbers UNION ALL SELECT sequence FROM eventwriter.dead_letters"
        )
        assert sorted(row[0] for row in written) == ours
        self.fold()
        row = self.connection.execute("SELECT count(*) FROM eventwriter.ledger, unnest(done)").fetchone()
        assert row is not None
        # One range from the consumer's start on, or two: before and after what was distrusted; and the newest one.
        assert row[0] <= 4


@pytest.fixture
def machine(connection: Any, database: str) -> Iterator[type[Delivery]]:
    """The machine with a database and two workers."""
    sinks = (crashing_sink(database), crashing_sink(database))
    yield type("Machine", (Delivery,), {"connection": connection, "sinks": sinks})
    for sink, _ in sinks:
        sink.close()


def test_every_interleaving_writes_each_message_once(machine: type[Delivery]) -> None:
    """Two workers, crashes, redeliveries, lost acks, forgotten state: each message of ours is written once."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_long_interleavings_write_each_message_once(machine: type[Delivery]) -> None:
    """The same for long runs, in which faults are rare enough that much is on its way when they come."""
    new: Callable[[], Delivery] = machine
    for seed in range(30):
        rng = random.Random(seed)
        run = new()
        run.stream.extend([True, False, True, True] * 6)
        for _ in range(60):
            which, count = rng.randrange(2), rng.randrange(1, 7)
            fate = rng.choice(["fine"] * 6 + ["after_copy", "after_ledger", "after_commit", "ambiguous", "half acked"])
            chosen: Callable[[], Any] = rng.choices(
                [
                    lambda: run.publish(kinds=rng.choices([True, False], k=10)),  # noqa: B023 - called at once
                    lambda: run.deliver(which=which, count=count),  # noqa: B023
                    lambda: run.write(which=which, count=count, fate=fate, ahead=rng.random() < 0.5),  # noqa: B023
                    run.ack_wait_passes,
                    run.server_saves,
                    run.server_restarts,
                    lambda: run.consumer_is_created_again(share=rng.random()),  # noqa: B023
                    run.fold,
                ],
                [10, 40, 40, 4, 3, 2, 1, 4],
            )[0]
            chosen()
            run.exact()
        run.teardown()


def crashing_sink(dsn: str) -> tuple[Sink, list[str]]:
    """A worker's sink, and the points at which its transaction ends as if the process had died."""
    crash_at: list[str] = []

    def at(point: str) -> None:
        if point in crash_at:
            raise Crashed(point)

    sink = Sink(PostgresConfig(dsn=dsn, pool_size=1), STREAM, "numbers", None, at)
    sink.open()
    return sink, crash_at
