"""Dead letters: messages and records that cannot become rows, kept with their reason in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psycopg
from psycopg import Connection

from eventwriter import values
from eventwriter.errors import SchemaError
from eventwriter.postgres.errors import RowRefused, classify
from eventwriter.stream import Headers, Message, Reject

_POSTGRES_EPOCH_NS = 946_684_800_000_000_000

Fit = Callable[[str], str]
"""Makes a text one that the database can hold."""


def write(connection: Connection[Any], ledger: int, letters: Sequence[tuple[Message, Sequence[Reject]]]) -> None:
    """Copies ``letters`` into eventwriter.dead_letter_messages and …_records; the payload is stored once a message.

    Whatever a message holds can be written: one that could not would stop its stream, and again after each restart.
    Raises SchemaError if these tables refuse it all the same.
    """
    try:
        if letters:
            _copy(connection, ledger, letters)
    except psycopg.DatabaseError as error:
        # Not a row of the stream's table, though it names a line too.
        if isinstance(classify(error, connection), RowRefused):
            raise SchemaError(f"dead letters cannot be written: {error}") from error
        raise


def _copy(connection: Connection[Any], ledger: int, letters: Sequence[tuple[Message, Sequence[Reject]]]) -> None:
    fit = _utf8 if connection.info.parameter_status("server_encoding") == "UTF8" else _ascii
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY eventwriter.dead_letter_messages (ledger_id, sequence, subject, headers, payload, message_time) "
            "FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int4", "int8", "text", "jsonb", "bytea", "int8"])
        for message, _ in letters:
            headers = _headers(message.headers, fit) if message.headers else None
            time = (message.time - _POSTGRES_EPOCH_NS) // 1000
            copy.write_row((ledger, message.sequence, fit(message.subject), headers, message.payload, time))
    with (
        connection.cursor() as cursor,
        cursor.copy(
            "COPY eventwriter.dead_letter_records (ledger_id, sequence, record_index, reason, detail, sqlstate) "
            "FROM STDIN (FORMAT BINARY)"
        ) as copy,
    ):
        copy.set_types(["int4", "int8", "int4", "text", "text", "text"])
        for message, rejects in letters:
            for reject in rejects:
                where = ledger, message.sequence, reject.record_index
                copy.write_row((*where, fit(reject.reason), fit(reject.detail), reject.sqlstate))


def _utf8(text: str) -> str:
    return values.clean(text, [])


def _ascii(text: str) -> str:
    """For a database with another encoding, which may have no such character, nor U+FFFD to replace it."""
    return _utf8(text).encode("ascii", "backslashreplace").decode()


def _headers(headers: Mapping[str, str], fit: Fit) -> bytes:
    """Their JSON. They are made fit before: in JSON, an escape cannot be told from a text that looks like one.

    A name that occurs more than once, perhaps only since it was made fit, has an array of its values.
    """
    found: dict[str, list[str]] = {}
    for name, value in headers.pairs if isinstance(headers, Headers) else headers.items():
        found.setdefault(fit(name), []).append(fit(value))
    return values.dump_json({name: each if len(each) > 1 else each[0] for name, each in found.items()})
