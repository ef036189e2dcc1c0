"""The ledger and the delivery protocol: every sequence is written once, whoever dies and whatever comes again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from eventwriter import registry
from eventwriter.config import PostgresConfig
from eventwriter.ledger import Identity
from eventwriter.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")


def decode(message: Message) -> Decoded:
    """A row with the message's number, unless it says that it is bad."""
    if message.payload == b"bad":
        return Decoded((), [Reject("malformed", "it says so")])
    return Decoded([(int(message.payload),)])


STREAM = Stream("NUMBERS", ("numbers.>",), "numbers", (Column("n", "bigint"),), decode)


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a fresh database with eventwriter's own tables and a table of numbers."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        connection.execute("CREATE TABLE numbers (n bigint)")
        yield connection


def open_sink(dsn: str) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn), STREAM, "numbers")
    sink.open()
    sink.begin(IDENTITY)
    return sink


def message(sequence: int, payload: bytes | None = None) -> Message:
    """One message, whose number is its sequence."""
    return Message("numbers.x", str(sequence).encode() if payload is None else payload, sequence, sequence)


def numbers(connection: psycopg.Connection[Any]) -> list[int]:
    """What is in the table."""
    return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


def test_a_message_that_is_twice_in_a_batch_is_written_once(connection: Any, database: str) -> None:
    """Delivered again while its first delivery still waited: the ledger knows neither, and the batch must tell."""
    sink = open_sink(database)
    messages = [message(1), message(2, b"bad"), message(3), message(1), message(2, b"bad"), message(4)]
    outcome = sink.write(Batch(messages, [1, 2, 3, 1, 2, 4]))
    sink.close()
    assert numbers(connection) == [1, 3, 4]
    assert (outcome.written, outcome.deadlettered, outcome.already_done) == (3, 1, 2)
    assert connection.execute("SELECT sequence FROM eventwriter.dead_letters").fetchall() == [(2,)]
