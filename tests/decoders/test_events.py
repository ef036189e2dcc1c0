"""EVENTS: CloudEvents, GELF, traps and other events become rows of events."""

from __future__ import annotations

import base64
import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compression import gz
from eventwriter.stream import Message
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN
from profiles import examples
from records import (
    HOSTILE,
    RECEIVED,
    RECEIVED_NANOS,
    SEQUENCE,
    at,
    damaged,
    decoded,
    json_values,
    only_row,
    reasons,
    records_with,
    rows,
)
from workers._limits import RECORDS_MAX
from workers.events import STREAM

GELF = (
    '{"specversion":"1.0","id":"6f1f6a0e-5d0b-4a43-9d5f-2d6c1f0a9b11","source":"nats://events/events.syslog","typ'
    'e":"cef_severity","datacontenttype":"application/json","data":{"version":"1.1","host":"fw-edge","short_messa'
    'ge":"CEF:0|Acme|FW|3|100|deny|7|src=203.0.113.9","full_message":null,"timestamp":1765535400.123456,"level":4'
    ',"severity":"High","application_name":"kernel","_remote_addr":"default:10.20.0.254"}}'
)
LENIENT = (
    '{"specversion":"1.0","id":"0b0c6b1c-2f55-4f0e-8d3a-8f6d0b8e0d01","source":"nats://events/events.syslog","typ'
    'e":"processed","datacontenttype":"application/json","data":{"version":"1.1","host":"sw1","short_message":"li'
    'nk up","timestamp":"1765535400.5","level":"5"}}'
)
HEALTH = (
    '{"specversion":"1.0","id":"b5b1b3d2-6d0e-4b62-9f9e-0a4f5c1a7711","source":"serviceradar/core","type":"com.ca'
    'rverauto.serviceradar.poller.health","datacontenttype":"application/json","subject":"events.poller.health","'
    'time":"2025-12-12T10:31:07.512Z","data":{"poller_id":"edge-07","previous_state":"unhealthy","current_state":'
    '"healthy","timestamp":"2025-12-12T10:31:07.512Z","last_seen":"2025-12-12T10:31:05Z","source_ip":"10.20.0.9",'
    '"partition":"default","alert_sent":false,"recovery_reason":"status_report_received"}}'
)
LIFECYCLE = (
    '{"specversion":"1.0","id":"c2a9d0aa-53f4-44a0-b6a2-0d6f0c7c5a02","source":"serviceradar/core","type":"com.ca'
    'rverauto.serviceradar.device.lifecycle","datacontenttype":"application/json","subject":"events.devices.lifec'
    'ycle","time":"2025-12-12T10:32:00Z","data":{"device_id":"default:10.20.0.44","partition":"default","action":'
    '"alias_updated","actor":"registry","timestamp":"2025-12-12T10:32:00Z","severity":"Low","level":6,"metadata":'
    '{"previous_ip":"10.20.0.43","alias_current_ip":"10.20.0.44"}}}'
)
TRAP = (
    '{"specversion":"1.0","id":"e9a4f51c-0e2b-4f8e-8c3d-7b1b7d9f3303","source":"nats://events/events.snmp","type"'
    ':"snmp_severity","datacontenttype":"application/json","data":{"source":"10.20.0.2:50314","version":"V2C","co'
    'mmunity":"public","severity":"Unknown","varbinds":[{"oid":"1.3.6.1.6.3.1.1.4.1.0","value":"OBJECT IDENTIFIER'
    ': 1.3.6.1.6.3.1.1.5.3"},{"oid":"1.3.6.1.2.1.2.2.1.1.3","value":"INTEGER: 3"}]}}'
)
BARE_GELF = (
    '{"application_name":"sshd","host":"db01","level":6,"process_id":"811","short_message":"session opened","time'
    'stamp":1765535402.75,"version":"1.1","_remote_addr":"default:10.20.0.31"}'
)
OCSF = (
    '{"id":"1f0c7f9e-87a3-4f0d-9f0a-1c9a5d0e7d01","time":"2026-05-03T09:00:00.5Z","class_uid":1008,"category_uid"'
    ':1,"type_uid":100801,"activity_id":1,"activity_name":"Create","severity_id":5,"severity":"Critical","message'
    '":"Gateway gw-2 state changed from healthy to unhealthy","metadata":{"version":"1.7.0"},"log_name":"events.o'
    'csf.processed","log_provider":"serviceradar-core","unmapped":{"gateway_id":"gw-2","alert_sent":true}}'
)
BATCH = (
    '[{"specversion":"1.0","id":"1","source":"/a","type":"t","data":{"msg":"one"}},{"specversion":"1.0","id":"2",'
    '"source":"/a","type":"t","time":null,"data_base64":"eyJtc2ciOiJ0d28ifQ=="}]'
)

