"""The fast path and the fallback give the same row for what fits the fast one."""

from __future__ import annotations

import gc
import json
import sys
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from both_paths import JSON, OBJECT, TEXT, agree, agree_on_all, compare, nearly
from eventwriter import registry
from eventwriter.postgres.attempt import fast_rows
from eventwriter.stream import Message
from traffic import ENCODINGS, Traffic

STREAMS = registry.load()
RESOURCE = OBJECT | st.dictionaries(
    st.sampled_from(["service.name", "service.version", "service.instance.id", "x"]),
    TEXT | st.none() | st.integers(),
    max_size=4,
)
TIME = st.datetimes(datetime(1999, 12, 1)).map(lambda time: f"{time.isoformat()}Z") | st.sampled_from(
    [
        "2025-12-12T10:30:00+02:00",
        "2025-12-12T10:30",
        "2025-12-12 10:30:00Z",
        "2025-12-12",
        "20251212",
        "1765535400",
        "0001-01-01T00:00:00Z",
        "",
        "0",
        "soon",
    ]
)
NUMBER = st.integers(-(2**54), 2**54) | st.floats(allow_nan=False, allow_infinity=False)
NAME = TEXT.filter(bool)

LOG = nearly(
    {
        "timestamp": st.integers(10**17, 2**63 - 1),
        "severity_number": st.integers(1, 24),
        "severity_text": TEXT,
        "body": TEXT,
        "resource": RESOURCE,
        "attributes": OBJECT,
    },
    {"scope": TEXT, "trace_id": TEXT, "span_id": TEXT},
    "host",
)
METRIC = nearly(
    {"timestamp": TIME, "gateway_id": TEXT, "metric_name": TEXT, "metric_type": TEXT, "value": NUMBER},
    {
        "agent_id": TEXT | st.none(),
        "tags": OBJECT | st.none(),
        "metadata": OBJECT | st.none(),
        "scale": NUMBER | st.none(),
        "is_delta": st.booleans(),
        "if_index": st.integers(-(2**31), 2**31) | st.none(),
        "unit": TEXT,
    },
    "poller_id",
    "other",
)
GELF = nearly(
    {
        "version": TEXT,
        "short_message": TEXT,
        "timestamp": st.floats(2.0**30, 2.0**33) | st.sampled_from([1765535400, 1, -1.0, 1765535400123]),
    },
    {
        "host": TEXT | st.none(),
        "level": st.integers(-(2**31), 2**31) | st.none(),
        "severity": TEXT | st.none(),
        "_remote_addr": TEXT | st.none(),
        "full_message": JSON,
        "time": TIME,
    },
    "remote_addr",
    "remoteAddr",
    "varbinds",
)
EVENT = nearly(
    {"specversion": TEXT, "id": NAME, "data": GELF},
    {"source": TEXT, "type": TEXT, "datacontenttype": TEXT, "subject": TEXT, "time": TIME, "extension": JSON},
    "data_base64",
    "short_message",
    "version",
)
_OCCURRED = {
    "timestamp": TIME | st.integers(0, 2**62) | st.floats(2.0**30, 2.0**33),
    "severity": TEXT | st.none(),
    "level": st.integers(-(2**31), 2**31) | st.floats(0, 9) | st.sampled_from(["warn", "Error", "x", 3.0, True, 2**70]),
    "version": TEXT,
}
TRAP = nearly(
    {"source": TEXT, "varbinds": st.lists(OBJECT, max_size=3)},
    {**_OCCURRED, "community": TEXT, "host": TEXT | st.none()},
    "message",
    "remote_addr",
)
STATE = nearly(
    {"gateway_id": NAME, "current_state": st.sampled_from(["healthy", "unhealthy", "lost"])},
    {**_OCCURRED, "previous_state": TEXT, "source_ip": TEXT},
    "host",
    "poller_id",
)
OCSF = nearly(
    {"class_uid": st.integers()},
    {"severity_id": st.integers(0, 6), "message": TEXT, "time": TIME | st.integers(0, 2**45)},
    "device",
)
LIFECYCLE = nearly(
    {"device_id": NAME, "action": TEXT},
    {**_OCCURRED, "actor": TEXT, "metadata": OBJECT},
    "_remote_addr",
    "class_uid",
    "resourceLogs",
)
OTHER_EVENT = nearly(
    {"specversion": TEXT, "id": NAME, "data": TRAP | STATE | LIFECYCLE | OCSF | OBJECT},
    {"source": TEXT, "type": TEXT, "datacontenttype": TEXT, "subject": TEXT, "time": TIME, "extension": JSON},
    "data_base64",
    "short_message",
)
HOST = nearly(
    {"host_ip": NAME, "last_sweep_time": TIME},
    {
        "gateway_id": TEXT,
        "agent_id": TEXT,
        "partition": TEXT,
        "network_cidr": TEXT | st.none(),
        "hostname": TEXT | st.none(),
        "mac": TEXT | st.none(),
        "icmp_available": st.booleans() | st.none(),
        "icmp_response_time_ns": st.integers(-(2**63), 2**63) | st.none(),
        "icmp_packet_loss": NUMBER | st.none(),
        "tcp_ports_scanned": st.lists(JSON, max_size=3) | st.none(),
        "tcp_ports_open": st.lists(JSON, max_size=3) | st.none(),
        "port_scan_results": st.lists(OBJECT, max_size=3) | st.none(),
        "first_seen": TIME | st.none(),
        "metadata": OBJECT | st.none(),
    },
    "poller_id",
    "hosts",
)


