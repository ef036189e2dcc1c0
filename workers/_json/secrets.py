"""The SNMP community, which is a password, is masked in all that rows hold; dead letters have payloads as they came."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from eventwriter.values import dump_json

MARK = b"ommunity"
"""Without it a text has no community."""
_BACKSLASH = ord("\\")
_CACHED_MAX = 128
"""Bytes of a text that is worth keeping."""
_NAME = rb"(?:snmp[_.-]?)?community"
_in_json = re.compile(rb'"' + _NAME + rb'"\s*:\s*"(?P<value>[^"\\]*(?:\\.[^"\\]*)*)"', re.IGNORECASE | re.DOTALL).match
# In JSON that is a text there, whose quotation marks have backslashes.
_in_text = re.compile(
    rb'(\\+")' + _NAME + rb"\1\s*:\s*\1(?P<value>(?:(?!\1)(?:\\.|[^\\]))*)\1", re.IGNORECASE | re.DOTALL
).match


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
        at += 1
        if found is not None:
            begin, at = found.span("value")
            parts.append(text[done:begin])
            done = at
        at = text.find(MARK, at)
    if not parts:
        return text
    parts.append(text[done:])
    return b"***".join(parts)


_cached = lru_cache(maxsize=1024)(_masked)


def all_masked(texts: Sequence[bytes]) -> Sequence[bytes]:
    """Each of them masked."""
    if MARK not in b"".join(texts):
        return texts
    return [*map(_cached if max(map(len, texts)) <= _CACHED_MAX else masked, texts)]


def packed(value: Any) -> bytes:
    """The JSON of a value as rows have it: masked."""
    text = dump_json(value)
    return masked(text) if MARK in text else text
