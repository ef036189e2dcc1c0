"""The way into the loop thread: answers, errors and patience."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import nats.errors
import pytest

from eventwriter.errors import UnavailableError
from eventwriter.jetstream.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """One that runs."""
    loop = Loop()
    loop.start()
    yield loop
    loop.stop()
    assert not loop.running


async def name() -> str:
    """That of the thread which runs it."""
    return threading.current_thread().name


async def fail() -> None:
    """As the client does."""
    raise nats.errors.ConnectionClosedError


def test_work_is_done_on_its_thread(loop: Loop) -> None:
    """Waited for or not."""
    called = threading.Event()
    assert loop.call(name(), 5) == "jetstream"
    assert loop.begin(name()).result(5) == "jetstream"
    loop.soon(called.set)
    assert called.wait(5)


def test_errors_of_the_client_are_ours(loop: Loop) -> None:
    """The rest of the worker knows no NATS."""
    with pytest.raises(UnavailableError, match="NATS: nats: connection closed"):
        loop.call(fail(), 5)


def test_patience_ends(loop: Loop) -> None:
    """And what took too long is cancelled."""
    ended = threading.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(UnavailableError, match="NATS does not answer"):
        loop.call(endless(), 0.01)
    assert ended.wait(5)


def test_after_the_end_nothing_is_called() -> None:
    """A signal may come at any time; a worker may end before it has begun."""
    loop = Loop()
    loop.stop()
    loop.soon(pytest.fail, "called")
    loop.stop()
