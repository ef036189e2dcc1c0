"""The durable pull consumer: bound if it is there, created if missing, changed only by read, merge, write."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.jetstream import creation, durable
from eventwriter.jetstream.api import STREAM_NOT_FOUND, Request, error_code, failed
from eventwriter.jetstream.deliveries import is_hollow
from eventwriter.jetstream.limits import Limits
from eventwriter.stream import Message

_CONSUMER_NOT_FOUND = 10014
_DELIVER_ALL = 10101
_NANO = 1_000_000_000
_AT_ONCE = 100
"""Requests under way at a time."""


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What JetStream says of a stream."""

    name: str
    created: datetime
    """Truncated to the microsecond, as PostgreSQL keeps it."""
    first_sequence: int
    last_sequence: int
    first_time: datetime | None = None
    """When its first message was published; None if it holds none."""


@dataclass(frozen=True, slots=True)
class ConsumerInfo:
    """What JetStream says of our consumer."""

    created: bool
    """Whether it was missing and is new."""
    ack_floor: int
    """Stream sequence up to which everything of ours is acknowledged; 0 if nothing ever was."""
    pending: int
    """Messages of ours that were not delivered yet."""
    ack_pending: int
    """Messages delivered and not acknowledged."""
    delivered: int
    """The highest stream sequence that was delivered."""
    limits: Limits
    """What a pull may ask for."""
    start: int = 1
    """Stream sequence at which the consumer began: what lies below, nobody acknowledged to it."""
    complete: bool = True
    """Whether all below the ack floor is acknowledged: with max_deliver it also passes what the server gave up."""
    warnings: tuple[str, ...] = ()
    refusal: str = ""
    """Why it cannot serve us."""
    changes: tuple[str, ...] = ()
    """Its settings that binding changes."""
    incomplete: tuple[str, ...] = ()
    """Those of them that keep messages or payloads from us until then."""
    paused: str = ""
    """Until when it delivers nothing; empty: it is not paused."""
    deliveries: int = 0
    """How many it has made."""
    max_ack_pending: int = 0
    """How many messages may be delivered and not acknowledged before it stops."""
    redelivered: int = 0
    """Messages that were delivered more than once and are not acknowledged."""
    pulled: bool = False
    """Whether somebody waits for its messages at this moment."""


async def stream_info(request: Request, config: StreamConfig) -> StreamInfo:
    """The stream as it is now; raises UnavailableError while there is none, since producers may yet create it."""
    answer = await request(f"STREAM.INFO.{config.stream}", {})
    if error_code(answer) == STREAM_NOT_FOUND:
        raise UnavailableError(f"JetStream has no stream {config.stream}: {creation.remedy(config)}")
    if "error" in answer:
        raise failed(answer, f"stream {config.stream}")
    state = answer["state"]
    return StreamInfo(
        name=config.stream,
        created=datetime.fromisoformat(answer["created"]),
        first_sequence=int(state["first_seq"]),
        last_sequence=int(state["last_seq"]),
        first_time=datetime.fromisoformat(state["first_ts"]) if int(state["messages"]) else None,
    )


async def consumer_info(request: Request, config: StreamConfig) -> ConsumerInfo | None:
    """Our consumer as it is now, None if it does not exist."""
    answer = await request(f"CONSUMER.INFO.{config.stream}.{config.durable}", {})
    if error_code(answer) == _CONSUMER_NOT_FOUND:
        return None
    if "error" in answer:
        raise failed(answer, f"consumer {config.durable} of stream {config.stream}")
    return _info(answer, config, created=False)


async def ensure_consumer(request: Request, config: StreamConfig, start: int) -> ConsumerInfo:
    """Our consumer, ready to pull from; a new one begins at stream sequence ``start``.

    Raises ConfigurationError, with the remedy, if a consumer of that name cannot serve us.
    """
    answer = await request(f"CONSUMER.INFO.{config.stream}.{config.durable}", {})
    missing = error_code(answer) == _CONSUMER_NOT_FOUND
    if "error" in answer and not missing:
        raise failed(answer, f"consumer {config.durable} of stream {config.stream}")
    wanted = _new(config, start) if missing else _merged(answer["config"], config)
    if missing or wanted != answer["config"]:
        answer = await _write(request, config, wanted)
        if error_code(answer) == _DELIVER_ALL:
            # A work queue holds nothing that was acknowledged: its beginning is where to begin.
            answer = await _write(request, config, _new(config, 1))
        if "error" in answer:
            verb = "created" if missing else "updated"
            raise failed(answer, f"consumer {config.durable} of stream {config.stream} cannot be {verb}")
    return _info(answer, config, created=missing)


