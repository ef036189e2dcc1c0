"""The ledger and the delivery protocol: every sequence is written once, whoever dies and whatever comes again."""

from __future__ import annotations

import copy
import random
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg import sql

from eventwriter import registry
from eventwriter.config import loading
from eventwriter.config.loading import PostgresConfig
from eventwriter.config.subjects import subject_matches
from eventwriter.coverage import Segment
from eventwriter.errors import ConfigurationError, LedgerChangedError, UnavailableError
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo
from eventwriter.jetstream.limits import Limits
from eventwriter.postgres.ledger import Done, Identity
from eventwriter.postgres.ledgers import Opening, accept_losses, open_ledger
from eventwriter.postgres.sink import Sink
from eventwriter.postgres.succession import copy_ledger
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream
from profiles import examples

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")


def decode(message: Message) -> Decoded:
    """A row with the message's number, unless it says that it is bad."""
    if message.payload == b"bad":
        return Decoded((), [Reject("malformed", "it says so")])
    return Decoded([(int(message.payload),)])


STREAM = Stream("NUMBERS", ("numbers.>",), "numbers", (Column("n", "bigint"),), decode)


@pytest.fixture
def connection(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to a fresh database with eventwriter's own tables and a table of numbers."""
    connection.execute("CREATE TABLE numbers (n bigint)")
    return connection


def open_sink(dsn: str) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn), STREAM, "numbers")
    sink.open()
    sink.begin(Opening(IDENTITY, STREAM.subjects))
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


def test_guard_and_record(connection: Any) -> None:
    """A range of which anything is done is refused as a whole; counts add up; a second worker opens the same row."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    assert ledger.new
    again = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    assert (again.row, again.new) == (ledger.row, False)
    assert ledger.glance(connection).highest == 0
    assert ledger.record(connection, [(1, 5)], Done(messages_written=4, messages_deadlettered=1, rows_written=9))
    assert not ledger.record(connection, [(5, 7)], Done(messages_written=3))
    assert ledger.record(connection, [(5, 7)], Done(messages_written=2), fresh=[(6, 7)])
    assert not ledger.record(connection, [(8, 9)], Done(), fresh=[(7, 7)])
    assert ledger.glance(connection).highest == 7
    assert ledger.known(connection, [message(n) for n in (4, 7, 8)]) == ({4, 7}, set())
    row = connection.execute("SELECT messages_written, messages_deadlettered, rows_written FROM eventwriter.ledger")
    assert row.fetchone() == (6, 1, 9)


def test_the_newest_message(connection: Any) -> None:
    """Has the highest sequence, in whatever order messages come; another durable that goes on with all knows it."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    assert ledger.glance(connection).newest is None
    for number, newest in ((7, (7, 70)), (2**40, (2**40, 70)), (5, (2**40, 70)), (2**40 + 1, (2**40 + 1, 70))):
        ours = message(number)._replace(time=70)
        assert ledger.record(connection, [(number, number)], Done(), newest=ours)
        assert ledger.glance(connection).newest == newest
    assert ledger.record(connection, [(9, 9)], Done())
    assert ledger.glance(connection).newest == (2**40 + 1, 70)
    batch = Batch([message(number) for number in (3, 9, 4)], [1, 5, 4])
    assert batch.newest.sequence == 9
    for old, new, through in (("writer", "b", None), ("b", "c", 2**40)):
        identity = replace(IDENTITY, durable=new)
        assert copy_ledger(connection, identity, old, through)
        found = open_ledger(connection, Opening(identity, STREAM.subjects)).glance(connection)
        assert (found.highest, found.newest) == ((2**40, None) if through else (2**40 + 1, (2**40 + 1, 70)))


