"""Reads again, beside the durable consumer, what the stream still holds of some segments."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg

from eventwriter.config import subjects
from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Segment
from eventwriter.errors import ConfigurationError, ForbiddenError, UnavailableError
from eventwriter.jetstream import gaps, wire
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.deliveries import read
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.wire import Delivery
from eventwriter.stream import Batch, Message

log = logging.getLogger("eventwriter.source")

_WAITING = 2
"""Batches to read ahead."""
_NEAR = 2000
"""Sequences between two segments that one consumer reads: to skip as many messages costs less than another consumer."""
_FEW = 50
"""Sequences that are not worth a consumer, which the server keeps for a while."""
_ONE_BY_ONE = 500
"""Messages of a batch that is read one by one."""
_SILENCE = 10.0
"""Seconds without an answer to a pull, which the server answers at once, after which it counts as lost."""
_PATIENCE = 0.5
"""Seconds after which to look whether the connection is still the one of the pull."""


class Reader:
    """Hands batches over to the main thread. Of the loop thread.

    A batch accounts for everything from the one before it in its segment, so that the ledger's ranges stay few.
    """

    def __init__(self, client: Client, api: Api, config: StreamConfig, handover: Handover) -> None:
        self._nc = client
        self._api = api
        self._config = config
        self._handover = handover
        self._answers: asyncio.Queue[Msg] = asyncio.Queue()
        self._reconnects = 0

    async def read(self, segments: Sequence[Segment]) -> None:
        """Reads all of them; raises UnavailableError if that cannot be done now."""
        self._handover.rereads.clear()
        for near in _neighbours(segments):
            if near[-1].last - near[0].first < _FEW or not await self._read_at_once(near):
                for segment in near:
                    await self._get(segment)

    async def _read_at_once(self, near: Sequence[Segment]) -> bool:
        """Reads neighbouring segments with one consumer; False where none is allowed."""
        filters = tuple(dict.fromkeys(pattern for segment in near for pattern in segment.filters))
        whole = Segment(near[0].first, near[-1].last, filters)
        try:
            name, _ = await gaps.create_reader(self._api.request, self._config, whole)
            await self._api.check_pull(self._config.stream, name)
        except (ConfigurationError, ForbiddenError) as error:
            # A work-queue stream, a limit, a permission: one by one it takes longer, but nothing more than to look.
            log.info("reading one by one: %s", error, extra={"stream": self._config.name})
            return False
        inbox, self._reconnects = self._nc.new_inbox(), self._nc.stats["reconnects"]
        self._answers = asyncio.Queue()
        subscription = await self._nc.subscribe(inbox, cb=self._answers.put, pending_msgs_limit=-1)
        try:
            await self._read(_Missing(near), name, inbox)
        finally:
            if not self._nc.is_closed:  # during an outage too: the client would subscribe again after it
                await subscription.unsubscribe()
        return True

    async def _get(self, segment: Segment) -> None:
        """As ``_read``, with a request for each message and filter."""
        following: dict[str, Message | None] = {}
        first, sequence = segment.first, segment.first
        messages: list[Message] = []
        while True:
            for pattern in segment.filters:
                known = following.get(pattern, messages)
                if known is messages or (isinstance(known, Message) and known.sequence < sequence):
                    following[pattern] = await gaps.next_message(self._api.request, self._config, pattern, sequence)
            found = [each for each in following.values() if each is not None and each.sequence <= segment.last]
            if found:
                messages.append(min(found, key=lambda each: each.sequence))
                sequence = messages[-1].sequence + 1
            if messages and (not found or len(messages) >= _ONE_BY_ONE):
                await self._room()
                self._put(Batch(messages, None, (), _size(messages), 0, (first, messages[-1].sequence)))
                first, messages = messages[-1].sequence + 1, []
            if not found:
                return

    async def _room(self) -> None:
        while len(self._handover.rereads) >= _WAITING:
            await asyncio.sleep(0.01)

    def _put(self, batch: Batch) -> None:
        self._handover.put_reread(batch._replace(reread=True))

    async def _read(self, missing: _Missing, name: str, inbox: str) -> None:
        size, number = self._config.writer.batch_bytes, 1
        while True:
            await self._room()
            most = min(self._config.writer.batch_messages, missing.most) if size else 1
            deliveries, end = await self._pull(name, inbox, most, size)
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
            if (batch := missing.of(portion.messages)) is not None:
                self._put(batch)
            if not missing.most or not portion.pending:
                return

    async def _pull(self, name: str, inbox: str, batch: int, size: int) -> tuple[list[Delivery], bool]:
        """What one pull delivers; whether there is no more if that is nothing."""
        body = {"batch": batch, "no_wait": True} | ({"max_bytes": size} if size else {})
        await self._nc.publish(
            self._api.subject(f"CONSUMER.MSG.NEXT.{self._config.stream}.{name}"), json.dumps(body).encode(), reply=inbox
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


class _Missing:
    """Follows neighbouring segments through what is delivered, with what is known between them."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self._left = deque(segments)
        self._first = self._next = segments[0].first
        self._last = segments[-1].last
        self._matchers = {segment.filters: subjects.matcher(segment.filters) for segment in segments}

    @property
    def most(self) -> int:
        """How many messages there can be until the end, 0 behind it."""
        return max(0, self._last - self._next + 1)

    def of(self, messages: Sequence[Message]) -> Batch | None:
        """Those that are missing; each accounts for what lies before it in its segment."""
        found: list[Message] = []
        firsts: list[int] = []
        in_segments = set()
        for message in messages:
            while self._left and self._left[0].last < message.sequence:
                self._left.popleft()
                self._first = self._left[0].first if self._left else message.sequence
            if not self._left:
                break
            segment = self._left[0]
            if segment.first <= message.sequence and self._matchers[segment.filters](message.subject):
                found.append(message)
                firsts.append(self._first)
                in_segments.add(segment.first)
                self._first = message.sequence + 1
        self._next = messages[-1].sequence + 1
        if not found:
            return None
        if len(in_segments) == 1:
            return Batch(found, None, (), _size(found), 0, (firsts[0], found[-1].sequence))
        return Batch(found, firsts, (), _size(found))


def _size(messages: Sequence[Message]) -> int:
    return sum(len(message.payload) for message in messages)


def _neighbours(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    near: list[Segment] = []
    for segment in segments:
        if near and segment.first - near[-1].last > _NEAR:
            yield near
            near = []
        near.append(segment)
    if near:
        yield near
