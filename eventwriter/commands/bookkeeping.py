"""What people do to the ledger: take note of what is lost, let another durable go on with it, have the past written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import Connection

from eventwriter.config.loading import PostgresConfig, StreamConfig
from eventwriter.errors import UsageError
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import accept_losses, copy_ledger
from eventwriter.postgres.session import check_server, connect, translated


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


def replay(settings: PostgresConfig, stream: StreamConfig, first: int) -> None:
    """Makes what the stream holds from the sequence ``first`` on the ledger's business: what it lacks is written."""
    with translated(), connect(settings, "eventwriter ledger") as connection:
        check_server(connection)
        identity = _identity(connection, stream, stream.durable)
        connection.execute(
            "UPDATE eventwriter.ledger SET begins = least(begins, %s), version = version + 1 "
            "WHERE stream = %s AND stream_created = %s AND durable = %s",
            [first - 1, identity.stream, identity.stream_created, identity.durable],
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