def test_what_is_missing(connection: Any) -> None:
    """A consumer begins again at the first gap; what lies before the ledger's beginning is not missing."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects, begins=lambda: 2))
    ledger.record(connection, [(3, 5), (10, 12), (20, 20)], Done())
    assert [ledger.resume(connection, first) for first in (1, 3, 5, 7, 10)] == [6, 6, 6, 7, 13]
    assert [(each.first, each.last) for each in ledger.missing(connection, 1, 20)] == [(6, 9), (13, 19)]
    ledger.close(connection, [(6, 9)])
    assert [(each.first, each.last) for each in ledger.missing(connection, 1, 22)] == [(13, 19), (21, 22)]


def test_a_new_ledger_begins_where_nobody_writes_any_more(connection: Any, database: str) -> None:
    """The old one may vanish at any moment: until then others wrote with it what the consumer delivered meanwhile."""
    open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    connection.execute("TRUNCATE eventwriter.ledger CASCADE")
    asked = []

    def begins() -> int:
        asked.append(1)
        with psycopg.connect(database, options="-c lock_timeout=50") as other:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("TRUNCATE eventwriter.ledger CASCADE")
            other.rollback()
            assert other.execute("SELECT FROM eventwriter.ledger").rowcount == 0
        return 7

    assert open_ledger(connection, Opening(IDENTITY, STREAM.subjects, begins)).begins == 7
    assert open_ledger(connection, Opening(IDENTITY, STREAM.subjects, begins)).begins == 7
    assert asked == [1]


def test_a_row_is_found_by_what_it_is_for(connection: Any) -> None:
    """A row that is gone, or another one with its number, is never changed: the ledger must be opened again."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    ledger.record(connection, [(1, 5)], Done())
    connection.execute("TRUNCATE eventwriter.ledger RESTART IDENTITY CASCADE")
    other = replace(IDENTITY, durable="other")
    assert open_ledger(connection, Opening(other, STREAM.subjects)).row != ledger.row  # dead letters may be there still
    connection.execute("UPDATE eventwriter.ledger SET id = %s", [ledger.row])
    taken = open_ledger(connection, Opening(other, STREAM.subjects))
    uses: list[Callable[[], object]] = [
        lambda: ledger.record(connection, [(6, 7)], Done()),
        lambda: ledger.close(connection, [(6, 7)]),
        lambda: ledger.missing(connection, 1, 10),
        lambda: ledger.glance(connection),
    ]
    for use in uses:
        with pytest.raises(LedgerChangedError, match="gone or was changed"):
            use()
    assert ledger.known(connection, [message(1)]) == (set(), set())
    assert taken.glance(connection).highest == 0