SUBJECT = "events.test"
NOTHING = dict.fromkeys(column.name for column in STREAM.columns)
"""A row of which nothing is known."""
ENVELOPE = {"specversion": "1.0", "id": "7", "source": "/a", "type": "t"}


def row(payload: str, **expected: Any) -> dict[str, Any]:
    """A row of a payload with these values and NULL elsewhere."""
    always = {
        "subject": SUBJECT,
        "source": "",
        "raw_data": payload,
        "received_at": at(RECEIVED),
        "event_timestamp": at(RECEIVED),
    }
    return NOTHING | always | expected


def derived_id(index: int = 0) -> str:
    """The id of an event that has none."""
    return f"{SEQUENCE}-{RECEIVED_NANOS}-{index}"


def wrapped(data: Any, **attributes: Any) -> dict[str, Any]:
    """The row of a CloudEvent with this data."""
    return only_row(STREAM, ENVELOPE | attributes | {"data": data})


def bare(**fields: Any) -> dict[str, Any]:
    """The row of a flat event."""
    return only_row(STREAM, fields)


# --- every sample, column by column -------------------------------------------------------------------------------


def test_EV3_a_cloudevent_with_gelf() -> None:
    """What data says is extracted; time with its microseconds; raw_data is the whole payload."""
    assert only_row(STREAM, GELF) == row(
        GELF,
        event_timestamp=at("2025-12-12T10:30:00.123456Z"),
        specversion="1.0",
        id="6f1f6a0e-5d0b-4a43-9d5f-2d6c1f0a9b11",
        source="nats://events/events.syslog",
        type="cef_severity",
        datacontenttype="application/json",
        remote_addr="default:10.20.0.254",
        host="fw-edge",
        level=4,
        severity="High",
        short_message="CEF:0|Acme|FW|3|100|deny|7|src=203.0.113.9",
        version="1.1",
    )


def test_EV1_one_field_of_another_type_does_not_empty_the_others() -> None:
    """Level and timestamp are texts here."""
    assert only_row(STREAM, LENIENT) == row(
        LENIENT,
        event_timestamp=at("2025-12-12T10:30:00.500Z"),
        specversion="1.0",
        id="0b0c6b1c-2f55-4f0e-8d3a-8f6d0b8e0d01",
        source="nats://events/events.syslog",
        type="processed",
        datacontenttype="application/json",
        host="sw1",
        level=5,
        short_message="link up",
        version="1.1",
    )


def test_a_cloudevent_with_a_pollers_health() -> None:
    """Level and severity follow from the state, the message from the change."""
    assert only_row(STREAM, HEALTH) == row(
        HEALTH,
        event_timestamp=at("2025-12-12T10:31:07.512Z"),
        specversion="1.0",
        id="b5b1b3d2-6d0e-4b62-9f9e-0a4f5c1a7711",
        source="serviceradar/core",
        type="com.carverauto.serviceradar.poller.health",
        datacontenttype="application/json",
        subject="events.poller.health",
        remote_addr="10.20.0.9",
        host="edge-07",
        level=6,
        severity="info",
        short_message="Poller edge-07 state changed from unhealthy to healthy",
        version="1.1",
    )


def test_a_cloudevent_with_a_devices_lifecycle() -> None:
    """Changed aliases are listed as old→new."""
    assert only_row(STREAM, LIFECYCLE) == row(
        LIFECYCLE,
        event_timestamp=at("2025-12-12T10:32:00Z"),
        specversion="1.0",
        id="c2a9d0aa-53f4-44a0-b6a2-0d6f0c7c5a02",
        source="serviceradar/core",
        type="com.carverauto.serviceradar.device.lifecycle",
        datacontenttype="application/json",
        subject="events.devices.lifecycle",
        host="default:10.20.0.44",
        level=6,
        severity="Low",
        short_message="Device default:10.20.0.44 alias updated (ip 10.20.0.43→10.20.0.44)",
        version="1.1",
    )


def test_a_cloudevent_with_a_trap() -> None:
    """It has no time of its own: the broker's. Host is the address that sent it."""
    assert only_row(STREAM, TRAP) == row(
        TRAP.replace("public", "***"),
        specversion="1.0",
        id="e9a4f51c-0e2b-4f8e-8c3d-7b1b7d9f3303",
        source="nats://events/events.snmp",
        type="snmp_severity",
        datacontenttype="application/json",
        remote_addr="10.20.0.2",
        host="10.20.0.2",
        severity="Unknown",
        short_message="1.3.6.1.6.3.1.1.4.1.0 = OBJECT IDENTIFIER: 1.3.6.1.6.3.1.1.5.3; "
        "1.3.6.1.2.1.2.2.1.1.3 = INTEGER: 3",
        version="V2C",
    )


