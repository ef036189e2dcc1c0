"""What the tests of the quick ways share: values of every kind, and the comparison with the general way."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import strategies as st

from eventwriter.stream import Message, Stream

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)


def plain(stream: Stream, row: tuple[Any, ...]) -> list[Any]:
    """A row with its JSON parsed."""
    return [
        orjson.loads(value) if column.type == "jsonb" and value is not None else value
        for column, value in zip(stream.columns, row, strict=True)
    ]


def compare(stream: Stream, typed: Any, record: dict[str, Any], *, escape: bool) -> bool:
    """Whether the short way took it; if it did, the general way says the same."""
    payload = json.dumps(record, ensure_ascii=escape).encode("utf-8", "surrogatepass")
    message = Message(f"{stream.name.lower()}.x", payload, 1, 1_765_535_400_123_456_789)
    (row,) = typed([message])
    if row is None:
        return False
    general = stream.decode(message)
    assert not general.rejects
    assert not general.repairs
    assert plain(stream, row) == plain(stream, general.rows[0])
    return True
