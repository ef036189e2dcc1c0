"""Counts the records in JSON without making anything of it.

A parser makes up to thirty bytes of objects of each byte of JSON, and only then somebody could count. So a text that
may hold more records than a message may is reduced first, in a few passes at the speed of memory, to its brackets,
commas and the keys that tell where records are; these are gone through one by one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from eventwriter.values import Unfit
from workers._limits import RECORDS_MAX, TooLarge, too_many

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_VERSION, _DATA = "specversion", "data"
_IDENTITIES = ("type", "source", "id")
_COMMA, _ARRAY, _OBJECT = b",[{"
_MARKS = 0x80
"""From here on a byte stands for a key: outside strings no JSON has such bytes."""
_CHUNK = 2**18


class Shape:
    """Where the objects of a stream have records, if they are none themselves."""

    def __init__(self, groups: Mapping[str, Shape], *, events: int = 0, alone: tuple[str, ...] = ()) -> None:
        """``groups``: the keys whose arrays hold records, or groups of them, and the shape of those. ``events``: how
        many CloudEvents within each other may be around all that. ``alone``: keys that make an object a record."""
        self.groups = groups
        self.events = events
        self.alone = frozenset(alone)
        containers = sorted(self._containers())
        texts = [_VERSION, *_IDENTITIES] if events else []
        self.keys = (*containers, *texts, *alone)
        self.keys_in = re.compile(
            "|".join(
                f'"({"|".join(keys)})"\\s*+:{value}'
                for keys, value in ((containers, r"\s*+(?=[\[{])"), (texts, r'\s*+(?=")'), (alone, ""))
                if keys
            ).encode()
        )
        """Finds a key whose value may matter."""

    def _containers(self) -> set[str]:
        found = {_DATA} if self.events else set()
        for name, inner in self.groups.items():
            found |= {name} | inner._containers()
        return found


RECORD = Shape({})
"""An object that is a record whatever it has."""
EVENTS = Shape({}, events=8)
"""Records, or CloudEvents around them."""


def check_json(text: bytes, shape: Shape) -> None:
    """Raises TooLarge if a JSON text has more than RECORDS_MAX records; Unfit if it would, but is not JSON.

    For any other text the parser will say what it is.
    """
    if text.count(b",") + text.count(b"[") <= RECORDS_MAX:
        return
    text = text.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if text[:1] not in (b"[", b"{"):
        return
    try:
        if _Counter(text, shape).count() > RECORDS_MAX:
            raise too_many()
    except TooLarge:
        if not _is_json(text):
            raise Unfit("malformed", "not JSON, for all its commas") from None
        raise


class _Array(msgspec.Struct, array_like=True):
    pass


class _Object(msgspec.Struct):
    pass


def _is_json(text: bytes) -> bool:
    """Whether this is an array or an object as a whole; nothing is made of it."""
    try:
        msgspec.json.decode(text, type=_Array if text[0] == _ARRAY else _Object)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def _outline(text: bytes, shape: Shape) -> bytes:
    """Brackets, commas, and the marks of the keys that ``shape`` knows."""
    if b"\\" in text:  # such as a quotation mark that does not end a string
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    marks = {key.encode(): bytes((_MARKS + place,)) for place, key in enumerate(shape.keys)}
    if any(b'"%b"' % key in text for key in marks):
        text = shape.keys_in.sub(lambda found: marks[found[found.lastindex or 0]], text)
    kept = b",[]{}" + b"".join(marks.values())
    others = bytes(octet for octet in range(256) if octet not in kept)
    parts = []
    within = 0
    for start in range(0, len(text), _CHUNK):
        pieces = text[start : start + _CHUNK].split(b'"')  # every other one is a string
        parts.append(b"".join(pieces[within::2]).translate(None, others))
        within ^= ~len(pieces) & 1
    return b"".join(parts)


class _Counter:
    """Goes through the outline of a text once."""

    def __init__(self, text: bytes, shape: Shape) -> None:
        outline = _outline(text, shape)
        self._shape = shape
        self._octets = iter(outline)
        deciding = [_MARKS + place for place, key in enumerate(shape.keys) if key == _VERSION or key in shape.alone]
        self._plain = not any(mark in outline for mark in deciding)
        """Whether an object with groups cannot be an event, or a record, for something that follows."""

    def count(self) -> int:
        """The records in the text."""
        value = self._in_array if next(self._octets) == _ARRAY else self._in_object
        return value(self._shape, self._shape.events, sure=True)

    def _in_array(self, shape: Shape, events: int, *, sure: bool) -> int:
        """The records in an array that has begun; an element that has none within counts as one.

        ``shape`` and ``events`` are those of its elements. If it is ``sure`` that they count, raises TooLarge as soon
        as there are too many.
        """
        count = inner = 0
        for octet in self._octets:
            if octet == _COMMA:
                count += inner or 1
                inner = 0
                if count >= RECORDS_MAX and sure:
                    raise too_many()
            elif octet == _OBJECT:
                inner = self._in_object(shape, events, sure=sure)
            elif octet == _ARRAY:
                self._skip()
            elif octet < _MARKS:
                break
        return count + (inner or 1)

    def _in_object(self, shape: Shape, events: int, *, sure: bool) -> int:
        """The records in an object that has begun; 0 if it is one itself."""
        if not events and not shape.groups:
            self._skip()
            return 0
        found: dict[str, int] = {}
        key = ""
        for octet in self._octets:
            if octet == _COMMA:
                key = ""
            elif octet >= _MARKS:
                key = self._shape.keys[octet - _MARKS]
                found[key] = 0
            elif octet not in b"[{":
                break
            elif key == _DATA and events:
                value = self._in_array if octet == _ARRAY else self._in_object
                found[key] = value(shape, events - 1, sure=sure and _is_event(found))
            elif key in shape.groups:
                value = self._in_array if octet == _ARRAY else self._in_object
                found[key] = value(shape.groups[key], 0, sure=sure and (self._plain or not events))
            else:
                self._skip()
        if events and _is_event(found):
            return found.get(_DATA, 0)
        if not shape.alone.isdisjoint(found):
            return 0
        return sum(found[key] for key in shape.groups if key in found)

    def _skip(self) -> None:
        """To the end of an array or object that has begun."""
        depth = 1
        for octet in self._octets:
            if octet in b"[{":
                depth += 1
            elif octet in b"]}":
                depth -= 1
                if not depth:
                    return


def _is_event(found: Mapping[str, int]) -> bool:
    return _VERSION in found and any(name in found for name in _IDENTITIES)
