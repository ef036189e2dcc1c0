"""Gauges and sums of OTLP requests in protobuf, the quick way; distributions beside them go the general way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any

import orjson
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT8_MAX
from workers._json.flat import trimmed
from workers._otlp import values
from workers._otlp.fast import BACKSLASH, CACHED_MAX, Uncommon, attributes, field, joined, scopes
from workers._otlp.message import Context
from workers._otlp.metric_points import (
    NO_RECORDED_VALUE,
    TEMPORALITY,
    durations,
    exemplars,
    known_attributes,
    series_hash,
)
from workers._otlp.otlp_lean_pb2 import Metrics, ResourceMetrics, ScopeMetrics

_General = Callable[[ExportMetricsServiceRequest, Context], list[Row]]
_POINT_MAX = 1024
"""Bytes of attributes that are worth keeping."""
_POINTS_KEPT = 4096
_Point = tuple[str, bytes, tuple[str | None, ...]]
"""Key of the series, JSON of the attributes, those that have columns."""
_POINTS: dict[tuple[Any, ...], _Point] = {}
"""Hash of a metric, and the attributes as bytes → what their points share."""
_FIELDS = attrgetter(
    "start_time_unix_nano", "time_unix_nano", "as_int", "as_double", "flags", "attributes", "exemplars"
)


def common_rows(general: _General, payload: bytes, context: Context) -> list[Row]:
    """The rows of a request, those of its distributions by ``general``; ValueError or DecodeError if all must be."""
    rows: list[Row] = []
    for group, resource, scoped, scope in scopes(Metrics.FromString(payload)):
        metrics = [(metric, _has_numbers(metric)) for metric in scoped.records]
        others = [metric for metric, has_numbers in metrics if not has_numbers]
        rows_of_others: Iterator[list[Row]] = iter(())
        if others:
            if len(others) == len(metrics) and not rows:
                raise Uncommon("for distributions alone this way is the longer one")
            rows_of_others = _rows_of(_request(group, scoped, others), general, context)
        for metric, has_numbers in metrics:
            if has_numbers:
                _add_numbers(rows, metric, resource, scope, context)
            else:
                rows += next(rows_of_others)
    return rows


def _has_numbers(metric: Any) -> bool:
    """Whether it is a gauge or a sum."""
    numbers: int = metric.HasField("gauge") + metric.HasField("sum")
    if numbers + bool(metric.histogram) + bool(metric.exponential_histogram) + bool(metric.summary) > 1:
        raise Uncommon("of several kinds the last one counts")
    return numbers > 0


def _rows_of(request: ExportMetricsServiceRequest, general: _General, context: Context) -> Iterator[list[Row]]:
    """The rows of each metric of a request that has a single scope."""
    rows = general(request, context)
    if context[3]:
        raise Uncommon("repairs, whose order would be another")
    place = 0
    for metric in request.resource_metrics[0].scope_metrics[0].metrics:
        kind = metric.WhichOneof("data")
        begin = place
        place += 0 if kind is None else len(getattr(metric, kind).data_points)
        yield rows[begin:place]


def _request(group: Any, scoped: Any, metrics: list[Any]) -> ExportMetricsServiceRequest:
    """A request with these metrics only."""
    scope = ScopeMetrics(scope=scoped.scope, schema_url=scoped.schema_url, records=metrics)
    shared = ResourceMetrics(resource=group.resource, schema_url=group.schema_url, scopes=[scope])
    return ExportMetricsServiceRequest.FromString(Metrics(groups=[shared]).SerializeToString())


def _add_numbers(
    rows: list[Row], metric: Any, resource: values.ResourceValues, scope: values.ScopeValues, context: Context
) -> None:
    """Adds the rows of a gauge or a sum."""
    _, received, _, repairs = context
    service, version, instance, resource_attributes, resource_schema_url, _ = resource
    scope_name, scope_version, scope_attributes, schema_url, rest, _ = scope
    name, unit, description = metric.name, metric.unit or None, metric.description or None
    if "\0" in name or (unit and "\0" in unit) or (description and "\0" in description):
        raise Uncommon("to be repaired")
    temporality = monotonic = None
    if metric.HasField("gauge"):
        kind, points = "gauge", metric.gauge.data_points
    else:
        kind, points = "sum", metric.sum.data_points
        number = metric.sum.aggregation_temporality
        temporality, monotonic = TEMPORALITY.get(number, str(number)), metric.sum.is_monotonic
    shared = {**rest, "metadata": _metadata(metric)} if metric.metadata else rest
    shared_data = values.dump(shared, repairs) if shared else None
    identity = (kind, name, unit, temporality, resource_attributes, scope_name, scope_version, scope_attributes)
    hashed = _cached_hash if sum([len(part) for part in identity if part]) <= CACHED_MAX else series_hash
    series = hashed(*identity)
    for point in points:
        start, time, integer, real, flags, pairs, examples = _FIELDS(point)
        if time > INT8_MAX or start > INT8_MAX:
            raise Uncommon("to be repaired")
        octets = (series, *pairs[:])
        series_key, packed, known = _POINTS.get(octets) or _point(octets)
        value: float | None
        if integer:
            value = float(integer)
        else:
            value, integer = real, None
            if not real:  # 0, or absent
                which = point.WhichOneof("value")
                if which is None:
                    value = None
                elif which == "as_int":
                    value, integer = 0.0, 0
        if flags & NO_RECORDED_VALUE:
            value = integer = None
        start_timestamp = start // 1000 - EPOCH if start else None
        timestamp = time // 1000 - EPOCH if time else start_timestamp
        trace_id = span_id = ""
        data = shared_data
        if examples:
            listed = exemplars(_exemplars(examples))
            trace_id, span_id = listed[0]["trace_id"], listed[0]["span_id"]
            data = values.dump({**shared, "exemplars": listed}, repairs)
        duration_ms, duration_seconds = durations(value, unit) if unit else (None, None)
        (span_kind, http_method, http_route, http_status_code, grpc_service, grpc_method,
         grpc_status_code, component, level) = known  # fmt: skip
        rows.append(
            (
                received if timestamp is None else timestamp,
                start_timestamp,
                trace_id,
                series_key,
                span_id,
                service,
                version,
                instance,
                name,
                span_kind,
                kind,
                value,
                integer,
                unit,
                description,
                duration_ms,
                duration_seconds,
                None,
                None,
                None,
                None,
                temporality,
                monotonic,
                flags,
                http_method,
                http_route,
                http_status_code,
                grpc_service,
                grpc_method,
                grpc_status_code,
                False,
                component,
                level,
                scope_name,
                scope_version,
                scope_attributes,
                packed,
                resource_attributes,
                schema_url,
                resource_schema_url,
                data,
            )
        )


_cached_hash = lru_cache(maxsize=1024)(series_hash)


def _point(octets: tuple[Any, ...]) -> _Point:
    """What the points with these attributes share, of this series; kept, for series send point after point."""
    pairs = octets[1:]
    found = attributes(pairs)
    packed = trimmed(orjson.dumps(found, option=orjson.OPT_SORT_KEYS))
    if BACKSLASH in packed and b"\\u0000" in packed:
        raise Uncommon("to be repaired")
    key = octets[0].copy()
    key.update(packed)
    point = key.hexdigest(), packed, known_attributes(found, [])
    if len(b"".join(pairs)) <= _POINT_MAX:
        if len(_POINTS) >= _POINTS_KEPT:
            _POINTS.clear()
        _POINTS[octets] = point
    return point


def _metadata(metric: Any) -> dict[str, Any]:
    octets = field(0x0A, field(0x12, field(0x12, joined(0x62, metric.metadata))))
    request = ExportMetricsServiceRequest.FromString(octets)
    return values.attributes(request.resource_metrics[0].scope_metrics[0].metrics[0].metadata)


def _exemplars(examples: Any) -> Any:
    """The exemplars of a point, parsed where they are in a request."""
    point = field(0x0A, joined(0x2A, examples))
    request = ExportMetricsServiceRequest.FromString(field(0x0A, field(0x12, field(0x12, field(0x2A, point)))))
    return request.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].exemplars
