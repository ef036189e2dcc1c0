"""The SNMP community, which is a password, is masked in all that rows hold; dead letters have payloads as they came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from eventwriter.stream import Row

MARK = b"ommunity"
"""Without it a text has no community."""
_MARK_TEXT = MARK.decode()
_BACKSLASH = ord("\\")
_CACHED_MAX = 128
"""Bytes of a text that is worth keeping."""
_NAME = rb"((?:snmp[_.-]?)?community)"
_in_json = re.compile(rb'(")' + _NAME + rb'"(\s*:\s*)"[^"\\]*(?:\\.[^"\\]*)*"', re.IGNORECASE | re.DOTALL).match
# In JSON that is a text there, whose quotation marks have backslashes.
_in_text = re.compile(rb'(\\+")' + _NAME + rb"\1(\s*:\s*)\1(?:(?!\1)(?:\\.|[^\\]))*\1", re.IGNORECASE | re.DOTALL).match


def masked(text: bytes) -> bytes:
    """JSON without the communities in it. The same few short ones, metadata of a device, come again and again."""
    return _cached(text) if len(text) <= _CACHED_MAX else _masked(text)


def _masked(text: bytes) -> bytes:
    parts: list[bytes] = []
    done, at = 0, text.find(MARK)
    while at >= 0:  # several times as fast as looking for the whole expression everywhere
        begin = text.rfind(b'"', done, at)
        found = _in_json(text, begin) if begin >= 0 else None
        if found is None and begin > done and text[begin - 1] == _BACKSLASH:
            begin = len(text[done:begin].rstrip(b"\\")) + done
            found = _in_text(text, begin)
        if found is not None:
            quote, name, colon = found.groups()
            parts += text[done:begin], quote, name, quote, colon, quote, b"***", quote
            done = found.end()
        at = text.find(MARK, max(done, at + 1))
    return b"".join((*parts, text[done:])) if parts else text


_cached = lru_cache(maxsize=1024)(_masked)


def all_masked(texts: Sequence[bytes]) -> Sequence[bytes]:
    """Each of them masked."""
    if MARK not in b"".join(texts):
        return texts
    return [*map(_cached if max(map(len, texts)) <= _CACHED_MAX else masked, texts)]


def masked_text(text: str) -> str:
    """The same of text."""
    return masked(text.encode()).decode() if _MARK_TEXT in text else text


def masked_row(row: Row) -> Row:
    """A row without the communities in its JSON."""
    return tuple([masked(value) if type(value) is bytes and MARK in value else value for value in row])
