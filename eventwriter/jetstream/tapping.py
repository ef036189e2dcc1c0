"""What flows through a stream, for people to look at: read by an ordered consumer of its own, beside the durable.

The server forgets that consumer when nobody asks it any more. If it is gone, or what it delivers has a gap, another one
goes on behind the last message that arrived, so none is left out and none comes twice.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg

from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Segment
from eventwriter.jetstream import gaps, wire
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.deliveries import read
from eventwriter.stream import Message

_BATCH = 200
"""Messages of a pull: what is looked at is to come soon, and little of what nobody looks at any more."""
_EXPIRES = 5.0
_HEARTBEAT = 1.0
_SILENCE = 3.0
"""Seconds without as much as a heartbeat, after which the consumer counts as gone."""
_KEPT = 30
"""Seconds for which the server keeps the consumer of a command that is gone."""
_BYTES = 4 * 2**20
_ENDED = ("404", "408")
_NANO = 1_000_000_000


class Tap:
    """One stream's, or of some of its subjects. Of the loop thread."""

    def __init__(self, client: Client, api: Api, config: StreamConfig, subjects: Sequence[str]) -> None:
        self._nc = client
        self._api = api
        self._config = config
        self._subjects = tuple(subjects)

    async def messages(self, first: int) -> AsyncIterator[list[Message]]:
        """Those from the sequence ``first`` on, as they arrive; goes on for ever.

        Raises ConfigurationError where the stream allows no second consumer, UnavailableError, ForbiddenError.
        """
        while True:
            async for messages in self._ordered(first):
                yield messages
                first = messages[-1].sequence + 1

    async def _ordered(self, first: int) -> AsyncIterator[list[Message]]:
        """The same until something is amiss."""
        segment = Segment(first, first, self._subjects)
        name, _ = await gaps.create_reader(self._api.request, self._config, segment, seconds=_KEPT)
        await self._api.check_pull(self._config.stream, name)
        inbox, answers = self._nc.new_inbox(), asyncio.Queue[Msg]()
        subscription = await self._nc.subscribe(inbox, cb=answers.put, pending_msgs_limit=-1)
        number, alone = 1, False
        try:
            while True:
                await self._pull(name, inbox, alone=alone)
                left, alone = 1 if alone else _BATCH, True
                ended: bool | None = False
                while left > 0 and not ended:
                    found, ended = await _arrived(answers)
                    if found:
                        portion = read([wire.from_message(m.subject, m.data, m.reply, m.headers) for m in found], 0)
                        if portion.numbers != range(number, number := number + len(found)):
                            return
                        left, alone = left - len(found), False
                        yield portion.messages
                    if ended is None:
                        return
        finally:
            if not self._nc.is_closed:  # during an outage too: the client would subscribe again after it
                await subscription.unsubscribe()

    async def _pull(self, name: str, inbox: str, *, alone: bool) -> None:
        """Asks for what comes next; ``alone`` for one message of whatever size."""
        limit = {"batch": 1} if alone else {"batch": _BATCH, "max_bytes": _BYTES}
        waiting = {"expires": int(_EXPIRES * _NANO), "idle_heartbeat": int(_HEARTBEAT * _NANO)}
        subject = self._api.subject(f"CONSUMER.MSG.NEXT.{self._config.stream}.{name}")
        await self._nc.publish(subject, json.dumps(limit | waiting).encode(), reply=inbox)


async def _arrived(answers: asyncio.Queue[Msg]) -> tuple[list[Msg], bool | None]:
    """The deliveries that have arrived; whether the pull is at its end, None if the consumer is."""
    found: list[Msg] = []
    try:
        message = await asyncio.wait_for(answers.get(), _SILENCE)
        while True:
            headers = message.headers or {}
            if message.reply:
                found.append(message)
            elif "Status" in headers and "Batch Completed" not in headers.get("Description", ""):
                if headers["Status"] in _ENDED or "MaxBytes" in headers.get("Description", ""):
                    return found, True
                if headers["Status"] != "100":
                    return found, None
            message = answers.get_nowait()
    except asyncio.QueueEmpty:
        return found, False
    except TimeoutError:
        return found, None