def test_EV2_bare_gelf() -> None:
    """Its columns are filled; severity follows from the level, the id from its place in the stream."""
    assert only_row(STREAM, BARE_GELF) == row(
        BARE_GELF,
        event_timestamp=at("2025-12-12T10:30:02.750Z"),
        id=derived_id(),
        remote_addr="default:10.20.0.31",
        host="db01",
        level=6,
        severity="info",
        short_message="session opened",
        version="1.1",
    )


def test_EV2_a_bare_trap() -> None:
    """Its columns are filled, too."""
    trap = json.dumps(json.loads(TRAP)["data"])
    assert only_row(STREAM, trap) == row(
        trap.replace("public", "***"),
        id=derived_id(),
        source="10.20.0.2:50314",
        remote_addr="10.20.0.2",
        host="10.20.0.2",
        severity="Unknown",
        short_message="1.3.6.1.6.3.1.1.4.1.0 = OBJECT IDENTIFIER: 1.3.6.1.6.3.1.1.5.3; "
        "1.3.6.1.2.1.2.2.1.1.3 = INTEGER: 3",
        version="V2C",
    )


def test_an_ocsf_event() -> None:
    """severity_id gives the level, log_provider the source."""
    assert only_row(STREAM, OCSF) == row(
        OCSF,
        event_timestamp=at("2026-05-03T09:00:00.500Z"),
        id="1f0c7f9e-87a3-4f0d-9f0a-1c9a5d0e7d01",
        source="serviceradar-core",
        host="gw-2",
        level=2,
        severity="Critical",
        short_message="Gateway gw-2 state changed from healthy to unhealthy",
    )


@pytest.mark.parametrize(
    ("number", "given_", "level", "severity"),
    [(6, None, 2, "Fatal"), (4, None, 3, "High"), (1, None, 6, "Informational"), (0, None, None, "Unknown"),
     (99, None, None, "Other"), (3, "medium-ish", 4, "medium-ish"), (7, None, None, None), ("4", None, 3, "High"),
     (4.0, None, 3, "High"), ([4], None, None, None), (True, None, None, None)],
)  # fmt: skip
def test_the_severity_of_an_ocsf_event(number: Any, given_: Any, level: Any, severity: str | None) -> None:
    """It has its own word for it, or that of its number."""
    found = bare(class_uid=1008, severity_id=number, severity=given_, message="m")
    assert (found["level"], found["severity"]) == (level, severity)


def test_a_batch_of_cloudevents() -> None:
    """A row per event; raw_data is the event, not the batch."""
    first, second = rows(STREAM, decoded(STREAM, BATCH))
    texts = [json.dumps(event, separators=(",", ":")) for event in json.loads(BATCH)]
    known: dict[str, Any] = {"specversion": "1.0", "source": "/a", "type": "t"}
    assert first == row(texts[0], id="1", short_message="one", **known)
    assert second == row(texts[1], id="2", short_message="two", **known)


# --- envelopes ------------------------------------------------------------------------------------------------------


