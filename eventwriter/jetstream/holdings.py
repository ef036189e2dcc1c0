"""What the stream holds of some sequences: where that begins and ends, and how much it is. Nothing of it is read.

Whoever holds the ledger's gaps against this knows what is missing without a look at what is not: millions of messages
cost a few requests, and none is transferred but those at the ends of a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Segment
from eventwriter.errors import ConfigurationError, ForbiddenError
from eventwriter.jetstream import gaps
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.consumer import ConsumerInfo, StreamInfo

_NEVER = 1 << 63
_NARROW = 50
"""Sequences among which messages are counted one by one: that costs less than consumers, which the server keeps."""
_COUNTING = 5
"""Seconds for which the server keeps a consumer that was only made to count."""
_TRIES = 10
"""Times that a count is tried again because messages arrived meanwhile."""


class Held(NamedTuple):
    """Messages that the stream holds, of ours, with nothing of ours between them that is not of them."""

    first: int
    last: int
    messages: int

    @property
    def whole(self) -> bool:
        """Whether every sequence is one of them."""
        return self.messages == self.last - self.first + 1


def passed(stream: StreamInfo, consumer: ConsumerInfo) -> int:
    """The sequence up to which the consumer delivers nothing any more: what is not written up to there is missing.

    The stream has to have been asked before the consumer.
    """
    if not consumer.pending and not consumer.ack_pending:
        return max(consumer.ack_floor, consumer.start - 1, stream.last_sequence)
    return max(consumer.ack_floor, consumer.start - 1)


async def count(request: Request, config: StreamConfig, filters: Sequence[str], first: int, last: int) -> int:
    """How many messages that a filter matches the stream holds between two sequences.

    A consumer tells what lies from its beginning to the end of the stream, so the difference of two tells it. If
    messages keep arriving just meanwhile, they may be missing from it: it is too small by so many at most.
    """
    if last < first:
        return 0
    found = 0
    try:
        for _ in range(_TRIES):
            after, whole, later = [await _from(request, config, filters, at) for at in (last + 1, first, last + 1)]
            found = max(0, whole - later)
            if after == later:
                break
    except (ConfigurationError, ForbiddenError):  # a work-queue stream, a limit, a permission
        return await _one_by_one(request, config, filters, first, last)
    return found


async def _from(request: Request, config: StreamConfig, filters: Sequence[str], first: int) -> int:
    segment = Segment(first, first, tuple(filters))
    return (await gaps.create_reader(request, config, segment, seconds=_COUNTING)).pending


async def _one_by_one(request: Request, config: StreamConfig, filters: Sequence[str], first: int, last: int) -> int:
    found = 0
    while (first := await _next(request, config, filters, first)) <= last:
        found, first = found + 1, first + 1
    return found


async def _next(request: Request, config: StreamConfig, filters: Sequence[str], first: int) -> int:
    messages = await asyncio.gather(*(gaps.next_message(request, config, pattern, first) for pattern in filters))
    return min((message.sequence for message in messages if message), default=_NEVER)


async def gaps_of(
    request: Request,
    config: StreamConfig,
    segments: Sequence[Segment],
    *,
    whole: bool,
    tell: Callable[[int, int], object] = lambda done, total: None,
) -> list[Held]:
    """What the stream holds of segments in rising order, each from its first message to its last.

    ``whole``: all sequences are of ours, and held, so that those missing for all subjects count themselves. ``tell``
    hears how many are through.
    """
    found: list[Held] = []
    every = {*config.subjects}
    plain = {segment for segment in segments if whole and every <= {*segment.filters}}
    held = await gaps.held(request, config, [segment for segment in segments if segment not in plain])
    for done, segment in enumerate(sorted([*plain, *held], key=lambda each: each.first)):
        tell(done, len(plain) + len(held))
        last = segment.last if segment in plain else await _last(request, config, segment)
        width = last - segment.first + 1
        if segment in plain or width == 1:
            messages = width
        elif width <= _NARROW:
            messages = await _one_by_one(request, config, segment.filters, segment.first, last)
        else:
            messages = await count(request, config, segment.filters, segment.first, last)
        if found and found[-1].last + 1 == segment.first:
            before = found.pop()
            found.append(Held(before.first, last, before.messages + messages))
        else:
            found.append(Held(segment.first, last, messages))
    return found


async def _last(request: Request, config: StreamConfig, segment: Segment) -> int:
    """The last message of a segment that begins with one."""
    low, high = segment.first, segment.last
    probe = high  # most often it is that
    while low < high:
        following = await _next(request, config, segment.filters, probe)
        if following <= segment.last:
            low = following
        else:
            high = probe - 1
        probe = (low + high + 1) // 2
    return low


async def time_of(request: Request, config: StreamConfig, sequence: int) -> datetime | None:
    """When the first message from this sequence on was received; None if there is none."""
    message = await gaps.next_message(request, config, ">", sequence)
    return None if message is None else datetime.fromtimestamp(message.time / 1e9, UTC)


async def since(request: Request, config: StreamConfig, stream: StreamInfo, time: datetime) -> int:
    """The first sequence that the stream received at this time or later; one beyond its last if there is none."""
    low, high = stream.first_sequence, stream.last_sequence + 1
    while low < high:
        middle = (low + high) // 2
        message = await gaps.next_message(request, config, ">", middle)
        if message is None or message.time >= time.timestamp() * 1e9:
            high = middle
        else:
            low = message.sequence + 1
    return low
