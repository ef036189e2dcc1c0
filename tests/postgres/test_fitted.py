"""Streams without code write what the live table has the types for, also when those change."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from eventwriter import cli, registry
from eventwriter.commands import schema_apply, schema_check, schema_roles
from eventwriter.commands.findings import tables
from eventwriter.commands.settings import Settings
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import TableError
from eventwriter.postgres.catalog import fitted, read_plan
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message, Outcome, Stream
from fix_service import ROOT

UID = "0f0e0d0c-0b0a-0908-0706-050403020100"
PATHS = {"n": "n", "t": "a.t", "at": "ts", "u": "u", "ip": "ip", "x": "x", "s": "s", "r": "r", "j": "j"}
TABLE = """CREATE TABLE things (n integer NOT NULL, t varchar(5), at timestamptz NOT NULL, u uuid, ip inet, x text[],
s smallint, r real, j json, rest jsonb)"""


def stream(paths: Mapping[str, str] = PATHS, rest: str | None = "rest") -> Stream:
    """One that takes its types from ``things``."""
    return registry.without_code("THINGS", ("things.>",), "things", paths, rest)


class Writer:
    """Writes payloads, each under the next sequence."""

    def __init__(self, sink: Sink) -> None:
        self._sink, self._sequence = sink, 0

    def write(self, *payloads: bytes) -> Outcome:
        first, self._sequence = self._sequence + 1, self._sequence + len(payloads)
        messages = [Message("things.x", each, n, 10**18 + n * 1000) for n, each in enumerate(payloads, first)]
        batch = Batch(messages, [message.sequence for message in messages])
        while self._sink.prepare(batch):  # as it is before somebody changes the table
            pass
        return self._sink.write(batch)


def rows(connection: psycopg.Connection[Any], what: str = "*") -> list[tuple[Any, ...]]:
    """All that there are."""
    return connection.execute(f"SELECT {what} FROM things ORDER BY n").fetchall()


def test_rows_have_the_types_of_the_table(connection: psycopg.Connection[Any], database: str) -> None:
    """Of every type; what is refused is a dead letter, its neighbours are rows; and after ALTER TABLE the new ones."""
    connection.execute(TABLE)
    sink = Sink(PostgresConfig(dsn=database, pool_size=1), stream(), "things")
    try:
        sink.open()
        sink.begin(Opening(Identity("THINGS", "things", datetime(2026, 1, 1, tzinfo=UTC), "writer"), (">",)))
        writer = Writer(sink)
        full = (
            b'{"n": 1, "a": {"t": "five5", "b": 1}, "ts": "2025-12-12T10:30:00Z", "u": "%b",' % UID.encode()
            + b' "ip": "10.0.0.7", "x": ["a", null], "s": 3, "r": 0.5, "j": [1], "more": true}'
        )
        large = b'{"n": 2, "a": {"t": "too long"}}'
        found = writer.write(full, large, b'{"n": 4000000000}', b'{"n": 5, "s": 70000, "u": "x"}', b"{}", b"[")
        assert (found.written, found.deadlettered) == (2, 4)
        assert found.rejects == {"bad_value": 1, "missing_field": 1, "malformed": 1, "refused": 1}
        text = "n, t, at::text, u::text, ip::text, x, s, r, j, rest"
        connection.execute("SET TIME ZONE 'UTC'")
        one, five = rows(connection, text)
        assert one[:6] == (1, "five5", "2025-12-12 10:30:00+00", UID, "10.0.0.7/32",
                           ["a", None])  # fmt: skip
        assert one[6:] == (3, 0.5, [1], {"a": {"b": 1}, "more": True})
        assert five[2].startswith("2001-09-09 01:46:40.")  # when it was received
        assert five[3:] == (None, None, None, None, None, None, {"s": 70000, "u": "x"})

        connection.execute("ALTER TABLE things ALTER n TYPE bigint, ALTER t TYPE text, ALTER s TYPE text")
        found = writer.write(large, b'{"n": 4000000000, "s": 70000}', b'{"n": 7, "s": []}')
        assert (found.written, found.deadlettered) == (3, 0)
        assert rows(connection, "n, t, s")[1:] == [
            (2, "too long", None), (5, None, None), (7, None, None), (4_000_000_000, None, "70000")
        ]  # fmt: skip
        connection.execute("ALTER TABLE things ALTER n TYPE numeric")
        with pytest.raises(TableError, match="table things of stream THINGS: column n is numeric, which a path cannot"):
            writer.write(b'{"n": 8}')
    finally:
        sink.close()


def test_a_table_that_is_not_there_or_lacks_a_column(connection: psycopg.Connection[Any]) -> None:
    """Is for somebody to create: it is nobody's here. What is there is read as it is."""
    with pytest.raises(TableError, match="table things of stream THINGS does not exist: create it, or set streams"):
        read_plan(connection, stream(), "things")
    connection.execute("CREATE TABLE things (n bigint, t text)")
    with pytest.raises(TableError, match="lacks the column x of stream THINGS: ALTER TABLE things ADD COLUMN x text"):
        read_plan(connection, stream({"n": "n", "t": "t", "x": "x"}, None), "things")
    found = fitted(connection, stream({"n": "n", "t": "t"}, None), "things")
    assert [(each.name, each.type) for each in found.columns] == [("n", "bigint"), ("t", "text")]


