"""OTEL_TRACES: spans from OTLP and flat JSON become rows of ``otel_traces``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from eventwriter.stream import Column, Row, Stream
from eventwriter.values import Unfit, dump_json, shown
from workers._guard import total
from workers._json import flat
from workers._otlp import values
from workers._otlp.json_form import enum_number
from workers._otlp.message import Context, Signal, decode_message
from workers._otlp.spans import NO_PARENT, fast_rows, otlp_rows

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("trace_id", "text"),
    Column("span_id", "text"),
    Column("parent_span_id", "text"),
    Column("trace_state", "text", core=False),
    Column("flags", "bigint", core=False),
    Column("name", "text"),
    Column("kind", "integer"),
    Column("start_time_unix_nano", "bigint"),
    Column("end_time_unix_nano", "bigint"),
    Column("service_name", "text"),
    Column("service_version", "text"),
    Column("service_instance", "text"),
    Column("scope_name", "text"),
    Column("scope_version", "text"),
    Column("scope_attributes", "jsonb", core=False),
    Column("status_code", "integer"),
    Column("status_message", "text"),
    Column("attributes", "jsonb"),
    Column("resource_attributes", "jsonb"),
    Column("events", "jsonb"),
    Column("links", "jsonb"),
    Column("dropped_attributes_count", "bigint", core=False),
    Column("dropped_events_count", "bigint", core=False),
    Column("dropped_links_count", "bigint", core=False),
    Column("schema_url", "text", core=False),
    Column("resource_schema_url", "text", core=False),
    Column("data", "jsonb", core=False),
)


# --- flat JSON ----------------------------------------------------------------------------------------------

_OTHER_NAMES = {"flags": ("trace_flags", "traceFlags"), "name": ("span_name", "spanName"),
                "kind": ("span_kind", "spanKind"), "resource_attributes": ("resource",)}  # fmt: skip
_PLACES = flat.Places(*(flat.names(column.name, *_OTHER_NAMES.get(column.name, ())) for column in COLUMNS), ("status",))
_CONVERTER = flat.Converter(COLUMNS)
_AT = {column.name: place for place, column in enumerate(COLUMNS)}
_KIND = Span.DESCRIPTOR.fields_by_name["kind"]
_CODE = Status.DESCRIPTOR.fields_by_name["code"]


def flat_row(record: Mapping[str, Any], context: Context) -> Row:
    """The row of one span in flat JSON; raises Unfit for one without name and ids, or with a bad time or id."""
    _, received, envelope, repairs = context
    given, rest = _PLACES.sort(record)
    status = given[len(COLUMNS)]
    if isinstance(status, dict):
        for column, key in (("status_code", "code"), ("status_message", "message")):
            if given[_AT[column]] is None:
                given[_AT[column]] = status.get(key)
    elif status is not None:
        rest["status"] = status
    for column, field in (("kind", _KIND), ("status_code", _CODE)):
        with suppress(Unfit):  # convert() will keep what is no number
            if given[_AT[column]] is not None:
                given[_AT[column]] = enum_number(field, given[_AT[column]])
    (_, trace_id, span_id, parent, state, flags, name, kind, start, end, *more) = _CONVERTER.row(given, rest, repairs)
    for column, value in (("trace_id", trace_id), ("span_id", span_id)):
        if value is None and given[_AT[column]] is not None:
            raise Unfit("bad_value", f"{column} is {shown(given[_AT[column]])}, not text")
    if not (trace_id or span_id or name):
        raise Unfit("missing_field", "a span needs at least one of trace_id, span_id and name")
    time = None
    for column in ("timestamp", "start_time_unix_nano", "end_time_unix_nano"):
        place = _AT[column]
        if time is None and given[place] is not None:
            time = flat.time(_PLACES.name_in(record, place), given[place])
    row = [received if time is None else time, (trace_id or "").lower(), (span_id or "").lower(),
           _parent((parent or "").lower()), state, flags, name, kind, start or None, end or None, *more]  # fmt: skip
    resource = flat.parsed(given[_AT["resource_attributes"]])
    flat.fill_service(row, _AT, resource, rest, repairs)
    attributes = flat.merged(given[_AT["attributes"]], rest)
    if envelope is not None:
        values.add_envelope(attributes, envelope)
    row[_AT["attributes"]] = dump_json(attributes)
    for column, default in (("resource_attributes", b"{}"), ("events", b"[]"), ("links", b"[]")):
        row[_AT[column]] = row[_AT[column]] or default
    return tuple(row)


def _parent(span_id: str) -> str:
    return "" if span_id == NO_PARENT.hex() else span_id


_SIGNAL = Signal(
    ExportTraceServiceRequest, otlp_rows, flat_row, ("resourceSpans", "resource_spans"), fast_rows=fast_rows
)


decode = total(partial(decode_message, _SIGNAL))
"""The rows of one message: OTLP protobuf or JSON, flat JSON, CloudEvents around them."""

STREAM = Stream(
    name="OTEL_TRACES",
    subjects=("otel.traces", "otel.traces.>"),
    table="otel_traces",
    columns=COLUMNS,
    decode=decode,
)
