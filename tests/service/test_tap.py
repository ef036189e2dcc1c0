"""`eventwriter tap`: what flows is seen as the rows that it becomes, and nobody else notices."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import forkserver
import reference
from consumers import STREAM
from eventwriter.commands.tap import coloured
from eventwriter.config.loading import NatsConfig
from eventwriter.coverage import Segment
from eventwriter.errors import UnavailableError
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.rereading import Reader
from eventwriter.jetstream.tapping import Tap
from eventwriter.jetstream.visit import Visit
from fix_service import World, wait_until
from traffic import Publication

Reading = Callable[[Client, Api], AsyncIterator[object]]
BROKEN = Publication("logs.app", b'[{"body": "fine"}, 5]', ())
BINARY = Publication("logs.app", b"\x1b]0;\xff", (), headers={"a": "b"})


def log(text: str, subject: str = "logs.app") -> Publication:
    """A message of LOGS with one record."""
    return Publication(subject, json.dumps({"body": text}).encode(), ())


def tapped(world: World, *options: str) -> list[Any]:
    """The lines that it prints before it ends by itself."""
    lines = world.run("tap", "--stream", "LOGS", "--since", "1h", *options).stdout.splitlines()
    return [json.loads(line) for line in lines]


async def again(client: Client, api: Api) -> AsyncIterator[object]:
    """Reads LOGS as a worker reads what it misses; goes on when it is asked for more."""
    handover = Handover(STREAM)
    task = asyncio.create_task(Reader(client, api, STREAM, handover).read([Segment(1, 1000, STREAM.subjects)]))
    while not task.done():
        if len(handover.rereads) > 1 or client.is_reconnecting:
            yield handover.rereads.take()
        await asyncio.sleep(0.01)
    await task


def tapping(client: Client, api: Api) -> AsyncIterator[object]:
    """Reads LOGS as ``tap`` does."""
    return Tap(client, api, STREAM, STREAM.subjects).messages(1)


def test_what_there_was_as_rows_rejects_and_as_it_came(world: World) -> None:
    """By subject, kind and number; what a terminal would obey comes to none."""
    world.publish("LOGS", [log("one"), log("two", "logs.other"), BROKEN, BINARY])
    found = tapped(world, "--limit", "5")
    kinds = [(each["sequence"], "row" if "row" in each else "reject") for each in found]
    assert kinds == [(1, "row"), (2, "row"), (3, "row"), (3, "reject"), (4, "reject")], found
    assert found[0]["row"]["body"] == "one"
    assert found[0]["subject"] == "logs.app"
    assert found[0]["time"].startswith("20")
    assert [each["row"]["body"] for each in tapped(world, "--subject", "logs.other", "--limit", "1")] == ["two"]
    assert [each["reject"]["record_index"] for each in tapped(world, "--rejects", "--limit", "2")] == [1, None]
    assert [each["row"]["body"] for each in tapped(world, "--rows", "--limit", "3")] == ["one", "two", "fine"]
    known = {*re.findall(r'"(\w+)"', reference.SHAPES["tap"])}
    assert {*found[3], *found[3]["reject"]} - {"sqlstate"} <= known
    raw = tapped(world, "--raw", "--limit", "4")
    assert raw[2]["payload"] == BROKEN.payload.decode()
    assert {*raw[2], *raw[3]} <= known
    assert (raw[3]["payload_base64"], raw[3]["headers"]) == ("G10wO/8=", {"a": "b"})
    assert "\x1b]" not in coloured({"sequence": 1, "time": found[0]["time"], "subject": "\x1b]0", "payload": "\x1b]0"})
    for wrong in (["--subject", "a..b"], ["--limit", "0"], ["--since", "soon"]):
        assert world.run("tap", "--stream", "LOGS", *wrong, check=False).returncode == 64, wrong
    assert not [each for each in world.call(lambda c: c.jetstream().consumers_info("LOGS")) if each.config.durable_name]


def test_what_arrives_meanwhile_each_once(world: World) -> None:
    """Through a server that restarts, and messages larger than a pull; Ctrl-C ends it, and the durable is as it was."""
    service = world.start("worker", "--stream", "LOGS")
    wait_until(lambda: "messages waiting" in world.log, world.log)
    path = world.folder / "tapped"
    with path.open("wb") as out, (world.folder / "service.log").open("ab") as log_file:
        tap = forkserver.started(["tap", "--stream", "LOGS", "--rows"], world.environment, out, log_file)
        world.services.append(tap)
        wait_until(lambda: len(world.call(lambda c: c.jetstream().consumers_info("LOGS"))) == 2, "it looks")
        for number in range(3):
            world.publish("LOGS", [log(f"{number}"), log(f"large {number}" + "x" * 900_000)] * 3)
            if number == 1:
                world.nats.kill()
                world.nats.start()
        wait_until(lambda: path.read_bytes().count(b"\n") >= 18, "all of it", 60)
        tap.send_signal(signal.SIGINT)
        assert tap.wait(30) == 0
    sequences = [json.loads(line)["sequence"] for line in path.read_text().splitlines()]
    assert sequences == [*range(1, 19)]
    world.wait_settled()
    assert world.stop(service) == 0


@pytest.mark.parametrize("reading", [again, tapping])
def test_what_an_outage_interrupts_leaves_no_subscription(world: World, reading: Reading) -> None:
    """The client would keep it, with its task and its queue, and subscribe again at every connection that follows."""
    world.publish("LOGS", [log(f"{number}") for number in range(1000)])

    async def subscriptions() -> list[set[int]]:
        visit = Visit(NatsConfig(url=(world.nats.url,)), "test")
        await visit.open()
        api, _ = visit.questions(STREAM)
        await api.request("STREAM.INFO.LOGS", {})  # with a subscription for answers, which stays
        before = {*visit.client._subs}
        interrupted = reading(visit.client, api)
        await anext(interrupted)
        during = {*visit.client._subs}
        world.nats.kill()
        with pytest.raises(UnavailableError):
            async for _ in interrupted:
                pass
        assert visit.client.is_reconnecting
        after = {*visit.client._subs}
        world.nats.start()
        await visit.close()
        return [before, during, after]

    before, during, after = asyncio.run(subscriptions())
    assert (len(during), after) == (len(before) + 1, before)
