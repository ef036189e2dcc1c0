"""Databases with eventwriter's own tables, and sinks that write into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from eventwriter.config.model import PostgresConfig
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Stream

OpenSink = Callable[[Stream, Identity], Sink]


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to a fresh database with eventwriter's own tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sinks(database: str) -> Iterator[OpenSink]:
    """Opens sinks for a stream's own table, and closes them at the end."""
    opened = []

    def open_one(stream: Stream, identity: Identity) -> Sink:
        sink = Sink(PostgresConfig(dsn=database), stream, stream.table)
        opened.append(sink)
        sink.open()
        sink.begin(Opening(identity, (">",)))
        return sink

    yield open_one
    for sink in opened:
        sink.close()
