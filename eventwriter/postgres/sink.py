"""PostgreSQL: writes a batch in one transaction of rows, dead letters and ledger, whatever PostgreSQL thinks of it."""

from __future__ import annotations

import weakref
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.abc import Transformer
from psycopg_pool import ConnectionPool, PoolTimeout

from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import ExclusiveError, SchemaError, UnavailableError
from eventwriter.postgres import deadletters
from eventwriter.postgres.attempt import Attempt, Encoder, record_index, without
from eventwriter.postgres.catalog import SHAPE, Plan, read_plan, read_shape
from eventwriter.postgres.ledger import Done, Glance, Identity, Ledger
from eventwriter.postgres.ledgers import open_ledger, predecessors
from eventwriter.postgres.session import (
    BusyConnection,
    RowRefused,
    check_server,
    classify,
    connect,
    open_pool,
    row_transformer,
    server_codec,
    translated,
    unreachable,
)
from eventwriter.postgres.staging import Stage
from eventwriter.stream import Batch, Decoded, Outcome, Reject, Row, Stream

_UNIQUE = "23505"
_LONGEST_SPAN = 1024
"""Batches after which rows with keys are written without staging again, however often that failed."""


class _AlreadyDone(Exception):
    """The ledger knows some of the batch: read which, and write the others."""


class _TableChanged(Exception):
    """The table is not as the plan says any more: what is not committed is planned and written again."""


class _Entry(NamedTuple):
    """A row with where it came from."""

    row: Row
    message: int
    record: int


