"""Fixtures: one NATS and one PostgreSQL server for each process of a run, and a fresh database for each test."""

from __future__ import annotations

import fcntl
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import psycopg
import pytest
from psycopg import sql

import boards
import forkserver
from eventwriter import registry
from eventwriter.commands import schema_roles
from eventwriter.embedded import NatsServer, PostgresServer, Server
from eventwriter.errors import ConfigurationError

ONE_LETTER = (
    "WITH l AS (INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable) "
    "VALUES ('LOGS', 'LOGS', '2026-01-01', 'a') RETURNING id), "
    "m AS (INSERT INTO eventwriter.dead_letter_messages (ledger_id, sequence, subject, payload, message_time) "
    "SELECT id, 1, 'logs.a', '{}', '2026-01-01' FROM l) "
    "INSERT INTO eventwriter.dead_letter_records (ledger_id, sequence, reason, detail) "
    "SELECT id, 1, 'refused', '' FROM l"
)
"""What gives a database with our own tables a ledger and one dead letter."""

FAST = {
    "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200",
    "autovacuum": "off", "max_wal_size": "128MB", "dynamic_shared_memory_type": "mmap",
}  # fmt: skip
"""The tests kill clients and servers, never the machine: what was written survives without syncing. Nothing lives long
enough to need a vacuum. All that a server makes is below its folder, also when it is killed, and may be in memory."""

TEMPLATE = "with_tables"
"""A database with our tables, to copy."""

LEDGER = "with_ledger"
"""One with nothing but eventwriter's own."""

WRITER = "a_writer"
"""Whom services connect as: what they do, they do with the privileges of `schema sql --roles` alone."""

_SHARED = "SHARED_BY_TESTS"
"""The variable with the folder that all processes of a run share."""
_numbers = itertools.count(1)


_S = TypeVar("_S", bound=Server)


def running(server: _S, ci: bool) -> Iterator[_S]:
    """The server while it runs; one whose wheel is missing is a failure in CI and a skip elsewhere."""
    try:
        server.start()
    except ConfigurationError as error:
        if ci:
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.stop(immediate=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that everybody may enter: root runs PostgreSQL as another user.

    Not one of pytest's: those are for us alone, and each run that begins makes them so again, also for those before it.
    """
    with tempfile.TemporaryDirectory(prefix="eventwriter-test-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o711)
        yield folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that the user of PostgreSQL may enter."""
    with temporary_folder() as folder:
        yield folder


def pytest_configure(config: pytest.Config) -> None:
    """Makes the folder that all processes of this run share, unless we are one that another has started."""
    if _SHARED not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="eventwriter-test-", ignore_cleanup_errors=True)
        Path(folder.name).chmod(0o711)
        os.environ[_SHARED] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session")
def prepared() -> Path:
    """The folder of a stopped PostgreSQL server with the database ``TEMPLATE``, the same for all processes of a run."""
    folder = Path(os.environ[_SHARED])
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "made").exists():
            for server in running(PostgresServer(folder / "postgres", settings=FAST), "CI" in os.environ):
                environment = clean_environment() | {"EVENTWRITER_POSTGRES__DSN": server.create_database(TEMPLATE)}
                forkserver.run(["schema", "apply"], environment).check_returncode()
                grant(environment)
                with psycopg.connect(server.create_database(LEDGER), autocommit=True) as connection:
                    connection.execute(sql.SQL(registry.table_sql("eventwriter")))
                server.stop()
            (folder / "made").touch()
    return folder / "postgres"


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that configures eventwriter."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("EVENTWRITER_", "PG", "NATS_"))}


@pytest.fixture(scope="session")
def postgres_server(prepared: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run, with the database ``TEMPLATE``."""
    with own_postgres(prepared, FAST) as server:
        yield server


@contextmanager
def own_postgres(prepared: Path, settings: Mapping[str, str]) -> Iterator[PostgresServer]:
    """A PostgreSQL server with the database ``TEMPLATE``; beside its folder is room for others."""
    with temporary_folder() as folder:
        server = PostgresServer(folder / "postgres", settings=settings)
        server.folder.mkdir()
        server.restore(prepared)
        with server:
            yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server of this run."""
    yield from running(NatsServer(tmp_path_factory.mktemp("nats")), "CI" in os.environ)


@contextmanager
def new_database(server: PostgresServer, template: str = "template1") -> Iterator[str]:
    """The connection string of a database that nobody used before, a copy of ``template``; afterwards it is gone."""
    name = f"test_{next(_numbers)}"
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")  # half the work of the other strategy
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute(create.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield server.dsn(name)
    finally:
        # Of a server that is gone, or about to be, so is the database.
        with suppress(psycopg.Error), psycopg.connect(server.dsn(), autocommit=True, connect_timeout=5) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> Iterator[str]:
    """The connection string of a fresh database, with eventwriter's own tables where a ``connection`` has them."""
    with new_database(postgres_server, LEDGER if "connection" in request.fixturenames else "template1") as dsn:
        yield dsn


def login(dsn: str, role: str, *memberships: str) -> str:
    """The connection string of a database for another role, which is made if it is missing: it may log in, no more."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(role)))
        for group in memberships:
            connection.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(role)))
    return psycopg.conninfo.make_conninfo(dsn, user=role)


def grant(environment: Mapping[str, str], script: str | None = None) -> None:
    """Gives the role of the services what ``schema sql --roles`` says that it needs of the tables as they are now."""
    named = {name.removeprefix("EVENTWRITER_"): value for name, value in environment.items() if "EVENTWRITER_" in name}
    dsn = named["POSTGRES__DSN"]
    script = script or "\n".join(schema_roles.roles(boards.settings(**named), registry.load()))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(script)
    login(dsn, WRITER, "eventwriter_writer")
