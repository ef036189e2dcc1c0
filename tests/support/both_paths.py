"""What the tests of fast paths share: values of every kind, and the comparison with the fallback."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
from hypothesis import strategies as st

from eventwriter.stream import Message, Stream

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=12)
"""Without what JSON writes as \\u…, which fast paths do not take."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=5,
)
OBJECT = st.dictionaries(TEXT, JSON, max_size=4)


def nearly(
    fitting: dict[str, st.SearchStrategy[Any]], optional: dict[str, st.SearchStrategy[Any]], *others: str
) -> st.SearchStrategy[dict[str, Any]]:
    """Records that fit the fast path, but for up to two keys, of these or ``others``, that have any value."""
    odd = st.dictionaries(st.sampled_from([*fitting, *optional, *others]), JSON, max_size=2)
    return st.builds(lambda record, change: record | change, st.fixed_dictionaries(fitting, optional=optional), odd)


def plain(stream: Stream, row: tuple[Any, ...]) -> list[Any]:
    """A row with its JSON parsed."""
    return [
        orjson.loads(value) if column.type == "jsonb" and value is not None else value
        for column, value in zip(stream.columns, row, strict=True)
    ]


def compare(stream: Stream, record: dict[str, Any], *, escape: bool) -> bool:
    """``agree`` on a record, whose text is written in ASCII if it is to ``escape`` the rest."""
    return agree(stream, json.dumps(record, ensure_ascii=escape).encode("utf-8", "surrogatepass"))


def agree(stream: Stream, payload: bytes) -> bool:
    """Whether the fast path took a payload; if it did, the fallback says the same."""
    return agree_on_all(stream, [Message(f"{stream.name.lower()}.x", payload, 1, 1_765_535_400_123_456_789)])[0]


def agree_on_all(stream: Stream, messages: list[Message]) -> list[bool]:
    """Which messages of a batch the fast path took; for those it gives the row of the fallback, to the last digit."""
    assert stream.fast is not None
    rows = stream.fast(messages)
    assert len(rows) == len(messages)
    for message, row in zip(messages, rows, strict=True):
        if row is not None:
            fallback = stream.decode(message)
            assert not fallback.rejects
            assert not fallback.repairs
            assert exact(stream, row) == exact(stream, fallback.rows[0])
            assert [*map(type, row)] == [*map(type, fallback.rows[0])]
    return [row is not None for row in rows]


def exact(stream: Stream, row: tuple[Any, ...]) -> list[Any]:
    """A row with its JSON parsed, and every digit of the numbers in it, the sign of 0 included."""
    return [
        json.loads(value, parse_float=Decimal, parse_int=Decimal)
        if column.type == "jsonb" and value is not None
        else (repr(value) if type(value) is float else value)
        for column, value in zip(stream.columns, row, strict=True)
    ]
