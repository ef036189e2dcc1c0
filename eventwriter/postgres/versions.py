"""Which version of our own schema a database has, and what brings it to the latest.

Version 1 is what ``schemas/eventwriter.sql`` makes; each later one is a file ``eventwriter_<n>.sql``, applied after it.
All of them may run again. A database of a release that kept no record counts as version 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from psycopg import Connection

from eventwriter.errors import SchemaError
from eventwriter.postgres.steps import Step, split

_SHAPE = """
SELECT hashtextextended(string_agg(what, ',' ORDER BY what COLLATE "C"), 0) FROM (
  SELECT concat_ws(' ', c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                   a.attidentity, pg_get_expr(d.adbin, d.adrelid)) AS what
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
   WHERE c.relnamespace = to_regnamespace('eventwriter') AND c.relkind IN ('r', 'i', 'v')
  UNION ALL
  SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = to_regnamespace('eventwriter')) AS all_of_it
"""
"""A number that changes with all that the schema is made of, and is the same after a dump and a restore."""


class Version(NamedTuple):
    """What a database has of our own schema."""

    number: int
    """0: nothing."""
    release: str = ""
    """The one that made it so; empty: of one that kept no record."""
    applied: datetime | None = None
    shape: int | None = None
    """What it looked like then."""


def read(connection: Connection[Any]) -> Version:
    """The version of our schema in this database."""
    exists = "SELECT to_regclass('eventwriter.ledger') IS NOT NULL, to_regclass('eventwriter.' || %s) IS NOT NULL"
    ledger, record = connection.execute(exists, ["schema_versions"]).fetchone() or (False, False)
    found = (
        record
        and connection.execute(
            "SELECT version, release, applied_at, shape FROM eventwriter.schema_versions ORDER BY version DESC LIMIT 1"
        ).fetchone()
    )
    return Version(*found) if found else Version(int(ledger))


def unchanged(connection: Connection[Any], version: Version) -> bool:
    """Whether the schema looks as it did when this was recorded."""
    return version.shape is not None and connection.execute(_SHAPE).fetchone() == (version.shape,)


def steps(connection: Connection[Any], texts: Sequence[str], release: str) -> Iterator[Step]:
    """What brings our schema to the latest version, ``texts`` being those of the versions; nothing if it is there."""
    live = read(connection)
    if live.number > len(texts):
        raise SchemaError(
            f"schema eventwriter is version {live.number}, made by release {live.release}, and this release "
            f"({release}) knows version {len(texts)}: use that release, or a later one"
        )
    if live.number == len(texts) and unchanged(connection, live):
        return
    # All of them, whatever is recorded: what somebody dropped is missing again.
    for text in texts:
        yield from (Step(statement) for statement in split(text))
    for number in range(1, len(texts) + 1):
        yield Step(
            f"INSERT INTO eventwriter.schema_versions (version, release) VALUES ({number}, '{release}') "
            "ON CONFLICT (version) DO NOTHING"
        )
    yield Step(f"UPDATE eventwriter.schema_versions SET shape = ({_SHAPE}) WHERE version = {len(texts)}",
               f"schema eventwriter is version {len(texts)}")  # fmt: skip
