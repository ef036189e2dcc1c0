"""What `check` says of PostgreSQL: the server, room for our connections, the ledger, and each stream's table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from psycopg import Connection

from eventwriter.commands.bookkeeping import losses
from eventwriter.commands.check_nats import clocks
from eventwriter.commands.findings import Finding, tables
from eventwriter.commands.schema_check import check_role, check_table
from eventwriter.commands.surroundings import surroundings
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import CONFIGURATION, EventWriterError, UnavailableError
from eventwriter.jetstream.durable import begins_anew
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.connection import check_server, connect
from eventwriter.postgres.errors import translated
from eventwriter.postgres.succession import predecessors
from eventwriter.stream import Stream

_CONNECT = 5.0
_LOCK, _STATEMENT = "1s", "3s"
"""Time for a lock, and for a statement: somebody may have locked a table, or all of them."""
_ROOM = """
SELECT current_setting('max_connections')::int,
       current_setting('superuser_reserved_connections')::int
           + coalesce(current_setting('reserved_connections', true)::int, 0),
       rolconnlimit, datconnlimit
FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()
"""


def look(
    settings: Config, declared: Mapping[str, Stream], findings: list[Finding], doing: Callable[[str], None]
) -> None:
    """Adds what it finds; tells what it is about to do, which may take longer than anybody waits."""
    patient = replace(settings.postgres, connect_timeout=min(_CONNECT, settings.postgres.connect_timeout))
    doing("it is connected to")
    try:
        with translated(), connect(patient, "eventwriter check") as connection:
            _limit(connection)
            findings.extend(_server(connection, settings))
            findings.extend(surroundings(connection, settings, declared))
            findings.extend(check_role(connection, settings))
            for stream, declaration in tables(settings, declared):
                doing(f"the table {stream.table} of streams.{stream.name} is looked at")
                findings.extend(check_table(connection, stream, declaration))
            doing("the ledger is looked at")
            findings.extend(_ledger(connection, [stream for stream, _ in tables(settings, declared)]))
    except EventWriterError as error:
        remedy = "; check postgres.dsn, and whether it runs there" if type(error) is UnavailableError else ""
        findings.append(Finding("postgres", f"{error}{remedy}", error.exit_code))


def _limit(connection: BusyConnection) -> None:
    if connection.pooled:  # there it would stay for whoever comes next
        connection.pool({"lock_timeout": _LOCK, "statement_timeout": _STATEMENT})
        return
    connection.autocommit = True
    settings = "set_config('lock_timeout', %s, false), set_config('statement_timeout', %s, false)"
    connection.execute(f"SELECT {settings}", [_LOCK, _STATEMENT])
    connection.autocommit = False


def _server(connection: Connection[Any], settings: Config) -> Iterator[Finding]:
    info = connection.info
    version = f"PostgreSQL {info.server_version // 10000}.{info.server_version % 10000}"
    tls = "TLS" if connection.pgconn.ssl_in_use else "no TLS"
    where = f"{info.host}:{info.port}, {tls}, database {info.dbname} as {info.user}"
    yield Finding("postgres", f"{version} at {where}")
    asked = datetime.now(UTC)
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    least, most = (row[0] - datetime.now(UTC)).total_seconds(), (row[0] - asked).total_seconds()
    if text := clocks("PostgreSQL", max(least, 0.0) or min(most, 0.0)):
        yield Finding("postgres", text, warning=True)
    yield from _room(connection, settings)
    try:
        with translated():
            check_server(connection)
    except EventWriterError as error:
        if connection.closed:
            raise
        connection.rollback()  # else nothing that follows is answered
        yield Finding("postgres", str(error), error.exit_code)


def _room(connection: Connection[Any], settings: Config) -> Iterator[Finding]:
    """Whether all connections may be made that the workers could want."""
    row = connection.execute(_ROOM).fetchone()
    if row is None:  # somebody stands in front of PostgreSQL, and says who we are
        return
    most, reserved, *others = row
    limits = {f"max_connections {most}, of which {reserved} are reserved": most - reserved}
    names = (f"the connection limit of role {connection.info.user}", "the connection limit of the database")
    limits |= {f"{name}, {each}": each for name, each in zip(names, others, strict=True) if each >= 0}
    limit, room = min(limits.items(), key=lambda each: each[1])
    processes = sum(stream.processes for stream in settings.streams.values() if stream.enabled)
    wanted = processes * settings.postgres.pool_size
    if wanted <= room:
        return
    text = (
        f"{processes} processes with postgres.pool_size {settings.postgres.pool_size} may open {wanted} connections, "
    )
    text += f"and {limit}, leaves room for {max(0, room)}"
    yield Finding(
        "postgres",
        f"{text}: raise that limit, or lower postgres.pool_size or streams.….processes",
        CONFIGURATION if processes > room else 0,
        warning=processes <= room,
    )


def _ledger(connection: Connection[Any], streams: Sequence[StreamConfig]) -> Iterator[Finding]:
    for stream in streams:
        try:
            with translated():
                found = losses(connection, stream)
                others = predecessors(connection, stream.name, stream.stream, stream.durable)
        except UnavailableError as error:  # nor for the others
            yield Finding("postgres", f"the ledger cannot be read: {error}", error.exit_code)
            return
        except EventWriterError:  # said already: the schema of another release, or none
            connection.rollback()
            continue
        if others and not stream.continues:
            yield Finding(stream.name, begins_anew(stream, others[0]), warning=True)
        remedy = f"`eventwriter ledger accept --stream {stream.name}` takes note"
        for loss in found:
            text = f"missing from the ledger and gone from the stream: {loss}; {remedy}"
            yield Finding(stream.name, text, warning=True)
