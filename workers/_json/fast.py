"""The fast path of JSON streams: messages that are one flat record each, whose every value has its expected type.

msgspec decodes such an object into a Struct, nested JSON stays as it came, and Structs become rows column by column.
What has an unknown key, another type, or text that must be repaired does not fit, and takes the fallback.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import compress, repeat
from operator import itemgetter
from typing import Any, TypeVar, get_type_hints

import msgspec
from msgspec.structs import astuple

from eventwriter.masking.community import all_masked
from eventwriter.stream import Column, Message, Row
from eventwriter.values import EPOCH, MAX_DEPTH, real_from_text

T = TypeVar("T", bound=msgspec.Struct)

_LONGEST = 65_536
_DEEP = 2 * MAX_DEPTH
"""Bytes that are needed for nesting which the fallback refuses."""
_NULLS = {*b"n"}
_first = itemgetter(0)
_OUTLINE = bytes.maketrans(b"123456789.E", b"0000000000e")
_LONG, _FAR = b"0" * 17, b"0e000"
"""Numbers of which the fallback might keep less, in outline and without signs: with more digits than float64 tells
apart, or an exponent beyond its own."""
_number = re.compile(rb"[0-9][0-9.]{16,}[eE]?|[eE][-+]?[0-9]{3}").findall
_INTEGER_MAX = 19
"""Digits of an integer that the fallback takes exactly."""

Fast = Callable[[Sequence[Message]], list[Row | None]]
"""A fast path."""

Columns = Mapping[str, Iterable[Any]]
"""The values of a batch by the names of their columns; a column that is not there is NULL."""
Arrivals = tuple[Sequence[str], Sequence[bytes], Sequence[int]]
"""Subjects, payloads and times of messages."""
ColumnsOf = Callable[[Arrivals, Sequence[T], set[int]], Columns]
"""Makes them of messages and their records; the places of those that take the fallback all the same go to the set."""


def fast_path(
    columns: Sequence[Column],
    record: type[T],
    mark: bytes,
    columns_of: ColumnsOf[T],
) -> Fast:
    """The fast path for messages that are a ``record`` each, with the key ``mark``.

    Neighbours are mostly of one kind: if the first few lack the mark none is tried, for to fail costs as much as to
    decode.
    """
    decode = msgspec.json.Decoder(record, float_hook=real_from_text).decode  # as the fallback, where any value may be
    names = [column.name for column in columns]

    def fast_rows(messages: Sequence[Message]) -> list[Row | None]:
        if not any(mark in message.payload for message in messages[:4]):
            return [None] * len(messages)
        subjects, payloads, _, times, headers = zip(*messages, strict=True)
        records = _decoded(payloads, headers, decode)
        found = [each for each in records if each is not None]
        if not found:
            return [None] * len(messages)
        if len(found) == len(messages):
            return rows_of((subjects, payloads, times), found)
        fits = [each is not None for each in records]
        subjects, payloads, times = (tuple(compress(column, fits)) for column in (subjects, payloads, times))
        rows = iter(rows_of((subjects, payloads, times), found))
        return [next(rows) if each else None for each in fits]

    def rows_of(arrivals: Arrivals, records: Sequence[T]) -> list[Row | None]:
        odd: set[int] = set()
        values = columns_of(arrivals, records, odd)
        nulls = repeat(None)  # endless: ``zip`` ends with the others
        rows: list[Row | None] = [*zip(*[values.get(name, nulls) for name in names], strict=False)]
        for place in odd:
            rows[place] = None
        return rows

    return fast_rows


def in_turn(first: Fast, second: Fast) -> Fast:
    """The fast path that tries the second one with the messages that the first left."""

    def fast_rows(messages: Sequence[Message]) -> list[Row | None]:
        rows = first(messages)
        if None in rows:
            others = iter(second([message for message, row in zip(messages, rows, strict=True) if row is None]))
            rows = [next(others) if row is None else row for row in rows]
        return rows

    return fast_rows


def _decoded(payloads: Sequence[bytes], headers: Sequence[Any], decode: Callable[[bytes], T]) -> Sequence[T | None]:
    """The record that each of these payloads is, or None for one that takes the fallback."""
    text = b"".join(payloads)  # what begins or ends within a character or an escape is not JSON anyway
    large = max(map(len, payloads)) > _DEEP and any(map(_is_deep, payloads))
    easy = not large and _is_plain(text) and not any(headers)
    if easy:
        try:
            return [*map(decode, payloads)]
        except msgspec.MsgspecError:  # one by one
            pass

    def record_of(payload: bytes, header: Any) -> T | None:
        try:
            return decode(payload) if easy or not (header or _is_deep(payload) or not _is_plain(payload)) else None
        except msgspec.MsgspecError:
            return None

    return [*map(record_of, payloads, headers)]


def _is_plain(text: bytes) -> bool:
    """Whether text needs neither repair nor a look at what is left undecoded."""
    # U+0000 and lone surrogates are written as \\u…; one byte alone is found ten times as fast.
    if b"\\" in text and b"\\u" in text:
        return False
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
    return True


def _is_deep(payload: bytes) -> bool:
    """Whether it may be nested deeper than the fallback takes, or is large, or an array: to try that costs more."""
    return payload[:1] != b"{" or (
        len(payload) > _DEEP and (len(payload) > _LONGEST or payload.count(b"[") + payload.count(b"{") > MAX_DEPTH)
    )


def _is_odd(number: bytes) -> bool:
    return not number.isdigit() or len(number) > _INTEGER_MAX


def members_of(record: type[T]) -> Callable[[Sequence[T]], dict[str, tuple[Any, ...]]]:
    """What gives the values of some records by the names of members; of a record within them, under ``its.name``."""
    names = record.__struct_fields__
    kinds = [(name, kind) for name, kind in get_type_hints(record).items() if isinstance(kind, type)]
    within = [(name, members_of(kind)) for name, kind in kinds if issubclass(kind, msgspec.Struct)]

    def members(records: Sequence[T]) -> dict[str, tuple[Any, ...]]:
        found = dict(zip(names, zip(*map(astuple, records), strict=True), strict=True))
        for outer, inner in within:
            found |= {f"{outer}.{name}": column for name, column in inner(found[outer]).items()}
        return found

    return members


def received(arrivals: Arrivals) -> list[int]:
    """The times of messages as timestamptz."""
    return [time // 1000 - EPOCH for time in arrivals[2]]


def nested_json(raws: Iterable[msgspec.Raw], odd: set[int], kinds: bytes = b"{[") -> Sequence[bytes | None]:
    """The texts of objects and arrays, or of one of these ``kinds``; None for null."""
    texts = all_masked([*map(bytes, raws)])
    outline = b" ".join(texts).translate(_OUTLINE, b"+-")
    if _LONG in outline or _FAR in outline:  # one search for all of them, as there hardly ever is one
        odd.update(place for place, text in enumerate(texts) if any(map(_is_odd, _number(text))))
    others = {*map(_first, texts)}.difference(kinds)
    if not others:
        return texts
    if others != _NULLS:
        odd.update(place for place, text in enumerate(texts) if text[0] not in kinds and text[0] not in _NULLS)
    return [None if text == b"null" else text for text in texts]
