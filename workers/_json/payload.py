"""From the bytes of a message to JSON: compressed payloads are inflated under a limit, and a parse decides.

Bytes that begin like JSON may be protobuf: ``{`` and ``[`` are lengths or tags there. So only a complete parse says
"JSON"; whoever knows a protobuf form of the stream tries that next.
"""

from __future__ import annotations

import zlib
from typing import Any

from eventwriter import values
from eventwriter.values import Unfit
from workers._json.count import Shape, check_json
from workers._limits import ALL_INFLATED_MAX, COUNTED_FROM, INFLATED_MAX, Room, TooLarge

_MEMBERS_MAX = 64
"""Members of a gzip file: each costs a copy of all that follow it."""
_STEP = 2**20
"""Bytes that are inflated at a time: what then turns out to be broken has taken its room all the same."""
_ZLIB = (b"x\x01", b"x^", b"x\x9c", b"x\xda")
_GZIP = b"\x1f\x8b"
_GELF_CHUNK = b"\x1e\x0f"
_EITHER_HEADER = zlib.MAX_WBITS | 32


def parse(text: bytes, repairs: list[str], shape: Shape | None) -> Any:
    """The JSON value of a text that has records where ``shape`` says; None: it is but one record, or part of one. One
    NUL byte behind it is no fault. Raises as check_json and parse_json do."""
    if len(text) > COUNTED_FROM:
        check_json(text, shape)
    try:
        return values.parse_json(text, repairs)
    except Unfit:
        if text[-1:] != b"\0":  # where GELF over TCP ends
            raise
    return values.parse_json(text[:-1], repairs)


def read_json(
    payload: bytes, repairs: list[str], shape: Shape | None = None, room: Room | None = None
) -> tuple[bytes, Any]:
    """The JSON text of a payload, inflated if need be, and its value; raises as ``parse`` and ``unpack`` do."""
    try:
        value = parse(payload, repairs, shape)
    except Unfit:
        inflated = unpack(payload, room)
        if inflated is payload:
            raise
        payload, value = inflated, parse(inflated, repairs, shape)
    return payload.removesuffix(b"\0"), value


def unpack(payload: bytes, room: Room | None = None) -> bytes:
    """The payload, inflated if it is gzip (RFC 1952) or zlib (RFC 1950).

    Raises Unfit: ``malformed`` for nothing at all, for broken gzip and for a chunk of GELF; ``too_large`` for more than
    INFLATED_MAX bytes. What begins like zlib and is not stays as it is: protobuf may begin so. Raises TooLarge if there
    is no ``room``, which the other parts of the message share.
    """
    head = payload[:2]
    if head == _GZIP or head in _ZLIB:
        try:
            return _inflate(payload, room or Room())
        except Unfit as error:
            if head == _GZIP or error.reason == "too_large":
                raise
    elif head == _GELF_CHUNK:
        raise Unfit("malformed", "a chunk of a GELF message: chunks are for UDP, publish the whole message")
    elif not payload:
        raise Unfit("malformed", "an empty payload")
    return payload


def _inflate(payload: bytes, room: Room) -> bytes:
    parts: list[bytes] = []
    size = members = 0
    rest = payload
    while rest:
        if members == _MEMBERS_MAX:
            raise Unfit("malformed", f"gzip of more than {_MEMBERS_MAX} members")
        members += 1
        inflater = zlib.decompressobj(_EITHER_HEADER)
        while not inflater.eof:
            try:
                part = inflater.decompress(rest, _STEP)
            except zlib.error as error:
                raise Unfit("malformed", f"broken compression: {error}") from None
            rest = inflater.unconsumed_tail
            size += len(part)
            room.left -= len(part)
            if size > INFLATED_MAX:
                raise Unfit("too_large", f"more than {INFLATED_MAX} bytes when inflated")
            if room.left < 0:
                raise TooLarge(f"more than {ALL_INFLATED_MAX} bytes when all its compressed parts are inflated")
            if len(part) < _STEP and not rest and not inflater.eof:
                raise Unfit("malformed", "the compressed payload is cut off")
            parts.append(part)
        rest = inflater.unused_data
    return b"".join(parts)
