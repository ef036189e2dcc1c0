"""The short way and the general way give the same row for what fits the short one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventwriter import registry
from eventwriter.stream import Message
from quick import JSON, OBJECT, TEXT, compare, plain
from workers import _logs_typed, _telemetry_typed

STREAMS = registry.load()
RESOURCE = OBJECT | st.dictionaries(
    st.sampled_from(["service.name", "service.version", "service.instance.id", "x"]),
    TEXT | st.none() | st.integers(),
    max_size=4,
)
LOG = st.fixed_dictionaries(
    {
        "timestamp": st.integers(10**17, 2**63 - 1) | JSON,
        "severity_number": st.integers(1, 24) | JSON,
        "severity_text": TEXT | JSON,
        "body": TEXT | JSON,
        "resource": RESOURCE | JSON,
        "attributes": OBJECT | JSON,
    },
    optional={"scope": TEXT | JSON, "trace_id": TEXT | JSON, "span_id": TEXT | JSON, "host": TEXT},
)
METRIC = st.fixed_dictionaries(
    {
        "timestamp": st.integers(0, 2**63)
        | st.sampled_from(["2025-12-12T10:30:00.25Z", "", "soon", "0001-01-01T00:00:00Z"]),
        "gateway_id": TEXT | JSON,
        "metric_name": TEXT | JSON,
        "metric_type": TEXT | JSON,
        "value": st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | JSON,
    },
    optional={
        "agent_id": TEXT | JSON,
        "tags": OBJECT | JSON,
        "metadata": OBJECT | JSON,
        "scale": st.integers() | JSON,
        "is_delta": st.booleans() | JSON,
        "if_index": st.integers() | JSON,
        "unit": TEXT | JSON,
        "other": JSON,
    },
)


@given(LOG, st.booleans())
def test_logs(record: dict[str, Any], escape: bool) -> None:
    """Flat logs."""
    compare(STREAMS["LOGS"], _logs_typed.typed_rows, record, escape=escape)


@given(METRIC, st.booleans())
def test_telemetry(record: dict[str, Any], escape: bool) -> None:
    """Measurements."""
    compare(STREAMS["TELEMETRY"], _telemetry_typed.typed_rows, record, escape=escape)


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


def test_the_common_records_take_the_short_way() -> None:
    """Otherwise it would be of no use."""
    assert compare(STREAMS["LOGS"], _logs_typed.typed_rows, LOG_RECORD, escape=True)
    assert compare(STREAMS["TELEMETRY"], _telemetry_typed.typed_rows, METRIC_RECORD, escape=True)


@pytest.mark.parametrize(
    "change",
    [
        {"body": "nul \0"},
        {"attributes": {"x": "\ud800"}},
        {"attributes": {"x": 1e300}, "host": "h"},
        {"severity_number": 0},
        {"timestamp": 1765535400},
        {"attributes": []},
        {"resource": {"service.name": 5}},
        {"body": None},
    ],
)
def test_what_needs_a_repair_goes_the_general_way(change: dict[str, Any]) -> None:
    """Repairs are made, and counted, in one place."""
    assert not compare(STREAMS["LOGS"], _logs_typed.typed_rows, {**LOG_RECORD, **change}, escape=True)


@pytest.mark.parametrize("number", ["1e99999", "1E-99999", "0.1e+99999"])
def test_numbers_that_jsonb_might_refuse_go_the_general_way(number: str) -> None:
    """msgspec does not look at numbers in what it leaves undecoded."""
    payload = json.dumps(LOG_RECORD).replace('"items": 0', f'"items": {number}').encode()
    assert _logs_typed.typed_rows([Message("logs.x", payload, 1, 0)]) == [None]


def test_bytes_that_are_not_utf8_go_the_general_way() -> None:
    """They are repaired there."""
    payload = json.dumps(LOG_RECORD).encode().replace(b'"items"', b'"\xff"')
    assert _logs_typed.typed_rows([Message("logs.x", payload, 1, 0)]) == [None]
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
    rows = _logs_typed.typed_rows(messages)
    assert [row is not None for row in rows] == [True, False, False, False, True]
    assert rows[0] == rows[4] == _logs_typed.typed_rows(messages[:1])[0]


@given(
    st.sampled_from([("LOGS", LOG_RECORD, _logs_typed), ("TELEMETRY", METRIC_RECORD, _telemetry_typed)]),
    st.lists(
        st.tuples(
            st.floats(0, 1), st.integers(0, 3), st.sampled_from(b'{}[]",:\\0123456789eE+-.ntfu \n\t\x00\x7f\xc3\xff')
        ),
        min_size=1,
        max_size=3,
    ),
)
def test_damaged_payloads(stream: tuple[str, dict[str, Any], Any], damage: list[tuple[float, int, int]]) -> None:
    """What the short way does not look at is no less damaged: the general way takes it, or says the same."""
    name, record, module = stream
    payload = json.dumps(record | {"attributes" if name == "LOGS" else "tags": {"a": "b\n", "c": [1, -2.5e3, None]}})
    data = bytearray(payload.encode())
    for place, width, byte in damage:
        at = int(place * len(data))
        data[at : at + width] = bytes([byte])
    message = Message(f"{name.lower()}.x", bytes(data), 1, 1_765_535_400_123_456_789)
    (row,) = module.typed_rows([message])
    if row is not None:
        general = STREAMS[name].decode(message)
        assert not general.rejects
        assert not general.repairs
        assert plain(STREAMS[name], row) == plain(STREAMS[name], general.rows[0])
