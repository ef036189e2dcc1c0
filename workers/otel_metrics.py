"""OTEL_METRICS: data points from OTLP and "performance" records of spans become rows of ``otel_metrics``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from eventwriter.stream import Column, Row, Stream
from eventwriter.values import Unfit, dump_json, shown
from workers._guard import total
from workers._json import flat
from workers._otlp import values
from workers._otlp.data_points import fast_rows, otlp_rows
from workers._otlp.message import Context, Signal, decode_message

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("start_timestamp", "timestamptz", core=False),
    Column("trace_id", "text"),
    # Tells the series of a metric apart, and the records of a span. Older tables have (timestamp, span_name,
    # service_name, span_id) as their key, and there it must be part of it.
    Column("series_key", "text", aliases=("span_id",), core=False),
    Column("span_id", "text"),
    Column("service_name", "text"),
    Column("service_version", "text", core=False),
    Column("service_instance", "text", core=False),
    Column("span_name", "text"),
    Column("span_kind", "text"),
    Column("metric_type", "text"),
    # Older tables have no other place for a value than duration_ms.
    Column("value", "double precision", aliases=("duration_ms",), core=False),
    Column("value_int", "bigint", core=False),
    Column("unit", "text", core=False),
    Column("description", "text", core=False),
    Column("duration_ms", "double precision"),
    Column("duration_seconds", "double precision"),
    Column("count", "bigint", core=False),
    Column("sum", "double precision", core=False),
    Column("min", "double precision", core=False),
    Column("max", "double precision", core=False),
    Column("temporality", "text", core=False),
    Column("is_monotonic", "boolean", core=False),
    Column("flags", "bigint", core=False),
    Column("http_method", "text"),
    Column("http_route", "text"),
    Column("http_status_code", "text"),
    Column("grpc_service", "text"),
    Column("grpc_method", "text"),
    Column("grpc_status_code", "text"),
    Column("is_slow", "boolean"),
    Column("component", "text"),
    Column("level", "text"),
    Column("scope_name", "text", core=False),
    Column("scope_version", "text", core=False),
    Column("scope_attributes", "jsonb", core=False),
    Column("attributes", "jsonb", core=False),
    Column("resource_attributes", "jsonb", core=False),
    Column("schema_url", "text", core=False),
    Column("resource_schema_url", "text", core=False),
    Column("data", "jsonb", core=False),
)


# --- flat JSON ----------------------------------------------------------------------------------------------

_OTHER_NAMES = {"span_name": ("name", "metric_name", "metricName"), "resource_attributes": ("resource",)}
_PLACES = flat.Places(*(flat.names(column.name, *_OTHER_NAMES.get(column.name, ())) for column in COLUMNS))
_CONVERTER = flat.Converter(COLUMNS)
_AT = {column.name: place for place, column in enumerate(COLUMNS)}
_MEASURES = ("value", "duration_ms", "duration_seconds", "count", "sum")


def flat_row(record: Mapping[str, Any], context: Context) -> Row:
    """The row of one flat record, such as the collector's "performance" records; Unfit without name and measure."""
    _, received, envelope, repairs = context
    given, rest = _PLACES.sort(record)
    row = _CONVERTER.row(given, rest, repairs)
    for column in _MEASURES:
        if row[_AT[column]] is None and given[_AT[column]] is not None:
            raise Unfit("bad_value", f"{column} is {shown(given[_AT[column]])}, not a number")
    if all(row[_AT[column]] is None for column in ("span_name", "metric_type", *_MEASURES)):
        raise Unfit("missing_field", "a metric needs span_name, metric_type or a value")
    time = given[_AT["timestamp"]]
    timestamp = None if time is None else flat.time("timestamp", time)
    row[_AT["timestamp"]] = received if timestamp is None else timestamp
    start = given[_AT["start_timestamp"]]
    if start is not None:
        try:
            row[_AT["start_timestamp"]] = flat.time("start_timestamp", start)
        except Unfit:
            row[_AT["start_timestamp"]] = None
            flat.keep_original(rest, "start_timestamp", start, repairs, "bad_time")
    milliseconds, seconds = row[_AT["duration_ms"]], row[_AT["duration_seconds"]]
    if milliseconds is None and seconds is not None:
        row[_AT["duration_ms"]] = milliseconds = seconds * 1000
    elif seconds is None and milliseconds is not None:
        row[_AT["duration_seconds"]] = milliseconds / 1000
    if row[_AT["value"]] is None:
        row[_AT["value"]] = milliseconds
    resource = flat.parsed(given[_AT["resource_attributes"]])
    flat.fill_service(row, _AT, resource, rest, repairs)
    row[_AT["span_name"]] = row[_AT["span_name"]] or "unknown"
    row[_AT["is_slow"]] = bool(row[_AT["is_slow"]])
    for column in ("trace_id", "span_id"):
        row[_AT[column]] = (row[_AT[column]] or "").lower()
    attributes = flat.merged(given[_AT["attributes"]], rest)
    row[_AT["attributes"]] = dump_json(attributes)
    row[_AT["resource_attributes"]] = row[_AT["resource_attributes"]] or b"{}"
    if row[_AT["series_key"]] is None:
        row[_AT["series_key"]] = _record_key(row[_AT["span_id"]], row[_AT["metric_type"]], row[_AT["attributes"]])
    if envelope is not None:
        values.add_envelope(attributes, envelope)
        row[_AT["attributes"]] = dump_json(attributes)
    return tuple(row)


def _record_key(span_id: str, metric_type: str | None, attributes: bytes) -> str:
    """Tells apart the records that a slow span makes: the span itself, its HTTP or gRPC call, its slowness."""
    if not span_id:
        span_id = blake2b(attributes, digest_size=8).hexdigest()
    return span_id if metric_type in (None, "span") else f"{span_id}#{metric_type}"


_SIGNAL = Signal(
    ExportMetricsServiceRequest,
    otlp_rows,
    flat_row,
    ("resourceMetrics", "resource_metrics"),
    fast_rows=fast_rows,
)


decode = total(partial(decode_message, _SIGNAL))
"""The rows of one message: OTLP protobuf or JSON, performance JSON, summaries, CloudEvents around them."""

STREAM = Stream(
    name="OTEL_METRICS",
    subjects=("otel.metrics", "otel.metrics.>"),
    table="otel_metrics",
    columns=COLUMNS,
    decode=decode,
)
