"""From the bytes of a message to JSON: compressed payloads are inflated under a limit, and a parse decides.

Bytes that begin like JSON may be protobuf: ``{``
and ``[`` are lengths or tags there. So only a complete parse says "JSON"; whoever knows a protobuf form of the stream
tries that next. A parser makes up to two hundred bytes of objects of each byte of JSON, so brackets and commas are
counted first.
"""

from __future__ import annotations

import codecs
import zlib
from collections.abc import Iterator
from typing import Any

import msgspec

from eventwriter import values
from eventwriter.values import Unfit
from workers._limits import COUNTED_FROM, INFLATED_MAX, OBJECT, PARSED_MAX, VALUE, Room, too_full

_MEMBERS_MAX = 64
"""Members of a gzip file: each costs a copy of all that follow it."""
_STEP = 2**20
"""Bytes that are inflated at a time: what then turns out to be broken has taken its room all the same."""
_ZLIB = (b"x\x01", b"x^", b"x\x9c", b"x\xda")
_GZIP = b"\x1f\x8b"
_GELF_CHUNK = b"\x1e\x0f"
_EITHER_HEADER = zlib.MAX_WBITS | 32
_CHUNK = 2**18


def parse(text: bytes, repairs: list[str]) -> Any:
    """The JSON value of a text. One NUL byte behind it is no fault. Raises as parse_json does, and TooLarge if it would
    take more than PARSED_MAX."""
    if len(text) > COUNTED_FROM and _parsed(text) > PARSED_MAX:
        _check(text.removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n\0"))
    try:
        return values.parse_json(text, repairs)
    except Unfit:
        if text[-1:] != b"\0":  # where GELF over TCP ends
            raise
    return values.parse_json(text[:-1], repairs)


def _parsed(text: bytes) -> int:
    """The bytes of memory that it takes, if none of its brackets and commas are in strings."""
    objects = text.count(b"{")
    return OBJECT * objects + VALUE * (objects + text.count(b"[") + text.count(b","))


def _check(text: bytes) -> None:
    """Raises TooLarge if JSON takes more than PARSED_MAX; Unfit if it would, but is none. Of others the parser will say
    it."""
    if text[:1] not in (b"[", b"{") or sum(map(_parsed, _without_strings(text))) <= PARSED_MAX:
        return
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except msgspec.MsgspecError:
        raise Unfit("malformed", "not JSON, for all its commas") from None
    except RecursionError:
        return
    raise too_full()


def _without_strings(text: bytes) -> Iterator[bytes]:
    """What of the text is not in strings, part by part."""
    if b"\\" in text:  # such as a quotation mark that does not end a string
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    place = within = 0
    while place < len(text):
        end = text.find(b'"', place + _CHUNK) + 1 or len(text)
        pieces = text[place:end].split(b'"')  # every other one is a string
        yield b"".join(pieces[within::2])
        within ^= ~len(pieces) & 1
        place = end


def read_json(payload: bytes, repairs: list[str], room: Room | None = None) -> tuple[bytes, Any]:
    """The JSON text of a payload, inflated if need be, and its value; raises as ``parse`` and ``unpack`` do."""
    try:
        value = parse(payload, repairs)
    except Unfit:
        inflated = unpack(payload, room)
        if inflated is payload:
            raise
        payload, value = inflated, parse(inflated, repairs)
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
            room.use(len(part))
            if size > INFLATED_MAX:
                raise Unfit("too_large", f"more than {INFLATED_MAX} bytes when inflated")
            if len(part) < _STEP and not rest and not inflater.eof:
                raise Unfit("malformed", "the compressed payload is cut off")
            parts.append(part)
        rest = inflater.unused_data
    return b"".join(parts)
