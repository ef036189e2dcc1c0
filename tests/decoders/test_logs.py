"""LOGS: every encoding becomes the rows that its contract describes."""

from __future__ import annotations

import base64
import json
from time import process_time
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from checks import decode_checked
from eventwriter.stream import Decoded
from profiles import examples
from strategies_otlp import NOW_MICROS, as_dict, attribute_text, hex_id, message, pairs, plain, requests, text, time
from workers._otlp.severity import BANDS, number_of, says_nothing
from workers.logs import STREAM

MOMENT = 818_850_600_123_456
"""2025-12-12T10:30:00.123456Z"""
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in STREAM.columns) | {
    "timestamp": NOW_MICROS,
    "observed_timestamp": NOW_MICROS,
    "trace_id": "",
    "span_id": "",
    "service_name": "unknown",
    "attributes": b"{}",
    "resource_attributes": b"{}",
    "source": "otel",
}
"""The row of a record that says nothing, on the subject logs.otel."""
UNSET = {"trace_flags": 0, "flags": 0, "dropped_attributes_count": 0}
"""What protobuf does not tell from absent."""


def decode(payload: bytes | Any, subject: str = "logs.otel", headers: dict[str, str] | None = None) -> Decoded:
    """Decodes, and checks what holds of every result."""
    octets = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return decode_checked(STREAM, message(octets, subject, headers))


def rows(payload: bytes | Any, subject: str = "logs.otel") -> list[dict[str, Any]]:
    """The rows of a payload, none of which is rejected."""
    decoded = decode(payload, subject)
    assert not decoded.rejects
    return [as_dict(STREAM.columns, row) for row in decoded.rows]


def record(**fields: Any) -> bytes:
    """An OTLP request with one record."""
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.append(LogRecord(**fields))
    return request.SerializeToString()


# --- samples ---


def test_sample_protobuf() -> None:
    """The sample request of the contract, column by column."""
    payload = base64.b64decode(
        "Co0BChwKGgoMc2VydmljZS5uYW1lEgoKCGNoZWNrb3V0Em0KBQoDbGliEmQJFV28mhdxgBgQERoFRVJST1IqDwoNY2hhcmdlIGZhaWxlZDIL"
        "CgVyZXRyeRICEAAyDQoHYXR0ZW1wdBICGABKEFuO//eYA4ED0mm2M4E/xgxSCO7hm37DwbF0WQBSTJ8XcYAY"
    )
    assert rows(payload) == [
        EMPTY | UNSET | {
            "timestamp": MOMENT, "observed_timestamp": 818_850_600_200_000, "trace_id": TRACE, "span_id": SPAN,
            "severity_text": "ERROR", "severity_number": 17, "body": "charge failed", "service_name": "checkout",
            "scope_name": "lib", "attributes": b'{"retry":false,"attempt":0}',
            "resource_attributes": b'{"service.name":"checkout"}',
        }
    ]  # fmt: skip


def test_V9_sample_without_resource_and_time() -> None:
    """A group without resource has records like any other; the observed time stands in for the time."""
    payload = bytes.fromhex("0a25122312212a160a146e6f207265736f757263652c206e6f2074696d655900524c9f17718018")
    assert rows(payload) == [
        EMPTY | UNSET | {"timestamp": 818_850_600_200_000, "observed_timestamp": 818_850_600_200_000,
                         "body": "no resource, no time"}
    ]  # fmt: skip


def test_L4_sample_otlp_json() -> None:
    """Observed time, flags, event name, scope attributes and a structured body arrive."""
    payload = (
        b'{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"checkout"}}]},'
        b'"scopeLogs":[{"scope":{"name":"lib","attributes":[{"key":"team","value":{"stringValue":"pay"}}]},"logRecords":'
        b'[{"timeUnixNano":"1765535400123456789","observedTimeUnixNano":"1765535400200000000","severityNumber":17,'
        b'"severityText":"ERROR","body":{"kvlistValue":{"values":[{"key":"code","value":{"intValue":"0"}}]}},'
        b'"attributes":[{"key":"ok","value":{"boolValue":false}}],"flags":1,"eventName":"charge",'
        b'"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174"}]}]}]}'
    )
    assert rows(payload) == [
        EMPTY | UNSET | {
            "timestamp": MOMENT, "observed_timestamp": 818_850_600_200_000, "trace_id": TRACE, "span_id": SPAN,
            "trace_flags": 1, "flags": 1, "severity_text": "ERROR", "severity_number": 17, "body": '{"code":0}',
            "event_name": "charge", "service_name": "checkout", "scope_name": "lib",
            "scope_attributes": b'{"team":"pay"}', "attributes": b'{"ok":false}',
            "resource_attributes": b'{"service.name":"checkout"}', "data": b'{"body":{"code":0}}',
        }
    ]  # fmt: skip


