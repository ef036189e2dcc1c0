"""Much of everything: comparisons and backups whose cost people would notice. `-m slow` runs the long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from nats.js.api import StreamConfig

import bulk
from eventwriter import registry, worker
from eventwriter.config import loading
from eventwriter.jetstream.source import Source
from eventwriter.postgres.sink import Sink
from eventwriter.reconcile import Reconciler
from fix_failover import Fallible, How
from fix_service import World, only, wait_until
from patience import PATIENCE

LIVE = 100_000_000
"""Where the numbers of live messages begin."""


def small(first: int, last: int) -> Iterator[tuple[str, bytes]]:
    """Small messages of LOGS with these numbers."""
    return (("logs.otel.processed", b'{"body":"x","attributes":{"n":%d}}' % n) for n in range(first, last + 1))


def counted(world: World, below: int) -> tuple[int, int]:
    """Rows, and different numbers among them, without the live ones."""
    found: tuple[int, int] = world.query(
        "SELECT count(*), count(DISTINCT attributes->>'n') FROM logs WHERE (attributes->>'n')::bigint < %s", below
    )[0]
    return found


def visible_after(world: World, number: int) -> float:
    """Seconds until a live message that is published now is in its table."""
    begun = time.monotonic()
    bulk.publish(world.nats.port, small(number, number))
    query = "SELECT FROM logs WHERE attributes->>'n' = %s::text"
    wait_until(
        lambda: world.query(query, number),
        lambda: f"live message {number}: {counted(world, LIVE)}\n{world.log[-6000:]}",
        40,
    )
    return time.monotonic() - begun


@pytest.mark.parametrize("count", [8000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_backup_of_long_ago(fallible: Fallible, count: int) -> None:
    """All that was written since is there again, once, while live messages are written as ever."""
    world = fallible.world
    how: How = "restored"
    service = world.start(**only("LOGS"))
    bulk.publish(world.nats.port, small(1, 100))
    wait_until(lambda: world.counts("LOGS")[0] == 100, "the first")
    fallible.mark(how)
    begun = time.monotonic()
    bulk.publish(world.nats.port, small(101, count))
    wait_until(lambda: world.counts("LOGS")[0] == count, "what will be lost", 300)
    print(f"{count} messages: published and written in {time.monotonic() - begun:.1f} s")
    fallible.go_back(how)
    begun = time.monotonic()
    live = [visible_after(world, LIVE)]
    while world.counts("LOGS")[0] < count + len(live) and time.monotonic() - begun < 600:
        live.append(visible_after(world, LIVE + len(live)))
    took = time.monotonic() - begun
    print(f"there again after {took:.1f} s; {len(live)} live messages beside, the slowest took {max(live):.2f} s")
    assert counted(world, LIVE) == (count, count)
    assert took < max(20, count / 5000) * PATIENCE
    # The first one waits until the database is connected again.
    assert max(live[1:], default=0) < 5 * PATIENCE
    assert world.stop(service) == 0


def test_many_small_gaps(fallible: Fallible) -> None:
    """Two hosts that took turns, and a database that forgot one of them: every other message is missing."""
    world, count = fallible.world, 4000
    service = world.start(**only("LOGS"))
    bulk.publish(world.nats.port, small(1, count))
    wait_until(lambda: world.counts("LOGS")[0] == count, "all")
    fallible.proxy.stop()
    world.execute("DELETE FROM logs WHERE (attributes->>'n')::int % 2 = 1")
    world.execute(
        "UPDATE eventwriter.ledger SET messages_written = messages_written / 2, version = version - 1, "
        f"done = (SELECT range_agg(int8range(n, n + 1)) FROM generate_series(2, {count}, 2) n)"
    )
    begun = time.monotonic()
    fallible.proxy.start()
    wait_until(
        lambda: world.counts("LOGS")[0] == count,
        lambda: f"all of them: {counted(world, LIVE)}\n{world.log[-3000:]}",
        60,
    )
    took = time.monotonic() - begun
    print(f"{count // 2} gaps: there again after {took:.1f} s")
    assert counted(world, LIVE) == (count, count)
    assert took < 20 * PATIENCE
    assert world.stop(service) == 0


class _Nobody:
    """Is told, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


FILTERS = ("big.a.>", "big.b.>", "big.c.*", "big.d", "big.rare.once", "big.never", "big.nor.this.>")
"""Of three there is much, of one some, of one a single message at the end, of two nothing."""


def scattered(count: int) -> Iterator[tuple[str, bytes]]:
    """Messages of sixteen bytes of which the filters match a third."""
    subjects = ("big.a.x.y", "big.other.1", "big.b.z", "big.other.2", "big.other.3", "big.c.k")
    payload = bytes(16)
    for number in range(1, count):
        yield (subjects[number % 6] if number % 1000 else "big.d"), payload
    yield "big.rare.once", payload


