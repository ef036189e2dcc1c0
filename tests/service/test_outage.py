"""Outages: whatever stalls, breaks or refuses in between, nothing is lost, written twice or made a dead letter."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import psycopg
import pytest
from nats.js.api import ConsumerConfig

from fix_proxy import Proxied, last_words
from fix_service import World, wait_until
from patience import PATIENCE

WORKER = ("worker", "--stream", "LOGS")


def letters(world: World) -> int:
    """How many dead letters there are."""
    return int(world.query("SELECT count(*) FROM eventwriter.dead_letter_records")[0][0])


def settle(world: World, seconds: float = 40.0) -> None:
    """Everything arrives exactly, and none of it as a dead letter."""
    world.wait_settled(seconds)
    world.assert_exact()
    assert letters(world) == 0
    assert all(service.poll() is None for service in world.services), world.log


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("rounds", [3])
def test_an_ambiguous_commit(proxied: Proxied, when: Literal["before", "after"], rounds: int) -> None:
    """The connection breaks at COMMIT: whether PostgreSQL got it or not, the rows are there once."""
    world = proxied.world
    world.start(*WORKER)
    world.traffic(["LOGS"], count=20, broken=0)
    world.wait_settled()
    for number in range(rounds):
        proxied.postgres.lose(b"COMMIT", when)
        world.traffic(["LOGS"], count=50, broken=0, seed=number)
        assert proxied.postgres.lost(10)
        world.wait_settled()
    settle(world)
    assert ("delivered again and known" in world.log) == (when == "after")


@pytest.mark.parametrize(
    "code", ["22003", "28P01", *(pytest.param(code, marks=pytest.mark.long) for code in ("42710", "23505"))]
)
def test_sessions_that_end(proxied: Proxied, code: str) -> None:
    """Whatever they say at their end, in the middle of a batch or while there is none: the same worker goes on."""
    world = proxied.world
    world.start(*WORKER)
    world.traffic(["LOGS"], count=20, broken=0)
    world.wait_settled()
    for number, statement in enumerate([b"PGCOPY", b"{[", b"COMMIT"]):
        for severity in ("FATAL", "ERROR"):
            proxied.postgres.lose(statement, "before", last_words(severity, code))
            world.traffic(["LOGS"], count=50, broken=0, seed=number)
            assert proxied.postgres.lost(10)
            world.wait_settled()
    proxied.postgres.lose(b"unnest(done)", "before", last_words("FATAL", code))  # what an idle worker asks
    assert proxied.postgres.lost(10)
    wait_until(lambda: world.log.count("PostgreSQL is back") >= 7, "the worker sees PostgreSQL again")
    settle(world)
    assert f"PostgreSQL ended the session: last words ({code}): trying again" in world.log


@pytest.mark.parametrize("statement", [b"to_regclass", b"pg_attribute"])
def test_check_whose_session_ends(proxied: Proxied, statement: bytes) -> None:
    """It says so, and that PostgreSQL is unavailable."""
    proxied.postgres.lose(statement, "before", last_words("FATAL", "42710"))
    done = proxied.world.run("check", check=False)
    assert proxied.postgres.lost(0)
    assert done.returncode == 69, done.stderr
    assert "PostgreSQL ended the session: last words (42710)" in done.stdout


def test_postgresql_that_swallows_everything(proxied: Proxied) -> None:
    """Silence ends by time-out, not by waiting for ever; messages in hand are kept from being delivered again."""
    world = proxied.world
    world.start(*WORKER)
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    proxied.postgres.stall()
    world.traffic(["LOGS"], count=200, broken=0, seed=1)
    stalled = time.monotonic()
    time.sleep(2)
    assert world.consumer("LOGS").num_redelivered == 0
    proxied.postgres.cut()
    proxied.postgres.resume()
    settle(world)
    assert time.monotonic() - stalled < 30 * PATIENCE


def test_postgresql_whose_machine_is_gone(proxied: Proxied) -> None:
    """A lock that is not released: statement_timeout ends the wait, and the batch is tried again."""
    world = proxied.world
    world.start(*WORKER, EVENTWRITER_POSTGRES__STATEMENT_TIMEOUT="500ms")
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    with psycopg.connect(world.dsn) as lock:
        lock.execute("LOCK TABLE logs")
        world.traffic(["LOGS"], count=50, broken=0, seed=1)
        wait_until(lambda: "57014" in world.log, "a statement that timed out")
    settle(world)


def test_an_outage_longer_than_ack_wait_and_max_deliver(proxied: Proxied) -> None:
    """A durable that drops a message after two deliveries drops none: what is in hand and prefetched is kept alive."""
    world = proxied.world
    config = ConsumerConfig(durable_name="eventwriter-logs", ack_wait=1, max_deliver=2, max_ack_pending=50_000)
    world.call(lambda client: client.jetstream().add_consumer("LOGS", config))
    world.start(*WORKER, EVENTWRITER_WRITER__BATCH_MESSAGES="200")
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    proxied.postgres.stop()
    world.traffic(["LOGS"], count=700, broken=0, seed=1)
    time.sleep(5)
    assert world.consumer("LOGS").num_redelivered == 0
    proxied.postgres.start()
    settle(world)
    assert world.consumer("LOGS").config.max_deliver == 2


def test_half_a_connection(proxied: Proxied) -> None:
    """PostgreSQL's side ends while ours may still write."""
    world = proxied.world
    world.start(*WORKER)
    for number in range(3):
        world.traffic(["LOGS"], count=100, broken=0, seed=number)
        wait_until(lambda: world.counts("LOGS")[0] > 0, "the first")
        proxied.postgres.half_close()
    settle(world)