@given(LOG, st.booleans())
def test_logs(record: dict[str, Any], escape: bool) -> None:
    """Flat logs."""
    compare(STREAMS["LOGS"], record, escape=escape)


@given(METRIC, st.booleans())
def test_telemetry(record: dict[str, Any], escape: bool) -> None:
    """Measurements."""
    compare(STREAMS["TELEMETRY"], record, escape=escape)


@given(EVENT, st.booleans())
def test_events(record: dict[str, Any], escape: bool) -> None:
    """GELF in CloudEvents."""
    compare(STREAMS["EVENTS"], record, escape=escape)


@given(OTHER_EVENT, st.booleans())
def test_events_of_other_shapes(record: dict[str, Any], escape: bool) -> None:
    """Traps, changes of state and lifecycle in CloudEvents."""
    compare(STREAMS["EVENTS"], record, escape=escape)


@given(HOST, st.booleans())
def test_sweeps(record: dict[str, Any], escape: bool) -> None:
    """Hosts."""
    compare(STREAMS["SWEEP"], record, escape=escape)


LOG_RECORD = {
    "timestamp": 1765535400123456789,
    "severity_number": 9,
    "severity_text": "INFO",
    "resource": {"service.name": "cart"},
    "scope": "lib",
    "body": "cart loaded",
    "attributes": {"items": 0},
}
METRIC_RECORD = {
    "timestamp": "2025-12-12T10:30:00.250Z",
    "gateway_id": "edge-07",
    "metric_name": "ifInOctets",
    "metric_type": "snmp",
    "value": 99120044812,
    "tags": {"ifName": "ge-0/0/1"},
    "metadata": None,
}


GELF_RECORD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e-1",
    "source": "nats://events/events.syslog",
    "type": "cef_severity",
    "datacontenttype": "application/json",
    "subject": "events.syslog.processed",
    "time": "2025-12-12T10:30:00.250Z",
    "data": {
        "version": "1.1",
        "host": "fw-3",
        "short_message": "deny",
        "full_message": None,
        "timestamp": 1765535400.25,
        "level": 4,
        "_remote_addr": "default:10.20.0.3",
    },
}
HOST_RECORD = {
    "host_ip": "10.0.0.7",
    "gateway_id": "edge-07",
    "hostname": "h-7",
    "mac": None,
    "icmp_available": True,
    "icmp_response_time_ns": 1481200,
    "icmp_packet_loss": 0,
    "tcp_ports_scanned": [22, 80],
    "tcp_ports_open": [],
    "port_scan_results": None,
    "last_sweep_time": "2025-12-12T10:30:00.250Z",
    "first_seen": "2025-12-11T10:30:00Z",
    "metadata": {"scanner": "icmp"},
}
COMMON: dict[str, dict[str, Any]] = {
    "LOGS": LOG_RECORD,
    "TELEMETRY": METRIC_RECORD,
    "EVENTS": GELF_RECORD,
    "SWEEP": HOST_RECORD,
}


ID_RECORD = LOG_RECORD | {"trace_id": "5B8EFFF798038103D269B633813FC60C", "span_id": "eee19b7ec3c1b174"}


