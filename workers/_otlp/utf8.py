"""Mends protobuf messages whose only fault is text that is not UTF-8, such as one that was cut inside a character,
or binary in an attribute or a body.

Protobuf parsers refuse the whole message for it, so one bad string would cost all records of a request.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from workers._wire import GROUP, GROUP_END, LENGTH, as_varint, fields

_MAX_DEPTH = 100
"""Levels of messages, as in protobuf's own parsers."""
_MAX_FIELDS = 1_000_000
"""Fields that are looked at: in a few seconds, and most messages with more are something else."""


def mended(payload: bytes, descriptor: Any) -> tuple[bytes, int]:
    """The message with U+FFFD for what is not UTF-8 in its string fields, and the number of strings that were mended.

    Raises ValueError if the bytes are no such message even then, or one with more fields than is worth the time.
    """
    return _mended(payload, descriptor, 0, count())


def _mended(data: bytes, descriptor: Any, depth: int, fields_before: Iterator[int]) -> tuple[bytes, int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    known = descriptor.fields_by_number
    out = bytearray()
    mends = place = 0
    for tag, begin, end in fields(data, 0, len(data)):
        if next(fields_before) == _MAX_FIELDS:
            raise ValueError("too many fields")
        kind = tag & 7
        if kind in (GROUP, GROUP_END):
            raise ValueError("a group")
        if kind == LENGTH:
            chunk, repaired = data[begin:end], 0
            field = known.get(tag >> 3)
            if field is not None and field.type == field.TYPE_STRING:
                chunk = chunk.decode("utf-8", "replace").encode()
                repaired = chunk != data[begin:end]
            elif field is not None and field.type == field.TYPE_MESSAGE:
                chunk, repaired = _mended(chunk, field.message_type, depth + 1, fields_before)
            mends += repaired
            out += as_varint(tag) + as_varint(len(chunk)) + chunk
        else:
            out += data[place:end]
        place = end
    return bytes(out), mends
