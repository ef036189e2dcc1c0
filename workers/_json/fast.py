"""The shortest way for the commonest JSON: objects whose every value has its expected type already.

msgspec decodes such an object into a typed Struct in one pass and leaves nested JSON as the text it came as, which
jsonb takes without another parse. What has an unknown key, another type, or text that must be repaired does not fit,
and goes the general way; for what fits, both ways give the same row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import Unfit, time_from_text

T = TypeVar("T", bound=msgspec.Struct)

_LONGEST = 65_536
_FEW = 4
_OUTLINE = bytes.maketrans(b"123456789E-", b"000000000e+")
_NUMERIC_LIMIT = (b"0e0000", b"0e+0000")
"""Exponents that jsonb, whose numbers end at 131072 digits, might refuse, in outline."""


def fitted(decoder: msgspec.json.Decoder[T], mark: bytes, messages: Sequence[Message]) -> list[T | None]:
    """Each payload as a Struct, or None if it must go the general way, as do all that lack ``mark``.

    Neighbours are mostly of one kind: if the first few lack it none is tried, for to fail costs as much as to decode.
    """
    if not any(mark in message.payload for message in messages[:_FEW]):
        return [None] * len(messages)
    decode = decoder.decode
    found: list[T | None] = []
    for _, payload, _, _, headers in messages:
        record = None
        # U+0000 and lone surrogates are written as \\u…; one byte alone is found ten times as fast.
        if not (headers or (b"\\" in payload and b"\\u" in payload) or len(payload) > _LONGEST):
            try:
                if not payload.isascii():
                    payload.decode()  # what is left undecoded is not looked at either
                record = decode(payload)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                pass
        found.append(record)
    return found


def common_time(text: str) -> int | None:
    """A time since 2000 with a T in its place as timestamptz; None if it must go the general way."""
    if text[10:11] != "T":  # a number in text, maybe
        return None
    try:
        time = time_from_text(text)
    except Unfit:
        return None
    return time if time > 0 else None  # not Go's zero, for one


def without_large_exponents(
    rows_of: Callable[[Sequence[Message], list[bytes]], list[Row | None]],
) -> Callable[[Sequence[Message]], list[Row | None]]:
    """``rows_of`` but for the rows whose nested JSON, which it gathers, has numbers that jsonb might refuse."""

    @functools.wraps(rows_of)
    def checked(messages: Sequence[Message]) -> list[Row | None]:
        nested: list[bytes] = []
        rows = rows_of(messages, nested)
        outline = b" ".join(nested).translate(_OUTLINE)  # one search for all of them, as there hardly ever is one
        if any(limit in outline for limit in _NUMERIC_LIMIT):
            return [None] if len(messages) == 1 else [row for message in messages for row in checked((message,))]
        return rows

    return checked
