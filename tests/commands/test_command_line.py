"""What commands make of what is on their command line, and of outputs that nobody reads or that lack characters."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

import forkserver
from eventwriter import registry
from eventwriter.embedded import PostgresServer
from eventwriter.errors import USAGE
from eventwriter.postgres.connection import connect
from fix_service import clean_environment


def run(*arguments: str, dsn: str = "", given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """A command, and how it ended."""
    return forkserver.run(arguments, clean_environment() | {"EVENTWRITER_POSTGRES__DSN": dsn}, given)


@pytest.fixture
def letters(database: str, connection: Any) -> str:
    """A database with a ledger and one dead letter."""
    connection.execute(
        "WITH l AS (INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable) "
        "VALUES ('LOGS', 'LOGS', '2026-01-01', 'a') RETURNING id), "
        "m AS (INSERT INTO eventwriter.dead_letter_messages (ledger_id, sequence, subject, payload, message_time) "
        "SELECT id, 1, 'logs.a', '{}', '2026-01-01' FROM l) "
        "INSERT INTO eventwriter.dead_letter_records (ledger_id, sequence, reason, detail) "
        "SELECT id, 1, 'refused', '' FROM l"
    )
    connection.commit()
    return database


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """To a database with our own tables."""
    with psycopg.connect(database) as connection:
        yield connection


@pytest.mark.parametrize("name", ["a b.c>", "", "logs.2", "*"])
def test_a_ledger_goes_to_nothing_that_is_no_durable(letters: str, connection: Any, name: str) -> None:
    """By the kind of `streams.NAME.durable`; the ledger stays open."""
    refused = run("ledger", "copy", "--stream", "LOGS", "--from", "a", "--to", name, dsn=letters)
    assert (refused.returncode, "expected a JetStream name" in refused.stderr) == (USAGE, True), refused
    assert connection.execute("SELECT durable, continued_by FROM eventwriter.ledger").fetchall() == [("a", None)]


@pytest.mark.parametrize("table", ["a b", "", "a.b.c.d", "'"])
def test_no_table_is_no_table(table: str) -> None:
    """Before anybody is asked for it."""
    refused = run("verify", "--stream", "LOGS", "--against", table)
    assert (refused.returncode, "expected a table name" in refused.stderr) == (USAGE, True), refused


@pytest.mark.parametrize(("wait", "least"), [("1", 1.0), ("1500ms", 1.5), ("nan", None), ("inf", None), ("-1", None)])
def test_streams_create_waits_for_a_duration(wait: str, least: float | None) -> None:
    """As `schema apply` does."""
    begun = time.monotonic()
    environment = clean_environment() | {"EVENTWRITER_NATS__URL": "nats://127.0.0.1:1"}
    done = forkserver.run(["streams", "create", f"--wait={wait}"], environment)
    if least is None:
        assert done.returncode == USAGE
    else:
        assert done.returncode == 69
        assert time.monotonic() - begun >= least


def test_text_that_the_encoding_of_the_database_lacks(postgres_server: PostgresServer) -> None:
    """Is in none of its rows, and no name of a table: one line."""
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as server:
        server.execute("CREATE DATABASE command_line_latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    dsn = postgres_server.dsn("command_line_latin")
    with psycopg.connect(dsn) as connection:
        connection.execute(registry.table_sql("eventwriter").encode())
    for arguments in (["list"], ["list", "--summary"], ["export"], ["purge", "--yes"], ["replay"]):
        done = run("dlq", *arguments, "--reason", "ж", dsn=dsn)
        assert done.returncode == USAGE, done
        assert re.fullmatch(r"eventwriter: PostgreSQL: [^\n]+\n", done.stderr), done
