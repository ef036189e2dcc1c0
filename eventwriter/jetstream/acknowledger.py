"""What is told to the server of deliveries: acks, that we are still at work on them, and that we give them back."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from time import monotonic

import nats.errors

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ForbiddenError
from eventwriter.jetstream import wire
from eventwriter.jetstream.api import ANSWER_TIMEOUT, Api
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.deliveries import made
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress

log = logging.getLogger("eventwriter.source")

_TRIES = 3
"""How often a confirmation is asked for while there is a connection."""

_LATEST = 600.0
"""Seconds for which a delivery is given back at most, unless more is asked for."""


class Acknowledger:
    """Of one worker. Of the loop thread, but ``seconds`` may be read by any.

    Reply subjects come as pieces, each of one or more lines. Whether an ack may cover what lies before it is decided
    elsewhere (``ackall``).
    """

    def __init__(
        self,
        client: Client,
        api: Api,
        config: StreamConfig,
        handover: Handover,
        permissions: Permissions,
        progress: Progress,
        at: Callable[[str], None] | None = None,
    ) -> None:
        self._client = client
        self._api = api
        self._config = config
        self._handover = handover
        self._permissions = permissions
        self._progress = progress
        self._at = at
        self._tasks: set[asyncio.Task[None]] = set()
        self.seconds: deque[float] = deque(maxlen=1000)
        """How many seconds the acks of the latest batches took, until they were confirmed."""

    @property
    def possible(self) -> bool:
        """Whether acks can be sent, and may."""
        return self._client.is_connected and self._permissions.may_acknowledge

    # --- acks ---------------------------------------------------------------------------------------------------

    def begin(self, reply_subjects: Sequence[bytes], set_aside: Mapping[int, float]) -> None:
        """Acknowledges a batch; those of several go on beside each other. What is set aside of it is given back."""
        work = self._apart(reply_subjects, set_aside) if set_aside else self.acknowledge(reply_subjects)
        task = asyncio.get_running_loop().create_task(self._handover.guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def acknowledge(self, reply_subjects: Sequence[bytes]) -> None:
        """Acks follow the same buffered path in order, so the confirmation of the last covers all before it.

        A server with much to do may be late with that: only the last is sent again, unless the connection was lost.
        """
        begun = monotonic()
        earlier, _, last = b"\n".join(reply_subjects).rpartition(b"\n")
        sent_on: int | None = None
        tries = _TRIES
        while tries:
            while not self.possible:
                await asyncio.sleep(0.1)
            connection = self._client.stats["reconnects"]
            try:
                self._progress.sent(monotonic())
                if connection != sent_on:
                    await self._send(earlier)
                    sent_on = connection
                await self._api.ask(last.decode(), b"")
            except ForbiddenError:
                sent_on = None  # all of them, once we may
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError, nats.errors.OutboundBufferLimitError):
                tries -= 1
                await asyncio.sleep(0.2)
            else:
                self._progress.confirmed()
                self.seconds.append(monotonic() - begun)
                if self._at:
                    self._at("after_acks")
                return
        number = earlier.count(b"\n") + 2 if earlier else 1
        log.warning(
            "%d ack%s not confirmed: what is written will be delivered again, and known",
            *(number, "s were" if number > 1 else " was"),
            extra={"stream": self._config.name},
        )

    async def _apart(self, reply_subjects: Sequence[bytes], set_aside: Mapping[int, float]) -> None:
        """Gives back what is set aside, for longer each time, and acknowledges the others."""
        others = []
        for reply in b"\n".join(reply_subjects).split(b"\n"):
            delivered, sequence = made(reply)
            seconds = set_aside.get(sequence)
            if seconds is None:
                others.append(reply)
            elif self.possible:  # else it comes after ack_wait
                seconds = max(seconds, min(seconds * 2 ** min(delivered - 1, 30), _LATEST))
                await wire.acknowledge(self._client, reply, b'-NAK {"delay": %d}' % int(seconds * 1e9))
        if others:
            await self.acknowledge(others)

    async def _send(self, reply_subjects: bytes) -> None:
        if self._at:
            lines = reply_subjects.split(b"\n")
            half = len(lines) // 2
            await wire.acknowledge(self._client, b"\n".join(lines[:half]))
            await self._client.flush()
            self._at("in_acks")
            reply_subjects = b"\n".join(lines[half:])
        await wire.acknowledge(self._client, reply_subjects)

    # --- still at work ------------------------------------------------------------------------------------------

    async def keep_alive(self) -> None:
        """Extends the deadline of messages that wait longer than a third of it, such as during an outage."""
        buffer, period = self._handover.buffer, self._config.writer.ack_wait / 3
        while True:
            received = buffer.received
            await asyncio.sleep(period)
            # What had been received one period ago and is still here: it is never older than two of them.
            old = received - buffer.taken
            in_flight, waiting = b"\n".join(chain(*tuple(self._handover.in_flight))), buffer.reply_subjects()
            if not self.possible:
                continue
            if in_flight and old + in_flight.count(b"\n") + 1 > 0:
                await wire.acknowledge(self._client, in_flight, b"+WPI")
            late = b"\n".join(waiting).split(b"\n")[: max(0, old)]
            await wire.acknowledge(self._client, b"\n".join(late), b"+WPI")

    # --- the end ------------------------------------------------------------------------------------------------

    async def finish(self, deadline: float) -> bool:
        """Waits for acks that are not confirmed; whether none was left at the ``deadline``."""
        while self._tasks and self.possible and monotonic() < deadline:
            await asyncio.wait(self._tasks, timeout=0.2)
        finished = not self._tasks
        for task in list(self._tasks):
            task.cancel()
        return finished

    async def release(self) -> None:
        """Gives back what was not written: it is delivered again at once."""
        pieces = [*chain(*self._handover.in_flight), *self._handover.buffer.reply_subjects()]
        earlier, _, last = b"\n".join(pieces).rpartition(b"\n")
        if last and self.possible:
            if self._at:
                self._at("in_drain")
            await wire.acknowledge(self._client, earlier, b"-NAK")
            await self._client.request(last.decode(), b"-NAK", timeout=ANSWER_TIMEOUT)
