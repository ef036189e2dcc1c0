"""Fixtures: one NATS and one PostgreSQL server for the whole run, and a fresh database for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventwriter.embedded import NatsServer, PostgresServer
from eventwriter.errors import ConfigurationError

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200"}
"""The tests kill clients and servers, never the machine: what was written survives without syncing."""

_numbers = itertools.count(1)


def _missing(error: ConfigurationError) -> None:
    if os.environ.get("CI"):
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL server of this run."""
    folder = open_to_all(tmp_path_factory.mktemp("postgres"))
    try:
        server = PostgresServer(folder, settings=FAST)
    except ConfigurationError as error:
        _missing(error)
    with server:
        yield server


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A NATS server of this run."""
    try:
        server = NatsServer(tmp_path_factory.mktemp("nats"))
    except ConfigurationError as error:
        _missing(error)
    with server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """The connection string of a fresh database."""
    return postgres_server.create_database(f"test_{next(_numbers)}")


def open_to_all(folder: Path) -> Path:
    """pytest's folders are 0700: as root, PostgreSQL runs as another user."""
    if os.geteuid() == 0:
        for each in (folder, *folder.parents):
            if each.stat().st_uid == 0 and not each.stat().st_mode & 0o001:
                each.chmod(each.stat().st_mode | 0o011)
    return folder
