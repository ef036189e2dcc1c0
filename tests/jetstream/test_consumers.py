"""Consumers that somebody else made or edits: refused, put right or followed, and what is in the way is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats.errors
import pytest

from consumers import ONLY_LOGS, TOLD, api, create, edit, serving, settings, told, well
from eventwriter import registry
from eventwriter.config import loading
from eventwriter.embedded import PostgresServer
from eventwriter.errors import UnavailableError
from eventwriter.jetstream.source import Source
from fix_service import World, new_world, wait_until


@pytest.fixture
def world(tmp_path: Path, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A world whose services write LOGS alone."""
    with new_world(tmp_path, postgres_server, template) as world:
        world.environment |= ONLY_LOGS
        yield world


@pytest.mark.parametrize(
    "policy",
    [
        {"deliver_policy": "last_per_subject", "filter_subject": "logs.>"},
        {"deliver_policy": "by_start_sequence", "opt_start_seq": 60},
    ],
    ids=lambda policy: policy["deliver_policy"],
)
def test_a_consumer_that_leaves_out_messages_is_refused(world: World, policy: dict[str, Any]) -> None:
    """Exit 78 with the remedy, before anything is taken from it; ``check`` says the same."""
    world.traffic(["LOGS"], count=100)
    create(world, **policy)
    said = f"has deliver policy {policy['deliver_policy']}, which leaves out messages and cannot be changed"
    advice = "set streams.LOGS.durable to a new name and streams.LOGS.continues to eventwriter-logs"
    for command in (["worker", "--stream", "LOGS"], ["check"]):
        done = world.run(*command, check=False)
        assert done.returncode == 78
        assert f"{said}: {advice}" in done.stdout + done.stderr
    assert world.consumer("LOGS").delivered.consumer_seq == 0


def test_a_consumer_that_begins_at_the_beginning_is_bound(world: World) -> None:
    """However that is put."""
    world.traffic(["LOGS"], count=100)
    create(world, deliver_policy="by_start_sequence", opt_start_seq=1)
    world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    world.assert_exact()


@pytest.mark.parametrize(
    "unwanted",
    [
        {"headers_only": True},
        {"priority_groups": ["a"], "priority_policy": "pinned_client", "priority_timeout": 10_000_000_000},
        {"filter_subject": "logs.nothing"},
    ],
    ids=lambda unwanted: next(iter(unwanted)),
)
def test_what_keeps_payloads_or_messages_back_is_put_right(world: World, unwanted: dict[str, Any]) -> None:
    """Before anything is taken; what else somebody set, stays, a pause too. ``check`` tells of it."""
    world.traffic(["LOGS"], count=100)
    create(world, description="by hand", metadata={"team": "network"}, **unwanted)
    api(world, "CONSUMER.PAUSE.LOGS.eventwriter-logs", {"pause_until": "2099-01-01T00:00:00Z"})
    found = world.run("check").stdout
    assert "the worker will change " in found
    assert f"{next(iter(unwanted))}, " in found or f"{next(iter(unwanted))} " in found
    assert "which kept messages or their payloads back" in found
    world.start("worker", "--stream", "LOGS")
    wait_until(lambda: all(settings(world).get(key) != value for key, value in unwanted.items()), "the repair")
    api(world, "CONSUMER.PAUSE.LOGS.eventwriter-logs", {})
    world.wait_settled()
    world.assert_exact()
    now = settings(world)
    assert now["description"] == "by hand"
    assert now["metadata"]["team"] == "network"


@pytest.mark.parametrize(
    "setting",
    [
        {},
        pytest.param({"EVENTWRITER_STREAMS__LOGS__PROCESSES": "2"}, marks=pytest.mark.long),
        pytest.param({"EVENTWRITER_STREAMS__LOGS__ACK": "all"}, marks=pytest.mark.long),
    ],
    ids=["alone", "two processes", "ack all"],
)
def test_headers_only_set_under_traffic(world: World, setting: dict[str, str]) -> None:
    """What comes without its payload is not acknowledged, but comes again when the consumer is put right."""
    endpoint = serving(world, **setting)
    for number in range(20):
        world.traffic(["LOGS"], count=100, seed=number)
        if number in (3, 11):
            edit(world, headers_only=True)
    world.wait_settled()
    world.assert_exact()
    assert "headers_only" not in settings(world)
    well(endpoint)


def test_what_comes_without_its_payload_is_released(world: World) -> None:
    """However late that shows: it was in the stream with a payload, so it is neither written nor acknowledged."""
    found = loading.load(registry.load(), file=None, environ=world.environment, flags={})
    source = Source(found.nats, found.streams["LOGS"])
    try:
        source.open()
        source.bind(1)
        world.traffic(["LOGS"], count=10, broken=0)
        edit(world, headers_only=True)
        source.link.binding.edited = lambda info: None  # type: ignore[method-assign]  # nobody looks at the consumer
        source.start()
        with pytest.raises(UnavailableError, match=r"delivered message 1 without its payload \(headers_only\)"):
            source.take()
    finally:
        source.close(5.0)
    state = world.consumer("LOGS")
    assert (state.ack_floor.stream_seq, state.num_pending + state.num_ack_pending) == (0, 10)