def test_sample_flat_object() -> None:
    """The flat form of the rule engine."""
    payload = (
        b'{"timestamp":1765535400123456789,"severity_number":9,"severity_text":"INFO","resource":{"service.name":"cart"},'
        b'"scope":"lib","body":"cart loaded","attributes":{"items":0,"cached":false}}'
    )
    assert rows(payload) == [
        EMPTY | {
            "timestamp": MOMENT, "severity_number": 9, "severity_text": "INFO", "service_name": "cart",
            "scope_name": "lib", "body": "cart loaded", "attributes": b'{"items":0,"cached":false}',
            "resource_attributes": b'{"service.name":"cart"}',
        }
    ]  # fmt: skip


def test_L1_sample_array_of_records_in_one_microsecond() -> None:
    """Records without trace context that share a microsecond are rows of their own."""
    payload = (
        b'[{"timestamp":1765535400123456789,"severity_number":9,"severity_text":"INFO","body":"first","resource":{},'
        b'"scope":"lib","attributes":{}},{"timestamp":1765535400123456900,"severity_number":9,"severity_text":"INFO",'
        b'"body":"second, same microsecond, no trace","resource":{},"scope":"lib","attributes":{}}]'
    )
    shared = EMPTY | {"timestamp": MOMENT, "severity_number": 9, "severity_text": "INFO", "scope_name": "lib"}
    assert rows(payload) == [
        shared | {"body": "first"},
        shared | {"body": "second, same microsecond, no trace"},
    ]
    assert STREAM.key == ()


def test_V2_sample_gelf() -> None:
    """GELF: fractional seconds are exact, the level becomes a severity, every extra field is kept."""
    payload = (
        b'{"version":"1.1","host":"web-3","short_message":"GET /health 200","full_message":"GET /health 200 1ms",'
        b'"timestamp":1765535400.987654,"level":6,"application_name":"nginx","process_id":"77","severity":"Unknown",'
        b'"_remote_addr":"default:10.20.0.77"}'
    )
    (row,) = rows(payload, "logs.syslog.processed")
    attributes = orjson.loads(row.pop("attributes"))
    assert attributes == {
        "version": "1.1", "host": "web-3", "full_message": "GET /health 200 1ms", "level": 6, "process_id": "77",
        "_remote_addr": "default:10.20.0.77", "severity": "Unknown",
    }  # fmt: skip
    expected = EMPTY | {
        "timestamp": 818_850_600_987_654, "severity_text": "INFO", "severity_number": 9, "body": "GET /health 200",
        "service_name": "nginx", "resource_attributes": b'{"host":"web-3"}', "source": "syslog",
    }  # fmt: skip
    del expected["attributes"]
    assert row == expected


def test_L6_sample_trap() -> None:
    """A trap's first binding that is text is its body; source and all bindings are kept, the community is masked."""
    payload = (
        b'{"source":"10.20.0.2:50314","version":"V2C","community":"public","severity":"Unknown",'
        b'"varbinds":[{"oid":"1.3.6.1.2.1.1.3.0","value":"TIMETICKS: 981230"}]}'
    )
    (row,) = rows(payload, "logs.snmp")
    bindings = [{"oid": "1.3.6.1.2.1.1.3.0", "value": "TIMETICKS: 981230"}]
    assert orjson.loads(row.pop("attributes")) == {
        "version": "V2C", "community": "***", "source": "10.20.0.2:50314", "varbinds": bindings
    }  # fmt: skip
    expected = EMPTY | {
        "body": "981230", "severity_text": "Unknown", "source": "snmp",
        "resource_attributes": b'{"source":"10.20.0.2:50314"}',
    }  # fmt: skip
    del expected["attributes"]
    assert row == expected


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ("OCTET STRING: %LINEPROTO-5-UPDOWN: Gi0/1, changed state to DOWN: admin",
         "%LINEPROTO-5-UPDOWN: Gi0/1, changed state to DOWN: admin"),
        ("OCTET STRING: ALARM: FAN 2: failed", "ALARM: FAN 2: failed"),
        ("  OCTET STRING:  eth0 ", "eth0"),
        ("disk C: full, STATE: CRITICAL", "disk C: full, STATE: CRITICAL"),
        ("ALARM: FAN 2: failed", "ALARM: FAN 2: failed"),
        ("OBJECT IDENTIFIER: 1.3.6.1.6.3.1.1.5.3", "1.3.6.1.6.3.1.1.5.3"),
        ("IP ADDRESS: 10.0.0.1", "10.0.0.1"), ("COUNTER64: 7", "7"), ("OPAQUE: [1, 2]", "[1, 2]"), ("NULL", "NULL"),
        ("INTEGER:", "INTEGER:"),
    ],
)  # fmt: skip
def test_the_body_of_a_trap_lacks_its_type_alone(value: str, body: str) -> None:
    """What looks like one within the text, or is none that SNMP has, stays."""
    payload = orjson.dumps({"varbinds": [{"oid": "1", "value": value}]})
    (row,) = rows(payload, "logs.snmp")
    assert row["body"] == body


