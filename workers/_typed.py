"""The shortest way for the commonest JSON: objects whose every value has its expected type already.

msgspec decodes such an object into a typed Struct in one pass and leaves nested JSON as the text it came as, which
jsonb takes without another parse. What has an unknown key, another type, or text that must be repaired does not fit,
and goes the general way; for what fits, both ways give the same row.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)

_LONGEST = 65_536
_NUMERIC_LIMIT = re.compile(rb"[0-9][eE][+-]?[0-9]{4}")
"""Exponents that jsonb, whose numbers end at 131072 digits, might refuse."""


def fitted(decoder: msgspec.json.Decoder[T], payload: bytes) -> T | None:
    """The payload as a Struct, or None if it must go the general way."""
    # U+0000 and lone surrogates are written like this; one byte alone is found three times as fast.
    if (b"\\" in payload and b"\\u" in payload) or len(payload) > _LONGEST:
        return None
    try:
        if not payload.isascii():
            payload.decode()  # what is left undecoded is not looked at either
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def json_object(text: bytes) -> bytes | None:
    """The text, if it is a JSON object that jsonb takes as it is; None for anything else."""
    if text[:1] != b"{" or _NUMERIC_LIMIT.search(text):
        return None
    return text
