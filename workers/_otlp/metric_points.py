"""Data points of OTLP metrics: what the kinds beyond plain numbers hold, exemplars, units, well-known attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import orjson

from workers._otlp import parts

Scale = tuple[float, float, float, float]
TIME_UNITS: Mapping[str, Scale] = {
    "ns": (1.0, 1e6, 1.0, 1e9),
    "us": (1.0, 1e3, 1.0, 1e6),
    "\N{MICRO SIGN}s": (1.0, 1e3, 1.0, 1e6),
    "\N{GREEK SMALL LETTER MU}s": (1.0, 1e3, 1.0, 1e6),
    "ms": (1.0, 1.0, 1.0, 1e3),
    "s": (1e3, 1.0, 1.0, 1.0),
    "min": (6e4, 1.0, 60.0, 1.0),
    "h": (3.6e6, 1.0, 3600.0, 1.0),
}
"""Unit of time (UCUM) → milliseconds as a fraction, seconds as a fraction: dividing keeps 187.5 ms = 0.1875 s exact."""


def durations(value: float | None, scale: Scale) -> tuple[float | None, float | None]:
    """A value with a unit of time in milliseconds and in seconds."""
    if value is None:
        return None, None
    milli_up, milli_down, up, down = scale
    return value * milli_up / milli_down, value * up / down


DETAILS: Mapping[str, Sequence[str]] = {
    "histogram": ("bucket_counts", "explicit_bounds"),
    "exponential_histogram": ("scale", "zero_count", "zero_threshold", "positive", "negative"),
    "summary": ("quantile_values",),
}
"""Kind of metric → fields of its points that have no column; gauges and sums have plain numbers instead."""


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
    identity = orjson.dumps([name or "" for name in names]) + _sorted(resource) + _sorted(scope or b"")
    return blake2b(identity, digest_size=8)


def _sorted(attributes: bytes) -> bytes:
    """The same JSON with its keys in order: exporters promise none."""
    with suppress(orjson.JSONDecodeError, TypeError):  # nothing, or nested too deep for orjson
        attributes = orjson.dumps(orjson.loads(attributes), option=orjson.OPT_SORT_KEYS)
    return attributes


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


def known_attributes(attributes: Mapping[str, Any]) -> tuple[str | None, ...]:
    """The attributes that have columns: span kind; HTTP method, route, status; gRPC service, method, status;
    component; level."""
    if _KNOWN_NAMES.isdisjoint(attributes):
        return _NONE_KNOWN
    found = (next((attributes[name] for name in names if attributes.get(name) is not None), None) for names in KNOWN)
    return tuple(map(parts.text, found))
