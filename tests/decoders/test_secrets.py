"""The community of SNMP is a password: no row shows it, whatever way it came."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from checks import decode_checked
from compression import gz
from eventwriter import registry
from eventwriter.masking import community
from eventwriter.stream import Message
from patience import PATIENCE

DECLARED = registry.load()
RECORDS: dict[str, dict[str, Any]] = {
    "TELEMETRY": {"timestamp": "2025-12-12T10:30:00Z", "gateway_id": "g", "metric_name": "m", "value": 1,
                  "metadata": {"community": "hush", "tags": [{"snmp_community": "hush"}]},
                  "tags": {"Community": "hush"}},
    "SWEEP": {"host_ip": "10.0.0.1", "gateway_id": "g", "last_sweep_time": "2025-12-12T10:30:00Z",
              "metadata": {"community": "hush"}},
    "NETFLOW": {"src_addr": "10.0.0.1", "community": "hush"},
    "LOGS": {"source": "10.20.0.2:50314", "version": "V2C", "community": "hush",
             "varbinds": [{"oid": "1.3.6.1.2.1.1.3.0", "value": "OCTET STRING: down"}]},
    "EVENTS": {"source": "10.20.0.2:50314", "version": "V2C", "community": "hush", "varbinds": []},
    "OTEL_TRACES": {"name": "n", "attributes": {"community": "hush"}},
    "OTEL_METRICS": {"name": "n", "community": "hush"},
}  # fmt: skip
EVENT = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}


def forms(record: dict[str, Any]) -> dict[str, bytes]:
    """A record in every wrapping."""
    text = json.dumps(record)
    return {
        "alone": text.encode(),
        "compact": json.dumps(record, separators=(",", ":")).encode(),
        "array": f"[{text}, {text}]".encode(),
        "compressed": gz(text.encode()),
        "event": json.dumps({**EVENT, "data": record}).encode(),
        "event with text": json.dumps({**EVENT, "data": text}).encode(),
    }


@pytest.mark.parametrize("name", DECLARED)
def test_no_row_has_it(name: str) -> None:
    """All else of the record is there; by the fast path too."""
    stream = DECLARED[name]
    subject = stream.subjects[0].replace(">", "snmp")
    for form, payload in forms(RECORDS[name]).items():
        message = Message(subject, payload, 1, 1_765_535_400_000_000_000)
        decoded = decode_checked(stream, message)
        assert len(decoded.rows) == (2 if form == "array" else 1), form
        rows = [*decoded.rows]
        if stream.fast is not None and (row := stream.fast([message])[0]) is not None:
            rows.append(row)
        for row in rows:
            assert "hush" not in repr(row), form
            assert "***" in repr(row), form


def test_the_fast_path_has_it_masked() -> None:
    """Of measurements, of logs as rule engines write them, of GELF."""
    log = {"timestamp": 1_765_535_400_000_000_000, "body": "b", "severity_text": "INFO", "severity_number": 9,
           "attributes": {"community": "hush"}, "resource": {"service.name": "s", "community": "hush"}}  # fmt: skip
    gelf = {**EVENT, "data": {"version": "1.1", "short_message": "m", "timestamp": 1765535400.5, "community": "hush"}}
    for name, record in (("TELEMETRY", RECORDS["TELEMETRY"]), ("LOGS", log), ("EVENTS", gelf)):
        stream = DECLARED[name]
        message = Message(
            stream.subjects[0].replace(">", "x"),
            json.dumps(record, separators=(",", ":")).encode(),
            1,
            1_765_535_400_000_000_000,
        )
        assert stream.fast is not None
        (row,) = stream.fast([message])
        assert row is not None
        assert "hush" not in repr(row)
        assert row == stream.decode(message).rows[0]


def otlp(name: str, pairs: list[Any]) -> dict[str, Any]:
    """A request that has these attributes wherever OTLP has some."""
    scope, time = {"scope": {"name": "s", "attributes": pairs}}, "1765535400000000000"
    kvlist = {"kvlistValue": {"values": pairs}}
    if name == "LOGS":
        log = {"timeUnixNano": time, "attributes": pairs}
        logs = [
            log | {"body": {"stringValue": "b"}},
            log | {"body": kvlist},
            log | {"body": {"arrayValue": {"values": [kvlist]}}},
        ]
        return {"resourceLogs": [{"resource": {"attributes": pairs}, "scopeLogs": [scope | {"logRecords": logs}]}]}
    if name == "OTEL_TRACES":
        part: dict[str, Any] = {"attributes": pairs}
        span = {
            "traceId": "1" * 32,
            "spanId": "1" * 16,
            "name": "n",
            "startTimeUnixNano": time,
            "endTimeUnixNano": time,
        }
        span |= part | {"events": [part | {"name": "e"}], "links": [part | {"traceId": "1" * 32, "spanId": "1" * 16}]}
        return {"resourceSpans": [{"resource": part, "scopeSpans": [scope | {"spans": [span]}]}]}
    point = {"timeUnixNano": time, "asDouble": 1.0, "attributes": pairs}
    points = [point, point | {"exemplars": [{"timeUnixNano": time, "asDouble": 1.0, "filteredAttributes": pairs}]}]
    metrics = [{"name": "m", "gauge": {"dataPoints": points}}]
    return {"resourceMetrics": [{"resource": {"attributes": pairs}, "scopeMetrics": [scope | {"metrics": metrics}]}]}


@pytest.mark.parametrize("form", ["json", "protobuf", "compressed"])
@pytest.mark.parametrize("name", ["LOGS", "OTEL_TRACES", "OTEL_METRICS"])
def test_no_attribute_of_otlp_has_it(name: str, form: str) -> None:
    """Of resources, scopes, records, events, links and exemplars, as a text, in a list of pairs, in JSON in a text."""

    def pair(key: str, value: str) -> dict[str, Any]:
        return {"key": key, "value": {"stringValue": value}}

    pairs = [pair("community", "hush"), pair("SNMP.Community", "hush"), pair("json", '{"community": "hush"}'),
             {"key": "m", "value": {"kvlistValue": {"values": [pair("snmp_community", "hush")]}}}]  # fmt: skip
    request = {"LOGS": ExportLogsServiceRequest, "OTEL_TRACES": ExportTraceServiceRequest,
               "OTEL_METRICS": ExportMetricsServiceRequest}[name]()  # fmt: skip
    document = otlp(name, pairs)
    payload = json.dumps(document).encode()
    if form != "json":
        payload = json_format.ParseDict(document, request).SerializeToString()
    stream = DECLARED[name]
    message = Message(stream.subjects[0].replace(">", "x"), gz(payload) if form == "compressed" else payload, 1, 1)
    decoded = decode_checked(stream, message)
    assert decoded.rows
    assert not decoded.rejects
    assert "hush" not in repr(decoded.rows)
    assert repr(decoded.rows).count("***") >= 12


@pytest.mark.parametrize("name", ["_community", "SNMP_COMMUNITY", "_snmp.Community", "community"])
def test_no_way_to_write_its_name_shows_it(name: str) -> None:
    """As GELF has fields of its own, as environments have names; nor where it is a number."""
    for value in ("hush", 4711, -4.7e11):
        for text in (json.dumps({name: value}), json.dumps({"a": json.dumps({name: value})})):
            message = Message("logs.x", b'{"message":"m","x":' + text.encode() + b"}", 1, 1)
            (row,) = decode_checked(DECLARED["LOGS"], message).rows
            assert "hush" not in repr(row)
            assert "47" not in repr(row)
            (held,) = (json.loads(each) for each in row if isinstance(each, bytes) and b"***" in each)
            assert held["x"].get(name, "***") == "***"


@pytest.mark.parametrize("value", ['hu"sh', "hush\\", 'hu\\"sh', '\\\\"sh', '"', "é\\u0022sh"])
def test_whatever_is_in_it_all_of_it_is_masked(value: str) -> None:
    """Also in JSON that is text, or text of text: and that still is JSON."""
    text, within = json.dumps({"community": value, "kept": 1}), list[str]()
    for _ in range(4):
        message = Message("logs.x", json.dumps({"message": "m", "x": text, "z": 1}).encode(), 1, 1)
        row = decode_checked(DECLARED["LOGS"], message).rows[0]
        (held,) = (json.loads(each) for each in row if isinstance(each, bytes) and b"***" in each)
        inner = held["x"]
        for name in within:
            inner = json.loads(inner)[name]
        assert (json.loads(inner), held["z"]) == ({"community": "***", "kept": 1}, 1)
        text = json.dumps({"in": text})
        within.append("in")


def _never_closed(longest: int, tail: int) -> bytes:
    """Communities in quotation marks of ever less backslashes, none of which ends another one."""
    runs = ("\\" * count for count in range(longest, 0, -1))
    return ("".join(f'{run}"community{run}":{run}"' for run in runs) + "x" * tail).encode()


@pytest.mark.parametrize(
    "text",
    [
        _never_closed(100, 400_000),
        b"ommunity " * 100_000,
        b'"community":[' + _never_closed(100, 400_000),
        b'"community":' + b"\\" * 1_000_000,
        b'\\"community\\":\\"' * 50_000,
        b"community\x12" + b"\xff" * 200_000,
    ],
    ids=["never closed", "words", "in an array", "backslashes", "many", "a length without end"],
)
def test_to_look_for_it_takes_no_time(text: bytes) -> None:
    """However it is written: the time is that of going through it a few times."""
    payload = json.dumps({"body": "b", "k": text.decode("latin-1")}).encode()
    begin = time.process_time()
    decode_checked(DECLARED["LOGS"], Message("logs.x", payload, 1, 1))
    community.hidden(text)
    assert time.process_time() - begin < 2 * PATIENCE


@pytest.mark.parametrize("name", ["communities", "bgp_community", "community_id"])
def test_other_names_are_no_secrets(name: str) -> None:
    """They are kept as they are, and so is the word as a value."""
    record = {"body": "b", name: "shown", "x": "community"}
    message = Message("logs.x", json.dumps(record).encode(), 1, 1)
    row = decode_checked(DECLARED["LOGS"], message).rows[0]
    assert json.dumps({name: "shown", "x": "community"}, separators=(",", ":")).encode() in row


def test_a_body_that_is_an_object_shows_none() -> None:
    """Nor does one with an object in an array, or an address of where it is from."""
    for body in ({"community": "hush"}, [{"snmp-community": "hush"}]):
        row = decode_checked(DECLARED["LOGS"], Message("logs.x", json.dumps({"body": body}).encode(), 1, 1)).rows[0]
        assert "hush" not in repr(row)
        assert "***" in repr(row)


def test_in_base64_it_is_masked_where_it_is_opened() -> None:
    """In the rows of all streams that open a CloudEvent."""
    data = base64.b64encode(json.dumps(RECORDS["LOGS"]).encode()).decode()
    message = Message("logs.x", json.dumps({**EVENT, "data_base64": data}).encode(), 1, 1)
    assert "hush" not in repr(decode_checked(DECLARED["LOGS"], message).rows)


@pytest.mark.parametrize(
    ("values", "body"),
    [
        ([5, "TIMETICKS: 981230", "OCTET STRING: eth0"], "981230"),
        (["OCTET STRING: link down: port 3"], "link down: port 3"),
        (["Interface: down"], "Interface: down"),
        (["", " ", "IP ADDRESS: 10.0.0.1"], "10.0.0.1"),
        (["OCTET STRING:"], "OCTET STRING:"),
        ([5, None], '[{"oid":"1","value":5},{"oid":"1","value":null}]'),
    ],
)
def test_the_body_of_a_trap_is_its_first_text(values: list[Any], body: str) -> None:
    """Without its type; all bindings stay among the attributes. A body of its own comes first."""
    bindings = [{"oid": "1", "value": value} for value in values]
    for record, expected in (({"varbinds": bindings}, body), ({"varbinds": bindings, "message": "own"}, "own")):
        message = Message("logs.snmp", json.dumps(record).encode(), 1, 1)
        stream = DECLARED["LOGS"]
        row = dict(zip((c.name for c in stream.columns), decode_checked(stream, message).rows[0], strict=True))
        assert row["body"] == expected
        assert json.loads(row["attributes"])["varbinds"] == bindings
