"""A connection to ask JetStream about a stream, for commands: beside the workers, and without anything of theirs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.link import CONNECT_TIMEOUT, Link
from eventwriter.jetstream.loop import Loop

T = TypeVar("T")


class Visitor:
    """Asks and waits for the answer. Of the main thread."""

    def __init__(self, loop: Loop, link: Link) -> None:
        self._loop = loop
        self.link = link

    def stream_info(self) -> StreamInfo:
        """The stream as it is now."""
        return self._loop.call(self.link.binding.stream_info(), CONNECT_TIMEOUT)

    def consumer_info(self) -> ConsumerInfo | None:
        """The durable as it is now; None if there is none."""
        return self._loop.call(self.link.binding.consumer_info(), CONNECT_TIMEOUT)

    def ask(self, question: Callable[[Request], Coroutine[Any, Any, T]]) -> T:
        """The answer to what takes requests, however many: each of them may take seconds."""
        return self.run(question(self.link.api.request))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result, however long it takes; ended by Ctrl-C."""
        future = self._loop.begin(work)
        try:
            return future.result()
        finally:
            future.cancel()


@contextmanager
def visiting(settings: NatsConfig, stream: StreamConfig) -> Iterator[Visitor]:
    """Connected; raises the error that tells why that cannot be."""
    loop, handover = Loop(), Handover(stream)
    link = Link(settings, stream, handover)
    loop.start()
    try:
        loop.call(link.open(), CONNECT_TIMEOUT * 3)
        yield Visitor(loop, link)
    finally:
        handover.stopping = True
        with suppress(Exception):  # a client that is only half connected raises anything when it is closed
            loop.call(link.close(1.0), 2.0)
        loop.stop()
