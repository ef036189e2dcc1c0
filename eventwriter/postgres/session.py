"""PostgreSQL connections, the binary forms of our values, and what PostgreSQL's errors mean for a batch."""

from __future__ import annotations

import re
import select
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import concat
from typing import Any

import psycopg
from psycopg import Connection, abc, conninfo, pq
from psycopg._encodings import pg2pyenc
from psycopg.adapt import Dumper, Transformer
from psycopg.waiting import Ready, Wait
from psycopg_pool import ConnectionPool

from eventwriter.config import dsn
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import AuthenticationError, ConfigurationError, SchemaError, TableError, UnavailableError
from eventwriter.stream import Reject

OLDEST_POSTGRES = 140000
"""Multiranges, which the ledger is made of, came with PostgreSQL 14."""

_PATIENCE = 2.0
"""Seconds to wait for a connection of the pool."""

_COPY_LINE = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)

# About the rows: data, constraints, views' checks, limits (an index entry too long), raised by triggers.
_DATA = ("22", "23", "44", "54", "P0")
# What passes: connection, deadlock, resources, operator, system, locks, read-only, lost prepared statements.
_TRANSIENT = ("08", "40", "53", "57", "58", "55", "25", "26", "XX", "F0")


_REMEDIES = {
    "42P01": "run `eventwriter schema apply`",  # no such table
    "42703": "run `eventwriter schema apply`",  # no such column
    "42501": "grant INSERT and SELECT on it, and all of schema eventwriter",
}


# What a session asks of its server, whose own answers are two hours and never. A host that vanished is found out after
# 5 + 3 × 2 s when nothing is on its way to it and after 10 s otherwise, also in the middle of a statement.
_LINK = {
    "tcp_keepalives_idle": "5s",
    "tcp_keepalives_interval": "2s",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "client_connection_check_interval": "2s",
}
# A worker that stopped, or is behind something that answers in its place. Longer than the 10 s of any call to NATS.
_IDLE = {"idle_in_transaction_session_timeout": "12s"}

_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
_LOOK = 0.005
"""Seconds between two looks for work when there was none and the server does not answer."""


class JsonbDumper(Dumper):
    """jsonb from JSON text; the leading byte is the version of its binary form."""

    format = pq.Format.BINARY
    oid = psycopg.adapters.types["jsonb"].oid
    # As a function in Python it would be half of the time that a row with two of them takes.
    dump = staticmethod(partial(concat, b"\x01"))  # type: ignore[assignment] # of bytes, concat makes bytes


class BusyConnection(Connection[Any]):
    """A connection that lets other work be done while it waits for the server."""

    _meanwhile: Callable[[], bool] | None = None

    @contextmanager
    def working(self, meanwhile: Callable[[], bool]) -> Iterator[None]:
        """Whenever it waits in this context it calls ``meanwhile``, again and again while that returns True.

        The server may have to wait for the end of a call, so it should have enough to do before the first.
        """
        self._meanwhile = meanwhile
        try:
            yield
        finally:
            self._meanwhile = None

    def wait(self, gen: abc.PQGen[abc.RV], *args: Any, **kwargs: Any) -> abc.RV:
        """Brings a generator of the driver to its end: everything that it does with the server passes here."""
        if self._meanwhile is None:
            return super().wait(gen, *args, **kwargs)
        if not args:
            kwargs.setdefault("interval", _LOOK)
        return super().wait(self._worked(gen, self._meanwhile), *args, **kwargs)

    def _worked(self, gen: abc.PQGen[abc.RV], meanwhile: Callable[[], bool]) -> abc.PQGen[abc.RV]:
        """A generator that works before it lets its caller wait."""
        poll = select.poll()
        try:
            awaited = next(gen)
            while True:
                poll.register(self.pgconn.socket, _EVENTS[awaited])
                while not (ready := poll.poll(0)) and meanwhile():
                    pass
                if not ready:
                    awaited = gen.send((yield awaited))
                elif ready[0][1] == select.POLLIN:
                    awaited = gen.send(Ready.R)
                elif ready[0][1] == select.POLLOUT:
                    awaited = gen.send(Ready.W)
                else:  # both, or an error for libpq to find
                    awaited = gen.send(Ready(awaited))
        except StopIteration as end:
            result: abc.RV = end.value
            return result


