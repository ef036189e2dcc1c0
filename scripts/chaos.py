"""Faults on a schedule, from a seed, while messages flow on all streams; then every table is compared with what was
published: exit status 0 only if nothing was lost and nothing written twice."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import queue
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import psutil
import psycopg
from nats.js.api import StreamConfig
from nats.js.errors import APIError
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.live import Live
from rich.table import Table

import hostile
import hosts
from demo import ROOT, Published, Service, State, read_state
from eventwriter import registry
from eventwriter.embedded import NatsServer
from faults import SUBJECTS, Database, SecondHost, Subjects, edit_consumer
from proxy import Proxy
from traffic import NUMBER, Publication, Traffic

SETTLED_AFTER = 90.0
"""Seconds without any progress after which what is missing is lost: longer than between two comparisons."""


class Publisher(threading.Thread):
    """Publishes at a steady rate, each message until JetStream has confirmed it; repeats carry the same Nats-Msg-Id."""

    def __init__(self, url: str, streams: list[str], rate: float, seed: int, broken: float = 0.01) -> None:
        super().__init__(name="publisher", daemon=True)
        self.url, self.rate = url, rate
        self.traffic = {name: Traffic(name, seed=seed, broken=broken, records=3) for name in streams}
        self.published = {name: Published() for name in streams}
        self.hostile: queue.SimpleQueue[tuple[str, Publication]] = queue.SimpleQueue()
        """To be published besides."""
        self.ready = threading.Event()
        self.stop = threading.Event()
        self.repeats = 0
        self.error: Exception | None = None

    @property
    def messages(self) -> int:
        """How many were published."""
        return sum(published.messages for published in self.published.values())

    def run(self) -> None:
        """Runs until ``stop`` is set and everything is confirmed."""
        try:
            asyncio.run(self._run())
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self.error = error
            self.ready.set()

    async def _run(self) -> None:
        async def quiet(error: Exception) -> None:
            """The server is killed now and then."""

        client = await nats.connect(
            self.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, pending_size=64 << 20, error_cb=quiet
        )
        stream = client.jetstream()
        for name, declared in registry.load().items():
            await stream.add_stream(StreamConfig(name=name, subjects=list(declared.subjects)))
        self.ready.set()
        names = list(self.traffic)
        waiting: set[asyncio.Task[None]] = set()

        def send(name: str, message: Publication) -> None:
            published = self.published[name]
            published.messages += 1
            published.broken += not message.records
            published.numbers.update(message.records)
            task = asyncio.create_task(self._confirm(stream, message, f"{name}-{published.messages}"))
            waiting.add(task)
            task.add_done_callback(waiting.discard)

        begun, sent = time.monotonic(), 0
        while not self.stop.is_set():
            while not self.hostile.empty():
                send(*self.hostile.get())
            for number in range(sent, int((time.monotonic() - begun) * self.rate)):
                if len(waiting) > 5000:  # during an outage, publishing waits too
                    begun += 1 / self.rate
                    continue
                name = names[number % len(names)]
                send(name, self.traffic[name].next())
                sent = number + 1
            await asyncio.sleep(0.01)
        while waiting:
            await asyncio.wait(waiting)
        await client.close()

    async def _confirm(self, stream: Any, message: Publication, identity: str) -> None:
        headers = {**(message.headers or {}), "Nats-Msg-Id": identity}
        while True:
            try:
                await stream.publish(message.subject, message.payload, timeout=3, headers=headers)
            except (nats.errors.Error, APIError, TimeoutError, OSError):
                self.repeats += 1
                await asyncio.sleep(0.2)
            else:
                return


@dataclass
class Chaos:
    """What may fail, and how."""

    nats: NatsServer
    postgres: Database
    to_nats: Proxy
    to_postgres: Proxy
    second: SecondHost
    subjects: Subjects
    tables: hostile.Tables
    publisher: Publisher
    database: str
    environment: dict[str, str]
    code: Path
    folder: Path
    rng: random.Random
    services: list[Service] = field(default_factory=list)

    def start(self) -> None:
        """Starts the service."""
        log = self.folder / f"service-{len(self.services)}.log"
        self.services.append(Service(self.environment, log, root=self.code))

    @property
    def service(self) -> Service:
        """The one that runs."""
        return self.services[-1]

    @property
    def restarts(self) -> int:
        """How often a supervisor started a worker again."""
        return sum(service.restarts.total() for service in self.services)

    def faults(self) -> dict[str, Callable[[], None]]:
        """Every kind of fault; each returns when its cause is gone again."""
        return {
            "worker_kill": lambda: self._worker(signal.SIGKILL),
            "worker_term": lambda: self._worker(signal.SIGTERM),
            "worker_freeze": self._freeze,
            "supervisor_kill": self._kill_supervisor,
            "supervisor_freeze": lambda: self._pause([psutil.Process(self.service.process.pid)]),
            "service_freeze": self._freeze_service,
            "service_restart": self._restart_service,
            "postgres_kill": self._kill_postgres,
            "postgres_stop": self._stop_postgres,
            "postgres_backends": self._terminate_backends,
            "postgres_cut": self.to_postgres.cut,
            "postgres_stall": lambda: self._stall(self.to_postgres),
            "postgres_promote": self._promote,
            "postgres_restore": lambda: self.postgres.restore(_complete, self.rng.uniform(1, 3)),
            "table_refuses": lambda: self.tables.refuse(self.rng.uniform(1, 4)),
            "table_key": lambda: self.tables.add_key(self.rng.uniform(1, 4)),
            "table_column": lambda: self.tables.take_column(self.rng.uniform(1, 8)),
            "message_hostile": self._publish_hostile,
            "message_fatal": self._publish_fatal,
            "commit_answer_lost": lambda: self._lose("after"),
            "commit_lost": lambda: self._lose("before"),
            "nats_kill": self._kill_nats,
            "nats_cut": self.to_nats.cut,
            "nats_stall": lambda: self._stall(self.to_nats),
            "consumer_edit": self._edit_consumer,
            "subject_edit": self._edit_subjects,
            "host_cut": lambda: self.second.cut(self.rng.uniform(5, 20)),
        }

    def schedule(self, seconds: float, count: int, only: set[str]) -> Iterator[tuple[float, str]]:
        """When which fault happens: every kind before any kind again."""
        kinds: list[str] = []
        for number in range(count):
            if not kinds:
                kinds = self.rng.sample(sorted(only), len(only))
            yield (number + self.rng.random()) * seconds / count, kinds.pop()

    def _workers(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.service.process.pid).children()
        except psutil.NoSuchProcess:
            return []
        found = []
        for child in children:
            with contextlib.suppress(psutil.Error):
                if "eventwriter: worker" in " ".join(child.cmdline()):
                    found.append(child)
        return sorted(found, key=lambda child: child.pid)

    def _worker(self, number: signal.Signals) -> None:
        if workers := self._workers():
            with contextlib.suppress(psutil.NoSuchProcess):
                self.rng.choice(workers).send_signal(number)

    def _freeze(self) -> None:
        if workers := self._workers():
            self._pause([self.rng.choice(workers)])

    def _freeze_service(self) -> None:
        """As a container is frozen, or a laptop is suspended."""
        supervisor = psutil.Process(self.service.process.pid)
        self._pause([supervisor, *supervisor.children()])

    def _pause(self, processes: list[psutil.Process]) -> None:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(self.rng.uniform(0.5, 5))
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def _promote(self) -> None:
        self.postgres.promote(self.rng.uniform(0.5, 3))
        self.tables.mend()  # what was mended last may be among what the standby lacks

    def _publish_hostile(self) -> None:
        for name in self.publisher.traffic:
            subject = Traffic(name).next().subject
            self.publisher.hostile.put((name, hostile.message(subject, self.rng)))

    def _publish_fatal(self) -> None:
        name = self.rng.choice(list(self.publisher.traffic))
        self.publisher.hostile.put((name, hostile.fatal(Traffic(name).next().subject)))

    def _kill_supervisor(self) -> None:
        self.service.process.kill()
        self.service.process.wait()
        self.start()  # while the orphaned workers may still be draining

    def _restart_service(self) -> None:
        self.service.end(35)
        self.start()

    def _kill_postgres(self) -> None:
        self.postgres.server.kill()  # the next start waits for its last process
        time.sleep(self.rng.uniform(0, 2))
        self.postgres.server.start()

    def _stop_postgres(self) -> None:
        self.postgres.server.stop()
        time.sleep(self.rng.uniform(0, 2))
        self.postgres.server.start()

    def _edit_consumer(self) -> None:
        edit_consumer(self.nats.url, self.rng, list(registry.load()), self.rng.uniform(0.5, 3))
        self._reload()

    def _edit_subjects(self) -> None:
        self.subjects.write(SUBJECTS[1])
        self._reload()
        time.sleep(self.rng.uniform(1, 4))
        self.subjects.write(SUBJECTS[0])
        self._reload()

    def _reload(self) -> None:
        """As somebody would who changed something; what was parked because of it is tried again."""
        self.service.process.send_signal(signal.SIGHUP)
        self.second.signal(signal.SIGHUP)

    def _terminate_backends(self) -> None:
        with psycopg.connect(self.database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'eventwriter %'"
            )

    def _stall(self, proxy: Proxy) -> None:
        proxy.stall()
        time.sleep(self.rng.uniform(0.5, 4))
        if self.rng.random() < 0.5:
            proxy.cut()
        proxy.resume()

    def _lose(self, when: Any) -> None:
        self.to_postgres.lose(b"COMMIT", when)
        self.to_postgres.lost(5)

    def _kill_nats(self) -> None:
        self.nats.kill()
        time.sleep(self.rng.uniform(0, 2))
        self.nats.start()


def _complete(connection: psycopg.Connection[Any]) -> bool:
    """Whether every stream has written."""
    state = read_state(connection)
    return len(state) == len(registry.load()) and all(line.written for line in state.values())


class Watch(threading.Thread):
    """Reads the ledgers all the time, and measures how long after a fault every stream writes again."""

    def __init__(self, database: str) -> None:
        super().__init__(name="watch", daemon=True)
        self.state: dict[str, State] = {}
        self.longest = 0.0
        self.slowest = ""
        self.stop = threading.Event()
        self._database = database
        self._since: tuple[float, str, dict[str, int]] | None = None
        self._lock = threading.Lock()

    @property
    def done(self) -> int:
        """Messages that are written or dead letters."""
        return sum(state.written + state.dead for state in self.state.values())

    def healed(self, kind: str, published: dict[str, Published]) -> None:
        """The cause of a fault is gone: until everything that is published by now is written, it is recovery."""
        with self._lock:
            self._since = time.monotonic(), kind, {name: line.messages for name, line in published.items()}

    def calm(self) -> None:
        """Publishing has ended: what stands still now is done."""
        with self._lock:
            self._since = None

    def run(self) -> None:
        """Runs until ``stop`` is set."""
        while not self.stop.is_set():
            with contextlib.suppress(psycopg.Error), psycopg.connect(self._database, autocommit=True) as connection:
                while not self.stop.is_set():
                    self._look(read_state(connection))
                    self.stop.wait(0.05)
            self.stop.wait(0.05)

    def _look(self, state: dict[str, State]) -> None:
        with self._lock:
            self.state = state
            if self._since is None:
                return
            since, kind, counts = self._since
            if all(name in state and state[name].written + state[name].dead >= n for name, n in counts.items()):
                self._since = None
                took = time.monotonic() - since
                if took > self.longest:
                    self.longest, self.slowest = took, kind


def account(database: str, publisher: Publisher) -> tuple[int, int, int, list[str]]:
    """(lost, duplicated, dead-lettered) messages and records, and what to say of them."""
    lost = duplicated = dead = 0
    notes = []
    declared = registry.load()
    with psycopg.connect(database) as connection:
        for name, published in publisher.published.items():
            numbers = [row[0] for row in connection.execute(f"SELECT {NUMBER[name]} FROM {declared[name].table}")]
            row = connection.execute(
                "SELECT count(*) FROM eventwriter.dead_letters WHERE logical_stream = %s", [name]
            ).fetchone()
            letters = int(row[0]) if row else 0
            refused = hostile.refused(connection, name)
            letters -= len(refused)
            numbers += refused
            missing = published.numbers - set(numbers)
            strange = set(numbers) - published.numbers
            twice = [number for number, count in Counter(numbers).items() if count > 1]
            lost += len(missing) + max(0, published.broken - letters)
            duplicated += len(twice) + len(strange) + max(0, letters - published.broken)
            dead += letters
            if missing or strange or twice or letters != published.broken:
                notes.append(
                    f"{name}: {len(missing)} records missing {sorted(missing)[:10]}, "
                    f"{len(twice)} twice {sorted(twice)[:10]}, "
                    f"{len(strange)} never published, {letters} dead letters of {published.broken}"
                )
    return lost, duplicated, dead, notes


def show(publisher: Publisher, watch: Watch, chaos: Chaos, counts: Counter[str], now: str) -> Table:
    """What the terminal shows."""
    table = Table(title=f"eventwriter chaos · {now}", title_justify="left", caption_justify="left")
    table.caption = "  ".join(f"{kind} {count}" for kind, count in sorted(counts.items()))
    for name in ("stream", "published", "written", "dead letters", "behind"):
        table.add_column(name, justify="left" if name == "stream" else "right")
    for name, published in publisher.published.items():
        line = watch.state.get(name, State())
        behind = published.messages - line.written - line.dead
        table.add_row(name, f"{published.messages:,}", f"{line.written:,}", f"{line.dead:,}", f"{behind:,}")
    table.add_section()
    table.add_row("worker restarts", "", str(chaos.restarts), "", f"{watch.longest:.1f} s longest recovery")
    return table


def main() -> int:
    """Runs the schedule; 0 only if nothing was lost and nothing was written twice."""
    parser = argparse.ArgumentParser(allow_abbrev=False, prog="scripts/chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are injected (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of schedule and traffic (default %(default)s)")
    parser.add_argument("--rate", type=float, default=800, help="messages/s over all streams (default %(default)s)")
    parser.add_argument("--faults", type=int, help="how many (default: one every 4 s)")
    parser.add_argument("--kinds", help="only these kinds of faults, comma separated")
    parser.add_argument("--without", default="", help="all kinds but these, comma separated")
    parser.add_argument("--keep", type=Path, help="keep the service's logs in this folder")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="eventwriter-chaos-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        logs = arguments.keep or folder
        logs.mkdir(parents=True, exist_ok=True)
        result = _run(arguments, folder, logs, stack)
    if arguments.output == "json":
        print(json.dumps(result))
    else:
        console = Console()
        for key, value in result.items():
            console.print(f"{key:>18}  {value}")
    return 0 if result["ok"] else 1


def _run(arguments: argparse.Namespace, folder: Path, logs: Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    console = Console(stderr=True)
    host = stack.enter_context(hosts.Host()) if hosts.possible() else None
    # A process that is killed loses nothing that it handed to the operating system, so fsync only costs time here.
    postgres = Database(folder, {"fsync": "off"} | hosts.settings_for(host, folder))
    postgres.server.start()
    stack.callback(lambda: postgres.server.stop(immediate=True))
    server = stack.enter_context(NatsServer(folder / "nats"))
    to_postgres = stack.enter_context(Proxy(postgres.server.port))
    to_nats = stack.enter_context(Proxy(server.port))
    database = postgres.server.create_database("eventwriter")
    subjects = Subjects(folder / "eventwriter.toml")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("EVENTWRITER_", "PG", "NATS_"))} | {
        "EVENTWRITER_CONFIG": str(subjects.file),
        "EVENTWRITER_NATS__URL": f"nats://127.0.0.1:{to_nats.port}",
        "EVENTWRITER_POSTGRES__DSN": make_conninfo(database, port=to_postgres.port),
        "EVENTWRITER_WRITER__ACK_WAIT": "3s",
        "EVENTWRITER_HTTP__LISTEN": "127.0.0.1:0",
    }
    subprocess.run(
        [sys.executable, "-m", "eventwriter", "schema", "apply"],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    publisher = Publisher(server.url, list(registry.load()), arguments.rate, arguments.seed)
    publisher.start()
    publisher.ready.wait(30)
    far = stack.enter_context(hosts.joined(host, server.port, postgres.server.port))
    code = hostile.code(folder / "code", ROOT)
    second = SecondHost(far, environment, database, logs / "second-host.log", code)
    rng = random.Random(arguments.seed)
    chaos = Chaos(
        server, postgres, to_nats, to_postgres, second, subjects, hostile.Tables(database, rng),
        publisher, database, environment, code, logs, rng,
    )  # fmt: skip
    chaos.start()
    stack.callback(lambda: chaos.service.process.kill())
    stack.callback(lambda: second.signal(signal.SIGKILL))
    watch = Watch(database)
    watch.start()
    begun = time.monotonic()
    counts = _inject(arguments, chaos, publisher, watch, console)
    second.join()
    publisher.stop.set()
    publisher.join(60)
    watch.calm()
    _settle(publisher, watch)
    watch.stop.set()
    watch.join(5)
    status = max(chaos.service.end(35), second.end(35))
    lost, duplicated, dead, notes = account(database, publisher)
    for note in notes:
        console.print(note, style="red")
    if publisher.error or publisher.is_alive():
        console.print(f"publishing failed: {publisher.error}", style="red")
    return {
        "ok": lost == duplicated == 0 and publisher.error is None and not publisher.is_alive() and status == 0,
        "seed": arguments.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "faults": dict(sorted(counts.items())),
        "messages": publisher.messages,
        "lost": lost,
        "duplicated": duplicated,
        "dead_lettered": dead,
        "longest_recovery_s": round(watch.longest, 2),
        "slowest_recovery_from": watch.slowest,
        "worker_restarts": chaos.restarts,
        "publish_repeats": publisher.repeats,
        "exit_status": status,
    }


def _inject(
    arguments: argparse.Namespace, chaos: Chaos, publisher: Publisher, watch: Watch, console: Console
) -> Counter[str]:
    counts: Counter[str] = Counter()
    faults = chaos.faults()
    only = (set(arguments.kinds.split(",")) if arguments.kinds else set(faults)) - set(arguments.without.split(","))
    number = arguments.faults if arguments.faults is not None else max(1, int(arguments.seconds / 4))
    begun = time.monotonic()
    shown = console.is_terminal and arguments.output == "text"
    with Live(console=console, auto_refresh=False) if shown else contextlib.nullcontext() as live:
        for due, kind in [*chaos.schedule(arguments.seconds, number, only), (arguments.seconds, "")]:
            while (rest := due - (time.monotonic() - begun)) > 0 and publisher.error is None:
                if live is not None:
                    elapsed = f"{time.monotonic() - begun:.0f} s of {arguments.seconds:.0f} s, seed {arguments.seed}"
                    live.update(show(publisher, watch, chaos, counts, elapsed), refresh=True)
                time.sleep(min(rest, 0.5))
            if kind:
                counts[kind] += 1
                faults[kind]()
                watch.healed(kind, publisher.published)
    return counts


def _settle(publisher: Publisher, watch: Watch) -> None:
    """Waits until everything is accounted for, or nothing has moved for a long time."""
    last, moved = -1, time.monotonic()
    while watch.done < publisher.messages and time.monotonic() - moved < SETTLED_AFTER:
        if watch.done != last:
            last, moved = watch.done, time.monotonic()
        time.sleep(0.1)
    time.sleep(0.5)  # what would come twice may come now


if __name__ == "__main__":
    sys.exit(main())
