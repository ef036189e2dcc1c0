"""`eventwriter schema sql --roles`: who may do what in PostgreSQL, and no more than that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from eventwriter.commands.findings import tables
from eventwriter.config.loading import Config
from eventwriter.errors import EventWriterError
from eventwriter.postgres import privileges
from eventwriter.postgres.catalog import read_plan
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated
from eventwriter.stream import Stream

_ROLES: dict[Literal["owner"] | privileges.Role, str] = {
    "owner": "applies the schema",
    "writer": "is what the service connects as",
    "reader": "looks at the ledger and dead letters: `dlq list`, `show` and `export`, `verify`, `schema version`",
    "operator": "beside both of these replays, imports and removes dead letters",
}
_OTHERS: tuple[privileges.Role, ...] = ("reader", "operator")
_CREATE = """DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{0}') THEN CREATE ROLE {0} NOLOGIN; END IF;
END $$;"""


def roles(settings: Config, declared: Mapping[str, Stream]) -> Iterator[str]:
    """The lines of the script. Which privileges a table takes is told by the table as it is now."""
    yield "-- Run it as a superuser, and again when tables were created or changed. Who connects is a member of a role:"
    yield "-- CREATE ROLE someone LOGIN PASSWORD '…' IN ROLE eventwriter_writer;"
    for name, what in _ROLES.items():
        yield f"\n-- {_name(name)} {what}.\n{_CREATE.format(_name(name))}"
    with translated(), connect(settings.postgres, "eventwriter schema") as connection:
        yield "\n-- The owner. What is there already stays its owner's: what it shall extend has to belong to it."
        yield from _terminated(privileges.grants(privileges.creation(connection), _name("owner")))
        ours = privileges.own(connection, "writer", remove=settings.dead_letters.keep is not None)
        if not ours:
            yield "\n-- Our own tables do not exist yet: run this again after `eventwriter schema apply`."
        needs = [*privileges.session(connection), *ours]
        for stream, declaration in tables(settings, declared):
            try:
                plan = read_plan(connection, declaration.leaving_out(stream.omit), stream.table)
            except EventWriterError as error:
                if connection.broken:
                    raise
                connection.rollback()
                yield f"\n-- {' '.join(str(error).split())}"
            else:
                needs += privileges.of_table(connection, plan)
        yield "\n-- The writer."
        yield from _terminated(privileges.grants(needs, _name("writer")))
        for role in _OTHERS:
            yield f"\n-- The {role}."
            if role == "operator":
                yield f"GRANT {_name('writer')}, {_name('reader')} TO {_name('operator')};"
            entering = [privileges.entrance(connection)] if role == "reader" else []
            yield from _terminated(privileges.grants([*entering, *privileges.own(connection, role)], _name(role)))


def _terminated(statements: Iterator[str]) -> Iterator[str]:
    return (f"{statement};" for statement in statements)


def _name(role: str) -> str:
    return f"eventwriter_{role}"