def test_headers_only_set_on_an_idle_stream(world: World) -> None:
    """It is put right before the next message comes."""
    serving(world)
    edit(world, headers_only=True)
    wait_until(lambda: "headers_only" not in settings(world), "the repair", TOLD)
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    world.assert_exact()
    assert "was changed (headers_only): starting again, which puts it right" in world.log


def test_a_consumer_of_a_work_queue_that_is_deleted(world: World) -> None:
    """It cannot begin anywhere but at the beginning, which is right: what was acknowledged is gone from the stream."""
    api(world, "STREAM.DELETE.LOGS")
    api(world, "STREAM.CREATE.LOGS", {"name": "LOGS", "subjects": ["logs.>"], "retention": "workqueue"})
    serving(world)
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    api(world, "CONSUMER.DELETE.LOGS.eventwriter-logs")
    world.traffic(["LOGS"], count=100, seed=1)
    world.wait_settled()
    world.assert_exact()


def test_a_filter_that_somebody_narrows(world: World) -> None:
    """It is put right, too: the worker would never see the other subjects."""
    serving(world)
    edit(world, filter_subject="logs.nothing")
    wait_until(lambda: settings(world).get("filter_subject") == "logs.>", "the repair", TOLD)
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    world.assert_exact()


def test_what_a_narrowed_filter_passes_over_is_missing(world: World) -> None:
    """Deliveries in a row told that nothing of ours lies between them: so it was not, and it is read again."""
    endpoint = serving(world)

    async def publish(client: Any) -> None:
        for number in range(300):
            subject = f"logs.{'seen' if number % 3 else 'unseen'}"
            await client.jetstream().publish(subject, json.dumps({"message": str(number)}).encode())

    edit(world, filter_subject="logs.seen")
    world.call(publish)
    wait_until(lambda: world.query("SELECT count(*), count(DISTINCT body) FROM logs") == [(300, 300)], "all", 20)
    assert settings(world)["filter_subject"] == "logs.>"
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    assert world.query("SELECT count(*), count(DISTINCT body) FROM logs") == [(300, 300)]
    assert endpoint.value("messages_reread_total", stream="LOGS") not in (None, 0)


def test_empty_messages_that_look_as_if_they_had_lost_their_payload(world: World) -> None:
    """Published again from such a consumer they are empty in the stream as well: done, and nothing restarts."""
    endpoint = serving(world)

    async def publish(client: Any) -> None:
        for number in range(300):
            payload = b"" if number % 3 else b'{"message": "x"}'
            await client.jetstream().publish("logs.app", payload, headers={"Nats-Msg-Size": "100"})

    world.call(publish)
    wait_until(lambda: sum(world.counts("LOGS")) == 300, "all of them")
    assert world.query("SELECT count(*) FROM logs") == [(100,)]
    wait_until(lambda: world.consumer("LOGS").ack_floor.stream_seq == 300, "the acks")
    assert endpoint.value("worker_restarts_total", stream="LOGS") == 0


@pytest.mark.parametrize("running", [False, True], ids=["from the start", "set while it runs"])
def test_pulls_keep_to_the_limits_of_the_consumer(world: World, running: bool) -> None:
    """Few messages a pull, short pulls, few bytes, and a message larger than that: everything comes, at good speed."""
    limits = {"max_batch": 10, "max_expires": 1_000_000_000, "max_bytes": 65536}
    few = {"EVENTWRITER_WRITER__BATCH_MESSAGES": "200"}  # for a pull that was taken goes on as it is
    if running:
        endpoint = serving(world, **few)
        edit(world, **limits)
    else:
        create(world, **limits)
        found = world.run("check").stdout
        assert "limits a pull to max_batch 10, max_expires 1s, max_bytes 65536" in found
    world.traffic(["LOGS"], count=1500, broken=0)

    async def publish(client: Any) -> None:
        for size in (200_000, 100, 300_000, 200_000, 100):
            await client.jetstream().publish("logs.app", json.dumps({"message": "x" * size}).encode())

    world.call(publish)
    began = time.monotonic()
    if not running:
        endpoint = serving(world, **few)
    wait_until(lambda: sum(world.counts("LOGS")) == 1505, "all of them", 15)
    print(f"{1505 / (time.monotonic() - began):.0f} messages/s")
    assert world.counts("LOGS") == (1505, 0)
    world.traffic(["LOGS"], count=10, broken=0)
    wait_until(lambda: world.counts("LOGS") == (1515, 0), "what comes later")
    well(endpoint)
    assert world.log.count("pull ended") < 5, world.log


