"""How the loop thread wakes the main thread."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from consumers import STREAM
from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.jetstream.deliveries import read
from eventwriter.jetstream.handover import FOREVER, Handover
from eventwriter.stream import Batch, Message

LONG = 20.0
SHORT = 0.05


def put(handover: Handover, count: int, size: int = 1) -> None:
    """So many messages of this size arrive."""
    replies = [b"$JS.ACK.LOGS.eventwriter-logs.1.%d.%d.1.0" % (number, number) for number in range(1, count + 1)]
    handover.put(read([(b"logs.x", b"x" * size, reply, None) for reply in replies], count * size))


def waits(handover: Handover, wanted: int, timeout: float, *happens: object) -> bool:
    """Whether it waits until the time is over, whatever happens a little later in another thread."""
    timer = threading.Timer(0.02, lambda: [each() for each in happens if callable(each)])
    timer.start()
    begun = time.monotonic()
    handover.wait(wanted, timeout)
    timer.join()
    return time.monotonic() - begun >= timeout


@pytest.fixture
def handover() -> Handover:
    """With nothing in it."""
    return Handover(STREAM)


def test_messages_wake_when_they_are_enough(handover: Handover) -> None:
    """Or their bytes; fewer do not."""
    assert waits(handover, 3, SHORT, lambda: put(handover, 2))
    assert not waits(handover, 3, LONG, lambda: put(handover, 1))
    handover.buffer.take()
    assert not waits(handover, 3, LONG, lambda: put(handover, 1, STREAM.writer.batch_bytes))


def test_what_is_there_is_not_waited_for(handover: Handover) -> None:
    """It arrived between the look and the wait."""
    put(handover, 3)
    assert not waits(handover, 3, LONG)


def test_a_batch_that_is_read_again_wakes(handover: Handover) -> None:
    """Not who waits for an outage to end: it cannot be written either."""
    batch = Batch([Message("logs.x", b"", 1, 1)], None, (), 0, 0, (1, 1), True)
    assert not waits(handover, 1, LONG, lambda: handover.put_reread(batch))
    assert not waits(handover, 1, LONG)
    assert waits(handover, FOREVER, SHORT)
    assert handover.rereads.take() is batch
    assert handover.rereads.take() is None
    assert not handover.rereads.idle
    handover.rereads.committed()
    assert handover.rereads.idle


def test_the_first_failure_ends_the_worker(handover: Handover) -> None:
    """What fails because of it is not the cause."""
    first, second = UnavailableError("first"), ConfigurationError("second")
    assert not waits(handover, FOREVER, LONG, lambda: handover.fail(first))
    handover.fail(second)
    assert handover.failure is first
    assert not waits(handover, FOREVER, LONG)


def test_a_task_that_dies_ends_the_worker(handover: Handover) -> None:
    """It would wait forever otherwise."""

    async def dies() -> None:
        raise ValueError("a defect")

    asyncio.run(handover.guarded(dies()))
    assert str(handover.failure) == "the NATS client failed: ValueError: a defect"


def test_what_is_taken_is_in_flight(handover: Handover) -> None:
    """And the newest of it is known; what is read again is older, and nothing to acknowledge."""
    live = Batch([Message("logs.x", b"", 7, 70), Message("logs.x", b"", 9, 90)], [5, 8], [b"a\nb"])
    handover.took(live)
    handover.took(Batch([Message("logs.x", b"", 20, 1)], [19], reread=True))
    assert [*handover.in_flight] == [[b"a\nb"], ()]
    assert handover.newest == (9, 90)
    assert handover.claims.ranges() == [(5, 6), (8, 8)]
