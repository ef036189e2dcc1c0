"""What `eventwriter check` finds between the workers and their tables: the network, a pooler, a standby."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from eventwriter.commands.findings import Finding, tables
from eventwriter.config import dsn
from eventwriter.config.loading import Config
from eventwriter.errors import CONFIGURATION, EventWriterError
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.connection import check_writable, exposed, several_hosts
from eventwriter.postgres.errors import translated
from eventwriter.postgres.session import NOT_ALONE
from eventwriter.stream import Stream

_UNLOGGED = """
SELECT oid::regclass::text FROM pg_class
 WHERE relnamespace = to_regnamespace('eventwriter') AND relkind = 'r' AND relpersistence = 'u' ORDER BY 1
"""
"""Those of ours; of the streams' tables `schema check` tells."""


def surroundings(connection: BusyConnection, settings: Config, declared: Mapping[str, Stream]) -> Iterator[Finding]:
    """How workers will reach the server, and whether it takes and keeps what they write."""
    if exposure := exposed(connection):
        yield Finding("postgres", exposure, warning=True)
    if several_hosts(dsn.parse(settings.postgres.dsn)):
        info = connection.info
        yield Finding("postgres", f"of several hosts the workers now use {info.host} port {info.port}")
    streams = [stream for stream, _ in tables(settings, declared)]
    if connection.pooled:
        text = "a pooler is in between: no statement is prepared, and nothing lives longer than a transaction"
        yield Finding("postgres", text)
        alone = (stream for stream in streams if stream.writer.ack == "all")
        yield from (Finding(stream.name, NOT_ALONE, CONFIGURATION) for stream in alone)
    try:
        with translated():
            check_writable(connection)
    except EventWriterError as error:
        yield Finding("postgres", str(error), error.exit_code)
    with translated():
        for (name,) in connection.execute(_UNLOGGED):
            text = (
                f"table {name} is UNLOGGED: a crash of PostgreSQL empties it, a standby has nothing of it; "
                f"ALTER TABLE {name} SET LOGGED"
            )
            yield Finding("postgres", text, warning=True)
