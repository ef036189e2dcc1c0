"""Faults of scripts/chaos that last: databases of another time, edited consumers and subjects, a second host."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nats
import psycopg

import failover
from demo import Service
from eventwriter.embedded import PostgresServer
from hosts import Far

SUBJECTS = ["logs.>"], ["logs.otel", "logs.otel.processed"]
"""Those of LOGS, and without one of them."""


class Database:
    """PostgreSQL on one port, which is another server's now and then: of an earlier time, or a standby that lagged."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        self.server = PostgresServer(folder / "postgres-0", settings=settings)
        self._folder = folder
        self._settings = settings
        self._number = 0
        self._backup: Path | None = None

    def promote(self, lag: float) -> None:
        """A standby that has not received the commits of the last ``lag`` seconds takes over."""
        self._number += 1
        old = self.server
        standby = failover.follow(old, self._folder / f"postgres-{self._number}", self._settings)
        failover.detach(standby)
        time.sleep(lag)
        failover.take_over(old, standby)
        self.server = standby
        shutil.rmtree(old.folder)

    def restore(self, complete: Callable[[psycopg.Connection[Any]], bool], age: float) -> None:
        """Restores the base backup that the last call took, one of ``age`` seconds ago the first time.

        With a database of before the ledger, nobody could know what is missing: the first is taken once it is
        ``complete``.
        """
        if self._backup is None:
            with psycopg.connect(self.server.dsn("eventwriter"), autocommit=True) as connection:
                while not complete(connection):
                    time.sleep(0.1)
            self._back_up()
            time.sleep(age)
        assert self._backup is not None
        failover.restore(self.server, self._backup)
        self._back_up()

    def _back_up(self) -> None:
        if self._backup is not None:
            shutil.rmtree(self._backup)
        self._backup = self._folder / "backup"
        self.server.base_backup(self._backup)


class Subjects:
    """The configuration file of all services, in which a subject of LOGS comes and goes."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.write(SUBJECTS[0])

    def write(self, subjects: list[str]) -> None:
        """Configures these for LOGS."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"[streams.LOGS]\nsubjects = {json.dumps(subjects)}\n")
        fresh.rename(self.file)


def edit_consumer(url: str, rng: random.Random, names: list[str], seconds: float) -> None:
    """Somebody changes the settings of a durable, and changes them back later if nobody else did."""
    asyncio.run(_edit_consumer(url, rng, names, seconds))


async def _edit_consumer(url: str, rng: random.Random, names: list[str], seconds: float) -> None:
    name = rng.choice(names)
    edit: dict[str, Any] = rng.choice(
        [{"headers_only": True}, {"max_deliver": 2}, {"max_ack_pending": 100}, {"ack_wait": 1_000_000_000},
         {"max_batch": 10}, {"max_expires": 1_000_000_000}, {"max_bytes": 10_000}]
    )  # fmt: skip
    client = await nats.connect(url, max_reconnect_attempts=2)
    consumer = f"{name}.eventwriter-{name.lower()}"

    async def ask(what: str, body: Any = None) -> dict[str, Any]:
        payload = json.dumps(body).encode() if body else b""
        answer = await client.request(f"$JS.API.CONSUMER.{what}.{consumer}", payload, timeout=5)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    try:
        before = (await ask("INFO")).get("config")
        if before is None:  # not there at this moment
            return
        await ask("DURABLE.CREATE", {"stream_name": name, "config": before | edit})
        await asyncio.sleep(seconds)
        after = (await ask("INFO")).get("config")
        if after is not None and any(after.get(key) == value for key, value in edit.items()):
            kept = {key: value for key, value in after.items() if key not in edit}
            earlier = {key: value for key, value in before.items() if key in edit}
            await ask("DURABLE.CREATE", {"stream_name": name, "config": kept | earlier})
    finally:
        await client.close()


class SecondHost:
    """The same service on another host, from when its network is first cut on."""

    def __init__(self, far: Far, environment: dict[str, str], dsn: str, log: Path, root: Path) -> None:
        self.service: Service | None = None
        self._far = far
        self._log = log
        self._root = root
        self._timer: threading.Timer | None = None
        self._environment = environment | {
            "EVENTWRITER_NATS__URL": f"nats://{far.address}:{far.nats}",
            "EVENTWRITER_POSTGRES__DSN": psycopg.conninfo.make_conninfo(dsn, host=far.address, port=far.postgres),
        }

    def cut(self, seconds: float) -> None:
        """Cuts it off while it is at work, for so long, and returns at once: the others must go on without it."""
        self.join()
        if self.service is None:
            self.service = Service(self._environment, self._log, self._far.prefix, self._root)
            time.sleep(3)  # its workers begin
        self._far.cut()
        self._timer = threading.Timer(seconds, self._far.join)
        self._timer.start()

    def join(self) -> None:
        """It is in reach again, if it was cut off."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer.join()
            self._timer = None
            self._far.join()

    def signal(self, number: signal.Signals) -> None:
        """Sends its supervisor a signal, if it runs."""
        if self.service is not None:
            self.service.process.send_signal(number)

    def end(self, timeout: float) -> int:
        """Ends it; its exit status."""
        self.join()
        return 0 if self.service is None else self.service.end(timeout)