@pytest.mark.parametrize(
    "count", [100_000, pytest.param(10_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_comparing_a_clean_ledger(world: World, count: int) -> None:
    """With forty gaps in which there is nothing of ours, and seven filters: under 2 s of a core, and no memory."""
    world.call(lambda client: client.jetstream().add_stream(StreamConfig(name="BIG", subjects=["big.>"])))
    begun = time.monotonic()
    bulk.publish(world.nats.port, scattered(count))
    print(f"{count} messages published in {time.monotonic() - begun:.1f} s")
    source, sink, reconciler = opened(world)
    try:
        # Everything is done, but for gaps that hold messages of others.
        step = count // 40 // 6 * 6
        gaps = ",".join(f"[{n},{n + 1})" for n in range(7, count, step))  # n % 6 == 1: big.other.1
        world.execute(f"UPDATE eventwriter.ledger SET done = int8multirange(int8range(1, {count + 1})) - '{{{gaps}}}'")
        before = psutil.Process().memory_info().rss
        begun = time.process_time()
        while "the worker starts" in reconciler._doubt or reconciler._asked:
            reconciler.step()
        took, grown = time.process_time() - begun, psutil.Process().memory_info().rss - before
    finally:
        source.close(5.0)
        sink.close()
    print(f"compared in {took:.3f} s, {grown / 1e6:.1f} MB")
    assert took < 2
    assert grown < 20e6
    done = "SELECT lower(done), upper(done) - 1, (SELECT count(*) FROM unnest(done)) FROM eventwriter.ledger"
    assert world.query(done) == [(1, count, 1)]


def opened(world: World) -> tuple[Source, Sink, Reconciler]:
    """What a worker of LOGS on that stream has, before it pulls; its consumer is at the end."""
    environment = world.environment | {
        "EVENTWRITER_STREAMS__LOGS__STREAM": "BIG",
        "EVENTWRITER_STREAMS__LOGS__SUBJECTS": ",".join(FILTERS),
    }
    declared = registry.load()
    found = loading.load(declared, file=None, environ=environment, flags={})
    settings = found.streams["LOGS"]
    source, sink = Source(found.nats, settings), Sink(found.postgres, declared["LOGS"], settings.table)

    async def at_the_end(client: Any) -> None:
        stream = client.jetstream()
        last = (await stream.stream_info("BIG")).state.last_seq
        await stream.delete_consumer("BIG", settings.durable)
        info = {"durable_name": settings.durable, "deliver_policy": "by_start_sequence", "opt_start_seq": last + 1}
        await client.jetstream().add_consumer("BIG", **info, ack_policy="explicit", filter_subjects=list(FILTERS))

    worker._prepare(source, sink, settings, None)
    world.call(at_the_end)
    return source, sink, Reconciler(sink, source, settings, _Nobody())


def measured(world: World, status: int, *arguments: str, **environment: str) -> tuple[Any, float, float]:
    """What a command printed as JSON, the seconds that it took, and its MiB at the most."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "eventwriter", *arguments, "--output", "json"]
    with subprocess.Popen(command, env=world.environment | environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        printed = process.stdout.read()
        _, ended, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == status, (printed, world.log[-3000:])
    found = json.loads(printed), time.monotonic() - begun, usage.ru_maxrss / 1024
    print(f"{' '.join(arguments)}: {found[1]:.2f} s, {found[2]:.0f} MiB")
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_missing_of_five_millions(world: World) -> None:
    """Verified at more than 500,000 a second, in as little memory as five thousand, also where some are not ours."""
    peaks = []
    published = 0
    for count in (5_000, 5_000_000):
        service = world.start(**only("LOGS"))
        messages = ((s if n % 10 else "logs.other", p) for n, (s, p) in enumerate(small(published + 1, count)))
        bulk.publish(world.nats.port, messages)
        published = count
        # Among those are a thousand that were written a second time.
        taken = published if published < 1_000_000 else published + 1000
        wait_until(lambda: world.counts("LOGS")[0] == taken, "all of it", 900)  # noqa: B023 - at once
        assert world.stop(service) == 0
        first, last = published - 3_000, published - 2_001
        world.execute(f"DELETE FROM logs WHERE (attributes->>'n')::bigint BETWEEN {first} AND {last}")
        world.execute(f"UPDATE eventwriter.ledger SET done = done - int8multirange(int8range({first}, {last + 1}))")
        for subjects, ours in (("logs.>", 1000), ("logs.otel.processed", 900)):
            options = {"EVENTWRITER_STREAMS__LOGS__SUBJECTS": subjects}
            found, seconds, peak = measured(world, 1, "verify", "--stream", "LOGS", **options)
            found = found["streams"]["LOGS"]
            assert (found["checked"], found["missing"]) == (published * ours // 1000, ours)
            assert found["gaps"][0][0] in (first, first + 1)
            assert found["gaps"][-1][-1] in (last, last - 1)
            peaks.append(peak)
        assert count < 1_000_000 or count / seconds > 500_000
        replayed, _, peak = measured(world, 0, "replay", "--stream", "LOGS")
        assert replayed["written"] == 1000
        peaks.append(peak)
        assert measured(world, 0, "verify", "--stream", "LOGS")[0]["ok"]
        assert world.query("SELECT count(*), count(DISTINCT attributes->>'n') FROM logs") == [(published, published)]
    assert all(large < small + 16 for small, large in zip(peaks[:3], peaks[3:], strict=True)), peaks
