"""Questions about a stream, for commands that wait for the answer: beside the workers, without anything of theirs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.jetstream import consumer
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo
from eventwriter.jetstream.loop import Loop
from eventwriter.jetstream.tapping import Tap
from eventwriter.jetstream.visit import Visit

T = TypeVar("T")
_CONNECT = 30.0
"""Seconds: the connection tells by itself, and sooner, why it cannot be had."""


class Visitor:
    """Asks about one stream. Of the main thread."""

    def __init__(self, loop: Loop, visit: Visit, config: StreamConfig) -> None:
        self._loop = loop
        self._config = config
        self._client = visit.client
        self._api, _ = visit.questions(config)

    def stream_info(self) -> StreamInfo:
        """The stream as it is now."""
        return self.ask(lambda request: consumer.stream_info(request, self._config))

    def consumer_info(self) -> ConsumerInfo | None:
        """The durable as it is now; None if there is none."""
        return self.ask(lambda request: consumer.consumer_info(request, self._config))

    def ask(self, question: Callable[[Request], Coroutine[Any, Any, T]]) -> T:
        """The answer to what takes requests, however many: each of them may take seconds."""
        return self.run(question(self._api.request))

    def tap(self, subjects: Sequence[str]) -> Tap:
        """A look at what flows, of these subjects."""
        return Tap(self._client, self._api, self._config, subjects)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Its result, however long it takes; ended by Ctrl-C."""
        future = self._loop.begin(work)
        try:
            return future.result()
        finally:
            future.cancel()


@contextmanager
def visiting(settings: NatsConfig, name: str) -> Iterator[Callable[[StreamConfig], Visitor]]:
    """A connection, and who asks about each stream by it; raises the error that tells why there is none."""
    loop, visit = Loop(), Visit(settings, f"eventwriter {name}")
    loop.start()
    try:
        loop.call(visit.open(), _CONNECT)
        yield lambda config: Visitor(loop, visit, config)
    finally:
        with suppress(Exception):  # what is only half connected raises anything when it is closed
            loop.call(visit.close(), 2.0)
        loop.stop()
