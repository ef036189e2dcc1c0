"""Pulls: one at a time, when there is room for what it brings, and when it is this process's turn."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from time import monotonic
from typing import Protocol

import nats.errors

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ConfigurationError, ForbiddenError, UnavailableError
from eventwriter.jetstream import durable
from eventwriter.jetstream.binding import Binding
from eventwriter.jetstream.buffer import Gap
from eventwriter.jetstream.deliveries import read
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.limits import HEARTBEAT, Limits
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.pull import Pull
from eventwriter.jetstream.turn import Order, Turn
from eventwriter.jetstream.wire import Delivery

log = logging.getLogger("eventwriter.source")

SILENCES = 3
"""Pulls in a row without any sign of life after which the connection is not believed any more."""
IDLE = 1.0
"""Seconds without a pull, such as during an outage, after which the next one begins with a look at the stream."""
REFUSED = 0.25
"""Seconds after a pull that was refused until the next."""
SHORTEST = 0.1
"""Seconds between two pulls that end with nothing, however short a consumer makes them."""
UNKNOWN = 0.5
"""Seconds until JetStream is asked again for what it could not tell after an interruption."""


class Connection(Protocol):
    """What a puller needs of the client."""

    @property
    def is_connected(self) -> bool: ...
    async def publish(self, subject: str, payload: bytes, reply: str) -> None: ...


class Puller:
    """Of one worker. Of the loop thread, but ``standby`` and ``pull.idle`` may be read by any.

    ``deliver``, ``told``, ``interrupt`` and ``silence`` are what becomes of a pull, and ``step`` decides whether it is
    time for the next. Only ``run`` waits.
    """

    def __init__(
        self,
        client: Connection,
        binding: Binding,
        config: StreamConfig,
        handover: Handover,
        permissions: Permissions,
        progress: Progress,
        turn: Turn | None = None,
        at: Callable[[str], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._client = client
        self._binding = binding
        self._config = config
        self._handover = handover
        self._permissions = permissions
        self._progress = progress
        self._order = Order(turn)
        self._at = at
        self._clock = clock
        self._extra = {"stream": config.name}
        self.pull = Pull(clock())
        self.wake = asyncio.Event()
        """To be set when it may be time for the next pull."""
        self._not_before = 0.0
        self._heard = False
        self._silences = 0
        self._interrupted = False
        self._one_of_any_size = False

    @property
    def standby(self) -> bool:
        """Whether it is another process's turn to pull."""
        return not self._order.mine and self.pull.idle

    @property
    def eager(self) -> bool:
        """Whether there is room for messages, and they can come."""
        writer, handover = self._config.writer, self._handover
        messages, size = self._room()
        return (
            self._client.is_connected
            and not handover.holding
            and not handover.stopping
            and not handover.claims.full
            and messages >= writer.batch_messages // 2
            and size >= writer.batch_bytes // 2
        )

    def _room(self) -> tuple[int, int]:
        writer, buffer = self._config.writer, self._handover.buffer
        return 2 * writer.batch_messages - len(buffer), 2 * writer.batch_bytes - buffer.size

    # --- what becomes of a pull ---------------------------------------------------------------------------------

    def deliver(self, deliveries: list[Delivery], size: int) -> None:
        """It brings messages, with ``size`` bytes of payload."""
        try:
            portion = read(deliveries, size)
        except Exception as error:  # raised here it would only be the client's error: to be lost with what it is about
            log.exception("deliveries that cannot be read", extra=self._extra)
            text = f"JetStream delivers what cannot be read: {type(error).__name__}: {error}"
            self._handover.fail(UnavailableError(text))
            return
        self._heard = True
        self._progress.accepted()
        self._order.backlog = portion.pending > 0
        ended = self.pull.brought(len(deliveries), portion.cost, self._clock())
        self._handover.put(portion)
        if ended:
            self.wake.set()

    def told(self, subject: str, status: str, text: str) -> None:
        """A heartbeat, or the end of a pull."""
        self._heard = True
        if status in ("100", "408"):
            self._progress.accepted()
        if status == "100" or subject != self.pull.reply:
            return  # a heartbeat, or the end of a pull that we gave up
        if status == "400":
            self._handover.fail(UnavailableError(f"JetStream refuses our pull request: {text}"))
        elif status == "409" and "Exceeded MaxRequest" in text:
            self._binding.limits = None  # somebody changed what a pull may ask for
        elif status == "409" and "MaxBytes" in text:
            # Nothing fits: the next message alone is larger than what was asked for.
            self._one_of_any_size = self.pull.brought_nothing
        elif status == "409" and "Consumer Deleted" in text:
            self._handover.fail(self._binding.deleted())
        elif status == "409" and "push" in text:
            self._handover.fail(ConfigurationError(durable.push(self._config)))
        elif status == "408":
            self._not_before = self.pull.began + SHORTEST
        elif status != "404" and "Batch Completed" not in text:
            # 503: no leader, no JetStream, or no such consumer. Others: leadership change, too many waiting pulls.
            self._not_before = self._clock() + REFUSED
            self._interrupted = True
            # Of a server that goes the connection tells, which ends with it.
            why = f"{status} {text}"
            self._progress.refused(why, "" if text == "Server Shutdown" else f"JetStream ended a pull ({why})")
        self.pull.end(self._clock())
        self.wake.set()

    def interrupt(self) -> None:
        """The connection is lost, or a new one: the pull is gone, and what follows may not continue what came."""
        self.pull.give_up()
        self._interrupted = True
        self._handover.buffer.mark(Gap.LOST)
        self.wake.set()

    def silence(self) -> None:
        """Nothing happened for as long as two heartbeats take; raises UnavailableError when that is too often."""
        if self.pull.idle or self._heard or not self._client.is_connected:
            return
        self._silences += 1
        self.pull.give_up()  # lost: pull again
        self._interrupted = True
        if self._silences >= SILENCES:
            raise UnavailableError("NATS is silent although connected: starting again") from None

    def stuck(self, others: bool) -> None:
        """Whether the consumer stands still; if it is another process's turn, that one does."""
        self._order.stuck = others
        if others and self.standby:
            self.wake.set()

    # --- the next pull ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Pulls until it is cancelled, or raises the error to end with."""
        while True:
            self.wake.clear()
            if (pause := await self.step()) > 0:
                await asyncio.sleep(pause)
                continue
            try:
                await asyncio.wait_for(self.wake.wait(), 2 * HEARTBEAT)
            except TimeoutError:
                self.silence()
            else:
                self._silences = 0

    async def step(self) -> float:
        """Pulls if it is time to; seconds until the next step, 0 if something has to happen first."""
        if (rest := self._not_before - self._clock()) > 0:
            return rest
        idle, loop = self.pull.idle, asyncio.get_running_loop()
        wanted = idle and self.eager and self._permissions.may_pull
        if self._order.admits(wanted=wanted, idle=idle, got=lambda: loop.call_soon_threadsafe(self.wake.set)):
            if not await self._resume():
                return UNKNOWN
            await self._pull()
        self._heard = False
        return 0.0

    async def _resume(self) -> bool:
        """Before the first pull after an interruption: is all as it was? False if that cannot be told now.

        What a pull delivers belongs to the consumer of that moment, for when a consumer is deleted its pulls end.
        """
        if not self._interrupted and self._binding.limits is not None and self._clock() - self.pull.ended < IDLE:
            return True
        try:
            error = await self._binding.changed()
        except (UnavailableError, nats.errors.Error) as unknown:
            why = str(unknown) or type(unknown).__name__
            # Of what is forbidden is told already.
            self._progress.refused(why, "" if isinstance(unknown, ForbiddenError) else f"not pulling yet: {why}")
            return False
        if error is not None:
            raise error
        self._handover.buffer.mark(Gap.LOST if self._interrupted else Gap.PAUSE)
        self._interrupted = False
        self.pull.ended = self._clock()
        return True

    async def _pull(self) -> None:
        writer, limits = self._config.writer, self._binding.limits or Limits()
        messages, size = self._room()
        if self._order.shared:  # the next piece is the next process's
            messages, size = min(messages, writer.batch_messages), min(size, writer.batch_bytes)
        body = limits.request(1, 0) if self._one_of_any_size else limits.request(messages, size)
        self.pull.begin(body, self._clock())
        self._one_of_any_size = False
        await self._client.publish(self._permissions.pull, json.dumps(body).encode(), reply=self.pull.reply)
        if self._at:
            self._at("after_pull")
