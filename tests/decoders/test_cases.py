"""Messages of the trade that decoders got wrong at one time or another, by the kind of fault, and others of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from checks import check_decoded, decode_checked
from eventwriter import registry
from eventwriter.stream import Decoded, Message
from workers._flow.flow_pb2 import FlowMessage
from workers._wire import field

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples" / "cases"
STREAMS = registry.load()
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t"}
EV = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}
RECEIVED = "2025-12-12T10:30:00Z"


def decoded(name: str, payload: Any, subject: str | None = None, headers: Mapping[str, str] | None = None) -> Decoded:
    """What a sample, by the name of its file, or another payload becomes; bytes are as they are."""
    if isinstance(payload, str):
        payload = (SAMPLES / payload).read_bytes()
    elif not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    stream = STREAMS[name]
    subject = subject or stream.subjects[0].replace(">", "x")
    return decode_checked(stream, Message(subject, payload, 1, 1_765_535_400_000_000_000, headers))


def rows(name: str, found: Decoded) -> list[dict[str, Any]]:
    """Rows by the names of their columns, JSON parsed with every digit."""
    return [
        {
            column.name: json.loads(value, parse_float=Decimal)
            if column.type == "jsonb" and value is not None
            else value
            for column, value in zip(STREAMS[name].columns, row, strict=True)
        }
        for row in found.rows
    ]


def only(name: str, payload: Any, **options: Any) -> dict[str, Any]:
    """The only row of a message without rejects."""
    found = decoded(name, payload, **options)
    assert not found.rejects
    (row,) = rows(name, found)
    return row


def rejects(found: Decoded) -> list[tuple[str, int | None]]:
    """Reason and index of each."""
    return [(reject.reason, reject.record_index) for reject in found.rejects]


def at(text: str) -> int:
    """RFC 3339 text as timestamptz."""
    return (datetime.fromisoformat(text) - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


# --- records under names that we do not know; test_otlp_unreadable.py has more -----------------------------------


@pytest.mark.parametrize(
    ("name", "sample", "written"),
    [
        ("OTEL_TRACES", "old_library_spans.json", 0), ("LOGS", "old_library_logs.json", 0),
        ("OTEL_TRACES", "wrong_case.json", 0), ("OTEL_TRACES", "good_span_beside_field_1000.pb", 1),
        ("OTEL_METRICS", "old_int_sum_beside_gauge.json", 1), ("OTEL_METRICS", "unknown_kind_beside_gauge.pb", 1),
        ("LOGS", {"resourceLogs": [{"scopeLogs": [{"logs": [{"body": {"stringValue": "x"}}]}]}]}, 0),
        ("OTEL_METRICS", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [
            {"name": "g", "gauge": {"dataPoints": [{"asInt": 1}]}},
            {"name": "o", "doubleHistogram": {"dataPoints": [{}]}},
        ]}]}]}, 1),
        ("LOGS", {"ResourceLogs": [{}], "resourceLogs": []}, 0),
    ],
)  # fmt: skip
def test_records_under_unknown_names_are_told(name: str, sample: Any, written: int) -> None:
    """One reject for all that cannot be read of a group; the others are rows."""
    found = decoded(name, sample)
    assert len(found.rows) == written
    assert [reason for reason, _ in rejects(found)] == ["malformed"]


# --- numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "payload", "column", "kept"),
    [
        ("LOGS", "big_numbers.json", "attributes",
         {"id": "123456789012345678901234567890", "u": "18446744073709551616", "d": "0.12345678901234567890"}),
        ("LOGS", "big_number_common_log.json", "attributes", {"a": "123456789012345678901234567890"}),
        ("TELEMETRY", b'{"value":1,"tags":{"a":-18446744073709551617,"b":[1.00000000000000000001]}}', "tags",
         {"a": "-18446744073709551617", "b": ["1.00000000000000000001"]}),
        ("SWEEP", b'{"host_ip":"h","x":9007199254740993.5}', "metadata", {"x": "9007199254740993.5"}),
        ("OTEL_TRACES", b'{"name":"n","attributes":{"a":3.14159265358979323846264338}}', "attributes",
         {"a": "3.14159265358979323846264338"}),
        ("NETFLOW", b'{"src_addr":"10.0.0.1","bytes":123456789012345678901234567890.0}', "metadata",
         {"octets": "123456789012345678901234567890"}),
        ("SWEEP", b'{"host_ip":"h","icmp_response_time_ns":18446744073709551617.0}', "metadata",
         {"icmp_response_time_ns": "18446744073709551617"}),
        ("TELEMETRY", b'{"value":1,"tags":{"a":1.234567e-320}}', "tags", {"a": "1.234567e-320"}),
    ],
)  # fmt: skip
def test_every_digit_is_kept(name: str, payload: Any, column: str, kept: dict[str, Any]) -> None:
    """In JSON, whatever else there is in the batch."""
    octets = (SAMPLES / payload).read_bytes() if isinstance(payload, str) else payload
    stream = STREAMS[name]
    message = Message(stream.subjects[0].replace(">", "x"), octets, 1, 1_765_535_400_000_000_000)
    whole = decoded(name, octets).rows[0]
    assert json.loads(dict(zip((c.name for c in stream.columns), whole, strict=True))[column],
                      parse_int=str, parse_float=str) == kept  # fmt: skip
    if stream.fast is not None:
        assert stream.fast([message])[0] in (None, whole)
        assert stream.fast([message] * 200)[0] in (None, whole)


@pytest.mark.parametrize(
    ("name", "payload", "column", "value", "kept"),
    [
        ("TELEMETRY", "big_value.json", "metadata", ("value", 1.2345678901234568e29),
         {"value": "123456789012345678901234567890"}),
        ("TELEMETRY", b'{"value":0.1234567890123456789}', "metadata", ("value", 0.12345678901234568),
         {"value": "0.1234567890123456789"}),
        ("TELEMETRY", b'{"value":1.234567e-320}', "metadata", ("value", 1.234567e-320), {"value": "1.234567e-320"}),
        ("TELEMETRY", b'{"value":"9007199254740993"}', "metadata", ("value", 9007199254740992.0),
         {"value": "9007199254740993"}),
        ("SWEEP", b'{"host_ip":"h","icmp_packet_loss":1.00000000000000000001}', "metadata", ("icmp_packet_loss", 1.0),
         {"icmp_packet_loss": "1.00000000000000000001"}),
    ],
)  # fmt: skip
def test_a_rounded_number_is_kept(name: str, payload: Any, column: str, value: tuple[str, float], kept: Any) -> None:
    """The nearest float64 in its column, counted, and the text as it came."""
    found = decoded(name, payload)
    assert found.repairs == ["rounded"]
    (row,) = rows(name, found)
    assert (row[value[0]], row[column]) == (value[1], kept)


@pytest.mark.parametrize("depth", [200, 252, 253, 254, 255, 300, 900])
@pytest.mark.parametrize("name", ["LOGS", "TELEMETRY", "SWEEP", "NETFLOW", "OTEL_TRACES", "OTEL_METRICS"])
def test_depth_has_one_rule(name: str, depth: int) -> None:
    """The same row, or the same reject, alone and among others."""
    essential = '"value":1,"host_ip":"h","body":"b","name":"n","src_addr":"h"'
    nested = f'{{{essential},"x":{"[" * depth}{"]" * depth}}}'
    for payload, count in ((nested, 1), (f"[{nested},{nested}]", 2)):
        found = decoded(name, payload.encode())
        refused = [("bad_value", place) for place in range(count)]
        assert (len(found.rows), rejects(found)) == ((count, []) if depth < 254 else (0, refused))
    assert rejects(decoded("LOGS", "deep_300.json")) == [("bad_value", 0)]


@pytest.mark.parametrize("depth", [300, 900, 1015])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("LOGS", "timestamp"), ("LOGS", "observed_timestamp"), ("TELEMETRY", "timestamp"), ("SWEEP", "last_sweep_time"),
        ("SWEEP", "first_seen"), ("NETFLOW", "timestamp"), ("NETFLOW", "time_received_ns"),
        ("OTEL_TRACES", "timestamp"), ("OTEL_METRICS", "timestamp"), ("EVENTS", "time"),
        ("SWEEP", "agent_id"), ("LOGS", "severity_text"),
    ],
)  # fmt: skip
def test_what_is_nested_too_deep_is_a_reject_of_its_own(name: str, place: str, depth: int) -> None:
    """Wherever it is; the records beside it are rows, and so is one around which it is in a CloudEvent."""
    good = '"value":1,"host_ip":"h","body":"b","name":"n","src_addr":"h","short_message":"m","version":"1.1"'
    deep = "[" * depth + "]" * depth
    found = decoded(name, f'[{{{good}}},{{{good},"{place}":{deep}}},{{{good}}}]'.encode())
    assert [place for _, place in rejects(found)] in ([1], [])
    assert {reason for reason, _ in rejects(found)} <= {"bad_time", "bad_value"}
    assert len(found.rows) == 3 - len(found.rejects)
    event = f'{{"specversion":"1.0","id":"1","source":"s","time":{deep},"data":{{{good}}}}}'
    assert "internal" not in [reason for reason, _ in rejects(decoded(name, event.encode()))]
    outer = f'{{"specversion":"1.0","id":"2","source":"s","x":{deep},"data":{event[:-1]},"x":{deep}}}}}'
    assert "internal" not in [reason for reason, _ in rejects(decoded(name, outer.encode()))]
    summary = f'{{"hosts":[{{"host":"1","agent_id":{deep}}},{{"host":"2"}}],"agent_id":{deep}}}'
    assert "internal" not in [reason for reason, _ in rejects(decoded(name, summary.encode()))]


# --- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "payload", "time", "repairs"),
    [
        ("LOGS", "go_zero_time_logs.json", RECEIVED, 0), ("NETFLOW", "go_zero_time_netflow.json", RECEIVED, 0),
        ("OTEL_TRACES", "go_zero_time_otel_traces.json", RECEIVED, 0), ("LOGS", "empty_time_logs.json", RECEIVED, 0),
        ("OTEL_METRICS", "empty_time_otel_metrics.json", RECEIVED, 0),
        ("LOGS", "leap_second_logs.json", "2017-01-01T00:00:00Z", 1),
        ("SWEEP", {"host_ip": "h", "last_sweep_time": "0001-01-01T00:00:00+00:00"}, RECEIVED, 0),
        ("TELEMETRY", {"value": 1, "timestamp": ""}, RECEIVED, 0),
        ("TELEMETRY", {"value": 1, "timestamp": "2015-06-30T23:59:60.25Z"}, "2015-07-01T00:00:00.25Z", 1),
        ("EVENTS", {"message": "m", "time": "2016-12-31T23:59:60Z"}, "2017-01-01T00:00:00Z", 1),
        ("OTEL_TRACES", {"name": "n", "timestamp": "1972-06-30T23:59:60Z"}, "1972-07-01T00:00:00Z", 1),
    ],
)  # fmt: skip
def test_a_time_that_is_none_or_a_leap_second(name: str, payload: Any, time: str, repairs: int) -> None:
    """The fallback, without a word; the first second of the next minute, which is counted. So on the fast path."""
    found = decoded(name, payload)
    (row,) = found.rows
    column = {"SWEEP": "last_sweep_time", "EVENTS": "event_timestamp"}.get(name, "timestamp")
    assert rows(name, found)[0][column] == at(time)
    assert found.repairs == ["leap_second"] * repairs
    stream = STREAMS[name]
    if stream.fast is not None and not isinstance(payload, str):
        record = {"gateway_id": "g", "metric_name": "m", **payload}
        message = Message("x.y", json.dumps(record).encode(), 1, 1_765_535_400_000_000_000)
        assert stream.fast([message])[0] in (None, stream.decode(message).rows[0])
        assert not repairs or stream.fast([message])[0] is None
    assert row is not None


def test_a_flow_that_ends_beyond_all_times() -> None:
    """The next best time, and the original kept: the same from JSON and protobuf."""
    for sample in ("flow_end_beyond_int64.json", "flow_end_beyond_int64.pb"):
        found = decoded("NETFLOW", sample)
        assert found.repairs == ["bad_time"]
        (row,) = rows("NETFLOW", found)
        assert row["timestamp"] == 4061769749467889
        assert row["metadata"]["time_flow_end_ns"] == "9223372036854775808"
    for more, time in (({"time_received_ns": 2**63}, RECEIVED), ({"time_received_ns": 2**64 - 1}, RECEIVED),
                       ({"time_received_ns": 2.0**64}, RECEIVED),
                       ({"time_received_ns": 2**63, "time_flow_start_ns": 1_765_535_340_000_000_000},
                        "2025-12-12T10:29:00Z")):  # fmt: skip
        found = decoded("NETFLOW", {"src_addr": "10.0.0.1", **more})
        (row,) = rows("NETFLOW", found)
        assert (row["timestamp"], found.repairs) == (at(time), ["bad_time"])
        given, kept = more["time_received_ns"], row["metadata"]["time_received_ns"]
        assert kept == str(given) or (isinstance(given, float) and float(kept) == given)
    (row,) = rows("NETFLOW", decoded("NETFLOW", {"src_addr": "10.0.0.1", "time_flow_start_ms": 1765535400123.5}))
    assert row["timestamp"] == at("2025-12-12T10:30:00.123500Z")


# --- series -----------------------------------------------------------------------------------------------------


def metric(point: dict[str, Any], **scope: Any) -> dict[str, Any]:
    """A request with one gauge."""
    metrics = [{"name": "m", "gauge": {"dataPoints": [{"asInt": 5, **point}]}}]
    return {"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics, **scope}]}]}


def pairs(**attributes: Any) -> list[dict[str, Any]]:
    """Attributes in this order."""
    return [{"key": key, "value": value} for key, value in attributes.items()]


A, B = {"stringValue": "1"}, {"kvlistValue": {"values": pairs(x={"intValue": 1}, y={"boolValue": True})}}
B_TURNED = {"kvlistValue": {"values": pairs(y={"boolValue": True}, x={"intValue": 1})}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("scope_attributes_ab.json", "scope_attributes_ba.json"), ("nul_attribute_ab.pb", "nul_attribute_ba.pb"),
        ("iso_time_1.json", "iso_time_2.json"),
        (metric({"attributes": pairs(a=A, b=B)}), metric({"attributes": pairs(b=B_TURNED, a=A)})),
        (metric({}, scope={"attributes": pairs(a=A, b=B)}), metric({}, scope={"attributes": pairs(b=B_TURNED, a=A)})),
        (metric({"flags": "x1"}), metric({"flags": "x2"})),
        (metric({"startTimeUnixNano": "2025"}), metric({"startTimeUnixNano": "2025-12-12"})),
        (metric({"attributes": pairs(a={"stringValue": "n\0"}, b=A)}),
         metric({"attributes": pairs(b=A, a={"stringValue": "n\ufffd"})})),
    ],
)  # fmt: skip
def test_a_series_is_the_same(one: Any, other: Any) -> None:
    """Whatever the order of attributes, and whatever was repaired beside them."""
    keys = {only("OTEL_METRICS", each)["series_key"] for each in (one, other)}
    assert len(keys) == 1


@pytest.mark.parametrize("other", [{"attributes": pairs(a=A)}, {"attributes": pairs(a=B)}, {"attributes": pairs(b=A)}])
def test_other_series_are_others(other: dict[str, Any]) -> None:
    """Of any attribute."""
    keys = {only("OTEL_METRICS", metric(each))["series_key"] for each in ({}, {"attributes": pairs(a=A, b=A)}, other)}
    assert len(keys) == 3


# --- neighbours -------------------------------------------------------------------------------------------------

BINARY_PAIR = field(0x0A, field(0x0A, b"k") + field(0x12, field(0x0A, b"\xffAB")))
TEXT_BODY = field(0x2A, field(0x0A, b"x"))


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("OTEL_METRICS", "binary_in_one_attribute.pb"),
        ("LOGS", "binary_body_beside_good.pb"),
        # A span's name, its trace state, and a resource's attribute with what is not UTF-8.
        ("OTEL_TRACES", bytes.fromhex("0a14121212082a06" + "ff4142fe4344" + "12062a04676f6f64")),
        ("OTEL_TRACES", bytes.fromhex("0a10120e12041a02c32812062a04676f6f64")),
        ("LOGS", field(0x0A, field(0x0A, BINARY_PAIR) + field(0x12, 2 * field(0x12, TEXT_BODY)))),
    ],
)
def test_binary_in_one_record_leaves_its_neighbours(name: str, payload: Any) -> None:
    """Both are rows, with U+FFFD where it was; or the one is a reject of its own."""
    found = decoded(name, payload)
    assert len(found.rows) + len(found.rejects) == 2
    assert "invalid_utf8" in found.repairs


# --- flows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "protocol"),
    [
        ("proto_ipip.json", 94), ("proto_isis.json", 124), *(
            ({"src_addr": "10.0.0.1", "proto": name}, number) for name, number in {
                "HOPOPT": 0, "icmp": 1, "IPv4": 4, "TCP": 6, "egp": 8, "UDP": 17, "DCCP": 33, "IPv6": 41,
                "IPv6-Route": 43, "IPv6-Frag": 44, "GRE": 47, "ESP": 50, "AH": 51, "SWIPE (deprecated)": 53,
                "IPv6-ICMP": 58, "ICMPv6": 58, "IPv6-NoNxt": 59, "IPv6-Opts": 60, "any host internal protocol": 61,
                "EIGRP": 88, "OSPFIGP": 89, "OSPF": 89, "AX.25": 93, "MICP (deprecated)": 95, "ETHERIP": 97,
                "ENCAP": 98, "PIM": 103, "A/N": 107, "VRRP": 112, "L2TP": 115, "STP": 118, "ISIS over IPv4": 124,
                "SCTP": 132, "FC": 133, "Mobility Header": 135, "UDPLite": 136, "MPLS-in-IP": 137, "manet": 138,
                "Ethernet": 143, "AGGFRAG": 144, "NSH": 145, "Homa": 146, "BIT-EMU": 147, "Reserved": 255, "89": 89,
            }.items()
        ),
    ],
)  # fmt: skip
def test_protocols_have_the_numbers_of_their_names(payload: Any, protocol: int) -> None:
    """As in IANA's registry, and as goflow2 writes them."""
    assert only("NETFLOW", payload)["protocol"] == protocol


