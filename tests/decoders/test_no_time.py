"""A time that was never set is no time, in every stream: the message's own stands for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from eventwriter import registry
from eventwriter.stream import Message
from eventwriter.values import EPOCH

ARRIVED = 1_765_535_400_123_456_789
STREAMS = registry.load()
RECORDS: dict[str, dict[str, Any]] = {
    "LOGS": {"body": "x"},
    "TELEMETRY": {"gateway_id": "g", "value": 1},
    "NETFLOW": {"src_addr": "10.0.0.1", "bytes": 5},
    "OTEL_TRACES": {"trace_id": "a", "span_id": "b", "name": "n"},
    "OTEL_METRICS": {"trace_id": "a", "span_id": "b", "span_name": "n", "value": 1},
    "EVENTS": {"id": "1", "short_message": "m", "version": "1.1"},
    "SWEEP": {"host_ip": "10.0.0.1", "gateway_id": "g", "agent_id": "a", "partition": "p"},
}
NAME = {"SWEEP": "last_sweep_time"}
GO_ZEROS = (
    "0001-01-01T00:00:00Z",
    "0001-01-01T02:00:00+02:00",
    "0001-01-01T00:53:28+00:53",  # Berlin before there was a zone: RFC 3339 has no seconds in offsets
    "0000-12-31T19:03:58-04:56",
    -62_135_596_800,
    "-62135596800",
    -62_135_596_800_000,
    -6_795_364_578_871_345_152,
    "-6795364578871345152",
    11_651_379_494_838_206_464,
    "11651379494838206464",
    "1754-08-30T22:43:41.128654848Z",
)
"""A time.Time that was never set: as RFC 3339 in several zones, in seconds, milliseconds, and as nanoseconds of int64
and uint64, where it wraps around; and what becomes of those when they are read again."""


@pytest.mark.parametrize("stream", RECORDS)
@pytest.mark.parametrize("time", [*GO_ZEROS, "", None, 0, 0.0, "0", "0.0", "000"])
def test_no_time_is_that_of_the_message(stream: str, time: object) -> None:
    """Go's zero, nothing, and 0."""
    payload = json.dumps({**RECORDS[stream], NAME.get(stream, "timestamp"): time}).encode()
    messages = [Message(f"{stream.lower()}.x", payload, 1, ARRIVED, None)]
    decoded = STREAMS[stream].decode(messages[0])
    names = [column.name for column in STREAMS[stream].columns]
    place = names.index(NAME.get(stream, names[0]))
    assert (decoded.rejects, [row[place] for row in decoded.rows]) == ((), [ARRIVED // 1000 - EPOCH])
    path = STREAMS[stream].fast
    fast = path(messages) if path else [None]
    assert fast[0] is None or fast[0] == decoded.rows[0]
