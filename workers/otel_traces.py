"""OTEL_TRACES: spans from OTLP and flat JSON become rows of ``otel_traces``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from eventwriter.stream import Row, Stream
from eventwriter.values import Unfit
from workers._guard import total
from workers._json.convert import moment, parsed
from workers._json.records import Origin, decode_records
from workers._json.table import Field, Table
from workers._otlp.flat import attributes_of, fill_service
from workers._otlp.json_form import enum_number
from workers._otlp.message import signal_of
from workers._otlp.spans import NO_PARENT, fast_rows, otlp_rows

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
    Field("service_name", "text"),
    Field("service_version", "text"),
    Field("service_instance", "text"),
    Field("scope_name", "text"),
    Field("scope_version", "text"),
    Field("scope_attributes", "jsonb", core=False),
    Field("status_code", "integer"),
    Field("status_message", "text"),
    Field("attributes", "jsonb", own=True),
    Field("resource_attributes", "jsonb", ("resource",)),
    Field("events", "jsonb"),
    Field("links", "jsonb"),
    Field("dropped_attributes_count", "bigint", core=False),
    Field("dropped_events_count", "bigint", core=False),
    Field("dropped_links_count", "bigint", core=False),
    Field("schema_url", "text", core=False),
    Field("resource_schema_url", "text", core=False),
    Field("data", "jsonb", core=False),
    others=[("status",)],
)


_PLACES, _AT = TABLE.places, TABLE.at
_KIND, _CODE = (each.fields_by_name[name] for each, name in ((Span.DESCRIPTOR, "kind"), (Status.DESCRIPTOR, "code")))
_IDS = ("trace_id", "span_id")


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of one span in flat JSON; raises Unfit for one without name and ids, or with a bad time or id."""
    _, _, received, envelope, repairs = origin
    row, rest = _PLACES.sort(record)
    _take_status(row, row.pop(), rest)
    time = None
    for column in ("timestamp", "start_time_unix_nano", "end_time_unix_nano"):
        place = _AT[column]
        if time is None and row[place] is not None:
            time = moment(row[place], _PLACES.name_in(record, place) or column)
    resource = parsed(row[_AT["resource_attributes"]])
    fill_service(row, _AT, resource)
    TABLE.fill(row, rest, repairs)
    if not any(row[_AT[column]] for column in (*_IDS, "name")):
        raise Unfit("missing_field", "a span needs at least one of trace_id, span_id and name")
    row[_AT["timestamp"]] = received if time is None else time
    for column in (*_IDS, "parent_span_id"):
        row[_AT[column]] = (row[_AT[column]] or "").lower()
    if row[_AT["parent_span_id"]] == NO_PARENT.hex():
        row[_AT["parent_span_id"]] = ""
    for column in ("start_time_unix_nano", "end_time_unix_nano"):
        row[_AT[column]] = row[_AT[column]] or None
    row[_AT["attributes"]] = attributes_of(row[_AT["attributes"]], rest, envelope)
    for column, default in (("resource_attributes", b"{}"), ("events", b"[]"), ("links", b"[]")):
        row[_AT[column]] = row[_AT[column]] or default
    return tuple(row)


def _take_status(row: list[Any], status: Any, rest: dict[str, Any]) -> None:
    """Code and message of a status that is an object, and the numbers of names of the code and of the span's kind."""
    if isinstance(status, dict):
        for column, key in (("status_code", "code"), ("status_message", "message")):
            if row[_AT[column]] is None:
                row[_AT[column]] = status.get(key)
    elif status is not None:
        rest["status"] = status
    for column, field in (("kind", _KIND), ("status_code", _CODE)):
        with suppress(Unfit):  # what is no number will be kept
            if row[_AT[column]] is not None:
                row[_AT[column]] = enum_number(field, row[_AT[column]])


_SIGNAL = signal_of(ExportTraceServiceRequest, otlp_rows, fast_rows, flat_row)

decode = total(partial(decode_records, _SIGNAL))
"""The rows of one message: OTLP protobuf or JSON, flat JSON, CloudEvents around them."""

STREAM = Stream(
    name="OTEL_TRACES",
    subjects=("otel.traces", "otel.traces.>"),
    table="otel_traces",
    columns=TABLE.columns,
    decode=decode,
)
