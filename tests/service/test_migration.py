"""docs/migration.md, step by step: its commands, its SQL, and what they print, with the Go writer's stand-in beside."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from typing import Any

import psycopg
import yaml
from nats.js.api import StreamConfig
from psycopg.types.json import Jsonb

import go_writer
from eventwriter import registry
from eventwriter.config import loading
from fix_service import ROOT, World
from processes import Process
from traffic import Traffic

TEXT = (ROOT / "docs" / "migration.md").read_text()
BEFORE, AFTER = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
STREAMS = {"LOGS": ("logs", "logs.otel"), "EVENTS": ("events", "events.syslog.processed")}


def block(kind: str, containing: str) -> str:
    """The first block of that kind with this in it."""
    blocks: list[str] = re.findall(rf"```{kind}\n(.*?)```", TEXT, re.DOTALL)
    return next(each for each in blocks if containing in each)


def alike(line: str) -> str:
    """A line without its numbers, of which the document has others."""
    return re.sub(r"[0-9]+", "0", re.sub(r"\s+", " ", line)).strip()


class Guide:
    """Does what the document shows, beside the old writer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.traffic = {
            "LOGS": Traffic("LOGS", only="otlp", records=10, clock=lambda: time.time() - 600),
            "EVENTS": Traffic("EVENTS", only="gelf", clock=lambda: time.time() - 600),
        }

    def run(self, containing: str) -> None:
        """The commands of a block, each with the output that the document has; ``> FILE`` is what it prints."""
        for part in re.split(r"^\$ ", block("console", containing), flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            words, _, target = command.partition(" > ")
            done = self.world.run(*self.files(shlex.split(words)[1:]), check=False)
            assert done.returncode == ("✗" in expected), (command, done.stdout, done.stderr)
            if target:
                (self.world.folder / target).write_text(done.stdout)
            printed = [alike(line) for line in done.stdout.splitlines()]
            for line in filter(str.strip, expected.splitlines()):
                assert line == "…" or alike(line) in printed, (command, line, printed)

    def files(self, words: Sequence[str]) -> list[str]:
        """Where files are that the document names."""
        return [str(self.world.folder / word) if re.search(r"\.(json|toml|yaml)$", word) else word for word in words]

    def look_in(self, schema: str) -> None:
        """What the document has the connection string say."""
        dsn = psycopg.conninfo.make_conninfo(self.world.dsn, options=f"-c search_path={schema}")
        self.world.environment["EVENTWRITER_POSTGRES__DSN"] = dsn

    def start(self) -> Process:
        """Ours."""
        return self.world.start(*self.files(["--config", "eventwriter.toml", "supervise"]))

    def publish(self, count: int) -> None:
        """Logs, and a tenth as many events."""
        for name, number in (("LOGS", count), ("EVENTS", count // 10)):
            messages = [self.traffic[name].next() for _ in range(number)]
            self.world.published.setdefault(name, []).extend(messages)

            async def send(client: Any) -> None:
                for message in messages:  # noqa: B023 - called at once
                    await client.jetstream().publish(message.subject, message.payload)

            self.world.call(send)

    def old_writer(self) -> None:
        """The old one comes up to date."""
        for table, subject in STREAMS.values():
            self.world.call(lambda client: go_writer.write(client, table, self.world.dsn, "events", subject))  # noqa: B023

    def rows(self, schema: str) -> tuple[int, int, int]:
        """Rows of logs, different ones among them, and events."""
        logs = self.world.query(f"SELECT count(*), count(DISTINCT (trace_id, span_id)) FROM {schema}.logs")[0]
        return *logs, self.world.query(f"SELECT count(*) FROM {schema}.events")[0][0]


def test_from_the_go_writer_to_ours(world: World) -> None:
    """Beside each other, compared, the old one off, ours in its tables: each message is there, and none twice."""
    guide, config = Guide(world), json.loads(block("json", "nats_url"))

    async def create(client: Any) -> None:
        for name in ("EVENTS", "LOGS"):
            await client.jetstream().delete_stream(name)
        stream = StreamConfig(name=config["stream_name"], subjects=["events.>", "logs.>"])
        await client.jetstream().add_stream(stream)

    world.call(create)
    world.execute(go_writer.TABLES)
    (world.folder / "db-event-writer.json").write_text(block("json", "nats_url"))
    (world.folder / "compose.yaml").write_text(BEFORE)
    guide.publish(100)
    guide.old_writer()

    guide.run("config import")
    guide.look_in("next")
    world.execute(block("sql", "CREATE SCHEMA"))
    guide.run("schema apply")
    ours = guide.start()
    guide.publish(100)
    guide.old_writer()
    world.wait_settled()
    guide.run("--until 1m")
    with world.connect() as connection:
        gone = connection.execute(
            "DELETE FROM next.logs WHERE ctid IN (SELECT ctid FROM next.logs LIMIT 3) RETURNING *"
        ).fetchall()
        guide.run("1997 rows")
        marks = ", ".join(["%s"] * len(gone[0]))
        connection.cursor().executemany(
            f"INSERT INTO next.logs VALUES ({marks})",
            [[Jsonb(each) if isinstance(each, dict) else each for each in row] for row in gone],
        )

    guide.publish(200)  # the old one does not get these any more
    world.wait_settled()
    assert world.stop(ours) == 0
    guide.look_in("platform")
    ours = guide.start()
    world.execute(block("sql", "ON CONFLICT"))
    guide.publish(200)
    world.wait_settled()
    assert guide.rows("platform") == (6000, 6000, 60)
    guide.run("toml verify\n")

    assert world.stop(ours) == 0  # the way back
    guide.publish(100)
    guide.old_writer()
    assert guide.rows("platform") == (7000, 7000, 70)


def test_the_files_of_compose_name_what_there_is() -> None:
    """Ours has settings that exist, and the command is one."""
    service = yaml.safe_load(AFTER)["services"]["eventwriter"]
    environment = {name: text for name, text in service["environment"].items() if not name.endswith("_FILE")}
    assert loading.load(registry.load(), file=None, environ=environment, flags={}).http.public
    assert service["command"][-1] == "supervise"
    assert "db-event-writer" in yaml.safe_load(BEFORE)["services"]
