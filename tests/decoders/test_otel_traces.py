"""OTEL_TRACES: every encoding becomes the rows that its contract describes."""

from __future__ import annotations

import base64
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from checks import decode_checked
from eventwriter.stream import Decoded
from profiles import examples
from strategies_otlp import NOW_MICROS, as_dict, attribute_text, hex_id, message, pairs, requests, text, time
from workers.otel_traces import STREAM

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
START, END = 1765535400000000001, 1765535400187500001
MOMENT = 818_850_600_000_000
"""START as timestamptz."""
EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in STREAM.columns) | {
    "timestamp": NOW_MICROS,
    "trace_id": "",
    "span_id": "",
    "parent_span_id": "",
    "service_name": "unknown",
    "attributes": b"{}",
    "resource_attributes": b"{}",
    "events": b"[]",
    "links": b"[]",
}
UNSET = {
    "flags": 0,
    "name": "",
    "kind": 0,
    "status_code": 0,
    "dropped_attributes_count": 0,
    "dropped_events_count": 0,
    "dropped_links_count": 0,
}
"""What protobuf does not tell from absent."""


def decode(payload: bytes | Any) -> Decoded:
    """Decodes, and checks what holds of every result."""
    octets = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return decode_checked(STREAM, message(octets, "otel.traces.raw"))


def rows(payload: bytes | Any) -> list[dict[str, Any]]:
    """The rows of a payload, none of which is rejected."""
    decoded = decode(payload)
    assert not decoded.rejects
    return [as_dict(STREAM.columns, row) for row in decoded.rows]


