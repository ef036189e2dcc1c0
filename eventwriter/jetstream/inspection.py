"""What NATS says of its servers, of the streams and of the consumers, asked all at once and within seconds."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import nats.errors

from eventwriter import masking
from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.errors import EventWriterError, ForbiddenError, UnavailableError
from eventwriter.jetstream import consumer, creation
from eventwriter.jetstream.api import STREAM_NOT_FOUND, Api, error_code, failed
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.loop import Loop
from eventwriter.jetstream.visit import Visit

_PATIENCE = 2.5
"""Seconds to wait for an answer: with the time that connecting may take, two in a row stay below ten."""


@dataclass(frozen=True, slots=True)
class Server:
    """One of ``nats.url``."""

    url: str
    said: Mapping[str, Any] = field(default_factory=dict)
    """What it says of itself."""
    tls: str = ""
    """The version of TLS; empty: nothing is encrypted."""
    expires: float | None = None
    """When its certificate does, in seconds since 1970."""
    address: str = ""
    """Where that is."""
    error: EventWriterError | None = None
    """Why it cannot be reached."""

    @property
    def exposed(self) -> bool:
        """Whether somebody on the network could read what is said."""
        try:
            return not self.tls and not ipaddress.ip_address(self.address).is_loopback
        except ValueError:
            return False


@dataclass(slots=True)
class Looked:
    """What there is to know of one stream."""

    stream: StreamConfig
    answer: Mapping[str, Any] = field(default_factory=dict)
    """What JetStream says of it."""
    skew: float = 0.0
    """Seconds by which the clock of the server that answered is ahead of ours, at least; below 0 it is behind."""
    consumer: ConsumerInfo | None = None
    neighbours: Sequence[Mapping[str, Any]] = ()
    """The configurations of the other consumers of a work queue, in which no two may want the same."""
    error: EventWriterError | None = None
    """What keeps a worker from beginning."""


def inspect(
    settings: NatsConfig,
    streams: Sequence[StreamConfig],
    reached: Callable[[Server], None],
    looked: Callable[[Looked], None],
    longest: float,
) -> None:
    """Tells of every server and of every stream as soon as that is known.

    Raises UnavailableError if not all is known in time: a name server that does not answer cannot be interrupted.
    """
    loop = Loop()
    loop.start()
    loop.call(_inspect(settings, streams, reached, looked), longest)


async def _inspect(
    settings: NatsConfig,
    streams: Sequence[StreamConfig],
    reached: Callable[[Server], None],
    looked: Callable[[Looked], None],
) -> None:
    visits = [Visit(replace(settings, url=(url,)), "eventwriter check") for url in settings.url]
    try:
        servers = await asyncio.gather(*map(_reach, visits))
        for server in servers:
            reached(server)
        there = [visit for visit, server in zip(visits, servers, strict=True) if server.error is None]
        for each in asyncio.as_completed([_look(visit, one, streams) for visit in there[:1] for one in streams]):
            looked(await each)
    finally:
        await asyncio.gather(*(visit.close() for visit in visits))


async def _reach(visit: Visit) -> Server:
    url = masking.url(visit.settings.url[0])
    try:
        await visit.open()
    except EventWriterError as error:
        return Server(url, error=error)
    writer = getattr(visit.client._transport, "_io_writer", None)
    encrypted = writer and writer.get_extra_info("ssl_object")
    peer = writer and writer.get_extra_info("peername")
    tls = str(encrypted.version()) if encrypted else ""
    certificate = encrypted.getpeercert() if encrypted else None
    expires = ssl.cert_time_to_seconds(certificate["notAfter"]) if certificate else None
    return Server(url, visit.client._server_info, tls, expires, str(peer[0]) if peer else "")


async def _look(visit: Visit, stream: StreamConfig, streams: Sequence[StreamConfig]) -> Looked:
    found = Looked(stream)
    try:
        await _ask(visit, found, streams)
    except EventWriterError as error:
        found.error = error
    except nats.errors.Error as error:
        found.error = UnavailableError(f"NATS: {error or type(error).__name__}")
    return found


async def _ask(visit: Visit, found: Looked, streams: Sequence[StreamConfig]) -> None:
    stream = found.stream
    api, permissions = visit.questions(stream, _PATIENCE)
    asked = datetime.now(UTC)
    answer, info, _ = await asyncio.gather(
        api.request(f"STREAM.INFO.{stream.stream}", {}),
        consumer.consumer_info(api.request, stream),
        api.probe(),
        return_exceptions=True,
    )
    if not permissions.complete:
        raise ForbiddenError(permissions.trouble)
    if isinstance(answer, BaseException):
        raise answer
    if error_code(answer) == STREAM_NOT_FOUND:
        where = f"{masking.url(visit.settings.url[0])} ({visit.settings.api}"
        domain = visit.client._server_info.get("domain")
        where += f", in a server of domain {domain})" if domain else ")"
        remedy = creation.remedy(stream, streams, visit.settings)
        raise UnavailableError(f"JetStream at {where} has no stream {stream.stream}: {remedy}")
    if "error" in answer:
        raise failed(answer, f"stream {stream.stream}")
    found.answer = answer
    if "ts" in answer:
        found.skew = _skew(asked, datetime.fromisoformat(answer["ts"]), datetime.now(UTC))
    if isinstance(info, BaseException):
        raise info
    found.consumer = info
    if info is None or info.changes:  # asked for without any effect
        await api.ask(api.subject(f"CONSUMER.DURABLE.CREATE.{stream.stream}.{stream.durable}"), b"{}")
    if info is None and answer["config"].get("retention") == "workqueue":
        found.neighbours = await _neighbours(api, stream)


def _skew(asked: datetime, told: datetime, answered: datetime) -> float:
    """By how much a time that was told between two of ours cannot be of the same clock."""
    least, most = (told - answered).total_seconds(), (told - asked).total_seconds()
    return max(least, 0.0) or min(most, 0.0)


async def _neighbours(api: Api, stream: StreamConfig) -> Sequence[Mapping[str, Any]]:
    """None if that may not be asked, or there are too many for one answer: the server refuses what overlaps anyway."""
    try:
        answer = await api.request(f"CONSUMER.LIST.{stream.stream}", {})
    except (EventWriterError, nats.errors.Error):
        return ()
    return [each["config"] for each in answer.get("consumers") or ()]
