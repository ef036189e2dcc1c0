"""The SNMP community, which is a password: masked in rows, and wherever people see what a message holds.

What is stored of a dead letter stays as it came. Of rows, ``masked`` hides the values of JSON by exact names and leaves
JSON; of payloads, which may be anything and broken as well, ``hidden`` hides whatever looks like one.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from re import Match

from eventwriter.masking import HIDDEN

_BACKSLASH = ord("\\")
_CACHED_MAX = 128
"""Bytes of a text that is worth keeping."""
_NAME = rb"_?(?:snmp[_.-]?)?community"
_FLAGS = re.IGNORECASE | re.DOTALL
_in_json = re.compile(
    rb'"' + _NAME + rb'"\s*:\s*(?:"(?P<value>[^"\\]*(?:\\.[^"\\]*)*)"|(?P<number>-?\d[\d.e+-]*))', _FLAGS
).match
# In JSON that is a text there, whose quotation marks have backslashes.
_in_text = re.compile(
    rb'(?P<quote>(?P<slashes>\\+)")' + _NAME + rb"(?P=quote)\s*:\s*(?:(?P=quote)|(?P<number>-?\d[\d.e+-]*))", _FLAGS
).match
_PREFIX_MAX = len('"_snmp-c')
"""Octets from the quotation mark of a name to what is looked for."""
_SLASHES_MAX = 256
"""Below this many backslashes a quotation mark is one of JSON within JSON: in eight levels there are 255."""
LOWER, UPPER = b"ommunity", b"OMMUNITY"
CAPITAL = ord("U")
"""An octet is found in a sixth of the time that a word takes."""
_HIDDEN = HIDDEN.encode()


def may_be_in(text: bytes) -> bool:
    """Whether it is worth looking: without either of these, a text has no community."""
    return text.find(LOWER) >= 0 or (CAPITAL in text and text.find(b"UNITY") >= 0)  # "in" is for octets


def masked(text: bytes) -> bytes:
    """JSON without the communities in it. The same few short ones, metadata of a device, come again and again."""
    return _cached(text) if len(text) <= _CACHED_MAX else _masked(text)


def _masked(text: bytes) -> bytes:
    parts: list[bytes] = []
    done, lower, upper = 0, text.find(LOWER), text.find(UPPER)
    while lower >= 0 or upper >= 0:  # several times as fast as looking for the whole expression everywhere
        at = lower if upper < 0 or 0 <= lower < upper else upper
        begin = text.rfind(b'"', max(done, at - _PREFIX_MAX), at)
        found, quote = (_in_json(text, begin), b'"') if begin >= 0 else (None, b"")
        if found is None and begin > done and text[begin - 1] == _BACKSLASH:
            found, quote = _found_in_text(text, max(done, begin - _SLASHES_MAX), begin)
        at += 1
        if found is not None:
            is_number = found.lastgroup == "number"
            begin, at = found.span(found.lastgroup or "")
            parts += (text[done:begin], quote + _HIDDEN + quote if is_number else _HIDDEN)
            done = at
        if 0 <= lower < at:
            lower = text.find(LOWER, at)
        if 0 <= upper < at:
            upper = text.find(UPPER, at)
    return b"".join([*parts, text[done:]]) if parts else text


def _found_in_text(text: bytes, start: int, mark: int) -> tuple[Match[bytes] | None, bytes]:
    """A community in JSON that is a text, by the quotation mark of its name, which has the backslashes before it; and
    that mark with these."""
    found = _in_text(text, start + len(text[start:mark].rstrip(b"\\")))
    if found is None or len(found["slashes"]) >= _SLASHES_MAX:
        return None, b""
    quote = found["quote"]
    if found["number"] is None:
        found = _text_from(text, found.end(), len(found["slashes"]), b'"')
        if not text.startswith(quote, found.end()):
            return None, b""
    return found, quote


def _text_from(data: bytes, begin: int, slashes: int, mark: bytes) -> Match[bytes]:
    """The ``value`` of a text in JSON behind its quotation mark, which has so many backslashes; it ends before another
    one with as many, besides those of what is before it."""
    found = _text_of(slashes, mark)(data, begin)
    assert found is not None, "it may be empty"
    return found


@lru_cache(maxsize=2 * _SLASHES_MAX)
def _text_of(slashes: int, mark: bytes) -> Callable[[bytes, int], Match[bytes] | None]:
    # Each level of JSON makes 2 n + 1 backslashes of n before a quotation mark, and 2 n of those of a text: so a mark
    # within the text has ``inner`` of them, and ``whole`` are one backslash of it. What has others ends a text around.
    level = 1 << slashes.bit_length()
    inner, whole = slashes + level, 2 * level
    return re.compile(
        rb"(?P<value>(?:[^\\%b]++|\\++(?!%b)|(?:\\{%d})*+\\{%d}%b)*+(?:\\{%d})*+)"
        % (mark, mark, whole, inner, mark, whole)
    ).match


_cached = lru_cache(maxsize=1024)(_masked)


def all_masked(texts: Sequence[bytes]) -> Sequence[bytes]:
    """Each of them masked."""
    if not may_be_in(b"".join(texts)):
        return texts
    return [*map(_cached if max(map(len, texts)) <= _CACHED_MAX else masked, texts)]


# --- what people see of payloads ---------------------------------------------------------------------------------

_INFLATED, _INSIDE = 2**26, 2**16
"""Bytes of what a compressed payload, or one within it, holds that are looked at."""
_GZIP = b"\x1f\x8b"
_binary = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]").search
_named = re.compile(rb"(?<![\w.-])(?:ce-)?" + _NAME + rb"(?![\w.-])", _FLAGS).finditer
_between = re.compile(rb'(?P<quote>\\*["\'])?\s*(?:=>?|:|,\s*\\*["\']value\\*["\']\s*:)\s*').match
_value = re.compile(rb'(?P<slashes>\\*)(?P<mark>["\'])|(?P<bare>[^\s,;&{}()\[\]"\'\\]+)').match
_token = re.compile(rb'(?<!\\)(?P<slashes>\\*+)"|[\[{]|[\]}]').search
_value_first = re.compile(
    rb'value(?P<quote>\\*")\s*:\s*(?P<value>\{[^{}]*\})\s*,\s*\\*"(?:key|name)\\*"\s*:\s*\\*"' + _NAME + rb'\\*"',
    _FLAGS,
).finditer
_base64 = re.compile(rb"[A-Za-z0-9+/_-]{16,}={0,2}").finditer


def payload(data: bytes) -> bytes:
    """A payload as people may see it: as it came, or, if a community is in it, inflated and with that hidden."""
    inside = inflated(data, _INFLATED)
    found = hidden(inside)
    return data if found == inside and hidden(data) == data else found


def inflated(data: bytes, most: int) -> bytes:
    """What a compressed payload holds, ``most`` bytes of it, of broken gzip as far as it goes; or itself."""
    if data[:2] not in (_GZIP, b"x\x01", b"x^", b"x\x9c", b"x\xda"):
        return data
    inflater, parts, room = zlib.decompressobj(zlib.MAX_WBITS | 32), [], most
    try:
        for start in range(0, len(data), 4096):
            parts.append(inflater.decompress(data[start : start + 4096], room))
            room -= len(parts[-1])
            if room <= 0 or inflater.eof:
                break
    except zlib.error:
        if data[:2] != _GZIP:  # what begins like zlib may be anything
            return data
    return b"".join(parts) or data


def hidden(data: bytes) -> bytes:
    """Any text, or binary, in which all else stays in its place."""
    spans = [*_spans(data), *((*span, b"") for span in _in_base64(data))]
    if not spans:
        return data
    binary, done = _binary(data) is not None, 0
    parts: list[bytes] = []
    for begin, end, quote in sorted(spans):
        if end > done:
            begin = max(begin, done)
            parts += (data[done:begin], b"*" * (end - begin) if binary else quote + _HIDDEN + quote)
            done = end
    return b"".join([*parts, data[done:]])


def header(name: str, value: str) -> str:
    """The value of a header."""
    return HIDDEN if "community" in name.lower() else text(value)


def text(value: str) -> str:
    """What is said of a message, such as why it was rejected, which has parts of it."""
    data = value.encode(errors="surrogatepass")
    return hidden(data).decode(errors="surrogatepass") if may_be_in(data) else value


def _spans(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Where there are values, and with which quotation marks what hides one keeps JSON what it is."""
    if not may_be_in(data):
        return
    for found in _value_first(data):
        yield *found.span("value"), found["quote"]
    done = 0
    for name in _named(data):
        if name.start() >= done:  # not within the value of another
            for span in _values(data, *name.span()):
                done = max(done, span[1])
                yield span


