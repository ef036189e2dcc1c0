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
}


@pytest.mark.parametrize("stream", RECORDS)
@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "", None, 0, "0"])
def test_no_time_is_that_of_the_message(stream: str, time: object) -> None:
    """Go's zero, nothing, and 0."""
    payload = json.dumps({**RECORDS[stream], "timestamp": time}).encode()
    messages = [Message(f"{stream.lower()}.x", payload, 1, ARRIVED, None)]
    decoded = STREAMS[stream].decode(messages[0])
    assert (decoded.rejects, [row[0] for row in decoded.rows]) == ((), [ARRIVED // 1000 - EPOCH])
    path = STREAMS[stream].fast
    fast = path(messages) if path else [None]
    assert fast[0] is None or fast[0] == decoded.rows[0]
