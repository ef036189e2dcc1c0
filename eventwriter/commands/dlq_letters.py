"""Dead letters as they are read: for a list, for a person who looks at one, and as the messages that they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection, sql
from psycopg.rows import dict_row

from eventwriter.commands.dlq_selection import LETTERS, Selection
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import UsageError
from eventwriter.masking import community
from eventwriter.postgres.connection import check_server, connect
from eventwriter.postgres.errors import translated
from eventwriter.stream import Headers, Message

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LETTER = sql.SQL(
    "r.id, l.logical_stream, l.stream, l.stream_created, l.durable, r.sequence, r.record_index, r.reason, r.sqlstate, "
    "r.detail, m.subject, m.message_time, m.created_at, r.replayed_at, octet_length(m.payload) AS bytes"
)

Letter = dict[str, Any]
"""A dead letter as JSON tells of it: its times are text, RFC 3339 in UTC."""


def find(settings: PostgresConfig, selection: Selection, limit: int) -> list[Letter]:
    """The latest of the selected letters, the newest first, one for each rejected record; without their payloads."""
    where, values = selection.where()
    query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY r.id DESC LIMIT %(limit)s").format(_LETTER, LETTERS, where)
    return _rows(settings, query, values | {"limit": limit})


def summary(settings: PostgresConfig, selection: Selection) -> list[Letter]:
    """How many there are of each stream, reason and SQLSTATE, the most first, and when they were kept."""
    where, values = selection.where()
    query = sql.SQL(
        "SELECT l.logical_stream, r.reason, r.sqlstate, count(*) AS letters, "
        "count(DISTINCT (r.ledger_id, r.sequence)) AS messages, "
        "min(m.created_at) AS oldest, max(m.created_at) AS latest "
        "FROM {} WHERE {} GROUP BY 1, 2, 3 ORDER BY 4 DESC, 1, 2, 3"
    ).format(LETTERS, where)
    return _rows(settings, query, values)


def count(settings: PostgresConfig, selection: Selection) -> int:
    """How many there are."""
    where, values = selection.where()
    return int(_rows(settings, sql.SQL("SELECT count(*) FROM {} WHERE {}").format(LETTERS, where), values)[0]["count"])


def read(settings: PostgresConfig, number: int) -> tuple[Letter, Message]:
    """A letter, and the message as a decoder gets it; UsageError if there is none of that number."""
    query = sql.SQL("SELECT {}, m.headers, m.payload FROM {} WHERE r.id = %(number)s").format(_LETTER, LETTERS)
    with reading(settings) as connection, connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(query, {"number": number}).fetchone()
    if row is None:
        raise _unknown(number)
    message = message_of(row["subject"], row.pop("payload"), row["sequence"], row["message_time"], row["headers"])
    return plain(row), message


def check(settings: PostgresConfig, numbers: Sequence[int]) -> None:
    """Raises UsageError if a dead letter of one of these numbers does not exist."""
    query = sql.SQL("SELECT id FROM eventwriter.dead_letter_records WHERE id = ANY(%(numbers)s::bigint[])")
    possible = [number for number in numbers if 0 <= number < 2**63]
    known = {row["id"] for row in _rows(settings, query.format(), {"numbers": possible})} if possible else set()
    for number in numbers:
        if number not in known:
            raise _unknown(number)


def _unknown(number: int) -> UsageError:
    return UsageError(f"there is no dead letter {number}: `eventwriter dlq list` shows those there are")


def messages_of(
    connection: Connection[Any], ledger: int, numbers: Sequence[int]
) -> Iterator[tuple[Message, dict[int, int | None]]]:
    """The messages of these letters of a ledger, and for the number of each letter which record it is."""
    letters: dict[int, dict[int, int | None]] = {}
    for number, sequence, index in connection.execute(
        "SELECT id, sequence, record_index FROM eventwriter.dead_letter_records WHERE id = ANY(%s) ORDER BY id",
        [[*numbers]],
    ):
        letters.setdefault(sequence, {})[number] = index
    for sequence, *rest in connection.execute(
        "SELECT sequence, subject, payload, message_time, headers FROM eventwriter.dead_letter_messages "
        "WHERE ledger_id = %s AND sequence = ANY(%s) ORDER BY sequence",
        [ledger, [*letters]],
    ):
        subject, payload, time, headers = rest
        yield message_of(subject, payload, sequence, time, headers), letters[sequence]


def message_of(
    subject: str, payload: bytes, sequence: int, time: datetime, headers: Mapping[str, Any] | None
) -> Message:
    """The message that a letter was."""
    nanos = (time - _EPOCH) // timedelta(microseconds=1) * 1000
    return Message(subject, bytes(payload), sequence, nanos, header_map(headers))


def header_map(headers: Mapping[str, Any] | None) -> Headers | None:
    """The headers of a letter as a message has them; a name that occurs more than once has an array of its values."""
    pairs = [
        (name, str(each))
        for name, value in (headers or {}).items()
        for each in (value if isinstance(value, list) else [value])
    ]
    return Headers(pairs) if pairs else None


@contextmanager
def reading(settings: PostgresConfig) -> Iterator[Connection[Any]]:
    """A connection to a database that has dead letters, in UTC; raises the typed error for what the driver raises."""
    with translated(), connect(settings, "eventwriter dlq") as connection:
        check_server(connection)
        connection.execute("SET TIME ZONE 'UTC'")
        yield connection


def plain(row: Mapping[str, Any]) -> Letter:
    """With times as text, and with what people see of its detail."""
    found = {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
    return found | {"detail": community.text(found["detail"])} if "detail" in found else found


def _rows(settings: PostgresConfig, query: sql.Composed, values: Mapping[str, Any]) -> list[Letter]:
    with reading(settings) as connection, connection.cursor(row_factory=dict_row) as cursor:
        return [plain(row) for row in cursor.execute(query, values)]
