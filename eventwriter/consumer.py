"""The durable pull consumer: bound if it is there, created if missing, changed only by read, merge, write."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventwriter.config import StreamConfig
from eventwriter.coverage import Segment
from eventwriter.errors import ConfigurationError, UnavailableError

Api = Callable[[str, Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Sends a JetStream API request (subject below ``$JS.API.``, body) and returns the answer, errors included."""

_STREAM_NOT_FOUND = 10059
_CONSUMER_NOT_FOUND = 10014
_NO_MESSAGE = 10037
_NANO = 1_000_000_000
_NEVER = 1 << 63


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What JetStream says of a stream."""

    name: str
    created: datetime
    """Truncated to the microsecond, as PostgreSQL keeps it."""
    first_sequence: int
    last_sequence: int
    first_time: datetime | None = None
    """When its first message was published; None if it holds none."""


@dataclass(frozen=True, slots=True)
class ConsumerFacts:
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
    start: int = 1
    """Stream sequence at which the consumer began: what lies below, nobody acknowledged to it."""
    complete: bool = True
    """Whether all below the ack floor is acknowledged: with max_deliver it also passes what the server gave up."""
    warnings: tuple[str, ...] = ()


def _failed(answer: Mapping[str, Any], what: str) -> Exception:
    error = answer["error"]
    text = f"{what}: {error.get('description', 'unknown error')} ({error.get('err_code', error.get('code'))})"
    if int(error.get("code", 500)) in (500, 503) or _error_code(answer) == _STREAM_NOT_FOUND:
        return UnavailableError(text)
    return ConfigurationError(text)


def _error_code(answer: Mapping[str, Any]) -> int:
    return int(answer.get("error", {}).get("err_code", 0))


async def read_stream(api: Api, config: StreamConfig) -> StreamFacts:
    """The facts of the stream; raises UnavailableError while there is none, since producers may yet create it."""
    answer = await api(f"STREAM.INFO.{config.stream}", {})
    if _error_code(answer) == _STREAM_NOT_FOUND:
        raise UnavailableError(
            f"JetStream has no stream {config.stream}: create it, or set streams.{config.name}.stream to its name"
        )
    if "error" in answer:
        raise _failed(answer, f"stream {config.stream}")
    state = answer["state"]
    return StreamFacts(
        name=config.stream,
        created=datetime.fromisoformat(answer["created"]),
        first_sequence=int(state["first_seq"]),
        last_sequence=int(state["last_seq"]),
        first_time=datetime.fromisoformat(state["first_ts"]) if int(state["messages"]) else None,
    )


async def read_consumer(api: Api, config: StreamConfig) -> ConsumerFacts | None:
    """The facts of our consumer, None if it does not exist."""
    answer = await api(f"CONSUMER.INFO.{config.stream}.{config.durable}", {})
    if _error_code(answer) == _CONSUMER_NOT_FOUND:
        return None
    if "error" in answer:
        raise _failed(answer, f"consumer {config.durable} of stream {config.stream}")
    return _facts(answer, created=False, warnings=warnings(answer["config"], config))


async def ensure_consumer(api: Api, config: StreamConfig, start: int) -> ConsumerFacts:
    """Our consumer, ready to pull from; a new one begins at stream sequence ``start``.

    Raises ConfigurationError, with the remedy, if a consumer of that name cannot serve us.
    """
    answer = await api(f"CONSUMER.INFO.{config.stream}.{config.durable}", {})
    missing = _error_code(answer) == _CONSUMER_NOT_FOUND
    if "error" in answer and not missing:
        raise _failed(answer, f"consumer {config.durable} of stream {config.stream}")
    wanted = _new(config, start) if missing else _merged(answer["config"], config)
    if missing or wanted != answer["config"]:
        answer = await api(
            f"CONSUMER.DURABLE.CREATE.{config.stream}.{config.durable}",
            {"stream_name": config.stream, "config": wanted},
        )
        if "error" in answer:
            verb = "created" if missing else "updated"
            raise _failed(answer, f"consumer {config.durable} of stream {config.stream} cannot be {verb}")
    return _facts(answer, created=missing, warnings=warnings(answer["config"], config))


def _facts(answer: Mapping[str, Any], *, created: bool, warnings: tuple[str, ...]) -> ConsumerFacts:
    floor, current = answer["ack_floor"], answer["config"]
    acknowledged, passed = int(floor["consumer_seq"]) > 0, int(floor["stream_seq"])
    if current.get("deliver_policy", "all") == "all":
        start = 1
    elif "opt_start_seq" in current:
        start = int(current["opt_start_seq"])
    else:  # begun at a time, or at what was the end: no longer known
        start = passed + 1
    return ConsumerFacts(
        created=created,
        start=start,
        complete=current.get("max_deliver", -1) <= 0,
        # Before the first ack the server reports the sequence before the start, which nobody acknowledged.
        ack_floor=passed if acknowledged else 0,
        pending=int(answer["num_pending"]),
        ack_pending=int(answer["num_ack_pending"]),
        delivered=int(answer["delivered"]["stream_seq"]),
        warnings=warnings,
    )


def max_ack_pending(config: StreamConfig) -> int:
    """Room for what is in hand, prefetched and on the way, for every process and a second host."""
    room: int = 4 * config.writer.batch_messages * config.processes
    return room


def _new(config: StreamConfig, start: int) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        "durable_name": config.durable,
        "description": f"eventwriter: {config.name} into {config.table}",
        "deliver_policy": "all",
        "ack_policy": "explicit" if config.writer.ack == "each" else "all",
        "ack_wait": int(config.writer.ack_wait * _NANO),
        "max_deliver": -1,
        "max_ack_pending": max_ack_pending(config),
        "replay_policy": "instant",
    }
    if start > 1:
        wanted |= {"deliver_policy": "by_start_sequence", "opt_start_seq": start}
    return wanted | _filters(config.subjects)


def _filters(subjects: Sequence[str]) -> dict[str, Any]:
    return {"filter_subject": subjects[0]} if len(subjects) == 1 else {"filter_subjects": list(subjects)}


def _merged(current: dict[str, Any], config: StreamConfig) -> dict[str, Any]:
    """The consumer's configuration with only what we need changed: fields left out would be reset."""
    name = f"consumer {config.durable} of stream {config.stream}"
    if current.get("deliver_subject"):
        raise ConfigurationError(f"{name} is a push consumer: set streams.{config.name}.durable to another name")
    policy = "explicit" if config.writer.ack == "each" else "all"
    if current.get("ack_policy") != policy:
        raise ConfigurationError(
            f"{name} has ack policy {current.get('ack_policy')}, which cannot be changed, and writer.ack = "
            f'"{config.writer.ack}" needs {policy}: set streams.{config.name}.durable to another name, '
            "or change streams." + config.name + ".ack"
        )
    wanted = {k: v for k, v in current.items() if k not in ("filter_subject", "filter_subjects")}
    wanted |= _filters(config.subjects)
    wanted["ack_wait"] = int(config.writer.ack_wait * _NANO)
    if 0 < current.get("max_ack_pending", 0) < max_ack_pending(config):
        wanted["max_ack_pending"] = max_ack_pending(config)
    return wanted


