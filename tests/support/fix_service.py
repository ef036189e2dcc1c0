"""Fixtures for whole-service tests: a NATS server and a database of one's own, and the real command as a process."""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import psutil
import psycopg
import pytest
from nats.js.api import StreamConfig

import forkserver
from eventwriter import registry
from eventwriter.embedded import NatsServer, PostgresServer
from fix_servers import TEMPLATE, WRITER, grant, new_database
from fix_servers import clean_environment as clean_environment
from patience import PATIENCE
from processes import Process, end
from traffic import NUMBER, Publication, Traffic

ROOT = Path(__file__).resolve().parents[2]
STREAMS = tuple(registry.load())
DEFINES = re.compile(r"\b(CREATE|ALTER) (\w+ )?(TABLE|INDEX|TRIGGER|VIEW)\b")
CRASHED = 86
"""The exit status of a process that EVENTWRITER_CRASH_AT ended."""
LOADED = 1_000_000
"""Where the numbers of records begin that are published beside, in the background; ``World.traffic`` counts from 1."""


_sessions: dict[tuple[int, str], psycopg.Connection[Any]] = {}
"""Connections for queries, by thread and database."""


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 30.0) -> Any:
    """The first true value of ``condition``; fails with ``what``, asked for then, when there is none in time."""
    deadline = time.monotonic() + seconds * PATIENCE
    pause = 0.01
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds * PATIENCE:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(pause)
        pause = min(1.3 * pause, 0.1)  # most ask a server, which takes more of a core than what is waited for


