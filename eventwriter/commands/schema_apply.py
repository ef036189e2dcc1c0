"""`eventwriter schema sql` and `schema apply`: creates the tables, and extends those that are ours."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, cast

from psycopg import sql

from eventwriter import registry
from eventwriter.commands.findings import tables
from eventwriter.config.loading import Config
from eventwriter.errors import UnavailableError
from eventwriter.postgres import definition
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated
from eventwriter.stream import Stream


def files(settings: Config, declared: Mapping[str, Stream]) -> list[tuple[str, str]]:
    """(name, SQL) of eventwriter's own tables and those of every enabled stream, in the order to run them."""
    found = [(registry.OWN_SCHEMA, registry.table_sql(registry.OWN_SCHEMA))]
    for stream, declaration in tables(settings, declared):
        if stream.table == declaration.table:
            found.append((stream.table, registry.table_sql(stream.table)))
    return found


def apply(
    settings: Config, declared: Mapping[str, Stream], *, wait: float = 0.0, new_keys: bool = False
) -> Iterator[str]:
    """Runs the SQL of ``files``, each file in a transaction of its own, and yields what was done, line by line.

    A table of ours that is there already gets the columns that it lacks, and with ``new_keys`` its present key. A
    stream whose table has another name than ours writes into a table that somebody else created: left alone.
    """
    streams = {declaration.table: declaration for _, declaration in tables(settings, declared)}
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = connect(settings.postgres, "eventwriter schema")
            break
        except UnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
    with connection:
        for name, text in files(settings, declared):
            with translated():
                # One at a time: two of them at once would meet in the catalog (23505, "tuple concurrently updated").
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('eventwriter schema'))")
                # Before the file, whose indexes need all columns.
                extend = partial(definition.extend, connection, text=text, new_keys=new_keys)
                lines = list(extend(streams[name])) if name in streams else []
                connection.execute(sql.SQL(cast(Any, text)))
                connection.commit()
            yield from (*lines, f"applied {name}")