def test_protobufs_own_json_of_flows() -> None:
    """Addresses in base64 and MAC addresses as numbers are what goflow2's JSON has."""
    row = only("NETFLOW", "protojson_flow.json")
    assert (row["src_addr"], row["dst_addr"], row["sampler_address"]) == ("10.0.0.1", "198.51.100.7", "10.0.0.254")
    assert row["metadata"]["srcMac"] == "00:11:22:33:44:55"
    for address, text in (("IAENuAAQAAAAAAAAAAAABQ==", "2001:db8:10::5"), ("wAACAQ==", "192.0.2.1"),
                          ("fe80::1", "fe80::1"), ("10.1.2.3", "10.1.2.3")):  # fmt: skip
        row = only("NETFLOW", {"srcAddr": address, "timeReceivedNs": "1765535400250000000", "nextHop": "CgAA/g=="})
        assert (row["src_addr"], row["metadata"]["nextHop"]) == (text, "10.0.0.254")


@pytest.mark.parametrize("index", [2**31, 2**32 - 1])
def test_an_interface_beyond_its_column_is_kept_in_one_form(index: int) -> None:
    """In JSON, whatever its name there, as in protobuf: a number under the name that this has for it."""
    octets = FlowMessage(src_addr=b"\x0a\0\0\1", in_if=index, out_if=7).SerializeToString()
    payloads: list[Any] = [octets, *(
        {"src_addr": "10.0.0.1", name: value, other: 7}
        for name, other in (("in_if", "out_if"), ("inIf", "outIf"), ("InIf", "OutIf"), ("input_snmp", "output_snmp"))
        for value in (index, str(index))
    )]  # fmt: skip
    for payload in payloads:
        found = decoded("NETFLOW", payload)
        (row,) = rows("NETFLOW", found)
        assert (row["input_snmp"], row["output_snmp"], found.repairs) == (2**31 - 1, 7, ["clamped"])
        assert row["metadata"]["in_if"] == index


