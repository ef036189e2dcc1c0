"""Whole batches of mixed messages, of all seven streams: what a message becomes is not for its neighbours to decide."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from both_paths import exact
from compression import gz
from eventwriter import registry
from eventwriter.postgres.attempt import fast_rows
from eventwriter.stream import Decoded, Message, Stream
from profiles import examples
from traffic import ENCODINGS, Traffic
from workers import logs, otel_metrics, otel_traces
from workers._guard import total
from workers._json.records import decode_records
from workers._otlp import data_points, reader

STREAMS = registry.load()
SIGNALS: dict[str, Any] = {
    "LOGS": logs._SIGNAL,
    "OTEL_TRACES": otel_traces._SIGNAL,
    "OTEL_METRICS": otel_metrics._SIGNAL,
}
NOW = 1_765_535_400_123_456_789


def sent(stream: str, encoding: str, records: int) -> list[bytes]:
    """Some messages of the benchmark."""
    traffic = Traffic(stream, only=encoding, records=records, clock=lambda: NOW / 1e9)
    return [traffic.next().payload for _ in range(4)]


OWN = {
    name: [each for encoding in ENCODINGS[name] for records in (1, 3) for each in sent(name, encoding, records)]
    for name in ENCODINGS
}
CHANGES: list[Callable[[bytes], bytes]] = [
    gz,
    lambda octets: octets[: len(octets) // 2],
    lambda octets: octets[:40] + b"\0" + octets[41:],
    lambda octets: octets.replace(b"10", b"1e", 1),
    lambda octets: octets + octets,
    lambda octets: b"[" + octets + b"]",
    lambda octets: json.dumps(
        {"specversion": "1.0", "id": "1", "type": "t", "data_base64": base64.b64encode(octets).decode()}
    ).encode(),
]


def messages(name: str) -> st.SearchStrategy[list[Message]]:
    """Mostly the stream's own, some changed, some of other streams, some in an event of binary mode."""
    own = st.sampled_from(OWN[name])
    changed = st.builds(lambda change, octets: change(octets), st.sampled_from(CHANGES), own)
    others = st.sampled_from([each[0] for each in OWN.values()] + [b"", b"{}", b"[]", b"5", b"\n\0", b"\xff"])
    headers = st.sampled_from([None] * 7 + [{"Nats-Msg-Id": "7"}, {"ce-specversion": "1.0", "ce-id": "1"}])
    one = st.tuples(own | own | own | changed | others, headers)
    subject = STREAMS[name].subjects[0].replace(">", "x")
    return st.lists(one, min_size=1, max_size=16).map(
        lambda found: [Message(subject, octets, n, NOW, headers) for n, (octets, headers) in enumerate(found, 1)]
    )


def told(stream: Stream, decoded: Decoded) -> Any:
    """What of a message is compared: rows to the last digit, rejects and repairs."""
    types = [[*map(type, row)] for row in decoded.rows]
    return [exact(stream, row) for row in decoded.rows], types, [*decoded.rejects], sorted(decoded.repairs)


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
@settings(max_examples=examples(80))
def test_a_message_becomes_in_a_batch_what_the_fallback_makes_of_it_alone(name: str, data: st.DataObject) -> None:
    """By either fast path: that of many messages at a time, and that of requests, with what it remembers of others."""
    stream, fallback = STREAMS[name], STREAMS[name].decode
    if name in SIGNALS:
        fallback = total(partial(decode_records, dataclasses.replace(SIGNALS[name], lean=None)))
    batch = data.draw(messages(name))
    reader._ATTRIBUTES.forget()
    data_points._POINTS.clear()
    for _ in range(2):
        for message, row in zip(batch, fast_rows(stream, batch), strict=True):
            found = stream.decode(message) if row is None else Decoded((row,))
            assert told(stream, found) == told(stream, fallback(message)), message


@pytest.mark.parametrize("name", [name for name in STREAMS if STREAMS[name].fast is not None])
def test_the_fast_path_takes_some_of_them(name: str) -> None:
    """So what agrees above is not only what it leaves alone."""
    batch = [Message(STREAMS[name].subjects[0].replace(">", "x"), each, 1, NOW) for each in OWN[name] * 2]
    assert any(row is not None for row in fast_rows(STREAMS[name], batch))
