"""The SNMP community, which is a password, is masked in all that rows hold; dead letters have payloads as they came."""

from __future__ import annotations

import re
from functools import lru_cache

from eventwriter.stream import Row

MARK = b"ommunity"
"""Without it a text has no community."""
_CACHED_MAX = 128
"""Bytes of a text that is worth keeping."""
_PATTERN = r"""(\\*")((?:snmp[_.-]?)?community)\1(\s*:\s*)\1(?:(?!\1)(?:\\.|[^\\]))*\1"""
# In JSON, and in JSON that is a text there, whose quotation marks have backslashes.
_community = re.compile(_PATTERN.encode(), re.IGNORECASE | re.DOTALL).sub
_MASKED = rb"\1\2\1\3\1***\1"


def masked(text: bytes) -> bytes:
    """JSON without the communities in it. The same few short ones, metadata of a device, come again and again."""
    return _cached(text) if len(text) <= _CACHED_MAX else _community(_MASKED, text)


@lru_cache(maxsize=1024)
def _cached(text: bytes) -> bytes:
    return _community(_MASKED, text)


def masked_text(text: str) -> str:
    """The same of text."""
    return _community(_MASKED, text.encode()).decode() if MARK.decode() in text else text


def masked_row(row: Row) -> Row:
    """A row without the communities in its JSON."""
    return tuple([masked(value) if type(value) is bytes and MARK in value else value for value in row])