def _values(data: bytes, begin: int, end: int) -> Iterator[tuple[int, int, bytes]]:
    """Those of a name."""
    if data[end : end + 1] == b"\x12":  # protobuf: the value of an attribute, or of an entry of a map
        length, start = _varint(data, end + 1)
        yield start, min(start + length, len(data)), b""
    elif begin >= 2 and data[begin - 2 : begin] == bytes((0x0A, end - begin)):  # the same the other way round
        for length in range(1, min(128, begin - 3)):
            start = begin - 2 - length
            if data[start - 2 : start] == bytes((0x12, length)):
                yield start, start + length, b""
    if between := _between(data, end):
        start = between.end()
        if data[start : start + 1] in (b"[", b"{"):
            yield start, _balanced(data, start), between["quote"] or b""
        elif (found := _value(data, start)) and found["bare"] is not None:
            yield *found.span("bare"), between["quote"] or b""
        elif found:
            slashes = len(found["slashes"])
            inside = _text_from(data, found.end(), slashes, found["mark"]) if slashes < _SLASHES_MAX else None
            yield found.end(), inside.end() if inside else len(data), b""


def _balanced(data: bytes, start: int) -> int:
    """Where an array or an object ends."""
    depth = 0
    while token := _token(data, start):
        start = token.end()
        if (slashes := token["slashes"]) is not None:
            if len(slashes) >= _SLASHES_MAX:
                break
            start = _text_from(data, start, len(slashes), b'"').end()
            start += len(token[0]) * data.startswith(token[0], start)
            continue
        depth += 1 if token[0] in b"[{" else -1
        if depth == 0:
            return start
    return len(data)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at


def _in_base64(data: bytes) -> Iterator[tuple[int, int]]:
    """Where such a text has one inside."""
    for found in _base64(data):
        begin, end = found.span()
        word = found[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        word = word[: len(word) - (len(word) % 4 == 1)]  # as far as it is whole
        try:
            inside = inflated(base64.b64decode(word + b"=" * (-len(word) % 4)), _INSIDE)
        except (binascii.Error, ValueError):
            continue
        if any(_spans(inside)):
            yield begin, end
