"""Finds the streams and the tables: one module in ``workers``, one file in ``schemas`` each, or plugins. Nobody keeps a
list.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from itertools import chain

import schemas
import workers
from eventwriter import plugins
from eventwriter.errors import ConfigurationError, SchemaError
from eventwriter.plugins import Found
from eventwriter.stream import Stream
from workers._guard import guarded
from workers._json import paths

OWN_SCHEMA = "eventwriter"
"""The SQL file that is not for a stream's table, but for ledger and dead letters."""


def load(folders: Sequence[str] = ()) -> dict[str, Stream]:
    """Every stream by its name: our own, those of installed packages, and those in these folders. Of a decoder that
    raises, whoever wrote it, comes a reject."""
    found: dict[str, Found] = {}
    for each in chain(_ours(), plugins.in_packages(), *map(plugins.in_folder, dict.fromkeys(folders))):
        if (other := found.setdefault(each.stream.name, each)) is not each:
            raise ConfigurationError(f"two streams are called {each.stream.name}: {other.place} and {each.place}")
    return {name: guarded(found[name].stream) for name in sorted(found)}


def without_code(
    name: str, subjects: tuple[str, ...], table: str, columns: Mapping[str, str], rest: str | None
) -> Stream:
    """A stream that the settings tell: its ``columns`` with their paths in JSON, and one for what no path takes."""
    return paths.stream_of(name, subjects, table, columns, rest)


def _ours() -> Iterator[Found]:
    """The streams that come with eventwriter; the name of ``workers/logs.py`` is LOGS."""
    for module in pkgutil.iter_modules(workers.__path__):
        if module.name.startswith("_"):
            continue
        stream = getattr(importlib.import_module(f"workers.{module.name}"), "STREAM", None)
        if stream is None:  # an encoding that a stream keeps beside it, such as generated classes
            continue
        if stream.name != module.name.upper():
            raise ValueError(f"workers/{module.name}.py declares the stream {stream.name}: one of the two is wrong")
        yield Found(f"workers/{module.name}.py", stream)


def definition(stream: Stream) -> str:
    """The definition of a stream's own table; raises SchemaError if there is none."""
    return table_sql(stream.table) if stream.sql is None else stream.sql


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