class Sink:
    """One worker's way into PostgreSQL: a connection pool, the plan for its table, and the consumer's ledger."""

    def __init__(
        self,
        settings: PostgresConfig,
        stream: Stream,
        table: str,
        excluded: Callable[[str], bool] | None = None,
        at: Callable[[str], None] | None = None,
        *,
        exclusive: bool = False,
        planned: Callable[[Plan], None] = lambda plan: None,
    ) -> None:
        """``planned`` is told how rows are written: at the beginning, and when the table was changed."""
        self._settings = settings
        self._stream = stream
        self._table = table
        self._excluded = excluded
        self._at = at
        self._planned = planned
        self._pool: ConnectionPool[BusyConnection] | None = None
        self._plan: Plan | None = None
        self._transformer: Transformer | None = None
        self._ahead: Encoder | None = None
        self._ledger: Ledger | None = None
        self._exclusive = exclusive
        self._lock: str | None = None
        self._locked: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()
        self._doubt = False
        """Whether PostgreSQL was away: it may be another one that answers now, with another table."""
        self.rewound = False
        """Whether the database was seen to have gone back in time; whoever acts on it resets this."""
        self.connections = 0
        """How many connections were made so far: a new one may lead to a database of an earlier time."""
        self._to_stage = 0
        self._span = 1
        """Batches to stage when rows are next found whose keys are there already, but for a factor of two."""

    # --- start and end ------------------------------------------------------------------------------------

    def open(self) -> None:
        """Connects and reads the catalog; raises the error that tells why writing cannot begin."""
        with translated(), connect(self._settings, self._name) as connection:
            check_server(connection)
            self._plan_anew(connection)
        size = 1 if self._exclusive else self._settings.pool_size
        self._pool = open_pool(self._settings, self._name, size, self._connected)

    def _connected(self) -> None:
        self.connections += 1

    @property
    def _name(self) -> str:
        return f"eventwriter {self._stream.name}"

    def begin(
        self,
        identity: Identity,
        filters: Sequence[str],
        *,
        begins: int = 0,
        continues: str | None = None,
        used: bool = False,
        seen: int | None = None,
    ) -> Ledger:
        """Opens the ledger of this consumer, as ``open_ledger`` tells.

        When ``exclusive``, every transaction runs on the one connection that holds the consumer's advisory lock;
        raises ExclusiveError while somebody else holds it.
        """
        if self._exclusive:
            self._lock = f"eventwriter {identity.stream} {identity.durable}"
        with self.connection() as connection:
            self._ledger = open_ledger(
                connection, identity, filters, begins=begins, continues=continues, used=used, seen=seen
            )
        return self._ledger

    def _plan_anew(self, connection: Connection[Any]) -> None:
        """Reads the catalog; what was prepared or learnt with another plan does not hold any more."""
        self._plan = plan = read_plan(connection, self._stream, self._table)
        self._transformer = row_transformer(plan.dumpers, connection)
        self._ahead = None
        self._to_stage, self._span = 0, 1
        self._planned(plan)

    def predecessors(self, identity: Identity) -> list[str]:
        """Durables whose ledgers a new one goes on with none of."""
        with self.connection() as connection:
            return predecessors(connection, identity.logical_stream, identity.stream, identity.durable)

    def look(self) -> Glance:
        """Looks at the ledger, and whether PostgreSQL is there and the table as it was; makes a new plan if it is not.

        Raises the error that writing would meet.
        """
        with self.connection() as connection:
            found = self.ledger.glance(connection)
            self._follow_table(connection)
        self.rewound = self.rewound or found.rewound
        return found

    def _follow_table(self, connection: Connection[Any]) -> bool:
        """Whether the table is another one than the plan was made for: then there is a new plan."""
        assert self._plan is not None, "open() comes first"
        if read_shape(connection, self._table) == self._plan.shape:
            return False
        self._plan_anew(connection)
        return True

    def resume(self, first: int) -> int:
        """The lowest sequence from ``first`` on of which something is not done."""
        with self.connection() as connection:
            return self.ledger.resume(connection, first)

    def close(self) -> None:
        """Closes the pool."""
        if self._pool is not None:
            self._pool.close(timeout=5.0)

    @property
    def ledger(self) -> Ledger:
        """The ledger, once it is open."""
        assert self._ledger is not None, "begin() comes first"
        return self._ledger

    @contextmanager
    def connection(self) -> Iterator[BusyConnection]:
        assert self._pool is not None, "open() comes first"
        try:
            with translated(), self._pool.connection() as connection, translated(connection):
                if self._lock is not None and connection not in self._locked:
                    self._take_lock(connection, self._lock)
                try:
                    yield connection
                    connection.commit()  # not left to the pool: what it raises is to be classified here
                except psycopg.errors.ReadOnlySqlTransaction:
                    # A demoted primary, or a default of the session: it does not pass with time, a new connection may.
                    connection.close()
                    raise
        except UnavailableError as error:
            if isinstance(error.__cause__, PoolTimeout):
                raise unreachable(self._settings, self._name) from None
            raise

    def _take_lock(self, connection: Connection[Any], name: str) -> None:
        got = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone()
        if got != (True,):
            raise ExclusiveError(
                f'{self._stream.name}: another worker serves this consumer, and ack = "all" needs it alone: '
                'stop the other one, or set ack = "each"'
            )
        self._locked.add(connection)

    # --- writing ------------------------------------------------------------------------------------------

    def prepare(self, batch: Batch) -> bool:
        """One step towards writing this batch next, of a millisecond or less; False when there is nothing to do."""
        if self._plan is None or self._to_stage:
            return False
        if self._ahead is None or self._ahead.attempt.batch is not batch:
            if _repeats(batch) or self.ledger.reaches_back(batch):
                return False
            self._ahead = self._encoder(Attempt(batch))
        return self._ahead.step()

    def write(self, batch: Batch, meanwhile: Callable[[], bool] = lambda: False) -> Outcome:
        """Writes a batch exactly once, and everything or nothing of it.

        Rows that PostgreSQL refuses become dead letters; messages the ledger knows are left out. While PostgreSQL is
        at work, ``meanwhile`` is called until it returns False. Raises UnavailableError when trying again later may
        succeed, SchemaError when it will not.

        When the ledger knows some of the batch at the last moment, it is read and the others are written. That comes to
        an end: each time the ledger knows at least one message of the batch more, and it forgets none.
        """
        taken = len(batch.messages)
        if self._ahead is not None and self._ahead.attempt.batch is batch:
            attempt = self._ahead.attempt
        else:
            batch = _each_once(batch) if _repeats(batch) else batch
            # What was delivered or done under earlier filters, only a question tells.
            back = self.ledger.reaches_back(batch)
            attempt = Attempt(batch, check_ledger=back, staged=self._to_stage > 0)
        try:
            while True:
                try:
                    outcome = self._transact(attempt, meanwhile)
                    break
                except _AlreadyDone:
                    attempt = replace(attempt.again(), check_ledger=True)
                except RowRefused as refusal:
                    attempt = self._after(refusal, attempt)
                except (_TableChanged, SchemaError) as error:
                    with self.connection() as connection:
                        changed = self._follow_table(connection)
                    if not changed and isinstance(error, SchemaError):
                        raise
                    # What was refused under the old plan may fit now.
                    attempt = Attempt(batch, attempt.check_ledger)
        except UnavailableError:
            self._doubt = True
            raise
        if not self.ledger.committed():
            self.rewound = True
        if attempt.staged:
            self._to_stage = max(0, self._to_stage - 1)
        else:
            self._span = max(1, self._span // 2)
        outcome.already_done += taken - len(batch.messages)
        return outcome

    def _after(self, refusal: RowRefused, attempt: Attempt) -> Attempt:
        """The next attempt: without the refused row when it is the first and known, else letting PostgreSQL find it.

        A row whose key is there already is what staging is for; and where one is, more will be.
        """
        assert self._plan is not None
        following = attempt.again()
        if refusal.reject.sqlstate == _UNIQUE and self._plan.mode != "copy" and not attempt.staged:
            self._to_stage = self._span = min(2 * self._span, _LONGEST_SPAN)
            following.staged = True
            return following
        if refusal.line is None or attempt.refused or attempt.staged:
            if attempt.isolate:
                raise SchemaError(f"table {self._table} refuses rows one by one: {refusal}") from refusal
            following.staged = following.isolate = True
            return following
        index = bisect_right(attempt.ends, refusal.line - 1)
        start = attempt.ends[index - 1] if index else 0
        decoded = self._stream.decode(attempt.batch.messages[index])
        record = record_index(decoded, refusal.line - 1 - start)
        following.refused = {index: {record: refusal.reject._replace(record_index=record)}}
        return following

    def _transact(self, attempt: Attempt, meanwhile: Callable[[], bool]) -> Outcome:
        plan = self._plan
        assert plan is not None, "open() comes first"
        ledger = self.ledger
        messages = attempt.batch.messages
        outcome = attempt.outcome
        with self.connection() as connection:
            if self._doubt:
                self._doubt = False
                if read_shape(connection, self._table) != plan.shape:
                    raise _TableChanged
            done: set[int] = set()
            known = done
            if attempt.check_ledger:
                done, past = ledger.known(connection, messages)
                known = done | past
                outcome.already_done = len(known)
            # Whatever was asked ends here: decoding comes next, may take long, and PostgreSQL ends a session whose
            # transaction waits too long for its next statement.
            connection.commit()
            if not attempt.staged:
                self._copy(connection, plan, attempt, known, meanwhile)
            else:
                self._stage(connection, plan, attempt, known, meanwhile)
            begun = perf_counter()
            if self._at:
                self._at("after_copy")
            attempt.settle()
            # The ledger before the dead letters: it tells a redelivery from a second dead letter of one message.
            ranges = attempt.ranges(done)
            counts = Done(outcome.written, outcome.deadlettered, outcome.excluded, outcome.rows)
            fresh = attempt.fresh(done) if attempt.check_ledger else None
            values = {"table": self._table}
            if ranges and not ledger.record(connection, ranges, counts, fresh=fresh, beside=SHAPE, values=values):
                raise _AlreadyDone
            # Asked after the rows: the lock that came with them keeps the table as it is until the commit.
            if ranges and ledger.answer != plan.shape:
                raise _TableChanged
            if self._at:
                self._at("after_ledger")
            letters = [(messages[index], rejects) for index, rejects in attempt.letters.items()]
            try:
                deadletters.write(connection, ledger.row, letters)
            except psycopg.DatabaseError as error:
                # Not a row of the table, though it names a line too.
                if isinstance(classify(error, connection), RowRefused):
                    raise SchemaError(f"dead letters cannot be written: {error}") from error
                raise
            if self._at:
                self._at("after_dead_letters")
        outcome.seconds["commit"] = perf_counter() - begun
        return outcome

    def _copy(
        self, connection: BusyConnection, plan: Plan, attempt: Attempt, known: set[int], meanwhile: Callable[[], bool]
    ) -> None:
        """Streams rows into the table, each block as soon as it is encoded."""
        if self._ahead is not None and self._ahead.attempt is attempt:
            encoder, self._ahead = self._ahead, None
        else:
            encoder = self._encoder(attempt, known)
        statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(plan.table, plan.columns)
        seconds = attempt.outcome.seconds
        begun, decoded, elsewhere = perf_counter(), seconds["decode"], 0.0
        started = False

        def work() -> bool:
            """What is to be sent comes first, and nothing before PostgreSQL has something to do."""
            nonlocal elsewhere
            if not started or encoder.step():
                return started
            left = perf_counter()
            busy = meanwhile()
            elsewhere += perf_counter() - left
            return busy

        with connection.working(work), connection.cursor() as cursor, cursor.copy(statement) as copy:
            started = True
            while encoder.step() or encoder.blocks:
                if encoder.blocks:
                    copy.write(encoder.blocks.popleft())
                    if self._at:
                        self._at("in_copy")
            if encoder.refusal is not None:
                raise encoder.refusal
        seconds["copy"] = perf_counter() - begun - (seconds["decode"] - decoded) - elsewhere

    def _encoder(self, attempt: Attempt, known: Collection[int] = ()) -> Encoder:
        assert self._plan is not None, "open() comes first"
        assert self._transformer is not None
        excluded = self._left_out(attempt)
        return Encoder(attempt, self._stream, self._plan, self._transformer, excluded, known, self._at)

    def _left_out(self, attempt: Attempt) -> Callable[[str], bool] | None:
        """Which subjects have no rows: those that are excluded, and those of earlier filters.

        Messages of the latter would be written without being known as done once their subject is configured again.
        """
        excluded, wants = self._excluded, self.ledger.wants
        if not attempt.check_ledger:
            return excluded
        return lambda subject: not wants(subject) or (excluded is not None and excluded(subject))

    def _stage(
        self, connection: BusyConnection, plan: Plan, attempt: Attempt, known: set[int], meanwhile: Callable[[], bool]
    ) -> None:
        """Copies rows to a temporary table and inserts from there: for tables with a key, and to isolate bad rows."""
        begun = perf_counter()
        entries: list[_Entry] = []
        excluded = self._left_out(attempt)
        for index, message in enumerate(attempt.batch.messages):
            if known and message.sequence in known:
                continue
            if excluded is not None and excluded(message.subject):
                attempt.outcome.excluded += 1
                continue
            rows = attempt.note(index, self._stream.decode(message))
            entries.extend(_Entry(row, index, number) for number, row in enumerate(rows))
        attempt.outcome.rows = len(entries)
        staged = entries
        if plan.mode == "upsert":
            staged = sorted(entries, key=lambda entry: attempt.batch.messages[entry.message].sequence)
            if not attempt.isolate:  # there, every row has its own chance: the latest may be refused
                staged = _latest(staged, plan)
        decoded = perf_counter()
        if self._at:
            self._at("after_decode")
        stage = Stage(plan, text_json=attempt.isolate)
        connection.execute(stage.create)
        refused: dict[int, Reject] = {}
        codec = server_codec(connection)
        with connection.cursor() as cursor, cursor.copy(stage.copy) as copy:
            copy.set_types(stage.dumpers)
            for ordinal, entry in enumerate(staged, 1):
                try:
                    values = entry.row if plan.project is None else plan.project(entry.row)
                    if attempt.isolate:
                        _check_text(values, codec)
                    copy.write_row((ordinal, *values))
                except (TypeError, ValueError, OverflowError, psycopg.DataError) as error:
                    if not attempt.isolate:
                        raise RowRefused(None, None, f"{type(error).__name__}: {error}") from error
                    refused[ordinal] = Reject("refused", f"{type(error).__name__}: {error}"[:500])
            if self._at:
                self._at("in_copy")
        inserted = len(staged)
        if attempt.isolate:
            for ordinal, code, text in connection.execute(
                "SELECT ordinal, code, message FROM eventwriter.insert_isolating(%s, %s)",
                [stage.insert("$1", "$2").as_string(connection), len(staged)],
            ):
                refused[ordinal] = Reject("refused", text[:500], None, code)
        else:
            with connection.working(meanwhile):
                inserted = connection.execute(stage.insert("1", str(len(staged)))).rowcount
        if plan.mode == "insert" and (attempt.isolate or inserted < len(staged)):
            for (ordinal,) in connection.execute(stage.conflicts):
                names = ", ".join("(" + ", ".join(key) + ")" for key in plan.keys)
                detail = f"table {plan.table_name} has another row with the same key {names}"
                refused.setdefault(ordinal, Reject("conflict", detail[:500], None, "23505"))
        if refused:
            self._refuse(attempt, [(staged[ordinal - 1], reject) for ordinal, reject in refused.items()])
        attempt.outcome.seconds = {"decode": decoded - begun, "copy": perf_counter() - decoded}

    def _refuse(self, attempt: Attempt, refused: list[tuple[_Entry, Reject]]) -> None:
        """Turns refused rows into rejects of their messages, with the index of their record."""
        place, decoded, kept = -1, Decoded(), Decoded()
        for entry, reject in refused:
            if entry.message != place:  # the transaction waits: not once for each of a message's rows
                place = entry.message
                decoded = self._stream.decode(attempt.batch.messages[place])
                dropped = attempt.refused.get(place)
                kept = without(decoded, dropped) if dropped else decoded
            record = record_index(kept, entry.record)
            attempt.letters.setdefault(entry.message, []).append(reject._replace(record_index=record))
            left = attempt.rows_of.get(entry.message)
            if left is None:
                left = len(decoded.rows)
            attempt.rows_of[entry.message] = left - 1
            attempt.outcome.rows -= 1


def _repeats(batch: Batch) -> bool:
    return batch.span is None and len({message.sequence for message in batch.messages}) < len(batch.messages)


def _each_once(batch: Batch) -> Batch:
    """The batch without what was delivered again while its first delivery still waited: the ledger sees neither."""
    places: dict[int, int] = {}
    for place, message in enumerate(batch.messages):
        places.setdefault(message.sequence, place)
    kept, firsts = places.values(), batch.each_first()
    return Batch([batch.messages[place] for place in kept], [firsts[place] for place in kept])


def _latest(entries: Sequence[_Entry], plan: Plan) -> list[_Entry]:
    """One entry per key, the last: a statement may touch a key only once (21000)."""
    key_of = plan.key_of
    assert key_of is not None, "a plan to upsert has a key"
    return list({key_of(entry.row): entry for entry in entries}.values())


def _check_text(values: Sequence[Any], codec: str) -> None:
    """Raises ValueError for text that PostgreSQL refuses on its way to the temporary table: all the rows with it."""
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("text with U+0000")
            value.encode(codec)
        elif isinstance(value, bytes):
            if b"\0" in value:
                raise ValueError("JSON with a NUL byte")
            value.decode().encode(codec)