def test_a_database_that_went_back_is_noticed(connection: Any) -> None:
    """Its version is lower than that of the last change that was seen, whoever made it."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    for first in (1, 2, 3):
        assert ledger.record(connection, [(first, first)], Done())
        assert ledger.committed()
    connection.execute("UPDATE eventwriter.ledger SET version = version - 2, done = '{[1,2)}'")
    assert ledger.record(connection, [(4, 4)], Done())
    assert not ledger.committed()
    connection.execute("UPDATE eventwriter.ledger SET version = version - 1, done = '{[1,2)}'")
    assert ledger.glance(connection).rewound
    assert not ledger.glance(connection).rewound


def test_a_database_of_before_two_new_durables_names_the_one_to_go_on_with(connection: Any) -> None:
    """The ledger of the second is not there yet, that of the first knows what is in the table."""
    open_ledger(connection, Opening(IDENTITY, STREAM.subjects)).record(connection, [(1, 5)], Done())
    third = Opening(replace(IDENTITY, durable="third"), STREAM.subjects, lambda: 9, continues="second", used=True)
    with pytest.raises(ConfigurationError, match='set continues = "writer"'):
        open_ledger(connection, third)
    ledger = open_ledger(connection, replace(third, continues="writer"))
    assert ledger.begins == 0
    assert ledger.glance(connection).highest == 5


def test_a_new_durable_goes_on_with_the_ledger_of_the_old_one(connection: Any) -> None:
    """It knows what the old one knows, and the old one writes nothing any more; a name without ledger is an error."""
    old = open_ledger(connection, Opening(IDENTITY, STREAM.subjects, begins=lambda: 1))
    old.record(connection, [(2, 5)], Done())
    identity = replace(IDENTITY, durable="new")
    new = open_ledger(connection, Opening(identity, STREAM.subjects, begins=lambda: 4, continues="writer"))
    assert new.glance(connection).highest == 5
    assert new.begins == 1
    assert not new.record(connection, [(5, 6)], Done())
    with pytest.raises(LedgerChangedError):
        old.record(connection, [(6, 6)], Done())
    with pytest.raises(ConfigurationError, match='durable = "new"'):
        open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    assert not open_ledger(connection, Opening(identity, STREAM.subjects, continues="writer")).new
    with pytest.raises(ConfigurationError, match="new goes on with that ledger already"):
        open_ledger(connection, Opening(replace(IDENTITY, durable="third"), STREAM.subjects, continues="writer"))
    with pytest.raises(ConfigurationError, match="no ledger of that durable"):
        open_ledger(connection, Opening(replace(IDENTITY, durable="fourth"), STREAM.subjects, continues="typo"))
    anew = replace(identity, stream_created=datetime(2026, 2, 1, tzinfo=UTC))
    assert not open_ledger(connection, Opening(anew, STREAM.subjects, continues="writer")).scope.past


def test_filters_belong_to_what_is_done(connection: Any) -> None:
    """A subject that is added has all its history missing, one that was there before only what came in between."""
    first = open_ledger(connection, Opening(IDENTITY, ("a", "b")))
    first.record(connection, [(1, 10)], Done())
    second = open_ledger(connection, Opening(IDENTITY, ("a",)))
    with pytest.raises(LedgerChangedError):
        first.record(connection, [(11, 11)], Done())
    assert second.missing(connection, 1, 10) == []
    second.record(connection, [(11, 20)], Done())
    third = open_ledger(connection, Opening(IDENTITY, ("a", "b", "c")))
    assert third.missing(connection, 1, 20) == [Segment(1, 10, ("c",)), Segment(11, 20, ("b", "c"))]
    messages = [Message(subject, b"", n, n) for subject, n in [("a", 5), ("b", 5), ("c", 5), ("a", 15), ("b", 16)]]
    assert [m for m in messages if third.known(connection, [m])[1]] == [messages[0], messages[1], messages[3]]
    assert third.scope.reaches_back(Batch([messages[0]], [5]))
    assert not third.scope.reaches_back(Batch([Message("a", b"", 21, 21)], None, span=(21, 21)))
    with pytest.raises(ConfigurationError, match="was started with the subjects a, b, c"):
        open_ledger(connection, Opening(IDENTITY, ("a",), seen=0))


def test_what_is_gone_is_told_until_it_is_accepted(connection: Any) -> None:
    """It is closed, and counted until somebody takes note."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    ledger.record(connection, [(11, 20)], Done())
    ledger.close(connection, [(1, 10)])
    ledger.lose(connection, (1, 10), datetime(2026, 1, 2, tzinfo=UTC))
    assert ledger.missing(connection, 1, 20) == []
    assert ledger.glance(connection).lost == 10
    assert [row[:2] for row in accept_losses(connection, "NUMBERS")] == [(1, 10)]
    assert ledger.glance(connection).lost == 0


def test_a_ledger_of_the_first_release_goes_on(database: str) -> None:
    """`schema apply` brings its table to today's form; what it knew it knows, and nothing before that is missing."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "CREATE SCHEMA eventwriter; CREATE TABLE eventwriter.ledger ("
            "id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, logical_stream text NOT NULL, stream text NOT NULL, "
            "stream_created timestamptz NOT NULL, durable text NOT NULL, done int8multirange NOT NULL DEFAULT '{}', "
            "fold_after bigint NOT NULL DEFAULT 0, messages_written bigint NOT NULL DEFAULT 0, "
            "messages_deadlettered bigint NOT NULL DEFAULT 0, messages_excluded bigint NOT NULL DEFAULT 0, "
            "rows_written bigint NOT NULL DEFAULT 0, updated_at timestamptz NOT NULL DEFAULT now(), "
            "UNIQUE (stream, stream_created, durable)) WITH (fillfactor = 10)"
        )
        connection.execute(
            "INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable, done) "
            "VALUES ('NUMBERS', 'numbers', %s, 'writer', '{[500,901),[950,1001)}')",
            [IDENTITY.stream_created],
        )
        for _ in range(2):
            connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
        assert not ledger.new
        assert [(each.first, each.last) for each in ledger.missing(connection, 1, 1000)] == [(901, 949)]
        assert ledger.record(connection, [(1001, 1002)], Done(messages_written=2))
        assert ledger.glance(connection).highest == 1002


def test_one_compares_at_a_time(connection: Any) -> None:
    """Until its time is over."""
    ledger = open_ledger(connection, Opening(IDENTITY, STREAM.subjects))
    one, two = uuid4(), uuid4()
    assert ledger.claim(connection, one, 60)
    assert not ledger.claim(connection, two, 60)
    assert ledger.claim(connection, one, -1)
    assert ledger.claim(connection, two, 60)


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
    """JetStream's side of a durable pull consumer with explicit acks and filters."""

    start: int = 1
    next: int = 1
    """The stream sequence at which the search for the next message begins."""
    deliveries: int = 0
    pending: set[int] = field(default_factory=set)
    again: list[int] = field(default_factory=list)
    acknowledged: bool = False

    @property
    def floor(self) -> int:
        """All up to it is acknowledged, or none of the consumer's."""
        return min(self.pending, default=self.next) - 1


