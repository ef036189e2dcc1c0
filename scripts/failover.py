"""Ways in which a PostgreSQL server goes back in time: a standby that lags takes over, a backup is restored, a crash
forgets commits. Afterwards it is reached where it was before."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import psycopg

from eventwriter.embedded import PostgresServer

FORGETFUL = {
    "synchronous_commit": "off",
    "wal_writer_delay": "10s",
    "wal_writer_flush_after": "1GB",
    "bgwriter_lru_maxpages": "0",
    "autovacuum": "off",
}
"""Settings with which commits stay in the server's memory for seconds: ``crash`` loses them."""


def follow(
    primary: PostgresServer, folder: Path, settings: Mapping[str, str], port: int | None = None
) -> PostgresServer:
    """An asynchronous standby below ``folder`` that has caught up; what ``folder`` held before is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    primary.base_backup(folder, standby=True)
    standby = PostgresServer(folder, port=port, settings=settings)
    standby.start()
    with _connect(primary) as here, _connect(standby) as there:
        reached = here.execute("SELECT pg_current_wal_lsn()").fetchone()
        _wait(lambda: _is(there, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", *(reached or ())), "it has caught up")
    return standby


def detach(standby: PostgresServer) -> None:
    """The standby receives nothing any more, as if the network to its primary were slow: what follows will be lost."""
    with _connect(standby) as connection:
        connection.execute("ALTER SYSTEM SET primary_conninfo = ''")
        connection.execute("SELECT pg_reload_conf()")
        _wait(lambda: _is(connection, "SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver)"), "it receives nothing")


def take_over(primary: PostgresServer, standby: PostgresServer) -> None:
    """The primary dies and the standby is promoted, on the primary's port. The primary is not to be started again."""
    crash(primary)
    standby.stop()
    standby.port = primary.port
    standby.start()
    standby.promote()


def crash(server: PostgresServer) -> None:
    """Every process of the server ends at once, as in a power cut: nobody writes what is in memory only."""
    children = psutil.Process(server.pid).children(recursive=True)
    for process in (psutil.Process(server.pid), *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()  # a child that sees its parent die tidies up
    for process in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.kill()
    # Two servers on one data folder would destroy it: the last process must be gone.
    psutil.wait_procs(children, 5)


def restore(server: PostgresServer, backup: Path) -> None:
    """The server is what it was at the time of a base backup."""
    server.stop(immediate=True)
    server.restore(backup)
    server.start()


def _connect(server: PostgresServer) -> psycopg.Connection[Any]:
    return psycopg.connect(server.dsn(), autocommit=True)


def _is(connection: psycopg.Connection[Any], query: str, *values: Any) -> bool:
    row = connection.execute(query, values).fetchone()
    return bool(row and row[0])


def _wait(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
