"""Fixture: a world with a PostgreSQL server of its own, which can go back in time while services write to it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import nats
import psycopg
import pytest

import failover
from beside import beside
from eventwriter import registry
from eventwriter.embedded import PostgresServer, free_port
from fix_monitor import Endpoint
from fix_servers import FAST, TEMPLATE, own_postgres
from fix_service import LOADED, World, new_world, wait_until
from patience import PATIENCE
from proxy import Proxy
from traffic import NUMBER, Traffic

How = Literal["promoted", "restored", "crashed"]
SETTINGS = FAST | failover.FORGETFUL
TOLD_WITHIN = 10.0
"""Seconds within which whoever looks must be told what happened to the database."""


@dataclass
class Fallible:
    """A world whose database goes back in time; its services reach it through a proxy."""

    world: World
    server: PostgresServer
    proxy: Proxy
    endpoint: Endpoint
    standby: PostgresServer | None = None

    def mark(self, how: How) -> None:
        """The moment to which ``go_back`` will lead: what is committed from now on will be lost."""
        if how == "promoted":
            self.standby = failover.follow(self.server, self.server.folder.parent / "standby", SETTINGS)
            failover.detach(self.standby)
        elif how == "restored":
            self.server.base_backup(self.server.folder.parent / "backup")
        else:
            self.world.execute("CHECKPOINT")

    def go_back(self, how: How) -> dict[str, set[int]]:
        """Does it, out of the services' sight; returns which records of each table are lost."""
        self.proxy.stop()
        before = records(self.world)
        if how == "promoted":
            assert self.standby is not None
            failover.take_over(self.server, self.standby)
            self.server, self.standby = self.standby, None
        elif how == "restored":
            failover.restore(self.server, self.server.folder.parent / "backup")
        else:
            failover.crash(self.server)
            self.server.start()
        after = records(self.world)
        self.proxy.start()
        return {name: found.keys() - after[name].keys() for name, found in before.items()}

    def reread(self, names: Iterable[str]) -> bool:
        """Whether the metrics say of every one of these streams that something was read again."""
        return all((self.endpoint.value("messages_reread_total", stream=name) or 0) > 0 for name in names)


@pytest.fixture
def fallible(tmp_path: Path, prepared: Path) -> Iterator[Fallible]:
    """Servers with the seven streams and tables, and nothing else running yet."""
    address = f"127.0.0.1:{free_port()}"
    with (
        own_postgres(prepared, SETTINGS) as server,
        Proxy(server.port) as proxy,
        new_world(tmp_path, server, TEMPLATE) as world,
    ):
        found = Fallible(world, server, proxy, Endpoint(address))
        world.environment["EVENTWRITER_POSTGRES__DSN"] = psycopg.conninfo.make_conninfo(world.dsn, port=proxy.port)
        world.environment["EVENTWRITER_HTTP__LISTEN"] = address
        try:
            yield found
        finally:
            for each in (found.server, found.standby):
                if each is not None:
                    each.stop(immediate=True)


def records(world: World) -> dict[str, Counter[int]]:
    """The numbers of the records in each table, of the streams to which something was published."""
    declared = registry.load()
    return {
        name: Counter(row[0] for row in world.query(f"SELECT {NUMBER[name]} FROM {declared[name].table}"))
        for name in list(world.published)
    }


def missing(world: World) -> dict[str, set[int]]:
    """The published records that are not in their table, of the streams that miss some."""
    wanted = {name: {n for m in list(messages) for n in m.records} for name, messages in world.published.items()}
    found = records(world)
    return {name: gap for name, numbers in wanted.items() if (gap := numbers - found[name].keys())}


def wait_acknowledged(world: World, names: Iterable[str], stream: str | None = None) -> None:
    """Waits until consumers have nothing left to deliver and no ack to wait for: it would only be delivered again."""

    async def left(client: Any) -> int:
        context = client.jetstream()
        found = [await context.consumer_info(stream or name, f"eventwriter-{name.lower()}") for name in names]
        return sum(each.num_pending + each.num_ack_pending for each in found)

    wait_until(lambda: not world.call(left), "the acks")


def wait_complete(world: World, seconds: float = 40.0) -> None:
    """Waits until every published record is in its table, whatever the ledger says."""
    declared = registry.load()

    def enough() -> bool:
        """Whether there are as many rows, which is asked in no time."""
        return all(
            world.query(f"SELECT count(*) FROM {declared[name].table}")[0][0]
            >= len({n for m in list(messages) for n in m.records})
            for name, messages in list(world.published.items())
        )

    wait_until(
        lambda: enough() and not missing(world), lambda: f"everything is in the tables\n{world.log[-8000:]}", seconds
    )


@contextmanager
def load(world: World, names: Iterable[str], rate: float = 200.0, broken: float = 0.01) -> Iterator[None]:
    """Publishes steadily on these streams until the block ends; all of it must arrive. Its numbers are its own."""
    with beside(lambda ended: asyncio.run(_publish(world, list(names), rate, broken, ended))):
        yield


async def _publish(world: World, names: list[str], rate: float, broken: float, stop: threading.Event) -> None:
    client = await nats.connect(world.nats.url)
    stream: Any = client.jetstream(timeout=10 * PATIENCE)
    begins = {name: LOADED + len(world.published.get(name, [])) * 10 for name in names}
    sources = {name: Traffic(name, seed=9, broken=broken, records=3, number=begins[name]) for name in names}
    begun, sent = monotonic(), 0
    while not stop.is_set():
        due = int((monotonic() - begun) * rate)
        batch = []
        for number in range(sent, due):
            name = names[number % len(names)]
            message = sources[name].next()
            batch.append(stream.publish(message.subject, message.payload, headers=message.headers))
            world.published.setdefault(name, []).append(message)
        sent = due
        await asyncio.gather(*batch)
        await asyncio.sleep(0.02)
    await client.close()