def warnings(current: Mapping[str, Any], config: StreamConfig) -> tuple[str, ...]:
    """What is legal in a consumer's configuration and dangerous to its messages."""
    found = []
    limit = current.get("max_deliver", -1)
    if limit > 0:
        found.append(
            f"consumer {config.durable}: max_deliver is {limit}, so a message is lost after {limit} deliveries; set -1"
        )
    if current.get("backoff"):
        found.append(f"consumer {config.durable}: backoff overrides ack_wait; remove it")
    if current.get("inactive_threshold"):
        found.append(f"consumer {config.durable}: inactive_threshold deletes the consumer when we are away; remove it")
    if current.get("headers_only"):
        found.append(f"consumer {config.durable}: headers_only delivers no payload; remove it")
    return tuple(found)


async def held(api: Api, config: StreamConfig, segments: Sequence[Segment]) -> list[Segment]:
    """Of segments in rising order what the stream still holds: each from its first message that a filter matches.

    One request a segment and filter at most: a message that is found beyond a segment answers for those before it.
    """
    following: dict[str, int] = {}
    found = []
    for segment in segments:
        for pattern in segment.filters:
            if following.get(pattern, 0) < segment.first:
                following[pattern] = await _next_sequence(api, config, pattern, segment.first)
        first = min(following[pattern] for pattern in segment.filters)
        if first <= segment.last:
            found.append(Segment(first, segment.last, segment.filters))
    return found


async def _next_sequence(api: Api, config: StreamConfig, pattern: str, first: int) -> int:
    """The first message from the sequence ``first`` on that a filter matches; if there is none, more than any has."""
    answer = await api(f"STREAM.MSG.GET.{config.stream}", {"seq": first, "next_by_subj": pattern})
    if _error_code(answer) == _NO_MESSAGE:
        return _NEVER
    if "error" in answer:
        raise _failed(answer, f"stream {config.stream}")
    return int(answer["message"]["seq"])


async def create_reader(api: Api, config: StreamConfig, segment: Segment) -> str:
    """A consumer, forgotten by the server soon after its last use, that reads a segment without acknowledging."""
    wanted = {
        "description": f"eventwriter: {config.name} reads again what {config.durable} missed",
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": segment.first,
        "ack_policy": "none",
        "max_deliver": -1,
        "replay_policy": "instant",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 60 * _NANO,
    } | _filters(segment.filters)
    answer = await api(f"CONSUMER.CREATE.{config.stream}", {"stream_name": config.stream, "config": wanted})
    if "error" in answer:
        raise _failed(answer, f"a second consumer of stream {config.stream}, to read again what is missing")
    return str(answer["name"])


async def delete_reader(api: Api, config: StreamConfig, name: str) -> None:
    """Does not wait for the server to forget it."""
    await api(f"CONSUMER.DELETE.{config.stream}.{name}", {})


async def has(api: Api, config: StreamConfig, facts: StreamFacts, sequence: int, time: int) -> bool:
    """Whether the stream still is one in which a message of this sequence has this time (nanoseconds since 1970).

    False for a stream that was restored to an earlier state, or lost its latest messages in a power failure: there
    the sequences are given out a second time. True also if the message is gone, so that nothing can be told.
    """
    if facts.last_sequence < sequence:
        return False
    answer = await api(f"STREAM.MSG.GET.{config.stream}", {"seq": sequence})
    if "error" in answer:
        return True
    return abs(datetime.fromisoformat(answer["message"]["time"]).timestamp() - time / _NANO) < 1e-3


def restored(config: StreamConfig, last: int, known: int) -> ConfigurationError:
    """What to tell of a stream that no longer continues what the ledger knows up to the sequence ``known``."""
    return ConfigurationError(
        f"stream {config.stream} was restored to an earlier state, or lost its latest messages: it does not continue "
        f"what the ledger knows up to sequence {known} (it ends at {last}), and new messages would be "
        "taken for written ones. Set "
        f"streams.{config.name}.durable to a new name to begin a new ledger"
    )


def encode(body: Mapping[str, Any]) -> bytes:
    """The body of an API request: nothing at all when there is nothing to say."""
    return json.dumps(body).encode() if body else b""
