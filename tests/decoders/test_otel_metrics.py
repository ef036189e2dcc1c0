"""OTEL_METRICS: every encoding becomes the rows that its contract describes."""

from __future__ import annotations

import base64
import json
import math
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric

from checks import decode_checked
from eventwriter.stream import Decoded
from profiles import examples
from strategies_otlp import (
    NOW_MICROS,
    as_dict,
    attribute_text,
    hex_id,
    message,
    pairs,
    real,
    requests,
    text,
    time,
    to_json,
)
from workers.otel_metrics import STREAM

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
MOMENT = 818_850_600_200_000
"""2025-12-12T10:30:00.2Z"""
EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in STREAM.columns) | {
    "timestamp": NOW_MICROS,
    "trace_id": "",
    "span_id": "",
    "service_name": "unknown",
    "is_slow": False,
    "attributes": b"{}",
    "resource_attributes": b"{}",
}
POINT = EMPTY | {
    "timestamp": 818_850_600_000_000, "flags": 0, "service_name": "checkout",
    "resource_attributes": b'{"service.name":"checkout"}',
}  # fmt: skip
RAW = (
    "CscBChwKGgoMc2VydmljZS5uYW1lEgoKCGNoZWNrb3V0EqYBEisKC3F1ZXVlLmRlcHRoGgZ7aXRlbX0qFAoSGQCQYJMXcYAYMREAAAAAAAAAEncK"
    "HGh0dHAuc2VydmVyLnJlcXVlc3QuZHVyYXRpb24aAXNKVApQEQA4GZsJcYAYGQCQYJMXcYAYIQQAAAAAAAAAKcP1KFyPwu0/MhgBAAAAAAAAAAIA"
    "AAAAAAAAAQAAAAAAAAA6EJqZmZmZmbk/AAAAAAAA4D8QAg=="
)


def decode(payload: bytes | Any) -> Decoded:
    """Decodes, and checks what holds of every result."""
    octets = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return decode_checked(STREAM, message(octets, "otel.metrics.raw"))


def rows(payload: bytes | Any) -> list[dict[str, Any]]:
    """The rows of a payload, none of which is rejected."""
    decoded = decode(payload)
    assert not decoded.rejects
    return [as_dict(STREAM.columns, row) for row in decoded.rows]


def metric(given_: Metric) -> bytes:
    """An OTLP request with one metric."""
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.append(given_)
    return request.SerializeToString()