def test_a_long_value_of_a_trap_takes_no_longer_than_it_is_long() -> None:
    """A megabyte took 40 minutes when each letter was a place to look for a type."""
    for value in ("A" * 10**6, " " * 10**6 + "x", "A " * 500_000):
        begun = process_time()
        (row,) = rows(orjson.dumps({"varbinds": [{"oid": "1", "value": value}]}), "logs.snmp")
        assert process_time() - begun < 5
        assert row["body"] == value.strip()


def test_sample_internal() -> None:
    """The product's own logs: text times, a severity by name, its subject as source."""
    payload = (
        b'{"time":"2026-02-10T08:00:00.000001Z","timestamp":"2026-02-10T08:00:00.000001Z",'
        b'"service_name":"serviceradar.core","severity":"Informational",'
        b'"message":"job finished","log_name":"jobs.sweep"}'
    )
    assert rows(payload, "logs.internal.jobs") == [
        EMPTY | {
            "timestamp": 824_025_600_000_001, "severity_text": "Informational", "severity_number": 9,
            "body": "job finished", "service_name": "serviceradar.core", "source": "internal",
            "attributes": b'{"time":"2026-02-10T08:00:00.000001Z","log_name":"jobs.sweep"}',
        }
    ]  # fmt: skip


def test_L7_sample_cloudevent() -> None:
    """A CloudEvent is unwrapped; what it says about the record is kept beside its attributes."""
    payload = (
        b'{"specversion":"1.0","id":"77a0d1a0-3bb4-4b0c-8dc2-6d4b5a5b2a10","source":"nats://events/events.otel.logs",'
        b'"type":"passthrough","datacontenttype":"application/json","data":{"timestamp":1765535400123456789,'
        b'"severity_number":13,"severity_text":"WARN","body":"slow disk","resource":{"service.name":"db"},"scope":"",'
        b'"attributes":{}}}'
    )
    (row,) = rows(payload, "events.otel.logs")
    assert orjson.loads(row.pop("attributes")) == {
        "cloudevent": {
            "specversion": "1.0", "id": "77a0d1a0-3bb4-4b0c-8dc2-6d4b5a5b2a10",
            "source": "nats://events/events.otel.logs", "type": "passthrough", "datacontenttype": "application/json",
        }
    }  # fmt: skip
    expected = EMPTY | {
        "timestamp": MOMENT, "severity_number": 13, "severity_text": "WARN", "body": "slow disk",
        "service_name": "db", "scope_name": "", "resource_attributes": b'{"service.name":"db"}',
    }  # fmt: skip
    del expected["attributes"]
    assert row == expected


# --- times ---


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("timestamp", 1765535400123456789, MOMENT),
        ("timestamp", "1765535400123456789", MOMENT),
        ("timestamp", 1765535400123456, MOMENT),
        ("timestamp", 1765535400123, 818_850_600_123_000),
        ("timestamp", 1765535400, 818_850_600_000_000),
        ("timestamp", 1765535400.123456, MOMENT),
        ("timestamp", "1765535400.123456", MOMENT),
        ("timestamp", "2025-12-12T10:30:00.123456789Z", MOMENT),
        ("timestamp", "2025-12-12T12:30:00.123456+02:00", MOMENT),
        ("timestamp", "2025-12-12T10:30:00.123456", MOMENT),
        ("timeUnixNano", "1765535400123456789", MOMENT),
        ("time_unix_nano", 1000, 1 - 946_684_800_000_000),
        ("@timestamp", "2025-12-12T10:30:00.123456Z", MOMENT),
        ("ts", 1765535400.123456, MOMENT),
        ("time", "2025-12-12T10:30:00.123456Z", MOMENT),
    ],
)
def test_V1_times_of_every_form(key: str, value: Any, expected: int) -> None:
    """Whole nanoseconds, microseconds, milliseconds, seconds and text: to the microsecond."""
    (row,) = rows({key: value, "body": "x"})
    assert (row["timestamp"], row["attributes"]) == (expected, b"{}")


def test_V3_microseconds_are_not_milliseconds() -> None:
    """An integer of 16 digits counts microseconds, in a record and in an envelope."""
    assert rows({"ts": 1765535400123456, "body": "x"})[0]["timestamp"] == MOMENT
    event = {"specversion": "1.0", "id": "i", "source": "s", "type": "t", "time": 1765535400123456}
    assert rows({**event, "data": {"body": "x"}})[0]["timestamp"] == MOMENT


