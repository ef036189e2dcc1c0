"""The key of a measurement's series, for tables that have it in their primary key: who made them computes it this way.

The MD5 of the components that a row has, joined by ``|``; each is its name and its value, both with their length in
bytes. It is made of what is stored, never taken from a message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from hashlib import md5

import msgspec

from eventwriter.stream import Row
from eventwriter.values import dump_json, parse_json

_FIXED = ("metric_type", "metric_name", "partition", "agent_id", "device_id", "target_device_ip", "if_index")
_NOT_OF_IT = frozenset(("available", "metric", "packet_loss"))
"""Tags that change from one measurement of a series to the next."""
_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
"""White space of Unicode, which ends where that of Python goes on."""
_tags_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def series_key_of(places: Mapping[str, int]) -> Callable[[Row], str]:
    """Computes the key from a row that has its columns at these places."""
    fixed = [(name, places[name]) for name in _FIXED]
    tags = places["tags"]

    def series_key(row: Row) -> str:
        text = "|".join(_components(row, fixed, row[tags]))
        return md5(text.encode(), usedforsecurity=False).hexdigest()

    return series_key


def _components(row: Row, fixed: list[tuple[str, int]], tags: bytes | None) -> Iterator[str]:
    for name, place in fixed:
        if (value := row[place]) is not None and value != "":  # what is only blank counts, and is empty
            yield _component(name, str(value).strip(_BLANKS))
    if tags:
        yield from _tags(tags)


def _component(name: str, value: str) -> str:
    return f"{len(name.encode())}:{name}={len(value.encode())}:{value}"


def _tags(text: bytes) -> Iterator[str]:
    try:
        tags = _tags_of(text)
    except msgspec.MsgspecError:  # no object: tags have no names then
        return
    for name in sorted(tags):
        if name not in _NOT_OF_IT and (value := _told(bytes(tags[name])).strip(_BLANKS)):
            yield _component(f"tag:{name}", value)


def _told(text: bytes) -> str:
    """A value of JSON as those who made the tables write it."""
    if text == b"null":
        return "nil"
    if text.startswith(b'"'):
        return msgspec.json.decode(text, type=str)
    if text.startswith((b"[", b"{")):
        return (dump_json(parse_json(text, [])) or b"").decode()
    if text.lower().isalpha():  # true, false
        return text.decode()
    if text.lstrip(b"-").isdigit():
        return "0" if text == b"-0" else text.decode()
    return f"{float(text):.20e}"
