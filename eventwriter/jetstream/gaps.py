"""What the stream holds beside the durable: looked for by subject, and read again."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Segment, widest
from eventwriter.jetstream.api import Request, error_code, failed
from eventwriter.jetstream.durable import filters
from eventwriter.jetstream.wire import headers_of
from eventwriter.stream import Message

_NO_MESSAGE = 10037
_NANO = 1_000_000_000
_NEVER = 1 << 63
_TIME = re.compile(r"([^.]*?)(?:\.([0-9]{1,9}))?(Z|[+-][0-9:]+)")


async def held(request: Request, config: StreamConfig, segments: Sequence[Segment]) -> list[Segment]:
    """Of segments in rising order what the stream still holds: each from its first message that a filter matches.

    One request a segment and filter at most: a message that is found beyond a segment answers for those before it.
    """
    following: dict[str, int] = {}
    found = []
    for segment in segments:
        for pattern in segment.filters:
            if following.get(pattern, 0) < segment.first:
                message = await next_message(request, config, pattern, segment.first)
                following[pattern] = message.sequence if message else _NEVER
        first = min(following[pattern] for pattern in segment.filters)
        if first <= segment.last:
            found.append(Segment(first, segment.last, segment.filters))
    return found


async def next_message(request: Request, config: StreamConfig, pattern: str, first: int) -> Message | None:
    """The first message from the sequence ``first`` on that a filter matches, None if the stream holds none."""
    answer = await request(f"STREAM.MSG.GET.{config.stream}", {"seq": first, "next_by_subj": pattern})
    if error_code(answer) == _NO_MESSAGE:
        return None
    if "error" in answer:
        raise failed(answer, f"stream {config.stream}")
    message = answer["message"]
    headers = headers_of(base64.b64decode(message["hdrs"])) if message.get("hdrs") else None
    payload = base64.b64decode(message.get("data", ""))
    return Message(message["subject"], payload, int(message["seq"]), _nanos(message["time"]), headers)


class Reading(NamedTuple):
    """A consumer that was made to read something beside the durable."""

    name: str
    pending: int
    """How many messages there are from where it begins, as of when it was made."""


async def create_reader(
    request: Request, config: StreamConfig, segment: Segment, *, seconds: int = 60, **more: Any
) -> Reading:
    """A consumer, forgotten by the server ``seconds`` after its last use, that reads without acknowledging.

    It begins at the segment's first sequence, or as ``more`` of its settings say. Raises ConfigurationError where the
    stream or the account allows no second consumer, ForbiddenError.
    """
    wanted = {
        "description": f"eventwriter: {config.name} reads beside {config.durable}",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": segment.first,
        "ack_policy": "none",
        "max_deliver": -1,
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": seconds * _NANO,
    }
    wanted |= filters(widest(segment.filters)) | more
    answer = await request(f"CONSUMER.CREATE.{config.stream}", {"stream_name": config.stream, "config": wanted})
    if "error" in answer:
        raise failed(answer, f"a second consumer of stream {config.stream}, to read beside {config.durable}")
    return Reading(str(answer["name"]), int(answer["num_pending"]))


def _nanos(text: str) -> int:
    """Nanoseconds since 1970 of a time as JetStream writes it (RFC 3339, up to nine digits of a second)."""
    found = _TIME.fullmatch(text)
    assert found is not None, text
    seconds, fraction, zone = found.groups()
    return int(datetime.fromisoformat(seconds + zone).timestamp()) * _NANO + int((fraction or "").ljust(9, "0"))