def span(**fields: Any) -> bytes:
    """An OTLP request with one span."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.append(Span(**fields))
    return request.SerializeToString()


# --- samples ---


def test_R1_sample_protobuf() -> None:
    """The sample request of the contract, column by column."""
    payload = base64.b64decode(
        "CqUBChwKGgoMc2VydmljZS5uYW1lEgoKCGNoZWNrb3V0EoQBCgYKBGh0dHASegoQW47/95gDgQPSabYzgT/GDBII7uGbfsPBsXQiCADwZ6oL"
        "qQK3KglQT1NUIC9wYXkwAjkBkGCTF3GAGEHhlY2eF3GAGEogChlodHRwLnJlc3BvbnNlLnN0YXR1c19jb2RlEgMYkgN6ERINY2FyZCBkZWNs"
        "aW5lZBgC"
    )
    assert rows(payload) == [
        EMPTY | UNSET | {
            "timestamp": MOMENT, "trace_id": TRACE, "span_id": SPAN, "parent_span_id": "00f067aa0ba902b7",
            "name": "POST /pay", "kind": 2, "start_time_unix_nano": START, "end_time_unix_nano": END,
            "service_name": "checkout", "scope_name": "http", "status_code": 2, "status_message": "card declined",
            "attributes": b'{"http.response.status_code":402}',
            "resource_attributes": b'{"service.name":"checkout"}',
        }
    ]  # fmt: skip


def test_R4_sample_otlp_json() -> None:
    """An OTLP/JSON request is a request, not a span; ids are hex in any case, every attribute keeps its type."""
    payload = (
        b'{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}},'
        b'{"key":"service.version","value":{"stringValue":"2.4.1"}}]},"scopeSpans":[{"scope":{"name":"http","version":'
        b'"0.9"},"spans":[{"traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"EEE19B7EC3C1B174","parentSpanId":"",'
        b'"name":"POST /pay","kind":2,"startTimeUnixNano":"176553'
        b'5400000000001","endTimeUnixNano":"1765535400187500001",'
        b'"attributes":[{"key":"retry","value":{"boolValue":false}},{"key":"items","value":{"arrayValue":{"values":'
        b'[{"intValue":"0"},{"stringValue":""}]}}},{"key":"blob","'
        b'value":{"bytesValue":"AAE="}}],"events":[{"timeUnixNano":'
        b'"1765535400100000000","name":"exception","attributes":[{"key":"exception.message","value":{"stringValue":'
        b'"a=b, c"}}]}],"links":[{"traceId":"0102030405060708090a'
        b'0b0c0d0e0f10","spanId":"0102030405060708","traceState":'
        b'"v=1"}],"status":{"code":2,"message":"card declined"}}]}]}]}'
    )
    (row,) = rows(payload)
    assert orjson.loads(row.pop("events")) == [
        {"time_unix_nano": 1765535400100000000, "name": "exception",
         "attributes": {"exception.message": "a=b, c"}, "dropped_attributes_count": 0}
    ]  # fmt: skip
    assert orjson.loads(row.pop("links")) == [
        {"trace_id": "0102030405060708090a0b0c0d0e0f10", "span_id": "0102030405060708", "trace_state": "v=1",
         "attributes": {}, "dropped_attributes_count": 0, "flags": 0}
    ]  # fmt: skip
    expected = EMPTY | UNSET | {
        "timestamp": MOMENT, "trace_id": TRACE, "span_id": SPAN, "name": "POST /pay", "kind": 2,
        "start_time_unix_nano": START, "end_time_unix_nano": END, "service_name": "checkout",
        "service_version": "2.4.1", "scope_name": "http", "scope_version": "0.9", "status_code": 2,
        "status_message": "card declined", "attributes": b'{"retry":false,"items":[0,""],"blob":"AAE="}',
        "resource_attributes": b'{"service.name":"checkout","service.version":"2.4.1"}',
    }  # fmt: skip
    del expected["events"], expected["links"]
    assert row == expected


def test_sample_flat_object() -> None:
    """One span as a flat object; a resource given as text that holds JSON is taken as such."""
    payload = (
        b'{"timestamp":"2025-12-12T10:30:00.000000001Z","trace_id":"5b8efff798038103d269b633813fc60c","span_id":'
        b'"eee19b7ec3c1b175","parent_span_id":"eee19b7ec3c1b174","name":"db.query","kind":3,"start_time_unix_nano":'
        b'1765535400000000001,"end_time_unix_nano":1765535400004000001,"service_name":"checkout","status_code":0,'
        b'"attributes":{"db.system":"postgresql","rows":0},"resource_attributes":"{\\"host.name\\":\\"n1\\"}"}'
    )
    assert rows(payload) == [
        EMPTY | {
            "timestamp": MOMENT, "trace_id": TRACE, "span_id": "eee19b7ec3c1b175", "parent_span_id": SPAN,
            "name": "db.query", "kind": 3, "start_time_unix_nano": START, "end_time_unix_nano": 1765535400004000001,
            "service_name": "checkout", "status_code": 0, "attributes": b'{"db.system":"postgresql","rows":0}',
            "resource_attributes": b'{"host.name":"n1"}',
        }
    ]  # fmt: skip


def test_D17_sample_array() -> None:
    """An array of flat spans with lowerCamelCase names and decimal text."""
    payload = (
        b'[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b176","name":"cache.get","kind":1,'
        b'"startTimeUnixNano":"1765535400001000000","endTimeUnixNano":"1765535400001100000","serviceName":"checkout"}]'
    )
    assert rows(payload) == [
        EMPTY | {
            "timestamp": MOMENT + 1000, "trace_id": TRACE, "span_id": "eee19b7ec3c1b176", "name": "cache.get",
            "kind": 1, "start_time_unix_nano": 1765535400001000000, "end_time_unix_nano": 1765535400001100000,
            "service_name": "checkout",
        }
    ]  # fmt: skip


# --- defects and rules ---


def test_R2_state_flags_and_counts_are_kept() -> None:
    """Trace state, flags, dropped counts, and those of links and events."""
    request = ExportTraceServiceRequest()
    one = (
        request.resource_spans.add(schema_url="r")
        .scope_spans.add(schema_url="s")
        .spans.add(
            trace_state="a=1",
            flags=0x301,
            dropped_attributes_count=1,
            dropped_events_count=2,
            dropped_links_count=2**32 - 1,
        )
    )
    one.links.add(trace_state="b=2", flags=0x101, dropped_attributes_count=3)
    one.events.add(dropped_attributes_count=4, time_unix_nano=2**64 - 1)
    (row,) = rows(request.SerializeToString())
    assert (row["trace_state"], row["flags"]) == ("a=1", 0x301)
    counts = [row[f"dropped_{name}_count"] for name in ("attributes", "events", "links")]
    assert counts == [1, 2, 2**32 - 1]
    (link,) = orjson.loads(row["links"])
    assert (link["trace_state"], link["flags"], link["dropped_attributes_count"]) == ("b=2", 0x101, 3)
    (event,) = orjson.loads(row["events"])
    assert (event["time_unix_nano"], event["dropped_attributes_count"]) == (2**64 - 1, 4)
    assert (row["schema_url"], row["resource_schema_url"]) == ("s", "r")


def test_R3_missing_ids_are_empty() -> None:
    """A span without ids has empty ones, which is noted; one without ids and name is none."""
    (row,) = rows({"name": "a"})
    assert (row["trace_id"], row["span_id"], row["parent_span_id"]) == ("", "", "")
    assert [reject.reason for reject in decode({"kind": 1}).rejects] == ["missing_field"]
    decoded = decode(span(name="a"))
    assert as_dict(STREAM.columns, decoded.rows[0])["trace_id"] == ""
    assert decoded.repairs == ["bad_id"]


def test_ids_of_wrong_length_are_kept_and_counted() -> None:
    """The hex of whatever came."""
    decoded = decode(span(trace_id=b"\xab", span_id=bytes(8)))
    assert as_dict(STREAM.columns, decoded.rows[0])["trace_id"] == "ab"
    assert decoded.repairs == ["bad_id"]


@pytest.mark.parametrize("parent", ["", "0000000000000000", None])
def test_a_parent_of_zeros_is_a_root(parent: str | None) -> None:
    """All-zero ids are invalid in OTLP: such a span has no parent."""
    (row,) = rows({"name": "a", "parent_span_id": parent})
    assert row["parent_span_id"] == ""
    (row,) = rows(span(trace_id=b"t" * 16, span_id=b"s" * 8, parent_span_id=bytes.fromhex(parent or "")))
    assert row["parent_span_id"] == ""


@pytest.mark.parametrize("kind", [2, "2", 2.0, "server", "SERVER", "SPAN_KIND_SERVER"])
def test_kinds_by_name_and_number(kind: Any) -> None:
    """Names of kinds stand for their numbers."""
    assert rows({"name": "a", "kind": kind})[0]["kind"] == 2


@pytest.mark.parametrize("code", [2, "2", "error", "STATUS_CODE_ERROR"])
def test_status_codes_by_name_and_number(code: Any) -> None:
    """Names of status codes stand for their numbers; the status may be nested."""
    assert rows({"name": "a", "statusCode": code})[0]["status_code"] == 2
    (row,) = rows({"name": "a", "status": {"code": code, "message": "m"}})
    assert (row["status_code"], row["status_message"]) == (2, "m")


def test_times_fall_back_from_start_to_end_to_message() -> None:
    """§7.2: a missing start is replaced for the timestamp only."""
    (row,) = rows(span(name="a", trace_id=b"t" * 16, span_id=b"s" * 8, end_time_unix_nano=END))
    assert (row["timestamp"], row["start_time_unix_nano"]) == (818_850_600_187_500, None)
    assert rows({"name": "a", "endTimeUnixNano": str(END)})[0]["timestamp"] == 818_850_600_187_500
    assert rows({"name": "a"})[0]["timestamp"] == NOW_MICROS


def test_times_beyond_int64_are_clamped_and_kept() -> None:
    """A bigint holds no uint64: the exact number stays as text; the timestamp is the message's."""
    decoded = decode(
        span(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=2**63, end_time_unix_nano=2**64 - 1)
    )
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert row["timestamp"] == NOW_MICROS
    assert (row["start_time_unix_nano"], row["end_time_unix_nano"]) == (2**63 - 1, 2**63 - 1)
    assert orjson.loads(row["attributes"]) == {
        "start_time_unix_nano": str(2**63), "end_time_unix_nano": str(2**64 - 1)
    }  # fmt: skip
    assert [reject.reason for reject in decode({"name": "a", "startTimeUnixNano": 2**63}).rejects] == ["bad_time"]