class Jetstream:
    """The stream and its consumer, as a worker's Source shows them to its Reconciler."""

    def __init__(self) -> None:
        self.subjects: list[str] = []  # that of the message with sequence index + 1
        self.first = 1
        self.filters: tuple[str, ...] = ("a",)
        self.consumer: Consumer | None = Consumer()
        self.connected = True
        self.reconnects = 0
        self.rereads = self
        self.link = SimpleNamespace(trouble="")
        self.batches: deque[Batch] = deque()

    def ours(self, sequence: int, filters: Sequence[str] | None = None) -> bool:
        """Whether the message is held and matches the filters."""
        return sequence >= self.first and self.wants(sequence, filters or self.filters)

    def wants(self, sequence: int, filters: Sequence[str]) -> bool:
        """Whether the message matches the filters."""
        return any(subject_matches(pattern, self.subjects[sequence - 1]) for pattern in filters)

    def message(self, sequence: int) -> Message:
        """It is bad if its number is a multiple of seven."""
        payload = b"bad" if sequence % 7 == 0 else str(sequence).encode()
        return Message(self.subjects[sequence - 1], payload, sequence, sequence)

    # what the Reconciler asks

    @property
    def idle(self) -> bool:
        """Whether everything that was read again is written."""
        return not self.batches

    def stream_info(self) -> StreamInfo:
        """What STREAM.INFO tells."""
        return StreamInfo("numbers", IDENTITY.stream_created, self.first, len(self.subjects))

    def consumer_info(self) -> ConsumerInfo | None:
        """What CONSUMER.INFO tells."""
        consumer = self.consumer
        if consumer is None:
            return None
        return ConsumerInfo(
            created=False,
            ack_floor=consumer.floor if consumer.acknowledged else 0,
            pending=sum(self.ours(n) for n in range(consumer.next, len(self.subjects) + 1)),
            ack_pending=len(consumer.pending),
            delivered=consumer.next - 1,
            start=consumer.start,
            limits=Limits(),
        )

    def held(self, segments: Sequence[Segment]) -> Future[list[Segment]]:
        """As ``consumer.held``."""
        found = []
        for segment in segments:
            for sequence in range(segment.first, segment.last + 1):
                if self.ours(sequence, segment.filters):
                    found.append(Segment(sequence, segment.last, segment.filters))
                    break
        return done_future(found)

    def reread(self, segments: Sequence[Segment]) -> Future[None]:
        """As ``Reader.read``: batches that account for everything from the one before in their segment."""
        for segment in segments:
            sequences = [n for n in range(segment.first, segment.last + 1) if self.ours(n, segment.filters)]
            first = segment.first
            for start in range(0, len(sequences), 3):
                part = sequences[start : start + 3]
                self.batches.append(Batch([self.message(n) for n in part], None, (), 0, 0, (first, part[-1])))
                first = part[-1] + 1
        return done_future(None)


T = TypeVar("T")