def without_key(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without their series keys, which have tests of their own."""
    return [row | {"series_key": None} for row in found]


# --- samples ---


def test_M5_sample_performance_array() -> None:
    """The records of one span are rows of their own, told apart by their key, which older tables have as span id."""
    payload = (
        b'[{"timestamp":"2025-12-12T10:30:00.200Z","trace_id":"5b8efff798038103d269b633813fc60c","span_id":'
        b'"eee19b7ec3c1b174","service_name":"checkout","span_name'
        b'":"POST /pay","span_kind":"server","duration_ms":187.5,'
        b'"duration_seconds":0.1875,"metric_type":"span","http_method":null,"http_route":null,"http_status_code":null,'
        b'"grpc_service":null,"grpc_method":null,"grpc_status_code":null,"is_slow":true,"component":"otel-collector",'
        b'"level":"warn"},{"timestamp":"2025-12-12T10:30:00.200Z",'
        b'"trace_id":"5b8efff798038103d269b633813fc60c","span_id":'
        b'"eee19b7ec3c1b174","service_name":"checkout","span_name'
        b'":"POST /pay","span_kind":"server","duration_ms":187.5,'
        b'"duration_seconds":0.1875,"metric_type":"http","http_met'
        b'hod":"POST","http_route":"/pay","http_status_code":"402"'
        b',"is_slow":true,"component":"otel-collector","level":"warn"}]'
    )
    shared = EMPTY | {
        "timestamp": MOMENT, "trace_id": TRACE, "span_id": SPAN, "service_name": "checkout", "span_name": "POST /pay",
        "span_kind": "server", "value": 187.5, "duration_ms": 187.5, "duration_seconds": 0.1875, "is_slow": True,
        "component": "otel-collector", "level": "warn",
    }  # fmt: skip
    assert rows(payload) == [
        shared | {"metric_type": "span", "series_key": SPAN},
        shared | {
            "metric_type": "http", "series_key": f"{SPAN}#http", "http_method": "POST", "http_route": "/pay",
            "http_status_code": "402",
        },
    ]  # fmt: skip
    (series_key,) = [column for column in STREAM.columns if column.name == "series_key"]
    assert series_key.aliases == ("span_id",)


def test_M6_sample_performance_object() -> None:
    """One record alone, lowerCamelCase, a status code as number, milliseconds derived from seconds."""
    payload = (
        b'{"timestamp":1765535400200000000,"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174",'
        b'"serviceName":"checkout","spanName":"GET /cart","durationSeconds":0.25,"metricType":"http",'
        b'"httpStatusCode":200,"isSlow":true}'
    )
    assert rows(payload) == [
        EMPTY | {
            "timestamp": MOMENT, "trace_id": TRACE, "span_id": SPAN, "series_key": f"{SPAN}#http",
            "service_name": "checkout", "span_name": "GET /cart", "value": 250.0, "duration_ms": 250.0,
            "duration_seconds": 0.25, "metric_type": "http", "http_status_code": "200", "is_slow": True,
        }
    ]  # fmt: skip


def test_M1_sample_otlp_json() -> None:
    """Sums, summaries and exponential histograms; the integer beyond 2**53 is exact (V12)."""
    payload = (
        b'{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]},'
        b'"scopeMetrics":[{"metrics":[{"name":"jobs.done","unit":"'
        b'1","sum":{"aggregationTemporality":2,"isMonotonic":true,'
        b'"dataPoints":[{"startTimeUnixNano":"1765535340000000000","timeUnixNano":"1765535400000000000","asInt":"0",'
        b'"attributes":[{"key":"ok","value":{"boolValue":false}}]},{"timeUnixNano":"1765535400000000000","asInt":'
        b'"9007199254740993","attributes":[{"key":"ok","value":{"b'
        b'oolValue":true}}]}]}},{"name":"rpc.latency","unit":"ms",'
        b'"summary":{"dataPoints":[{"timeUnixNano":"1765535400000000000","count":"9","sum":120.5,"quantileValues":'
        b'[{"quantile":0.99,"value":40.0}]}]}},{"name":"size","unit":"By","exponentialHistogram":{'
        b'"aggregationTemporality":1,"dataPoints":[{"timeUnixNano'
        b'":"1765535400000000000","count":"3","sum":7.0,"scale":1,'
        b'"zeroCount":"1","positive":{"offset":-1,"bucketCounts":["1","1"]}}]}}]}]}]}'
    )
    jobs = POINT | {"span_name": "jobs.done", "metric_type": "sum", "unit": "1", "temporality": "cumulative",
                    "is_monotonic": True}  # fmt: skip
    assert without_key(rows(payload)) == [
        jobs | {"start_timestamp": 818_850_540_000_000, "value": 0.0, "value_int": 0, "attributes": b'{"ok":false}'},
        jobs | {"value": 9007199254740992.0, "value_int": 9007199254740993, "attributes": b'{"ok":true}'},
        POINT | {
            "span_name": "rpc.latency", "metric_type": "summary", "unit": "ms", "value": 120.5, "duration_ms": 120.5,
            "duration_seconds": 0.1205, "count": 9, "sum": 120.5,
            "data": b'{"quantile_values":[{"quantile":0.99,"value":40.0}]}',
        },
        POINT | {
            "span_name": "size", "metric_type": "exponential_histogram", "unit": "By", "temporality": "delta",
            "value": 7.0, "count": 3, "sum": 7.0,
            "data": b'{"scale":1,"zero_count":1,"zero_threshold":0.0,"positive":{"offset":-1,"bucket_counts":[1,1]}}',
        },
    ]  # fmt: skip


RAW_ROWS = [
    POINT | {"span_name": "queue.depth", "metric_type": "gauge", "unit": "{item}", "value": 17.0, "value_int": 17},
    POINT | {
        "start_timestamp": 818_850_540_000_000, "span_name": "http.server.request.duration", "unit": "s",
        "metric_type": "histogram", "temporality": "cumulative", "value": 0.93, "duration_ms": 930.0,
        "duration_seconds": 0.93, "count": 4, "sum": 0.93,
        "data": b'{"bucket_counts":[1,2,1],"explicit_bounds":[0.1,0.5]}',
    },
]  # fmt: skip


def test_M7_sample_protobuf() -> None:
    """A gauge and a histogram with all that it holds."""
    assert without_key(rows(base64.b64decode(RAW))) == RAW_ROWS


def test_sample_summary_is_decoded_from_its_original() -> None:
    """§12.13: the rule engine's summary carries the request; alone or in a CloudEvent."""
    summary = {
        "resource_metric_count": 1,
        "resource_summaries": [
            {"service_name": "checkout", "resource": {"service.name": "checkout"}, "scope_metrics": [
                {"scope": "", "metrics": [{"name": "queue.depth", "description": "", "unit": "{item}",
                                           "data_type": "gauge", "data_point_count": 1}]}]}
        ],
        "raw_payload": RAW,
    }  # fmt: skip
    assert without_key(rows(summary)) == RAW_ROWS
    event = {"specversion": "1.0", "id": "i", "source": "s", "type": "t", "data": summary}
    found = rows(event)
    assert [row["span_name"] for row in found] == ["queue.depth", "http.server.request.duration"]
    assert orjson.loads(found[0]["data"])["cloudevent"]["id"] == "i"
    for bad in ("%%%", None, 5, ""):
        assert [r.reason for r in decode(summary | {"raw_payload": bad}).rejects] == ["malformed"]


# --- defects and rules ---


def test_M2_histogram_keeps_count_buckets_and_extremes() -> None:
    """Everything a histogram's point holds."""
    one = Metric(name="h")
    one.histogram.data_points.add(
        count=2**64 - 1, sum=1.5, min=-1.0, max=2.0, bucket_counts=[2**64 - 1, 0], explicit_bounds=[math.inf]
    )
    decoded = decode(metric(one))
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["count"], row["sum"], row["min"], row["max"]) == (2**63 - 1, 1.5, -1.0, 2.0)
    assert orjson.loads(row["data"]) == {
        "count": str(2**64 - 1), "bucket_counts": [2**64 - 1, 0], "explicit_bounds": ["Infinity"]
    }  # fmt: skip
    assert decoded.repairs == ["clamped"]