class RowRefused(Exception):
    """PostgreSQL, or the driver, refuses a row; ``line`` is its number in the COPY, from 1, when known."""

    def __init__(self, line: int | None, sqlstate: str | None, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.reject = Reject("refused", detail[:500], None, sqlstate)


def connection_string(settings: PostgresConfig, application_name: str) -> str:
    """libpq conninfo: the settings over libpq's own environment, with time limits on everything that may hang."""
    limits: dict[str, Any] = {
        "application_name": application_name,
        "connect_timeout": max(2, int(settings.connect_timeout)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    try:
        given = dsn.parse(settings.dsn)
    except dsn.Unreadable as error:
        raise ConfigurationError(f"postgres.dsn: {error}") from None
    if settings.password is not None:
        limits["password"] = settings.password
    # Rows are encoded as UTF-8; the server converts them if its database has another encoding.
    given["client_encoding"] = "UTF8"
    return conninfo.make_conninfo("", **{**limits, **given})


def connect(settings: PostgresConfig, application_name: str) -> Connection[Any]:
    """One connection, outside of a pool; raises the typed error that tells why it cannot be had.

    Its locks do not outlive its host; its transactions may wait, such as for a person who reads.
    """
    with translated():
        connection = psycopg.connect(connection_string(settings, application_name))
        _limit(connection, _LINK)
        return connection


def _limit(connection: Connection[Any], limits: Mapping[str, str]) -> None:
    """Sets what the server knows, unless the options of the connection string say otherwise."""
    statement = (
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value) "
        "JOIN pg_settings USING (name) WHERE source <> 'client'"
    )
    connection.autocommit = True
    try:
        connection.execute(statement, [[*limits], [*limits.values()]])
    except psycopg.errors.InvalidParameterValue:  # on the server's operating system this one cannot be had
        known = {name: value for name, value in limits.items() if name != "client_connection_check_interval"}
        connection.execute(statement, [[*known], [*known.values()]])
    connection.autocommit = False


def unreachable(settings: PostgresConfig, application_name: str) -> UnavailableError:
    """Why the pool has no connection to give, which it does not tell itself: what one more try says."""
    try:
        psycopg.connect(
            conninfo.make_conninfo(connection_string(settings, application_name), connect_timeout=int(_PATIENCE))
        ).close()
    except psycopg.Error as error:
        return UnavailableError(f"PostgreSQL cannot be reached: {' '.join(dsn.told(error).split())}")
    return UnavailableError(f"PostgreSQL gave no connection within {_PATIENCE:g} s, but does now")


def check_server(connection: Connection[Any]) -> None:
    """Raises ConfigurationError for a PostgreSQL too old, TableError if eventwriter's own tables are missing."""
    version = connection.info.server_version
    if version < OLDEST_POSTGRES:
        raise ConfigurationError(f"PostgreSQL {version // 10000} is too old: eventwriter needs 14 or later")
    if connection.execute("SELECT to_regclass('eventwriter.ledger')").fetchone() == (None,):
        raise TableError("the table eventwriter.ledger does not exist: run `eventwriter schema apply`")
    latest = "SELECT FROM pg_attribute WHERE attrelid = 'eventwriter.ledger'::regclass AND attname = 'comparing_until'"
    if connection.execute(latest).fetchone() is None:
        raise TableError("the table eventwriter.ledger is that of an earlier release: run `eventwriter schema apply`")


def open_pool(
    settings: PostgresConfig, application_name: str, size: int, connected: Callable[[], None] = lambda: None
) -> ConnectionPool[BusyConnection]:
    """A pool of one worker, opened after the fork: an inherited one would use the parent's backend.

    ``connected`` is called, in whatever thread, for each connection that is made.
    """

    def configure(connection: BusyConnection) -> None:
        connected()
        connection.adapters.register_dumper(None, JsonbDumper)
        connection.autocommit = True
        connection.execute(
            "SELECT set_config('statement_timeout', %s, false), set_config('TimeZone', 'UTC', false), "
            "set_config('client_min_messages', 'warning', false)",
            [f"{int(settings.statement_timeout * 1000)}ms"],
        )
        _limit(connection, _LINK | _IDLE)

    pool = ConnectionPool(
        connection_string(settings, application_name),
        connection_class=BusyConnection,
        min_size=1,
        max_size=size,
        configure=configure,
        # Whoever asks during an outage is soon told, and asks again: it ends within seconds of its cause. A connection
        # that takes longer is made all the same, and is there for the next who asks.
        timeout=min(_PATIENCE, settings.connect_timeout),
        reconnect_timeout=_PATIENCE,
        open=True,
    )
    with translated():
        pool.wait(settings.connect_timeout)
    return pool


def row_transformer(types: Sequence[str], connection: Connection[Any]) -> abc.Transformer:
    """Turns values of these types (names, as for Copy.set_types) into the binary form of COPY.

    The connection, which may be closed afterwards, tells that text is UTF-8: without one it takes the driver longer.
    """
    connection.adapters.register_dumper(None, JsonbDumper)
    transformer = Transformer(connection)
    transformer.set_dumper_types([connection.adapters.types.get_oid(name) for name in types], pq.Format.BINARY)
    return transformer


def server_codec(connection: Connection[Any]) -> str:
    """Python's codec for the encoding of the database: text that it cannot encode is refused there."""
    name = connection.info.parameter_status("server_encoding") or ""
    try:
        # A database in SQL_ASCII takes any bytes.
        return "utf-8" if name == "SQL_ASCII" else pg2pyenc(name.encode())
    except psycopg.NotSupportedError:
        return "utf-8"


@contextmanager
def translated(connection: Connection[Any] | None = None) -> Iterator[None]:
    """Raises the typed error for what the driver raises, also while ``connection``, if given, is used."""
    try:
        yield
    except psycopg.Error as error:
        raise classify(error, connection) from error


def classify(error: psycopg.Error, connection: Connection[Any] | None = None) -> Exception:
    """The typed error for what PostgreSQL or the driver says, by SQLSTATE class.

    Rows (22, 23, 44, 54, P0) → a refusal; passing trouble (40, 53, 57 …) → UnavailableError; credentials →
    AuthenticationError; all else (42: schema, permission) → SchemaError. But what ends the session says nothing about
    rows or tables, whatever its code (an upgraded extension: FATAL 42710): UnavailableError. Only credentials and a
    missing database end one, too, and do not pass: whoever connects is told; ``connection``, which served already, is
    replaced by a new one, which will be told.
    """
    code = error.sqlstate
    text = dsn.told(error)
    first = text.splitlines()[0]
    if code is None:
        if "authentication failed" in text or "no password supplied" in text or "no pg_hba.conf entry" in text:
            return AuthenticationError(f"PostgreSQL refuses the credentials: {first}")
        if isinstance(error, psycopg.OperationalError) and 'database "' in text and "does not exist" in text:
            return ConfigurationError(f"{first}: create it, or correct postgres.dsn")
        return UnavailableError(f"PostgreSQL cannot be reached: {' '.join(text.split())}")
    if connection is not None and connection.broken:
        return UnavailableError(f"PostgreSQL ended the session: {first} ({code})")
    if code.startswith("28"):
        return AuthenticationError(f"PostgreSQL refuses the credentials: {first}")
    if code == "3D000":
        return ConfigurationError(f"{first}: create the database, or correct postgres.dsn")
    # Not the severity that is shown: that is in the language of lc_messages.
    if error.diag.severity_nonlocalized in ("FATAL", "PANIC"):
        return UnavailableError(f"PostgreSQL ended the session: {first} ({code})")
    if code[:2] in _DATA:
        match = _COPY_LINE.search(error.diag.context or "")
        return RowRefused(int(match.group(1)) if match else None, code, error.diag.message_primary or first)
    if code != "53400" and code[:2] in _TRANSIENT:
        return UnavailableError(f"PostgreSQL: {first} ({code})")
    remedy = _REMEDIES.get(code)
    return SchemaError(f"PostgreSQL: {first} ({code})" + (f": {remedy}" if remedy else ""))
