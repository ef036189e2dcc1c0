"""OTLP in its two encodings, and the envelopes around it: what logs, traces and metrics have in common."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from checks import decode_checked
from compression import gz
from eventwriter.stream import Decoded, Message, Stream
from profiles import examples
from strategies_otlp import NOW, as_dict, message, requests, to_json
from workers import logs, otel_metrics, otel_traces
from workers._guard import total
from workers._otlp import parts, reader
from workers._otlp.utf8 import mended
from workers._wire import field

STREAMS = [logs.STREAM, otel_traces.STREAM, otel_metrics.STREAM]
KINDS: dict[str, Any] = {
    "LOGS": ExportLogsServiceRequest,
    "OTEL_TRACES": ExportTraceServiceRequest,
    "OTEL_METRICS": ExportMetricsServiceRequest,
}
GROUPS = {"LOGS": "resourceLogs", "OTEL_TRACES": "resourceSpans", "OTEL_METRICS": "resourceMetrics"}
every_stream = pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)


def decode(stream: Stream, payload: bytes, headers: dict[str, str] | None = None) -> Decoded:
    """Decodes, and checks what holds of every result."""
    return decode_checked(stream, message(payload, stream.subjects[0], headers))


@every_stream
def test_the_service_by_its_dotted_names(stream: Stream) -> None:
    """As attributes of a resource are called, beside the rest of a flat record."""
    dotted = {"service.name": "core", "service.version": "1.2", "service.instance.id": "a1"}
    names = ("service_name", "service_version", "service_instance")
    for record, service in ((dotted, "core"), (dotted | {"service_name": "own"}, "own")):
        ((row,), _, _) = decode(stream, json.dumps({"name": "n", "value": 1} | record).encode())
        found = as_dict(stream.columns, row)
        assert [found[name] for name in names] == [service, "1.2", "a1"]


@every_stream
def test_null_is_no_request(stream: Stream) -> None:
    """Beside a flat record; alone it is an empty one."""
    group = GROUPS[stream.name]
    record = {"name": "n", "value": 1, "body": "b"}
    ((row,), _, _) = decode(stream, json.dumps({group: None, **record}).encode())
    ((plain,), _, _) = decode(stream, json.dumps(record).encode())
    attributes = [column.name for column in stream.columns].index("attributes")
    assert orjson.loads(row[attributes]) == {**orjson.loads(plain[attributes]), group: None}
    for empty in ({group: None}, {group: None, "resourceLogs": None}):
        assert decode(stream, json.dumps(empty).encode()) == ([], [], [])


def log_request(body: str) -> bytes:
    """A request with a single log record."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add().body.string_value = body
    return request.SerializeToString()


# --- values ---


def test_V5_attributes_false_zero_and_empty_are_kept() -> None:
    """A value that is false, zero or empty is a value."""
    given_ = [
        KeyValue(key="f", value=AnyValue(bool_value=False)),
        KeyValue(key="i", value=AnyValue(int_value=0)),
        KeyValue(key="d", value=AnyValue(double_value=0.0)),
        KeyValue(key="s", value=AnyValue(string_value="")),
        KeyValue(key="n", value=AnyValue()),
    ]
    assert repr(parts.attributes(given_)) == repr({"f": False, "i": 0, "d": 0.0, "s": "", "n": None})


def test_V6_arrays_lists_and_bytes_are_kept() -> None:
    """Every kind of AnyValue survives, nested too."""
    value = AnyValue()
    value.array_value.values.add(int_value=2**53 + 1)
    value.array_value.values.add(bytes_value=b"\x00\x01")
    value.array_value.values.add().kvlist_value.values.add(key="k", value=AnyValue(bool_value=True))
    value.array_value.values.add().array_value.SetInParent()
    assert parts.any_value(value) == [2**53 + 1, "AAE=", {"k": True}, []]


def test_V7_doubles_keep_all_their_digits() -> None:
    """A double is written in its shortest form that reads back as itself."""
    packed = parts.dump(parts.attributes([KeyValue(key="d", value=AnyValue(double_value=1e-9))]), [])
    assert packed == b'{"d":1e-9}'


