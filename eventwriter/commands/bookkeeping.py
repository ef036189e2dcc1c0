"""What people do to the ledger: take note of what is lost, let another durable go on with it, have the past written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click
from psycopg import Connection

from eventwriter.commands import options
from eventwriter.commands.settings import Settings
from eventwriter.config import kinds
from eventwriter.config.loading import PostgresConfig, StreamConfig
from eventwriter.errors import UsageError
from eventwriter.postgres.connection import check_server, connect
from eventwriter.postgres.errors import needing, translated
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import accept_losses
from eventwriter.postgres.succession import copy_ledger


@dataclass(frozen=True, slots=True)
class Loss:
    """Sequences that are missing from the ledger and gone from the stream."""

    first: int
    last: int
    after: datetime | None
    before: datetime | None
    """Published between these times, as far as that can be told."""

    def __str__(self) -> str:
        times = [f"{word} {time:%Y-%m-%d %H:%M:%S%z}" for word, time in (("after", self.after), ("before", self.before))
                 if time is not None]  # fmt: skip
        return f"sequences {self.first} to {self.last}" + (f", published {' and '.join(times)}" if times else "")


def accept(settings: PostgresConfig, stream: StreamConfig) -> list[Loss]:
    """Takes note of what is lost; returns it. The service, the page and ``check`` do not tell of it any more."""
    with translated(), connect(settings, "eventwriter ledger") as connection:
        check_server(connection)
        return [Loss(*row) for row in accept_losses(connection, stream.name)]


def accepted(found: Sequence[Loss], *, as_json: bool) -> str:
    """What ``accept`` took note of, one a line, or for a program."""
    if as_json:
        return json.dumps([[loss.first, loss.last] for loss in found])
    return "\n".join(f"accepted: {loss}" for loss in found)


def losses(connection: Connection[Any], stream: StreamConfig) -> list[Loss]:
    """What is lost and not accepted yet."""
    rows = connection.execute(
        "SELECT first, last, after, before FROM eventwriter.ledger_losses JOIN eventwriter.ledger ON id = ledger_id "
        "WHERE logical_stream = %s AND accepted_at IS NULL ORDER BY ledger_id, first",
        [stream.name],
    )
    return [Loss(*row) for row in rows]


def copy(settings: PostgresConfig, stream: StreamConfig, old: str, new: str, through: int | None) -> None:
    """Lets the durable ``new`` know what the ledger of ``old`` knows, up to the sequence ``through``; closes that."""
    with translated(), connect(settings, "eventwriter ledger") as connection:
        check_server(connection)
        identity = _identity(connection, stream, old)
        target = Identity(stream.name, stream.stream, identity.stream_created, new)
        if old == new or not copy_ledger(connection, target, old, through):
            raise UsageError(
                f"the ledger of durable {old} cannot go to {new}: another one goes on with it, or it is the same"
            )


def _identity(connection: Connection[Any], stream: StreamConfig, durable: str) -> Identity:
    """That of a durable's latest ledger: the stream may have been created anew."""
    row = connection.execute(
        "SELECT stream_created FROM eventwriter.ledger WHERE stream = %s AND durable = %s "
        "ORDER BY stream_created DESC LIMIT 1",
        [stream.stream, durable],
    ).fetchone()
    if row is None:
        durables = [each[0] for each in connection.execute("SELECT DISTINCT durable FROM eventwriter.ledger "
                    "WHERE stream = %s ORDER BY 1", [stream.stream])]  # fmt: skip
        there = f"there are those of {', '.join(durables)}" if durables else "there is none"
        raise UsageError(f"no ledger of durable {durable} for stream {stream.stream}: {there}")
    return Identity(stream.name, stream.stream, row[0], durable)


@click.group("ledger")
def group() -> None:
    """The ledger: which messages are done."""


@group.command("accept")
@options.stream
@options.output
@click.pass_obj
@needing("writer")
def _accept(settings: Settings, name: str, as_json: bool) -> None:
    """Take note of messages that are missing and gone from the stream, so that nobody is told of them any more.

    \b
        eventwriter ledger accept --stream LOGS
    """
    loaded = settings.load()
    found = accept(loaded.config.postgres, loaded.stream(name))
    options.say(accepted(found, as_json=as_json), "nothing is missing")


@group.command("copy")
@options.stream
@click.option("--from", "old", required=True, help="The durable whose ledger to go on with.")
@click.option("--to", "new", required=True, callback=options.setting(kinds.NAME),
              help="The durable that shall go on with it.")  # fmt: skip
@click.option(
    "--through",
    type=click.IntRange(0),
    help="Only up to this sequence: the last that a restored stream has in common with the ledger.",
)
@click.pass_obj
@needing("writer")
def _copy(settings: Settings, name: str, old: str, new: str, through: int | None) -> None:
    """Let another durable go on with a ledger, so that nothing is written twice; the old one writes nothing any more.

    streams.NAME.continues does the same when the new durable begins. With --through for a JetStream stream that was
    restored to an earlier state, where sequences beyond that one hold other messages than the ledger knows.

    \b
        eventwriter ledger copy --stream LOGS --from eventwriter-logs --to logs-2
    """
    loaded = settings.load()
    copy(loaded.config.postgres, loaded.stream(name), old, new, through)
    options.say(f"durable {new} knows what {old} knows" + ("" if through is None else f" up to sequence {through}"))
