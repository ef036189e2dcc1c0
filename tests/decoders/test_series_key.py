"""The key of a series, as those who have it in their tables compute it."""

from __future__ import annotations

import json
from hashlib import md5
from typing import Any

import pytest

from eventwriter.stream import Message
from workers import telemetry

TABLE = telemetry.TABLE
(COLUMN,) = telemetry.STREAM.computed


def key(**fields: Any) -> str:
    """The key of a measurement, which is the same whichever path decodes it."""
    record = {"timestamp": "2026-05-03T09:00:00Z", "gateway_id": "g", "value": 1.5, **fields}
    message = Message("telemetry.x", json.dumps(record, ensure_ascii=False).encode(), 1, 10**18)
    (row,) = telemetry.STREAM.decode(message).rows
    fast = telemetry.STREAM.fast
    assert fast is not None
    assert COLUMN.of is not None
    for other in fast([message]):
        assert other is None or COLUMN.of(other) == COLUMN.of(row)
    return str(COLUMN.of(row))


GAUGE = {"metric_type": "gauge", "metric_name": "m"}
M = "11:metric_type=5:gauge|11:metric_name=1:m"
VECTORS: list[tuple[dict[str, Any], str]] = [
    (
        {
            "metric_type": "snmp", "metric_name": "ifInOctets", "partition": "default", "agent_id": "agent-a1",
            "device_id": "default:10.20.0.1", "target_device_ip": "10.20.0.1", "if_index": 3,
            "tags": {"target": "10.20.0.1", "metric": "ifInOctets", "interface_uid": "ifindex:3"},
        },
        "7eb03111b66acaa3e34a053e962c38d0",
    ),
    (
        {
            "metric_type": "icmp", "metric_name": "icmp_response_time_ns",
            "tags": {"available": True, "packet_loss": 0.0, "target": "10.0.0.9", "check_id": "c1"},
        },
        "e88b6789812f88087421541704760f8d",
    ),
    (
        {"metric_type": "gauge", "metric_name": "cpu.util", "if_index": 0, "tags": {"core": "0"}},
        "df7e9bc7ae2bd50252af6155c17cbd88",
    ),
    ({"metric_type": "gauge", "metric_name": "cpu.util"}, "192b9ec52bd46a745eadd415bc3f6f51"),
    (
        {"metric_type": "gauge", "metric_name": "temperatur °C", "device_id": "d", "tags": {"ort": "Köln"}},
        "669c59f50ba71d6955654b84a8e39179",
    ),
    ({**GAUGE, "agent_id": "  "}, "63f0bfa1e61074868fc02ab609b910a1"),
    ({**GAUGE, "tags": {"t": None}}, "c893983704173a2b87c7a5c38a8a7078"),
    ({**GAUGE, "tags": {"t": 0.5}}, "6aac0e99b2c47393223845539bf2fbbc"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "expected"), VECTORS, ids=[expected[:8] for _, expected in VECTORS])
def test_vectors(fields: dict[str, Any], expected: str) -> None:
    """Of the platform's own writers."""
    assert key(**fields) == expected


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"agent_id": ""}, M),
        ({"agent_id": "\u2003a \u00a0"}, M + "|8:agent_id=1:a"),
        ({"agent_id": "\x1fa"}, M + "|8:agent_id=2:\x1fa"),
        ({"if_index": 0, "partition": "p"}, M + "|9:partition=1:p|8:if_index=1:0"),
        ({"unit": "s", "scale": 2.0, "device_id": "ü"}, M + "|9:device_id=2:ü"),
        ({"tags": {"available": True, "metric": "x", "packet_loss": 0.0}}, M),
        ({"tags": {"a": "", "b": " \t", "c": " x "}}, M + "|5:tag:c=1:x"),
        ({"tags": {"b": True, "a": False, "B": 7}}, M + "|5:tag:B=1:7|5:tag:a=5:false|5:tag:b=4:true"),
        ({"tags": {"é": 1, "z": 1, "": 2}}, M + "|4:tag:=1:2|5:tag:z=1:1|6:tag:é=1:1"),
        ({"tags": {"t": 1.0, "u": -0.0, "v": 1e300}},
         M + "|5:tag:t=26:1.00000000000000000000e+00|5:tag:u=27:-0.00000000000000000000e+00"
             "|5:tag:v=27:1.00000000000000005250e+300"),
        ({"tags": {"t": 12345678901234567890123}}, M + "|5:tag:t=23:12345678901234567890123"),
        ({"tags": {"t": [1, "a"], "u": {"x": None}}}, M + '|5:tag:t=7:[1,"a"]|5:tag:u=10:{"x":null}'),
        ({"tags": '{"t":"x"}'}, M + "|5:tag:t=1:x"),
        ({"tags": "of no name"}, M),
        ({"tags": ["a"]}, M),
        ({"series_key": "theirs"}, M),
    ],
)  # fmt: skip
def test_each_kind_of_value(fields: dict[str, Any], text: str) -> None:
    """Blank, trimmed, left out, in the order of bytes, and as text; never taken from the message."""
    assert key(**GAUGE, **fields) == md5(text.encode()).hexdigest()


def test_what_is_missing_is_what_is_stored() -> None:
    """Defaults belong to it."""
    expected = "11:metric_type=5:gauge|11:metric_name=7:unknown"
    assert key() == md5(expected.encode()).hexdigest()