@pytest.mark.parametrize(
    "text", ["Order-17", "ABC", "W47/95gDgQPSabYzgT/GDA", "7uGbfsPBsXQ=", "0" * 16, "A B", "\u00dc", ""]
)
@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_ids_of_logs(name: str, text: str) -> None:
    """One that is none, or no hexadecimal text, takes the fallback, alone; all of them are as there."""
    records = (ID_RECORD, ID_RECORD | {name: text}, ID_RECORD)
    payloads = [json.dumps(record, ensure_ascii=False).encode() for record in records]
    messages = [
        Message("logs.x", payload, number, 1_765_535_400_123_456_789) for number, payload in enumerate(payloads)
    ]
    assert agree_on_all(STREAMS["LOGS"], messages) == [True, text in ("ABC", ""), True]


NESTED = {"LOGS": "attributes", "TELEMETRY": "tags", "EVENTS": "extension", "SWEEP": "metadata"}


def fast(stream: str, messages: list[Message]) -> list[Any]:
    """What the fast path of a stream makes of messages."""
    declared = STREAMS[stream]
    assert declared.fast is not None
    return [*declared.fast(messages)]


@pytest.mark.parametrize("stream", COMMON)
def test_the_common_records_take_the_fast_path(stream: str) -> None:
    """Otherwise it would be of no use."""
    assert compare(STREAMS[stream], COMMON[stream], escape=True)


@pytest.mark.parametrize(
    ("stream", "change"),
    [
        ("LOGS", {"body": "nul \0"}),
        ("LOGS", {"attributes": {"x": "\ud800"}}),
        ("LOGS", {"attributes": {"x": 1e300}, "host": "h"}),
        ("LOGS", {"severity_number": 0}),
        ("LOGS", {"timestamp": 1765535400}),
        ("LOGS", {"attributes": []}),
        ("LOGS", {"resource": {"service.name": 5}}),
        ("LOGS", {"body": None}),
        ("TELEMETRY", {"timestamp": "20251212"}),  # a number of seconds in text
        ("TELEMETRY", {"if_index": 2**31}),
        ("EVENTS", {"id": ""}),
        ("EVENTS", {"data": {**GELF_RECORD["data"], "level": 2**31}}),
        ("EVENTS", {"data": {**GELF_RECORD["data"], "host": "\ud800"}}),
        ("SWEEP", {"poller_id": "p"}),
        ("SWEEP", {"host_ip": ""}),
        ("SWEEP", {"last_sweep_time": "20251212"}),
        ("SWEEP", {"first_seen": "0001-01-01T00:00:00Z"}),
        ("SWEEP", {"icmp_response_time_ns": 2**63}),
        ("SWEEP", {"icmp_packet_loss": 2**53 + 1}),
        ("SWEEP", {"tcp_ports_open": "[80]"}),
        ("SWEEP", {"metadata": ""}),
    ],
)
def test_what_is_not_common_takes_the_fallback(stream: str, change: dict[str, Any]) -> None:
    """What to make of it, and whether that is a repair to count, is decided in one place."""
    assert not compare(STREAMS[stream], {**COMMON[stream], **change}, escape=True)


@pytest.mark.parametrize("subject", ["events.otel.logs", "events.netflow.raw", "events.\0"])
def test_events_of_other_streams_take_the_fallback(subject: str) -> None:
    """Where they belong is told by their subject."""
    assert fast("EVENTS", [Message(subject, json.dumps(GELF_RECORD).encode(), 1, 0)]) == [None]


@pytest.mark.parametrize("number", ["1e99999", "1E-99999", "0.1e+99999"])
def test_numbers_that_jsonb_might_refuse_take_the_fallback(number: str) -> None:
    """msgspec does not look at numbers in what it leaves undecoded."""
    payload = json.dumps(LOG_RECORD).replace('"items": 0', f'"items": {number}').encode()
    assert fast("LOGS", [Message("logs.x", payload, 1, 0)]) == [None]


def test_bytes_that_are_not_utf8_take_the_fallback() -> None:
    """They are repaired there."""
    payload = json.dumps(LOG_RECORD).encode().replace(b'"items"', b'"\xff"')
    assert fast("LOGS", [Message("logs.x", payload, 1, 0)]) == [None]
    decoded = STREAMS["LOGS"].decode(Message("logs.x", payload, 1, 0))
    assert len(decoded.rows) == 1


def test_the_first_moment_of_2000_is_a_time() -> None:
    """It is 0 in PostgreSQL's own count, and no missing time."""
    decoded = STREAMS["LOGS"].decode(Message("logs.x", b'{"timestamp":"2000-01-01T00:00:00Z","body":"x"}', 1, 10**18))
    assert decoded.rows[0][0] == 0