def test_mistyped_values_are_kept_and_counted() -> None:
    """§12.9: what makes no sense is NULL and kept; a bad id rejects the span."""
    decoded = decode({"name": "a", "kind": "sideways", "flags": "x", "status": "ok", "service_name": 5, "extra": 0})
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["kind"], row["flags"], row["service_name"]) == (None, None, "5")
    assert orjson.loads(row["attributes"]) == {"kind": "sideways", "flags": "x", "status": "ok", "extra": 0}
    assert decoded.repairs == ["bad_value", "bad_value"]
    assert [reject.reason for reject in decode({"name": "a", "trace_id": []}).rejects] == ["bad_value"]


def test_service_of_the_resource() -> None:
    """The resource says the service where the span does not."""
    resource = {"service.name": "s", "service.version": 2, "service.instance.id": "i"}
    (row,) = rows({"name": "a", "resource": resource, "service_version": "1"})
    assert (row["service_name"], row["service_version"], row["service_instance"]) == ("s", "1", "i")


def test_nul_in_text_is_replaced() -> None:
    """Names, state, messages, events: PostgreSQL takes no U+0000."""
    one = Span(name="a\0", trace_state="b\0", trace_id=b"t" * 16, span_id=b"s" * 8)
    one.status.message = "c\0"
    one.events.add(name="d\0")
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.append(one)
    decoded = decode(request.SerializeToString())
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["name"], row["trace_state"], row["status_message"]) == ("a\ufffd", "b\ufffd", "c\ufffd")
    assert orjson.loads(row["events"])[0]["name"] == "d\ufffd"
    assert decoded.repairs == ["text_replaced"] * 4


