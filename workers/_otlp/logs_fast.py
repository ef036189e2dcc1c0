"""Log records of OTLP requests in protobuf, the quick way."""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT8_MAX
from workers._otlp.fast import (
    BACKSLASH,
    MANY_BYTES,
    Uncommon,
    attributes,
    dumps_trimmed,
    field,
    only,
    plain_text,
    scopes,
)
from workers._otlp.log_body import other_body
from workers._otlp.logs_flat import source_of
from workers._otlp.message import Context
from workers._otlp.otlp_lean_pb2 import Logs
from workers._otlp.severity import BANDS

_FIELDS = attrgetter(
    "time_unix_nano",
    "observed_time_unix_nano",
    "trace_id",
    "span_id",
    "flags",
    "severity_text",
    "severity_number",
    "body",
    "event_name",
    "attributes",
    "dropped_attributes_count",
)


def common_rows(payload: bytes, context: Context) -> list[Row]:
    """The rows of a request; ValueError or DecodeError if that takes the general way."""
    subject, received, _, repairs = context
    source = source_of(subject)
    dumps = orjson.dumps if len(payload) < MANY_BYTES else dumps_trimmed
    rows: list[Row] = []
    for _, resource, scoped, scope in scopes(Logs.FromString(payload)):
        service, version, instance, resource_attributes, resource_schema_url, _ = resource
        scope_name, scope_version, scope_attributes, schema_url, rest, scope_data = scope
        for record in scoped.records:
            (time, observed, trace_id, span_id, flags, severity, number, bodies, event_name, pairs,
             dropped) = _FIELDS(record)  # fmt: skip
            if time > INT8_MAX or observed > INT8_MAX or "\0" in severity or "\0" in event_name:
                raise Uncommon("to be repaired")
            observed_timestamp = observed // 1000 - EPOCH if observed else received
            packed = dumps(attributes(pairs))
            if BACKSLASH in packed and b"\\u0000" in packed:
                raise Uncommon("to be repaired")
            data = scope_data
            octets = only(bodies)
            size = len(octets) - 2
            body: str | None
            if 0 < size < 0x80 and octets[0] == 0x0A and octets[1] == size:
                body = octets[2:].decode()
            else:
                body = plain_text(octets)
                if body is None and octets:
                    whole = _body(octets)
                    body = whole.string_value
                    if not body:
                        body, data = other_body(whole, rest, data, repairs)
            if body and "\0" in body:
                raise Uncommon("to be repaired")
            if len(trace_id) not in (16, 0) or len(span_id) not in (8, 0):
                repairs.append("bad_id")
            rows.append(
                (
                    time // 1000 - EPOCH if time else observed_timestamp,
                    observed_timestamp,
                    trace_id.hex(),
                    span_id.hex(),
                    flags & 0xFF,
                    flags,
                    severity or BANDS.get(number),
                    number or None,
                    body,
                    event_name or None,
                    service,
                    version,
                    instance,
                    scope_name,
                    scope_version,
                    scope_attributes,
                    packed,
                    resource_attributes,
                    dropped,
                    schema_url,
                    resource_schema_url,
                    source,
                    data,
                )
            )
    return rows


def _body(octets: bytes) -> Any:
    """The body of a record, parsed where it is in a request."""
    request = ExportLogsServiceRequest.FromString(field(0x0A, field(0x12, field(0x12, field(0x2A, octets)))))
    return request.resource_logs[0].scope_logs[0].log_records[0].body
