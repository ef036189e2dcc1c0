"""OTEL_METRICS: data points from OTLP and "performance" records of spans become rows of ``otel_metrics``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from eventwriter.stream import Row, Stream
from eventwriter.values import Unfit, dump_json
from workers._json.convert import in_order
from workers._json.records import Origin, decoder
from workers._json.table import Field, Table
from workers._otlp.data_points import otlp_rows
from workers._otlp.json_values import attributes_of, fill_ids, fill_service
from workers._otlp.message import Signal
from workers._otlp.otlp_lean_pb2 import Metrics

TABLE = Table(
    Field("timestamp", "timestamptz", must=True),
    Field("start_timestamp", "timestamptz", core=False),
    Field("trace_id", "text"),
    # Tells the series of a metric apart, and the records of a span. Older tables have (timestamp, span_name,
    # service_name, span_id) as their key, and there it must be part of it.
    Field("series_key", "text", aliases=("span_id",), core=False),
    Field("span_id", "text"),
    Field("service_name", "text", ("service.name",), default="unknown"),
    Field("service_version", "text", ("service.version",), core=False),
    Field("service_instance", "text", ("service.instance.id",), core=False),
    Field("span_name", "text", ("name", "metric_name", "metricName")),
    Field("span_kind", "text"),
    Field("metric_type", "text"),
    Field("value", "double precision", core=False, must=True),
    Field("value_int", "bigint", core=False),
    Field("unit", "text", core=False),
    Field("description", "text", core=False),
    # Older tables have no other place for a value without a unit of time.
    Field("duration_ms", "double precision", must=True, instead=("value", 1.0)),
    Field("duration_seconds", "double precision", must=True, instead=("value", 1000.0)),
    Field("count", "bigint", core=False, must=True),
    Field("sum", "double precision", core=False, must=True),
    Field("min", "double precision", core=False),
    Field("max", "double precision", core=False),
    Field("temporality", "text", core=False),
    Field("is_monotonic", "boolean", core=False),
    Field("flags", "bigint", core=False),
    Field("http_method", "text"),
    Field("http_route", "text"),
    Field("http_status_code", "text"),
    Field("grpc_service", "text"),
    Field("grpc_method", "text"),
    Field("grpc_status_code", "text"),
    Field("is_slow", "boolean", default=False),
    Field("component", "text"),
    Field("level", "text"),
    Field("scope_name", "text", core=False),
    Field("scope_version", "text", core=False),
    Field("scope_attributes", "jsonb", core=False),
    Field("attributes", "jsonb", core=False, own=True),
    Field("resource_attributes", "jsonb", ("resource",), default=b"{}", core=False),
    Field("schema_url", "text", core=False),
    Field("resource_schema_url", "text", core=False),
    Field("data", "jsonb", core=False),
)


_AT = TABLE.at
_ABOUT = ("span_name", "metric_type", "http_method", "http_route", "grpc_service", "grpc_method")
_SERIES = (
    "service_version", "service_instance", "span_kind", "unit", "temporality", "http_method", "http_route",
    "http_status_code", "grpc_service", "grpc_method", "grpc_status_code", "component", "level", "scope_name",
    "scope_version", "scope_attributes", "attributes", "resource_attributes",
)  # fmt: skip
"""Beside the names of service and record, and the type of the metric."""
_TOLD = {*_SERIES, "service_name", "span_name", "metric_type"}
_MEASURES = ("value", "duration_ms", "duration_seconds", "count", "sum")


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of one flat record, such as the collector's "performance" records; Unfit without name and measure."""
    _, _, received, envelope, repairs = origin
    row, rest = TABLE.places.sort(record)
    fill_service(row, _AT)
    beside = {*rest}
    TABLE.fill(row, rest, repairs)
    if all(row[_AT[column]] is None for column in (*_ABOUT, *_MEASURES)):
        raise Unfit("missing_field", "a metric needs span_name, metric_type, a call or a value")
    if row[_AT["timestamp"]] is None:
        row[_AT["timestamp"]] = received
    milliseconds, seconds = row[_AT["duration_ms"]], row[_AT["duration_seconds"]]
    if milliseconds is None and seconds is not None:
        row[_AT["duration_ms"]] = milliseconds = seconds * 1000
    elif seconds is None and milliseconds is not None:
        row[_AT["duration_seconds"]] = milliseconds / 1000
    if row[_AT["value"]] is None:
        row[_AT["value"]] = milliseconds
    row[_AT["span_name"]] = row[_AT["span_name"]] or "unknown"
    row[_AT["is_slow"]] = bool(row[_AT["is_slow"]])
    fill_ids(row, _AT, ("trace_id", "span_id"), repairs)
    if row[_AT["series_key"]] is None:
        row[_AT["series_key"]] = _record_key(row, rest, beside)
    row[_AT["attributes"]] = attributes_of(row[_AT["attributes"]], rest, envelope)
    return tuple(row)


def _record_key(row: Sequence[Any], rest: Mapping[str, Any], beside: set[str]) -> str:
    """Tells apart the records that a slow span makes: the span itself, its HTTP or gRPC call, its slowness; and those
    without a span, by all that says what was measured, and by what of the rest stood ``beside`` it, in whatever order.
    """
    span_id, metric_type = row[_AT["span_id"]], row[_AT["metric_type"]]
    if not span_id:
        told = {column: row[_AT[column]] for column in _SERIES}
        kept = {name: rest[name] for name in rest if name in beside or name.rpartition("original.")[2] in _TOLD}
        told["attributes"] = attributes_of(told["attributes"], kept, None)
        text = dump_json([in_order(each).decode() if type(each) is bytes else each for each in told.values()])
        span_id = blake2b(text, digest_size=8).hexdigest()
    return str(span_id) if metric_type in (None, "span") else f"{span_id}#{metric_type}"


_SIGNAL = Signal(flat_row, request=ExportMetricsServiceRequest, lean=Metrics, otlp_rows=otlp_rows)

STREAM = Stream(
    name="OTEL_METRICS",
    subjects=("otel.metrics", "otel.metrics.>"),
    table="otel_metrics",
    columns=TABLE.columns,
    decode=decoder(_SIGNAL),
)
