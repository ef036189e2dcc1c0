"""Groups of OTLP requests whose records stand under a name or number that OTLP does not have."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from checks import decode_checked
from eventwriter.stream import Decoded, Stream
from strategies_otlp import message
from workers import logs, otel_metrics, otel_traces
from workers._wire import field

SPAN = {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "op"}
GOOD = {"scopeSpans": [{"spans": [SPAN]}]}
SPAN_OCTETS = field(0x0A, b"t" * 16) + field(0x12, b"s" * 8)
SPANS_OCTETS = field(0x0A, field(0x12, field(0x12, SPAN_OCTETS)))
POINT = {"asInt": "1", "timeUnixNano": "1765535400000000000"}
POINT_OCTETS = field(0x0A, b"\x31" + b"\x05" + bytes(7))


def decode(stream: Stream, payload: bytes | Any) -> Decoded:
    """Decodes, and checks what holds of every result."""
    octets = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    return decode_checked(stream, message(octets, stream.subjects[0]))


@pytest.mark.parametrize(
    "group",
    [
        {"resource": {}, "instrumentationLibrarySpans": [{"spans": [SPAN]}]},
        {"ScopeSpans": [{"Spans": [SPAN]}]},
        {"spans": [SPAN]},
        {"scopeSpans": [], "scopespans": {"spans": [SPAN]}},
        {"scopeSpans": [{"Spans": [SPAN]}]},
        {"scopeSpans": [{"scope": {"name": "x"}, "spans": None, "span": [SPAN]}]},
    ],
)
def test_spans_under_another_name_are_a_reject(group: Any) -> None:
    """Older names, another case, a level that is left out; beside good spans too, in their order."""
    (reject,) = decode(otel_traces.STREAM, {"resourceSpans": [group]}).rejects
    assert (reject.reason, reject.record_index) == ("malformed", 0)
    decoded = decode(otel_traces.STREAM, {"resourceSpans": [GOOD, group, GOOD]})
    assert len(decoded.rows) == 2
    assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1)]


def test_logs_under_older_names_are_a_reject() -> None:
    """The detail says what was found."""
    group = {"instrumentationLibraryLogs": [{"logs": [{"body": {"stringValue": "x"}}]}]}
    (reject,) = decode(logs.STREAM, {"resourceLogs": [group]}).rejects
    assert reject.detail == "ResourceLogs without records, but with 'instrumentationLibraryLogs'"


@pytest.mark.parametrize(
    "metric",
    [
        {"name": "old", "intSum": {"dataPoints": [{"value": "5"}]}},
        {"name": "new", "Gauge": {"dataPoints": [POINT]}},
        {"name": "new", "gauge": {}, "sums": [POINT]},
        {"name": "new", "gauge": {"points": [POINT]}},
    ],
)
def test_a_metric_of_unknown_kind_is_a_reject(metric: Any) -> None:
    """Its neighbour is a row."""
    metrics = [metric, {"name": "g", "gauge": {"dataPoints": [POINT]}}]
    decoded = decode(otel_metrics.STREAM, {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
    assert len(decoded.rows) == 1
    assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 0)]


@pytest.mark.parametrize(
    "group",
    [
        b"\xc2\x3e" + field(0x12, field(0x12, SPAN_OCTETS))[1:],  # field 1000
        field(0x42, field(0x12, SPAN_OCTETS)),
        field(0x12, field(0x22, SPAN_OCTETS)),
        field(0x0A, b"") + field(0x12, field(0x0A, field(0x0A, b"scope")) + field(0x6A, SPAN_OCTETS)),
    ],
)
def test_spans_under_another_number_are_a_reject(group: bytes) -> None:
    """In protobuf, wherever they stand among good ones; alone they were something else as a whole."""
    (reject,) = decode(otel_traces.STREAM, field(0x0A, group)).rejects
    assert reject.reason == "malformed"
    for groups, index in (((SPANS_OCTETS, field(0x0A, group)), 1), ((field(0x0A, group), SPANS_OCTETS), 0)):
        decoded = decode(otel_traces.STREAM, b"".join(groups))
        assert len(decoded.rows) == 1
        assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", index)]


@pytest.mark.parametrize("tag", [0x22, 0x32, 0x42, 0x6A])
@pytest.mark.parametrize("before", [True, False])
def test_a_metric_of_unknown_number_is_a_reject(tag: int, *, before: bool) -> None:
    """Beside a gauge, and beside an empty one in the same metric."""
    good = field(0x12, field(0x0A, b"new") + field(0x2A, POINT_OCTETS))
    for more in (b"", field(0x2A, b"")):
        other = field(0x12, field(0x0A, b"old") + more + field(tag, POINT_OCTETS))
        metrics = other + good if before else good + other
        decoded = decode(otel_metrics.STREAM, field(0x0A, field(0x12, metrics)))
        assert len(decoded.rows) == 1
        assert [(r.reason, r.record_index) for r in decoded.rejects] == [("malformed", 0 if before else 1)]


@pytest.mark.parametrize(
    "request_",
    [
        {"resourceSpans": [{**GOOD, "instrumentationLibrarySpans": [{"spans": [SPAN]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN], "Spans": [SPAN]}]}]},
        {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN], "more": {"items": [SPAN]}}]}]},
        {"resourceSpans": [GOOD], "resourceLogs": [{"scopeLogs": []}]},
        SPANS_OCTETS + field(0x6A, field(0x12, field(0x12, SPAN_OCTETS))),
        field(0x0A, SPANS_OCTETS[2:] + b"\xc2\x3e" + field(0x12, field(0x12, SPAN_OCTETS))[1:]),
        field(0x0A, field(0x12, field(0x12, SPAN_OCTETS) + field(0x22, SPAN_OCTETS))),
    ],
)
def test_what_looks_like_records_beside_good_ones_is_a_reject(request_: Any) -> None:
    """The good ones are rows; in an array of requests its number is that behind them."""
    decoded = decode(otel_traces.STREAM, request_)
    assert len(decoded.rows) == 1
    assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1)]


@pytest.mark.parametrize("place", ["metric", "gauge"])
def test_points_beside_good_ones_are_a_reject(place: str) -> None:
    """Another kind beside a gauge, other points in it; as JSON and as protobuf, gauges before and behind."""
    inner = {"gauge": {"dataPoints": [POINT], "points": [POINT]}, "metric": {"dataPoints": [POINT]}}
    odd = {"name": "o", "gauge": inner[place], "intSum": {"dataPoints": [POINT]} if place == "metric" else None}
    metrics = [{"name": "g", "gauge": {"dataPoints": [POINT]}}, odd, {"name": "h", "gauge": {"dataPoints": [POINT]}}]
    in_gauge, beside = (field(0x22, POINT_OCTETS), b"") if place == "gauge" else (b"", field(0x32, POINT_OCTETS))
    octets = [
        field(0x12, field(0x0A, name) + field(0x2A, POINT_OCTETS + (in_gauge if name == b"o" else b""))
              + (beside if name == b"o" else b""))
        for name in (b"g", b"o", b"h")
    ]  # fmt: skip
    for request_ in (
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]},
        field(0x0A, field(0x12, b"".join(octets))),
    ):
        decoded = decode(otel_metrics.STREAM, request_)
        assert len(decoded.rows) == 3
        assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 2)]


def test_other_things_beside_records_are_no_records() -> None:
    """Lists of plain values, flat objects, text and numbers are ignored where records are."""
    extra = {"new": 5, "text": "x", "list": [1], "labels": {"a": "b"}}
    assert not decode(otel_traces.STREAM, {**extra, "resourceSpans": [{**GOOD, **extra}]}).rejects
    octets = field(0x0A, SPANS_OCTETS[2:] + field(0x6A, b"https://example.com/schema") + b"\x70\x05")
    decoded = decode(otel_traces.STREAM, octets)
    assert (len(decoded.rows), decoded.rejects) == (1, [])


@pytest.mark.parametrize("where", ["resource", "scope", "record", "event"])
def test_lists_under_unknown_names_are_attributes(where: str) -> None:
    """Of what has attributes: such as the labels of OTLP before 1.0."""
    labels = {"labels": [{"key": "a", "value": "b"}]}
    span = {**SPAN, **(labels if where == "record" else {}), "events": [labels if where == "event" else {}]}
    scope = {"scope": labels if where == "scope" else {}, "spans": [span]}
    group = {"resource": labels if where == "resource" else {}, "scopeSpans": [scope]}
    decoded = decode(otel_traces.STREAM, {"resourceSpans": [group]})
    row = dict(zip((column.name for column in otel_traces.STREAM.columns), decoded.rows[0], strict=True))
    column = {"record": "attributes", "event": "events"}.get(where, f"{where}_attributes")
    kept = orjson.loads(row[column])
    assert (kept[0]["attributes"] if where == "event" else kept) == labels
    assert not decoded.rejects


def test_groups_without_anything_are_nothing() -> None:
    """Unknown scalars are ignored, as OTLP asks, and so is what is empty."""
    empty = {"new": 5, "text": "x", "list": [], "scopeSpans": [{"spans": [], "more": {}, "schemaUrl": "x"}]}
    assert decode(otel_traces.STREAM, {"resourceSpans": [empty]}) == Decoded([], [], [])
    decoded = decode(otel_traces.STREAM, SPANS_OCTETS + field(0x0A, b"\x40\x05" + field(0x12, b"\x40\x05")))
    assert (len(decoded.rows), decoded.rejects) == (1, [])


# --- other signals ---

REQUESTS: dict[str, Any] = {
    "resourceSpans": [GOOD],
    "resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}}]}]}],
    "resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "g", "gauge": {"dataPoints": [POINT]}}]}]}],
}
OWN = {"OTEL_TRACES": "resourceSpans", "LOGS": "resourceLogs", "OTEL_METRICS": "resourceMetrics"}


@pytest.mark.parametrize("stream", [logs.STREAM, otel_traces.STREAM, otel_metrics.STREAM], ids=lambda s: str(s.name))
def test_json_of_another_signal_is_a_reject(stream: Stream) -> None:
    """As its protobuf form is; beside a record of the stream too. A field with such a name is not a request."""
    own = {OWN[stream.name]: REQUESTS[OWN[stream.name]]}
    others = [{key: value} for key, value in REQUESTS.items() if key not in own]
    for other in (*others, {"resource_spans" if "resourceSpans" not in own else "resource_logs": []},
                  {"resourceProfiles": [{}], "name": "x"}):  # fmt: skip
        assert [reject.reason for reject in decode(stream, other).rejects] == ["malformed"]
        decoded = decode(stream, [own, other, own])
        assert len(decoded.rows) == 2
        assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1)]
    assert len(decode(stream, {"name": "x", "body": "x", "resourceProfiles": 5}).rows) == 1


# --- text that is none ---


@pytest.mark.parametrize(
    ("stream", "hexadecimal"),
    [
        (
            logs.STREAM,
            "0a1d121b1219090090609317718018"
            "2a0e0a0c160301020001000"
            + "1fc03039e0a231221121f0900906093177180182a140a12696e6e6f63656e74206e65696768626f7572",
        ),
        (
            otel_metrics.STREAM,
            "0a29122712250a016d2a200a1e19009060931771801831050000000000000" + "03a0a0a016112050a03ff00010a2a1228"
            "12260a016d2a210a1f1900906093177180183105000000000000003a0b0a016112060a04676f6f64",
        ),
    ],
    ids=["body", "attribute"],
)
def test_binary_in_one_text_leaves_its_neighbours(stream: Stream, hexadecimal: str) -> None:
    """Both are rows, the one with U+FFFD, which is counted."""
    decoded = decode(stream, bytes.fromhex(hexadecimal))
    assert len(decoded.rows) == 2
    assert not decoded.rejects
    assert set(decoded.repairs) == {"invalid_utf8", "text_replaced"}
    assert "\ufffd" in repr(decoded.rows[0]) or b"\xef\xbf\xbd" in b"".join(
        v for v in decoded.rows[0] if type(v) is bytes
    )
    assert "\ufffd" not in repr(decoded.rows[1])


@pytest.mark.parametrize("binary", [b"\xff\x00\x01", b"\x01\xc3", b"\x16\x03\x01\xfc", b"\xed\xa0\x80", 99 * b"\xff"])
def test_binary_is_what_it_is_in_json(binary: bytes) -> None:
    """The rows of the two encodings are the same, and so are their repairs."""
    values = (binary, b"innocent")
    records = [
        field(0x12, field(0x2A, field(0x0A, v)) + field(0x32, field(0x0A, b"k") + field(0x12, field(0x0A, v))))
        for v in values
    ]
    as_protobuf = decode(logs.STREAM, field(0x0A, field(0x12, b"".join(records))))
    template = {"body": {"stringValue": "?"}, "attributes": [{"key": "k", "value": {"stringValue": "?"}}]}
    texts = [orjson.dumps(template).replace(b"?", v.replace(b"\0", b"\\u0000").replace(b"\1", b"\\u0001")
             .replace(b"\x16", b"\\u0016").replace(b"\3", b"\\u0003")) for v in values]  # fmt: skip
    as_json = decode(logs.STREAM, b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b",".join(texts) + b"]}]}]}")
    assert as_protobuf.rows == as_json.rows
    assert set(as_protobuf.repairs) == set(as_json.repairs)