def test_binary_mode() -> None:
    """Headers are the envelope, the payload is the data."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "7",
        "ce-source": "/a",
        "ce-type": "t",
        "ce-subject": "about",
        "content-type": "application/json",
    }
    known: dict[str, Any] = {"specversion": "1.0", "id": "7", "source": "/a", "type": "t", "subject": "about"}
    payload = '{"message": "hello"}'
    assert only_row(STREAM, payload, headers=headers) == row(
        payload, short_message="hello", datacontenttype="application/json", **known
    )
    del headers["content-type"]
    assert only_row(STREAM, "plain text", headers=headers) == row("plain text", short_message="plain text", **known)
    assert only_row(STREAM, "", headers=headers) == row("", **known)
    assert reasons(decoded(STREAM, b"\x0a\x01\x00", headers=headers)) == [("malformed", None)]
    assert reasons(decoded(STREAM, b"\xff\xfe", headers=headers)) == [("malformed", None)]


@pytest.mark.parametrize(
    "more",
    [
        {"time": "2026-01-02T00:00:00Z"},
        {"dataschema": "https://example.com/s"},
        {"tenant": "acme", "traceparent": "00-5b"},
    ],
)
@pytest.mark.parametrize("data", ['{"msg":"hello","n":123456789012345678901234567890}', "plain text", ""])
def test_binary_mode_loses_nothing_of_the_envelope(more: dict[str, str], data: str) -> None:
    """What has no column is in raw_data, as in structured mode, beside the data with every digit."""
    envelope = {"specversion": "1.0", "id": "1", "source": "/a", "type": "t", **more}
    found = only_row(STREAM, data, headers={f"ce-{name}": value for name, value in envelope.items()})
    value = json.loads(data) if data[:1] == "{" else data or None
    assert json.loads(found["raw_data"]) == {**envelope, "data": value}


def test_headers_that_are_no_envelope_say_nothing() -> None:
    """Such as a message id."""
    assert only_row(STREAM, GELF, headers={"Nats-Msg-Id": "7"}) == only_row(STREAM, GELF)


def test_a_compressed_event_is_kept_as_text() -> None:
    """raw_data is what was compressed."""
    assert only_row(STREAM, gz(GELF.encode())) == only_row(STREAM, GELF)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("link down", "link down"),
        ('{"msg": "text of JSON"}', "text of JSON"),
        (None, None),
        (5, None),
        ([1, 2], None),
        ({}, None),
        ({"msg": 5}, "5"),
        ({"message": "a", "msg": "b"}, "a"),
        ({"data": {"message": "inner"}}, "inner"),
    ],
)
def test_data_of_any_form(data: Any, message: str | None) -> None:
    """What has no text still makes a row: raw_data has it all."""
    assert wrapped(data)["short_message"] == message


def test_base64_that_is_no_json() -> None:
    """Text is the message; other bytes are in raw_data."""
    event = dict(ENVELOPE)
    assert only_row(STREAM, event | {"data_base64": base64.b64encode(b"hi").decode()})["short_message"] == "hi"
    assert only_row(STREAM, event | {"data_base64": base64.b64encode(b"\0\xff").decode()})["short_message"] is None
    assert reasons(decoded(STREAM, event | {"data_base64": "!"})) == [("malformed", 0)]


@pytest.mark.parametrize("identity", [None, "", [], {"a": 1}])
def test_EV4_D12_an_event_without_id_gets_one_from_its_place_in_the_stream(identity: Any) -> None:
    """Two such events never share a key, and a redelivered one keeps its own."""
    assert wrapped({}, id=identity)["id"] == derived_id()
    found = rows(STREAM, decoded(STREAM, [{"msg": "a"}, {"msg": "b"}]))
    assert [each["id"] for each in found] == [derived_id(0), derived_id(1)]


@pytest.mark.parametrize("name", ["id", "source"])
def test_events_that_only_a_repair_makes_equal_have_keys_of_their_own(name: str) -> None:
    """Or the later one would replace the earlier."""
    for text in (b"\\ud800", b"\\ud801", b"a\\u0000", "\ufffd".encode()):
        payload = json.dumps(ENVELOPE | {name: "?", "data": {"message": "m"}}).encode().replace(b"?", text)
        (found,) = rows(STREAM, decoded(STREAM, payload))
        assert found["id"] == derived_id()


def test_envelope_attributes_are_lenient() -> None:
    """Numbers are texts; an empty subject is none; null is NULL."""
    found = wrapped({}, id=5, datacontenttype=None, subject="", source=1.5)
    assert (found["id"], found["datacontenttype"], found["subject"], found["source"]) == ("5", None, SUBJECT, "1.5")
    assert wrapped({}, subject=["x"])["subject"] == SUBJECT


def test_a_flat_event_fills_columns_by_their_names() -> None:
    """Whatever else it has is in raw_data."""
    flat = {
        "id": "x1", "time": "2025-12-12T10:30:00Z", "timestamp": 5, "source": "s", "type": "t", "subject": "about",
        "datacontenttype": "c", "remoteAddr": "10.0.0.1", "_remote_addr": "other", "host": "h", "level": "warn",
        "message": "m", "version": 2,
    }  # fmt: skip
    payload = json.dumps(flat)
    assert only_row(STREAM, payload) == row(
        payload,
        event_timestamp=at("2025-12-12T10:30:00Z"),
        id="x1",
        source="s",
        type="t",
        subject="about",
        datacontenttype="c",
        remote_addr="10.0.0.1",
        host="h",
        level=4,
        severity="warning",
        short_message="m",
        version="2",
    )


def test_any_other_object_is_a_raw_row() -> None:
    """Nothing is known of it but its text."""
    for payload in ("{}", '{"a": {"b": [1]}}', '{"specversion": 1.0}'):
        found = only_row(STREAM, payload)
        assert found == row(payload, id=derived_id(), specversion=found["specversion"])


def test_remote_addresses_by_precedence() -> None:
    """In GELF the name with the underscore comes first, in flat events the one without."""
    both = {"_remote_addr": "a", "remote_addr": "b", "version": "1.1", "short_message": "m"}
    assert wrapped(both)["remote_addr"] == "a"
    assert bare(**both)["remote_addr"] == "b"
    assert wrapped({"remote_addr": "b", "version": "1.1", "short_message": "m"})["remote_addr"] == "b"


# --- times ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (1765535400.123456, "2025-12-12T10:30:00.123456Z"),
        (1765535400, "2025-12-12T10:30:00Z"),
        ("1765535400.5", "2025-12-12T10:30:00.5Z"),
        ("2025-12-12T10:30:00.123456789Z", "2025-12-12T10:30:00.123456Z"),
        ("2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"),
        (1765535400123, "2025-12-12T10:30:00.123Z"),
    ],
)
def test_V1_V2_an_events_own_time_comes_first(stamp: object, expected: str) -> None:
    """Before that of its envelope; fractions of seconds exactly."""
    gelf = {"version": "1.1", "short_message": "m", "timestamp": stamp}
    assert wrapped(gelf, time="2025-12-12T10:00:00Z")["event_timestamp"] == at(expected)
    assert bare(**gelf)["event_timestamp"] == at(expected)


@pytest.mark.parametrize(
    "stamp",
    ["1765535400.123456999", "1765535400.99999999", "1765535400.1234567", "1765535400.123456", "1765535400",
     "1.7655354e9", "1765535400.12345678901234567890", '"1765535400.123456999"',
     "null", "true", "[1]", "{}", "1e400", "-5", "0"],
)  # fmt: skip
def test_a_time_is_truncated_whatever_its_digits(stamp: str) -> None:
    """By decimal digits, as they came, on either path: it is part of the key."""
    gelf = f'{{"version":"1.1","short_message":"m","timestamp":{stamp}}}'
    payload = f'{{"specversion":"1.0","id":"1","source":"s","time":"2025-12-12T10:00:00Z","data":{gelf}}}'
    (found,) = rows(STREAM, decoded(STREAM, payload))
    exact = Decimal(stamp) if stamp[0].isdigit() and 10**9 < Decimal(stamp) < 10**10 else None
    if exact is not None:
        assert found["event_timestamp"] == int(exact.scaleb(6)) - EPOCH
    ours = Message("events.x", payload.encode(), 1, 1_765_535_400_000_000_000)
    assert STREAM.fast is not None
    (fast,) = STREAM.fast([ours])
    assert fast in (None, STREAM.decode(ours).rows[0])


@pytest.mark.parametrize("stamp", [None, 0, "", "0001-01-01T00:00:00Z"])
def test_V4_no_time_is_that_of_the_envelope_or_of_the_broker(stamp: object) -> None:
    """Not 1970, and never that of decoding."""
    assert wrapped({"timestamp": stamp}, time="2025-12-12T10:00:00Z")["event_timestamp"] == at("2025-12-12T10:00:00Z")
    assert wrapped({"timestamp": stamp})["event_timestamp"] == at(RECEIVED)
    assert bare(timestamp=stamp)["event_timestamp"] == at(RECEIVED)


@pytest.mark.parametrize("stamp", ["yesterday", -5, 10**30, 9_950_000_000, [], True])
def test_a_bad_time_in_a_cloudevent_is_counted_and_passed_over(stamp: object) -> None:
    """raw_data has it; in a flat event, where nothing else tells the time, it rejects the record."""
    found = decoded(STREAM, ENVELOPE | {"time": "2025-12-12T10:00:00Z", "data": {"timestamp": stamp}})
    assert rows(STREAM, found)[0]["event_timestamp"] == at("2025-12-12T10:00:00Z")
    assert found.repairs == ["bad_time"]
    assert reasons(decoded(STREAM, {"timestamp": stamp})) == [("bad_time", 0)]


def test_a_bad_time_of_the_envelope_is_counted_and_passed_over() -> None:
    """The broker's time stands in."""
    found = decoded(STREAM, ENVELOPE | {"time": "yesterday", "data": {"timestamp": "?"}})
    assert rows(STREAM, found)[0]["event_timestamp"] == at(RECEIVED)
    assert found.repairs == ["bad_time", "bad_time"]


