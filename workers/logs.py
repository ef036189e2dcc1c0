"""LOGS: log records from OTLP, flat JSON, GELF and SNMP traps become rows of ``logs``."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from orjson import dumps

from eventwriter.stream import Row, Stream
from eventwriter.values import EPOCH, INT8_MAX
from workers._json.convert import keep
from workers._json.fast import fast_path
from workers._json.records import Origin, after_first, decoder
from workers._otlp import parts
from workers._otlp.json_values import NO_SPAN, NO_TRACE
from workers._otlp.logs_flat import TABLE, FlatLog, columns_of, flat_row, source_of
from workers._otlp.message import Signal
from workers._otlp.otlp_lean_pb2 import Logs
from workers._otlp.parts import BACKSLASH
from workers._otlp.reader import ABSENT, FALLBACK, Reader, plain_text
from workers._otlp.severity import BANDS, number_of, says_nothing
from workers._wire import within

_TIMES = ("time_unix_nano", "observed_time_unix_nano")
_fields = attrgetter(
    *_TIMES, "trace_id", "span_id", "flags", "severity_text", "severity_number", "body", "event_name", "attributes",
    "dropped_attributes_count",
)  # fmt: skip


def otlp_rows(read: Reader, request: Any, origin: Origin) -> list[Row]:
    """The rows of a request, one per log record, in its order."""
    message, _, received, envelope, repairs = origin
    _, attributes, dump = read
    body_of: Callable[[Any], Any] = _fast_body if read is not FALLBACK else lambda body: body.string_value or body
    source = source_of(message.subject)
    _, _, _, others, _ = after_first(origin, 1)
    rows: list[Row] = []
    for resource, scope, records in read.scopes(request, repairs, rows):
        service, version, instance, resource_attributes, resource_schema_url, _ = resource
        scope_name, scope_version, scope_attributes, schema_url, rest, scope_data = scope
        for record in records:
            (time, observed, trace_id, span_id, flags, severity, number, body, event_name, pairs,
             dropped) = _fields(record)  # fmt: skip
            found = attributes(pairs)
            if time > INT8_MAX or observed > INT8_MAX:
                time, observed = parts.times_of(record, _TIMES, found, repairs)
            band = BANDS.get(number)
            if severity != band and severity and band and says_nothing(severity):
                keep(found, "severity_text", severity)
                severity = ""
            observed_timestamp = observed // 1000 - EPOCH if observed else received
            if envelope is not None:
                keep(found, "cloudevent", envelope)
                envelope = others
            packed = dump(found, repairs) if dump else dumps(found)  # no call that need not be: it is once a record
            if BACKSLASH in packed and b"\\u0000" in packed:
                packed = parts.dump(found, repairs)
            text, data = body_of(body), scope_data
            if type(text) is not str:
                text, data = _other_body(text, rest, data, repairs)
            if "\0" in severity or "\0" in event_name or (text and "\0" in text):
                repairs.append("text_replaced")
            if len(trace_id) not in (16, 0) or len(span_id) not in (8, 0):
                repairs.append("bad_id")
            rows.append(
                (
                    time // 1000 - EPOCH if time else observed_timestamp, observed_timestamp,
                    "" if trace_id == NO_TRACE else trace_id.hex(), "" if span_id == NO_SPAN else span_id.hex(),
                    flags & 0xFF, flags, severity or band,
                    number or (number_of(severity) if severity else None),
                    text, event_name or None, service, version, instance, scope_name, scope_version, scope_attributes,
                    packed, resource_attributes, dropped, schema_url, resource_schema_url, source, data,
                )
            )  # fmt: skip
    return rows


def _other_body(
    body: AnyValue, rest: dict[str, Any], data: bytes | None, repairs: list[str]
) -> tuple[str | None, bytes | None]:
    """Text of a body that is no short text, and ``data`` with the body's own type: text does not tell 5 from "5"."""
    value = parts.any_value(body)
    if body.WhichOneof("value") in (None, "string_value"):
        return value, data
    return parts.dump(value, repairs).decode(), parts.dump({**rest, "body": value}, repairs)


def _fast_body(bodies: Any) -> str | AnyValue:
    """A body that is text, and not empty, as such, another one as AnyValue."""
    (octets,) = bodies[:] or ABSENT
    size = len(octets) - 2
    if 0 < size < 0x80 and octets[0] == 0x0A and octets[1] == size:  # as most are
        return octets[2:].decode()
    return plain_text(octets) or _body_in(octets)


_body_in = within(ExportLogsServiceRequest, 1, 2, 2, 5)


_SIGNAL = Signal(flat_row, text_field="body", request=ExportLogsServiceRequest, lean=Logs, otlp_rows=otlp_rows)

STREAM = Stream(
    name="LOGS",
    subjects=("logs.>",),
    table="logs",
    columns=TABLE.columns,
    decode=decoder(_SIGNAL),
    fast=fast_path(TABLE.columns, FlatLog, b'"severity_text"', columns_of),
)