def done_future(value: T) -> Future[T]:
    """A future that is done."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


class Nobody:
    """Is told what was read again."""

    def reread(self, messages: int) -> None:
        """Does not care."""


TABLES = ("numbers", "eventwriter.dead_letter_messages", "eventwriter.dead_letter_records", "eventwriter.ledger",
          "eventwriter.ledger_past", "eventwriter.ledger_losses")  # fmt: skip


class Delivery(RuleBasedStateMachine):
    """A stream with messages of others, a consumer, a database, and two workers, all of which may fail between any two
    steps: workers die, acks are lost, JetStream forgets its latest state, the database goes back to any earlier commit,
    subjects are added and removed, the durable gets another name, the stream drops its oldest messages.
    """

    connection: psycopg.Connection[Any]
    sinks: tuple[tuple[Sink, list[str]], tuple[Sink, list[str]]]
    """Of the two workers, with the point at which each crashes next; opened once, for that takes long."""

    def __init__(self) -> None:
        super().__init__()
        self.connection.execute("DELETE FROM numbers; DELETE FROM eventwriter.dead_letter_messages")
        self.connection.execute("DELETE FROM eventwriter.ledger")
        self.js = Jetstream()
        self.earlier: Consumer | None = Consumer()
        self.identity = IDENTITY
        self.continues: str | None = None
        self.commits: list[list[Any]] = [self._dump()]
        self.delivered: set[int] = set()
        self.begins = 0
        """The most that a new ledger declared to be none of its business."""
        self.workers = [self._worker(0), self._worker(1)]

    def teardown(self) -> None:
        """In the end everything that was lost in between has come again."""
        self._finish()

    def _worker(self, which: int) -> Worker:
        """What worker._prepare does."""
        sink, crash_at = self.sinks[which]
        crash_at.clear()
        before = self.js.consumer_info()

        def begins() -> int:
            return max(self.js.first - 1, before.delivered if before else 0)

        used = before is not None
        opening = Opening(self.identity, tuple(self.js.filters), begins, self.continues, used)
        try:
            ledger = sink.begin(opening)
        except ConfigurationError as error:  # somebody does what it says
            (self.continues,) = re.findall(r'set continues = "(.*?)"', str(error))
            ledger = sink.begin(replace(opening, continues=self.continues))
        if ledger.new:
            self.begins = max(self.begins, ledger.begins)
        sink.look()
        if self.js.consumer is None:
            start = resume(sink, self.js.first)
            self.js.consumer = Consumer(start, start)
            self.earlier = copy.deepcopy(self.js.consumer)
        return Worker(sink, crash_at)

    @rule(subjects=st.lists(st.sampled_from("aabc"), min_size=1, max_size=20))
    def publish(self, subjects: list[str]) -> None:
        """Messages of ours and of others."""
        self.js.subjects.extend(subjects)

    @initialize()
    def published_before(self) -> None:
        """Something to begin with."""
        self.js.subjects.extend("abaa" * 6)

    @rule(which=st.integers(0, 1), count=st.integers(1, 6))
    def deliver(self, which: int, count: int) -> None:
        """Redeliveries go before new messages, each with the next consumer sequence."""
        consumer, worker = self.js.consumer, self.workers[which]
        assert consumer is not None
        for _ in range(count):
            if consumer.again:
                sequence, first = consumer.again.pop(0), False
            else:
                while consumer.next <= len(self.js.subjects) and not self.js.ours(consumer.next):
                    consumer.next += 1
                if consumer.next > len(self.js.subjects):
                    return
                sequence, first = consumer.next, True
                consumer.next += 1
                consumer.pending.add(sequence)
            consumer.deliveries += 1
            self.delivered.add(sequence)
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
            messages.append(self.js.message(sequence))
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
        if batch.messages and self._write(which, batch, fate, ahead):
            acked = [m.sequence for m in batch.messages]
            self._ack(acked[: len(acked) // 2] if fate == "half acked" else acked)

    def _write(self, which: int, batch: Batch, fate: str = "fine", ahead: bool = False) -> bool:
        """Whether the worker knows that it is committed."""
        worker = self.workers[which]
        if ahead:
            worker.sink.prepare(batch)
        if fate in ("after_copy", "after_ledger"):
            worker.crash_at.append(fate)
        try:
            worker.sink.write(batch)
            if fate == "ambiguous":
                assert worker.sink.write(batch).written == 0
        except Crashed:
            self._replace(which)
            return False
        except LedgerChangedError:  # what it has in hand is released
            self._replace(which)
            return False
        self.commits.append(self._dump())
        if fate == "after_commit":
            self._replace(which)
            return False
        return True

    def _ack(self, sequences: list[int]) -> None:
        consumer = self.js.consumer
        assert consumer is not None
        consumer.acknowledged = True
        consumer.pending.difference_update(sequences)
        consumer.again = [sequence for sequence in consumer.again if sequence not in sequences]

    def _replace(self, which: int) -> None:
        self.workers[which] = self._worker(which)

    @rule()
    def ack_wait_passes(self) -> None:
        """What is not acknowledged comes again, in any order, also what still waits in a worker's hands."""
        consumer = self.js.consumer
        assert consumer is not None
        consumer.again = sorted(consumer.pending, key=lambda sequence: sequence * 7 % 11)

    @rule()
    def server_saves(self) -> None:
        """The consumer's state reaches the disk."""
        self.earlier = copy.deepcopy(self.js.consumer)

    @rule()
    def server_restarts(self) -> None:
        """The consumer's state is that of some time ago; connections, and what was on its way, are lost."""
        self.js.consumer = copy.deepcopy(self.earlier)
        for worker in self.workers:
            worker.previous = None
        self._drop()
        self.ack_wait_passes()

    @rule(share=st.floats(0, 1))
    def consumer_is_created_again(self, share: float) -> None:
        """At any sequence up to the first that is not done, as somebody may who knows less than the ledger."""
        start = max(1, int(share * self._resume()))
        self.js.consumer = Consumer(start, start)
        self.earlier = copy.deepcopy(self.js.consumer)
        for worker in self.workers:  # the pull ends with the consumer, and the worker with the pull
            worker.inbox.clear()
            worker.previous = None

    def _resume(self) -> int:
        try:
            return resume(self.workers[0].sink, 1)
        except LedgerChangedError:
            self._replace(0)
            return resume(self.workers[0].sink, 1)

    # --- what the database and people do ---------------------------------------------------------------------------

    def _dump(self) -> list[Any]:
        dumps = []
        for table in TABLES:
            with self.connection.cursor().copy(sql.SQL(f"COPY {table} TO STDOUT")) as out:
                dumps.append(b"".join(map(bytes, out)))
        return dumps

    @rule(share=st.floats(0, 1))
    def database_goes_back(self, share: float) -> None:
        """To any earlier commit, also to before the ledger's row was there: nobody's connection survives that."""
        place = int(share * (len(self.commits) - 1))
        del self.commits[place + 1 :]
        self.connection.execute("DELETE FROM numbers; DELETE FROM eventwriter.dead_letter_messages")
        self.connection.execute("DELETE FROM eventwriter.ledger")
        for table, dump in zip(TABLES, self.commits[place], strict=True):
            with self.connection.cursor().copy(sql.SQL(f"COPY {table} FROM STDIN")) as into:
                into.write(dump)
        for worker in self.workers:
            worker.sink.session.connections += 1

    @rule(filters=st.sampled_from([("a",), ("b",), ("a", "b"), ("a", "b", "c"), (">",)]))
    def subjects_are_edited(self, filters: tuple[str, ...]) -> None:
        """One worker is started with other subjects, the other one learns it when it writes."""
        self.js.filters = filters
        self._replace(0)

    @rule()
    def durable_gets_another_name(self) -> None:
        """The new one takes over: its consumer begins where the ledger says."""
        self._replace(0)  # a row that vanished with the database is there again
        self.continues = self.identity.durable
        self.identity = replace(self.identity, durable=f"{self.identity.durable}+")
        self.js.consumer = None
        for which in (0, 1):
            self._replace(which)
        self.commits.append(self._dump())

    @rule(count=st.integers(1, 10))
    def stream_drops(self, count: int) -> None:
        """Its oldest messages are gone."""
        self.js.first = min(self.js.first + count, len(self.js.subjects) + 1)
        self._drop()

    def _drop(self) -> None:
        consumer = self.js.consumer
        assert consumer is not None
        consumer.next = max(consumer.next, self.js.first)
        consumer.pending = {n for n in consumer.pending if n >= self.js.first}
        consumer.again = [n for n in consumer.again if n >= self.js.first]

    @rule(which=st.integers(0, 1), everything=st.booleans())
    def compare(self, which: int, everything: bool) -> None:
        """The ledger is compared with the stream, to the end or until the worker dies in the middle."""
        self.connection.execute("UPDATE eventwriter.ledger SET comparing_until = NULL")
        worker = self.workers[which]
        reconciler = Reconciler(worker.sink, self.js, SETTINGS, Nobody())  # type: ignore[arg-type]
        try:
            for _ in range(3):
                reconciler.step()
                while self.js.batches:
                    batch = self.js.batches.popleft()
                    if not self._write(which, batch):
                        self.js.batches.clear()
                        return
                    if not everything:
                        self.js.batches.clear()
                        return
        except LedgerChangedError:
            self._replace(which)

    # --- what must hold ----------------------------------------------------------------------------------------------

    @invariant()
    def exact(self) -> None:
        """Nothing twice."""
        written, dead = self._written(), self._dead()
        assert len(written) == len(set(written))
        assert len(dead) == len(set(dead))
        assert all(sequence % 7 == 0 for sequence in dead)

    def _written(self) -> list[int]:
        return [row[0] for row in self.connection.execute("SELECT n FROM numbers")]

    def _dead(self) -> list[int]:
        return [row[0] for row in self.connection.execute("SELECT sequence FROM eventwriter.dead_letters")]

    def _finish(self) -> None:
        for which in (0, 1):
            self._replace(which)
        for _ in range(2):
            self.ack_wait_passes()
            for _ in range(2 + len(self.js.subjects)):
                self.deliver(which=0, count=6)
                if not self.workers[0].inbox:
                    break
                self.write(which=0, count=12, fate="fine", ahead=True)
            self.compare(which=0, everything=True)
        self.exact()
        there = {*self._written(), *self._dead()}
        lost = {
            sequence
            for first, last in self.connection.execute("SELECT first, last FROM eventwriter.ledger_losses")
            for sequence in range(first, last + 1)
        }
        past = self.connection.execute("SELECT lower(r), upper(r) FROM eventwriter.ledger_past, unnest(done) r")
        earlier = {sequence for first, end in past for sequence in range(first, end)}
        for sequence in range(self.begins + 1, len(self.js.subjects) + 1):
            if self.js.ours(sequence):
                assert sequence in there, f"{sequence} is held by the stream, and neither written nor a dead letter"
            elif sequence < self.js.first and sequence in self.delivered and self.js.wants(sequence, self.js.filters):
                # What is between messages of earlier filters was not ours then: that it is gone is nobody's loss.
                assert sequence in there | lost | earlier, f"{sequence} is gone without a word"
        sink = self.workers[0].sink
        assert self.js.consumer is not None
        with sink.session.connection() as connection:  # no gaps remain
            assert sink.ledger.missing(connection, 1, self.js.consumer.floor) == []


