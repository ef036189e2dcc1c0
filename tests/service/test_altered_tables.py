"""Tables that are altered under the load of a running service: it goes on, or stops until that is put right."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beside import beside
from eventwriter.embedded import PostgresServer
from fix_servers import WRITER
from fix_service import World, new_world, only, wait_until
from processes import Process
from traffic import Traffic

RATE = 1000 if os.environ.get("EXAMPLES") == "all" else 300
"""Messages a second, of all streams together."""
PAUSE = 5.0
"""Seconds within which a stream is written again after any change with which it can be."""
AGAIN = 60.0
"""Seconds within which a parked stream has looked again a few times."""
PARKED = "parked: exit status 78, looking again in"
GROUP = "eventwriter_writer"

# In this order, for each leaves the table as the next one wants it.
FOLLOWED = {
    "TELEMETRY": (
        "ADD COLUMN site text",
        "ADD COLUMN weight integer NOT NULL DEFAULT 7",
        "DROP COLUMN site, DROP COLUMN weight",
        "ALTER COLUMN if_index TYPE bigint",
        "ALTER COLUMN if_index TYPE integer",
        "ALTER COLUMN tags TYPE text",
        "ALTER COLUMN tags TYPE jsonb USING tags::jsonb",
        "ALTER COLUMN unit TYPE varchar(200)",
        "ALTER COLUMN partition SET DEFAULT 'none'",
        "ALTER COLUMN created_at DROP NOT NULL",
        "ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE",
        "ADD CHECK (value IS NOT NULL) NOT VALID",
        "SET (fillfactor = 90)",
        "DISABLE TRIGGER USER",
    ),
    "SWEEP": (
        "RENAME COLUMN gateway_id TO poller_id",
        "RENAME COLUMN poller_id TO gateway_id",
        "RENAME COLUMN received_at TO came_at",
        "RENAME COLUMN came_at TO received_at",
        "ALTER COLUMN icmp_response_time_ns TYPE integer USING 1",
        "ALTER COLUMN icmp_response_time_ns TYPE bigint",
        "ALTER COLUMN port_scan_results TYPE json",
        "ALTER COLUMN port_scan_results TYPE jsonb",
        "DROP CONSTRAINT sweep_host_states_pkey",
        "ADD PRIMARY KEY (host_ip, gateway_id, partition, last_sweep_time)",
        "ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY UNIQUE",
        "DROP COLUMN number, DROP CONSTRAINT sweep_host_states_pkey",
    ),
}
STATEMENTS = (
    "CREATE INDEX CONCURRENTLY ON timeseries_metrics (unit)",
    "CREATE UNIQUE INDEX CONCURRENTLY key ON sweep_host_states (host_ip, gateway_id, partition, last_sweep_time)",
    "REINDEX INDEX CONCURRENTLY key",
    "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; "
    "CREATE TRIGGER nothing BEFORE INSERT ON timeseries_metrics FOR EACH ROW EXECUTE FUNCTION nothing()",
    "CREATE TRIGGER nothing BEFORE INSERT OR UPDATE ON sweep_host_states FOR EACH ROW EXECUTE FUNCTION nothing()",
    "VACUUM ANALYZE timeseries_metrics",
)
# Stream → what stops it, what is said then, and what puts it right.
STOPPING = {
    "TELEMETRY": (
        "ALTER TABLE timeseries_metrics RENAME COLUMN value TO val",
        "lacks the column value",
        "ALTER TABLE timeseries_metrics RENAME COLUMN val TO value",
    ),
    "EVENTS": (
        f"REVOKE UPDATE ON events FROM {GROUP}",
        f"role {WRITER} lacks UPDATE on table events: GRANT UPDATE ON",
        f"GRANT UPDATE ON events TO {GROUP}",
    ),
    "SWEEP": (
        "ALTER TABLE sweep_host_states RENAME TO gone",
        "table sweep_host_states of stream SWEEP does not exist",
        "ALTER TABLE gone RENAME TO sweep_host_states",
    ),
    "NETFLOW": (
        "ALTER TABLE netflow_metrics ALTER COLUMN octets TYPE numeric",
        "column octets of table netflow_metrics is numeric",
        "ALTER TABLE netflow_metrics ALTER COLUMN octets TYPE bigint",
    ),
    "OTEL_METRICS": (
        "ALTER TABLE otel_metrics ADD COLUMN tenant text NOT NULL DEFAULT 'x'; "
        "ALTER TABLE otel_metrics ALTER COLUMN tenant DROP DEFAULT",
        "column tenant text of table otel_metrics is NOT NULL",
        "ALTER TABLE otel_metrics ALTER COLUMN tenant SET DEFAULT 'x'",
    ),
    "OTEL_TRACES": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'not for you' USING ERRCODE = '42501'; END $$; "
        "CREATE TRIGGER no BEFORE INSERT ON otel_traces FOR EACH ROW EXECUTE FUNCTION no()",
        "not for you (42501)",
        "DROP TRIGGER no ON otel_traces",
    ),
    "LOGS": (
        f"REVOKE INSERT ON logs FROM {GROUP}",
        f"role {WRITER} lacks INSERT on table logs: GRANT INSERT ON",
        f"GRANT INSERT (timestamp, body) ON logs TO {GROUP}; GRANT INSERT ON logs TO {GROUP}",
    ),
}  # fmt: skip


@pytest.fixture
def world(tmp_path: Path, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A world whose services have a password that stands in a file."""
    with new_world(tmp_path, postgres_server, template) as world:
        (tmp_path / "password").write_text("secret")
        world.environment |= {"EVENTWRITER_POSTGRES__PASSWORD_FILE": str(tmp_path / "password")}
        yield world