@pytest.mark.parametrize("zero", [0, "0", 0.0, None, "", "0001-01-01T00:00:00Z"])
def test_V4_time_zero_is_no_time(zero: Any) -> None:
    """Zero means absent: the observed time stands in, then the message's."""
    (row,) = rows({"timestamp": zero, "observed_time_unix_nano": "1765535400123456789"})
    assert (row["timestamp"], row["observed_timestamp"]) == (MOMENT, MOMENT)
    (row,) = rows({"timestamp": zero, "observed_timestamp": zero, "body": ""})
    assert (row["timestamp"], row["observed_timestamp"]) == (NOW_MICROS, NOW_MICROS)
    (row,) = rows(record(observed_time_unix_nano=1765535400123456789))
    assert (row["timestamp"], row["observed_timestamp"]) == (MOMENT, MOMENT)
    (row,) = rows(record(event_name="e"))
    assert (row["timestamp"], row["observed_timestamp"]) == (NOW_MICROS, NOW_MICROS)


@pytest.mark.parametrize("bad", ["yesterday", True, [], {}, 10**40, 2**63, "2025-13-45T00:00:00Z"])
def test_a_time_that_is_none_rejects_a_flat_record(bad: Any) -> None:
    """A record that says a time which cannot be understood is a dead letter, not a row at another time."""
    assert [reject.reason for reject in decode({"timestamp": bad, "body": "x"}).rejects] == ["bad_time"]


def test_an_observed_time_that_is_none_is_kept() -> None:
    """The observed time may be missing, so a bad one costs no record."""
    decoded = decode({"observed_timestamp": "eventually", "body": "x"})
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert row["observed_timestamp"] == NOW_MICROS
    assert orjson.loads(row["attributes"]) == {"observed_timestamp": "eventually"}
    assert decoded.repairs == ["bad_time"]


def test_otlp_times_beyond_int64_are_kept() -> None:
    """An OTLP record with an impossible time is a row at its observed or the message's time."""
    decoded = decode(record(time_unix_nano=2**64 - 1, observed_time_unix_nano=2**63))
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["timestamp"], row["observed_timestamp"]) == (NOW_MICROS, NOW_MICROS)
    assert orjson.loads(row["attributes"]) == {
        "time_unix_nano": str(2**64 - 1), "observed_time_unix_nano": str(2**63)
    }  # fmt: skip
    assert decoded.repairs == ["bad_time", "bad_time"]


# --- severity ---


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"severity_number": 1, "severity_text": "TRACE"}, ("TRACE", 1)),
        ({"severity_text": "TRACE"}, ("TRACE", 1)),
        ({"severity_text": "whatever"}, ("whatever", None)),
        ({"severity_number": 18}, ("ERROR", 18)),
        ({"severity_number": "18"}, ("ERROR", 18)),
        ({"severity_number": 0, "severity_text": "warning"}, ("warning", 13)),
        ({"severity_number": 30}, (None, 30)),
        ({"level": "error"}, ("error", 17)),
        ({"level": "notice", "severity": "x"}, ("notice", 10)),
        ({"level": 3}, ("ERROR", 17)),
        ({"level": "3"}, ("ERROR", 17)),
        ({"level": 30}, (None, None)),
        ({"level": 3.0}, ("ERROR", 17)),
        ({"level": 0.0}, ("FATAL", 24)),
        ({"level": 3.5}, (None, None)),
        ({"level": True}, (None, None)),
        ({"level": 4, "severity": "critical"}, ("critical", 21)),
        ({"level": 6, "severity_text": "ERROR"}, ("ERROR", 17)),
        ({"level": "7", "severity": "alert"}, ("alert", 23)),
        ({"level": 4, "severity": "critical", "severity_number": 9}, ("critical", 9)),
        ({"level": 3, "severity": "Unknown"}, ("ERROR", 17)),
        ({"level": 5, "severity_text": ""}, ("INFO", 10)),
        ({"level": 3.0, "severity_text": "UNKNOWN"}, ("ERROR", 17)),
        ({"level": 3, "severity": "whatever"}, ("whatever", 17)),
        ({"severity_number": 9, "severity_text": ""}, ("INFO", 9)),
        ({"severity_number": 9, "severity_text": "Unknown"}, ("INFO", 9)),
        ({"severity_text": "Unknown", "level": "info"}, ("info", 9)),
        ({"severity_text": "Unknown", "severity": "High"}, ("High", 17)),
        ({"severity_text": "", "severity": "High"}, ("High", 17)),
        ({"severity_number": 0, "severity_text": "", "level": 3}, ("ERROR", 17)),
        ({"severity_text": "Unknown"}, ("Unknown", None)),
        ({"severity_text": "Unknown", "severity_number": "abc"}, ("Unknown", None)),
        ({"severity_text": "Unknown", "severity_number": "SEVERITY_NUMBER_UNSPECIFIED"}, ("Unknown", None)),
        ({"severity_text": "Unknown", "severity_number": "SEVERITY_NUMBER_WARN2"}, ("WARN", 14)),
        ({"severity_text": ""}, (None, None)),
        ({"severity": "Very High"}, ("Very High", 21)),
        ({"severityText": "INFO2"}, ("INFO2", 10)),
        ({}, (None, None)),
    ],
)
def test_L5_severity_is_never_rewritten(fields: dict[str, Any], expected: tuple[Any, Any]) -> None:
    """What the source supplied stays; only what is missing is derived, and an unknown word derives nothing."""
    (row,) = rows({"body": "x", **fields})
    assert (row["severity_text"], row["severity_number"]) == expected


