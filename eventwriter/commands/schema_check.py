"""`eventwriter schema check`: what becomes of rows in the tables that are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from psycopg import Connection

from eventwriter.commands.findings import Finding, tables
from eventwriter.commands.schema_findings import Described
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import CONFIGURATION, EventWriterError
from eventwriter.postgres import privileges
from eventwriter.postgres.catalog import fitted, read_plan
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated
from eventwriter.postgres.inspection import inspect
from eventwriter.stream import Stream


def check(settings: Config, declared: Mapping[str, Stream]) -> list[Finding]:
    """What the role that connects may do in our own schema, and what becomes of the rows of each enabled stream."""
    with connect(settings.postgres, "eventwriter check") as connection:
        found = check_role(connection, settings)
        for each in tables(settings, declared):
            found += check_table(connection, *each)
    return found


def check_role(connection: Connection[Any], settings: Config) -> list[Finding]:
    """Whether a worker may do what it does for every stream: temporary tables, ledger, dead letters."""
    with translated():
        needs = privileges.session(connection)
        needs += privileges.own(connection, "writer", remove=settings.dead_letters.keep is not None)
        found = _lacking(connection, "postgres", needs)
        connection.rollback()
    return found


def check_table(connection: Connection[Any], stream: StreamConfig, declaration: Stream) -> list[Finding]:
    """What becomes of the rows of this stream in its table: first how they are written, or why not."""
    try:
        with translated():
            privileges.see(connection, stream.table)
            declaration = fitted(connection, declaration, stream.table)
            plan = read_plan(connection, declaration.leaving_out(stream.omit), stream.table)
            seen = inspect(connection, plan)
            lacking = _lacking(connection, stream.name, privileges.of_table(connection, plan))
    except EventWriterError as error:
        if connection.broken:
            raise  # nothing to ask about the other tables
        connection.rollback()
        return [Finding(stream.name, str(error), error.exit_code)]
    return [*Described(stream, declaration, plan, seen, connection.info.user).findings(), *lacking]


def _lacking(connection: Connection[Any], subject: str, needs: Iterable[privileges.Need]) -> list[Finding]:
    """What the role of this connection may not do, each with the statement that allows it."""
    lacks = privileges.lacking(connection, needs)
    return [Finding(subject, privileges.lack(connection, [need]), CONFIGURATION) for need in lacks]