@contextmanager
def load(world: World, *streams: str) -> Iterator[None]:
    """Publishes that many messages until the block ends."""
    sources = [Traffic(stream, broken=0.01, records=5) for stream in streams]
    each = RATE // 20 // len(sources)

    def publish(ended: threading.Event) -> None:
        async def run(client: Any) -> None:
            due = time.monotonic()
            while not ended.is_set():
                for source in sources:
                    messages = [source.next() for _ in range(each)]
                    world.published.setdefault(source.stream, []).extend(messages)
                    for message in messages:
                        await client.publish(message.subject, message.payload, headers=message.headers)
                await client.flush()
                due = max(due + 0.05, time.monotonic() - 1)
                await asyncio.sleep(due - time.monotonic())

        world.call(run)

    with beside(publish):
        yield


def alter(world: World, change: str) -> None:
    """Does it without what ``World.execute`` does for the services: to grant again what they had."""
    with world.connect() as connection:
        connection.execute(change)


def written(world: World, stream: str) -> int:
    """Messages of a stream that are in its table."""
    return world.counts(stream)[0]


def more(world: World, stream: str, before: int) -> bool:
    """Whether more of it are."""
    return written(world, stream) > before


def serving(world: World, *streams: str) -> Process:
    """A service of these streams that has written something of each."""
    service = world.start(**only(*streams))
    for stream in streams:
        wait_until(partial(more, world, stream, 0), f"load of {stream}")
    return service


def test_what_it_can_go_on_with_costs_seconds(world: World) -> None:
    """After each change both streams, one that appends and one that replaces, are written on, and nothing is lost."""
    with load(world, *FOLLOWED):
        service = serving(world, *FOLLOWED)
        changes = [
            f"ALTER TABLE {'timeseries_metrics' if stream == 'TELEMETRY' else 'sweep_host_states'} {change}"
            for stream, each in FOLLOWED.items()
            for change in each
        ]
        for change in (*changes, *STATEMENTS):
            alter(world, change)
            for stream in FOLLOWED:
                wait_until(partial(more, world, stream, written(world, stream)), f"{stream} after {change}", PAUSE)
    world.wait_settled()
    world.assert_exact()
    assert "parked" not in world.log
    assert world.stop(service) == 0


def test_what_stops_it_is_over_when_it_is_put_right(world: World) -> None:
    """Each stream by a change of its own, and all of them at once; nobody tells the service anything."""
    with load(world, *STOPPING):
        service = serving(world, *STOPPING)
        # Workers that have to connect while their secret is not there.
        secret = Path(world.environment["EVENTWRITER_POSTGRES__PASSWORD_FILE"])
        text = secret.read_text()
        secret.unlink()
        for stream in STOPPING:
            wait_until(partial(world.worker, stream), stream).send_signal(signal.SIGKILL)
        wait_until(lambda: world.log.count(PARKED) >= len(STOPPING), "seven without the secret")
        assert world.log.count("cannot read the file") >= len(STOPPING)
        secret.write_text(text)
        for stream in STOPPING:
            wait_until(partial(more, world, stream, written(world, stream)), f"{stream} again", AGAIN)
        before = world.log.count(PARKED)
        for change, _, _ in STOPPING.values():
            alter(world, change)
        wait_until(lambda: world.log.count(PARKED) >= before + len(STOPPING), "seven parked")
    for stream, (_, words, remedy) in STOPPING.items():
        assert words in world.log, f"{stream}: {words}\n{world.log}"
        alter(world, remedy)
    world.wait_settled(120)
    world.assert_exact()
    assert service.poll() is None
    assert world.stop(service) == 0
