"""What the tests of the JSON streams share: messages, rows by column name, and payloads that hypothesis makes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from checks import decode_checked
from eventwriter.stream import Decoded, Message, Stream

SEQUENCE = 4711
RECEIVED = "2025-12-12T10:30:09.123456Z"
RECEIVED_NANOS = 1_765_535_409_123_456_789
"""The JetStream timestamp of every message here: RECEIVED and 789 ns."""


def at(text: str) -> int:
    """RFC 3339 text as timestamptz: microseconds since 2000."""
    moment = datetime.fromisoformat(text)
    return (moment - datetime(2000, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def message(payload: bytes | str | Any, subject: str, headers: dict[str, str] | None = None) -> Message:
    """A message with this payload: bytes and text as they are, anything else as its JSON."""
    if isinstance(payload, str):
        payload = payload.encode()
    elif not isinstance(payload, bytes):
        payload = json.dumps(payload).encode()
    return Message(subject, payload, SEQUENCE, RECEIVED_NANOS, headers)


def decoded(stream: Stream, payload: Any, subject: str | None = None, headers: dict[str, str] | None = None) -> Decoded:
    """What a payload on a stream decodes to, checked against the stream's columns, and for being deterministic."""
    return decode_checked(stream, message(payload, subject or stream.subjects[0].replace(">", "test"), headers))


def rows(stream: Stream, found: Decoded) -> list[dict[str, Any]]:
    """The rows as dictionaries, jsonb parsed."""
    return [
        {
            column.name: json.loads(value) if column.type == "jsonb" and value is not None else value
            for column, value in zip(stream.columns, row, strict=True)
        }
        for row in found.rows
    ]


def only_row(stream: Stream, payload: Any, **options: Any) -> dict[str, Any]:
    """The single row of a payload without rejects."""
    found = decoded(stream, payload, **options)
    assert not found.rejects
    (row,) = rows(stream, found)
    return row


def reasons(found: Decoded) -> list[tuple[str, int | None]]:
    """Reason and record index of each reject."""
    return [(reject.reason, reject.record_index) for reject in found.rejects]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["", "0", "3", "-1", "true", "1e999", "NaN", "2025-12-12T10:30:00Z", "{}", "[1]", "\0", "12abc"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
"""JSON values of all kinds, with those that conversions find hard among them."""


def records_with(names: Iterable[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with these keys and whatever values."""
    return st.dictionaries(st.sampled_from(sorted(names)), json_values, max_size=20)


def damaged(samples: list[str]) -> st.SearchStrategy[bytes]:
    """Samples cut off, or with one byte replaced."""

    def damage(sample: str, place: int, byte: int | None) -> bytes:
        octets = sample.encode()
        place %= len(octets)
        return octets[:place] if byte is None else octets[:place] + bytes([byte]) + octets[place + 1 :]

    return st.builds(damage, st.sampled_from(samples), st.integers(0, 2**16), st.none() | st.integers(0, 255))


HOSTILE = {
    "nested": b"[" * 10_000 + b"]" * 10_000,
    "nested objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "nested as deep as is parsed": b'{"metadata":' + b"[" * 1000 + b"]" * 1000 + b',"host_ip":"h","value":1}',
    "nested, with NUL": b'{"metadata":' + b"[" * 900 + rb'"\u0000"' + b"]" * 900 + b',"host_ip":"h","value":1}',
    "long number": b'{"host_ip":"h","timestamp":1,"value":' + b"9" * 10_000 + b"}",
    "long number as text": b'{"host_ip":"h","timestamp":1,"value":"'
    + b"9" * 10_000
    + b'","level":"'
    + b"9" * 500
    + b'"}',
    "huge exponent": b'{"host_ip":"h","timestamp":"1e999999999","value":"1e999999999","level":1e400}',
    "long text": b'{"host_ip":"h","value":1,"short_message":"' + b"x" * 2**20 + b'"}',
    "long time": b'{"host_ip":"h","value":1,"timestamp":"' + b"2" * 2**20 + b'"}',
    "many keys": b'{"host_ip":"h","value":1,' + b",".join(b'"k%d":%d' % (n, n) for n in range(100_000)) + b"}",
    "many records": b"[" + b",".join([b"1"] * 100_000) + b"]",
    "many byte order marks": b"\xef\xbb\xbf" * 10_000 + b"{}",
}
"""Payloads that must neither fail nor take long."""
