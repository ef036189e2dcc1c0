"""No command and no line of the log sends a terminal anything that it would obey, whatever others name and publish."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

import forkserver
from eventwriter.config import rendering
from eventwriter.embedded import PostgresServer, free_port
from fix_monitor import Endpoint
from fix_service import World, new_world, only, wait_until
from patience import PATIENCE
from traffic import Publication

HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eright\u2028to\rleft\x7f\u200b\U000e0041雪"
NAME = f"x{HOSTILE}"[:20]
"""Names of PostgreSQL have 63 bytes."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""All that we send a terminal ourselves."""
DUMB = {"TERM": "dumb"}
"""Without bars of progress."""


def tame(text: str) -> bool:
    """Whether a terminal shows it as it is, apart from our colours."""
    return all(
        line.isprintable() for line in _COLOURS.sub("", text).replace("\r\n", "\n").replace("\t", "").split("\n")
    )


class Terminal:
    """What commands send to one."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._master, slave = pty.openpty()
        self.file = os.fdopen(slave, "wb", buffering=0)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(self._master, 65536):
                self._said += data

    def close(self) -> str:
        """All of it."""
        self.file.close()
        self._reader.join(30 * PATIENCE)
        os.close(self._master)
        return self._said.decode()


def shown(world: World, *arguments: str, **environment: str) -> tuple[str, int]:
    """What a command shows in a terminal, on both of its outputs, and its exit status."""
    terminal = Terminal()
    process = forkserver.started(arguments, world.environment | environment | DUMB, terminal.file, terminal.file)
    status = process.wait(60 * PATIENCE)
    return terminal.close(), status


def quoted(name: str) -> str:
    """A name in SQL."""
    return '"' + name.replace('"', '""') + '"'


TABLE, VIEW, AWAY = quoted(NAME), quoted(f"v{NAME}"), quoted(f"a{NAME}")


def hostile_tables(world: World) -> None:
    """A table of such a name with a column, a check, an index, a trigger and a function of such names, and a view."""
    world.execute(f"""
        ALTER TABLE logs RENAME TO {TABLE};
        ALTER TABLE {TABLE} ADD COLUMN {TABLE} text;
        ALTER TABLE {TABLE} DROP COLUMN source;
        ALTER TABLE {TABLE} ADD CONSTRAINT {TABLE} CHECK (body <> 'refused');
        CREATE INDEX {quoted(f"i{NAME}")} ON {TABLE} ({TABLE});
        CREATE FUNCTION {TABLE}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF new.body = 'raised' THEN
            RAISE EXCEPTION USING MESSAGE = '{HOSTILE}', DETAIL = '{HOSTILE}', HINT = '{HOSTILE}'; END IF;
            RETURN new; END $$;
        CREATE TRIGGER {TABLE} BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION {TABLE}();
        CREATE VIEW {VIEW} AS SELECT * FROM {TABLE};
    """)


def hostile_messages() -> list[Publication]:
    """Rows, dead letters of every kind, and headers."""
    # nats-server keeps what has a U+007F in its subject, and delivers it to no consumer with a filter.
    text, subject = HOSTILE, f"logs.{HOSTILE.translate({13: None, 127: None})}"
    bodies = [{"body": text, "attributes": {text: text}}, {"body": "refused", "source": text},
              {"body": "raised", "source": text}, {"timestamp": text, "body": "x"}]  # fmt: skip
    payloads = [json.dumps(each, ensure_ascii=False).encode() for each in bodies]
    headers = {"x-a": text.replace("\r", "")}
    return [Publication(subject, payload, (), headers=headers) for payload in [*payloads, text.encode()]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A service for LOGS that logs to a terminal has written what could be written."""
    with new_world(tmp_path_factory.mktemp("hostile"), postgres_server, template) as world:
        hostile_tables(world)
        world.environment |= only("LOGS") | {"EVENTWRITER_STREAMS__LOGS__TABLE": TABLE}
        world.grant()
        yield world


LOGS = ("text", "json")


