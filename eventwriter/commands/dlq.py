"""The dead letters, for people: list them, look at one, remove those that are of no use."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg import sql
from psycopg.rows import dict_row

from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import UsageError
from eventwriter.postgres.session import connect, translated

_LISTED = (
    *("id", "logical_stream", "stream", "sequence", "record_index"),
    *("reason", "sqlstate", "subject", "message_time", "detail"),
)


def _chosen(stream: str | None, reason: str | None) -> tuple[sql.Composed, dict[str, Any]]:
    conditions = [sql.SQL("true")]
    if stream is not None:
        conditions.append(sql.SQL("logical_stream = %(stream)s"))
    if reason is not None:
        conditions.append(sql.SQL("reason = %(reason)s"))
    return sql.SQL(" AND ").join(conditions), {"stream": stream, "reason": reason}


def find(
    settings: PostgresConfig, *, stream: str | None = None, reason: str | None = None, limit: int = 50
) -> list[dict[str, Any]]:
    """The latest dead letters, newest first, one for each rejected record; without their payloads."""
    where, values = _chosen(stream, reason)
    query = sql.SQL("SELECT {} FROM eventwriter.dead_letters WHERE {} ORDER BY id DESC LIMIT %(limit)s").format(
        sql.SQL(", ").join(map(sql.Identifier, _LISTED)), where
    )
    with (
        translated(),
        connect(settings, "eventwriter dlq") as connection,
        connection.cursor(row_factory=dict_row) as rows,
    ):
        return [_plain(row) for row in rows.execute(query, values | {"limit": limit})]


def show(settings: PostgresConfig, number: int) -> dict[str, Any]:
    """One dead letter with its payload, as text if it is UTF-8, else in base64; UsageError if there is none."""
    with (
        translated(),
        connect(settings, "eventwriter dlq") as connection,
        connection.cursor(row_factory=dict_row) as rows,
    ):
        row = rows.execute("SELECT * FROM eventwriter.dead_letters WHERE id = %s", [number]).fetchone()
    if row is None:
        raise UsageError(f"there is no dead letter {number}: `eventwriter dlq list` shows those there are")
    payload = bytes(row.pop("payload"))
    shown = _plain(row)
    try:
        shown["payload"] = payload.decode()
    except UnicodeDecodeError:
        shown["payload_base64"] = base64.b64encode(payload).decode()
    return shown


def purge(
    settings: PostgresConfig, *, stream: str | None = None, reason: str | None = None, older_than: float = 0.0
) -> int:
    """Removes dead letters (records, and messages without any left) and returns how many records went."""
    where, values = _chosen(stream, reason)
    values["age"] = timedelta(seconds=older_than)
    query = sql.SQL(
        "DELETE FROM eventwriter.dead_letter_records WHERE id IN "
        "(SELECT id FROM eventwriter.dead_letters WHERE {} AND created_at <= now() - %(age)s)"
    ).format(where)
    with translated(), connect(settings, "eventwriter dlq") as connection:
        removed = connection.execute(query, values).rowcount
        connection.execute(
            "DELETE FROM eventwriter.dead_letter_messages m WHERE NOT EXISTS (SELECT 1 FROM "
            "eventwriter.dead_letter_records r WHERE r.ledger_id = m.ledger_id AND r.sequence = m.sequence)"
        )
    return removed


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
