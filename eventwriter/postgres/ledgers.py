"""A consumer's row in the ledger: found, made, brought to other filters, its losses accepted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from eventwriter.coverage import Past, merge, to_multirange, wanted
from eventwriter.errors import ConfigurationError
from eventwriter.postgres.ledger import Identity, Ledger
from eventwriter.postgres.scope import Scope
from eventwriter.postgres.succession import continued, identity_keys, take_over


@dataclass(frozen=True, slots=True)
class Opening:
    """What a worker that opens its ledger knows."""

    identity: Identity
    filters: tuple[str, ...]
    """Of the consumer, and what is left out of them, as ``coverage.beliefs`` has them."""
    begins: Callable[[], int] = lambda: 0
    """Tells where a ledger that is made anew begins: after this sequence."""
    continues: str | None = None
    """The durable whose ledger one that is made anew goes on with."""
    used: bool = False
    """Whether our consumer was there before: then a ledger that is missing is one of a database of an earlier time."""
    seen: int | None = None
    """The version that we saw last, if we had it open."""


def open_ledger(connection: Connection[Any], opening: Opening) -> Ledger:
    """The row of this identity, in one transaction; for every worker of the durable the same one.

    One that is missing is made: it knows what the ledger of the durable ``continues`` knows, else its business begins
    after the sequence ``begins``, asked for when no other worker can have a ledger to write with. That there is no
    such ledger is an error, unless our consumer was ``used`` before: then the database is of an earlier time.

    A row with other filters is brought to ours; it is an error if its version is not below ``seen``: somebody brought
    it to theirs since we had it open. Raises ConfigurationError, with the remedy.
    """
    filters = sorted(opening.filters)
    with connection.transaction():
        row = _row(connection, opening.identity)
        if row is None or row[-1] is not None or sorted(row[-2] or ()) != filters:  # else nobody need wait
            return _settled(connection, opening, filters)
        number, incarnation, version, begun, since, *_ = row
        return Ledger(
            number, incarnation, version, begun, since, Scope(filters, past_of(connection, number)), new=False
        )


def _settled(connection: Connection[Any], opening: Opening, filters: list[str]) -> Ledger:
    identity = opening.identity
    new = _insert(connection, identity, filters)
    if new:
        # Not before: the old one was perhaps still there, and somebody wrote with it what was delivered meanwhile.
        connection.execute(
            "UPDATE eventwriter.ledger SET begins = %(begins)s "
            "WHERE stream = %(stream)s AND stream_created = %(created)s AND durable = %(durable)s",
            {**identity_keys(identity), "begins": opening.begins()},
        )
    took = new and opening.continues is not None and take_over(connection, identity, opening.continues, opening.used)
    row = _row(connection, identity, lock=True)
    assert row is not None, "inserted, and locked"
    number, incarnation, version, begun, since, believed, continued_by = row
    if continued_by is not None:
        raise ConfigurationError(continued(identity, continued_by))
    changed = new
    if sorted(believed or ()) != filters:
        if believed is not None and not new and opening.seen is not None and version >= opening.seen:
            raise ConfigurationError(
                f"another worker of durable {identity.durable} was started with the subjects "
                f"{', '.join(believed)}: set subjects and exclude of streams.{identity.logical_stream} to the same "
                "everywhere"
            )
        incarnation = _rebase(connection, number, believed, filters)
        changed = True
    past = past_of(connection, number)
    if changed:
        believed_for_all = (entry for entry in past if all(map(entry.covers, wanted(filters, past))))
        ranges = to_multirange(merge(each for entry in believed_for_all for each in entry.done))
        connection.execute(
            "UPDATE eventwriter.ledger SET done = done + %s::int8multirange WHERE id = %s", [ranges, number]
        )
    return Ledger(number, incarnation, version, begun, since, Scope(filters, past), new=new and not took)


def _insert(connection: Connection[Any], identity: Identity, filters: list[str]) -> bool:
    row = connection.execute(
        "INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable, filters, begins) "
        "VALUES (%(logical)s, %(stream)s, %(created)s, %(durable)s, %(filters)s, 0) "
        "ON CONFLICT (stream, stream_created, durable) DO NOTHING RETURNING id",
        {**identity_keys(identity), "filters": filters},
    ).fetchone()
    return row is not None


def _row(connection: Connection[Any], identity: Identity, *, lock: bool = False) -> tuple[Any, ...] | None:
    return connection.execute(
        "SELECT id, incarnation, version, begins, updated_at, filters, continued_by FROM eventwriter.ledger "
        "WHERE stream = %(stream)s AND stream_created = %(created)s AND durable = %(durable)s"
        + (" FOR UPDATE" if lock else ""),
        identity_keys(identity),
    ).fetchone()


def past_of(connection: Connection[Any], number: int) -> list[Past]:
    """What is done under earlier filters, of the ledger row with this number."""
    rows = connection.execute(
        "SELECT filters, array(SELECT ARRAY[lower(r), upper(r) - 1] FROM unnest(done) r) "
        "FROM eventwriter.ledger_past WHERE ledger_id = %s ORDER BY id",
        [number],
    )
    return [Past(tuple(filters), tuple((first, last) for first, last in done)) for filters, done in rows]


def _rebase(connection: Connection[Any], number: int, believed: list[str] | None, filters: list[str]) -> Any:
    """What is done is from now on believed for the old filters alone; other workers must open the row again."""
    if believed is not None:
        found = connection.execute(
            "UPDATE eventwriter.ledger_past p SET done = p.done + l.done FROM eventwriter.ledger l "
            "WHERE l.id = %(id)s AND p.ledger_id = l.id AND p.filters = l.filters RETURNING 1",
            {"id": number},
        ).fetchone()
        if found is None:
            connection.execute(
                "INSERT INTO eventwriter.ledger_past (ledger_id, filters, done) "
                "SELECT id, filters, done FROM eventwriter.ledger WHERE id = %s AND NOT isempty(done)",
                [number],
            )
    row = connection.execute(
        "UPDATE eventwriter.ledger SET filters = %(f)s, version = version + 1, "
        "done = CASE WHEN filters IS NULL THEN done ELSE '{}' END, "
        "incarnation = CASE WHEN filters IS NULL THEN incarnation ELSE gen_random_uuid() END "
        "WHERE id = %(id)s RETURNING incarnation",
        {"f": filters, "id": number},
    ).fetchone()
    assert row is not None
    return row[0]


def accept_losses(connection: Connection[Any], logical_stream: str) -> list[tuple[Any, ...]]:
    """Takes note of what is missing and gone from the stream; returns it, nobody is told of it again.

    A tuple each: first and last sequence, published after and before.
    """
    rows = connection.execute(
        "UPDATE eventwriter.ledger_losses SET accepted_at = now() WHERE accepted_at IS NULL AND ledger_id IN "
        "(SELECT id FROM eventwriter.ledger WHERE logical_stream = %s) "
        "RETURNING first, last, after, before",
        [logical_stream],
    ).fetchall()
    return sorted(rows, key=lambda row: row[0])