def test_doubles_that_json_lacks_are_strings() -> None:
    """NaN and the infinities have no JSON form."""
    assert [parts.number(float(name)) for name in ("nan", "inf", "-inf", "1.5")] == [
        "NaN",
        "Infinity",
        "-Infinity",
        1.5,
    ]


def test_V8_attributes_with_separators_are_unambiguous() -> None:
    """Attributes are JSON, so commas and equals signs in values mean nothing."""
    packed = parts.dump(parts.attributes([KeyValue(key="a=b", value=AnyValue(string_value="c,d=e"))]), [])
    assert orjson.loads(packed) == {"a=b": "c,d=e"}


def test_repeated_keys_keep_all_their_values() -> None:
    """Attributes with the same key, which OTLP forbids, become a list."""
    twice = [KeyValue(key="k", value=AnyValue(int_value=n)) for n in (1, 2)]
    assert parts.attributes([*twice, KeyValue(key="l", value=AnyValue(string_value="x"))]) == {"k": [1, 2], "l": "x"}


@given(data=st.data())
@settings(max_examples=examples(50))
def test_a_resource_is_the_same_whether_it_is_known_or_not(data: st.DataObject) -> None:
    """With its repairs, which are counted each time."""
    for group in data.draw(requests(ExportLogsServiceRequest)).resource_logs:
        once: list[str] = []
        converted = parts.resource_values(group.resource, group.schema_url, once)
        for _ in range(2):
            repairs: list[str] = []
            octets = group.resource.SerializeToString()
            assert reader._resource_of(octets, group.schema_url, repairs) == converted
            assert repairs == once


def test_the_deepest_resources_cost_no_record() -> None:
    """Around the depth that protobuf can write: deeper ones are kept as they came."""
    value: dict[str, Any] = {"intValue": "1"}
    for depth in range(1, 56):
        value = {"arrayValue": {"values": [value]}}
        resource = {"attributes": [{"key": "a", "value": value}]}
        request = {"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [{"flags": 1}]}]}]}
        (row,) = decode(logs.STREAM, json.dumps(request).encode()).rows
        if depth < 51:
            assert b'{"a":' + b"[" * depth + b"1" + b"]" * depth + b"}" in row


def test_nul_in_attributes_is_replaced_and_counted() -> None:
    """jsonb refuses U+0000; a backslash before the letters u0000 is no such thing."""
    repairs: list[str] = []
    assert parts.dump({"a\0": "b\0", "c": ["\0"]}, repairs) == '{"a\ufffd":"b\ufffd","c":["\ufffd"]}'.encode()
    assert repairs == ["text_replaced"] * 3
    assert orjson.loads(parts.dump({"path": "c:\\u0000"}, repairs)) == {"path": "c:\\u0000"}
    assert len(repairs) == 3


# --- recognition ---


@pytest.mark.parametrize("length", [83, 115, 84, 116])
def test_protobuf_that_looks_like_json_is_protobuf(length: int) -> None:
    r"""A request of 91 or 123 bytes begins with "\n[" or "\n{"."""
    payload = log_request("x" * length)
    decoded = decode(logs.STREAM, payload)
    assert [as_dict(logs.STREAM.columns, row)["body"] for row in decoded.rows] == ["x" * length]


def test_the_lengths_that_look_like_json_are_tested() -> None:
    """The test above meets both openers."""
    assert {log_request("x" * length)[:2] for length in (83, 115)} == {b"\n[", b"\n{"}


@every_stream
def test_empty_payload_is_a_request_without_records(stream: Stream) -> None:
    """No bytes are a legal protobuf request."""
    assert decode(stream, b"") == Decoded([], [], [])


@every_stream
@pytest.mark.parametrize(
    "payload",
    [b"null", b"5", b'"text"', b"true", b"hello", b"{", b"[", b'{"a":1', b"\xff\xfe", b"\x00", b"\n\x05ab", b"\n{",
     b"{}", b"\xef\xbb\xbf", b" \n", b"[" * 10_000, b'{"a":' * 10_000, b"\xef\xbb\xbf" * 10_000,
     b"\x3a\x03abc", b"\n\x05\x3a\x03abc", b'["\\u0000"' + b"[" * 900 + b"]" * 901],
    ids=repr,
)  # fmt: skip
def test_what_is_neither_json_nor_protobuf_is_rejected_whole(stream: Stream, payload: bytes) -> None:
    """A payload that makes no sense is one dead letter: never nothing, never an exception."""
    decoded = decode(stream, payload)
    assert not decoded.rows
    assert [(reject.reason in ("malformed", "missing_field")) for reject in decoded.rejects] == [True]


def test_requests_of_another_signal_are_malformed() -> None:
    """The bytes of a request parse as another one, but its first record has fields of wrong types."""
    log = ExportLogsServiceRequest()
    log.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=5, trace_id=b"x" * 16)
    span = ExportTraceServiceRequest()
    span.resource_spans.add().scope_spans.add().spans.add(trace_id=b"x" * 16, name="s")
    metric = ExportMetricsServiceRequest()
    metric.resource_metrics.add().scope_metrics.add().metrics.add(name="m").sum.data_points.add(as_int=5)
    for stream in STREAMS:
        for request in (log, span, metric):
            if not isinstance(request, KINDS[stream.name]):
                decoded = decode(stream, request.SerializeToString())
                assert [reject.reason for reject in decoded.rejects] == ["malformed"], (stream.name, request)


