"""Connects to PostgreSQL, with time limits on everything that may hang."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg import Connection, conninfo
from psycopg_pool import ConnectionPool

from eventwriter.config import dsn, secrets
from eventwriter.config.model import PostgresConfig
from eventwriter.errors import (
    AuthenticationError,
    ConfigurationError,
    ReadOnlyError,
    RefusedError,
    TableError,
    UnavailableError,
)
from eventwriter.postgres import mistakes
from eventwriter.postgres.binary import JsonbDumper
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import classify, translated

OLDEST_POSTGRES = 140000
"""Multiranges, which the ledger is made of, came with PostgreSQL 14."""

_PATIENCE = 2.0
"""Seconds to wait for a connection of the pool."""

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
_PATIENT = {"idle_in_transaction_session_timeout": "0", "idle_session_timeout": "0"}
# What roles and databases may have set otherwise, and both the driver and what is read of the catalog depend on.
_OURS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "postgres",
    "quote_all_identifiers": "off",
    "client_min_messages": "warning",
}


def connection_string(settings: PostgresConfig, application_name: str) -> str:
    """libpq conninfo: the settings over libpq's own environment, with time limits on everything that may hang.

    Secrets that stand in files are read now: they may have been replaced since the settings were read.
    """
    limits: dict[str, Any] = {
        "application_name": application_name,
        "connect_timeout": max(2, int(settings.connect_timeout)),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    try:
        given = dsn.parse(secrets.current("postgres.dsn", settings.dsn))
    except dsn.Unreadable as error:
        raise ConfigurationError(f"postgres.dsn: {error}") from None
    if settings.password is not None:
        limits["password"] = secrets.current("postgres.password", settings.password)
    if several_hosts(given) and "PGTARGETSESSIONATTRS" not in os.environ:
        limits["target_session_attrs"] = "read-write"  # else the first that answers is taken, were it a standby
    # Rows are encoded as UTF-8; the server converts them if its database has another encoding.
    given["client_encoding"] = "UTF8"
    return conninfo.make_conninfo("", **{**limits, **given})


def overridden(settings: PostgresConfig) -> set[str]:
    """The keywords for which libpq does not look into its environment."""
    return {*conninfo.conninfo_to_dict(connection_string(settings, "eventwriter"))}


def several_hosts(given: Mapping[str, str]) -> bool:
    """Whether a connection string that sets this, or libpq's environment, names more than one."""
    hosts = given.get("host", os.environ.get("PGHOST", "")), given.get("hostaddr", os.environ.get("PGHOSTADDR", ""))
    return any("," in each for each in hosts)


def connect(settings: PostgresConfig, application_name: str) -> BusyConnection:
    """One connection, outside of a pool; raises the typed error that tells why it cannot be had.

    Its locks do not outlive its host; its transactions may wait, such as for a person who reads.
    """
    with translated():
        connection = BusyConnection.connect(connection_string(settings, application_name))
        _set(connection, {**_LINK, **_PATIENT})
        return connection


def _set(connection: BusyConnection, limits: Mapping[str, str], more: Mapping[str, str] | None = None) -> None:
    """Sets what each connection has and ``more``, and of ``limits`` what the options of the connection string leave.

    For each transaction anew where a pooler stands between: what is set for a session there is set for strangers.
    """
    connection.autocommit = True
    pooled = is_pooled(connection)
    if connection.info.options:
        said = connection.execute("SELECT name FROM pg_settings WHERE source = 'client'").fetchall()
        limits = {name: value for name, value in limits.items() if (name,) not in said}
    values = {**limits, **_OURS, **(more or {})}
    statement = "SELECT set_config(name, value, %s) FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)"
    try:
        connection.execute(statement, [pooled, [*values], [*values.values()]])
    except (psycopg.errors.InvalidParameterValue, psycopg.errors.UndefinedObject):  # this server cannot have this one
        del values["client_connection_check_interval"]
        connection.execute(statement, [pooled, [*values], [*values.values()]])
    connection.autocommit = False
    if pooled:
        connection.pool(values)


def is_pooled(connection: Connection[Any]) -> bool:
    """Whether a pooler such as PgBouncer answers: the number of a process that it tells is one of its own."""
    return connection.execute("SELECT pg_backend_pid()").fetchone() != (connection.info.backend_pid,)