SETTINGS = loading.load({"NUMBERS": STREAM}, file=None, environ={}, flags={}).streams["NUMBERS"]


@pytest.fixture
def machine(connection: Any, database: str) -> Iterator[type[Delivery]]:
    """The machine with a database and two workers."""
    sinks = (crashing_sink(database), crashing_sink(database))
    yield type("Machine", (Delivery,), {"connection": connection, "sinks": sinks})
    for sink, _ in sinks:
        sink.close()


def test_every_interleaving_writes_each_message_once(machine: type[Delivery]) -> None:
    """Whatever happens in whatever order, what the stream holds and the filters match is written once."""
    run_state_machine_as_test(machine, settings=settings(max_examples=examples(40), stateful_step_count=30))


def test_long_interleavings_write_each_message_once(machine: type[Delivery]) -> None:
    """The same for long runs, in which faults are rare enough that much is on its way when they come."""
    new: Callable[[], Delivery] = machine
    for seed in range(examples(20, 5)):
        rng = random.Random(seed)
        run = new()
        run.published_before()
        for _ in range(60):
            which, count = rng.randrange(2), rng.randrange(1, 7)
            fate = rng.choice(["fine"] * 6 + ["after_copy", "after_ledger", "after_commit", "ambiguous", "half acked"])
            chosen: Callable[[], Any] = rng.choices(
                [
                    lambda: run.publish(subjects=rng.choices("aabc", k=10)),  # noqa: B023 - called at once
                    lambda: run.deliver(which=which, count=count),  # noqa: B023
                    lambda: run.write(which=which, count=count, fate=fate, ahead=rng.random() < 0.5),  # noqa: B023
                    run.ack_wait_passes,
                    run.server_saves,
                    run.server_restarts,
                    lambda: run.consumer_is_created_again(share=rng.random()),  # noqa: B023
                    lambda: run.compare(which=which, everything=rng.random() < 0.7),  # noqa: B023
                    lambda: run.database_goes_back(share=rng.random()),  # noqa: B023
                    lambda: run.subjects_are_edited(filters=rng.choice([("a",), ("a", "b"), ("*",)])),  # noqa: B023
                    run.durable_gets_another_name,
                    lambda: run.stream_drops(count=count),  # noqa: B023
                ],
                [10, 40, 40, 4, 3, 2, 1, 4, 2, 1, 0.5, 0.5],
            )[0]
            chosen()
            run.exact()
        run.teardown()


