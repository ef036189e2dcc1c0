"""The ledger: which stream sequences are done, changed in the transaction that writes their rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

Range = tuple[int, int]
"""First and last sequence, both included."""

_FEW_RANGES = 512
"""Bytes of ``done`` (about 50 ranges) beyond which its gaps are closed: an update costs more the longer it is."""


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


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same sequences as few sorted ranges."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def runs(firsts: Sequence[int], lasts: Sequence[int]) -> list[Range]:
    """The ranges firsts[k] … lasts[k] as few sorted ones; quick when each continues the one before, as is usual."""
    if firsts and [*firsts[1:]] == [last + 1 for last in lasts[:-1]] and firsts[0] <= lasts[0]:
        return [(firsts[0], lasts[-1])]
    return merge(zip(firsts, lasts, strict=True))


def to_multirange(ranges: Sequence[Range]) -> str:
    """PostgreSQL's text of an int8multirange."""
    return "{" + ",".join(f"[{first},{last + 1})" for first, last in ranges) + "}"


class Ledger:
    """The ledger row of one consumer. Every method takes the connection whose transaction it belongs to."""

    def __init__(self, row: int) -> None:
        self.row = row
        self.size = 0

    @classmethod
    def open(cls, connection: Connection[Any], identity: Identity) -> Ledger:
        """The row of this identity, created if it is missing; for every worker of the durable the same one."""
        values = [identity.logical_stream, identity.stream, identity.stream_created, identity.durable]
        connection.execute(
            "INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (stream, stream_created, durable) DO NOTHING",
            values,
        )
        row = connection.execute(
            "SELECT id FROM eventwriter.ledger WHERE stream = %s AND stream_created = %s AND durable = %s", values[1:]
        ).fetchone()
        assert row is not None
        return cls(row[0])

    def highest(self, connection: Connection[Any]) -> int:
        """The highest sequence that is done, 0 if none."""
        row = connection.execute(
            "SELECT coalesce(upper(done) - 1, 0) FROM eventwriter.ledger WHERE id = %s", [self.row]
        ).fetchone()
        return int(row[0]) if row else 0

    def record(self, connection: Connection[Any], ranges: Sequence[Range], done: Done, *, guard: bool = True) -> bool:
        """Adds ``ranges`` and counts; with ``guard``, False and no change if any of them was done before.

        The last statement before COMMIT: it locks the row that all workers of the durable share.
        """
        changed = to_multirange(ranges)
        row = connection.execute(
            "UPDATE eventwriter.ledger SET done = done + %(r)s::int8multirange, updated_at = now(), "
            "messages_written = messages_written + %(w)s, messages_deadlettered = messages_deadlettered + %(d)s, "
            "messages_excluded = messages_excluded + %(e)s, rows_written = rows_written + %(n)s "
            "WHERE id = %(id)s AND NOT (%(guard)s AND done && %(r)s::int8multirange) RETURNING pg_column_size(done)",
            {
                "r": changed,
                "w": done.messages_written,
                "d": done.messages_deadlettered,
                "e": done.messages_excluded,
                "n": done.rows_written,
                "id": self.row,
                "guard": guard,
            },
        ).fetchone()
        if row is None:
            return False
        self.size = row[0]
        return True

    def known(self, connection: Connection[Any], sequences: Sequence[int]) -> set[int]:
        """Those of ``sequences`` that are done. Locks the row until the transaction ends."""
        connection.execute("SELECT 1 FROM eventwriter.ledger WHERE id = %s FOR UPDATE", [self.row])
        rows = connection.execute(
            "SELECT s FROM eventwriter.ledger l, unnest(%s::bigint[]) s WHERE l.id = %s AND l.done @> s",
            [list(sequences), self.row],
        )
        return {row[0] for row in rows}

    @property
    def fragmented(self) -> bool:
        """Whether ``done`` has so many ranges that closing its gaps pays."""
        return self.size > _FEW_RANGES

    def resume(self, connection: Connection[Any], first: int) -> int:
        """The lowest sequence from ``first`` on that is not done: where a consumer that was deleted starts again."""
        row = connection.execute(
            "SELECT upper(r) FROM eventwriter.ledger, unnest(done) r WHERE id = %s AND r @> %s::bigint",
            [self.row, first],
        ).fetchone()
        return int(row[0]) if row else first

    def contains(self, connection: Connection[Any], sequence: int) -> bool:
        """Whether this sequence is done."""
        row = connection.execute(
            "SELECT done @> %s::bigint FROM eventwriter.ledger WHERE id = %s", [sequence, self.row]
        ).fetchone()
        return bool(row and row[0])

    def distrust(self, connection: Connection[Any], ack_floor: int) -> None:
        """Keeps ``fold`` from closing gaps up to this ack floor: something there was acknowledged and is not done."""
        connection.execute(
            "UPDATE eventwriter.ledger SET fold_after = greatest(fold_after, %s) WHERE id = %s", [ack_floor, self.row]
        )

    def fold(self, connection: Connection[Any], ack_floor: int) -> None:
        """Closes the gaps below the consumer's ack floor, as read before this transaction began.

        Acks follow commits, so what the ledger lacks there is not ours: messages of other subjects, or deleted ones.
        """
        row = connection.execute(
            "UPDATE eventwriter.ledger SET done = done + int8multirange(int8range(fold_after + 1, %(f)s + 1)) "
            "WHERE id = %(id)s AND fold_after < %(f)s RETURNING pg_column_size(done)",
            {"f": ack_floor, "id": self.row},
        ).fetchone()
        self.size = row[0] if row else 0
