"""The dead letters, for people: list them, look at one, remove those that are of no use."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from psycopg import sql
from psycopg.rows import dict_row

from eventwriter.commands import options
from eventwriter.commands.settings import Settings
from eventwriter.config.loading import PostgresConfig
from eventwriter.config.units import parse_duration
from eventwriter.errors import UsageError
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated

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


def shown(letters: Sequence[Mapping[str, Any]], *, as_json: bool) -> str:
    """What ``find`` found, one a line, or for a program."""
    return json.dumps(letters) if as_json else "\n".join(map(_line, letters))


def _line(letter: Mapping[str, Any]) -> str:
    index = "" if letter["record_index"] is None else f"[{letter['record_index']}]"
    code = f" {letter['sqlstate']}" if letter["sqlstate"] else ""
    place = f"{letter['logical_stream']} {letter['sequence']}{index}"
    return f"{letter['id']:>8}  {place:<24} {letter['reason']}{code}: {letter['detail']}  ({letter['subject']})"


def read(settings: PostgresConfig, number: int) -> dict[str, Any]:
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


def age(text: str) -> float:
    """The seconds of ``--older-than``, such as 30m; raises UsageError."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--older-than {text}: {error}") from None


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


@click.group("dlq")
def group() -> None:
    """The dead letters: what could not become a row, and why."""


@group.command("list")
@click.option("--stream", help="Only of this stream.")
@click.option("--reason", help="Only with this reason, such as malformed.")
@click.option("--limit", default=50, show_default=True, help="At most so many, the latest first.")
@options.output
@click.pass_obj
def _list(settings: Settings, stream: str | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List the latest dead letters, one line for each record that was rejected."""
    loaded = settings.load()
    name = None if stream is None else loaded.stream(stream).name
    letters = find(loaded.config.postgres, stream=name, reason=reason, limit=limit)
    options.say(shown(letters, as_json=as_json), "no dead letters")


@group.command("show")
@click.argument("number", type=int)
@click.pass_obj
def _show(settings: Settings, number: int) -> None:
    """Print one dead letter as JSON, with its payload."""
    letter = read(settings.load().config.postgres, number)
    click.echo(json.dumps(letter, indent=2, ensure_ascii=False))


@group.command("purge")
@click.option("--stream", help="Only of this stream.")
@click.option("--reason", help="Only with this reason.")
@click.option("--older-than", default="0s", show_default=True, help="Only those older than this, such as 30m or 12h.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def _purge(settings: Settings, stream: str | None, reason: str | None, older_than: str, yes: bool) -> None:
    """Remove dead letters for good."""
    loaded, seconds = settings.load(), age(older_than)
    name = None if stream is None else loaded.stream(stream).name
    if not yes:
        click.confirm(f"Remove dead letters of {name or 'all streams'} for good?", abort=True)
    removed = purge(loaded.config.postgres, stream=name, reason=reason, older_than=seconds)
    click.echo(f"removed {removed} dead letters")