def test_absent_extremes_are_null() -> None:
    """A sum, minimum or maximum that was not sent is not zero."""
    one = Metric(name="h")
    one.histogram.data_points.add(count=3)
    (row,) = rows(metric(one))
    assert (row["value"], row["sum"], row["min"], row["max"], row["count"]) == (None, None, None, None, 3)


@pytest.mark.parametrize(
    ("unit", "milliseconds", "seconds"),
    [
        ("ns", 3e-06, 3e-09),
        ("us", 0.003, 3e-06),
        ("µs", 0.003, 3e-06),
        ("ms", 3.0, 0.003),
        ("s", 3000.0, 3.0),
        ("min", 180_000.0, 180.0),
        ("h", 10_800_000.0, 10_800.0),
        ("By", None, None),
        ("", None, None),
    ],
)
def test_M3_durations_only_for_units_of_time(unit: str, milliseconds: float | None, seconds: float | None) -> None:
    """§12.4: the value is always there; durations are converted, and only from units of time."""
    one = Metric(name="g", unit=unit)
    one.gauge.data_points.add(as_double=3.0)
    (row,) = rows(metric(one))
    assert (row["value"], row["unit"]) == (3.0, unit or None)
    assert (row["duration_ms"], row["duration_seconds"]) == (milliseconds, seconds)


