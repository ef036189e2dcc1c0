"""Reads again, beside the durable consumer, what the stream still holds of some segments."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg

from eventwriter import gaps, wire
from eventwriter.config import StreamConfig
from eventwriter.consumer import Api
from eventwriter.coverage import Segment
from eventwriter.deliveries import read
from eventwriter.errors import ConfigurationError, ForbiddenError, UnavailableError
from eventwriter.stream import Batch, Message
from eventwriter.wire import Delivery

log = logging.getLogger("eventwriter.source")

_WAITING = 2
"""Batches to read ahead."""
_ONE_BY_ONE = 500
"""Messages of a batch that is read one by one."""
_SILENCE = 10.0
"""Seconds without an answer to a pull, which the server answers at once, after which it counts as lost."""
_PATIENCE = 0.5
"""Seconds after which to look whether the connection is still the one of the pull."""


class Reader:
    """Reads on the loop thread; the main thread takes batches, and tells which are committed.

    A batch accounts for everything from the one before it in its segment, so that the ledger's ranges stay few.
    """

    def __init__(self, client: Client, api: Api, config: StreamConfig, arrived: Callable[[], None]) -> None:
        self._nc = client
        self._api = api
        self._config = config
        self._arrived = arrived
        self._batches: deque[Batch] = deque()
        self._taken = 0
        self._answers: asyncio.Queue[Msg] = asyncio.Queue()
        self._reconnects = 0

    # --- the main thread ----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether there is a batch to take."""
        return bool(self._batches)

    @property
    def idle(self) -> bool:
        """Whether all that was read is taken and committed."""
        return not self._batches and not self._taken

    def take(self) -> Batch:
        """The next batch."""
        self._taken += 1
        return self._batches.popleft()

    def committed(self) -> None:
        """A batch that was taken is in the tables."""
        self._taken -= 1

    # --- the loop thread ----------------------------------------------------------------------------------------

    async def read(self, segments: Sequence[Segment]) -> None:
        """Reads all of them; raises UnavailableError if that cannot be done now."""
        self._batches.clear()
        for segment in segments:
            try:
                name = await gaps.create_reader(self._api, self._config, segment)
            except (ConfigurationError, ForbiddenError) as error:
                # A work-queue stream, a limit, a permission: one by one it takes longer, but nothing more than to look.
                log.info("reading one by one: %s", error, extra={"stream": self._config.name})
                await self._get(segment)
                continue
            inbox, self._reconnects = self._nc.new_inbox(), self._nc.stats["reconnects"]
            self._answers = asyncio.Queue()
            subscription = await self._nc.subscribe(inbox, cb=self._answers.put, pending_msgs_limit=-1)
            try:
                await self._read(segment, name, inbox)
            finally:
                if self._nc.is_connected:
                    await subscription.unsubscribe()

    async def _get(self, segment: Segment) -> None:
        """As ``_read``, with a request for each message and filter."""
        following: dict[str, Message | None] = {}
        first, sequence = segment.first, segment.first
        messages: list[Message] = []
        while True:
            for pattern in segment.filters:
                known = following.get(pattern, messages)
                if known is messages or (isinstance(known, Message) and known.sequence < sequence):
                    following[pattern] = await gaps.next_message(self._api, self._config, pattern, sequence)
            found = [each for each in following.values() if each is not None and each.sequence <= segment.last]
            if found:
                messages.append(min(found, key=lambda each: each.sequence))
                sequence = messages[-1].sequence + 1
            if messages and (not found or len(messages) >= _ONE_BY_ONE):
                await self._room()
                self._put(messages, first)
                first, messages = messages[-1].sequence + 1, []
            if not found:
                return

    async def _room(self) -> None:
        while len(self._batches) >= _WAITING:
            await asyncio.sleep(0.01)

    def _put(self, messages: list[Message], first: int) -> None:
        size = sum(len(message.payload) for message in messages)
        self._batches.append(Batch(messages, None, (), size, 0, (first, messages[-1].sequence)))
        self._arrived()

    async def _read(self, segment: Segment, name: str, inbox: str) -> None:
        first, size, number = segment.first, self._config.writer.batch_bytes, 1
        while first <= segment.last:
            await self._room()
            deliveries, end = await self._pull(name, inbox, size)
            if not deliveries and not end:
                size = 0 if size else self._config.writer.batch_bytes  # the next message alone is larger than a batch
                continue
            size = self._config.writer.batch_bytes
            if not deliveries:
                return
            portion = read(deliveries, sum(len(delivery[1]) for delivery in deliveries))
            if portion.numbers != range(number, number := number + len(deliveries)):
                # This consumer delivers nothing twice: what a connection that broke has lost must not seem read.
                raise UnavailableError(f"some of what stream {self._config.stream} holds was lost on its way")
            messages = [message for message in portion.messages if message.sequence <= segment.last]
            if messages:
                self._put(messages, first)
                first = messages[-1].sequence + 1
            if len(messages) < len(portion.messages) or not portion.pending:
                return

    async def _pull(self, name: str, inbox: str, size: int) -> tuple[list[Delivery], bool]:
        """What one pull delivers; whether there is no more if that is nothing."""
        batch = self._config.writer.batch_messages if size else 1
        body = {"batch": batch, "no_wait": True} | ({"max_bytes": size} if size else {})
        await self._nc.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._config.stream}.{name}", json.dumps(body).encode(), reply=inbox
        )
        found: list[Delivery] = []
        while len(found) < batch:
            msg = await self._answer()
            if not msg.reply:
                headers = msg.headers or {}
                text = headers.get("Description", "")
                if "Batch Completed" in text:  # of the pull before
                    continue
                if headers.get("Status") in ("404", "408"):
                    return found, True
                if "Exceeds MaxBytes" in text:
                    return found, False
                raise UnavailableError(f"JetStream does not deliver what stream {self._config.stream} holds: {text}")
            found.append(wire.from_message(msg.subject, msg.data, msg.reply, msg.headers))
        return found, False

    async def _answer(self) -> Msg:
        try:
            return self._answers.get_nowait()  # to wait costs more than all the rest
        except asyncio.QueueEmpty:
            pass
        for _ in range(int(_SILENCE / _PATIENCE)):
            try:
                return await asyncio.wait_for(self._answers.get(), _PATIENCE)
            except TimeoutError:
                if self._nc.stats["reconnects"] != self._reconnects or not self._nc.is_connected:
                    break  # the pull was that of another connection
        raise UnavailableError(f"JetStream stopped delivering what stream {self._config.stream} holds")
