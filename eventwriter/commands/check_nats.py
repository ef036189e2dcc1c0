"""What `check` says of NATS: its servers, and of every stream what a worker would meet there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from time import time
from typing import Any

from eventwriter import masking
from eventwriter.commands import check_limits
from eventwriter.commands.findings import Finding, tables
from eventwriter.config import subjects
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.config.units import format_duration
from eventwriter.errors import CONFIGURATION, UNAVAILABLE, UnavailableError
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.inspection import Looked, Server, inspect
from eventwriter.stream import Stream

_OLDEST = (2, 10)
_RENEWAL = 14 * 86_400.0
"""Seconds before the end of a certificate from which on that is told."""
SKEW = 2.0
"""Seconds by which two clocks may differ without a word."""


def look(settings: Config, declared: Mapping[str, Stream], findings: list[Finding], longest: float) -> None:
    """Adds what it finds, within ``longest`` seconds."""
    servers: list[Server] = []
    looked: list[Looked] = []
    streams = [stream for stream, _ in tables(settings, declared)]
    late = ""
    try:
        inspect(settings.nats, streams, servers.append, looked.append, longest)
    except UnavailableError:
        where = ", ".join(map(masking.url, settings.nats.url))
        late = f"NATS at {where} did not answer all within {longest:.0f} s"
        findings.append(Finding("nats", f"{late}: is a name server or one of its servers stuck?", UNAVAILABLE))
    looked.sort(key=lambda each: streams.index(each.stream))
    findings += _servers(servers, settings)
    skew = max((each.skew for each in looked), key=abs, default=0.0)
    if text := clocks("NATS", skew):
        findings.append(Finding("nats", text, warning=True))
    findings += _once([finding for each in looked for finding in _stream(each, streams)])
    if late:
        known = {each.stream.name for each in looked}
        findings += [Finding(each.name, late, UNAVAILABLE) for each in streams if each.name not in known]


def _once(findings: Sequence[Finding]) -> Iterator[Finding]:
    """What is the same for several streams, such as what is wrong with a JetStream stream that they share."""
    same: dict[Finding, list[str]] = {}
    for each in findings:
        same.setdefault(replace(each, subject="nats"), []).append(each.subject)
    for each, names in same.items():
        if len(names) == 1:
            yield replace(each, subject=names[0])
        else:
            yield replace(each, text=f"{', '.join(names)}: {each.text}")


def _servers(servers: Sequence[Server], settings: Config) -> Iterator[Finding]:
    reached = any(server.error is None for server in servers)
    for server in servers:
        if server.error is not None:
            text = str(server.error)
            if type(server.error) is UnavailableError:
                text += "; check nats.url, and whether that server runs and can be reached from here"
            # Others of the list serve, while they last.
            yield Finding("nats", text, 0 if reached else server.error.exit_code, warning=reached)
            continue
        version = str(server.said.get("version", "unknown"))
        domain = server.said.get("domain")
        name = server.said.get("server_name")
        parts = [f"NATS {version} at {server.url}"]
        parts += [f"server {name}"] if name and name != server.said.get("server_id") else []
        parts += [f"domain {domain}"] if domain else []
        parts += [server.tls or "no TLS", f"JetStream at {settings.nats.api}"]
        number = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if len(number) == len(_OLDEST) and number < _OLDEST:
            yield Finding("nats", f"NATS {version} at {server.url} is too old: upgrade it to 2.10", CONFIGURATION)
        else:
            yield Finding("nats", ", ".join(parts))
        if server.expires is not None and (left := server.expires - time()) < _RENEWAL:
            text = f"the certificate of {server.url} ends in {check_limits.span(left)}, and nobody connects then"
            yield Finding("nats", f"{text}: renew it", warning=True)
        if server.exposed:
            text = f"on the way to {server.url} nothing is encrypted: tls:// in nats.url, or [nats.tls], asks for it"
            yield Finding("nats", text, warning=True)


def _stream(found: Looked, streams: Sequence[StreamConfig]) -> Iterator[Finding]:
    stream = found.stream
    if found.answer:
        yield from check_limits.look(stream, found.answer)
        yield from _queue(found, streams)
    if found.error is not None:
        yield Finding(stream.name, str(found.error), found.error.exit_code)
        return
    state = found.answer["state"]
    held = int(state["last_seq"]) - int(state["first_seq"]) + 1 if state["last_seq"] else 0
    text = f"stream {stream.stream} holds {held} messages"
    if lasting := check_limits.endurance(found.answer["config"], state):
        text += f", each for {check_limits.span(lasting[0])} ({lasting[1]})"
    if found.consumer is None:
        yield Finding(stream.name, f"{text}; consumer {stream.durable} will be created")
        yield from _creation(found)
        return
    text += (
        f"; consumer {stream.durable}: {found.consumer.pending} waiting, {found.consumer.ack_pending} unacknowledged"
    )
    yield Finding(stream.name, text)
    yield from _consumer(stream, found.consumer)


def clocks(whose: str, skew: float) -> str:
    """What to tell of a clock that differs by so many seconds from this machine's; empty if that is nothing."""
    if abs(skew) <= SKEW:
        return ""
    way = "ahead of" if skew > 0 else "behind"
    return (
        f"the clock of {whose} is {check_limits.span(abs(skew))} {way} that of this machine: "
        "ages and lags are wrong by that; have both set by NTP"
    )


