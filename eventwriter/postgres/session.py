"""A worker's session with PostgreSQL: a few connections, and the lock that keeps others away where it must be alone."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.errors import Diagnostic
from psycopg_pool import ConnectionPool, PoolTimeout

from eventwriter.config.model import PostgresConfig
from eventwriter.errors import ConfigurationError, ExclusiveError, ReadOnlyError, RestoringError, UnavailableError
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.connection import check_writable, connect, open_pool, unreachable
from eventwriter.postgres.errors import about_ours, explained, translated

log = logging.getLogger("eventwriter.sink")

NOT_ALONE = (
    'ack = "all" needs a session of PostgreSQL for itself, and behind a pooler there is none: let postgres.dsn lead to '
    'PostgreSQL itself, or set ack = "each"'
)
# What is between may keep the server's end of a connection whose other end is lost, and with it the lock, from whoever
# comes next, the worker itself as well. It says something every 2 s, or after the 30 s of its longest question to NATS.
_ALONE = {"idle_session_timeout": "60s"}


class Session:
    """The connections of one worker. With a ``lock`` there is only one, and it holds that advisory lock.

    PostgreSQL ends it when it is silent for long, and its worker makes another, which may be silent for longer: so may
    one that was stopped, or whose decoder takes as long for a batch, which it would begin again for ever.
    """

    def __init__(self, settings: PostgresConfig, stream: str) -> None:
        self.connections = 0
        """How many connections were made so far: a new one may lead to a database of an earlier time."""
        self.waits: Callable[[], None] | None = None
        """Called several times a second while PostgreSQL is at work on something and has not answered."""
        self._settings = settings
        self._stream = stream
        self._name = f"eventwriter {stream}"
        self._pool: ConnectionPool[BusyConnection] | None = None
        self._lock: str | None = None
        self._limits: Mapping[str, str] = {}
        self._locked: weakref.WeakSet[Connection[Any]] = weakref.WeakSet()

    @contextmanager
    def first(self) -> Iterator[BusyConnection]:
        """A connection before there is a pool: its failure tells why nothing can begin."""
        with translated(), connect(self._settings, self._name) as connection:
            yield connection

    def open(self, *, alone: bool = False) -> None:
        """Opens the pool, after the fork; with one connection where the worker is to be ``alone``."""
        self._limits = _ALONE if alone else {}
        self._pool = open_pool(self._settings, self._name, 1 if alone else self._settings.pool_size, self._connected)

    def _connected(self) -> Mapping[str, str]:
        self.connections += 1
        return self._limits

    def lock(self, name: str) -> None:
        """From now on every connection holds this advisory lock, or ExclusiveError is raised: somebody else has it."""
        self._lock = name

    @contextmanager
    def connection(self, *, look: bool = False, rows: bool = False) -> Iterator[BusyConnection]:
        """A connection for one transaction, committed at the end; raises the typed error for what the driver raises.

        With a ``look`` whether anything can be written, for who does not write. Only for who writes ``rows`` of a
        stream may it be RowRefused.
        """
        assert self._pool is not None, "open() comes first"
        try:
            with (
                translated(),
                self._pool.connection() as connection,
                translated(connection),
                nullcontext() if rows else about_ours(connection),
            ):
                connection.waits = self.waits
                if self._lock is not None and connection not in self._locked:
                    self._take_lock(connection, self._lock)
                try:
                    if look:
                        check_writable(connection)
                    yield connection
                    connection.commit()  # not left to the pool: what it raises is to be classified here
                except psycopg.errors.IdleSessionTimeout:
                    self._limits = {}  # before the pool makes the next one
                    raise
                except (psycopg.errors.ReadOnlySqlTransaction, ReadOnlyError, RestoringError) as error:
                    # A demoted primary, or a default of the session: it does not pass with time, a new connection may.
                    if not isinstance(error, RestoringError) or error.here:
                        connection.close()
                    raise
        except UnavailableError as error:
            if isinstance(error.__cause__, PoolTimeout):
                raise unreachable(self._settings, self._name) from None
            raise

    def commit(self, connection: BusyConnection) -> None:
        """Commits, and tells of what PostgreSQL warns then: of what is on no standby yet, for one."""

        def tell(diag: Diagnostic) -> None:
            said = explained(diag.sqlstate, diag.message_primary or "", diag.message_detail, diag.message_hint)
            log.warning("PostgreSQL at COMMIT: %s", said, extra={"stream": self._stream})

        connection.add_notice_handler(tell)
        try:
            connection.commit()
        finally:
            connection.remove_notice_handler(tell)

    def setting(self, name: str) -> str:
        """A setting of PostgreSQL as these connections have it; empty if it has none of this name."""
        with self.connection() as connection:
            row = connection.execute("SELECT current_setting(%s, true)", [name]).fetchone()
        return (row and row[0]) or ""

    def _take_lock(self, connection: BusyConnection, name: str) -> None:
        if connection.pooled:  # it would be a stranger's session that holds the lock
            raise ConfigurationError(f"{self._stream}: {NOT_ALONE}")
        got = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone()
        if got != (True,):
            raise ExclusiveError(
                f'{self._stream}: another worker serves this consumer, and ack = "all" needs it alone, or its own '
                "session from before a lost connection is still open, which PostgreSQL ends within a minute: stop the "
                'other one, or set ack = "each"'
            )
        self._locked.add(connection)

    def close(self) -> None:
        """Closes the pool."""
        if self._pool is not None:
            self._pool.close(timeout=5.0)
