"""The text of OTLP requests: what is not UTF-8 is mended, for protobuf refuses all of a message for it; U+0000, which
PostgreSQL does not take, is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from eventwriter import values
from workers._limits import RECORDS_MAX, too_many
from workers._wire import LENGTH, field, fields


def mended(kind: type[Message], payload: bytes, repairs: list[str]) -> Message:
    """A request whose only fault is text that is not UTF-8, with U+FFFD in its place: exporters exist that cut a text
    inside a character. Raises DecodeError or ValueError if there is another fault, RecursionError for far too many
    levels, TooLarge for too many texts."""
    found: list[str] = []

    def mend(octets: bytes) -> bytes | None:
        text = octets.decode("utf-8", "replace").encode()
        if text == octets:
            return None
        found.append("invalid_utf8")
        if len(found) > RECORDS_MAX:
            raise too_many("texts that are not UTF-8")
        return text

    request = kind.FromString(_mended(payload, 0, len(payload), kind.DESCRIPTOR, mend) or payload)
    repairs += found
    return request


def _mended(data: bytes, start: int, stop: int, message: Any, mend: Callable[[bytes], bytes | None]) -> bytes | None:
    """Such a message, from ``start`` to ``stop``, with every text in it mended; None if there is nothing to mend."""
    parts: list[bytes] = []
    copied = place = start
    for tag, begin, end in fields(data, start, stop):
        known = message.fields_by_number.get(tag >> 3) if tag & 7 == LENGTH else None
        inner = None
        if known is not None and known.message_type is not None:
            inner = _mended(data, begin, end, known.message_type, mend)
        elif known is not None and known.type == known.TYPE_STRING:
            inner = mend(data[begin:end])
        if inner is not None:
            parts += data[copied:place], field(tag, inner)
            copied = end
        place = end
    return b"".join((*parts, data[copied:stop])) if parts else None


def clean_text(message: Message, repairs: list[str]) -> None:
    """Replaces U+0000 in every text of a request."""
    for known, value in message.ListFields():
        if known.message_type is not None:
            for inner in value if known.is_repeated else (value,):
                clean_text(inner, repairs)
        elif known.type == known.TYPE_STRING and known.is_repeated:
            value[:] = [values.clean(text, repairs) for text in value]
        elif known.type == known.TYPE_STRING:
            setattr(message, known.name, values.clean(value, repairs))