def test_commands_ask_the_table(connection: psycopg.Connection[Any], database: str, monkeypatch: Any) -> None:
    """What becomes of payloads, and of rows in the table, is told with the types that it has; nobody changes it."""
    connection.execute(TABLE + "; CREATE UNIQUE INDEX things_n ON things (n)")
    monkeypatch.setenv("EVENTWRITER_POSTGRES__DSN", database)
    for key, value in {"DECODER": "json", "COLUMNS": "n=n,t=a.t,at=ts", "REST": "rest"}.items():
        monkeypatch.setenv(f"EVENTWRITER_STREAMS__THINGS__{key}", value)
    loaded = Settings(None, {}).load()
    (found,) = [each for each in tables(loaded.config, loaded.declared) if each[0].name == "THINGS"]
    told = [finding.text for finding in schema_check.check_table(connection, *found)]
    assert "writes n, t, at, rest" in told
    assert "other types than the stream's: t is character varying(5) for text: longer is a dead letter" in told
    assert "a row without n, at (NOT NULL) becomes a dead letter" in told
    assert not [text for _, text in schema_apply.files(loaded.config, loaded.declared) if "things" in text]
    assert any("INSERT" in each and "things" in each for each in schema_roles.roles(loaded.config, loaded.declared))

    payload = b'{"n": 1, "a": {"t": "x"}, "ts": "2025-12-12T10:30:00Z", "u": 5}'
    done = CliRunner().invoke(cli.cli, ["decode", "--stream", "things"], input=payload)
    assert json.loads(done.stdout)["row"] == {"n": 1, "t": "x", "at": "2025-12-12T10:30:00.000000Z", "rest": {"u": 5}}
    connection.execute("DROP TABLE things")
    done = CliRunner().invoke(cli.cli, ["decode", "--stream", "things"], input=payload)
    assert "table things of stream THINGS does not exist: create it" in str(done.exception)


def test_the_example_of_the_documentation(
    connection: psycopg.Connection[Any], database: str, tmp_path: Path, monkeypatch: Any
) -> None:
    """The table and the settings of docs/streams.md fit each other."""
    text = (ROOT / "docs" / "streams.md").read_text()
    (statement,) = re.findall(r"```sql\n(.*?)```", text, re.DOTALL)
    (settings,) = [each for each in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "decoder" in each]
    connection.execute(statement)
    file = tmp_path / "eventwriter.toml"
    file.write_text(settings)
    monkeypatch.setenv("EVENTWRITER_POSTGRES__DSN", database)
    payload = b'{"ts": "2025-12-12T10:30:00Z", "message": {"text": "x", "level": 3, "by": "me"}}'
    done = CliRunner().invoke(cli.cli, ["--config", str(file), "decode", "--stream", "ALERTS"], input=payload)
    assert json.loads(done.stdout)["row"] == {
        "time": "2025-12-12T10:30:00.000000Z", "text": "x", "level": 3, "more": {"message": {"by": "me"}}
    }  # fmt: skip