# --- logs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "subject", "expected"),
    [
        ("body_of_ports.json", None, {"body": "[80,443,8080]"}),
        ({"body": [72, 105, 10]}, None, {"body": "Hi\n"}),
        ({"body": [72, 7]}, None, {"body": "[72,7]"}),
        ({"body": []}, None, {"body": "[]"}),
        ("gelf_with_nul.json", None, {"body": "m", "severity_number": 9}),
        ("gelf_level_float.json", None, {"severity_number": 17, "severity_text": "ERROR"}),
        ({"body": "x", "level": "3"}, None, {"severity_number": 17, "severity_text": "ERROR"}),
        ({"body": "x", "level": 7}, None, {"severity_number": 5, "severity_text": "DEBUG"}),
        ("severity_text_only.json", None, {"severity_number": 17}),
        ("zero_ids.json", None, {"trace_id": "", "span_id": ""}),
        ({"body": "x", "trace_id": "0" * 32, "span_id": "0" * 16}, None, {"trace_id": "", "span_id": ""}),
        ("severity_text_and_level.json", "logs.syslog.processed", {"severity_number": 21, "severity_text": "critical"}),
        ("severity_unknown_and_level.json", "logs.syslog.processed",
         {"severity_number": 17, "severity_text": "ERROR", "attributes": {"level": 3, "severity": "Unknown"}}),
        ({"body": "x", "severity": "N/A", "level": 4}, None, {"severity_number": 13, "severity_text": "WARN"}),
        ("dotted_service_name.json", None,
         {"service_name": "core", "service_version": "1.2", "service_instance": "a1"}),
        ({"body": "x", "resource": {"service.name": "r", "service.instance.id": "i"}}, None,
         {"service_name": "r", "service_instance": "i"}),
    ],
)  # fmt: skip
def test_logs(payload: Any, subject: str | None, expected: dict[str, Any]) -> None:
    """Bodies, severities, ids, services."""
    row = only("LOGS", payload, subject=subject)
    assert {name: row[name] for name in expected} == expected