@pytest.mark.parametrize(("level", "number"), [*enumerate([24, 23, 21, 17, 13, 10, 9, 5])])
def test_gelf_levels(level: int, number: int) -> None:
    """Syslog's levels become the base numbers of OpenTelemetry."""
    (row,) = rows({"version": "1.1", "short_message": "x", "level": level})
    assert row["severity_number"] == number
    assert orjson.loads(row["attributes"])["level"] == level


def test_L3_severity_number_of_protobuf() -> None:
    """The enum arrives as its number; unspecified is NULL; the text is derived if there is none."""
    (row,) = rows(record(severity_number=18))
    assert (row["severity_text"], row["severity_number"]) == ("ERROR", 18)
    (row,) = rows(record(severity_number=0, severity_text="odd"))
    assert (row["severity_text"], row["severity_number"]) == ("odd", None)


@pytest.mark.parametrize("text", ["Unknown", " UNSPECIFIED", "-"])
def test_a_severity_that_says_nothing_makes_way_for_a_number(text: str) -> None:
    """In every encoding, and is kept; without a number it is all there is."""
    flat = {"timestamp": 1765535400123456789, "body": "b", "attributes": {}, "resource": {}, "severity_text": text}
    for payload in (record(severity_number=10, severity_text=text), {**flat, "severity_number": 10}):
        (row,) = rows(payload)
        assert (row["severity_text"], row["severity_number"]) == ("INFO", 10)
        assert json.loads(row["attributes"]) == {"severity_text": text}
    for payload in (record(severity_text=text), flat):
        (row,) = rows(payload)
        assert (row["severity_text"], row["severity_number"], json.loads(row["attributes"])) == (text, None, {})


@pytest.mark.parametrize("name", ["severity", "severity_text"])
def test_a_severity_that_says_nothing_is_kept(name: str) -> None:
    """Number and text come from the level."""
    (row,) = rows({"body": "link down", name: "Unknown", "level": 3})
    assert json.loads(row["attributes"]) == {"level": 3, name: "Unknown"}


@pytest.mark.parametrize("end", [b"\0", b"\n\0"])
def test_gelf_over_tcp_ends_in_one_nul_byte(end: bytes) -> None:
    """It is no fault; a second one is."""
    payload = b'{"version":"1.1","host":"h","short_message":"m","level":3.0}'
    assert rows(payload + end) == rows(payload)
    assert rows(b"[" + payload + b"]" + end) == rows(payload)
    assert [reject.reason for reject in STREAM.decode(message(payload + end + b"\0")).rejects] == ["malformed"]


def test_the_service_by_its_dotted_names() -> None:
    """As resource attributes are called; the column's own name comes first."""
    names = ("service_name", "service_version", "service_instance")
    dotted = {"service.name": "core", "service.version": "1.2", "service.instance.id": "a1"}
    (row,) = rows({"body": "x", **dotted})
    assert [row[name] for name in names] == ["core", "1.2", "a1"]
    assert json.loads(row["attributes"]) == {}
    (row,) = rows({"body": "x", "service_name": "own", **dotted})
    assert row["service_name"] == "own"


def test_the_service_of_the_resource_comes_before_the_application() -> None:
    """And that before the host; what is not the service is kept."""
    names: dict[str, Any] = {"application_name": "nginx", "app_name": "n", "host": "h"}
    (row,) = rows({"body": "x", **names, "resource": {"service.name": "cart"}})
    assert (row["service_name"], json.loads(row["attributes"])) == ("cart", names)
    (row,) = rows({"body": "x", **names, "resource": {"a": 1}})
    assert (row["service_name"], json.loads(row["attributes"])) == ("nginx", {"app_name": "n", "host": "h"})
    (row,) = rows({"body": "x", "app_name": "n", "host": "h"})
    assert (row["service_name"], json.loads(row["attributes"])) == ("n", {"host": "h"})
    (row,) = rows({"body": "x", "service.name": "core", "service": "s", "resource": {"service.name": "r"}})
    assert row["service_name"] == "core"