@pytest.mark.parametrize(
    "fault", ["cut", "slow", *(pytest.param(f, marks=pytest.mark.long) for f in ("half_close", "stop"))]
)
def test_the_connection_to_nats_breaks(proxied: Proxied, fault: str) -> None:
    """Resets, ends and delays under load: the worker reconnects and goes on."""
    world, proxy = proxied.world, proxied.nats
    world.start(*WORKER, EVENTWRITER_WRITER__BATCH_MESSAGES="100")
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()  # a worker that finds no server when it starts ends
    stop = threading.Event()

    def disturb() -> None:
        while not stop.wait(0.5):
            if fault == "slow":
                proxy.delay = 0.05
            elif fault == "stop":
                proxy.stop()
                time.sleep(0.3)
                proxy.start()
            else:
                getattr(proxy, fault)()

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for number in range(8):
            world.traffic(["LOGS"], count=300, broken=0, seed=number)
            time.sleep(0.2)
    finally:
        stop.set()
        thread.join()
        proxy.delay = 0.0
    settle(world)


def test_nats_that_falls_silent(proxied: Proxied) -> None:
    """No error, no answer: the missing heartbeats are noticed, and the worker is through again when the net is."""
    world = proxied.world
    world.start(*WORKER)
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    proxied.nats.stall()
    world.traffic(["LOGS"], count=50, broken=0, seed=1)
    time.sleep(3)
    assert world.counts("LOGS")[0] == 50
    proxied.nats.resume()
    settle(world)


@pytest.mark.parametrize(
    ("begin", "end", "words"),
    [
        ("ALTER ROLE {role} CONNECTION LIMIT 0", "ALTER ROLE {role} CONNECTION LIMIT -1", "too many connections"),
        ("ALTER ROLE {role} NOLOGIN", "ALTER ROLE {role} LOGIN", "not permitted to log in"),
        (
            "ALTER ROLE {role} SET default_transaction_read_only = on",
            "ALTER ROLE {role} RESET default_transaction_read_only",
            "25006",
        ),
        (
            "ALTER DATABASE {database} ALLOW_CONNECTIONS false",
            "ALTER DATABASE {database} ALLOW_CONNECTIONS true",
            "not currently accepting connections",
        ),
    ],
    ids=["connections", "login", "read-only", "database"],
)
def test_postgresql_refuses_for_a_while(world: World, begin: str, end: str, words: str) -> None:
    """Limits and states of the server are not about the messages: the batch is held until they pass."""
    parts = psycopg.conninfo.conninfo_to_dict(world.dsn)
    names = {"database": str(parts["dbname"]), "role": f"writer_{parts['dbname']}"}
    other = psycopg.conninfo.make_conninfo(world.dsn, dbname="postgres")
    world.execute(f"CREATE ROLE {names['role']} LOGIN; GRANT pg_write_all_data, pg_read_all_data TO {names['role']}")
    dsn = psycopg.conninfo.make_conninfo(world.dsn, user=names["role"], connect_timeout=2)
    world.start(*WORKER, EVENTWRITER_POSTGRES__DSN=dsn, EVENTWRITER_POSTGRES__CONNECT_TIMEOUT="2s")
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    with psycopg.connect(other, autocommit=True) as connection:
        run: Callable[[str], Any] = lambda text: connection.execute(text.format(**names))  # noqa: E731
        run(begin)
        run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'")
        try:
            publish_later(world)
            said = lambda line: '"logger": "eventwriter.' in line and words in line  # noqa: E731 - not only the driver
            wait_until(lambda: any(map(said, world.log.splitlines())), words)
        finally:
            run(end)
    settle(world)


def publish_later(world: World) -> None:
    """More messages, without looking at the database."""
    world.traffic(["LOGS"], count=50, broken=0, seed=1)
