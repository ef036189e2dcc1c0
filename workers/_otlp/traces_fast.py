"""Spans of OTLP requests in protobuf, the quick way."""

from __future__ import annotations

from functools import lru_cache
from operator import attrgetter

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT8_MAX
from workers._otlp.fast import BACKSLASH, MANY_BYTES, Uncommon, attributes, dumps_trimmed, field, scopes
from workers._otlp.message import Context
from workers._otlp.otlp_lean_pb2 import Traces
from workers._otlp.span_parts import NO_PARENT, events_json, links_json

_STATUS_MAX = 256
"""Bytes of a status that is worth keeping."""
_FIELDS = attrgetter(
    "trace_id",
    "span_id",
    "parent_span_id",
    "trace_state",
    "flags",
    "name",
    "kind",
    "start_time_unix_nano",
    "end_time_unix_nano",
    "status",
    "attributes",
    "events",
    "links",
    "dropped_attributes_count",
    "dropped_events_count",
    "dropped_links_count",
)


def common_rows(payload: bytes, context: Context) -> list[Row]:
    """The rows of a request; ValueError or DecodeError if that takes the general way."""
    _, received, _, repairs = context
    dumps = orjson.dumps if len(payload) < MANY_BYTES else dumps_trimmed
    rows: list[Row] = []
    for _, resource, scoped, scope in scopes(Traces.FromString(payload)):
        service, version, instance, resource_attributes, resource_schema_url, _ = resource
        scope_name, scope_version, scope_attributes, schema_url, _, data = scope
        for span in scoped.records:
            (trace_id, span_id, parent, state, flags, name, kind, start, end, status, pairs, events, links,
             dropped_attributes, dropped_events, dropped_links) = _FIELDS(span)  # fmt: skip
            if start > INT8_MAX or end > INT8_MAX or "\0" in name or "\0" in state:
                raise Uncommon("to be repaired")
            timestamp = received
            if start:
                timestamp = start // 1000 - EPOCH
            elif end:
                timestamp = end // 1000 - EPOCH
            packed = dumps(attributes(pairs))
            if BACKSLASH in packed and b"\\u0000" in packed:
                raise Uncommon("to be repaired")
            code, message = _status(status[:])
            if len(trace_id) != 16 or len(span_id) != 8:
                repairs.append("bad_id")
            rows.append(
                (
                    timestamp,
                    trace_id.hex(),
                    span_id.hex(),
                    "" if parent == NO_PARENT else parent.hex(),
                    state or None,
                    flags,
                    name,
                    kind,
                    start or None,
                    end or None,
                    service,
                    version,
                    instance,
                    scope_name,
                    scope_version,
                    scope_attributes,
                    code,
                    message,
                    packed,
                    resource_attributes,
                    events_json(events, attributes, repairs) if events else b"[]",
                    links_json(links, attributes, repairs) if links else b"[]",
                    dropped_attributes,
                    dropped_events,
                    dropped_links,
                    schema_url,
                    resource_schema_url,
                    data,
                )
            )
    return rows


def _status(found: list[bytes]) -> tuple[int, str | None]:
    """Code and message of a span's status."""
    if not found:
        return 0, None
    if len(found) > 1:
        raise Uncommon("protobuf merges them")
    return _cached_status(found[0]) if len(found[0]) <= _STATUS_MAX else _cached_status.__wrapped__(found[0])


@lru_cache(maxsize=256)
def _cached_status(octets: bytes) -> tuple[int, str | None]:
    request = ExportTraceServiceRequest.FromString(field(0x0A, field(0x12, field(0x12, field(0x7A, octets)))))
    status = request.resource_spans[0].scope_spans[0].spans[0].status
    if "\0" in status.message:
        raise Uncommon("to be repaired")
    return status.code, status.message or None
