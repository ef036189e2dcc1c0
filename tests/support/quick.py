"""What the tests of the quick ways share: values of every kind, and the comparison with the general way."""

from __future__ import annotations

import json
from typing import Any

import orjson
from hypothesis import strategies as st

from eventwriter.stream import Message, Stream

TEXT = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"]), max_size=12)
"""Without what JSON writes as \\u…, which the short ways do not take."""
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
    """Records that fit the short way, but for up to two keys, of these or ``others``, that have any value."""
    odd = st.dictionaries(st.sampled_from([*fitting, *optional, *others]), JSON, max_size=2)
    return st.builds(lambda record, change: record | change, st.fixed_dictionaries(fitting, optional=optional), odd)


def plain(stream: Stream, row: tuple[Any, ...]) -> list[Any]:
    """A row with its JSON parsed."""
    return [
        orjson.loads(value) if column.type == "jsonb" and value is not None else value
        for column, value in zip(stream.columns, row, strict=True)
    ]


def compare(stream: Stream, typed: Any, record: dict[str, Any], *, escape: bool) -> bool:
    """``agree`` on a record, whose text is written in ASCII if it is to ``escape`` the rest."""
    return agree(stream, typed, json.dumps(record, ensure_ascii=escape).encode("utf-8", "surrogatepass"))


def agree(stream: Stream, typed: Any, payload: bytes) -> bool:
    """Whether the short way took a payload; if it did, the general way says the same."""
    message = Message(f"{stream.name.lower()}.x", payload, 1, 1_765_535_400_123_456_789)
    (row,) = typed([message])
    if row is None:
        return False
    general = stream.decode(message)
    assert not general.rejects
    assert not general.repairs
    assert plain(stream, row) == plain(stream, general.rows[0])
    return True
