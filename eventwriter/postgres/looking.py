"""The ledger as a visitor reads it: nothing is made, changed, locked or believed beyond what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from eventwriter.coverage import Past, Range, Segment, segments, to_multirange, wanted
from eventwriter.errors import ConfigurationError
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import past_of
from eventwriter.postgres.succession import continued, identity_keys


@dataclass(frozen=True, slots=True)
class Known:
    """What a consumer's ledger knows, at one moment."""

    row: int | None = None
    """None: there is no ledger, and nothing is known."""
    begins: int = 0
    """Sequences up to here are not its business."""
    filters: tuple[str, ...] | None = None
    """The beliefs, as ``coverage`` has them; None: it is believed for all."""
    done: tuple[Range, ...] = ()
    past: tuple[Past, ...] = ()
    newest: tuple[int, int] | None = None
    """Sequence and time of the newest message of ours, as ``Glance`` has them."""

    @property
    def highest(self) -> int:
        """The highest sequence that is done, 0 if none."""
        past = (each for entry in self.past for each in entry.done)
        return max((last for _, last in (*self.done, *past)), default=0)

    def missing(self, patterns: Sequence[str], first: int, last: int) -> list[Segment]:
        """What is not known to be done between two sequences, of subjects that these beliefs are about."""
        done, past = self.done, self.past
        if self.filters is not None:
            done, past = (), (Past(self.filters, self.done), *self.past)
        return segments(wanted(patterns, past), first, last, done, past)


def look_up(connection: Connection[Any], identity: Identity) -> Known:
    """What the ledger of this identity knows; raises ConfigurationError where another durable goes on with it."""
    row = connection.execute(
        "SELECT id, begins, filters, array(SELECT ARRAY[lower(r), upper(r) - 1] FROM unnest(done) r), continued_by, "
        "CASE WHEN newest_time IS NOT NULL THEN ARRAY[newest, newest_time] END "
        "FROM eventwriter.ledger WHERE stream = %(stream)s AND stream_created = %(created)s AND durable = %(durable)s",
        identity_keys(identity),
    ).fetchone()
    if row is None:
        return Known()
    number, begins, filters, done, continued_by, newest = row
    if continued_by is not None:
        raise ConfigurationError(continued(identity, continued_by))
    # What moves from the row to its past meanwhile is in both, and means the same in either.
    ranges = tuple((first, last) for first, last in done)
    beliefs = None if filters is None else tuple(filters)
    return Known(
        number, begins, beliefs, ranges, tuple(past_of(connection, number)), (newest[0], newest[1]) if newest else None
    )


def dead_letters(connection: Connection[Any], row: int, first: int, last: int) -> int:
    """Messages between two sequences of which something is a dead letter that waits."""
    found = connection.execute(
        "SELECT count(DISTINCT sequence) FROM eventwriter.dead_letter_records "
        "WHERE ledger_id = %s AND sequence BETWEEN %s AND %s AND replayed_at IS NULL",
        [row, first, last],
    ).fetchone()
    assert found is not None
    return int(found[0])


def left(connection: Connection[Any], row: int, ranges: Sequence[Range]) -> int:
    """How many sequences of these ranges are not done."""
    found = connection.execute(
        "SELECT coalesce(sum(upper(r) - lower(r)), 0)::bigint FROM eventwriter.ledger, "
        "unnest(%s::int8multirange - done) r WHERE id = %s",
        [to_multirange(ranges), row],
    ).fetchone()
    assert found is not None
    return int(found[0])
