"""Hostile messages and hostile tables, for scripts/chaos: what others publish, and what others do to our tables."""

from __future__ import annotations

import contextlib
import gzip
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from eventwriter import registry
from traffic import NUMBER, Publication

FATAL = b"chaos ends the process that decodes this"
REFUSED = "chaos refuses "
"""How the message of the trigger begins that refuses rows; the number of the record follows."""
AWAY = "chaos_away_"
"""How the names of columns begin that are gone for a while."""


def message(subject: str, rng: random.Random) -> Publication:
    """A message that must become one dead letter, however much it promises to be."""
    return Publication(subject, rng.choice((_many_elements, _many_records, _deep, _large))(), (), 1)


def fatal(subject: str) -> Publication:
    """A message that ends every process that decodes it, as a fault in native code would."""
    return Publication(subject, b'{"body": "%b"}' % FATAL, (), 1)


def code(folder: Path, root: Path) -> Path:
    """A copy of the service's code in which such a message is fatal."""
    for package in ("eventwriter", "workers", "schemas"):
        shutil.copytree(root / package, folder / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    (folder / "workers" / "_fatal.py").write_text(
        "import dataclasses, os, signal\n\n"
        "def fatal(stream):\n"
        "    def checked(message):\n"
        f"        if {FATAL!r} in message.payload:\n"
        "            os.kill(os.getpid(), signal.SIGSEGV)\n"
        "        return message\n\n"
        "    return dataclasses.replace(\n"
        "        stream,\n"
        "        decode=lambda message: stream.decode(checked(message)),\n"
        "        fast=stream.fast and (lambda messages: stream.fast([*map(checked, messages)])),\n"
        "    )\n"
    )
    for name in registry.load():
        with (folder / "workers" / f"{name.lower()}.py").open("a") as file:
            file.write("\n\nfrom workers._fatal import fatal\n\nSTREAM = fatal(STREAM)\n")
    return folder


def _many_elements() -> bytes:
    return gzip.compress(b"[" + b"0," * 8_300_000 + b"0]")


def _many_records() -> bytes:
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for _ in range(500_000):
        records.add()
    return gzip.compress(request.SerializeToString())


def _deep() -> bytes:
    return b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def _large() -> bytes:
    return b'{"body": "' + b"x" * 900_000


class Tables:
    """The tables of the seven streams, to which somebody else does something, for so long."""

    def __init__(self, dsn: str, rng: random.Random) -> None:
        self._dsn = dsn
        self._rng = rng
        self._streams = registry.load()

    def refuse(self, seconds: float) -> None:
        """A trigger raises an error for every seventh record."""
        name = self._rng.choice(list(self._streams))
        table = self._streams[name].table
        with self._changed(seconds) as connection:
            connection.execute(
                f"CREATE OR REPLACE FUNCTION chaos_refuses_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ "
                f"DECLARE n bigint := (SELECT {NUMBER[name]} FROM (SELECT NEW.*) AS fresh); "
                f"BEGIN IF n % 7 = 0 THEN RAISE EXCEPTION '{REFUSED}%', n; END IF; RETURN NEW; END $$"
            )
            connection.execute(
                f"CREATE TRIGGER chaos_refuses BEFORE INSERT ON {table} FOR EACH ROW "
                f"EXECUTE FUNCTION chaos_refuses_{table}()"
            )

    def add_key(self, seconds: float) -> None:
        """A unique index appears, on an expression; no record violates it."""
        name = self._rng.choice(list(self._streams))
        with self._changed(seconds) as connection:
            connection.execute(f"CREATE UNIQUE INDEX chaos_key ON {self._streams[name].table} (({NUMBER[name]}))")

    def take_column(self, seconds: float) -> None:
        """A column goes and comes back: with a core column away the stream has to wait."""
        name = self._rng.choice(list(self._streams))
        columns = [column.name for column in self._streams[name].columns if column.name not in NUMBER[name]]
        with self._changed(seconds) as connection:
            column = self._rng.choice(columns)
            connection.execute(f"ALTER TABLE {self._streams[name].table} RENAME COLUMN {column} TO {AWAY}{column}")

    @contextlib.contextmanager
    def _changed(self, seconds: float) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._dsn) as connection:
            yield connection
        time.sleep(seconds)
        self.mend()

    def mend(self) -> None:
        """Everything is as it was; also in a database of a moment in which it was not."""
        with psycopg.connect(self._dsn) as connection:
            connection.execute("DROP INDEX IF EXISTS chaos_key")
            for stream in self._streams.values():
                connection.execute(f"DROP TRIGGER IF EXISTS chaos_refuses ON {stream.table}")
            away = connection.execute(
                "SELECT attrelid::regclass::text, attname::text FROM pg_attribute WHERE attname ^@ %s", [AWAY]
            )
            for table, column in away.fetchall():
                connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO {column.removeprefix(AWAY)}")


def refused(connection: psycopg.Connection[Any], stream: str) -> list[int]:
    """The numbers of the records that are dead letters because the trigger refused them."""
    query = "SELECT substr(detail, strpos(detail, %s)) FROM eventwriter.dead_letters WHERE logical_stream = %s"
    details = [row[0] for row in connection.execute(query, [REFUSED, stream])]
    return [int(re.split(r"\D", detail.removeprefix(REFUSED))[0]) for detail in details if detail.startswith(REFUSED)]