def test_requests_of_other_signals_are_rejects() -> None:
    """Spans on the stream of logs."""
    assert rejects(decoded("LOGS", "spans_on_logs.json")) == [("malformed", None)]


# --- CloudEvents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "headers", "body"),
    [
        ("text_data_that_looks_like_json.json", None, "[]"),
        ("binary_mode_text.txt", CE | {"content-type": "text/plain"}, "plain text"),
        ("cloudevents_03_base64.json", None, "x"),
        (b'{"a":1}', CE | {"content-type": "text/plain; charset=utf-8"}, '{"a":1}'),
        (b"<a>[1]</a>", CE | {"Content-Type": "application/xml"}, "<a>[1]</a>"),
        (b"a,b", CE | {"ce-datacontenttype": "text/csv"}, "a,b"),
        ({**EV, "datacontenttype": "application/soap+xml", "data": "<x/>"}, None, "<x/>"),
        ({**EV, "datacontenttype": "TEXT/HTML", "data": "[1]"}, None, "[1]"),
        ({**EV, "datacontenttype": "text/plain", "data_base64": "eyJhIjoxfQ=="}, None, '{"a":1}'),
        ({**EV, "datacontenttype": "text/json", "data": '{"body":"b"}'}, None, "b"),
        ({**EV, "specversion": "0.3", "datacontentencoding": "BASE64", "datacontenttype": "text/plain",
          "data": "aGVsbG8="}, None, "hello"),
    ],
)  # fmt: skip
def test_the_text_of_an_event(payload: Any, headers: dict[str, str] | None, body: str) -> None:
    """What its type says is text is the body as it came; JSON is JSON, also in text."""
    assert only("LOGS", payload, headers=headers)["body"] == body


