"""GELF in a structured CloudEvent, as syslog receivers publish it, when every value has its expected type."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, time_from_number
from workers._json.fast import fitted

_SECONDS_MIN = 2.0**30
_SECONDS_MAX = 2.0**33
"""Between them, from 2004 to 2242, a number is a time in seconds."""
_ABSENT = msgspec.Raw(b"")


class Gelf(msgspec.Struct, gc=False):
    """The fields that fill columns, and those that would compete with one; ``raw_data`` has all others."""

    version: str
    short_message: str
    timestamp: float
    host: str | None = None
    level: int | None = None
    severity: str | None = None
    remote: str | None = msgspec.field(name="_remote_addr", default=None)
    remote_addr: msgspec.Raw = _ABSENT
    camel_remote_addr: msgspec.Raw = msgspec.field(name="remoteAddr", default=_ABSENT)


class GelfEvent(msgspec.Struct, gc=False):
    """The envelope."""

    specversion: str
    id: str
    data: Gelf
    source: str | None = None
    type: str | None = None
    datacontenttype: str | None = None
    subject: str | None = None


_DECODER = msgspec.json.Decoder(GelfEvent)


def typed_rows(messages: Sequence[Message]) -> list[Row | None]:
    """The row of each message that is one such event; None for every other message."""
    rows: list[Row | None] = []
    for message, event in zip(messages, fitted(_DECODER, b'"short_message"', messages), strict=True):
        rows.append(None)
        if event is None or not event.id:
            continue
        subject, gelf = message.subject, event.data
        time, level = gelf.timestamp, gelf.level
        if not _SECONDS_MIN <= time < _SECONDS_MAX or (level is not None and not INT4_MIN <= level <= INT4_MAX):
            continue
        if gelf.remote_addr is not _ABSENT or gelf.camel_remote_addr is not _ABSENT:
            continue
        if "otel" in subject or "netflow" in subject or "\0" in subject:  # may belong to another stream
            continue
        rows[-1] = (
            time_from_number(time),
            event.specversion,
            event.id,
            event.source,
            event.type,
            event.datacontenttype,
            event.subject or subject,
            gelf.remote,
            gelf.host,
            level,
            gelf.severity,
            gelf.short_message,
            gelf.version,
            message.payload.decode(),
            message.time // 1000 - EPOCH,
        )
    return rows
