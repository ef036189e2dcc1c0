"""Mends protobuf messages whose only fault is text that is not UTF-8, such as one that was cut inside a character.

Protobuf parsers refuse the whole message for it, so one bad string would cost all records of a request.
"""

from __future__ import annotations

import re
from typing import Any

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 100
"""Levels of messages, as in protobuf's own parsers."""
# What no text has, however it was cut: then it is another message, or binary, and not ours to guess.
_BINARY = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]")


def mended(payload: bytes, descriptor: Any) -> tuple[bytes, int]:
    """The message with U+FFFD for what is not UTF-8 in its string fields, and the number of strings that were mended.

    Raises ValueError if the bytes are no such message even then.
    """
    return _mended(payload, descriptor, 0)


def _mended(data: bytes, descriptor: Any, depth: int) -> tuple[bytes, int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deep")
    fields = descriptor.fields_by_number
    out = bytearray()
    count = place = 0
    while place < len(data):
        begin = place
        tag, place = _varint(data, place)
        wire_type = tag & 7
        if wire_type == _LENGTH:
            prefix = data[begin:place]
            size, place = _varint(data, place)
            chunk = data[place : place + size]
            if len(chunk) < size:
                raise ValueError("cut off")
            place += size
            field = fields.get(tag >> 3)
            if field is not None and field.type == field.TYPE_STRING:
                chunk, repaired = _text(chunk)
                count += repaired
            elif field is not None and field.type == field.TYPE_MESSAGE:
                chunk, repaired = _mended(chunk, field.message_type, depth + 1)
                count += repaired
            out += prefix + as_varint(len(chunk)) + chunk
            continue
        if wire_type == _VARINT:
            _, place = _varint(data, place)
        elif wire_type == _FIXED64:
            place += 8
        elif wire_type == _FIXED32:
            place += 4
        else:
            raise ValueError(f"wire type {wire_type}")
        if place > len(data):
            raise ValueError("cut off")
        out += data[begin:place]
    return bytes(out), count


def _text(chunk: bytes) -> tuple[bytes, int]:
    try:
        chunk.decode()
    except UnicodeDecodeError:
        text = chunk.decode("utf-8", "replace")
        if _BINARY.search(text):
            raise ValueError("binary where text should be") from None
        return text.encode(), 1
    return chunk, 0


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    for octet in data[place : place + 10]:
        place += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, place
        shift += 7
    raise ValueError("cut off, or not a varint")


def as_varint(value: int) -> bytes:
    """A length or a tag on the wire."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
