"""Fixture: Debian's PgBouncer before PostgreSQL, pooling by transaction."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from eventwriter.embedded import PostgresServer, Server, free_port
from eventwriter.errors import ConfigurationError
from fix_servers import WRITER, running, temporary_folder


class PgBouncer(Server):
    """PgBouncer for all databases of a server, on 127.0.0.1, for its superuser and our services, without a password.

    Whoever asks next gets another of a few sessions, so that what one left behind is met by the others.
    """

    name = "pgbouncer"

    def __init__(self, folder: Path, postgres: PostgresServer, config: str = "") -> None:
        """``config`` is further text of its settings, such as for TLS."""
        super().__init__(folder, -1)
        self._postgres = postgres
        self._config = config

    def dsn(self, database: str) -> str:
        """The connection string of a database, by way of this server."""
        return conninfo.make_conninfo(database, port=self.port)

    def forget(self) -> None:
        """Ends its sessions with PostgreSQL: nobody can copy a database that somebody is connected to."""
        console = conninfo.make_conninfo("host=127.0.0.1 user=postgres dbname=pgbouncer", port=self.port)
        with psycopg.connect(console, autocommit=True) as connection:
            connection.execute("RECONNECT")

    def _launch(self, lock: int) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if program is None:
            raise ConfigurationError("there is no pgbouncer: install the package of this name from Debian")
        if self.port <= 0:
            self.port = free_port()
        users, settings = self.folder / "users.txt", self.folder / "pgbouncer.ini"
        users.write_text(f'"postgres" ""\n"{WRITER}" ""\n')
        settings.write_text(
            f"[databases]\n* = host=127.0.0.1 port={self._postgres.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\ndefault_pool_size = 2\n"
            "server_round_robin = 1\nmax_client_conn = 200\nadmin_users = postgres\n" + self._config
        )
        user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None  # it refuses root
        self._run([program, settings], self._ready, lock, user)

    def _ready(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1.0):
            return True
        return False


@pytest.fixture(scope="session")
def pgbouncer(postgres_server: PostgresServer) -> Iterator[PgBouncer]:
    """A PgBouncer of this run; one that is not installed is a failure in CI and a skip elsewhere."""
    with temporary_folder() as folder:
        yield from running(PgBouncer(folder, postgres_server), "CI" in os.environ)