# --- bodies and the rest ---


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ("text", "text"),
        ("", ""),
        (5, "5"),
        (False, "false"),
        ({"a": [1]}, '{"a":[1]}'),
        ([], "[]"),
        ([104, 105, 9, 10, 33], "hi\t\n!"),
        ([104, 105, 10, 8364], "[104,105,10,8364]"),
        ([80, 443, 8080], "[80,443,8080]"),
        ([80, 127], "[80,127]"),
        ([233, 65], "[233,65]"),
        ([1, 2], "[1,2]"),
        (None, None),
    ],
)
def test_V6_bodies_of_every_type(given_: Any, expected: str | None) -> None:
    """A body that is no text is its JSON text; a list of character codes is a text."""
    (row,) = rows({"body": given_, "x": 1})
    assert row["body"] == expected


def test_V11_false_is_not_missing() -> None:
    """A name whose value is false, zero or empty wins over the names after it; only null does not."""
    for value, expected in ((False, "false"), (0, "0"), ("", "")):
        (row,) = rows({"body": value, "message": "m"})
        assert (row["body"], row["attributes"]) == (expected, b'{"message":"m"}')
    assert rows({"body": None, "message": "m"})[0]["body"] == "m"


def test_L8_requests_keep_their_trace_context() -> None:
    """What the rule engine drops from its copies is there in the original."""
    fields = {"trace_id": bytes.fromhex(TRACE), "span_id": bytes.fromhex(SPAN), "flags": 1}
    (row,) = rows(record(**fields, observed_time_unix_nano=1765535400123456789))
    assert (row["trace_id"], row["span_id"], row["trace_flags"]) == (TRACE, SPAN, 1)
    assert row["observed_timestamp"] == MOMENT


def test_bodies_by_precedence_of_their_names() -> None:
    """The first name that is not null wins; the others are attributes."""
    names = ["body", "message", "msg", "summary", "short_message", "event", "log"]
    (row,) = rows({name: name for name in reversed(names)})
    assert row["body"] == "body"
    assert orjson.loads(row["attributes"]) == {name: name for name in names[1:]}
    (row,) = rows({"body": None, "log": "l", "event": {"e": 1}})
    assert (row["body"], row["attributes"]) == ('{"e":1}', b'{"log":"l"}')


def test_L2_no_ids_are_invented() -> None:
    """A record without trace context has none."""
    (row,) = rows({"body": "x"})
    assert (row["trace_id"], row["span_id"]) == ("", "")


def test_V12_large_integers_are_exact() -> None:
    """Integers beyond 2**53 do not pass through a double."""
    (row,) = rows(b'{"body":"x","n":9007199254740993,"attributes":{"m":18446744073709551615}}')
    assert row["attributes"] == b'{"m":18446744073709551615,"n":9007199254740993}'


def test_V13_resources_and_attributes_as_text() -> None:
    """Text that holds JSON is taken as such; other text stays, as a JSON string."""
    (row,) = rows({"attributes": '{"a":1}', "resource_attributes": '{"service.name":"s"}', "b": 2})
    assert (row["service_name"], row["attributes"]) == ("s", b'{"a":1,"b":2}')
    (row,) = rows({"attributes": "a=1", "resource": "k=v"})
    assert (row["attributes"], row["resource_attributes"]) == (b'{"attributes":"a=1"}', b'"k=v"')


def test_later_flat_form_fills_every_column() -> None:
    """All names that later producers use."""
    (row,) = rows({
        "timestamp": 1765535400123456789, "observed_time_unix_nano": 1765535400123456789, "trace_id": TRACE.upper(),
        "span_id": SPAN, "trace_flags": 257, "severity_text": "INFO", "severity_number": 9, "body": "b",
        "event_name": "e", "service_name": "s", "service_version": "1", "service_instance_id": "i", "scope_name": "n",
        "scope_version": "v", "scope_attributes": {"a": 0}, "attributes": {"k": ""}, "dropped_attributes_count": 2,
        "resource_attributes": {"service.name": "other"}, "schema_url": "u", "source": "falco",
    })  # fmt: skip
    assert row == EMPTY | {
        "timestamp": MOMENT, "observed_timestamp": MOMENT, "trace_id": TRACE, "span_id": SPAN, "trace_flags": 1,
        "flags": 257, "severity_text": "INFO", "severity_number": 9, "body": "b", "event_name": "e",
        "service_name": "s", "service_version": "1", "service_instance": "i", "scope_name": "n", "scope_version": "v",
        "scope_attributes": b'{"a":0}', "attributes": b'{"k":""}', "dropped_attributes_count": 2,
        "resource_attributes": b'{"service.name":"other"}', "schema_url": "u", "source": "falco",
    }  # fmt: skip