# --- levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "number", "severity"),
    [
        (0, 0, "emergency"),
        (3, 3, "error"),
        (7, 7, "debug"),
        ("5", 5, "notice"),
        (4.0, 4, "warning"),
        ("emerg", 0, "emergency"),
        ("alert", 1, "alert"),
        ("CRIT", 2, "critical"),
        ("err", 3, "error"),
        (" Warn ", 4, "warning"),
        ("warning", 4, "warning"),
        ("informational", 6, "info"),
        ("debug", 7, "debug"),
        (42, 42, None),
        (True, 1, None),
        (-1, -1, None),
        (None, None, None),
    ],
)
def test_EV7_levels_are_numbers_or_names(level: object, number: int | None, severity: str | None) -> None:
    """With the usual short forms; a flat event's severity follows from it."""
    found = bare(level=level, short_message="m", version="1.1")
    assert (found["level"], found["severity"]) == (number, severity)
    assert bare(level=level) | {"short_message": "m", "version": "1.1", "raw_data": found["raw_data"]} == found
    assert bare(level=level, severity="own")["severity"] == "own"


@pytest.mark.parametrize(
    ("level", "expected", "repairs"),
    [
        ("loud", None, ["bad_value"]),
        ([], None, ["bad_value"]),
        (3.5, None, ["bad_value"]),
        (2**31, INT4_MAX, ["clamped"]),
        ("-99999999999", INT4_MIN, ["clamped"]),
    ],
)
def test_levels_that_are_none_are_counted(level: object, expected: int | None, repairs: list[str]) -> None:
    """The other columns are filled all the same."""
    found = decoded(STREAM, {"level": level, "host": "h"})
    assert (rows(STREAM, found)[0]["level"], rows(STREAM, found)[0]["host"]) == (expected, "h")
    assert found.repairs == repairs


