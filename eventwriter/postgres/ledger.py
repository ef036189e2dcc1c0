"""The ledger: which stream sequences are done, changed in the transaction that writes their rows.

Every statement names the row's incarnation: a row that is gone, or has come to mean something else, is an error
(LedgerChangedError), never mistaken for the one that was opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from eventwriter.coverage import Range, Segment, merge, segments, to_multirange
from eventwriter.errors import LedgerChangedError
from eventwriter.postgres.scope import Scope
from eventwriter.stream import Message


@dataclass(frozen=True, slots=True)
class Identity:
    """What a ledger row is for: a stream that is created again counts from 1 again and gets a new row."""

    logical_stream: str
    stream: str
    stream_created: datetime
    durable: str


@dataclass(frozen=True, slots=True)
class Done:
    """Counts a transaction adds to the ledger."""

    messages_written: int = 0
    messages_deadlettered: int = 0
    messages_excluded: int = 0
    rows_written: int = 0


@dataclass(frozen=True, slots=True)
class Glance:
    """What one look at the ledger tells."""

    rewound: bool
    """The database went back in time since the last look."""
    highest: int
    """The highest sequence that is done, 0 if none."""
    begins: int
    ranges: int
    """How many ranges ``done`` has."""
    lost: int
    """Sequences that are missing and gone from the stream, and that nobody accepted yet."""
    newest: tuple[int, int] | None
    """Sequence and time of the newest message of ours, nanoseconds since 1970; None: unknown."""


class Ledger:
    """The ledger row of one consumer. Every method takes the connection whose transaction it belongs to."""

    def __init__(
        self, row: int, incarnation: UUID, version: int, begins: int, since: datetime, scope: Scope, *, new: bool
    ) -> None:
        self.row = row
        self.new = new
        """Whether it was missing, and was made by this worker: then it knew nothing."""
        self.scope = scope
        self.begins = begins
        """Sequences up to here are not our business."""
        self._since = since
        self._key = {"id": row, "incarnation": incarnation}
        self._version = version
        self._recorded: int | None = None
        self.answer: Any = None
        """To what the latest ``record`` was asked beside."""

    @property
    def version(self) -> int:
        """The latest that was seen."""
        return self._version

    # --- what is done ---------------------------------------------------------------------------------------------

    def record(
        self,
        connection: Connection[Any],
        ranges: Iterable[Range],
        done: Done,
        *,
        fresh: Iterable[Range] | None = None,
        newest: Message | None = None,
        beside: str = "NULL",
        values: Mapping[str, object] | None = None,
    ) -> bool:
        """Adds ``ranges`` and counts; False and no change if any of them was done before.

        Once some are known, ``fresh`` are the sequences of the others alone: only these must not be done; ``newest`` is
        the last message of all. The last statement before COMMIT: it locks the row that all workers of the durable
        share. ``beside`` is an expression with ``values`` whose ``answer`` costs no round trip of its own here.
        """
        changed = to_multirange(ranges)
        row = connection.execute(
            "UPDATE eventwriter.ledger SET done = done + %(r)s::int8multirange, updated_at = now(), "
            "version = version + 1, messages_written = messages_written + %(w)s, "
            "messages_deadlettered = messages_deadlettered + %(d)s, "
            "messages_excluded = messages_excluded + %(e)s, rows_written = rows_written + %(n)s, "
            "newest_time = CASE WHEN newest >= %(q)s::bigint THEN newest_time ELSE %(t)s::bigint END, "
            "newest = greatest(newest, %(q)s::bigint) "
            "WHERE id = %(id)s AND incarnation = %(incarnation)s AND continued_by IS NULL "
            "AND NOT done && %(f)s::int8multirange RETURNING version, " + beside,
            {"r": changed, "f": changed if fresh is None else to_multirange(fresh), "w": done.messages_written,
             "d": done.messages_deadlettered, "e": done.messages_excluded, "n": done.rows_written,
             "q": newest.sequence if newest else 0, "t": newest.time if newest else None, **self._key,
             **(values or {})},
        ).fetchone()  # fmt: skip
        if row is None:
            self._verify(connection)
            return False
        self._recorded, self.answer = row
        return True

    def committed(self) -> bool:
        """What was recorded is committed; False if the database went back in time since the commit before."""
        recorded, self._recorded = self._recorded, None
        if recorded is None:  # all of it was done before
            return True
        later = recorded > self._version
        self._version = recorded
        return later

    def known(self, connection: Connection[Any], messages: Sequence[Message]) -> tuple[set[int], set[int]]:
        """The sequences of those that are done: in ``done``, and under earlier filters.

        Locks nothing: whether that is still so tells ``record``.
        """
        sequences = [message.sequence for message in messages]
        rows = connection.execute(
            "SELECT s FROM eventwriter.ledger l, unnest(%(s)s::bigint[]) s "
            "WHERE l.id = %(id)s AND l.incarnation = %(incarnation)s AND l.done @> s",
            {"s": sequences, **self._key},
        )
        done = {row[0] for row in rows}
        past = {m.sequence for m in messages if m.sequence not in done and self.scope.in_past(m)}
        return done, past

    # --- what is missing ------------------------------------------------------------------------------------------

    def glance(self, connection: Connection[Any]) -> Glance:
        """A look at the row, as often as once in two seconds."""
        row = connection.execute(
            "SELECT version, coalesce(upper(done) - 1, 0), begins, (SELECT count(*) FROM unnest(done)), "
            "(SELECT coalesce(sum(last - first + 1), 0)::bigint FROM eventwriter.ledger_losses "
            "WHERE ledger_id = id AND accepted_at IS NULL), newest, newest_time "
            "FROM eventwriter.ledger WHERE id = %(id)s AND incarnation = %(incarnation)s AND continued_by IS NULL",
            self._key,
        ).fetchone()
        if row is None:
            self._verify(connection)
            raise self._changed()
        version, highest, self.begins, ranges, lost, *newest = row
        rewound = version < self._version
        self._version = version
        known = (newest[0], newest[1]) if newest[1] else None
        return Glance(rewound, max(highest, self.scope.past_last), self.begins, ranges, lost, known)

    def resume(self, connection: Connection[Any], first: int) -> int:
        """The lowest sequence from ``first`` on of which something is missing: where a new consumer starts."""
        first = max(first, self.begins + 1)
        found = self.missing(connection, first, 1 << 62)
        return found[0].first if found else first

    def missing(self, connection: Connection[Any], first: int, last: int) -> list[Segment]:
        """What is not known to be done between two sequences."""
        rows = connection.execute(
            "SELECT lower(r), upper(r) - 1 FROM eventwriter.ledger, unnest(done * int8multirange("
            "int8range(%(first)s::bigint, %(last)s::bigint, '[]'))) r "
            "WHERE id = %(id)s AND incarnation = %(incarnation)s",
            {"first": first, "last": max(first, last), **self._key},
        ).fetchall()
        if not rows:
            self._verify(connection)
        return segments(self.scope.filters, max(first, self.begins + 1), last, rows, self.scope.past)

    def close(self, connection: Connection[Any], ranges: Iterable[Range]) -> None:
        """Adds ranges that were looked into: nothing of ours is in them that is not done."""
        row = connection.execute(
            "UPDATE eventwriter.ledger SET done = done + %(r)s::int8multirange, version = version + 1 "
            "WHERE id = %(id)s AND incarnation = %(incarnation)s AND continued_by IS NULL RETURNING 1",
            {"r": to_multirange(ranges), **self._key},
        ).fetchone()
        if row is None:
            raise self._changed()

    def forget(self, connection: Connection[Any], ranges: Iterable[Range], *, everybody: bool = False) -> None:
        """Takes back what was noted as done without any message of ours in it; ``everybody`` shall do the same.

        For that the row gets another incarnation: the other workers must open it again.
        """
        connection.execute(
            "UPDATE eventwriter.ledger SET done = done - %(r)s::int8multirange, version = version + 1, "
            f"incarnation = {'gen_random_uuid()' if everybody else 'incarnation'} "
            "WHERE id = %(id)s AND incarnation = %(incarnation)s AND continued_by IS NULL",
            {"r": to_multirange(merge(ranges)), **self._key},
        )

    def lose(self, connection: Connection[Any], lost: Range, before: datetime | None) -> None:
        """Notes a range that the stream does not hold any more: published ``before`` what it still holds."""
        connection.execute(
            "INSERT INTO eventwriter.ledger_losses (ledger_id, first, last, after, before) "
            "SELECT id, %(first)s, %(last)s, %(after)s, %(before)s FROM eventwriter.ledger "
            "WHERE id = %(id)s AND incarnation = %(incarnation)s ON CONFLICT (ledger_id, first) DO UPDATE "
            "SET last = greatest(ledger_losses.last, EXCLUDED.last), accepted_at = NULL",
            {"first": lost[0], "last": lost[1], "after": self._since, "before": before, **self._key},
        )

    def claim(self, connection: Connection[Any], who: UUID, seconds: float) -> bool:
        """Whether it is our turn to compare the ledger with the stream; if so, it stays ours for so long."""
        row = connection.execute(
            "UPDATE eventwriter.ledger SET comparing = %(who)s, comparing_until = now() + %(s)s * interval '1 second' "
            # A row that is locked at this moment is asked for later: nobody waits.
            "WHERE id = (SELECT id FROM eventwriter.ledger WHERE id = %(id)s AND incarnation = %(incarnation)s "
            "AND (comparing = %(who)s OR comparing_until IS NULL OR comparing_until < now()) "
            "FOR UPDATE SKIP LOCKED) RETURNING 1",
            {"who": who, "s": seconds, **self._key},
        ).fetchone()
        return row is not None

    # --- is it still ours -----------------------------------------------------------------------------------------

    def _verify(self, connection: Connection[Any]) -> None:
        found = connection.execute(
            "SELECT 1 FROM eventwriter.ledger WHERE id = %(id)s AND incarnation = %(incarnation)s "
            "AND continued_by IS NULL",
            self._key,
        ).fetchone()
        if found is None:
            raise self._changed()

    def _changed(self) -> LedgerChangedError:
        return LedgerChangedError(
            f"row {self.row} of eventwriter.ledger is gone or was changed by others (a restored database, other "
            "subjects, another durable that goes on with it)"
        )
