"""The wire format of protobuf, field by field: for what is asked of bytes without making messages of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf.unknown_fields import UnknownFieldSet

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = range(6)


def fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(tag, where the value begins, where it ends) of each field from ``place`` to ``end``; ValueError if they are
    none, or cut off. The fields of a group come one by one between its two tags, which have no value."""
    try:
        while place < end:
            tag = data[place]
            place += 1
            if tag > 0x7F:
                tag, place = varint(data, place - 1)
            kind = tag & 7
            begin = place
            if kind == LENGTH:
                size = data[place]
                begin = place + 1
                if size > 0x7F:
                    size, begin = varint(data, place)
                place = begin + size
            elif kind == VARINT:
                while data[place] > 0x7F:
                    place += 1
                place += 1
            elif kind == FIXED64:
                place += 8
            elif kind == FIXED32:
                place += 4
            elif kind not in (GROUP, GROUP_END):
                raise ValueError(f"wire type {kind}")
            if place > end:
                raise ValueError("cut off")
            yield tag, begin, place
    except IndexError:
        raise ValueError("cut off") from None


def each_of(unknown: UnknownFieldSet) -> list[Any]:
    """The fields of a message that its type does not have."""
    return [unknown[place] for place in range(len(unknown))]


def varint(data: bytes, place: int) -> tuple[int, int]:
    """The varint at ``place``, and where it ends."""
    value = shift = 0
    for octet in data[place : place + 10]:
        place += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, place
        shift += 7
    raise ValueError("cut off, or not a varint")


def _as_varint(value: int) -> bytes:
    """A length or a tag on the wire."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(tag: int, octets: bytes) -> bytes:
    """A field on the wire: a submessage or text, whose number is below 16."""
    return b"%c%b%b" % (tag, _as_varint(len(octets)), octets)


def within(request: Any, *numbers: int) -> Callable[[bytes], Any]:
    """What parses the bytes of a submessage where it is in a request, below the fields of these numbers."""
    path: list[tuple[str, bool]] = []
    descriptor = request.DESCRIPTOR
    for number in numbers:
        below = descriptor.fields_by_number[number]
        path.append((below.name, below.is_repeated))
        descriptor = below.message_type
    tags = [number << 3 | LENGTH for number in reversed(numbers)]

    def parse(octets: bytes) -> Any:
        for tag in tags:
            octets = field(tag, octets)
        found = request.FromString(octets)
        for name, repeated in path:
            found = getattr(found, name)[0] if repeated else getattr(found, name)
        return found

    return parse