@dataclass
class World:
    """Servers, what was published to them, and what is in the tables."""

    nats: NatsServer
    dsn: str
    folder: Path
    environment: dict[str, str]
    root: Path = ROOT
    prefix: Sequence[str] = ()
    """What starts commands somewhere else, such as on another host."""
    published: dict[str, list[Publication]] = field(default_factory=dict)
    services: list[Process] = field(default_factory=list)

    def call(self, work: Callable[[Any], Any]) -> Any:
        """Runs ``await work(client)`` with a client of its own."""

        async def run() -> Any:
            client = await nats.connect(self.nats.url)
            try:
                return await work(client)
            finally:
                await client.close()

        return asyncio.run(run())

    def create_streams(self, names: Iterable[str] = STREAMS) -> None:
        """Creates the JetStream streams with the default subjects."""
        declared = registry.load()

        async def create(client: Any) -> None:
            for name in names:
                await client.jetstream().add_stream(StreamConfig(name=name, subjects=list(declared[name].subjects)))

        self.call(create)

    def publish(self, stream: str, messages: Sequence[Publication]) -> None:
        """Publishes, waits until JetStream has all of it, and remembers what must arrive."""

        async def send(client: Any) -> None:
            before = (await client.jetstream().stream_info(stream)).state.last_seq
            for start in range(0, len(messages), 1000):
                for message in messages[start : start + 1000]:
                    await client.publish(message.subject, message.payload, headers=message.headers)
                await client.flush()
            while (await client.jetstream().stream_info(stream)).state.last_seq < before + len(messages):
                await asyncio.sleep(0.01)

        self.call(send)
        self.published.setdefault(stream, []).extend(messages)

    def traffic(self, names: Iterable[str] = STREAMS, count: int = 100, broken: float = 0.02, seed: int = 0) -> None:
        """Publishes mixed traffic, numbered on from what was published before."""
        for name in names:
            before = self.published.get(name, [])
            number = max((n for m in before for n in m.records if n < LOADED), default=0)
            source = Traffic(name, seed=seed + len(before), broken=broken, records=5, number=number)
            self.publish(name, [source.next() for _ in range(count)])

    @property
    def writer(self) -> str:
        """The connection string of services: in the superuser's place they have a role that may less."""
        dsn = self.environment["EVENTWRITER_POSTGRES__DSN"]
        mine = psycopg.conninfo.conninfo_to_dict(dsn).get("user") == "postgres"
        return psycopg.conninfo.make_conninfo(dsn, user=WRITER) if mine else dsn

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the database."""
        return psycopg.connect(self.dsn, autocommit=True)

    def query(self, text: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query. Those of one thread share a connection: to make one takes ten times as long."""
        key = threading.get_ident(), self.dsn
        known = _sessions.get(key)
        if known is not None:
            try:
                return known.execute(text, values or None).fetchall()
            except psycopg.OperationalError:
                if not known.closed:
                    raise
        _sessions[key] = fresh = psycopg.connect(self.dsn, autocommit=True, prepare_threshold=None)  # tables change
        return fresh.execute(text, values or None).fetchall()

    def execute(self, text: str) -> None:
        """Runs a statement; services may write what it makes."""
        with self.connect() as connection:
            connection.execute(text)
        if DEFINES.search(text):
            self.grant(EVENTWRITER_POSTGRES__DSN=self.dsn)

    def grant(self, **environment: str) -> None:
        """Does what an operator does who made or changed tables, so that services may write them."""
        script = None
        if self.root != ROOT:
            script = self.run("schema", "sql", "--roles", check=True, **environment).stdout
        grant(self._environment(environment), script)

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        path = {} if self.root == ROOT else {"PYTHONPATH": str(self.root)}
        return self.environment | path | more

    def run(self, *arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        done = forkserver.run(arguments, self._environment(environment), root=self.root)
        if arguments[:2] == ("schema", "apply") and not done.returncode:
            self.grant(**environment)
        if check and done.returncode:
            pytest.fail(f"eventwriter {' '.join(arguments)} exited {done.returncode}: {done.stderr}")
        return done

    def start(self, *arguments: str, **environment: str) -> Process:
        """Starts a command in the background; its log goes to ``log``."""
        arguments = arguments or ("supervise",)
        if arguments[0] in ("supervise", "worker"):
            environment = {"EVENTWRITER_POSTGRES__DSN": self.writer} | environment
        with (self.folder / "service.log").open("ab") as log:
            process: Process
            if not self.prefix:
                process = forkserver.started(arguments, self._environment(environment), log, log, self.root)
            else:
                command = [*self.prefix, sys.executable, "-m", "eventwriter", *arguments]
                process = subprocess.Popen(
                    command, cwd=self.root, env=self._environment(environment), stdout=log, stderr=log
                )
        self.services.append(process)
        return process

    @property
    def log(self) -> str:
        """What the services logged so far."""
        path = self.folder / "service.log"
        return path.read_text() if path.exists() else ""

    def stop(self, process: Process, seconds: float = 35.0) -> int:
        """SIGTERM, and the exit status."""
        process.send_signal(signal.SIGTERM)
        return process.wait(seconds * PATIENCE)

    def counts(self, stream: str) -> tuple[int, int]:
        """(messages written, messages dead-lettered) according to the ledgers."""
        rows = self.query(
            "SELECT coalesce(sum(messages_written), 0)::bigint, coalesce(sum(messages_deadlettered), 0)::bigint "
            "FROM eventwriter.ledger WHERE logical_stream = %s",
            stream,
        )
        return rows[0][0], rows[0][1]

    def settled(self) -> bool:
        """Whether every published message is written or a dead letter."""
        return all(sum(self.counts(stream)) >= len(messages) for stream, messages in self.published.items())

    def wait_settled(self, seconds: float = 60.0) -> None:
        """Waits for ``settled``."""
        wait_until(
            self.settled,
            lambda: f"everything arrived: {[(s, self.counts(s)) for s in self.published]}\n{self.log}",
            seconds,
        )

    def assert_exact(self) -> None:
        """Every record that was published is in its table exactly once, every broken message is a dead letter."""
        declared = registry.load()
        for stream, messages in self.published.items():
            expected = sorted(number for message in messages for number in message.records)
            found = sorted(row[0] for row in self.query(f"SELECT {NUMBER[stream]} FROM {declared[stream].table}"))
            lost, more = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
            assert found == expected, (
                f"{stream}: {len(lost)} missing: {[*lost][:20]}, {len(more)} too many: {[*more][:20]}"
            )
            letters = self.query("SELECT count(*) FROM eventwriter.dead_letters WHERE logical_stream = %s", stream)
            assert letters[0][0] == sum(message.rejects for message in messages), stream

    def consumer(self, stream: str) -> Any:
        """The consumer's info."""
        return self.call(lambda client: client.jetstream().consumer_info(stream, f"eventwriter-{stream.lower()}"))

    def worker(self, stream: str) -> psutil.Process | None:
        """The process of a stream's worker, by its title."""
        for service in self.services:
            try:
                for child in psutil.Process(service.pid).children():
                    if " ".join(child.cmdline()).strip() == f"eventwriter: worker {stream}":
                        return child
            except psutil.NoSuchProcess:
                continue
        return None


def copied(root: Path) -> Path:
    """A copy of the project's code, with what is compiled of it, to be changed."""
    for package in ("eventwriter", "workers", "schemas"):  # the interpreter compiles into files of another name first
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("*.pyc.*"))
    return root


def only(*names: str) -> dict[str, str]:
    """The environment with which no other stream is served."""
    return {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name not in names}


@pytest.fixture(scope="session")
def template() -> str:
    """The name of a database with our tables, to copy."""
    return TEMPLATE


@contextmanager
def new_world(folder: Path, postgres: PostgresServer, template: str, nats_config: str = "") -> Iterator[World]:
    """Servers with the seven streams and tables, and nothing else running yet; its services end with it."""
    with new_database(postgres, template) as database, NatsServer(folder / "nats", config=nats_config) as server:
        environment = clean_environment() | {
            "EVENTWRITER_NATS__URL": server.url,
            "EVENTWRITER_POSTGRES__DSN": database,
            "EVENTWRITER_WRITER__ACK_WAIT": "3s",  # how long what a killed worker had in hand takes to come back
            "EVENTWRITER_HTTP__LISTEN": "127.0.0.1:0",
        }
        world = World(server, database, folder, environment)
        world.create_streams()
        try:
            yield world
        finally:
            for service in world.services:
                end(service)
            if world.root != ROOT:
                forkserver.end(world.root)
            while _sessions:
                _sessions.popitem()[1].close()


@pytest.fixture
def world(tmp_path: Path, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """Servers with the seven streams and tables, and nothing else running yet."""
    with new_world(tmp_path, postgres_server, template) as world:
        yield world