# --- random requests ---


@given(request=requests(ExportTraceServiceRequest))
@settings(max_examples=examples(150))
def test_V10_every_field_of_every_span_is_in_its_row(request: ExportTraceServiceRequest) -> None:
    """Rows of random requests, compared with the requests field by field."""
    decoded = decode(request.SerializeToString())
    assert not decoded.rejects
    found = iter([as_dict(STREAM.columns, row) for row in decoded.rows])
    for group in request.resource_spans:
        for scoped in group.scope_spans:
            for one in scoped.spans:
                row = next(found)
                start, end = one.start_time_unix_nano, one.end_time_unix_nano
                assert row["timestamp"] == (time(start) or time(end) or NOW_MICROS)
                assert (row["start_time_unix_nano"] or 0) == min(start, 2**63 - 1)
                assert (row["end_time_unix_nano"] or 0) == min(end, 2**63 - 1)
                assert (row["trace_id"], row["span_id"]) == (hex_id(one.trace_id), hex_id(one.span_id))
                assert row["parent_span_id"] == ("" if one.parent_span_id == bytes(8) else one.parent_span_id.hex())
                assert row["trace_state"] == text(one.trace_state)
                assert row["name"] == one.name.replace("\0", "\ufffd")
                assert (row["flags"], row["kind"], row["status_code"]) == (one.flags, one.kind, one.status.code)
                assert row["status_message"] == text(one.status.message)
                for name in ("attributes", "events", "links"):
                    assert row[f"dropped_{name}_count"] == getattr(one, f"dropped_{name}_count")
                expected = pairs(one.attributes)
                if start >= 2**63:
                    expected["start_time_unix_nano"] = str(start)
                if end >= 2**63:
                    expected["end_time_unix_nano"] = str(end)
                assert json.loads(row["attributes"]) == expected
                assert json.loads(row["events"]) == [
                    {"time_unix_nano": event.time_unix_nano, "name": event.name.replace("\0", "\ufffd"),
                     "attributes": pairs(event.attributes), "dropped_attributes_count": event.dropped_attributes_count}
                    for event in one.events
                ]  # fmt: skip
                assert json.loads(row["links"]) == [
                    {"trace_id": link.trace_id.hex(), "span_id": link.span_id.hex(),
                     "trace_state": link.trace_state.replace("\0", "\ufffd"), "attributes": pairs(link.attributes),
                     "dropped_attributes_count": link.dropped_attributes_count, "flags": link.flags}
                    for link in one.links
                ]  # fmt: skip
                assert json.loads(row["resource_attributes"]) == pairs(group.resource.attributes)
                assert json.loads(row["scope_attributes"] or b"{}") == pairs(scoped.scope.attributes)
                assert row["scope_name"] == text(scoped.scope.name)
                assert row["scope_version"] == text(scoped.scope.version)
                assert row["schema_url"] == text(scoped.schema_url)
                assert row["resource_schema_url"] == text(group.schema_url)
                assert row["service_name"] == (attribute_text(group.resource, "service.name") or "unknown")
    assert next(found, None) is None


def test_a_flat_span_without_a_service() -> None:
    """Its service is unknown, as in OTLP; null is none."""
    for service in ({}, {"service_name": None}, {"resource": {"host.name": "n"}}):
        (row,) = rows({"trace_id": "a", "span_id": "b", "name": "n", **service})
        assert row["service_name"] == "unknown"
