"""OTEL_TRACES: spans from OTLP and flat JSON become rows of ``otel_traces``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import lru_cache
from operator import attrgetter
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2
from orjson import dumps

from eventwriter.stream import Row, Stream
from eventwriter.values import EPOCH, INT8_MAX, Unfit
from workers._json.convert import keep, moment, spread
from workers._json.records import Origin, after_first, decoder
from workers._json.table import Field, Table
from workers._otlp import parts
from workers._otlp.json_values import NO_SPAN, NO_TRACE, attributes_of, enum_number, fill_ids, fill_service
from workers._otlp.message import Signal
from workers._otlp.otlp_lean_pb2 import Traces
from workers._otlp.parts import BACKSLASH
from workers._otlp.reader import ABSENT, FALLBACK, Reader
from workers._wire import within

TABLE = Table(
    Field("timestamp", "timestamptz", own=True),
    Field("trace_id", "text", must=True),
    Field("span_id", "text", must=True),
    Field("parent_span_id", "text"),
    Field("trace_state", "text", core=False),
    Field("flags", "bigint", ("trace_flags", "traceFlags"), core=False),
    Field("name", "text", ("span_name", "spanName")),
    Field("kind", "integer", ("span_kind", "spanKind")),
    Field("start_time_unix_nano", "bigint"),
    Field("end_time_unix_nano", "bigint"),
    Field("service_name", "text", ("service.name",), default="unknown"),
    Field("service_version", "text", ("service.version",)),
    Field("service_instance", "text", ("service.instance.id",)),
    Field("scope_name", "text"),
    Field("scope_version", "text"),
    Field("scope_attributes", "jsonb", core=False),
    Field("status_code", "integer"),
    Field("status_message", "text"),
    Field("attributes", "jsonb", own=True),
    Field("resource_attributes", "jsonb", ("resource",), default=b"{}"),
    Field("events", "jsonb", default=b"[]"),
    Field("links", "jsonb", default=b"[]"),
    Field("dropped_attributes_count", "bigint", core=False),
    Field("dropped_events_count", "bigint", core=False),
    Field("dropped_links_count", "bigint", core=False),
    Field("schema_url", "text", core=False),
    Field("resource_schema_url", "text", core=False),
    Field("data", "jsonb", core=False),
    others=[("status",)],
)


# --- OTLP ------------------------------------------------------------------------------------------

_STATUS_MAX = 256
"""Bytes of a status that is worth keeping."""
_TIMES = ("start_time_unix_nano", "end_time_unix_nano")
_fields = attrgetter(
    "trace_id", "span_id", "parent_span_id", "trace_state", "flags", "name", "kind", *_TIMES, "status", "attributes",
    "events", "links", "dropped_attributes_count", "dropped_events_count", "dropped_links_count",
)  # fmt: skip
_status = attrgetter("code", "message")


def otlp_rows(read: Reader, request: Any, origin: Origin) -> list[Row]:
    """The rows of a request, one per span, in its order."""
    _, _, received, envelope, repairs = origin
    _, attributes, dump = read
    status_of = _status if read is FALLBACK else _fast_status
    _, _, _, others, _ = after_first(origin, 1)
    rows: list[Row] = []
    for resource, scope, spans in read.scopes(request, repairs, rows):
        service, version, instance, resource_attributes, resource_schema_url, _ = resource
        scope_name, scope_version, scope_attributes, schema_url, _, data = scope
        for span in spans:
            (trace_id, span_id, parent, state, flags, name, kind, start, end, status, pairs, events, links,
             dropped_attributes, dropped_events, dropped_links) = _fields(span)  # fmt: skip
            found = attributes(pairs)
            time = start or end
            if start > INT8_MAX or end > INT8_MAX:
                known_start, known_end = parts.times_of(span, _TIMES, found, repairs)
                time = known_start or known_end
                start, end = min(start, INT8_MAX), min(end, INT8_MAX)
            if envelope is not None:
                keep(found, "cloudevent", envelope)
                envelope = others
            packed = dump(found, repairs) if dump else dumps(found)  # no call that need not be: it is once a record
            if BACKSLASH in packed and b"\\u0000" in packed:
                packed = parts.dump(found, repairs)
            code, message = status_of(status)
            if "\0" in name or "\0" in state or "\0" in message:
                repairs.append("text_replaced")
            if len(trace_id) != 16 or len(span_id) != 8:
                repairs.append("bad_id")
            rows.append(
                (
                    time // 1000 - EPOCH if time else received,
                    "" if trace_id == NO_TRACE else trace_id.hex(), "" if span_id == NO_SPAN else span_id.hex(),
                    "" if parent == NO_SPAN else parent.hex(),
                    state or None, flags, name, kind, start or None, end or None, service, version, instance,
                    scope_name, scope_version, scope_attributes, code, message or None, packed, resource_attributes,
                    _events(events, attributes, repairs) if events else b"[]",
                    _links(links, attributes, repairs) if links else b"[]",
                    dropped_attributes, dropped_events, dropped_links, schema_url, resource_schema_url, data,
                )
            )  # fmt: skip
    return rows


def _events(events: Any, attributes: Callable[[Any], dict[str, Any]], repairs: list[str]) -> bytes:
    """The events of a span for its jsonb column."""
    found = [
        {
            "time_unix_nano": event.time_unix_nano,
            "name": event.name,
            "attributes": attributes(event.attributes),
            "dropped_attributes_count": event.dropped_attributes_count,
        }
        for event in events
    ]
    return parts.dump(found, repairs)


def _links(links: Any, attributes: Callable[[Any], dict[str, Any]], repairs: list[str]) -> bytes:
    """The links of a span for its jsonb column."""
    found = [
        {
            "trace_id": link.trace_id.hex(),
            "span_id": link.span_id.hex(),
            "trace_state": link.trace_state,
            "attributes": attributes(link.attributes),
            "dropped_attributes_count": link.dropped_attributes_count,
            "flags": link.flags,
        }
        for link in links
    ]
    return parts.dump(found, repairs)


def _fast_status(statuses: Any) -> tuple[int, str]:
    (octets,) = statuses[:] or ABSENT
    return _cached_status(octets) if len(octets) <= _STATUS_MAX else _cached_status.__wrapped__(octets)


@lru_cache(maxsize=256)
def _cached_status(octets: bytes) -> tuple[int, str]:
    code, message = _status(_status_in(octets))
    return code, message


_status_in = within(ExportTraceServiceRequest, 1, 2, 2, 15)


# --- flat JSON ------------------------------------------------------------------------------------------

_PLACES, _AT = TABLE.places, TABLE.at
_ENUMS = {
    "kind": trace_pb2.Span.DESCRIPTOR.fields_by_name["kind"],
    "status_code": trace_pb2.Status.DESCRIPTOR.fields_by_name["code"],
}
_STATUS = (("code", _AT["status_code"]), ("message", _AT["status_message"]))
_IDS = ("trace_id", "span_id")


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of one span in flat JSON; raises Unfit for one without name and ids, or with a bad time or id."""
    _, _, received, envelope, repairs = origin
    row, rest = _PLACES.sort(record)
    if (status := row.pop()) is not None:
        spread(row, _STATUS, "status", status, rest)
    for column, enum in _ENUMS.items():
        if row[_AT[column]] is not None:
            with suppress(Unfit):  # what is no number will be kept
                row[_AT[column]] = enum_number(enum, row[_AT[column]])
    time = None
    for column in ("timestamp", "start_time_unix_nano", "end_time_unix_nano"):
        place = _AT[column]
        if time is None and row[place] is not None:
            time = moment(row[place], _PLACES.name_in(record, place) or column, repairs)
    fill_service(row, _AT)
    TABLE.fill(row, rest, repairs)
    if not any(row[_AT[column]] for column in (*_IDS, "name")):
        raise Unfit("missing_field", "a span needs at least one of trace_id, span_id and name")
    row[_AT["timestamp"]] = received if time is None else time
    fill_ids(row, _AT, (*_IDS, "parent_span_id"), repairs)
    for column in ("start_time_unix_nano", "end_time_unix_nano"):
        row[_AT[column]] = row[_AT[column]] or None
    row[_AT["attributes"]] = attributes_of(row[_AT["attributes"]], rest, envelope)
    return tuple(row)


_SIGNAL = Signal(flat_row, request=ExportTraceServiceRequest, lean=Traces, otlp_rows=otlp_rows)

STREAM = Stream(
    name="OTEL_TRACES",
    subjects=("otel.traces", "otel.traces.>"),
    table="otel_traces",
    columns=TABLE.columns,
    decode=decoder(_SIGNAL),
)