@pytest.mark.parametrize("payload", [b"[]", b'{"msg":"m"}', b"plain", b"5"])
def test_text_on_the_stream_of_events_is_text(payload: bytes) -> None:
    """Its message, whatever it looks like."""
    row = only("EVENTS", payload, headers=CE | {"content-type": "text/plain"})
    assert (row["short_message"], row["raw_data"]) == (payload.decode(), payload.decode())


def test_nothing_of_an_envelope_in_headers_is_lost() -> None:
    """Extensions, schema and time are in raw_data beside the data, and with records of other streams."""
    headers = CE | {
        "ce-time": "2026-01-02T00:00:00Z", "ce-dataschema": "https://example.com/s", "ce-tenant": "acme",
        "ce-traceparent": "00-5b8efff798038103d269b633813fc60c-eee19b7ec3c1b174-01",
    }  # fmt: skip
    envelope = {name.removeprefix("ce-"): value for name, value in headers.items()}
    row = only("EVENTS", "binary_mode_extensions.json", headers=headers)
    kept = json.loads(row["raw_data"])
    assert kept.pop("data") == json.loads((SAMPLES / "binary_mode_extensions.json").read_bytes())
    assert kept == envelope
    for name, record in (("TELEMETRY", {"value": 1}), ("SWEEP", {"host_ip": "h"}), ("NETFLOW", {"src_addr": "h"})):
        assert only(name, record, headers=headers)["metadata"]["cloudevent"] == envelope