@every_stream
def test_a_bad_element_of_an_array_leaves_its_siblings(stream: Stream) -> None:
    """D17, §12.10: arrays are taken, and a bad element is rejected alone, with its index."""
    decoded = decode(
        stream, b'[{"name":"a","body":"a"},5,{"name":"b","body":"b"},{"timestamp":"never","name":"c"},[],{}]'
    )
    assert len(decoded.rows) == 2
    assert [(reject.record_index, reject.reason) for reject in decoded.rejects] == [
        (1, "malformed"), (3, "bad_time"), (4, "malformed"), (5, "missing_field")
    ]  # fmt: skip


def test_text_that_is_not_utf8_costs_no_record() -> None:
    """A text cut inside a character is repaired; its siblings are as they were."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    for body in ("first ????", "second \u20ac"):
        records.add(severity_text=body, time_unix_nano=NOW).body.string_value = body
    payload = request.SerializeToString().replace(b"????", b"\xe2\x82..")
    decoded = decode(logs.STREAM, payload)
    rows = [as_dict(logs.STREAM.columns, row) for row in decoded.rows]
    assert [row["body"] for row in rows] == ["first \ufffd..", "second \u20ac"]
    assert decoded.repairs == ["invalid_utf8"] * 2


def test_text_that_is_not_utf8_is_looked_for_at_any_depth() -> None:
    """Where protobuf takes it; what is nested deeper is no request, and not worth a stack."""
    for levels, repairs in ((30, ["invalid_utf8"]), (80, []), (20_000, [])):
        value = field(0x0A, b"\xff")
        for _ in range(levels):
            value = field(0x2A, field(0x0A, value))
        decoded = decode(logs.STREAM, field(0x0A, field(0x12, field(0x12, field(0x2A, value)))))
        assert decoded.repairs == repairs
        assert [reject.reason for reject in decoded.rejects] == ([] if repairs else ["malformed"])


@every_stream
@given(data=st.data())
@settings(max_examples=examples(30))
def test_mending_leaves_valid_requests_alone(stream: Stream, data: st.DataObject) -> None:
    """Protobuf reads every field as what it is, but text as bytes."""
    request = data.draw(requests(KINDS[stream.name]))
    repairs: list[str] = []
    octets = mended(type(request), request.SerializeToString(), repairs)
    assert repr(type(request).FromString(octets)) == repr(request)
    assert not repairs


# --- CloudEvents ---


@every_stream
def test_L7_cloudevents_are_unwrapped(stream: Stream) -> None:
    """The record is the data of the event, structured or binary, plain or base64; the envelope is kept."""
    record = {"name": "a", "timestamp": NOW_TEXT, "attributes": {"k": 0}}
    envelope = {"specversion": "1.0", "id": "i", "source": "s", "type": "t", "tenant": "acme"}
    octets = orjson.dumps(record)
    for payload, headers in (
        (orjson.dumps({**envelope, "data": record}), None),
        (orjson.dumps({**envelope, "data": octets.decode()}), None),
        (orjson.dumps({**envelope, "data_base64": base64.b64encode(octets).decode()}), None),
        (octets, {f"ce-{key}": value for key, value in envelope.items()} | {"Nats-Msg-Id": "x"}),
    ):
        decoded = decode(stream, payload, headers)
        (row,) = [as_dict(stream.columns, row) for row in decoded.rows]
        assert row["timestamp"] == 818_850_600_500_000
        attributes = orjson.loads(row["attributes"])
        assert attributes["k"] == 0
        assert attributes["cloudevent"] == envelope


NOW_TEXT = "2025-12-12T10:30:00.5Z"


@every_stream
@given(data=st.data())
@settings(max_examples=examples(20))
def test_requests_in_cloudevents_keep_records_and_envelope(stream: Stream, data: st.DataObject) -> None:
    """OTLP in a CloudEvent, protobuf in base64 or JSON, gives the same number of rows as bare."""
    request = data.draw(requests(KINDS[stream.name]))
    bare = decode(stream, request.SerializeToString())
    envelope = {"specversion": "1.0", "id": "i", "source": "s", "type": "t"}
    coded = base64.b64encode(request.SerializeToString()).decode()
    assert len(decode(stream, orjson.dumps({**envelope, "data_base64": coded})).rows) == len(bare.rows)
    inner = {GROUPS[stream.name]: [], **to_json(request)}
    assert len(decode(stream, json.dumps({**envelope, "data": inner}).encode()).rows) == len(bare.rows)


@every_stream
def test_compressed_payloads_are_inflated(stream: Stream) -> None:
    """gzip and zlib around any encoding."""
    request = KINDS[stream.name]()
    for octets in (b'{"name":"a","body":"b"}', request.SerializeToString(), log_request("x")):
        bare = decode(stream, octets)
        for packed in (gz(octets), zlib.compress(octets)):
            assert [*map(list, decode(stream, packed))] == [*map(list, bare)]


def test_events_within_events_end_somewhere() -> None:
    """Envelopes may be nested, within limits."""
    value: Any = {"body": "x"}
    for depth in range(20):
        value = {"specversion": "1.0", "id": str(depth), "source": "s", "type": "t", "data": value}
        if depth == 5:
            assert len(decode(logs.STREAM, orjson.dumps(value)).rows) == 1
    assert [reject.reason for reject in decode(logs.STREAM, orjson.dumps(value)).rejects] == ["malformed"]


# --- OTLP/JSON ---


@every_stream
@given(data=st.data())
@settings(max_examples=examples(60))
def test_R4_otlp_json_gives_the_rows_of_protobuf(stream: Stream, data: st.DataObject) -> None:
    """The two encodings of one request are the same rows."""
    request = data.draw(requests(KINDS[stream.name]))
    value = {GROUPS[stream.name]: [], **to_json(request)}
    as_json = decode(stream, json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode())
    as_protobuf = decode(stream, request.SerializeToString())
    assert repr([*as_json.rows]) == repr([*as_protobuf.rows])
    assert not as_json.rejects


def test_snake_case_and_enum_names_are_taken() -> None:
    """Original field names and the names of enum values are legal protobuf JSON."""
    for kind in (2, "2", "SPAN_KIND_SERVER", "server"):
        value = {"resource_spans": [{"scope_spans": [{"spans": [
            {"trace_id": "AB" * 16, "span_id": "cd" * 8, "kind": kind, "start_time_unix_nano": 1765535400000000001}
        ]}]}]}  # fmt: skip
        (row,) = decode(otel_traces.STREAM, orjson.dumps(value)).rows
        found = as_dict(otel_traces.STREAM.columns, row)
        assert (found["kind"], found["trace_id"], found["span_id"]) == (2, "ab" * 16, "cd" * 8)
        assert found["start_time_unix_nano"] == 1765535400000000001


def test_unknown_names_are_ignored_and_null_is_absent() -> None:
    """OTLP asks receivers to ignore names that they do not know; a list is kept all the same."""
    value = {"resourceLogs": [{"new": 1, "resource": None, "scopeLogs": [{"logRecords": [
        {"body": {"stringValue": "x"}, "future": [1], "severityNumber": None}
    ]}]}]}  # fmt: skip
    decoded = decode(logs.STREAM, orjson.dumps(value))
    (row,) = decoded.rows
    assert as_dict(logs.STREAM.columns, row)["body"] == "x"
    assert as_dict(logs.STREAM.columns, row)["severity_number"] is None
    assert as_dict(logs.STREAM.columns, row)["attributes"] == b'{"future":[1]}'
    assert decoded.repairs == []


def test_a_value_that_does_not_fit_is_kept_among_the_attributes() -> None:
    """Lenient per field: the column stays empty, the original is kept and counted."""
    record = {"severityNumber": "loud", "traceId": "xyz", "flags": 2**40, "timeUnixNano": "soon",
              "attributes": [{"key": "n", "value": {"intValue": "many"}}, 5, {"key": "p", "value": "plain"}],
              "body": {"doubleValue": "NaN"}}  # fmt: skip
    decoded = decode(logs.STREAM, orjson.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}))
    (row,) = decoded.rows
    found = as_dict(logs.STREAM.columns, row)
    assert found["severity_number"] is None
    assert found["trace_id"] == ""
    assert found["body"] == '"NaN"'
    assert orjson.loads(found["attributes"]) == {
        "severity_number": "loud", "trace_id": "xyz", "flags": str(2**40), "time_unix_nano": "soon",
        "n": "many", "": "5", "p": "plain",
    }  # fmt: skip
    assert sorted(decoded.repairs) == sorted(
        ["bad_value", "bad_id", "out_of_range", "bad_value", "bad_value", "bad_value"]
    )


def test_records_of_a_json_request_are_rejected_one_by_one() -> None:
    """A record that is none, or lacks what it is about, has its index; groups that are none count as one."""
    spans = [{"traceId": "00" * 16, "spanId": "11" * 8, "name": "a"}, {"traceId": "no hex", "name": "b"}, "span",
             {"traceId": "22" * 16, "spanId": "33" * 8, "name": "c"}]  # fmt: skip
    value = {
        "resourceSpans": [
            7,
            {"scopeSpans": [{"spans": spans}, [], {"spans": 5}]},
            {"scopeSpans": [{"spans": spans[:1]}]},
        ]
    }
    decoded = decode(otel_traces.STREAM, orjson.dumps(value))
    assert [as_dict(otel_traces.STREAM.columns, row)["name"] for row in decoded.rows] == ["a", "c", "a"]
    assert [(reject.record_index, reject.reason) for reject in decoded.rejects] == [
        (0, "malformed"), (2, "bad_id"), (3, "malformed"), (5, "malformed"), (6, "malformed")
    ]  # fmt: skip


def test_a_request_without_a_list_is_malformed() -> None:
    """``resourceLogs`` must be a list."""
    assert [r.reason for r in decode(logs.STREAM, b'{"resourceLogs":5}').rejects] == ["malformed"]
    assert decode(logs.STREAM, b'{"resourceLogs":[]}') == Decoded([], [], [])


# --- any bytes at all ---

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def _keys(stream: Stream) -> list[str]:
    names = [column.name for column in stream.columns]
    return [*names, "resource", "scope", "severity", "level", "host", "message", "varbinds", "source", "status", "name",
            "specversion", "id", "type", "data", "data_base64", "raw_payload", "resource_metric_count",
            "startTimeUnixNano", "time_unix_nano", "observedTimeUnixNano", "resourceLogs", "scopeLogs", "logRecords",
            "resourceSpans", "scopeSpans", "spans", "resourceMetrics", "scopeMetrics", "metrics", "gauge", "sum",
            "dataPoints", "asInt", "key", "value", "stringValue", "intValue", "traceId"]  # fmt: skip


@every_stream
@given(data=st.data())
@settings(max_examples=examples(70))
def test_any_json_is_decoded_or_rejected(stream: Stream, data: st.DataObject) -> None:
    """Objects with known keys and any values: never an exception, never a mistake of ours."""
    keys = st.sampled_from(_keys(stream))
    value = data.draw(
        st.recursive(_JSON, lambda i: st.lists(i, max_size=3) | st.dictionaries(keys, i, max_size=6), max_leaves=12)
    )
    decoded = decode(stream, json.dumps(value).encode())
    assert "internal" not in [reject.reason for reject in decoded.rejects], decoded.rejects


@every_stream
@given(data=st.data())
@settings(max_examples=examples(70))
def test_any_bytes_are_decoded_or_rejected(stream: Stream, data: st.DataObject) -> None:
    """Random bytes, and valid requests cut short or with bits flipped."""
    payload = data.draw(st.binary(max_size=60))
    if data.draw(st.booleans()):
        request = data.draw(requests(KINDS[stream.name]))
        payload = request.SerializeToString()
        if data.draw(st.booleans()):
            payload = json.dumps({GROUPS[stream.name]: [], **to_json(request)}).encode()
        if payload:
            place = data.draw(st.integers(0, len(payload) - 1))
            bit = data.draw(st.integers(0, 7))
            payload = payload[:place] + bytes([payload[place] ^ 1 << bit]) + payload[place + 1 :]
            payload = payload[: data.draw(st.integers(0, len(payload)))]
    decoded = decode(stream, payload)
    assert "internal" not in [reject.reason for reject in decoded.rejects], decoded.rejects


def test_very_many_attributes_in_protobuf() -> None:
    """A record with 100,000 attributes is a row like any other."""
    request = ExportLogsServiceRequest()
    record = request.resource_logs.add().scope_logs.add().log_records.add()
    record.attributes.extend([KeyValue(key=f"k{n}", value=AnyValue(int_value=n)) for n in range(100_000)])
    (row,) = decode(logs.STREAM, request.SerializeToString()).rows
    assert len(orjson.loads(as_dict(logs.STREAM.columns, row)["attributes"])) == 100_000


def test_a_mistake_of_ours_is_a_dead_letter() -> None:
    """An exception that should not be costs the message, not the worker."""

    def decode(message: Message) -> Decoded:
        raise ZeroDivisionError("\0\ud800" * 500)

    (reject,) = total(decode)(message(b"")).rejects
    assert (reject.reason, reject.record_index) == ("internal", None)
    assert reject.detail.startswith("ZeroDivisionError: ")
    assert len(reject.detail) <= 500


@every_stream
def test_hostile_sizes_take_bounded_time(stream: Stream) -> None:
    """Huge numbers, long strings, very many attributes."""
    many = {f"k{n}": n for n in range(100_000)}
    for value in (
        b'{"name":"x","body":"x","n":' + b"9" * 10_000 + b"}",
        b'{"name":"x","timestamp":' + b"9" * 10_000 + b"}",
        b'{"name":"x","value":1,"body":"' + b"y" * 2**20 + b'"}',
        orjson.dumps({"name": "x", "body": "x", "attributes": many}),
        orjson.dumps({"name": "x", "body": "x", **many}),
        orjson.dumps({"name": "x", "attributes": orjson.dumps(many).decode()}),
    ):
        decoded = decode(stream, value)
        assert len(decoded.rows) + len(decoded.rejects) == 1
