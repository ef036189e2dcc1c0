"""PostgreSQL: writes a batch in one transaction of rows, dead letters and ledger, whatever PostgreSQL thinks of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from time import perf_counter
from typing import Any

from psycopg import Connection
from psycopg.errors import ProtocolViolation

from eventwriter.config.model import PostgresConfig
from eventwriter.errors import RaisedError, SchemaError, UnavailableError
from eventwriter.postgres import deadletters
from eventwriter.postgres.attempt import Attempt, Encoder
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.catalog import SHAPE
from eventwriter.postgres.connection import check_server
from eventwriter.postgres.copying import copy_rows
from eventwriter.postgres.errors import RowRefused, about_ours, about_rows
from eventwriter.postgres.ledger import Done, Glance, Ledger
from eventwriter.postgres.ledgers import Opening, open_ledger
from eventwriter.postgres.plan import Plan
from eventwriter.postgres.policy import StagingPolicy, way
from eventwriter.postgres.session import Session
from eventwriter.postgres.staged import StagedWrite
from eventwriter.postgres.table import Table
from eventwriter.stream import Batch, Outcome, Stream


class _AlreadyDone(Exception):
    """The ledger knows some of the batch: read which, and write the others."""


class _TableChanged(Exception):
    """The table is not as the plan says any more: what is not committed is planned and written again."""


class Sink:
    """One worker's way into PostgreSQL: its session, the plan for its table, and the consumer's ledger."""

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
        self.session = Session(settings, stream.name)
        self.rewound = False
        """Whether the database was seen to have gone back in time; whoever acts on it resets this."""
        self._stream = stream
        self._table = Table(stream, table, planned)
        self._excluded = excluded
        self._at = at or (lambda here: None)
        self._exclusive = exclusive
        self._ahead: Encoder | None = None
        self._ledger: Ledger | None = None
        self._staging = StagingPolicy()
        self._doubt = False
        """Whether PostgreSQL was away: it may be another one that answers now, with another table."""

    def open(self) -> None:
        """Connects and reads the catalog; raises the error that tells why writing cannot begin."""
        with self.session.first() as connection:
            check_server(connection)
            self._read_table(connection)
        self.session.open(alone=self._exclusive)

    def begin(self, opening: Opening) -> Ledger:
        """Opens the ledger of this consumer, as ``open_ledger`` tells.

        When ``exclusive``, under the consumer's advisory lock: raises ExclusiveError while somebody else holds it.
        """
        if self._exclusive:
            self.session.lock(f"eventwriter {opening.identity.stream} {opening.identity.durable}")
        with self.session.connection() as connection:
            self._ledger = open_ledger(connection, opening)
        return self._ledger

    def close(self) -> None:
        """Closes all connections."""
        self.session.close()

    @property
    def ledger(self) -> Ledger:
        """The ledger, once it is open."""
        assert self._ledger is not None, "begin() comes first"
        return self._ledger

    def look(self) -> Glance:
        """Looks at the ledger, and whether PostgreSQL is there and the table as it was; makes a new plan if it is not.

        Raises the error that writing would meet.
        """
        with self.session.connection(look=True) as connection:
            found = self.ledger.glance(connection)
            self._follow_table(connection)
        self.rewound = self.rewound or found.rewound
        return found

    def _read_table(self, connection: Connection[Any]) -> None:
        """What was prepared or learnt with another plan does not hold any more."""
        self._table.read(connection)
        self._ahead = None
        self._staging = StagingPolicy()

    def _follow_table(self, connection: Connection[Any]) -> bool:
        """Whether the table is another one than the plan was made for: then there is a new plan."""
        changed = self._table.changed(connection)
        if changed:
            self._read_table(connection)
        return changed

    def prepare(self, batch: Batch) -> bool:
        """One step towards writing this batch next, of a millisecond or less; False when there is nothing to do."""
        if self._staging.due:
            return False
        if self._ahead is None or self._ahead.attempt.batch is not batch:
            if batch.repeats or self.ledger.scope.reaches_back(batch):
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
            batch = batch.each_once() if batch.repeats else batch
            # What was delivered or done under earlier filters, only a question tells.
            back = self.ledger.scope.reaches_back(batch)
            attempt = Attempt(batch, check_ledger=back, staged=self._staging.due)
        try:
            while True:
                try:
                    outcome = self._transact(attempt, meanwhile)
                    break
                except _AlreadyDone:
                    attempt = replace(attempt.again(), check_ledger=True)
                except (RowRefused, RaisedError) as refusal:
                    attempt = self._staging.following(refusal, attempt, self._stream, self._table.plan)
                except (_TableChanged, SchemaError, UnavailableError) as error:
                    if isinstance(error, UnavailableError) and not isinstance(error.__cause__, ProtocolViolation):
                        raise  # of an outage; the other is what values of another width than the column's look like
                    with self.session.connection() as connection:
                        changed = self._follow_table(connection)
                    if not changed and not isinstance(error, _TableChanged):
                        raise
                    # What was refused under the old plan may fit now.
                    attempt = Attempt(batch, attempt.check_ledger)
        except UnavailableError:
            self._doubt = True
            raise
        self.rewound |= not self.ledger.committed()
        self._staging.wrote(staged=attempt.staged)
        outcome.already_done += taken - len(batch.messages)
        return outcome

    def _transact(self, attempt: Attempt, meanwhile: Callable[[], bool]) -> Outcome:
        plan, outcome = self._table.plan, attempt.outcome
        with self.session.connection(rows=True) as connection:
            doubt, self._doubt = self._doubt, False
            if doubt and self._table.changed(connection):
                raise _TableChanged
            done, known = set[int](), set[int]()
            if attempt.check_ledger:
                done, past = self.ledger.known(connection, attempt.batch.messages)
                known = done | past
                outcome.already_done = len(known)
            # Decoding comes next and may take long: PostgreSQL ends a session whose transaction waits too long.
            connection.commit()
            if attempt.staged:
                staged = StagedWrite(connection, self._stream, plan, attempt, self._at)
                staged.run(known, self._left_out(attempt), meanwhile)
            else:
                copy_rows(connection, plan, self._encoder(attempt, known), meanwhile, self._at)
            begun = perf_counter()
            self._at("after_copy")
            attempt.settle()
            # The ledger before the dead letters: it tells a redelivery from a second dead letter of one message.
            with about_ours(connection):
                self._record(connection, plan, attempt, done)
                self._at("after_ledger")
                letters = [(attempt.batch.messages[index], rejects) for index, rejects in attempt.letters.items()]
                deadletters.write(connection, self.ledger.row, letters)
            self._at("after_dead_letters")
            with about_rows(connection):  # of which deferred triggers speak only now
                self.session.commit(connection)
        outcome.seconds["commit"], outcome.way = perf_counter() - begun, way(attempt, plan)
        return outcome

    def _record(self, connection: BusyConnection, plan: Plan, attempt: Attempt, done: Collection[int]) -> None:
        """Notes in the ledger what this attempt does; raises what tells that it must be done otherwise."""
        outcome = attempt.outcome
        ranges = attempt.ranges(done)
        if not ranges:
            return
        counts = Done(outcome.written, outcome.deadlettered, outcome.excluded, outcome.rows)
        fresh = attempt.fresh(done) if attempt.check_ledger else None
        values, newest = {"table": self._table.name}, attempt.batch.newest
        if not self.ledger.record(connection, ranges, counts, fresh=fresh, newest=newest, beside=SHAPE, values=values):
            raise _AlreadyDone
        # Asked after the rows: the lock that came with them keeps the table as it is until the commit.
        if self.ledger.answer != plan.shape:
            raise _TableChanged

    def _encoder(self, attempt: Attempt, known: Collection[int] = ()) -> Encoder:
        """The one that has begun with this attempt ahead of time, or a new one."""
        if self._ahead is not None and self._ahead.attempt is attempt:
            encoder, self._ahead = self._ahead, None
            return encoder
        table, excluded = self._table, self._left_out(attempt)
        return Encoder(attempt, self._stream, table.plan, table.transformer, excluded, known, self._at)

    def _left_out(self, attempt: Attempt) -> Callable[[str], bool] | None:
        """Which subjects have no rows: those that are excluded, and those of earlier filters.

        Messages of the latter would be written without being known as done once their subject is configured again.
        """
        excluded, wants = self._excluded, self.ledger.scope.wants
        if not attempt.check_ledger:
            return excluded
        return lambda subject: not wants(subject) or (excluded is not None and excluded(subject))
