"""What `check` says of a JetStream stream: do our messages get there, and do they stay until they are read?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from eventwriter.commands.findings import Finding
from eventwriter.config import subjects
from eventwriter.config.loading import StreamConfig
from eventwriter.config.units import format_size
from eventwriter.errors import CONFIGURATION
from eventwriter.jetstream.consumer import max_ack_pending

_ENOUGH = 3600.0
"""Seconds that an outage may last without a word."""
_TELLING = 10.0
"""Seconds that messages have to be apart before a rate is taken from them."""
_NANO = 1_000_000_000
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def look(stream: StreamConfig, answer: Mapping[str, Any]) -> Iterator[Finding]:
    """What is wrong with a stream for one of ours that reads it."""
    yield from _filters(stream, answer["config"])
    yield from _limits(stream, answer["config"], answer["state"])
    yield from _room(stream, answer["config"])


def _filters(stream: StreamConfig, config: Mapping[str, Any]) -> Iterator[Finding]:
    there = config.get("subjects") or []
    if config.get("mirror") or config.get("sources"):
        return  # what comes from other streams has their subjects
    outside = [each for each in stream.subjects if not any(subjects.overlap(each, other) for other in there)]
    if not outside:
        return
    more = f"nats stream edit {shlex.quote(stream.stream)} --subjects={shlex.quote(','.join([*there, *outside]))}"
    remedy = (
        f"add it there (`{more}`), or set "
        f"streams.{stream.name}.stream to the stream that has it, or streams.{stream.name}.subjects to what is there"
    )
    never = len(outside) == len(stream.subjects)
    text = f"{', '.join(outside)} is outside the subjects of stream {stream.stream} ({', '.join(there)})"
    text += ", so no message ever comes" if never else ", so what is published to it does not come"
    yield Finding(stream.name, f"{text}: {remedy}", CONFIGURATION if never else 0, warning=not never)


def endurance(config: Mapping[str, Any], state: Mapping[str, Any]) -> tuple[float, str] | None:
    """After how many seconds a stream discards what nobody has read, and by which limit; None: it does not.

    Limits of size are told in time by the rate of the messages that it holds.
    """
    found = []
    if (age := config.get("max_age", 0)) > 0:
        found.append((age / _NANO, "max_age"))
    first, last = (datetime.fromisoformat(state[key]) for key in ("first_ts", "last_ts"))
    seconds, messages = (last - first).total_seconds(), int(state["messages"])
    if messages > 1 and seconds >= _TELLING and config.get("discard") != "new":
        rate = (int(state["last_seq"]) - int(state["first_seq"])) / seconds
        size = int(state["bytes"]) / messages
        if (most := config.get("max_bytes", -1)) > 0:
            found.append((most / size / rate, f"max_bytes {format_size(most)} at the present {rate:.3g} messages/s"))
        if (most := config.get("max_msgs", -1)) > 0:
            found.append((most / rate, f"max_msgs {most} at the present {rate:.3g} messages/s"))
    return min(found, default=None)


def _limits(stream: StreamConfig, config: Mapping[str, Any], state: Mapping[str, Any]) -> Iterator[Finding]:
    edit = f"`nats stream edit {stream.stream}"
    if config.get("storage") == "memory":
        text = f"stream {stream.stream} is kept in memory: what is not read when its server ends is lost"
        remedy = "create it with file storage, which cannot be changed later"
        yield Finding(stream.name, f"{text}; {remedy}", warning=True)
    if (most := config.get("max_msgs_per_subject", -1)) > 0:
        text = f"stream {stream.stream} holds only the latest {most} messages of each subject (max_msgs_per_subject)"
        remedy = f"{edit} --max-msgs-per-subject=-1` keeps what is not read yet"
        yield Finding(stream.name, f"{text}, and drops older ones, read or not: {remedy}", warning=True)
    lasting = endurance(config, state)
    if lasting is not None and lasting[0] < _ENOUGH:
        seconds, limit = lasting
        text = f"stream {stream.stream} discards what nobody has read after {span(seconds)} ({limit}), so a longer "
        text += "outage of eventwriter or PostgreSQL loses messages"
        remedy = f"{edit} --max-age=7d`" if limit == "max_age" else f"raise it with {edit}`"
        yield Finding(stream.name, f"{text}: {remedy}", warning=True)
    sizes = [f"{key} {config[key]}" for key in ("max_bytes", "max_msgs") if config.get(key, -1) > 0]
    if sizes and config.get("discard") == "new":
        text = f"stream {stream.stream} refuses what is published once it is full ({', '.join(sizes)}, discard new)"
        yield Finding(stream.name, f"{text}: publishers have to try again, or raise it with {edit}`", warning=True)
    elif sizes and lasting is None:
        text = f"stream {stream.stream} discards the oldest, read or not, once it is full ({', '.join(sizes)})"
        yield Finding(stream.name, f"{text}: how soon that is cannot be told before there are messages", warning=True)


def _room(stream: StreamConfig, config: Mapping[str, Any]) -> Iterator[Finding]:
    """Whether the stream lets a consumer have as many messages in flight as we ask for."""
    most, wanted = (config.get("consumer_limits") or {}).get("max_ack_pending", 0), max_ack_pending(stream)
    if 0 < most < wanted:
        batch = most // (4 * stream.processes)
        text = f"stream {stream.stream} allows its consumers max_ack_pending {most}, and four batches of "
        text += f"{stream.writer.batch_messages} for each of {stream.processes} processes need {wanted}"
        remedy = f"set streams.{stream.name}.batch_messages = {max(1, batch)}, or raise consumer_limits of the stream"
        yield Finding(stream.name, f"{text}, so no consumer can be created: {remedy}", CONFIGURATION)


def span(seconds: float) -> str:
    """A time for people, such as ``23 h``."""
    size, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{seconds / size:.0f} {unit}"
