"""Counts the records and values in JSON without making anything of it.

A parser makes up to thirty bytes of objects of each byte of JSON, and only then somebody could count. So a text that
may hold more records than a message may is reduced first, in a few passes at the speed of memory, to its brackets,
commas and the keys that tell where records are; these are gone through one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from itertools import repeat

import msgspec

from eventwriter.values import Unfit
from workers._limits import OBJECT, PARSED_MAX, RECORDS_MAX, VALUE, TooLarge, too_full, too_many

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_VERSION, _DATA = "specversion", "data"
_IDENTITIES = ("type", "source", "id")
_COMMA, _ARRAY, _OBJECT = b",[{"
_MARKS, _STRING = 0x80, 0xFF
"""Bytes that stand for strings, from the first on for those that are keys of a shape, and the last for any other."""
_CHUNK = 2**18


class Shape:
    """Where the objects of a stream have records, if they are none themselves."""

    def __init__(self, groups: Mapping[str, Shape], *, events: int = 0, alone: tuple[str, ...] = ()) -> None:
        """``groups``: the keys whose arrays hold records, or groups of them, and the shape of those. ``events``: how
        many CloudEvents within each other may be around all that. ``alone``: keys that make an object a record."""
        self.groups = groups
        self.events = events
        self.alone = frozenset(alone)
        self.deciding = frozenset((*alone, *((_VERSION, *_IDENTITIES) if events else ())))
        """Keys that decide about those beside them."""
        self.keys = tuple(sorted({*self.deciding, *self._containers()}))

    def _containers(self) -> set[str]:
        found = {_DATA} if self.events else set()
        for name, inner in self.groups.items():
            found |= {name} | inner._containers()
        return found


RECORD = Shape({})
"""An object that is a record whatever it has."""
EVENTS = Shape({}, events=8)
"""Records, or CloudEvents around them."""


def check_json(text: bytes, shape: Shape | None) -> None:
    """Raises TooLarge if a JSON text has more than RECORDS_MAX records where ``shape`` tells, None if it has no more
    than one, or takes more than PARSED_MAX; Unfit if it would, but is not JSON.

    For any other text the parser will say what it is.
    """
    few = shape is None or text.count(b",") + text.count(b"[") <= RECORDS_MAX
    if few and _parsed(text) <= PARSED_MAX:
        return
    text = text.removeprefix(_BYTE_ORDER_MARK).lstrip()
    if text[:1] not in (b"[", b"{"):
        return
    try:
        outline = _outline(text, shape or RECORD)
        if _parsed(outline) > PARSED_MAX:
            raise too_full()
        if not few and shape is not None and _Counter(outline, shape).count() > RECORDS_MAX:
            raise too_many()
    except TooLarge:
        if not _is_json(text):
            raise Unfit("malformed", "not JSON, for all its commas") from None
        raise


def _parsed(text: bytes) -> int:
    """The bytes of memory that it takes, if none of its brackets and commas are in strings."""
    objects = text.count(b"{")
    return OBJECT * objects + VALUE * (objects + text.count(b"[") + text.count(b","))


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
    """Brackets, commas, and a byte for each string that is a key of the shape; for every other one too if there are
    keys that decide, for then it matters which strings are values."""
    if b"\\" in text:  # such as a quotation mark that does not end a string
        text = text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    marks = {
        key.encode(): bytes((_MARKS + place,)) for place, key in enumerate(shape.keys) if f'"{key}"'.encode() in text
    }
    other = bytes((_STRING,)) if any(key.encode() in marks for key in shape.deciding) else b""
    kept = b"".join((b",[]{}", other, *marks.values()))
    deleted = bytes(octet for octet in range(256) if octet not in kept)
    parts = []
    place = within = 0
    while place < len(text):
        # Up to behind a quotation mark, so that no string is cut.
        end = text.rfind(b'"', place, place + _CHUNK) + 1 or text.find(b'"', place) + 1 or len(text)
        pieces = text[place:end].split(b'"')  # every other one is a string
        begins = within
        within ^= ~len(pieces) & 1
        if within:
            del pieces[-1]  # the beginning of the next string
        strings = slice(1 - begins, None, 2)
        pieces[strings] = map(marks.get, pieces[strings], repeat(other))
        parts.append(b"".join(pieces).translate(None, deleted))
        place = end
    return b"".join(parts)


class _Counter:
    """Goes through the outline of a text once."""

    def __init__(self, outline: bytes, shape: Shape) -> None:
        self._shape = shape
        self._octets = iter(outline)
        decisive = shape.alone | {_VERSION}
        self._plain = not any(_MARKS + place in outline for place, key in enumerate(shape.keys) if key in decisive)
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
        texts: set[str] = set()
        key: str | None = None
        for octet in self._octets:
            if octet == _COMMA:
                key = None
            elif octet >= _MARKS:
                if key is not None:
                    texts.add(key)
                elif octet == _STRING:
                    key = ""
                else:
                    key = self._shape.keys[octet - _MARKS]
                    found[key] = 0
            elif octet not in b"[{":
                break
            elif key == _DATA and events:
                value = self._in_array if octet == _ARRAY else self._in_object
                found[key] = value(shape, events - 1, sure=sure and _is_event(texts))
            elif key is not None and key in shape.groups:
                value = self._in_array if octet == _ARRAY else self._in_object
                found[key] = value(shape.groups[key], 0, sure=sure and (self._plain or not events))
            else:
                self._skip()
        if events and _is_event(texts):
            return found.get(_DATA, 0)
        if not shape.alone.isdisjoint(found):
            return 0
        return sum(found[name] for name in shape.groups if name in found)

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


def _is_event(texts: Set[str]) -> bool:
    """Whether an object with these keys of strings is a CloudEvent, as in cloudevents.py."""
    return _VERSION in texts and any(name in texts for name in _IDENTITIES)
