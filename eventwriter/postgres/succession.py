"""One durable goes on with the ledger of another one, which writes nothing any more."""

from __future__ import annotations

from typing import Any

from psycopg import Connection

from eventwriter.errors import ConfigurationError
from eventwriter.postgres.ledger import Identity


def identity_keys(identity: Identity) -> dict[str, Any]:
    """The parameters of a statement that looks for its row."""
    return {
        "logical": identity.logical_stream,
        "stream": identity.stream,
        "created": identity.stream_created,
        "durable": identity.durable,
    }


def continued(identity: Identity, by: str) -> str:
    """What to tell of a ledger that another durable goes on with."""
    return (
        f"durable {by} goes on with the ledger of {identity.durable}: "
        f'set streams.{identity.logical_stream}.durable = "{by}"'
    )


def take_over(connection: Connection[Any], identity: Identity, old: str, used: bool) -> bool:
    """Copies what the ledger of the durable ``old`` knows, if it is there, and closes that one."""
    row = connection.execute(
        "SELECT continued_by FROM eventwriter.ledger WHERE stream = %(stream)s AND stream_created = %(created)s "
        "AND durable = %(old)s FOR UPDATE",
        {**identity_keys(identity), "old": old},
    ).fetchone()
    if row is None:
        known = connection.execute("SELECT 1 FROM eventwriter.ledger WHERE stream = %s AND durable = %s LIMIT 1",
                                   [identity.stream, old]).fetchone()  # fmt: skip
        if known is None and not used:
            raise ConfigurationError(
                f'streams.{identity.logical_stream}.continues = "{old}": there is no ledger of that durable for stream '
                f"{identity.stream}: correct the name, or remove the line to begin a new ledger"
            )
        if known is None and (durable := _unfinished(connection, identity)):
            raise ConfigurationError(
                f'streams.{identity.logical_stream}.continues = "{old}": there is no ledger of that durable for stream '
                f"{identity.stream} any more, but one of durable {durable}, as before it was renamed (a restored "
                f'database?): set continues = "{durable}", and everything since then is compared and written; or '
                "remove the line to begin a new ledger"
            )
        return False  # the stream was created anew since: a ledger of its own is right
    if row[0] not in (None, identity.durable):
        raise ConfigurationError(
            f'streams.{identity.logical_stream}.continues = "{old}": durable {row[0]} goes on with that ledger already'
        )
    return copy_ledger(connection, identity, old)


def _unfinished(connection: Connection[Any], identity: Identity) -> str | None:
    """Another durable with a ledger of this very stream that nobody goes on with, the latest if there are several."""
    row = connection.execute(
        "SELECT durable FROM eventwriter.ledger l WHERE logical_stream = %(logical)s AND stream = %(stream)s "
        "AND stream_created = %(created)s AND durable <> %(durable)s AND continued_by IS NULL AND (NOT isempty(done) "
        "OR EXISTS (SELECT FROM eventwriter.ledger_past WHERE ledger_id = l.id)) ORDER BY updated_at DESC LIMIT 1",
        identity_keys(identity),
    ).fetchone()
    return None if row is None else str(row[0])


def copy_ledger(connection: Connection[Any], identity: Identity, old: str, through: int | None = None) -> bool:
    """Lets the row of ``identity``, made if it is missing, know what that of the durable ``old`` knows; closes that.

    Only up to the sequence ``through``, if given. False if there is no such row, or a third one goes on with it.
    """
    until = None if through is None else through + 1
    keys = {**identity_keys(identity), "old": old, "until": until}
    found = connection.execute(
        "UPDATE eventwriter.ledger SET continued_by = %(durable)s, incarnation = gen_random_uuid(), "
        "version = version + 1 WHERE stream = %(stream)s AND stream_created = %(created)s AND durable = %(old)s "
        "AND (continued_by IS NULL OR continued_by = %(durable)s) RETURNING id",
        keys,
    ).fetchone()
    if found is None:
        return False
    row = connection.execute(
        "INSERT INTO eventwriter.ledger AS l (logical_stream, stream, stream_created, durable, filters, begins, "
        "newest, newest_time) SELECT logical_stream, stream, stream_created, %(durable)s, filters, "
        "least(begins, coalesce(%(until)s::bigint - 1, begins)), newest, "
        "CASE WHEN %(until)s::bigint IS NULL OR newest < %(until)s THEN newest_time END FROM eventwriter.ledger "
        "WHERE stream = %(stream)s AND stream_created = %(created)s AND durable = %(old)s "
        "ON CONFLICT (stream, stream_created, durable) DO UPDATE SET begins = EXCLUDED.begins, continued_by = NULL, "
        "newest = EXCLUDED.newest, newest_time = EXCLUDED.newest_time, "
        "version = l.version + 1, incarnation = gen_random_uuid() RETURNING id, filters",
        keys,
    ).fetchone()
    assert row is not None
    # As what was done under the filters of then: right whatever those of the new row are.
    connection.execute(
        "INSERT INTO eventwriter.ledger_past (ledger_id, filters, done) "
        "SELECT %(new)s, f, d * int8multirange(int8range(NULL, %(until)s::bigint)) FROM ("
        "SELECT coalesce(filters, %(filters)s) f, done d FROM eventwriter.ledger WHERE id = %(old)s UNION ALL "
        "SELECT filters, done FROM eventwriter.ledger_past WHERE ledger_id = %(old)s) known "
        "WHERE f IS NOT NULL AND NOT isempty(d)",
        {"new": row[0], "filters": row[1], "old": found[0], "until": until},
    )
    return True


def predecessors(connection: Connection[Any], logical_stream: str, stream: str, durable: str) -> list[str]:
    """Durables with a ledger of this stream, when ``durable`` has none and goes on with none of theirs.

    It would write a second time what they wrote.
    """
    rows = connection.execute(
        "SELECT durable FROM eventwriter.ledger l WHERE logical_stream = %(logical)s AND stream = %(stream)s "
        "AND NOT isempty(done) AND continued_by IS NULL AND NOT EXISTS (SELECT FROM eventwriter.ledger ours "
        "WHERE ours.stream = l.stream AND ours.durable = %(durable)s AND ours.stream_created >= l.stream_created "
        "AND NOT isempty(ours.done)) ORDER BY stream_created DESC, 1",
        {"logical": logical_stream, "stream": stream, "durable": durable},
    )
    return [row[0] for row in rows]
