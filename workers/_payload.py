"""From the bytes of a message to JSON: compressed payloads are inflated under a limit, and a parse decides.

Bytes that begin like JSON may be protobuf: ``{`` and ``[`` are lengths or tags there. So only a complete parse says
"JSON"; whoever knows a protobuf form of the stream tries that next.
"""

from __future__ import annotations

import zlib
from typing import Any

from eventwriter import values
from eventwriter.values import Unfit

INFLATED_MAX = 16 * 2**20
"""Bytes that a compressed payload may inflate to: what is refused beyond it would cost memory, not find meaning."""

_MEMBERS_MAX = 64
"""Members of a gzip file: each costs a copy of all that follow it."""
_ZLIB = (b"x\x01", b"x^", b"x\x9c", b"x\xda")
_GZIP = b"\x1f\x8b"
_GELF_CHUNK = b"\x1e\x0f"
_EITHER_HEADER = zlib.MAX_WBITS | 32


def read_json(payload: bytes, repairs: list[str]) -> tuple[bytes, Any]:
    """The JSON text of a payload, inflated if need be, and its value; raises Unfit for anything else."""
    try:
        return payload, values.parse_json(payload, repairs)
    except Unfit:
        inflated = unpack(payload)
        if inflated is payload:
            raise
    return inflated, values.parse_json(inflated, repairs)


def unpack(payload: bytes) -> bytes:
    """The payload, inflated if it is gzip (RFC 1952) or zlib (RFC 1950).

    Raises Unfit: ``malformed`` for nothing at all, for broken gzip and for a chunk of GELF, whose other chunks are in
    other messages; ``too_large`` for more than INFLATED_MAX bytes. What begins like zlib and is not stays as it is: a
    protobuf message may begin so.
    """
    head = payload[:2]
    if head == _GZIP:
        return _inflate(payload)
    if head in _ZLIB:
        try:
            return _inflate(payload)
        except Unfit as error:
            if error.reason == "too_large":
                raise
    elif head == _GELF_CHUNK:
        raise Unfit("malformed", "a chunk of a GELF message: chunks are for UDP, publish the whole message")
    elif not payload:
        raise Unfit("malformed", "an empty payload")
    return payload


def _inflate(payload: bytes) -> bytes:
    parts: list[bytes] = []
    room = INFLATED_MAX
    rest = payload
    while rest:
        if len(parts) == _MEMBERS_MAX:
            raise Unfit("malformed", f"gzip of more than {_MEMBERS_MAX} members")
        inflater = zlib.decompressobj(_EITHER_HEADER)
        try:
            part = inflater.decompress(rest, room + 1)
        except zlib.error as error:
            raise Unfit("malformed", f"broken compression: {error}") from None
        if len(part) > room:
            raise Unfit("too_large", f"more than {INFLATED_MAX} bytes when inflated")
        if not inflater.eof:
            raise Unfit("malformed", "the compressed payload is cut off")
        parts.append(part)
        room -= len(part)
        rest = inflater.unused_data
    return b"".join(parts)