def test_scope_as_object() -> None:
    """A scope may be an object; what it has besides is kept."""
    (row,) = rows({"scope": {"name": "n", "version": 2, "attributes": {"a": 0}, "kind": "k"}})
    assert (row["scope_name"], row["scope_version"], row["scope_attributes"]) == ("n", "2", b'{"a":0}')
    assert row["attributes"] == b'{"scope":{"kind":"k"}}'


def test_mistyped_values_are_kept_and_counted() -> None:
    """§12.9: numbers and text stand for each other; what makes no sense is NULL, kept, and counted."""
    decoded = decode({"body": "x", "flags": -1, "severity_number": "loud", "service_name": ["s"], "event_name": 5,
                      "trace_id": 7, "span_id": {}})  # fmt: skip
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["flags"], row["severity_number"], row["service_name"], row["event_name"]) == (
        None,
        None,
        "unknown",
        "5",
    )
    assert (row["trace_id"], row["span_id"]) == ("7", "")
    assert orjson.loads(row["attributes"]) == {
        "flags": -1, "severity_number": "loud", "service_name": ["s"], "span_id": {}
    }  # fmt: skip
    assert sorted(decoded.repairs) == ["bad_value", "bad_value", "bad_value", "out_of_range"]


def test_nothing_displaces_an_attribute() -> None:
    """A key that stands beside the attributes and among them is kept twice."""
    (row,) = rows({"body": "x", "attributes": {"k": 1, "record.k": 2}, "k": 3})
    assert orjson.loads(row["attributes"]) == {"k": 1, "record.k": 2, "record.record.k": 3}


def test_nul_and_lone_surrogates_are_replaced() -> None:
    """PostgreSQL takes neither."""
    decoded = decode(b'{"body":"a\\u0000b","k\\u0000":"\\ud800"}')
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert row["body"] == "a\ufffdb"
    assert orjson.loads(row["attributes"]) == {"k\ufffd": "\ufffd"}
    assert len(decoded.repairs) == 3
    decoded = decode(record(severity_text="a\0", event_name="b\0"))
    row = as_dict(STREAM.columns, decoded.rows[0])
    assert (row["severity_text"], row["event_name"]) == ("a\ufffd", "b\ufffd")
    assert len(decoded.repairs) == 2


@pytest.mark.parametrize(
    ("subject", "source"),
    [
        ("logs.otel", "otel"),
        ("logs.otel.processed", "otel"),
        ("logs.syslog", "syslog"),
        ("events.otel.logs", "otel"),
        ("logs.internal.health.processed", "internal"),
        ("acme.logs.snmp.processed", "snmp"),
        ("falco.logs.processed", "falco"),
        ("logs", None),
    ],
)
def test_source_by_subject(subject: str, source: str | None) -> None:
    """The subject says where a record came in."""
    assert rows({"body": "x"}, subject)[0]["source"] == source
    assert rows(record(event_name="e"), subject)[0]["source"] == source


@pytest.mark.parametrize("text", ["plain text", "[]", '{"a":1}', "\N{EURO SIGN}"])
def test_text_of_a_cloudevent_in_binary_mode_is_a_body(text: str) -> None:
    """If its type says that it is text, whatever it looks like."""
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/a", "ce-type": "t", "content-type": "text/plain"}
    decoded = decode(text.encode(), headers=headers)
    assert [as_dict(STREAM.columns, row)["body"] for row in decoded.rows] == [text]
    assert [reject.reason for reject in decode(b"\xff", headers=headers).rejects] == ["malformed"]


def test_text_in_a_cloudevent_is_a_body() -> None:
    """The data of an event may be plain text."""
    event = {"specversion": "1.0", "id": "i", "source": "s", "type": "t", "time": "2025-12-12T10:30:00.123456Z"}
    (row,) = rows({**event, "data": "disk full"})
    assert (row["body"], row["timestamp"]) == ("disk full", MOMENT)
    assert [reject.reason for reject in decode(event).rejects] == ["malformed"]


# --- random requests ---

SILENT = ExportLogsServiceRequest()
SILENT.resource_logs.add().scope_logs.add().log_records.add(severity_number=1, severity_text="-")