def test_a_bad_text_is_counted_and_null() -> None:
    """raw_data has it."""
    found = decoded(STREAM, {"host": {"a": 1}, "severity": [], "short_message": {}, "version": []})
    (only,) = rows(STREAM, found)
    assert (only["host"], only["severity"], only["short_message"], only["version"]) == (None, None, None, None)
    assert found.repairs == ["bad_value"] * 4


# --- shapes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "level", "severity"),
    [("unhealthy", 3, "error"), ("healthy", 6, "info"), ("unknown", 5, "notice"), ("degraded", 6, "info")],
)
def test_states_have_levels(state: str, level: int, severity: str) -> None:
    """Of pollers and, as they are called later, gateways; also without an envelope."""
    found = bare(gateway_id="gw-2", previous_state="healthy", current_state=state, timestamp="2025-12-12T10:31:07Z")
    assert (found["level"], found["severity"], found["host"]) == (level, severity, "gw-2")
    assert found["short_message"] == f"Gateway gw-2 state changed from healthy to {state}"
    assert found["event_timestamp"] == at("2025-12-12T10:31:07Z")


def test_health_knows_its_host() -> None:
    """Before the poller's id; remote_addr before source_ip."""
    found = wrapped({"poller_id": "p", "current_state": "healthy", "host": "h", "remote_addr": "r", "source_ip": "s"})
    assert (found["host"], found["remote_addr"]) == ("h", "r")
    assert found["short_message"] == "Poller p state changed from unknown to healthy"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"action": "Deleted", "actor": "admin@example.com"}, "Device d deleted by admin@example.com"),
        ({"action": "restored"}, "Device d restored"),
        ({"action": "restored", "actor": ""}, "Device d restored"),
        ({"action": "alias_updated"}, "Device d alias updated"),
        ({"action": "alias_updated", "metadata": "x"}, "Device d alias updated"),
        (
            {
                "action": "alias_updated",
                "metadata": {
                    "previous_service_id": "a",
                    "alias_current_service_id": "b",
                    "previous_ip": "",
                    "alias_current_ip": "10.0.0.6",
                    "previous_collector_ip": "10.0.0.9",
                },
            },
            "Device d alias updated (service a→b, ip 10.0.0.6, collector 10.0.0.9→none)",
        ),
    ],
)
def test_lifecycles_are_told(data: dict[str, Any], message: str) -> None:
    """With level 5 and severity Medium unless they say otherwise."""
    found = wrapped(data | {"device_id": "d"})
    assert (found["short_message"], found["level"], found["severity"]) == (message, 5, "Medium")
    assert wrapped(data | {"device_id": "d", "level": 0, "severity": ""})["level"] == 0


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("10.20.0.2:50314", "10.20.0.2"),
        ("[2001:db8::7]:162", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("10.20.0.2", "10.20.0.2"),
        (":162", None),
        ("[", None),
        ("", None),
        (None, None),
        (5, None),
    ],
)
def test_traps_come_from_an_address(source: Any, address: str | None) -> None:
    """Without its port."""
    found = wrapped({"source": source, "varbinds": []})
    assert (found["host"], found["remote_addr"]) == (address, address)


def test_traps_are_summarized() -> None:
    """Unless they say it themselves; of many bindings the first, of long values the beginning."""
    many = [{"oid": f"1.{number}", "value": "x" * 10_000} for number in range(1000)]
    summary = wrapped({"varbinds": many})["short_message"]
    assert summary.startswith("1.0 = xxx")
    assert summary.endswith("; …")
    assert len(summary) < 4000
    assert wrapped({"varbinds": [], "body": "link down"})["short_message"] == "link down"
    assert wrapped({"varbinds": [5, {"oid": 1}]})["short_message"] == "1 = unknown"
    assert wrapped({"varbinds": []})["short_message"] is None


