"""The thread on which all that speaks with NATS runs, and the way into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from time import monotonic
from typing import Any, TypeVar

import nats.errors

from eventwriter.errors import UnavailableError

T = TypeVar("T")

_BEAT = 1.0
"""Seconds between two signs of life of whoever waits."""


class Loop:
    """An asyncio loop in a thread of its own. Its methods are for the other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="jetstream", daemon=True)
        self.beat: Callable[[], None] = lambda: None
        """Called now and then while ``call`` waits: whoever waits for an answer is alive."""

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Has it run, without waiting for the end. An error of the NATS client becomes UnavailableError."""

        async def translated() -> T:
            try:
                return await coroutine
            except nats.errors.Error as error:
                raise UnavailableError(f"NATS: {error or type(error).__name__}") from error

        return asyncio.run_coroutine_threadsafe(translated(), self._loop)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        """Its result; raises UnavailableError after ``timeout`` seconds."""
        future = self.begin(coroutine)
        deadline = monotonic() + timeout
        try:
            while not wait([future], min(_BEAT, max(0.0, deadline - monotonic()))).done and monotonic() < deadline:
                self.beat()
            return future.result(0)
        except TimeoutError:
            future.cancel()
            raise UnavailableError("NATS does not answer") from None

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Has the thread call it; nothing once the loop is closed. Safe in a signal handler."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(callback, *arguments)

    def stop(self) -> None:
        """Ends the thread, unless it is stuck."""
        if self.running:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2.0)
        if not self.running:
            self._loop.close()
