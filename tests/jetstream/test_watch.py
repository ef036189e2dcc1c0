"""What a look at the consumer leads to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import cast

import pytest

from consumers import GAP, STREAM
from eventwriter.config.loading import NatsConfig
from eventwriter.errors import ConsumerEditedError, UnavailableError
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.binding import Binding
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.limits import Limits
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.puller import Puller
from eventwriter.jetstream.watch import SAMPLE, SOON, Watch, stands_still
from eventwriter.stream import Batch, Message

INFO = ConsumerInfo(
    created=False, ack_floor=3, pending=5, ack_pending=2, delivered=5, limits=Limits(messages=7), max_ack_pending=100
)


class World:
    """Everything that a look asks or tells, as the test wants it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.info: ConsumerInfo | Exception = INFO
        self.limits: Limits | None = None
        self.edited_by: Exception | None = None
        self.standby = False
        self.eager = True
        self.others_stuck: list[bool] = []
        self.wake = asyncio.Event()
        self.story: list[str] = []
        self.permissions = Permissions(NatsConfig(), STREAM)
        self.claims = Claims(most=1)
        client, api, binding, puller = cast(Client, self), cast(Api, self), cast(Binding, self), cast(Puller, self)
        self.watch = Watch(client, api, binding, puller, self.permissions, Progress(STREAM), self.claims)

    async def consumer_info(self) -> ConsumerInfo:
        if isinstance(self.info, Exception):
            raise self.info
        return self.info

    def edited(self, info: ConsumerInfo) -> Exception | None:
        self.limits = info.limits
        return self.edited_by

    def stuck(self, others: bool) -> None:
        self.others_stuck.append(others)

    async def force_reconnect(self) -> None:
        self.story.append("reconnect")

    async def probe(self) -> None:
        self.story.append("probe")
        self.permissions._refused.clear()

    def look(self) -> float:
        """Looks."""
        return asyncio.run(self.watch.look())


def test_what_the_consumer_says_is_kept() -> None:
    """For people, and for the next pull; while it is silent, nothing is known, and it is asked again sooner."""
    world = World()
    assert world.look() == SAMPLE
    assert (world.watch.latest, world.limits) == (INFO, INFO.limits)
    world.info = UnavailableError("JetStream does not answer")
    assert world.look() == SOON
    assert world.watch.latest is None
    world.info, world.is_connected = INFO, False
    assert world.look() == SOON
    assert world.watch.latest is None


def test_a_consumer_that_was_edited_ends_the_worker() -> None:
    """What lies between the messages of the latest batches stays in doubt."""
    world = World()
    world.claims.add(Batch([Message("logs.x", b"", 9, 1)], [5]))
    world.edited_by = ConsumerEditedError("changed")
    for _ in range(3):
        with pytest.raises(ConsumerEditedError):
            world.look()
    assert world.claims.ranges() == [(5, 8)]
    world.edited_by = None
    world.look()
    world.look()
    assert world.claims.ranges() == []


def test_a_consumer_that_is_seen_again_after_long_is_pulled_from() -> None:
    """At once; until then nothing was, for what lies between the messages of batches is kept in mind."""
    world = World()
    world.info = UnavailableError("JetStream does not answer")
    world.look()
    assert not world.wake.is_set()
    world.claims.add(GAP)
    world.look()
    assert not world.wake.is_set()
    world.info = INFO
    world.look()
    assert world.wake.is_set()
    assert not world.claims.full


@pytest.mark.parametrize(
    ("refused", "story"),
    [
        ('publish to "$JS.API.STREAM.INFO.LOGS"', ["probe"]),
        ('subscription to "_INBOX.x.*"', ["reconnect", "probe"]),
    ],
)
def test_what_was_refused_is_asked_for_again(refused: str, story: list[str]) -> None:
    """A subscription that was refused needs another connection. Afterwards it is time to pull."""
    world = World()
    world.permissions.note(f"nats: permissions violation for {refused}")
    assert world.permissions.may_receive == ("subscribe to _INBOX.>" not in world.permissions._refused)
    world.look()
    assert world.story == story
    assert world.wake.is_set()


def test_a_consumer_that_stands_still_is_seen() -> None:
    """At the second look at the latest."""
    world = World()
    world.look()
    world.look()
    world.info = replace(INFO, ack_floor=4)
    world.look()
    assert world.others_stuck == [False, True, False]


@pytest.mark.parametrize(
    ("now", "still"),
    [
        (INFO, True),
        (replace(INFO, pending=9), True),
        (replace(INFO, ack_floor=4), False),
        (replace(INFO, pending=4), False),
        (None, False),
    ],
)
def test_standing_still_is_to_do_nothing_of_what_there_is(now: ConsumerInfo | None, still: bool) -> None:
    """More that waits is no progress."""
    assert stands_still(INFO, now) == still
    assert not stands_still(None, now)


def test_an_empty_consumer_does_not_stand_still() -> None:
    """There is nothing to do."""
    empty = replace(INFO, pending=0, ack_pending=0)
    assert not stands_still(empty, empty)