def exposed(connection: Connection[Any]) -> str:
    """Why somebody on the network could read what is said, or take the server's place; empty: nobody could."""
    options = {option.keyword: option.val or b"" for option in connection.pgconn.info}
    return exposure(connection.info.hostaddr, options[b"sslmode"].decode(), encrypted=connection.pgconn.ssl_in_use)


def exposure(address: str, sslmode: str, *, encrypted: bool) -> str:
    """The same, of a connection with these settings; of a socket of this machine the address is empty."""
    try:
        local = not address or address.startswith("/") or ipaddress.ip_address(address).is_loopback
    except ValueError:
        local = False
    if local or (encrypted and sslmode == "verify-full"):
        return ""
    what = f"nobody proves to be the server (sslmode={sslmode})" if encrypted else "nothing is encrypted"
    return f"on the way to {address} {what}: set sslmode=verify-full and sslrootcert in postgres.dsn"


def unreachable(settings: PostgresConfig, application_name: str) -> UnavailableError:
    """Why the pool has no connection to give, which it does not tell itself: what one more try says."""
    try:
        BusyConnection.connect(
            conninfo.make_conninfo(connection_string(settings, application_name), connect_timeout=int(_PATIENCE))
        ).close()
    except (psycopg.Error, ConfigurationError) as error:  # of a file of secrets, just while it is replaced
        meant = classify(error) if isinstance(error, psycopg.Error) else error
        kind = RefusedError if isinstance(meant, AuthenticationError) else UnavailableError
        away = kind(f"PostgreSQL cannot be reached: {meant}")
        return meant if isinstance(meant, UnavailableError) else away
    return UnavailableError(f"PostgreSQL gave no connection within {_PATIENCE:g} s, but does now")


def check_server(connection: Connection[Any]) -> None:
    """Raises ConfigurationError for a PostgreSQL too old, TableError if eventwriter's own tables are missing."""
    version = connection.info.server_version
    if version < OLDEST_POSTGRES:
        raise ConfigurationError(f"PostgreSQL {version // 10000} is too old: eventwriter needs 14 or later")
    if connection.execute("SELECT to_regclass('eventwriter.ledger')").fetchone() == (None,):
        raise TableError("the table eventwriter.ledger does not exist: run `eventwriter schema apply`")
    latest = "SELECT FROM pg_attribute WHERE attrelid = 'eventwriter.ledger'::regclass AND attname = 'newest_time'"
    if connection.execute(latest).fetchone() is None:
        raise TableError("the table eventwriter.ledger is that of an earlier release: run `eventwriter schema apply`")


def check_writable(connection: Connection[Any]) -> None:
    """Raises UnavailableError where nothing can be written now, ConfigurationError where that will not change."""
    options = {option.keyword: option.val or b"" for option in connection.pgconn.info}
    wanted = options.get(b"target_session_attrs", b"").decode()
    if wanted in ("read-only", "standby", "prefer-standby"):
        raise ConfigurationError(f"{mistakes.STANDBY} (target_session_attrs={wanted})")
    found = connection.execute("SELECT current_setting('transaction_read_only'), pg_is_in_recovery()").fetchone()
    if found == ("on", True):
        raise ReadOnlyError(
            f"PostgreSQL at {connection.info.host} is a standby, which takes no writes: postgres.dsn may name several "
            "hosts, of which the one that does is used"
        )
    if found == ("on", False):
        raise ReadOnlyError(
            "PostgreSQL takes no writes here: default_transaction_read_only is on; "
            "ALTER ROLE or ALTER DATABASE … RESET default_transaction_read_only"
        )


def open_pool(
    settings: PostgresConfig, application_name: str, size: int, connected: Callable[[], Mapping[str, str]] = dict
) -> ConnectionPool[BusyConnection]:
    """A pool of one worker, opened after the fork: an inherited one would use the parent's backend.

    ``connected`` is called, in whatever thread, for each connection that is made, and tells what else limits it.
    """

    def configure(connection: BusyConnection) -> None:
        more = connected()
        connection.adapters.register_dumper(None, JsonbDumper)
        timeout = {"statement_timeout": f"{int(settings.statement_timeout * 1000)}ms"}
        _set(connection, {**_LINK, **_IDLE, **more}, timeout)

    pool = ConnectionPool(
        lambda: connection_string(settings, application_name),
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
