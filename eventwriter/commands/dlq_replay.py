"""Dead letters become rows: through the present decoder into the present table, each exactly once.

Rows go in, and letters are marked, in one transaction a batch, which locks the letters: whoever else replays meanwhile
leaves them out, and what a process had in hand that died waits as before.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from psycopg import Connection, sql

from eventwriter.commands.dlq_fates import Left, Piece, Result, gathered
from eventwriter.commands.dlq_letters import messages_of
from eventwriter.commands.dlq_selection import LETTERS, Selection
from eventwriter.commands.settings import Loaded
from eventwriter.config.failpoints import failpoint
from eventwriter.config.model import StreamConfig
from eventwriter.config.subjects import matcher
from eventwriter.errors import OversizedError, RaisedError, SchemaError
from eventwriter.postgres import deadletters
from eventwriter.postgres.attempt import Attempt
from eventwriter.postgres.budget import TooMuchError
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.connection import check_server
from eventwriter.postgres.errors import RowRefused, about_ours, about_rows, needing
from eventwriter.postgres.policy import following
from eventwriter.postgres.session import Session
from eventwriter.postgres.staged import StagedWrite
from eventwriter.postgres.table import Table
from eventwriter.stream import Batch, Decoded, Message, Reject, Stream

_PLAN = sql.SQL(
    "SELECT r.id, r.ledger_id, r.sequence, l.logical_stream, octet_length(m.payload), r.reason FROM {} WHERE {} "
    "ORDER BY l.logical_stream, r.ledger_id, r.sequence, r.id"
)
_LOCK = sql.SQL(
    "SELECT r.id FROM eventwriter.dead_letter_records r JOIN eventwriter.dead_letter_messages m "
    "USING (ledger_id, sequence) WHERE r.id = ANY(%s) AND r.replayed_at IS NULL FOR UPDATE OF r, m SKIP LOCKED"
)


CRASHES = "crashes"
"""The reason of a message that no worker survived: a replay would not either, and what comes after it would wait."""


class _TableChanged(Exception):
    """The table is not as the plan says any more: what is not committed is planned and written again."""


class _Share(NamedTuple):
    """Letters that are replayed in one transaction: of one ledger, and all that are selected of each message."""

    stream: str
    ledger: int
    numbers: Sequence[int]


def replay(
    loaded: Loaded,
    selection: Selection,
    *,
    dry_run: bool,
    result: Result,
    tell: Callable[[int, int], object] = lambda done, total: None,
) -> None:
    """Replays what is selected; ``tell`` hears how many letters are through, of how many.

    ``result`` is up to date whenever this ends, also by Ctrl-C or an error: what is through is committed. A dry run
    does the same and takes it back. Raises UnavailableError, and whatever else keeps all streams from being written.
    """
    session = Session(loaded.config.postgres, "dlq replay")
    with session.first() as connection:
        check_server(connection)
        shares = _planned(connection, selection, loaded, result)
    session.open()
    try:
        done, replayer = sum(map(len, result.left.values())), None
        for share in shares:
            if replayer is None or replayer.name != share.stream:
                replayer = _Replayer(session, loaded, share.stream, result, dry_run=dry_run)
            replayer.take(share)
            done += len(share.numbers)
            tell(done, result.selected)
    finally:
        session.close()


def _planned(connection: Connection[Any], selection: Selection, loaded: Loaded, result: Result) -> list[_Share]:
    """The letters there are now, in as many transactions as the settings of [writer] make of them."""
    asked = bool(selection.numbers) or selection.reason == CRASHES
    where, values = selection.where()
    shares: list[_Share] = []
    numbers, size, last = array("q"), 0, None
    with connection.cursor("letters") as cursor:  # on the server: here is no more of them than their numbers
        cursor.itersize = 10_000
        for number, ledger, sequence, stream, length, reason in cursor.execute(_PLAN.format(LETTERS, where), values):
            result.selected += 1
            if reason == CRASHES and not asked:
                result.leave(Left(stream, reason, None), "no worker survived it: replay it by its number", [number])
                continue
            if last != (stream, ledger, sequence):
                limits = (loaded.config.streams[stream] if stream in loaded.declared else loaded.config).writer
                full = len(numbers) >= limits.batch_messages or size + length > limits.batch_bytes
                if numbers and (full or last is None or last[:2] != (stream, ledger)):
                    numbers, size = array("q"), 0
                if not numbers:
                    shares.append(_Share(stream, ledger, numbers))
                last = stream, ledger, sequence
                size += length
            numbers.append(number)
    return shares


class _Replayer:
    """Replays letters of one stream."""

    def __init__(self, session: Session, loaded: Loaded, name: str, result: Result, *, dry_run: bool) -> None:
        self.name = name
        self._session = session
        self._stream: Stream | None = loaded.declared.get(name)
        self._settings: StreamConfig | None = loaded.config.streams.get(name)
        if self._stream is not None and self._settings is not None:
            self._stream = self._stream.leaving_out(self._settings.omit)
        exclude = self._settings.exclude if self._settings else ()
        self._excluded = matcher(exclude) if exclude else lambda subject: False
        self._result = result
        self._dry_run = dry_run
        self._at = failpoint(name) or (lambda here: None)
        self._table: Table | None = None

    def take(self, share: _Share) -> None:
        """Replays letters; if their stream cannot be written, that is noted, and they wait."""
        if self._stream is None or self._settings is None:
            self._leave_all(share, "no_stream", f"there is no stream {self.name}: is its plug-in missing?")
        elif self.name in self._result.problems:
            self._leave_all(share, "no_table", self._result.problems[self.name])
        else:
            try:
                self._halve(share, self._stream, self._settings.table)
            except SchemaError as error:
                self._result.problems[self.name] = str(error)
                self._leave_all(share, "no_table", str(error))

    def _leave_all(self, share: _Share, reason: str, detail: str) -> None:
        self._result.problems[self.name] = detail
        self._result.leave(Left(self.name, reason, None), detail, share.numbers)

    def _halve(self, share: _Share, stream: Stream, table: str) -> None:
        """Replays letters; what is too much for one transaction in two, and so on."""
        left = share.numbers
        try:
            while left:
                left = self._replay(share._replace(numbers=left), stream, table)
        except (OversizedError, TooMuchError) as error:
            middle = len(left) // 2
            if not middle:
                self._result.leave(Left(self.name, "oversized", None), str(error), left)
                return
            for half in (left[:middle], left[middle:]):
                self._halve(share._replace(numbers=half), stream, table)

    @needing("operator")
    def _replay(self, share: _Share, stream: Stream, name: str) -> Sequence[int]:
        """Replays as many letters as their rows leave room for; those that are left."""
        with self._session.connection() as connection:
            if self._table is None:
                table = Table(stream, name)
                table.read(connection)
                self._table = table
            messages = [*messages_of(connection, share.ledger, share.numbers)]
        # Not within a transaction: PostgreSQL ends a session whose transaction waits long for its next statement.
        pieces = gathered(messages, partial(self._decoded, stream))
        later = {number for _, letters in messages[len(pieces) :] for number in letters}
        left = [number for number in share.numbers if number in later]
        share = share._replace(numbers=[number for number in share.numbers if number not in later])
        isolate = False
        while True:
            try:
                with self._session.connection(rows=True) as connection:
                    found = self._transact(connection, share, pieces, isolate)
                    with about_rows(connection):  # of which deferred triggers speak only now, or never if it is tried
                        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                    if self._dry_run:
                        connection.rollback()
                break
            except RowRefused as refusal:
                tried = Attempt(Batch((), ()), staged=True, isolate=isolate)
                isolate = following(refusal, tried, stream, self._table.plan).isolate
            except RaisedError:  # by a trigger, perhaps about one letter: that goes on waiting, and the others do not
                if isolate:
                    raise
                isolate = True
            except (_TableChanged, SchemaError) as error:
                with self._session.connection() as connection:
                    changed = self._table.changed(connection)
                    if changed:
                        self._table.read(connection)
                if not changed and isinstance(error, SchemaError):
                    raise
                isolate = False
        self._at("after_commit")
        self._result.add(found)
        return left

    def _decoded(self, stream: Stream, message: Message) -> Decoded:
        if self._excluded(message.subject):
            return Decoded((), (Reject("excluded", f"streams.{self.name}.exclude has its subject {message.subject}"),))
        return stream.decode(message)

    def _transact(self, connection: BusyConnection, share: _Share, pieces: list[Piece], isolate: bool) -> Result:
        """The transaction; what it will have done."""
        assert self._stream is not None
        assert self._table is not None
        ours = {row[0] for row in connection.execute(_LOCK, [[*share.numbers]])}
        rows = {piece.message.sequence: piece.choose(ours) for piece in pieces}
        stream = replace(self._stream, decode=lambda message: Decoded(rows[message.sequence]), fast=None)
        messages = [piece.message for piece in pieces]
        sequences = [each.sequence for each in messages]
        attempt = Attempt(Batch(messages, sequences), staged=True, isolate=isolate, raised=isolate)
        StagedWrite(connection, stream, self._table.plan, attempt, self._at).run((), None, lambda: False)
        # Asked after the rows: the lock that came with them keeps the table as it is until the commit.
        if self._table.changed(connection):
            raise _TableChanged
        self._at("after_copy")
        result = Result(busy=len(share.numbers) - len(ours))
        new: list[tuple[int, list[Reject]]] = []
        for index, piece in enumerate(pieces):
            refused = attempt.letters.get(index, [])
            waiting, added = piece.settle(piece.refused(refused))
            for number, reject in waiting.items():
                result.leave(Left(self.name, reject.reason, reject.sqlstate), reject.detail, [number])
            ours -= waiting.keys()
            result.rows += len(rows[piece.message.sequence]) - len(refused)
            result.added += len(added)
            if added:
                new.append((piece.message.sequence, added))
        result.replayed = len(ours)
        with about_ours(connection):
            deadletters.write_records(connection, share.ledger, new)
            self._at("after_dead_letters")
            connection.execute(
                "UPDATE eventwriter.dead_letter_records SET replayed_at = now() WHERE id = ANY(%s)", [[*ours]]
            )
        self._at("after_mark")
        return result