@given(request=requests(ExportLogsServiceRequest))
@example(request=ExportLogsServiceRequest())
@example(request=SILENT)
@settings(max_examples=examples(150))
def test_V10_every_field_of_every_record_is_in_its_row(request: ExportLogsServiceRequest) -> None:
    """Rows of random requests, compared with the requests field by field."""
    decoded = decode(request.SerializeToString())
    assert not decoded.rejects
    found = iter([as_dict(STREAM.columns, row) for row in decoded.rows])
    for group in request.resource_logs:
        for scoped in group.scope_logs:
            for log in scoped.log_records:
                row = next(found)
                observed = time(log.observed_time_unix_nano) or NOW_MICROS
                assert row["observed_timestamp"] == observed
                assert row["timestamp"] == (time(log.time_unix_nano) or observed)
                assert (row["trace_id"], row["span_id"]) == (hex_id(log.trace_id), hex_id(log.span_id))
                assert (row["flags"], row["trace_flags"]) == (log.flags, log.flags & 0xFF)
                band = BANDS.get(log.severity_number)
                silent = band not in (None, log.severity_text) and says_nothing(log.severity_text)
                if log.severity_text:
                    assert row["severity_text"] == (band if silent else text(log.severity_text))
                assert row["severity_number"] == (log.severity_number or number_of(log.severity_text))
                assert row["event_name"] == text(log.event_name)
                assert row["dropped_attributes_count"] == log.dropped_attributes_count
                rest = _rest(group, scoped)
                body = plain(log.body)
                if isinstance(body, str) and log.body.HasField("string_value"):
                    assert row["body"] == body
                else:
                    assert (None if row["body"] is None else json.loads(row["body"])) == body
                    if body is not None:
                        rest["body"] = body
                assert (None if row["data"] is None else json.loads(row["data"])) == (rest or None)
                expected = pairs(log.attributes)
                if silent and log.severity_text:  # it makes way for the number's, and is kept
                    expected[f"{'original.' * ('severity_text' in expected)}severity_text"] = log.severity_text
                attributes = json.loads(row["attributes"])
                for field in ("time_unix_nano", "observed_time_unix_nano"):
                    if getattr(log, field) >= 2**63:
                        expected[field] = str(getattr(log, field))
                assert attributes == expected
                assert json.loads(row["resource_attributes"]) == pairs(group.resource.attributes)
                assert json.loads(row["scope_attributes"] or b"{}") == pairs(scoped.scope.attributes)
                assert (row["scope_name"], row["scope_version"]) == (
                    text(scoped.scope.name),
                    text(scoped.scope.version),
                )
                assert (row["schema_url"], row["resource_schema_url"]) == (
                    text(scoped.schema_url),
                    text(group.schema_url),
                )
                assert row["service_name"] == (attribute_text(group.resource, "service.name") or "unknown")
    assert next(found, None) is None


def _rest(group: Any, scoped: Any) -> dict[str, Any]:
    """What has no column."""
    rest: dict[str, Any] = {}
    if group.resource.dropped_attributes_count:
        rest["resource_dropped_attributes_count"] = group.resource.dropped_attributes_count
    if group.resource.entity_refs:
        rest["resource_entity_refs"] = [
            {"schema_url": ref.schema_url.replace("\0", "\ufffd"), "type": ref.type.replace("\0", "\ufffd"),
             "id_keys": [key.replace("\0", "\ufffd") for key in ref.id_keys],
             "description_keys": [key.replace("\0", "\ufffd") for key in ref.description_keys]}
            for ref in group.resource.entity_refs
        ]  # fmt: skip
    if scoped.scope.dropped_attributes_count:
        rest["scope_dropped_attributes_count"] = scoped.scope.dropped_attributes_count
    return rest


@given(
    fields=st.dictionaries(
        st.text(max_size=5),
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5),
        max_size=5,
    )
)
@settings(max_examples=examples(100))
def test_every_unknown_key_is_an_attribute(fields: dict[str, Any]) -> None:
    """Nothing of a flat record is lost."""
    known = {"body": "b", "attributes": {"own": 1}}
    (row,) = rows({f"x-{key}": value for key, value in fields.items()} | known)
    expected = {f"x-{key}".replace("\0", "\ufffd"): _clean(value) for key, value in fields.items()}
    assert json.loads(row["attributes"]) == {"own": 1, **expected}


def _clean(value: Any) -> Any:
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


@pytest.mark.parametrize("name", ["trace_id", "traceId", "span_id"])
@pytest.mark.parametrize("value", [[], {"a": 1}])
def test_an_id_that_is_none_is_absent(name: str, value: Any) -> None:
    """Never NULL: the columns of both must have a value."""
    (row,) = rows(orjson.dumps({"body": "b", name: value}), "logs.x")
    assert (row["trace_id"], row["span_id"]) == ("", "")
    column = "span_id" if name == "span_id" else "trace_id"
    assert orjson.loads(row["attributes"])[column] == value
