"""`check` in broken worlds: it names the cause and the remedy, and ends within seconds whatever is wrong."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from beside import beside
from consumers import STREAM, api
from eventwriter.commands.check_limits import endurance
from eventwriter.commands.check_nats import clocks
from eventwriter.commands.check_service import written
from eventwriter.commands.check_settings import twice
from eventwriter.embedded import NatsServer, PostgresServer, free_port
from eventwriter.jetstream.inspection import _skew
from fix_service import STREAMS, World, new_world, only
from fix_tls import Certificates
from patience import PATIENCE
from proxy import Proxy

MINUTE = 60 * 1_000_000_000
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """One for all: each case has streams of its own."""
    with new_world(tmp_path_factory.mktemp("check"), postgres_server, template) as world:
        yield world


def check(
    world: World, settings: dict[str, str], *arguments: str, names: tuple[str, ...] = ("LOGS",)
) -> tuple[int, str]:
    """Exit status and what was said; settings are those of LOGS, or whole names of variables."""
    given = {
        key if key.startswith("EVENTWRITER_") else f"EVENTWRITER_STREAMS__LOGS__{key}": value
        for key, value in settings.items()
    }
    begun = time.monotonic()
    done = world.run("check", *arguments, check=False, **only(*names) | given)
    assert time.monotonic() - begun < 10 * PATIENCE
    assert not done.stderr or "NATS forbids" in done.stderr
    return done.returncode, done.stdout


def create(world: World, name: str, **config: Any) -> None:
    """A stream as somebody else made it; its subjects begin with its name, unless it says others."""
    wanted = {"name": name, "subjects": [f"{name}.>"], "storage": "file"} | config
    api(world, f"STREAM.CREATE.{name}", wanted)


def consume(world: World, stream: str, name: str = "eventwriter-logs", **config: Any) -> None:
    """A durable as somebody else made it."""
    wanted = {"durable_name": name, "ack_policy": "explicit", "deliver_policy": "all"} | config
    api(world, f"CONSUMER.DURABLE.CREATE.{stream}.{name}", {"stream_name": stream, "config": wanted})


# --- what is wrong with a stream ------------------------------------------------------------------------------------


CASES: list[tuple[dict[str, Any], dict[str, str], int, tuple[str, ...]]] = [
    ({}, {"SUBJECTS": "logs.>"}, 78, (
        "✗ LOGS          logs.> is outside the subjects of stream {0} ({0}.>), so no message ever comes: ",
        "add it there (`nats stream edit {0} --subjects='{0}.>,logs.>'`), or set streams.LOGS.stream")),
    ({}, {"SUBJECTS": "{0}.>,logs.x"}, 0, (
        "! LOGS          logs.x is outside the subjects of stream {0} ({0}.>), so what is published to it does not",)),
    ({"max_age": 30 * MINUTE}, {}, 0, (
        "! LOGS          stream {0} discards what nobody has read after 30 min (max_age), so a longer outage of ",
        "eventwriter or PostgreSQL loses messages: `nats stream edit {0} --max-age=7d`")),
    ({"max_age": 600 * MINUTE}, {}, 0, ("stream {0} holds 0 messages, each for 10 h (max_age)",)),
    ({"max_bytes": 2**20}, {}, 0, ("discards the oldest, read or not, once it is full (max_bytes 1048576)",)),
    ({"max_msgs": 5, "discard": "new"}, {}, 0, ("refuses what is published once it is full (max_msgs 5, dis",)),
    ({"storage": "memory"}, {}, 0, ("! LOGS          stream {0} is kept in memory: what is not read when its server",)),
    ({"max_msgs_per_subject": 1}, {}, 0, ("holds only the latest 1 messages of each subject (max_msgs_per_subject)",)),
    ({"consumer_limits": {"max_ack_pending": 1000}}, {"PROCESSES": "2"}, 78, (
        "max_ack_pending 1000, and four batches of 10000 for each of 2 processes need 80000, so no consumer can be ",
        "created: set streams.LOGS.batch_messages = 125")),
    ({"max_consumers": 1}, {"other": "x"}, 78, ("has all the consumers that it may have (max_consumers 1)",)),
    ({"retention": "interest"}, {}, 0, ("keeps nothing for us before consumer eventwriter-logs exists",)),
    ({"retention": "workqueue"}, {"other": "{0}.a"}, 78, (
        "is a work queue, in which consumer other takes {0}.a already, so a consumer for {0}.> is refused: ",
        "narrow streams.LOGS.subjects")),
]  # fmt: skip


@pytest.mark.parametrize(("config", "settings", "code", "told"), CASES, ids=range(len(CASES)))
def test_a_stream_that_loses_or_refuses(
    world: World, config: dict[str, Any], settings: dict[str, str], code: int, told: tuple[str, ...]
) -> None:
    """Told before anything is lost, with what to do."""
    name = f"s{next(NUMBERS)}"
    create(world, name, **config)
    given = {key: value.format(name) for key, value in settings.items()}
    if other := given.pop("other", ""):
        consume(world, name, "other", filter_subject=other if "." in other else f"{name}.x")
    status, said = check(world, {"STREAM": name, "SUBJECTS": f"{name}.>"} | given)
    assert "".join(told).format(name) in said
    assert status == code


def test_streams_of_ours_that_are_in_each_others_way(world: World) -> None:
    """Two that want the same messages of one stream: written twice, or refused where that is a work queue."""
    both = {"EVENTWRITER_STREAMS__EVENTS__SUBJECTS": "both.*.processed,x.>"}
    for name, policy, code, told in (
        ("plain", "limits", 0, "what both both.*.processed and both.> match of stream plain is written by"),
        ("queue", "workqueue", 78, "is a work queue, in which streams.EVENTS takes both.*.processed already"),
    ):
        create(world, name, subjects=["both.>", "x.>"], retention=policy)
        there = {"STREAM": name, "SUBJECTS": "both.>", "EVENTWRITER_STREAMS__EVENTS__STREAM": name} | both
        status, said = check(world, there, names=("LOGS", "EVENTS"))
        assert told in said
        assert status == code
        api(world, f"STREAM.DELETE.{name}")


def test_a_durable_that_loses_messages(world: World) -> None:
    """What it gives up, or delays; and what is delivered again and again."""
    create(world, "durable")
    consume(world, "durable", max_deliver=3, backoff=[10**9, 2 * 10**9], replay_policy="original", max_batch=7)

    async def take(client: Any) -> None:
        for number in range(3):
            await client.jetstream().publish(f"durable.{number}", b"x")
        held = await client.jetstream().pull_subscribe_bind("eventwriter-logs", "durable")
        for _ in range(2):
            for message in await held.fetch(3, timeout=5):
                await message.nak()
        await held.fetch(3, timeout=5)

    world.call(take)
    status, said = check(world, {"STREAM": "durable", "SUBJECTS": "durable.>"})
    assert status == 0
    for told in (
        "max_deliver is 3, so a message is lost after 3 deliveries; set -1",
        "backoff overrides ack_wait; remove it",
        "replay_policy delivers a backlog no faster than it was published",
        "3 messages of consumer eventwriter-logs were delivered more than once and are not acknowledged: a worker died",
        "limits a pull to max_batch 7",
    ):
        assert told in said


def test_a_missing_stream(world: World) -> None:
    """With both commands that make it, and the subjects of all that share it."""
    shared = {"EVENTWRITER_STREAMS__EVENTS__STREAM": "none", "EVENTWRITER_STREAMS__EVENTS__SUBJECTS": "none.b"}
    status, said = check(world, {"STREAM": "none", "SUBJECTS": "none.a"} | shared, names=("LOGS", "EVENTS"))
    assert status == 69
    told = f"✗ nats          EVENTS, LOGS: JetStream at {world.nats.url} ($JS.API) has no stream none: "
    assert f"{told}`eventwriter streams create --stream EVENTS` creates it, as does `nats stream add none " in said
    assert "--subjects=none.b,none.a --storage=file" in said
    assert "or set streams.EVENTS.stream, streams.LOGS.stream to its name" in said


def test_what_several_streams_share_is_told_once(world: World) -> None:
    """A limit of the one stream in which all messages are, say; what is its own, each says by itself."""
    create(world, "all", subjects=["all.>"], max_age=30 * MINUTE)
    there = {f"EVENTWRITER_STREAMS__{name}__STREAM": "all" for name in STREAMS}
    there |= {f"EVENTWRITER_STREAMS__{name}__SUBJECTS": f"all.{name.lower()}" for name in STREAMS}
    status, said = check(world, there, names=STREAMS)
    assert status == 0
    assert said.count("discards what nobody has read after 30 min") == 1
    assert f"! nats          {', '.join(STREAMS)}: stream all discards what nobody has read" in said
    assert all(f"✓ {name:<14}stream all holds 0 messages, each for 30 min (max_age)" in said for name in STREAMS)
    api(world, "STREAM.DELETE.all")


# --- what is wrong with a server ------------------------------------------------------------------------------------


def test_of_several_servers_one_is_enough(world: World) -> None:
    """Each of the others is named with what is wrong there; the one that is asked, with what it is."""
    stranger, dead = free_port(), free_port()
    with beside(lambda ended: asyncio.run(_strange(stranger, ended))):
        urls = f"nats://127.0.0.1:{dead},{world.nats.url},nats://127.0.0.1:{stranger}"
        status, said = check(world, {"EVENTWRITER_NATS__URL": urls})
    assert status == 0
    assert f"! nats          cannot connect to NATS at nats://127.0.0.1:{dead}: " in said
    assert f"what answers at 127.0.0.1:{stranger} is no NATS server" in said
    assert f"at {world.nats.url}, no TLS, JetStream at $JS.API" in said
    assert "✓ postgres      PostgreSQL 1" in said


def test_what_tls_is_like(world: World, certificates: Certificates, tmp_path: Path) -> None:
    """Its version, and a certificate that ends soon."""
    tls = f"tls {{cert_file: '{certificates.soon}', key_file: '{certificates.soon}'}}"
    with NatsServer(tmp_path, config=tls) as server:
        there = {"EVENTWRITER_NATS__URL": server.url, "EVENTWRITER_NATS__TLS__CA": str(certificates.ca)}
        _, said = check(world, there)
    assert f"at {server.url}, TLSv1.3, JetStream at $JS.API" in said
    assert f"! nats          the certificate of {server.url} ends in 5 d, and nobody connects then: renew it" in said


async def _strange(port: int, ended: Any) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        await asyncio.to_thread(ended.wait)


@contextmanager
def mute(world: World, prefix: str) -> Iterator[None]:
    """Somebody who hears requests to JetStream and does not answer."""

    def listen(ended: Any) -> None:
        async def hear(client: Any) -> None:
            await client.subscribe(f"{prefix}.>")
            await client.flush()
            ready.append(True)
            await asyncio.to_thread(ended.wait)

        world.call(hear)

    ready: list[bool] = []
    with beside(listen):
        while not ready:
            time.sleep(0.01)
        yield


@pytest.mark.parametrize("broken", ["nats", "jetstream", "both", "slow", "ledger", "names"])
def test_servers_that_do_not_answer(world: World, broken: str) -> None:
    """All streams are asked beside each other, and all that does answer is told."""
    port = int(str(psycopg.conninfo.conninfo_to_dict(world.dsn)["port"]))
    with Proxy(world.nats.port) as nats, Proxy(port) as postgres, world.connect() as locker, mute(world, "mute.API"):
        settings = {
            "EVENTWRITER_NATS__URL": f"nats://127.0.0.1:{nats.port},nats://127.0.0.1:{nats.port}",
            "EVENTWRITER_POSTGRES__DSN": psycopg.conninfo.make_conninfo(world.dsn, port=postgres.port),
        }
        told = []
        if broken in ("nats", "both"):
            nats.stall()
            told.append(f"✗ nats          cannot connect to NATS at nats://127.0.0.1:{nats.port}: ")
        if broken == "both":
            postgres.stall()
            told.append("✗ postgres      ")
        if broken == "jetstream":
            settings["EVENTWRITER_NATS__API_PREFIX"] = "mute.API"
            told.append("JetStream does not answer stream requests")
        if broken == "names":
            settings["EVENTWRITER_NATS__URL"] = "nats://no-such-host.invalid:4222"
            told.append("✗ nats          cannot connect to NATS at nats://no-such-host.invalid:4222: ")
        if broken == "slow":
            postgres.delay = 0.4  # which many questions add up; connecting alone takes too long where all is busy
            told.append("✗ postgres      PostgreSQL ")
        if broken == "ledger":
            locker.autocommit = False
            locker.execute("LOCK TABLE logs, eventwriter.ledger IN ACCESS EXCLUSIVE MODE")
            told.append(
                "✗ postgres      the ledger cannot be read: PostgreSQL: canceling statement due to lock timeout"
            )
        status, said = check(world, settings, names=STREAMS)
        locker.rollback()
    assert status == 69
    for each in told:
        assert each in said, said
    if broken in ("nats", "jetstream", "names"):
        assert "✓ LOGS          logs: " in said  # its table
        assert said.count(told[0]) <= 2
    if broken in ("slow", "ledger"):
        assert "✓ LOGS          stream LOGS holds " in said


def test_more_connections_than_there_may_be(world: World) -> None:
    """Of the server, of the role: told with what is wanted, and refused where not even the processes have one each."""
    most = int(world.query("SELECT current_setting('max_connections')")[0][0])
    status, said = check(world, {"EVENTWRITER_POSTGRES__POOL_SIZE": "1000"})
    assert status == 0
    assert (
        "! postgres      1 processes with postgres.pool_size 1000 may open 1000 connections, and max_connections"
        in said
    )
    status, said = check(world, {"PROCESSES": "256", "EVENTWRITER_POSTGRES__POOL_SIZE": "1"})
    assert (status == 78) is (most < 256)
    world.execute("CREATE ROLE few LOGIN SUPERUSER CONNECTION LIMIT 3")
    dsn = psycopg.conninfo.make_conninfo(world.dsn, user="few")
    status, said = check(world, {"PROCESSES": "4", "EVENTWRITER_POSTGRES__DSN": dsn})
    assert (
        "4 processes with postgres.pool_size 2 may open 8 connections, and the connection limit of role few, 3" in said
    )
    assert status == 78


def test_a_role_that_may_nothing_yet_is_told_all_that_it_lacks(world: World) -> None:
    """Also what comes after that which it was refused first."""
    world.execute("CREATE ROLE nobody LOGIN")
    dsn = psycopg.conninfo.make_conninfo(world.dsn, user="nobody")
    for grant, lacking in (
        ("USAGE ON SCHEMA public", "GRANT USAGE ON SCHEMA eventwriter TO nobody"),
        ("USAGE ON SCHEMA eventwriter", "GRANT SELECT ON TABLE eventwriter.ledger TO nobody"),
        ("SELECT ON ALL TABLES IN SCHEMA eventwriter", "GRANT INSERT ON TABLE public.logs TO nobody"),
    ):
        world.execute(f"GRANT {grant} TO nobody")
        status, said = check(world, {"EVENTWRITER_POSTGRES__DSN": dsn})
        assert status == 78
        assert lacking in said
        assert "25P02" not in said


# --- the settings alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"ENABLED": "false"}, 0, "no stream is enabled, so nothing is written"),
        ({"EXCLUDE": "logs.>"}, 78, "covers all of streams.LOGS.subjects, so everything is acknowledged and nothing"),
        ({"EXCLUDE": "log.x"}, 0, "streams.LOGS.exclude has log.x, which none of the subjects (logs.>) matches"),
        ({"EXCLUDE": "logs.x"}, 0, "✓ settings      no file: 1 streams enabled, 1 worker processes"),
    ],
    ids=str,
)
def test_offline(world: World, settings: dict[str, str], code: int, told: str) -> None:
    """Nobody is asked, so nobody has to be there."""
    nobody = {"EVENTWRITER_NATS__URL": "nats://127.0.0.1:1", "EVENTWRITER_POSTGRES__DSN": "host=127.0.0.1 port=1"}
    status, said = check(world, settings | nobody, "--offline")
    assert told in said
    assert status == code
    assert "postgres" not in said
    parsed = json.loads(check(world, settings | nobody, "--offline", "--output", "json")[1])
    assert parsed["ok"] is (code == 0)


# --- what a test cannot make happen ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "seconds", "cause"),
    [
        ({"max_age": 30 * MINUTE}, 1800, "max_age"),
        ({"max_bytes": 1_000_000}, 1000, "max_bytes 1MB at the present 1 messages/s"),
        ({"max_msgs": 50}, 50, "max_msgs 50 at the present 1 messages/s"),
        ({"max_age": 20 * MINUTE, "max_bytes": 1_000_000, "max_msgs": 5000}, 1000, "max_bytes 1MB"),
        ({"max_bytes": 1_000_000, "discard": "new"}, None, ""),
        ({"max_age": 0, "max_bytes": -1, "max_msgs": -1}, None, ""),
    ],
    ids=str,
)
def test_how_long_an_outage_may_last(config: dict[str, Any], seconds: float | None, cause: str) -> None:
    """By the limit that is reached first, at the rate of what the stream holds."""
    state: dict[str, Any] = {"messages": 101, "bytes": 101_000, "first_seq": 900, "last_seq": 1000}
    state |= {"first_ts": "2026-01-01T00:00:00.5Z", "last_ts": "2026-01-01T00:01:40.5Z"}
    found = endurance(config, state)
    assert (found and round(found[0])) == seconds
    assert found is None or found[1].startswith(cause)


@pytest.mark.parametrize(
    ("told", "said"),
    [(-60.0, "60 s behind"), (-7200.0, "2 h behind"), (3.0, "2 s ahead of"), (0.5, ""), (2.5, ""), (-1.0, "")],
)
def test_clocks_that_differ(told: float, said: str) -> None:
    """By more than an answer may have been on its way."""
    asked = datetime(2026, 1, 1, tzinfo=UTC)
    skew = _skew(asked, asked + timedelta(seconds=told), asked + timedelta(seconds=0.9))
    text = clocks("NATS", skew)
    assert (said in text) if said else not text


def test_batches_that_take_longer_than_acks_may() -> None:
    """As the histograms of the running service tell."""
    counts = [0] * 15
    counts[14], counts[3] = 1, 50  # more than 30 s, and 5 to 10 ms
    [finding] = written(STREAM, {"copy": counts, "wait": [1] * 15})
    assert "took more than 30s to write, and ack_wait is 10s" in finding.text
    assert not [*written(STREAM, {"copy": [0, 0, 0, 50], "wait": [1] * 15})]


@pytest.mark.parametrize(
    ("one", "other", "excluded", "both"),
    [
        (("logs.>",), ("logs.>",), (), "logs.>"),
        (("logs.>", "x"), ("logs.*.a", "y"), (), "what both logs.> and logs.*.a match"),
        (("logs.>",), ("logs.a",), ("logs.a",), ""),
        (("logs.a",), ("logs.b", "logs.a.b"), (), ""),
    ],
)
def test_what_two_streams_write(
    one: tuple[str, ...], other: tuple[str, ...], excluded: tuple[str, ...], both: str
) -> None:
    """Unless one of them leaves it to the other."""
    assert twice(replace(STREAM, subjects=one, exclude=excluded), replace(STREAM, subjects=other)) == both