def test_each_of_many_messages_goes_its_own_way() -> None:
    """One that does not fit leaves its neighbours alone."""
    fits = json.dumps(LOG_RECORD).encode()
    payloads = [
        fits,
        fits.replace(b'"items": 0', b'"items": 1e99999'),
        b'{"version":"1.1","host":"r1","short_message":"link down"}',
        b"\xff",
        fits,
    ]
    messages = [Message("logs.x", payload, number, 10**18) for number, payload in enumerate(payloads)]
    rows = fast("LOGS", messages)
    assert [row is not None for row in rows] == [True, False, False, False, True]
    assert rows[0] == rows[4] == fast("LOGS", messages[:1])[0]


@pytest.mark.parametrize("stream", sorted(NESTED))
def test_a_long_number_is_kept_whatever_its_neighbours_are(stream: str) -> None:
    """Behind 200 messages that fit, or alone: with every digit, in one way."""
    declared, common = STREAMS[stream], json.dumps(COMMON[stream]).encode()
    number = b"123456789012345678901234567890"
    long = json.dumps(COMMON[stream] | {NESTED[stream]: {"n": "@"}}).encode().replace(b'"@"', number)
    messages = [Message(f"{stream.lower()}.x", each, 7, 10**18) for each in [*[common] * 200, long]]
    (row,) = declared.decode(messages[-1]).rows
    assert any(
        type(value) in (bytes, str) and number in (value if type(value) is bytes else value.encode()) for value in row
    )
    assert fast(stream, messages)[-1] in (None, row)
    assert fast(stream, messages[-1:])[0] in (None, row)


@pytest.mark.parametrize("value", ["null", "true", '"5"', "[5]", "1e400", "1e-400", "-0", "9007199254740993"])
def test_values_that_are_none_take_the_fallback(value: str) -> None:
    """As do those that it repairs, keeps besides, or rejects."""
    payload = json.dumps(COMMON["TELEMETRY"] | {"value": "@"}).replace('"@"', value).encode()
    agree(STREAMS["TELEMETRY"], payload)
    if value != "-0":
        assert fast("TELEMETRY", [Message("telemetry.x", payload, 7, 10**18)]) == [None]


def test_a_value_that_is_rounded_is_kept_besides() -> None:
    """On the fast path it would be no more than near."""
    record = COMMON["TELEMETRY"] | {"value": "@"}
    payload = json.dumps(record).encode().replace(b'"@"', b"0.12345678901234567890")
    message = Message("telemetry.x", payload, 7, 10**18)
    assert fast("TELEMETRY", [message]) == [None]
    found = STREAMS["TELEMETRY"].decode(message)
    row = dict(zip((column.name for column in STREAMS["TELEMETRY"].columns), found.rows[0], strict=True))
    assert row["value"] == 0.12345678901234568
    assert b'"0.12345678901234567890"' in row["metadata"]
    assert found.repairs == ["rounded"]


@given(
    st.sampled_from(sorted(COMMON)),
    st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 3), st.sampled_from(b'{}[]",:\\0123456789eE+-.ntfu \n\t\x00\x7f\xc3\xff')
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_payloads(name: str, damage: list[tuple[float, int, int]]) -> None:
    """What the fast path does not look at is no less damaged: the fallback takes it, or says the same."""
    nested = {"LOGS": "attributes", "TELEMETRY": "tags", "EVENTS": "extension", "SWEEP": "metadata"}[name]
    data = bytearray(json.dumps(COMMON[name] | {nested: {"a": "b\n", "c": [1, -2.5e3, None]}}).encode())
    for place, width, byte in damage:
        at = int(place * len(data))
        data[at : at + width] = bytes([byte])
    agree(STREAMS[name], bytes(data))


# --- whole batches: what a message becomes is not for its neighbours to decide ---

RECORDS = {"LOGS": LOG, "TELEMETRY": METRIC, "EVENTS": EVENT, "SWEEP": HOST}
NUMBERS = st.sampled_from(
    ["0.1234567890123456789", "1765535400.123456789", "0.30000000000000004", "1e400", "1e-400", "1E5", "1e99", "-0",
     "1765535400123456789", "18446744073709551615", "18446744073709551616", "1" * 40, "12345678901234567e5"]
)  # fmt: skip
DEPTHS = st.sampled_from([1, 100, 251, 252, 253, 254, 255, 300, 900])