def _creation(found: Looked) -> Iterator[Finding]:
    """What would keep the server from creating our consumer."""
    stream, config = found.stream, found.answer["config"]
    most = config.get("max_consumers", -1)
    if 0 < most <= found.answer["state"].get("consumer_count", 0):
        text = f"stream {stream.stream} has all the consumers that it may have (max_consumers {most})"
        yield Finding(stream.name, f"{text}: remove one that nobody needs, or raise the limit", CONFIGURATION)
    if config.get("retention") == "interest":
        text = (
            f"stream {stream.stream} (retention interest) keeps nothing for us before consumer {stream.durable} exists"
        )
        yield Finding(stream.name, f"{text}: start the worker before the publishers", warning=True)


def _queue(found: Looked, streams: Sequence[StreamConfig]) -> Iterator[Finding]:
    """In a work queue no two consumers may want the same message."""
    stream = found.stream
    if found.answer["config"].get("retention") != "workqueue":
        return
    others = [(f"consumer {_name(each)}", _filters(each)) for each in found.neighbours]
    before = streams[: streams.index(stream)]
    others += [(f"streams.{each.name}", each.subjects) for each in before if each.stream == stream.stream]
    for other, theirs in others:
        clash = next(((a, b) for a, b in product(stream.subjects, theirs) if subjects.overlap(a, b)), None)
        if clash is not None:
            text = f"stream {stream.stream} is a work queue, in which {other} takes {clash[1]} already"
            remedy = f"narrow streams.{stream.name}.subjects, or remove the other"
            yield Finding(stream.name, f"{text}, so a consumer for {clash[0]} is refused: {remedy}", CONFIGURATION)


def _name(consumer: Mapping[str, Any]) -> str:
    return str(consumer.get("durable_name") or consumer.get("name"))


def _filters(consumer: Mapping[str, Any]) -> Sequence[str]:
    return consumer.get("filter_subjects") or [consumer.get("filter_subject") or ">"]


def _consumer(stream: StreamConfig, consumer: ConsumerInfo) -> Iterator[Finding]:
    name = f"consumer {stream.durable}"
    if consumer.refusal:
        yield Finding(stream.name, consumer.refusal, CONFIGURATION)
        return
    if consumer.paused:
        resume = f"`nats consumer resume {stream.stream} {stream.durable}`"
        text = f"{name} is paused until {consumer.paused}: nothing is delivered; {resume} ends that"
        yield Finding(stream.name, text, warning=True)
    for each in consumer.warnings:
        yield Finding(stream.name, each, warning=True)
    if consumer.redelivered:
        wait = format_duration(stream.writer.ack_wait)
        text = f"{consumer.redelivered} messages of {name} were delivered more than once and are not acknowledged"
        remedy = f"a worker died, or a batch took longer than ack_wait {wait}: raise streams.{stream.name}.ack_wait"
        yield Finding(stream.name, f"{text}: {remedy} if that goes on", warning=True)
    if consumer.changes:
        how = ", which kept messages or their payloads back" if consumer.incomplete else ""
        changes = ", ".join(consumer.changes)
        yield Finding(stream.name, f"{name}: the worker will change {changes}{how}", warning=bool(consumer.incomplete))
    if limits := str(consumer.limits):
        yield Finding(stream.name, f"{name} limits a pull to {limits}: the worker keeps to that, and is slower")
