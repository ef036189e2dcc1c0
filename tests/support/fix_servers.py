"""Fixtures: one NATS and one PostgreSQL server for the whole run, and a fresh database for each test."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from eventwriter.embedded import NatsServer, PostgresServer, Server
from eventwriter.errors import ConfigurationError

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
"""The tests kill clients and servers, never the machine: what was written survives without syncing."""

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


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run."""
    with temporary_folder() as folder:
        yield from running(PostgresServer(folder / "postgres", settings=FAST), "CI" in os.environ)


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server of this run."""
    yield from running(NatsServer(tmp_path_factory.mktemp("nats")), "CI" in os.environ)


def new_database(server: PostgresServer, template: str = "template1") -> str:
    """The connection string of a database that nobody used before, a copy of ``template``."""
    return server.create_database(f"test_{next(_numbers)}", template)


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """The connection string of a fresh database."""
    return new_database(postgres_server)