@pytest.mark.parametrize(
    ("name", "record", "column"),
    [
        ("TELEMETRY", {"value": 1}, "metadata"),
        ("SWEEP", {"host_ip": "h"}, "metadata"),
        ("NETFLOW", {"src_addr": "h"}, "metadata"),
        ("LOGS", {"body": "x"}, "attributes"),
        ("OTEL_TRACES", {"name": "x"}, "attributes"),
        ("OTEL_METRICS", {"span_name": "x"}, "attributes"),
    ],
)
@pytest.mark.parametrize("kept", [{}, {"metadata": {"cloudevent": 2}, "attributes": {"cloudevent": 2}}])
def test_an_envelope_displaces_nothing(name: str, record: dict[str, Any], column: str, kept: dict[str, Any]) -> None:
    """A record may have a key of that name, and its metadata another."""
    found = only(name, {**record, **kept, "cloudevent": "its own"}, headers=CE)[column]
    values = [found[key] for key in found if key.endswith("cloudevent")]
    assert "its own" in values
    assert {name.removeprefix("ce-"): value for name, value in CE.items()} in values
    assert not kept or 2 in values


# --- limits, headers --------------------------------------------------------------------------------------------


def test_a_message_with_millions_of_elements_is_one_reject() -> None:
    """And so is what is no JSON, whatever its headers."""
    stream = STREAMS["LOGS"]
    message = Message("logs.x", (SAMPLES / "many_elements.json.gz").read_bytes(), 1, 1)
    assert rejects(check_decoded(stream, stream.decode(message))) == [("too_large", None)]
    found = decoded("EVENTS", "header_text_u0000.json", headers={"X-Path": "C:\\u0000dir"})
    assert rejects(found) == [("malformed", None)]