async def _write(request: Request, config: StreamConfig, wanted: Mapping[str, Any]) -> dict[str, Any]:
    body = {"stream_name": config.stream, "config": wanted}
    return await request(f"CONSUMER.DURABLE.CREATE.{config.stream}.{config.durable}", body)


def _info(answer: Mapping[str, Any], config: StreamConfig, *, created: bool) -> ConsumerInfo:
    floor, current = answer["ack_floor"], answer["config"]
    acknowledged, passed = int(floor["consumer_seq"]) > 0, int(floor["stream_seq"])
    if current.get("deliver_policy", "all") == "all":
        start = 1
    elif "opt_start_seq" in current:
        start = int(current["opt_start_seq"])
    else:  # begun at a time, or at what was the end: no longer known
        start = passed + 1
    return ConsumerInfo(
        created=created,
        start=start,
        complete=current.get("max_deliver", -1) <= 0,
        # Before the first ack the server reports the sequence before the start, which nobody acknowledged.
        ack_floor=passed if acknowledged else 0,
        pending=int(answer["num_pending"]),
        ack_pending=int(answer["num_ack_pending"]),
        delivered=int(answer["delivered"]["stream_seq"]),
        warnings=durable.warnings(current, config),
        refusal=durable.refusal(current, config),
        changes=_differing(current, _wanted(current, config)),
        incomplete=durable.incomplete(current, config),
        limits=Limits.of(current),
        paused=str(current.get("pause_until", "")) if answer.get("paused") else "",
        deliveries=int(answer["delivered"]["consumer_seq"]),
        max_ack_pending=int(current.get("max_ack_pending", 0)),
        redelivered=int(answer.get("num_redelivered", 0)),
        pulled=bool(answer.get("num_waiting")),
    )


def max_ack_pending(config: StreamConfig) -> int:
    """Room for what is in flight, prefetched and on the way, for every process and a second host."""
    room: int = 4 * config.writer.batch_messages * config.processes
    return room


def _new(config: StreamConfig, start: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "durable_name": config.durable,
        "description": f"{durable.OURS} {config.name} into {config.table}",
        "deliver_policy": "all",
        "ack_policy": "explicit" if config.writer.ack == "each" else "all",
        "ack_wait": int(config.writer.ack_wait * _NANO),
        "max_deliver": -1,
        "max_ack_pending": max_ack_pending(config),
        "replay_policy": "instant",
    }
    if start > 1:
        wanted |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    return wanted | durable.filters(config.subjects)


def _merged(current: dict[str, Any], config: StreamConfig) -> dict[str, Any]:
    """The consumer's configuration as we need it; raises ConfigurationError if it cannot be changed to that."""
    if reason := durable.refusal(current, config):
        raise ConfigurationError(reason)
    return _wanted(current, config)


def _wanted(current: Mapping[str, Any], config: StreamConfig) -> dict[str, Any]:
    """The consumer's configuration with only what we need changed: fields left out would be reset."""
    wanted = durable.repaired(current, config)
    wanted["ack_wait"] = int(config.writer.ack_wait * _NANO)
    if 0 < current.get("max_ack_pending", 0) < max_ack_pending(config):
        wanted["max_ack_pending"] = max_ack_pending(config)
    return wanted


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key)))


async def stripped(request: Request, config: StreamConfig, messages: Iterable[Message]) -> int | None:
    """The first of these messages that was delivered without the payload it has in the stream, None if there is none.

    One that the stream no longer holds counts too, for nobody can tell.
    """
    info = await consumer_info(request, config)
    suspects = [message.sequence for message in messages if is_hollow(message)]
    if info is None or "headers_only" in info.incomplete:
        return suspects[0]
    for start in range(0, len(suspects), _AT_ONCE):
        part = suspects[start : start + _AT_ONCE]
        answers = await gather(*(request(f"STREAM.MSG.GET.{config.stream}", {"seq": sequence}) for sequence in part))
        for sequence, answer in zip(part, answers, strict=True):
            if "error" in answer or answer["message"].get("data"):
                return sequence
    return None