@st.composite
def payloads(draw: st.DrawFn, stream: str) -> bytes:
    """A record of a stream that fits, or nearly; with a number or a depth that parsers differ about; or anything."""
    common, nested = COMMON[stream], NESTED[stream]
    kind = draw(st.sampled_from(["common", "nearly", "number", "deep", "array", "damaged", "other"]))
    if kind == "nearly":
        record = draw(RECORDS[stream])
        return json.dumps(record, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind == "number":
        return json.dumps(common | {nested: {"n": "@"}}).replace('"@"', draw(NUMBERS)).encode()
    if kind == "deep":
        depth = draw(DEPTHS)
        return json.dumps(common | {nested: {"n": "@"}}).replace('"@"', "[" * depth + "]" * depth).encode()
    if kind == "array":
        return json.dumps([common] * draw(st.integers(0, 3))).encode()
    octets = json.dumps(common).encode()
    if kind == "damaged":
        place = draw(st.integers(0, len(octets) - 1))
        return octets[:place] + draw(st.binary(max_size=2)) + octets[place + 1 :]
    return (
        octets if kind == "common" else draw(st.sampled_from([b"", b"{}", b"[]", b"5", b"\x0a\x00", b"\xff" + octets]))
    )


@pytest.mark.parametrize("stream", COMMON)
@given(data=st.data())
def test_the_rows_of_a_batch_are_those_of_the_fallback(stream: str, data: st.DataObject) -> None:
    """Whatever the neighbours are."""
    batch = data.draw(st.lists(payloads(stream), min_size=1, max_size=12))
    headers = data.draw(st.sampled_from([None, None, {"Nats-Msg-Id": "7"}]))
    messages = [Message(f"{stream.lower()}.x", each, number, 10**18) for number, each in enumerate(batch)]
    messages[-1] = messages[-1]._replace(headers=headers)
    together = agree_on_all(STREAMS[stream], messages)
    alone = [agree_on_all(STREAMS[stream], [message])[0] for message in messages]
    assert not any(taken and not by_itself for taken, by_itself in zip(together, alone, strict=True))


@pytest.mark.parametrize("stream", COMMON)
def test_common_records_take_the_fast_path_among_others(stream: str) -> None:
    """So what agrees above is not only batches that it leaves alone."""
    common = json.dumps(COMMON[stream]).encode()
    batch = [common, b"{}", common, b"\xff", common.replace(b"{", b"[", 1), common]
    messages = [Message(f"{stream.lower()}.x", each, number, 10**18) for number, each in enumerate(batch)]
    assert agree_on_all(STREAMS[stream], messages) == [True, False, True, False, False, True]


@pytest.mark.parametrize("encoding", ENCODINGS["EVENTS"])
def test_events_of_every_shape_take_the_fast_path(encoding: str) -> None:
    """As long as they are objects in structured CloudEvents."""
    traffic = Traffic("EVENTS", only=encoding, clock=lambda: 1_765_535_400.0)
    chunk = [Message(p.subject, p.payload, 1, 10**18, p.headers) for p in (traffic.next() for _ in range(32))]
    assert all(agree_on_all(STREAMS["EVENTS"], chunk))


@pytest.mark.parametrize(("stream", "encoding"), [(name, each) for name in ENCODINGS for each in ENCODINGS[name]])
def test_decoding_leaves_nothing_behind(stream: str, encoding: str) -> None:
    """A worker decodes billions of messages: what a library forgets to free would fill the memory."""
    declared = STREAMS[stream]
    traffic = Traffic(stream, only=encoding, records=3, clock=lambda: 1_765_535_400.0)
    chunk = [Message(p.subject, p.payload, 1, 10**18, p.headers) for p in (traffic.next() for _ in range(32))]

    def decode(times: int) -> int:
        for _ in range(times):
            for message, row in zip(chunk, fast_rows(declared, chunk), strict=True):
                if row is None:
                    declared.decode(message)
        gc.collect()
        return sys.getallocatedblocks()

    before = decode(20)
    assert decode(60) - before < 32  # not one block for every other chunk


@pytest.mark.parametrize("shape", ['"short_message":"x","timestamp":%s', '"device_id":"d","action":%s', '"level":%s'])
@pytest.mark.parametrize("number", ["1.5E-7656", "0.0", "1765535400.1234569999999999", "610765535401.123456"])
def test_a_number_has_all_its_digits(shape: str, number: str) -> None:
    """As the time, the level or in the text of an event of no known shape: as a float it may be another one."""
    agree(STREAMS["EVENTS"], f'{{"specversion":"1.0","id":"6","data":{{{shape % number}}}}}'.encode())