# --- OpenTelemetry ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        ("grpc_metric_without_name.json", "unknown"),
        ({"http_route": "/a"}, "unknown"),
        ({"value": 5}, "unknown"),
        ({"metric_name": "m", "count": 2}, "m"),
    ],
)
def test_flat_metrics_without_a_name(payload: Any, name: str) -> None:
    """Whatever a call or a value tells of is a row."""
    assert only("OTEL_METRICS", payload)["span_name"] == name


@pytest.mark.parametrize(
    "payload",
    [
        "base64_ids.json",
        {"name": "op", "traceId": "W47/95gDgQPSabYzgT/GDA==", "spanId": "7uGbfsPBsXQ="},
        {"name": "op", "traceId": "W47_95gDgQPSabYzgT_GDA==", "spanId": "7uGbfsPBsXQ="},
        {"name": "op", "traceId": "W47_95gDgQPSabYzgT_GDA", "spanId": "7uGbfsPBsXQ"},
        {"resourceSpans": [{"scopeSpans": [{"spans": [
            {"name": "op", "traceId": "W47/95gDgQPSabYzgT/GDA", "spanId": "7uGbfsPBsXQ"}]}]}]},
    ],
)  # fmt: skip
def test_ids_in_base64_are_ids(payload: Any) -> None:
    """Which is counted; padded or not, in either alphabet, as readers of protobuf's JSON take bytes."""
    found = decoded("OTEL_TRACES", payload)
    (row,) = rows("OTEL_TRACES", found)
    assert (row["trace_id"], row["span_id"]) == ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174")
    assert found.repairs == ["bad_id", "bad_id"]


