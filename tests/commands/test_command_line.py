"""What commands make of what is on their command line, and of outputs that nobody reads or that lack characters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner

import forkserver
from eventwriter import registry
from eventwriter.cli import cli
from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.errors import CONFIGURATION, OK, USAGE
from eventwriter.postgres.connection import connect
from fix_servers import ONE_LETTER, new_database
from fix_service import ROOT, clean_environment
from patience import PATIENCE


def run(*arguments: str, dsn: str = "", given: bytes = b"") -> subprocess.CompletedProcess[str]:
    """A command, and how it ended."""
    return forkserver.run(arguments, clean_environment() | {"EVENTWRITER_POSTGRES__DSN": dsn}, given)


@pytest.fixture
def letters(database: str, connection: Any) -> str:
    """A database with a ledger and one dead letter."""
    connection.execute(ONE_LETTER)
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


def commands(command: click.Command) -> Iterator[click.Command]:
    """It, and all within it."""
    yield command
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        yield from commands(each)


def test_no_command_takes_bytes_for_text() -> None:
    """A file may be called so; whatever is text is text, of all commands."""
    assert not [(each.name, option.name) for each in commands(cli) for option in each.params
                if option.type is click.STRING]  # fmt: skip
    for arguments in (
        ["dlq", "list", "--reason", "a\udcff"],
        ["dlq", "list", "--sqlstate", "\udcff"],
        ["ledger", "copy", "--stream", "LOGS", "--to", "a", "--from", "\udcff"],
        ["decode", "--stream", "LOGS", "--header", "a=\udcff"],
        ["streams", "new", "\udcff"],
        ["--nats-url", "\udcff", "config", "show"],
    ):
        done = CliRunner().invoke(cli, arguments)
        assert (done.exit_code, "is no text" in done.output) == (2, True), (arguments, done.output)


def test_numbers_that_no_dead_letter_has(letters: str, tmp_path: Path) -> None:
    """Are told by all commands that take some; the others of them stay as they are."""
    file = tmp_path / "letters"
    for number in ("999", "9" * 30, "0"):
        for arguments in (["show"], ["replay"], ["purge", "--yes"], ["export"]):
            done = run("dlq", *arguments, number, dsn=letters)
            assert (done.returncode, f"there is no dead letter {number}:" in done.stderr) == (USAGE, True), done
    exported = run("dlq", "export", dsn=letters)
    number = re.sub(r"\D", "", run("dlq", "list", dsn=letters).stdout.split()[0])
    file.write_text(exported.stdout)
    assert run("dlq", "purge", "--yes", number, "999", dsn=letters).returncode == USAGE
    assert "removed 1 dead letters" in run("dlq", "purge", "--yes", number, dsn=letters).stdout


def test_who_cannot_be_asked_is_told_how_not_to_be(letters: str) -> None:
    """Nothing is removed, and standard error says what to do."""
    asked = run("dlq", "purge", "--all", dsn=letters)
    assert (asked.returncode, "--yes" in asked.stderr) == (130, True), asked
    refused = run("dlq", "purge", "--all", dsn=letters, given=b"n\n")
    assert (refused.returncode, "--yes" in refused.stderr) == (130, False), refused


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


def test_commands_may_wait_within_their_transaction(database: str, connection: Any) -> None:
    """Such as for who writes a pipe slowly, whatever a role has as its limit."""
    limits = ("idle_in_transaction_session_timeout", "idle_session_timeout")
    for name in limits:
        connection.execute(f"ALTER DATABASE \"{connection.info.dbname}\" SET {name} = '1s'".encode())
    connection.commit()
    with connect(PostgresConfig(dsn=database), "eventwriter dlq") as ours:
        assert [ours.execute(f"SHOW {name}".encode()).fetchone() for name in limits] == [("0",)] * 2


def unread(*arguments: str, errors: bool = False, **environment: str) -> int:
    """The status of a command whose output nobody reads, nor what it says beside if ``errors``."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as closed, Path(os.devnull).open("wb") as nowhere:
        process = forkserver.started(
            arguments, clean_environment() | environment, closed, closed if errors else nowhere
        )
        return process.wait(60 * PATIENCE)


@pytest.mark.parametrize(
    "command",
    ["--help", "--version", "dlq list --help", "schema sql", "config show", "check --offline", "decode --stream LOGS"],
)
def test_that_nobody_reads_is_no_failure(command: str) -> None:
    """Least of all that of `verify`, 1."""
    assert unread(*command.split()) == OK


@pytest.mark.parametrize(("command", "status"), [("worker --stream NONE", USAGE), ("dlq", USAGE), ("no", USAGE)])
def test_what_goes_wrong_unread_ends_as_ever(command: str, status: int) -> None:
    """Also when nobody reads standard error."""
    assert unread(*command.split(), errors=True) == status
    wrong = {"EVENTWRITER_NATS__URL": "nats://"}
    assert unread("config", "show", errors=True, **wrong) == CONFIGURATION


def test_who_changes_something_goes_on_unread(postgres_server: PostgresServer, template: str) -> None:
    """`schema apply` says what it did to each table, and builds indexes afterwards."""
    with (
        new_database(postgres_server, template) as dsn,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        connection.execute("INSERT INTO logs (timestamp) VALUES (now())")
        connection.execute("DROP INDEX idx_logs_trace_id")
        assert unread("schema", "apply", "--indexes", EVENTWRITER_POSTGRES__DSN=dsn) == OK
        assert connection.execute("SELECT to_regclass('idx_logs_trace_id')::text").fetchone() == ("idx_logs_trace_id",)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_what_the_locale_lacks_is_shown_all_the_same(encoding: str) -> None:
    """As an escape, on both outputs."""
    environment = clean_environment() | {"PYTHONIOENCODING": encoding}
    python = [sys.executable, "-m", "eventwriter"]
    for arguments, status in (["check", "--offline"], OK), (["worker", "--stream", "ж"], USAGE):
        done = subprocess.run(
            [*python, *arguments], cwd=ROOT, env=environment, capture_output=True, timeout=60 * PATIENCE, check=False
        )
        assert done.returncode == status, done
        assert (done.stdout or done.stderr).decode(encoding)