def test_M4_points_of_a_metric_have_their_own_series() -> None:
    """Attributes, scope, resource, name and kind tell series apart; time, value and order do not."""

    def key(attributes: dict[str, str], value: int = 1, name: str = "n", scope: str = "", host: str = "") -> str:
        request = ExportMetricsServiceRequest()
        group = request.resource_metrics.add()
        group.resource.attributes.add(key="host", value=AnyValue(string_value=host))
        scoped = group.scope_metrics.add()
        scoped.scope.name = scope
        one = scoped.metrics.add(name=name)
        one.gauge.data_points.add(
            as_int=value,
            time_unix_nano=value,
            attributes=[KeyValue(key=k, value=AnyValue(string_value=v)) for k, v in attributes.items()],
        )
        (row,) = rows(request.SerializeToString())
        assert isinstance(row["series_key"], str)
        return row["series_key"]

    first = key({"a": "1", "b": "2"})
    assert first == key({"b": "2", "a": "1"}, value=9)
    others = [key({"a": "2", "b": "2"}), key({}), key({"a": "1", "b": "2"}, name="m"),
              key({"a": "1", "b": "2"}, scope="s"), key({"a": "1", "b": "2"}, host="h")]  # fmt: skip
    assert len({first, *others}) == 6


Given = list[tuple[str, Any]]
"""Attributes: integers, text, lists of attributes, or nothing, by name."""
TEXTS = st.text("\0\ufffda\\u0", max_size=3)
ATTRIBUTES: st.SearchStrategy[Given] = st.recursive(
    st.lists(st.tuples(TEXTS, st.none() | st.integers(0, 3) | TEXTS), max_size=4),
    lambda inner: st.lists(st.tuples(TEXTS, inner | TEXTS), max_size=3),
    max_leaves=3,
)


def key_values(given_: Given) -> list[KeyValue]:
    """Attributes as protobuf."""
    found = []
    for key, value in given_:
        pair = KeyValue(key=key, value=AnyValue())
        if isinstance(value, list):
            pair.value.kvlist_value.values.extend(key_values(value))
        elif isinstance(value, int):
            pair.value.int_value = value
        elif value is not None:
            pair.value.string_value = value
        found.append(pair)
    return found


def cleaned(value: Any) -> Any:
    """The same with U+FFFD for U+0000."""
    if isinstance(value, list):
        return [(cleaned(key), cleaned(inner)) for key, inner in value]
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


