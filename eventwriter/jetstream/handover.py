"""What the loop thread and the main thread of a worker share, and how one wakes the other."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Coroutine, Sequence
from typing import Any

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import EventWriterError, UnavailableError
from eventwriter.jetstream.buffer import Buffer, Rereads
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.deliveries import Portion
from eventwriter.stream import Batch

log = logging.getLogger("eventwriter.source")

FOREVER = 1 << 30
"""More messages than ever wait: nothing that arrives wakes who wants so many."""


class Handover:
    """Every field is written by one of the two threads only, or atomically under the interpreter lock."""

    def __init__(self, config: StreamConfig) -> None:
        self._extra = {"stream": config.name}
        self._enough = config.writer.batch_bytes
        self._wanted = FOREVER
        self._arrived = threading.Event()
        self.buffer = Buffer(config.writer.batch_messages, config.writer.batch_bytes)
        self.rereads = Rereads()
        self.claims = Claims()
        self.in_flight: deque[Sequence[bytes]] = deque()
        """The reply subjects of each batch that is taken and not written. Of the main thread."""
        self.newest = (0, 0)
        """Sequence and time of the newest message that was taken. Of the main thread."""
        self.holding = False
        """Whether nothing more shall be pulled: batches cannot be written now. Of the main thread."""
        self.stopping = False
        """Whether it is time to end. Of the main thread."""
        self.failure: EventWriterError | None = None
        """What ends the worker, the first of it."""

    # --- the loop thread ----------------------------------------------------------------------------------------

    def put(self, portion: Portion) -> None:
        """What has arrived; wakes the main thread if that is what it waits for."""
        self.buffer.put(portion)
        if len(self.buffer) >= self._wanted or (self._wanted < FOREVER and self.buffer.size >= self._enough):
            self._wanted = FOREVER
            self._arrived.set()

    def put_reread(self, batch: Batch) -> None:
        """What was missing and is read again; wakes the main thread."""
        self.rereads.put(batch)
        self._arrived.set()

    def notify(self) -> None:
        """Wakes the main thread."""
        self._arrived.set()

    async def guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Does the work of a task; what it raises ends the worker: a dead task would leave it waiting forever."""
        try:
            await work
        except EventWriterError as error:
            self.fail(error)
        except Exception as error:
            log.exception("the loop thread failed", extra=self._extra)
            self.fail(UnavailableError(f"the NATS client failed: {type(error).__name__}: {error}"))

    # --- both ---------------------------------------------------------------------------------------------------

    def fail(self, error: EventWriterError) -> None:
        """Ends the worker."""
        if self.failure is None:
            self.failure = error
        self._arrived.set()

    # --- the main thread ----------------------------------------------------------------------------------------

    def took(self, batch: Batch) -> None:
        """It is in flight until it is acknowledged, or released."""
        self.in_flight.append(batch.reply_subjects)
        if batch.reread:
            return
        newest = batch.newest
        if newest.sequence > self.newest[0]:
            self.newest = (newest.sequence, newest.time)
        self.claims.add(batch)

    def part_in_flight(self, messages: int) -> Sequence[bytes]:
        """The reply subjects of the first so many of a batch: they must not be given back with the others of it.

        Were its ledger to vanish meanwhile, nobody would know them when they come again.
        """
        lines = b"\n".join(self.in_flight[0]).split(b"\n")
        self.in_flight[0] = [b"\n".join(lines[messages:])]
        return lines[:messages]

    def wait(self, wanted: int, timeout: float) -> None:
        """Waits until so many messages are there, or bytes enough for a batch, or a reread; ``timeout`` in seconds."""
        self._arrived.clear()
        self._wanted = wanted
        # Checked after announcing what is wanted: what arrived in between would otherwise not wake us.
        there = len(self.buffer) >= wanted or (wanted < FOREVER and self.rereads)
        if not (self.stopping or self.failure is not None or there):
            self._arrived.wait(timeout)
        self._wanted = FOREVER
