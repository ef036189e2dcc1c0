"""Data points of OTLP requests: the rows of ``otel_metrics`` that they become, by the fast path and by the fallback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT8_MAX
from workers._json.convert import clamped, in_order
from workers._json.records import Origin, after_first
from workers._limits import is_large
from workers._otlp import parts
from workers._otlp.json_values import present
from workers._otlp.parts import ResourceValues, ScopeValues
from workers._otlp.reader import CACHED_MAX, FALLBACK, Reader, Uncommon
from workers._wire import field, within

TIME_UNITS: Mapping[str, float] = {
    "ns": 1.0,
    "us": 1e3,
    "\N{MICRO SIGN}s": 1e3,
    "\N{GREEK SMALL LETTER MU}s": 1e3,
    "ms": 1e6,
    "s": 1e9,
    "min": 6e10,
    "h": 3.6e12,
}
"""Unit of time (UCUM) → nanoseconds."""
DETAILS: Mapping[str, Sequence[str]] = {
    "histogram": ("bucket_counts", "explicit_bounds"),
    "exponential_histogram": ("scale", "zero_count", "zero_threshold", "positive", "negative"),
    "summary": ("quantile_values",),
}
"""Kind of metric → fields of its points that have no column; gauges and sums have plain numbers instead."""
KNOWN = (
    ("span.kind",),
    ("http.request.method", "http.method"),
    ("http.route",),
    ("http.response.status_code", "http.status_code"),
    ("rpc.service", "grpc.service"),
    ("rpc.method", "grpc.method"),
    ("rpc.grpc.status_code", "grpc.status_code"),
    ("component",),
    ("level",),
)
_KNOWN_NAMES = frozenset(name for names in KNOWN for name in names)
_NONE_KNOWN = (None,) * len(KNOWN)
_POINT_MAX = 1024
"""Bytes of attributes that are worth keeping."""
_POINTS_KEPT = 4096
_NO_RECORDED_VALUE = 1
"""Flag of a point without value."""
_TEMPORALITY = {0: "unspecified", 1: "delta", 2: "cumulative"}
_KINDS = ("gauge", "sum", *DETAILS)
_TIMES = ("time_unix_nano", "start_time_unix_nano")
_common_fields = attrgetter(*_TIMES, "flags", "attributes")
_number_fields = attrgetter(*_TIMES, "flags", "attributes", "as_int", "as_double", "exemplars")

_Shared = tuple[ResourceValues, ScopeValues]
_Point = tuple[str, bytes, tuple[str | None, ...]]
"""Key of the series, JSON of the attributes, those that have columns."""
_POINTS: dict[tuple[Any, ...], _Point] = {}
"""Of the fast path: hash of a metric, and the attributes as bytes → what their points share."""


def otlp_rows(read: Reader, request: Any, origin: Origin) -> list[Row]:
    """The rows of a request, one per data point, in its order."""
    others = after_first(origin, 1)
    rows: list[Row] = []
    for resource, scope, metrics in read.scopes(request, origin[4], rows):
        for metric in metrics:
            kind = metric.WhichOneof("data") if read is FALLBACK else _fast_kind(metric)
            if kind is not None:
                _add(rows, read, metric, kind, (resource, scope), others if rows else origin)
    return rows


def _fast_kind(metric: Any) -> str | None:
    """The kind of a metric on the fast path, if it has one."""
    kinds = [kind for kind in _KINDS if metric.HasField(kind)]
    if len(kinds) != 1 and (kinds or metric.metadata):
        raise Uncommon("of several kinds the last one counts; of none nothing is looked at")
    if UnknownFieldSet(metric) or (kinds and UnknownFieldSet(getattr(metric, kinds[0]))):
        raise Uncommon("records may be there")
    return kinds[0] if kinds else None


def _add(rows: list[Row], read: Reader, metric: Any, kind: str, shared: _Shared, origin: Origin) -> None:
    """Adds the rows of a metric."""
    _, _, received, _, repairs = origin
    (service, version, instance, resource_attributes, resource_schema_url, _), scope = shared
    scope_name, scope_version, scope_attributes, schema_url, _, _ = scope
    body = getattr(metric, kind)
    name, unit, description, temporality, rest, series = _identity(read, metric, kind, shared, origin)
    shared_data = parts.dump(rest, repairs) if rest else None
    later = {} if is_large(rest, len(body.data_points)) else rest
    monotonic = body.is_monotonic if kind == "sum" else None
    has_numbers = kind not in DETAILS
    nanos = TIME_UNITS.get(unit) if unit else None
    count = total = low = high = duration_ms = duration_seconds = None
    value: float | None
    for point in body.data_points:
        extra: dict[str, Any] | None = None
        if has_numbers:
            time, start, flags, pairs, integer, real, examples = _number_fields(point)
            if integer:
                value = float(integer)
            else:
                value, integer = (real, None) if real else _zero(point)
        else:
            time, start, flags, pairs = _common_fields(point)
            count, total, low, high, extra = details_of(kind, point)
            count = clamped("count", 0, INT8_MAX, count, extra, repairs)
            value, integer, examples = total, None, point.exemplars if kind != "summary" else ()
        given = (series, *pairs[:])
        series_key, packed, known = (read is not FALLBACK and _POINTS.get(given)) or _point(read, given, repairs)
        if flags & _NO_RECORDED_VALUE:
            if value and has_numbers:  # it should not have one
                extra = {"value_int": integer} if integer else {"value": parts.number(value)}
            value = integer = None
        if time > INT8_MAX or start > INT8_MAX:
            time, start = parts.times_of(point, _TIMES, extra := extra or {}, repairs)
        start_timestamp = start // 1000 - EPOCH if start else None
        timestamp = time // 1000 - EPOCH if time else start_timestamp
        trace_id = span_id = ""
        if examples:
            if read is not FALLBACK:
                examples = _point_in(b"".join([field(0x2A, octets) for octets in examples])).exemplars
            listed = exemplars(examples)
            extra = {**(extra or {}), "exemplars": listed}
            trace_id, span_id = present(listed[0]["trace_id"]), present(listed[0]["span_id"])
        if nanos is not None:
            duration_ms, duration_seconds = (None, None) if value is None else durations(value, nanos)
        (span_kind, http_method, http_route, http_status_code, grpc_service, grpc_method, grpc_status_code, component,
         level) = known  # fmt: skip
        rows.append(
            (
                received if timestamp is None else timestamp, start_timestamp, trace_id, series_key, span_id,
                service, version, instance, name, span_kind, kind, value, integer, unit, description,
                duration_ms, duration_seconds, count, total, low, high, temporality, monotonic, flags,
                http_method, http_route, http_status_code, grpc_service, grpc_method, grpc_status_code,
                False, component, level, scope_name, scope_version, scope_attributes, packed, resource_attributes,
                schema_url, resource_schema_url, parts.dump({**rest, **extra}, repairs) if extra else shared_data,
            )
        )  # fmt: skip
        if rest is not later:
            rest, shared_data = later, None


def _identity(
    read: Reader, metric: Any, kind: str, shared: _Shared, origin: Origin
) -> tuple[str, str | None, str | None, str | None, dict[str, Any], Any]:
    """Name, unit, description, temporality of a metric; what of it has no column; the hash that its series share."""
    resource, scope = shared
    _, _, _, envelope, repairs = origin
    name, unit, description = metric.name, metric.unit, metric.description
    parts.check_text(repairs, name, unit, description)
    temporality = None
    if kind not in ("gauge", "summary"):
        number = getattr(metric, kind).aggregation_temporality
        temporality = _TEMPORALITY.get(number) or str(number)
    rest = scope.rest
    if envelope is not None:
        rest = {**rest, "cloudevent": envelope}
    if metric.metadata:
        rest = {**rest, "metadata": read.attributes(metric.metadata)}
    identity = (resource.attributes, scope.attributes, kind, name, unit, temporality, scope.name, scope.version)
    hashed = _cached_hash if sum([len(part) for part in identity if part]) <= CACHED_MAX else series_hash
    return name, unit or None, description or None, temporality, rest, hashed(*identity)


def _zero(point: Any) -> tuple[float | None, int | None]:
    """The value of a point that is 0 or absent, and its integer."""
    kind = point.WhichOneof("value")
    return (None, None) if kind is None else (0.0, 0) if kind == "as_int" else (point.as_double, None)


def _point(read: Reader, given: tuple[Any, ...], repairs: list[str]) -> _Point:
    """What a point shares with others, by (hash of its metric, *its attributes). The fast path keeps it, for series
    send point after point."""
    series, *pairs = given
    before = len(repairs)
    found = read.attributes(pairs)
    packed = identity = parts.dump(found, repairs, sort=True)
    if read is FALLBACK and repairs and any(pair.key_strindex == parts.KEPT for pair in pairs):
        own = parts.attributes([pair for pair in pairs if pair.key_strindex != parts.KEPT])
        identity = parts.dump(own, [], sort=True)
    key = series.copy()
    key.update(identity)
    point = key.hexdigest(), packed, known_attributes(found)
    if read is not FALLBACK and len(repairs) == before and len(b"".join(pairs)) <= _POINT_MAX:
        if len(_POINTS) >= _POINTS_KEPT:
            _POINTS.clear()
        _POINTS[given] = point
    return point


def durations(value: float, nanos: float) -> Iterator[float]:
    """A value with a unit of time in milliseconds and in seconds: dividing keeps 187.5 ms = 0.1875 s exact."""
    return (value * (nanos / unit) if nanos >= unit else value / (unit / nanos) for unit in (1e6, 1e9))


def details_of(kind: str, point: Any) -> tuple[int, float | None, float | None, float | None, dict[str, Any]]:
    """What a point of a distribution has besides attributes and times: count, sum, min, max, and the rest for JSON."""
    absent = [side for side in ("positive", "negative") if side in DETAILS[kind] and not point.HasField(side)]
    rest = {name: parts.plain(getattr(point, name)) for name in DETAILS[kind] if name not in absent}
    if kind == "summary":
        return point.count, point.sum, None, None, rest
    total, low, high = [getattr(point, name) if point.HasField(name) else None for name in ("sum", "min", "max")]
    return point.count, total, low, high, rest


def exemplars(given: Sequence[Any]) -> list[dict[str, Any]]:
    """Exemplars for JSON, integers and reals told apart by the name of their value, as in OTLP."""
    found = []
    for exemplar in given:
        kind = exemplar.WhichOneof("value")
        entry: dict[str, Any] = {
            "time_unix_nano": exemplar.time_unix_nano,
            "trace_id": exemplar.trace_id.hex(),
            "span_id": exemplar.span_id.hex(),
            "filtered_attributes": parts.attributes(exemplar.filtered_attributes),
        }
        if kind is not None:
            entry[kind] = parts.number(getattr(exemplar, kind))
        found.append(entry)
    return found


def series_hash(resource: bytes, scope: bytes | None, *names: str | None) -> Any:
    """What a series has in common with the others of its metric, as a hash to be copied and completed: of attributes,
    and of all that names the metric and its scope."""
    identity = orjson.dumps([name or "" for name in names]) + in_order(resource) + in_order(scope or b"")
    return blake2b(identity, digest_size=8)


_cached_hash = lru_cache(maxsize=1024)(series_hash)


def known_attributes(attributes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The attributes that have columns: span kind; HTTP method, route, status; gRPC service, method, status;
    component; level."""
    if _KNOWN_NAMES.isdisjoint(attributes):
        return _NONE_KNOWN
    found = (next((attributes[name] for name in names if attributes.get(name) is not None), None) for names in KNOWN)
    return tuple(map(parts.text, found))


_point_in = within(ExportMetricsServiceRequest, 1, 2, 2, 5, 1)