@pytest.mark.parametrize(
    ("number", "level"), [(0, None), (1, 6), (2, 5), (3, 4), (4, 3), (5, 2), (6, 2), (99, None), ("5", 2)]
)
def test_ocsf_severities_are_levels(number: object, level: int | None) -> None:
    """Fatal and critical are 2, informational is 6, unknown and other are NULL."""
    found = bare(class_uid=1008, severity_id=number, device={"hostname": "h"}, src_endpoint={"ip": "10.0.0.1"})
    assert (found["level"], found["host"], found["remote_addr"]) == (level, "h", "10.0.0.1")


def test_what_an_ocsf_event_says_as_others_do() -> None:
    """Where it says nothing in places of its own."""
    plain = {"host": "h", "level": 3, "remote_addr": "10.0.0.9"}
    found = bare(class_uid=1008, message="m", **plain)
    assert {name: found[name] for name in plain} == plain
    found = bare(class_uid=1008, severity_id=2, device={"name": "d"}, unmapped={"source_ip": "10.0.0.1"}, **plain)
    assert (found["host"], found["level"], found["remote_addr"]) == ("d", 5, "10.0.0.1")
    found = bare(class_uid=1008, severity_id=0, level=3)
    assert (found["level"], found["severity"]) == (None, "Unknown")


def test_ocsf_in_a_cloudevent() -> None:
    """The envelope's source stays; milliseconds are a time, too."""
    found = wrapped({"class_uid": 1008, "time": 1765535400500, "message": "m", "log_provider": "core"})
    assert (found["source"], found["short_message"]) == ("/a", "m")
    assert found["event_timestamp"] == at("2025-12-12T10:30:00.500Z")


_SHAPES: list[dict[str, Any]] = [
    *(json.loads(text)["data"] for text in (GELF, HEALTH, LIFECYCLE, TRAP)), json.loads(OCSF),
    {"msg": "m", "level": 3, "host": "h", "remoteAddr": "10.0.0.1"}, {"message": "m", "log_provider": "x"},
]  # fmt: skip
_NAMES = (
    "version", "short_message", "message", "msg", "varbinds", "current_state", "poller_id", "gateway_id", "device_id",
    "action", "class_uid", "severity_id", "device", "src_endpoint", "unmapped", "host", "level", "severity",
    "timestamp", "time", "remote_addr", "_remote_addr", "remoteAddr", "source_ip", "body", "data",
)  # fmt: skip


@pytest.mark.parametrize("envelope", [{}, ENVELOPE], ids=["bare", "wrapped"])
@pytest.mark.parametrize("shape", _SHAPES, ids=lambda shape: next(iter(shape)))
def test_a_null_is_as_good_as_nothing(shape: dict[str, Any], envelope: dict[str, Any]) -> None:
    """Whatever shape has a value there, first or last."""

    def told(data: dict[str, Any]) -> dict[str, Any]:
        return only_row(STREAM, envelope | {"data": data} if envelope else data) | {"raw_data": None}

    for name in _NAMES:
        if name not in shape:
            assert told({name: None, **shape}) == told({**shape, name: None}) == told(shape), name


# --- what is no event -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "stream"),
    [
        ("events.otel.logs", "LOGS"),
        ("events.otel.logs.processed", "LOGS"),
        ("events.otel.traces", "OTEL_TRACES"),
        ("events.otel.metrics.raw", "OTEL_METRICS"),
        ("events.otel.other", "OTEL_METRICS"),
        ("events.otel", "LOGS"),
        ("acme.events.otel.traces", "OTEL_TRACES"),
        ("events.netflow", "NETFLOW"),
    ],
)
def test_what_belongs_to_another_stream_is_rejected(subject: str, stream: str) -> None:
    """And the dead letter says to which."""
    found = decoded(STREAM, b"\x0a\x02\x08\x01", subject=subject)
    assert reasons(found) == [("wrong_stream", None)]
    assert stream in found.rejects[0].detail


@pytest.mark.parametrize(
    "subject", ["events.hotel.netflows", "events.syslog.otel", "events.devices.netflow.x", "netflow"]
)
def test_other_subjects_are_not_mistaken(subject: str) -> None:
    """It is the token after ``events`` that counts."""
    assert only_row(STREAM, GELF, subject=subject)["host"] == "fw-edge"


@pytest.mark.parametrize("payload", [b"\x0a\x02\x08\x01", b"", b"null", b"5", b'"text"', b"{", b"text", b"\x1e\x0f"])
def test_EV4_what_is_no_json_object_is_malformed(payload: bytes) -> None:
    """It becomes a dead letter, not a row without id at the time of decoding."""
    assert reasons(decoded(STREAM, payload)) == [("malformed", None)]