@pytest.mark.parametrize("form", LOGS)
def test_the_log_and_probes(world: World, form: str) -> None:
    """Readable or JSON, with what PostgreSQL says of rows, of columns that are lacking, of triggers."""
    endpoint, terminal = Endpoint(f"127.0.0.1:{free_port()}"), Terminal()
    environment = {"EVENTWRITER_HTTP__LISTEN": endpoint.address, "EVENTWRITER_POSTGRES__DSN": world.writer}
    arguments = ("--log-format", form, "supervise")
    service = forkserver.started(arguments, world.environment | environment, terminal.file, terminal.file)
    world.services.append(service)
    world.publish("LOGS", hostile_messages())
    world.wait_settled(20)
    wait_until(lambda: endpoint.get("/readyz")[0] == 200, "readiness")
    world.execute(f"ALTER TABLE {TABLE} RENAME COLUMN body TO {AWAY}")
    wait_until(lambda: endpoint.get("/readyz")[0] == 503, "what is wrong")
    assert tame(endpoint.get("/readyz")[1])
    said, status = shown(world, "status", EVENTWRITER_HTTP__LISTEN=endpoint.address)
    assert status == 69
    assert tame(said), said
    said, _ = shown(world, "status", "--output", "json", EVENTWRITER_HTTP__LISTEN=endpoint.address)
    assert tame(said), said
    world.execute(f"ALTER TABLE {TABLE} RENAME COLUMN {AWAY} TO body")
    assert world.stop(service) == 0
    log = terminal.close()
    assert "owned" in log
    assert tame(log), log
    if form == "json":
        messages = [json.loads(line)["message"] for line in log.splitlines()]
        assert any(NAME in each for each in messages), messages


COMMANDS: Sequence[Sequence[str]] = (
    ("check",), ("check", "--output", "json"), ("schema", "check"), ("schema", "version"),
    ("schema", "sql", "--roles"), ("schema", "sql"), ("schema", "apply", "--dry-run"),
    ("verify", "--stream", "LOGS"), ("verify", "--stream", "LOGS", "--against", "{view}"),
    ("verify", "--stream", "LOGS", "--output", "json"), ("replay", "--stream", "LOGS"),
    *(("tap", "--stream", "LOGS", "--since", "1h", "--limit", "5", *more)
      for more in ((), ("--raw",), ("--output", "json"), ("--raw", "--output", "json"))),
    ("tap", "--stream", "LOGS", "--since", "1h", "--limit", "2", "--rejects"),
    ("tap", "--stream", "LOGS", "--subject", HOSTILE), ("streams", "create"), ("streams", "create", "--dry-run"),
    ("dlq", "list"), ("dlq", "list", "--output", "json"), ("dlq", "list", "--summary"), ("dlq", "show", "1"),
    ("dlq", "show", "2", "--full"), ("dlq", "show", "1", "--output", "json"), ("dlq", "replay", "--dry-run"),
    ("dlq", "replay", "--dry-run", "--output", "json"), ("dlq", "export"), ("dlq", HOSTILE), ("dlq", "list", HOSTILE),
    ("ledger", "accept", "--stream", "LOGS"), ("ledger", "accept", "--stream", HOSTILE), (HOSTILE,),
    ("ledger", "copy", "--stream", "LOGS", "--from", HOSTILE, "--to", "y"), ("decode", "--stream", "LOGS", "{file}"),
    ("config", "show", "--origin"), ("config", "show", "--output", "json"), ("--config", "{none}", "check"),
    ("verify", "--stream", "LOGS", "--against", HOSTILE), ("dlq", "import", "{file}"),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command).encode("unicode_escape").decode())
def test_commands(world: World, command: Sequence[str], tmp_path: Path) -> None:
    """On standard output and standard error, which are a terminal."""
    assert world.query("SELECT FROM eventwriter.dead_letters"), "the log is first"
    file = tmp_path / f"f{HOSTILE}"
    file.write_bytes(hostile_messages()[0].payload)
    said, _ = shown(world, *(part.format(view=VIEW, none=tmp_path / HOSTILE, file=file) for part in command))
    assert "Traceback" not in said, said
    assert tame(said), said


def test_settings_that_hold_such_text_are_shown_and_read_again() -> None:
    """TOML that says exactly what there is."""
    for value in (HOSTILE, [HOSTILE, "雪"]):
        text = rendering.toml(value)
        assert text.isprintable()
        assert tomllib.loads(f"key = {text}")["key"] == value


def test_what_a_program_reads_is_exact(world: World) -> None:
    """In a pipe: SQL that runs, JSON that says what there is."""
    script = world.run("schema", "sql", "--roles").stdout
    assert TABLE in script
    with psycopg.connect(world.dsn) as connection:
        connection.execute(script.encode())
        connection.rollback()
    letters = [json.loads(line) for line in world.run("dlq", "export").stdout.splitlines()]
    assert {letter["subject"] for letter in letters} == {hostile_messages()[0].subject}