@pytest.mark.parametrize("name", ["LOGS", "OTEL_TRACES", "OTEL_METRICS"])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c"),
        ("ABC", "abc"),
        ("ABCDEF0123ABCDEF012345", "abcdef0123abcdef012345"),  # as long as base64, and yet hexadecimal
        ("W47/95gDgQPSabYzgT/G", "W47/95gDgQPSabYzgT/G"),
        ("Order-17", "Order-17"),
        ("Ü", "Ü"),
        ("0" * 32, ""),
    ],
)
def test_only_hexadecimal_ids_are_written_in_lower_case(name: str, text: str, expected: str) -> None:
    """Any other text would lose by it. In flat records; of OTLP, whose ids are bytes, no other text is one."""
    usual = {"LOGS": {"body": "x"}, "OTEL_TRACES": {"name": "op"}, "OTEL_METRICS": {"span_name": "op"}}[name]
    assert only(name, usual | {"trace_id": text})["trace_id"] == expected


# --- the index of a bad record ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("form", ["alone", "array", "event", "headers", "padded"])
def test_a_single_bad_record_has_the_index_0(name: str, form: str) -> None:
    """In every wrapping: the record is bad, not its message."""
    bad = {"timestamp": "tomorrow", "time": "tomorrow"}
    payload = {
        "array": json.dumps([bad]), "event": json.dumps({**EV, "data": bad}), "padded": f" \n{json.dumps(bad)}"
    }.get(form, json.dumps(bad))  # fmt: skip
    found = decoded(name, payload.encode(), headers=CE if form == "headers" else None)
    if name == "EVENTS" and form in ("event", "headers"):  # it has another time
        assert len(found.rows) == 1
    else:
        assert [index for _, index in rejects(found)] == [0]