@pytest.mark.parametrize("key", ["resourceLogs", "resource_spans", "resourceMetrics"])
def test_an_otlp_request_is_no_event(key: str) -> None:
    """In JSON it looks like any object, except for its key."""
    assert reasons(decoded(STREAM, {key: []})) == [("wrong_stream", 0)]
    assert reasons(decoded(STREAM, ENVELOPE | {"data": {key: []}})) == [("wrong_stream", 0)]
    assert bare(**{key: "x"})["id"] == derived_id()


def test_D5_a_bad_element_leaves_its_siblings_alone() -> None:
    """It is rejected by its number."""
    found = decoded(STREAM, [{"msg": "a"}, 5, {"time": "?"}, [], {"msg": "b"}])
    assert [each["short_message"] for each in rows(STREAM, found)] == ["a", "b"]
    assert [each["id"] for each in rows(STREAM, found)] == [derived_id(0), derived_id(4)]
    assert reasons(found) == [("malformed", 1), ("bad_time", 2), ("malformed", 3)]


def test_EV5_EV6_the_latest_event_of_a_key_replaces_all_columns() -> None:
    """The engine does it, by this key and the column that tells which is the latest."""
    assert STREAM.key == ("event_timestamp", "id", "source")
    assert "received_at" in [column.name for column in STREAM.columns]


def test_nul_and_surrogates_are_replaced() -> None:
    """raw_data keeps their escapes, which are plain text."""
    payload = rb'{"host":"a\u0000b","msg":"\ud800","x":"' + b"\xff" + b'"}'
    (found,) = rows(STREAM, decoded(STREAM, payload))
    assert (found["host"], found["short_message"]) == ("a�b", "�")
    assert found["raw_data"] == payload.decode("utf-8", "replace")
    assert only_row(STREAM, "{}", subject="events.\0")["subject"] == "events.�"


def test_a_deep_event_is_kept_as_text() -> None:
    """Nothing of it has to be rebuilt, unless it is an element of an array."""
    payload = '{"host": "h", "x": ' + "[" * 900 + "]" * 900 + "}"
    assert only_row(STREAM, payload)["raw_data"] == payload
    assert reasons(decoded(STREAM, f'[{payload}, {{"host": "h"}}]')) == [("bad_value", 0)]


def test_raw_data_does_not_grow_with_the_square_of_an_array() -> None:
    """Ten thousand events in one message: their texts together are as large as the message."""
    found = decoded(STREAM, [{"msg": "x"}] * 10_000)
    assert sum(len(each["raw_data"]) for each in rows(STREAM, found)) == 10_000 * len('{"msg":"x"}')


def test_a_message_holds_a_bounded_number_of_events() -> None:
    """Each could become a dead letter."""
    payload = b"[" + b",".join([b"1"] * (RECORDS_MAX + 1)) + b"]"
    assert reasons(decoded(STREAM, payload)) == [("too_large", None)]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_payloads_take_no_time(name: str) -> None:
    """Each is decoded four times in well under the five seconds of CPU allowed here."""
    begun = time.process_time()
    decoded(STREAM, HOSTILE[name])
    decoded(STREAM, b'{"specversion":"1.0","id":"1","data":' + HOSTILE[name] + b"}")
    assert time.process_time() - begun < 5


NAMES = [
    "specversion", "id", "source", "type", "datacontenttype", "subject", "time", "data", "data_base64", "version",
    "host", "short_message", "timestamp", "level", "severity", "_remote_addr", "remote_addr", "message", "msg",
    "varbinds", "community", "body", "poller_id", "gateway_id", "previous_state", "current_state", "source_ip",
    "device_id", "action", "actor", "metadata", "class_uid", "severity_id", "device", "src_endpoint", "unmapped",
    "log_provider", "resourceLogs",
]  # fmt: skip
ALL = [GELF, LENIENT, HEALTH, LIFECYCLE, TRAP, BARE_GELF, OCSF, BATCH]


@given(
    st.binary()
    | json_values
    | records_with(NAMES)
    | records_with(NAMES).map(lambda data: ENVELOPE | {"data": data})
    | st.builds(lambda sample, record: json.loads(sample) | record, st.sampled_from(ALL[:-1]), records_with(NAMES))
    | st.builds(
        lambda sample, record: ENVELOPE | {"data": json.loads(sample)["data"] | record},
        st.sampled_from(ALL[:5]),
        records_with(NAMES),
    )
    | st.lists(records_with(NAMES), max_size=3)
    | damaged(ALL),
    st.none() | st.just({"ce-specversion": "1.0", "ce-id": "7"}),
)
@settings(max_examples=examples(400))
def test_any_payload_becomes_rows_and_rejects(payload: Any, headers: dict[str, str] | None) -> None:
    """Never an exception, always the same, and every value fits its column."""
    found = decoded(STREAM, payload, headers=headers)
    assert all(reject.reason != "internal" for reject in found.rejects)
