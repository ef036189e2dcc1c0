"""`eventwriter schema sql` and `schema apply`: creates the tables, and extends those that are ours."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial

from eventwriter import __version__, registry
from eventwriter.commands.applying import Applying, Unit
from eventwriter.commands.findings import tables
from eventwriter.commands.settings import declared as named
from eventwriter.config.loading import Config
from eventwriter.errors import UnavailableError, UsageError
from eventwriter.postgres import definition, timescale, versions
from eventwriter.postgres.connection import connect
from eventwriter.postgres.steps import WHATEVER_LACKS, Wanted
from eventwriter.stream import Stream


def files(settings: Config, declared: Mapping[str, Stream]) -> list[tuple[str, str]]:
    """(name, SQL) of eventwriter's own tables and those of every enabled stream, in the order to run them."""
    found = [(registry.OWN_SCHEMA, "\n".join(registry.own_versions()))]
    for stream, declaration in tables(settings, declared):
        if declaration.owns(stream.table):
            text = registry.definition(declaration)
            found.append((stream.table, timescale.script(stream.table, text)))
    return found


def apply(
    settings: Config,
    declared: Mapping[str, Stream],
    wanted: Wanted = WHATEVER_LACKS,
    *,
    wait: float = 0.0,
    lock_wait: float = 30.0,
) -> Iterator[str]:
    """Brings the tables to what ``files`` says, as far as they are not, and yields what was done, line by line.

    A table of ours that is there already gets the columns and indexes that it lacks. A stream whose table has another
    name than ours writes into a table that somebody else created: left alone.
    """
    units = list(_units(settings, declared, wanted))
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
        applying = Applying(connection, units, lock_wait)
        yield from applying.shown() if wanted.dry_run else applying.run()


def _units(settings: Config, declared: Mapping[str, Stream], wanted: Wanted) -> Iterator[Unit]:
    """What is to be applied, each by itself."""
    only = {named(declared, name).name for name in wanted.only}
    if disabled := [name for name in only if not settings.streams[name].enabled]:
        raise UsageError(f"--only: the stream {', '.join(sorted(disabled))} is not enabled: set streams.NAME.enabled")
    if not only:
        texts = registry.own_versions()
        yield Unit(registry.OWN_SCHEMA, lambda connection: versions.steps(connection, texts, __version__))
    for stream, declaration in tables(settings, declared):
        if wanted.ledger_only or (only and stream.name not in only):
            continue
        if declaration.owns(stream.table):
            text = registry.definition(declaration)
            make = partial(definition.steps, stream=declaration, text=text, wanted=wanted)
            yield Unit(stream.table, make, timescale.time_column(text))
        elif only:
            raise UsageError(f"--only {stream.name}: streams.{stream.name}.table names a table that is not ours")
