"""Dead letters: messages and records that cannot become rows, kept with their reason in the same transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

from psycopg import Connection, sql

from eventwriter import values
from eventwriter.errors import SchemaError
from eventwriter.stream import Headers, LateHeaders, Message, Reject

_POSTGRES_EPOCH_NS = 946_684_800_000_000_000

Fit = Callable[[str], str]
"""Makes a text one that the database can hold."""


def write(connection: Connection[Any], ledger: int, letters: Sequence[tuple[Message, Sequence[Reject]]]) -> None:
    """Copies ``letters`` into eventwriter.dead_letter_messages and …_records; the payload is stored once a message.

    Whatever a message holds can be written: one that could not would stop its stream, and again after each restart.
    What these tables refuse all the same is for about_ours() to tell.
    """
    if not letters:
        return
    fit = fitting(connection)
    messages = [
        (
            *(ledger, message.sequence, fit(message.subject)),
            headers_json(message.headers, fit) if message.headers else None,
            *(message.payload, (message.time - _POSTGRES_EPOCH_NS) // 1000),
        )
        for message, _ in letters
    ]
    _fill(
        connection,
        "eventwriter.dead_letter_messages (ledger_id, sequence, subject, headers, payload, message_time)",
        ["int4", "int8", "text", "jsonb", "bytea", "int8"],
        messages,
    )
    write_records(connection, ledger, [(message.sequence, rejects) for message, rejects in letters])


def write_records(connection: Connection[Any], ledger: int, letters: Sequence[tuple[int, Sequence[Reject]]]) -> None:
    """Copies records of messages, named by their sequences, that are dead letters already; raises as ``write``."""
    fit = fitting(connection)
    records = [
        (ledger, sequence, each.record_index, fit(each.reason), fit(each.detail), each.sqlstate)
        for sequence, rejects in letters
        for each in rejects
    ]
    _fill(
        connection,
        "eventwriter.dead_letter_records (ledger_id, sequence, record_index, reason, detail, sqlstate)",
        ["int4", "int8", "int4", "text", "text", "text"],
        records,
    )


def _fill(connection: Connection[Any], target: LiteralString, types: list[str], rows: Sequence[Sequence[Any]]) -> None:
    with connection.cursor() as cursor:
        with cursor.copy(sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(sql.SQL(target))) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)
        if cursor.rowcount != len(rows):
            table = target.partition(" ")[0]
            raise SchemaError(
                f"{table} took {cursor.rowcount} of {len(rows)} rows: drop its triggers, for all are needed"
            )


def fitting(connection: Connection[Any]) -> Fit:
    """The one for this database."""
    return _utf8 if connection.info.parameter_status("server_encoding") == "UTF8" else _ascii


def _utf8(text: str) -> str:
    return values.clean(text, [])


def _ascii(text: str) -> str:
    """For a database with another encoding, which may have no such character, nor U+FFFD to replace it."""
    return _utf8(text).encode("ascii", "backslashreplace").decode()


def headers_json(headers: Mapping[str, str], fit: Fit) -> bytes:
    """Their JSON. They are made fit before: in JSON, an escape cannot be told from a text that looks like one.

    A name that occurs more than once, perhaps only since it was made fit, has an array of its values.
    """
    found: dict[str, list[str]] = {}
    if isinstance(headers, LateHeaders):
        headers = headers.read(headers.block)
    for name, value in headers.pairs if isinstance(headers, Headers) else headers.items():
        found.setdefault(fit(name), []).append(fit(value))
    return values.dump_json({name: each if len(each) > 1 else each[0] for name, each in found.items()})
