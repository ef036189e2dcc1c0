"""Counts the records and values in JSON without making anything of it.

A parser makes up to thirty bytes of objects of each byte of JSON. So of a text that may hold too many records, brackets
and commas are counted first, and then only those arrays and objects are opened that may have records within.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping

import msgspec
from msgspec import Raw

from eventwriter.values import Unfit
from workers._limits import OBJECT, PARSED_MAX, RECORDS_MAX, VALUE, too_full, too_many

_CHUNK = 2**18
_elements = msgspec.json.Decoder(list[Raw]).decode
_members = msgspec.json.Decoder(dict[str, Raw]).decode


class Shape:
    """Where the objects of a stream have records, if they are none themselves."""

    def __init__(self, groups: Mapping[str, Shape], *, events: int = 0, alone: tuple[str, ...] = ()) -> None:
        """``groups``: the keys whose arrays hold records, or groups of them, and the shape of those. ``events``: how
        many CloudEvents within each other may be around all that. ``alone``: keys that make an object a record."""
        self.groups = groups
        self.events = events
        self.alone = frozenset(alone)


RECORD = Shape({})
"""An object that is a record whatever it has."""
EVENTS = Shape({}, events=8)
"""Records, or CloudEvents around them."""


def check_json(text: bytes, shape: Shape | None) -> None:
    """Raises TooLarge if a JSON text has more than RECORDS_MAX records where ``shape`` tells, None if it has no more
    than one, or takes more than PARSED_MAX; Unfit if it would, but is not JSON. Of others the parser will say it."""
    few = shape is None or text.count(b",") + text.count(b"[") <= RECORDS_MAX
    if few and _parsed(text) <= PARSED_MAX:
        return
    text = text.removeprefix(codecs.BOM_UTF8).strip(b" \t\r\n\0")
    if text[:1] not in (b"[", b"{"):
        return
    full = sum(map(_parsed, _without_strings(text))) > PARSED_MAX
    try:
        if full:
            msgspec.json.decode(text, type=Raw)
        elif not few and shape is not None and records_in(text, shape, shape.events) > RECORDS_MAX:
            raise too_many()
    except msgspec.MsgspecError:
        raise Unfit("malformed", "not JSON, for all its commas") from None
    except RecursionError:
        return
    if full:
        raise too_full()


def _parsed(text: bytes) -> int:
    """The bytes of memory that it takes, if none of its brackets and commas are in strings."""
    objects = text.count(b"{")
    return OBJECT * objects + VALUE * (objects + text.count(b"[") + text.count(b","))


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


def records_in(text: bytes, shape: Shape, events: int) -> int:
    """The records in the JSON text of an array or object, if that is none itself; an element that has none within
    counts as one. Raises MsgspecError for an array that is not JSON."""
    if text[:1] == b"[":
        elements = _elements(text)
        if len(elements) > RECORDS_MAX or not (events or shape.groups):
            return len(elements) or 1
        texts = map(bytes, elements)
        return sum([(each[:1] == b"{" and records_in(each, shape, events)) or 1 for each in texts]) or 1
    if text[:1] != b"{":
        return 0
    try:
        found = _members(text)
    except msgspec.MsgspecError:  # such as a key with a lone surrogate, which the parser mends
        return 0
    texts_of = {name for name, value in found.items() if bytes(value)[:1] == b'"'} if events else set()
    if "specversion" in texts_of and not texts_of.isdisjoint(("type", "source", "id")):
        return records_in(bytes(found.get("data", b"")), shape, events - 1)
    if not shape.alone.isdisjoint(found):
        return 0
    return sum(records_in(bytes(found[name]), inner, 0) for name, inner in shape.groups.items() if name in found)