def test_a_pull_whose_bytes_are_used_up_exactly(world: World) -> None:
    """The server ends it without a word: the next follows at once, not after the silence of a lost one."""
    payload = b'{"message": "x"}'
    reply = "$JS.ACK.LOGS.eventwriter-logs.1.1.1.1700000000000000000.8"
    create(world, max_bytes=5 * (len("logs.app") + len(reply) + len(payload)))

    async def publish(client: Any) -> None:
        for _ in range(9):
            await client.jetstream().publish("logs.app", payload)

    world.call(publish)
    world.start("worker", "--stream", "LOGS")
    wait_until(lambda: world.counts("LOGS")[0] >= 5, "the first five")
    wait_until(lambda: world.counts("LOGS")[0] == 9, "the others", 2)


@pytest.mark.parametrize("limit", [{"max_batch": 1}, {"max_expires": 1_000_000}, {"max_bytes": 1}], ids=str)
def test_the_strictest_limits(world: World, limit: dict[str, int]) -> None:
    """It takes longer, but everything comes, and nobody is asked a thousand times a second."""
    create(world, **limit)
    serving(world)
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    world.assert_exact()
    worker = wait_until(lambda: world.worker("LOGS"), "the worker")
    spent = sum(worker.cpu_times()[:2])
    began = time.monotonic()
    wait_until(lambda: time.monotonic() > began + 2.0, "a while")
    assert sum(worker.cpu_times()[:2]) - spent < 0.5


def test_a_paused_consumer_is_told_of(world: World) -> None:
    """Within seconds, with its remedy, under traffic or not; ``check`` tells too. When it is resumed, all is well."""
    endpoint = serving(world)
    api(world, "CONSUMER.PAUSE.LOGS.eventwriter-logs", {"pause_until": "2099-01-01T00:00:00Z"})
    told(endpoint, "paused until 2099-01-01T00:00:00Z", "nats consumer resume LOGS eventwriter-logs")
    assert "consumer eventwriter-logs is paused until 2099" in world.run("check").stdout
    world.traffic(["LOGS"], count=100)
    api(world, "CONSUMER.PAUSE.LOGS.eventwriter-logs", {})
    well(endpoint)
    world.wait_settled()
    world.assert_exact()
    assert world.log.count("is paused until") == 1


def test_a_consumer_that_delivers_nothing_is_told_of(world: World) -> None:
    """Somebody holds as many messages as may be unacknowledged; once they are given back, all is well."""
    endpoint = serving(world)
    edit(world, max_ack_pending=1, ack_wait=120_000_000_000)

    async def take(client: Any) -> None:
        held = await client.jetstream().pull_subscribe_bind("eventwriter-logs", "LOGS")
        taken: list[Any] = []
        while not taken:
            fetching = asyncio.ensure_future(held.fetch(1, timeout=1))
            await client.flush()
            for _ in range(2):  # there are two pulls, and each gets one
                await client.jetstream().publish("logs.app", b'{"message": "x"}')
            with contextlib.suppress(nats.errors.TimeoutError):
                taken = await fetching
        await client.publish("logs.app", b'{"message": "y"}')
        await asyncio.to_thread(told, endpoint, "messages wait", "max_ack_pending (1) are not acknowledged")
        await taken[0].nak()
        await client.flush()

    world.call(take)
    well(endpoint)
    wait_until(lambda: world.consumer("LOGS").num_pending == 0, "the rest")


NO_WAY_FOR_ACKS = """
accounts: {
  JS: {jetstream: enabled, users: [{user: admin, password: a}], exports: [%s]}
  APP: {users: [{user: writer, password: w}], imports: [%s]}
}
no_auth_user: admin
"""


def test_acks_that_are_never_confirmed_are_told_of(
    tmp_path: Path, postgres_server: PostgresServer, template: str
) -> None:
    """JetStream is another account's, which exports its API and forgot the acks: no permission is violated."""

    def shared(*subjects: str) -> str:
        exports = ", ".join(f'{{service: "{subject}", response_type: stream}}' for subject in subjects)
        imports = ", ".join(f'{{service: {{account: JS, subject: "{subject}"}}}}' for subject in subjects)
        return NO_WAY_FOR_ACKS % (exports, imports)

    with new_world(tmp_path, postgres_server, template, shared("$JS.API.>")) as world:
        world.environment |= ONLY_LOGS
        user = {"EVENTWRITER_NATS__USER": "writer", "EVENTWRITER_NATS__PASSWORD": "w"}
        endpoint = serving(world, **user)
        world.traffic(["LOGS"], count=100)
        told(endpoint, "consumer eventwriter-logs of stream LOGS does not confirm acks")
        world.assert_exact()
        world.nats._config = shared("$JS.API.>", "$JS.ACK.>")
        world.nats.stop()
        world.nats.start()
        well(endpoint)
        wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
        world.assert_exact()
