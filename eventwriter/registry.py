"""Finds the streams and the tables: one module in ``workers``, one file in ``schemas`` each. Nobody keeps a list."""

from __future__ import annotations

import importlib
import pkgutil
from importlib import resources

import schemas
import workers
from eventwriter.errors import SchemaError
from eventwriter.stream import Stream

OWN_SCHEMA = "eventwriter"
"""The SQL file that is not for a stream's table, but for ledger and dead letters."""


def load() -> dict[str, Stream]:
    """Every stream by its name; the name of ``workers/logs.py`` is LOGS."""
    names = sorted(module.name for module in pkgutil.iter_modules(workers.__path__) if not module.name.startswith("_"))
    found = {}
    for name in names:
        module = importlib.import_module(f"workers.{name}")
        stream = getattr(module, "STREAM", None)
        if stream is None:  # an encoding that a stream keeps beside it, such as generated classes
            continue
        if stream.name != name.upper():
            raise ValueError(f"workers/{name}.py declares the stream {stream.name}: one of the two has the wrong name")
        found[stream.name] = stream
    return found


def table_sql(table: str) -> str:
    """The definition of a table, ``schemas/<table>.sql``; raises SchemaError if there is none."""
    try:
        return (resources.files(schemas) / f"{table}.sql").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SchemaError(f"table {table} has no definition: add schemas/{table}.sql") from None


def own_versions() -> list[str]:
    """The SQL of each version of eventwriter's own schema: ``eventwriter.sql``, ``eventwriter_2.sql`` and so on."""
    texts, number = [table_sql(OWN_SCHEMA)], 2
    while (resources.files(schemas) / f"{OWN_SCHEMA}_{number}.sql").is_file():
        texts.append(table_sql(f"{OWN_SCHEMA}_{number}"))
        number += 1
    return texts