def series(given_: Given) -> set[tuple[str, bytes]]:
    """Key and attributes of a point whose resource and scope have these attributes too, in each encoding."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    scoped = group.scope_metrics.add()
    point = scoped.metrics.add(name="n").gauge.data_points.add(as_int=1)
    for place in (group.resource, scoped.scope, point):
        place.attributes.extend(key_values(given_))
    octets, as_json = request.SerializeToString(), to_json(request)
    envelope = {"specversion": "1.0", "id": "i", "source": "s", "type": "t"}  # with one it is not the fast path
    enveloped = [envelope | {"data_base64": base64.b64encode(octets).decode()}, envelope | {"data": as_json}]
    payloads = [octets, as_json, json.dumps(as_json, ensure_ascii=False).encode(), *enveloped]
    return {(row["series_key"], row["attributes"]) for payload in payloads for row in rows(payload)}


@pytest.mark.parametrize(
    "given_",
    [
        [("\0", None), ("", "")],
        [("b\0", 1), ("b", 1), ("a", "\0")],
        [("z", 1), ("a\0", 1), ("a\x01", 2), ("a\ufffd\0", 3)],
        [("n", [("\0", 1), ("", 2)]), ("m", [("x\0", 1)])],
        [("b", "\\u0000"), ("a", "\\\0")],
    ],
    ids=ascii,
)
def test_a_series_has_one_key_however_it_is_written(given_: Given) -> None:
    """In any encoding, and in any order: it is what is left of the text after cleaning that counts."""
    assert len(series(given_) | series(given_[::-1]) | series(cleaned(given_))) == 1


@given(given_=ATTRIBUTES)
def test_any_series_has_one_key_in_every_encoding(given_: Given) -> None:
    """The same for any attributes, also such as become the same by cleaning: those are a list."""
    (found,) = series(given_) | series(cleaned(given_))
    assert orjson.loads(found[1]) == pairs(key_values(given_))


def test_M8_points_without_recorded_value_are_kept_without_one() -> None:
    """The flag says that there is no value: NULL, not zero."""
    one = Metric(name="s")
    one.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    one.sum.data_points.add(as_int=0, flags=1)
    one.sum.data_points.add(as_int=0, flags=2)
    first, second = rows(metric(one))
    assert (first["value"], first["value_int"], first["flags"]) == (None, None, 1)
    assert (second["value"], second["value_int"], second["flags"]) == (0.0, 0, 2)
    assert (first["temporality"], first["is_monotonic"]) == ("delta", False)


def test_known_attributes_have_columns() -> None:
    """HTTP and gRPC attributes under their old and new names; numbers become text; all stay attributes too."""
    for attributes in (
        {"http.method": "GET", "http.status_code": 200, "rpc.service": "S", "rpc.method": "M",
         "rpc.grpc.status_code": 0},
        {"http.request.method": "GET", "http.response.status_code": 200, "grpc.service": "S", "grpc.method": "M",
         "grpc.status_code": 0},
    ):  # fmt: skip
        attributes = attributes | {"http.route": "/", "span.kind": "server", "component": "c", "level": "info"}
        value = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [
            {"name": "n", "gauge": {"dataPoints": [{"asInt": 1, "attributes": attributes}]}}
        ]}]}]}  # fmt: skip
        (row,) = rows(value)
        assert (row["http_method"], row["http_route"], row["http_status_code"]) == ("GET", "/", "200")
        assert (row["grpc_service"], row["grpc_method"], row["grpc_status_code"]) == ("S", "M", "0")
        assert (row["span_kind"], row["component"], row["level"]) == ("server", "c", "info")
        assert orjson.loads(row["attributes"]) == attributes


def test_trace_context_comes_from_the_first_exemplar() -> None:
    """Exemplars are kept whole; the first says the trace."""
    one = Metric(name="g")
    point = one.gauge.data_points.add(as_double=1.0)
    point.exemplars.add(as_int=5, trace_id=b"t" * 16, span_id=b"s" * 8, time_unix_nano=9)
    point.exemplars.add(as_double=math.nan).filtered_attributes.add(key="k").value.bool_value = False
    (row,) = rows(metric(one))
    assert (row["trace_id"], row["span_id"]) == ((b"t" * 16).hex(), (b"s" * 8).hex())
    assert orjson.loads(row["data"])["exemplars"] == [
        {"time_unix_nano": 9, "trace_id": (b"t" * 16).hex(), "span_id": (b"s" * 8).hex(), "as_int": 5,
         "filtered_attributes": {}},
        {"time_unix_nano": 0, "trace_id": "", "span_id": "", "as_double": "NaN", "filtered_attributes": {"k": False}},
    ]  # fmt: skip


def test_times_fall_back_from_point_to_start_to_message() -> None:
    """§6.3; an impossible time is kept in data."""
    one = Metric(name="g")
    one.gauge.data_points.add(as_int=1, start_time_unix_nano=1765535400200000000)
    one.gauge.data_points.add(as_int=1)
    one.gauge.data_points.add(as_int=1, time_unix_nano=2**63)
    decoded = decode(metric(one))
    found = [as_dict(STREAM.columns, row) for row in decoded.rows]
    assert [row["timestamp"] for row in found] == [MOMENT, NOW_MICROS, NOW_MICROS]
    assert [row["start_timestamp"] for row in found] == [MOMENT, None, None]
    assert orjson.loads(found[2]["data"]) == {"time_unix_nano": str(2**63)}
    assert decoded.repairs == ["bad_time"]


def test_integers_beyond_int64_in_json_are_kept() -> None:
    """A number that no bigint holds is a double, and its digits stay among the attributes; no number is a reject."""
    points = [{"asInt": str(2**64)}, {"asInt": "many"}, {"asDouble": "NaN"}, {"asDouble": "1.5"}]
    decoded = decode({"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": points}}]}]}]})
    found = [as_dict(STREAM.columns, row) for row in decoded.rows]
    assert repr([row["value"] for row in found]) == repr([float(2**64), math.nan, 1.5])
    assert found[0]["value_int"] is None
    assert orjson.loads(found[0]["attributes"]) == {"as_int": str(2**64)}
    assert [(reject.record_index, reject.reason) for reject in decoded.rejects] == [(1, "bad_value")]


def test_a_bad_measure_rejects_a_flat_record() -> None:
    """A metric is about its number; other fields are lenient."""
    measures: list[Any] = ["12abc", [], "NaN"]
    for bad in measures:
        assert [reject.reason for reject in decode({"span_name": "a", "duration_ms": bad}).rejects] == ["bad_value"]
    assert [reject.reason for reject in decode({"service_name": "a"}).rejects] == ["missing_field"]
    decoded = decode({"span_name": "a", "duration_ms": "12", "is_slow": "maybe", "start_timestamp": "soon", "k": 0})
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["duration_ms"], row["duration_seconds"], row["is_slow"]) == (12.0, 0.012, False)
    assert orjson.loads(row["attributes"]) == {"is_slow": "maybe", "start_timestamp": "soon", "k": 0}
    assert sorted(decoded.repairs) == ["bad_time", "bad_value"]


# --- random requests ---


@given(request=requests(ExportMetricsServiceRequest))
@settings(max_examples=examples(150))
def test_V10_every_field_of_every_point_is_in_its_row(request: ExportMetricsServiceRequest) -> None:
    """Rows of random requests, compared with the requests field by field."""
    decoded = decode(request.SerializeToString())
    assert not decoded.rejects
    found = iter([as_dict(STREAM.columns, row) for row in decoded.rows])
    for group in request.resource_metrics:
        for scoped in group.scope_metrics:
            for one in scoped.metrics:
                kind = one.WhichOneof("data")
                if kind is None:
                    continue
                for point in getattr(one, kind).data_points:
                    row = next(found)
                    _check_point(row, kind, one, point)
                    assert json.loads(row["resource_attributes"]) == pairs(group.resource.attributes)
                    assert json.loads(row["scope_attributes"] or b"{}") == pairs(scoped.scope.attributes)
                    assert row["scope_name"] == text(scoped.scope.name)
                    assert row["scope_version"] == text(scoped.scope.version)
                    assert row["schema_url"] == text(scoped.schema_url)
                    assert row["resource_schema_url"] == text(group.schema_url)
                    assert row["service_name"] == (attribute_text(group.resource, "service.name") or "unknown")
    assert next(found, None) is None


def _check_point(row: dict[str, Any], kind: str, one: Any, point: Any) -> None:
    data = json.loads(row["data"] or b"{}")
    start = time(point.start_time_unix_nano)
    assert row["start_timestamp"] == start
    assert row["timestamp"] == next(at for at in (time(point.time_unix_nano), start, NOW_MICROS) if at is not None)
    for field in ("time_unix_nano", "start_time_unix_nano"):
        assert data.get(field) == (str(getattr(point, field)) if getattr(point, field) >= 2**63 else None)
    assert (row["metric_type"], row["span_name"]) == (kind, one.name.replace("\0", "\ufffd"))
    assert (row["unit"], row["description"]) == (text(one.unit), text(one.description))
    assert data.get("metadata", {}) == pairs(one.metadata)
    assert row["flags"] == point.flags
    assert json.loads(row["attributes"]) == pairs(point.attributes)
    if kind in ("gauge", "sum"):
        which = None if point.flags & 1 else point.WhichOneof("value")
        value = getattr(point, which) if which else None
        assert row["value_int"] == (value if which == "as_int" else None)
        assert repr(row["value"]) == repr(None if value is None else float(value))
        assert row["count"] is None
    else:
        assert row["count"] == min(point.count, 2**63 - 1)
        assert data.get("count") == (str(point.count) if point.count >= 2**63 else None)
        for field in ("sum", "min", "max"):
            there = kind == "summary" and field == "sum"
            if kind != "summary":
                there = point.HasField(field)
            assert repr(row[field]) == repr(getattr(point, field) if there else None)
        assert repr(row["value"]) == repr(None if point.flags & 1 else row["sum"])
    if kind in ("sum", "histogram", "exponential_histogram"):
        body = getattr(one, kind)
        assert row["temporality"] == ["unspecified", "delta", "cumulative"][body.aggregation_temporality]
    assert row["is_monotonic"] == (one.sum.is_monotonic if kind == "sum" else None)
    if kind == "histogram":
        assert data["bucket_counts"] == list(point.bucket_counts)
        assert data["explicit_bounds"] == [real(bound) for bound in point.explicit_bounds]
    if kind == "exponential_histogram":
        assert (data["scale"], data["zero_count"]) == (point.scale, point.zero_count)
        assert data["zero_threshold"] == real(point.zero_threshold)
        for side in ("positive", "negative"):
            buckets = getattr(point, side)
            expected = {"offset": buckets.offset, "bucket_counts": list(buckets.bucket_counts)}
            assert data.get(side) == (expected if point.HasField(side) else None)
    if kind == "summary":
        assert data["quantile_values"] == [
            {"quantile": real(at.quantile), "value": real(at.value)} for at in point.quantile_values
        ]
    else:
        assert data.get("exemplars", []) == [_exemplar(exemplar) for exemplar in point.exemplars]
        first = point.exemplars[0] if point.exemplars else None
        assert row["trace_id"] == (hex_id(first.trace_id) if first else "")
        assert row["span_id"] == (hex_id(first.span_id) if first else "")


def _exemplar(exemplar: Any) -> dict[str, Any]:
    which = exemplar.WhichOneof("value")
    value: dict[str, Any] = {}
    if which == "as_int":
        value = {"as_int": exemplar.as_int}
    elif which:
        value = {"as_double": real(exemplar.as_double)}
    return value | {
        "time_unix_nano": exemplar.time_unix_nano,
        "trace_id": exemplar.trace_id.hex(),
        "span_id": exemplar.span_id.hex(),
        "filtered_attributes": pairs(exemplar.filtered_attributes),
    }


def test_a_record_without_a_service_or_a_span() -> None:
    """Its service is unknown, as in OTLP; whatever says what was measured tells its series apart."""
    calls: list[dict[str, Any]] = [
        {"http_route": "/a"}, {"http_route": "/b"}, {"http_method": "GET"},
        {"http_method": "GET", "http_status_code": 500}, {"grpc_method": "Get"}, {"resource": {"host.name": "n"}},
        {"scope_name": "s"}, {"unit": "s"}, {"x": 1}, {"x": 2}, {"unit": ["a"]}, {"unit": ["b"]},
        {"http_route": {"a": 1}}, {"http_route": {"a": 2}}, {"original.http_route": 1, "http_route": [1]},
    ]  # fmt: skip
    found = rows([{"name": "r", "metric_type": "http", "value": 1, **call} for call in calls * 2])
    keys = [row["series_key"] for row in found]
    assert keys[: len(calls)] == keys[len(calls) :]
    assert len({*keys}) == len(calls)
    assert all(key.endswith("#http") for key in keys)
    assert {row["service_name"] for row in found} == {"unknown"}


@pytest.mark.parametrize("where", ["attributes", "scope_attributes", "resource", None])
@pytest.mark.parametrize("as_text", [False, True])
def test_a_record_without_a_span_has_one_key_however_it_is_written(where: str | None, as_text: bool) -> None:
    """In any order, and whatever of a measurement had to be repaired."""
    record = {"timestamp": 1765535400, "name": "r", "metric_type": "http", "value": 9007199254740993}
    found = {"b": {"y": [1, {"q": 1, "p": 2}], "x": 12345678901234567890123}, "a": 1.5}
    turned = {"a": 1.5, "b": {"x": 12345678901234567890123, "y": [1, {"p": 2, "q": 1}]}}
    payloads = [
        record | (each if where is None else {where: json.dumps(each) if as_text else each}) for each in (found, turned)
    ]
    repaired = {"duration_ms": 2**53 + 3, "min": "low", "flags": -1.5, "is_slow": "no", "description": [1]}
    payloads += [payloads[0] | {"value": 9007199254740995}, payloads[1] | repaired]
    keys = {row["series_key"] for row in rows([*payloads])}
    assert len(keys) == 1
    other = {"a": 1.5, "b": {"x": 12345678901234567890124, "y": [1, {"p": 2, "q": 1}]}}
    (row,) = rows(record | (other if where is None else {where: json.dumps(other) if as_text else other}))
    assert row["series_key"] not in keys


def test_a_time_that_is_a_boolean_is_none() -> None:
    """Lenient about numbers in text, not about those that are none."""
    point = {"asInt": "1", "timeUnixNano": True}
    request = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"gauge": {"dataPoints": [point]}}]}]}]}
    (row,) = rows(request)
    assert (row["timestamp"], row["attributes"]) == (NOW_MICROS, b'{"time_unix_nano":"true"}')
    assert decode(request).repairs == ["bad_time"]