def test_a_doubt_does_not_end_with_what_was_asked_before_it(
    machine: type[Delivery], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison waits for JetStream's answer when the database goes back: what that forgot is read again at once."""
    run = machine()
    run.published_before()
    for _ in range(4):
        run.write(which=0, count=12, fate="fine", ahead=False)
    run.connection.execute("UPDATE eventwriter.ledger SET done = done - '{[2,3)}'")  # a message of others
    asked: Future[list[Segment]] = Future()
    sink = run.workers[0].sink
    reconciler = Reconciler(sink, run.js, SETTINGS, Nobody())  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr(run.js, "held", lambda _: asked)
        reconciler.step()
    run.connection.execute("DELETE FROM numbers WHERE n > 8")
    run.connection.execute("UPDATE eventwriter.ledger SET done = done - '{[9,25)}', version = version - 1")
    sink.rewound = True
    asked.set_result([])
    for _ in range(3):
        reconciler.step()
    assert [message.sequence for message in run.js.batches[0].messages] == [9, 11, 12]


def test_what_cannot_be_compared_is_told_when_it_goes_on(
    machine: type[Delivery], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once: each worker would tell of an outage that begins, before anybody knows that it is one."""
    monkeypatch.setattr("eventwriter.reconcile.SOON", 0.0)
    run = machine()
    run.published_before()
    reconciler = Reconciler(run.workers[0].sink, run.js, SETTINGS, Nobody())  # type: ignore[arg-type]

    def away() -> StreamInfo:
        raise UnavailableError("JetStream does not answer stream requests")

    def slow() -> StreamInfo:
        raise UnavailableError("JetStream does not answer in time")

    told = []
    for answer in (away, run.js.stream_info, slow, away, away):
        monkeypatch.setattr(run.js, "stream_info", answer)
        reconciler._next = 0.0
        reconciler.step()
        told.append(caplog.text.count("the ledger cannot be compared with the stream now: JetStream does not answer"))
    assert told == [0, 0, 0, 1, 1]


def resume(sink: Sink, first: int) -> int:
    """Where a new consumer starts."""
    with sink.session.connection() as connection:
        return sink.ledger.resume(connection, first)


def crashing_sink(dsn: str) -> tuple[Sink, list[str]]:
    """A worker's sink, and the points at which its transaction ends as if the process had died."""
    crash_at: list[str] = []

    def at(point: str) -> None:
        if point in crash_at:
            raise Crashed(point)

    sink = Sink(PostgresConfig(dsn=dsn, pool_size=1, statement_timeout=10.0), STREAM, "numbers", None, at)
    sink.open()
    return sink, crash_at
