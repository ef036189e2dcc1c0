"""Dead letters in a file, a line of JSON for each message, and back into a database: nothing of them is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Annotated, Any, NamedTuple

import msgspec
from psycopg import Connection, sql
from psycopg.rows import dict_row

from eventwriter import terminal
from eventwriter.commands.dlq_letters import header_map, reading
from eventwriter.commands.dlq_selection import LETTERS, Selection
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import BAD_DATA, EventWriterError
from eventwriter.postgres import deadletters
from eventwriter.postgres.errors import RowRefused, translated

_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Index = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
_Sequence = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^\0]*$")]
"""Kept as it is, where other text is made fit; no text of PostgreSQL has U+0000."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a record of a message, or the whole of it, is no row."""

    record_index: _Index | None
    reason: str
    detail: str
    sqlstate: _Name | None
    replayed_at: _Time | None


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message with the records of it that are dead letters: a line of the file."""

    logical_stream: _Name
    stream: _Name
    stream_created: _Time
    durable: _Name
    sequence: _Sequence
    subject: str
    headers: dict[str, str | list[str]] | None
    message_time: _Time
    created_at: _Time
    records: list[Record]
    payload: bytes = msgspec.field(name="payload_base64")


class BadFileError(EventWriterError):
    """A file that should hold dead letters holds something else."""

    exit_code = BAD_DATA


class Imported(NamedTuple):
    """What became of the dead letters of a file."""

    imported: int = 0
    known: int = 0
    """They were there already."""
    undone: int = 0
    """Of messages that the ledger of this database does not know as done: the service will get them again."""


IMPORTED = " (imported)"
"""After the name of a durable that has no ledger here: no consumer can be called so, so none will go on with it."""

_EXPORT = sql.SQL(
    "SELECT l.logical_stream, l.stream, l.stream_created, l.durable, m.sequence, m.subject, m.headers, m.message_time, "
    "m.created_at, m.payload AS payload_base64, json_agg(json_build_object('record_index', r.record_index, "
    "'reason', r.reason, 'detail', r.detail, 'sqlstate', r.sqlstate, 'replayed_at', r.replayed_at) ORDER BY r.id) "
    "AS records FROM {} WHERE {} GROUP BY l.id, m.ledger_id, m.sequence ORDER BY l.id, m.sequence"
)
# What is there already stays as it is; a replay that is under way has the letters that it needs.
_IMPORT = (
    "WITH done AS (SELECT FROM eventwriter.ledger l WHERE id = %(ledger)s AND (right(durable, 11) = %(imported)s "
    "OR done @> %(sequence)s::bigint OR EXISTS (SELECT FROM eventwriter.ledger_past p WHERE p.ledger_id = l.id "
    "AND p.done @> %(sequence)s::bigint))), "
    "message AS (INSERT INTO eventwriter.dead_letter_messages "
    "(ledger_id, sequence, subject, headers, payload, message_time, created_at) "
    "SELECT %(ledger)s, %(sequence)s, %(subject)s, %(headers)s::jsonb, %(payload)s, %(message_time)s, %(created_at)s "
    "FROM done ON CONFLICT DO NOTHING), "
    "records AS (INSERT INTO eventwriter.dead_letter_records "
    "(ledger_id, sequence, record_index, reason, detail, sqlstate, replayed_at) "
    "SELECT %(ledger)s, %(sequence)s, new.* FROM done, json_to_recordset(%(records)s::json) AS new "
    "(record_index integer, reason text, detail text, sqlstate text, replayed_at timestamptz) "
    "WHERE NOT EXISTS (SELECT FROM eventwriter.dead_letter_records old WHERE old.ledger_id = %(ledger)s "
    "AND old.sequence = %(sequence)s AND (old.record_index, old.reason, old.detail, old.sqlstate) "
    "IS NOT DISTINCT FROM (new.record_index, new.reason, new.detail, new.sqlstate)) RETURNING 1) "
    "SELECT (SELECT count(*) FROM records), (SELECT count(*) FROM done)"
)


def exported(settings: PostgresConfig, selection: Selection) -> Iterator[tuple[str, int]]:
    """A line for each message, in their order, with the selected records of it; and how many these are."""
    where, values = selection.where()
    with (
        reading(settings) as connection,
        connection.cursor("letters", row_factory=dict_row) as cursor,  # on the server: payloads may be large
    ):
        cursor.itersize = 20
        for row in cursor.execute(_EXPORT.format(LETTERS, where), values):
            yield terminal.in_ascii(msgspec.json.encode(row).decode()), len(row["records"])


def load(
    settings: PostgresConfig, lines: Iterable[bytes], tell: Callable[[int], object] = lambda count: None
) -> Imported:
    """Brings back what ``exported`` gave: all of it or, if a line cannot be read, nothing; ``tell`` hears the lines.

    Raises BadFileError that names the line.
    """
    found = Imported()
    ledgers: dict[tuple[Any, ...], int] = {}
    with reading(settings) as connection:
        alone(connection)
        fit = deadletters.fitting(connection)
        for number, text in enumerate(lines, 1):
            if text.strip():
                try:
                    line = msgspec.json.decode(text, type=Line)
                except (msgspec.DecodeError, UnicodeDecodeError) as error:
                    raise BadFileError(f"line {number} is no dead letter of `dlq export`: {error}") from None
                try:
                    with translated(connection):
                        new, done = _insert(connection, _ledger(connection, line, ledgers), line, fit)
                except RowRefused as refusal:  # a name that the encoding of this database lacks
                    raise BadFileError(f"line {number} is no dead letter for this database: {refusal}") from None
                count = len(line.records)
                found = Imported(
                    found.imported + new,
                    found.known + (count - new if done else 0),
                    found.undone + (0 if done else count),
                )
            tell(number)
    return found


def _insert(connection: Connection[Any], ledger: int, line: Line, fit: deadletters.Fit) -> tuple[int, bool]:
    """How many of its records are new here, and whether the ledger knows the message."""
    records = [
        {**msgspec.to_builtins(record), "reason": fit(record.reason), "detail": fit(record.detail)}
        for record in line.records
    ]
    values = {name: getattr(line, name) for name in ("sequence", "payload", "message_time", "created_at")}
    headers = header_map(line.headers)
    values |= {"subject": fit(line.subject), "headers": None}
    if headers is not None:
        values["headers"] = deadletters.headers_json(headers, fit).decode()
    values |= {"ledger": ledger, "imported": IMPORTED, "records": msgspec.json.encode(records).decode()}
    row = connection.execute(_IMPORT, values).fetchone()
    assert row is not None
    return row[0], bool(row[1])


def _ledger(connection: Connection[Any], line: Line, known: dict[tuple[Any, ...], int]) -> int:
    """The number of the ledger that its message belongs to; where there is none, of one that is for nothing else."""
    keys = (line.logical_stream, line.stream, line.stream_created)
    if (*keys, line.durable) not in known:
        for durable in (line.durable, line.durable.removesuffix(IMPORTED) + IMPORTED):
            row = connection.execute(
                "SELECT id FROM eventwriter.ledger WHERE logical_stream = %s AND stream = %s AND stream_created = %s "
                "AND durable = %s",
                [*keys, durable],
            ).fetchone()
            if row is not None:
                break
        else:
            row = connection.execute(
                "INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable) "
                "VALUES (%s, %s, %s, %s) RETURNING id",
                [*keys, durable],
            ).fetchone()
        assert row is not None
        known[*keys, line.durable] = row[0]
    return known[*keys, line.durable]


def alone(connection: Connection[Any]) -> None:
    """Waits until nobody else imports or purges: a message that is left without records may be about to get some."""
    connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('eventwriter.dead_letters', 0))")


def purge(settings: PostgresConfig, selection: Selection) -> int:
    """Removes letters, and messages without any left; how many letters went. One that is being replayed stays."""
    where, values = selection.where()
    # Not by a sub-select: a condition on the row itself is looked at again when somebody replayed it meanwhile.
    query = sql.SQL(
        "DELETE FROM eventwriter.dead_letter_records r USING eventwriter.dead_letter_messages m, eventwriter.ledger l "
        "WHERE m.ledger_id = r.ledger_id AND m.sequence = r.sequence AND l.id = r.ledger_id AND {}"
    ).format(where)
    with reading(settings) as connection:
        alone(connection)
        removed = connection.execute(query, values).rowcount
        connection.execute(
            "DELETE FROM eventwriter.dead_letter_messages m WHERE NOT EXISTS (SELECT 1 FROM "
            "eventwriter.dead_letter_records r WHERE r.ledger_id = m.ledger_id AND r.sequence = m.sequence)"
        )
    return removed
