"""How many messages make a batch: the source's side that needs no server."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from itertools import count

import pytest

from consumers import GAP, STREAM
from eventwriter.config.loading import NatsConfig
from eventwriter.errors import UnavailableError
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.source import Source
from eventwriter.jetstream.wire import Delivery

NUMBERS = count(1)


def deliveries(number: int, pending: int, size: int = 10) -> list[Delivery]:
    """The next deliveries of a consumer, with ``pending`` behind the last of them."""
    found: list[Delivery] = []
    for left in reversed(range(pending, pending + number)):
        sequence = next(NUMBERS)
        reply = f"$JS.ACK.LOGS.eventwriter-logs.1.{sequence}.{sequence}.{sequence}.{left}".encode()
        found.append((b"logs.x", b"x" * size, reply, None))
    return found


@pytest.fixture
def source() -> Iterator[Source]:
    """One that is not connected: the test delivers."""
    source = Source(NatsConfig(), STREAM)
    yield source
    source.close(0)


def taken(source: Source, *portions: list[Delivery], pause: float = 0.0) -> tuple[int, float]:
    """How many messages the next batch has, and how long it took, when portions arrive with pauses between."""

    def deliver() -> None:
        for portion in portions:
            source.link.puller.deliver(portion, sum(len(each[1]) for each in portion))
            time.sleep(pause)

    thread = threading.Thread(target=deliver)
    begun = time.monotonic()
    thread.start()
    batch = source.take()
    seconds = time.monotonic() - begun
    thread.join()
    assert batch is not None
    return len(batch.messages), seconds


def test_a_full_batch_at_once(source: Source) -> None:
    """However little time has passed; the rest makes the next."""
    assert taken(source, deliveries(130, 0))[0] == 100
    assert taken(source)[0] == 30


def test_what_has_arrived_within_the_linger(source: Source) -> None:
    """Nothing more is expected soon."""
    assert taken(source, deliveries(3, 0), deliveries(3, 0), pause=0.5)[0] == 3


def test_bytes_make_a_full_batch_too(source: Source) -> None:
    """Large messages are not waited for until there are many."""
    assert taken(source, deliveries(60, 500, size=2000))[0] == 50


def test_half_a_batch_when_a_backlog_comes_slowly(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small transactions one after the other would never catch up."""
    monkeypatch.setattr("eventwriter.jetstream.source.CATCHING_UP", 60.0)
    assert taken(source, *(deliveries(20, 500) for _ in range(4)), pause=0.2)[0] == 60


def test_even_a_backlog_is_not_waited_for_long(source: Source) -> None:
    """It may not come at all: the consumer's limits, another worker, an outage."""
    number, seconds = taken(source, deliveries(20, 500))
    assert number == 20
    assert 0.05 < seconds < 30


def test_the_puller_learns_that_an_outage_is_over(source: Source) -> None:
    """Else it would find out when it looks by itself, which may be ten seconds later."""

    async def woken() -> bool:
        return await asyncio.wait_for(source.link.puller.wake.wait(), 5)

    source.loop.start()
    source.hold(0.0)
    source._handover.stopping = True  # what take() takes would wake it as well
    assert source.take() is None
    assert source.loop.call(woken(), 6)


def test_deliveries_without_numbers_end_the_worker(source: Source) -> None:
    """Nothing of them is passed over in silence."""
    source.link.puller.deliver([(b"logs.x", b"x", b"$JS.ACK.LOGS.eventwriter-logs.1.2", None)], 1)
    with pytest.raises(UnavailableError, match="cannot be read"):
        source.take()


def test_a_consumer_that_may_not_be_asked_keeps_more_from_coming(source: Source) -> None:
    """Once as much is in doubt as is kept in mind: then it is told that nothing is pulled, with what is forbidden."""
    link, handover = source.link, source._handover
    link._permissions.note(f'nats: permissions violation for publish to "$JS.API.CONSUMER.INFO.LOGS.{STREAM.durable}"')
    assert link.trouble.startswith("NATS forbids to publish to $JS.API.CONSUMER.INFO.LOGS")
    handover.claims = Claims(most=1)
    handover.took(GAP)
    for now in (0.0, 7.0):
        link._progress.look(None, now, connected=True, eager=False, silent=link._permissions.trouble, full=True)
    assert "no more is pulled until it does: NATS forbids to publish to $JS.API.CONSUMER.INFO.LOGS" in link.trouble
    assert not link.puller.eager
