"""Log records in flat JSON as rule engines republish them, when every value has its expected type."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import msgspec
import orjson

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH, INT8_MAX, dump_json
from workers._json.fast import fitted, without_large_exponents
from workers._otlp.logs_flat import source_of

_NANOSECONDS = 100_000_000_000_000_000
"""From here on a bare number is a time in nanoseconds."""


class FlatLog(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys of such a record."""

    timestamp: int
    body: str
    attributes: msgspec.Raw
    resource: msgspec.Raw
    severity_text: str
    severity_number: int
    scope: str | None = None
    trace_id: str = ""
    span_id: str = ""


_DECODER = msgspec.json.Decoder(FlatLog)


@without_large_exponents
def typed_rows(messages: Sequence[Message], nested: list[bytes]) -> list[Row | None]:
    """The row of each message that is one such record; None for every other message."""
    rows: list[Row | None] = []
    for message, log in zip(messages, fitted(_DECODER, b'"severity_text"', messages), strict=True):
        rows.append(None)
        if log is None:
            continue
        time, number = log.timestamp, log.severity_number
        if not 0 < number <= 24 or not _NANOSECONDS <= time <= INT8_MAX:
            continue
        resource = _resource(bytes(log.resource))
        attributes = bytes(log.attributes)
        if resource is None or attributes[:1] != b"{":
            continue
        nested.append(attributes)
        service, version, instance, packed = resource
        rows[-1] = (
            time // 1000 - EPOCH,
            message.time // 1000 - EPOCH,
            log.trace_id.lower(),
            log.span_id.lower(),
            None,
            None,
            log.severity_text,
            number,
            log.body,
            None,
            service,
            version,
            instance,
            log.scope,
            None,
            None,
            attributes,
            packed,
            None,
            None,
            None,
            source_of(message.subject),
            None,
        )
    return rows


@lru_cache(maxsize=1024)
def _resource(text: bytes) -> tuple[str, str | None, str | None, bytes] | None:
    """(service name, version, instance, JSON) of a resource; the same one comes with many records."""
    try:
        resource = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if type(resource) is not dict or len(text) > 4096:
        return None
    service = resource.get("service.name")
    version = resource.get("service.version")
    instance = resource.get("service.instance.id")
    if any(value is not None and type(value) is not str for value in (service, version, instance)):
        return None
    return "unknown" if service is None else service, version, instance, dump_json(resource)
