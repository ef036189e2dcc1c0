"""Checks that hold for every stream: what a decoder returns fits the columns that it declares."""

from __future__ import annotations

import json
import math
import re
from typing import Any
from uuid import UUID

from eventwriter.stream import Decoded, Message, Stream
from eventwriter.values import INT4_MAX, INT4_MIN, INT8_MAX, INT8_MIN, MAX_TIME, MIN_TIME

_WORD = re.compile(r"[a-z][a-z0-9_]{0,39}")
_RANGES = {
    "integer": (INT4_MIN, INT4_MAX),
    "bigint": (INT8_MIN, INT8_MAX),
    "timestamptz": (MIN_TIME, MAX_TIME),
}


def check_decoded(stream: Stream, decoded: Decoded) -> Decoded:
    """Asserts that every value of ``decoded`` fits its column in PostgreSQL and that its records are accounted for."""
    assert type(decoded) is Decoded
    for number, row in enumerate(decoded.rows):
        assert type(row) is tuple, f"row {number} is a {type(row).__name__}"
        assert len(row) == len(stream.columns), f"row {number} has {len(row)} values for {len(stream.columns)} columns"
        for column, value in zip(stream.columns, row, strict=True):
            if value is not None:
                _check_value(column.type, value, f"row {number}, column {column.name} ({column.type}): {value!r:.200}")
    for name in stream.key:
        place = [known.name for known in stream.columns].index(name)
        assert all(row[place] is not None for row in decoded.rows), f"key column {name} is None"
    _check_rejects(decoded)
    for repair in decoded.repairs:
        assert _WORD.fullmatch(repair), repair
    return decoded


def decode_checked(stream: Stream, message: Message) -> Decoded:
    """Decodes twice: asserts that it is deterministic and that the result fits; returns it."""
    decoded = check_decoded(stream, stream.decode(message))
    assert repr(stream.decode(message)) == repr(decoded), "decoding the same message twice differs"  # repr: NaN == NaN
    return decoded


def _check_rejects(decoded: Decoded) -> None:
    records = len(decoded.rows) + len(decoded.rejects)
    indexes = []
    for reject in decoded.rejects:
        assert _WORD.fullmatch(reject.reason), reject
        assert 0 < len(reject.detail) <= 500, reject
        assert _is_clean(reject.detail), reject
        assert reject.sqlstate is None, reject
        if reject.record_index is None:
            assert len(decoded.rejects) == 1, "the message as a whole is rejected, and more"
            assert not decoded.rows, "the message as a whole is rejected, and has rows"
        else:
            indexes.append(reject.record_index)
    assert indexes == sorted(set(indexes)), f"record indexes are not unique and in order: {indexes}"
    assert all(0 <= index < records for index in indexes), f"record indexes {indexes} of {records} records"


def _check_value(pg_type: str, value: Any, what: str) -> None:
    if pg_type == "text":
        assert type(value) is str, what
        assert _is_clean(value), what
    elif pg_type in _RANGES:
        low, high = _RANGES[pg_type]
        assert type(value) is int, what
        assert low <= value <= high, what
    elif pg_type == "double precision":
        assert type(value) is float, what
    elif pg_type == "boolean":
        assert type(value) is bool, what
    elif pg_type == "uuid":
        assert type(value) is UUID, what
    elif pg_type == "jsonb":
        assert type(value) is bytes, what
        _check_json(value, what)
    else:
        raise AssertionError(f"unknown type: {what}")


def _check_json(text: bytes, what: str) -> None:
    def refuse(name: str) -> Any:
        raise AssertionError(f"{name} in JSON: {what}")

    def real(digits: str) -> float:
        assert math.isfinite(float(digits)), what
        return float(digits)

    # int: str, for Python does not convert more than 4300 digits.
    value = json.loads(text.decode("utf-8"), parse_constant=refuse, parse_float=real, parse_int=str)
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            assert _is_clean(value), what
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())


def _is_clean(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text
