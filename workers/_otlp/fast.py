"""The fast path of OTLP requests in protobuf: what its three signals share. See otlp_lean.proto.

A request becomes the same rows as by the fallback, or raises Uncommon, DecodeError or another ValueError: then it is
for the fallback, which knows every case. Bytes that stand for a submessage are parsed at least once, where they
stand: protobuf refuses a request for what is wrong, or nested too deep, in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import unpack
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from workers._otlp import parts
from workers._wire import LENGTH, as_varint, varint

_PAIR_MAX = 256
"""Bytes of an attribute that is worth keeping."""
_PAIRS = 4096
"""Attributes that are kept."""
_ALIKE = 256
"""Of these with the same key and a value of the same kind and length …"""
_NOT_KEPT = 4096
"""… before so many are not, after which others have their turn: values may come again that did not before."""
_SHORT = 2**14
"""Two bytes tell a length below this."""
_LONG = -1
"""Kind of a value whose length takes two bytes: text, or for protobuf."""
ABSENT = (b"",)
"""A submessage that is not there, which is like an empty one; several, which protobuf merges, are a ValueError."""
_BOOLS: Mapping[bytes, bool] = {b"\0": False, b"\1": True}


class Uncommon(ValueError):
    """The request is for the fallback."""


def field(tag: int, octets: bytes) -> bytes:
    """A field on the wire: a submessage or text, whose number is below 16."""
    return b"%c%b%b" % (tag, as_varint(len(octets)), octets)


def within(request: Any, *numbers: int) -> Callable[[bytes], Any]:
    """What parses the bytes of a submessage where it is in a request, below the fields of these numbers."""
    path: list[tuple[str, bool]] = []
    descriptor = request.DESCRIPTOR
    for number in numbers:
        below = descriptor.fields_by_number[number]
        path.append((below.name, below.is_repeated))
        descriptor = below.message_type
    tags = [number << 3 | LENGTH for number in reversed(numbers)]

    def parse(octets: bytes) -> Any:
        for tag in tags:
            octets = field(tag, octets)
        found = request.FromString(octets)
        for name, repeated in path:
            found = getattr(found, name)[0] if repeated else getattr(found, name)
        return found

    return parse


def plain_text(value: bytes) -> str | None:
    """The text that an AnyValue is; None if it is something else, empty, or written in an unusual way."""
    size = len(value) - 2
    if 0 < size < 0x80 and value[0] == 0x0A and value[1] == size:
        return value[2:].decode()
    if 0x80 < size < _SHORT and value[0] == 0x0A and 0x80 <= value[1] == size - 1 - ((value[2] - 1) << 7):
        return value[3:].decode()
    return None


class Attributes:
    """Lists of attributes, KeyValue by KeyValue, as JSON objects.

    Most KeyValues come again and again, and are kept by their bytes; of those that start alike only so many. Those that
    are new are read by hand if they are written the usual way, and by protobuf if not: then they start with a key, the
    length of the value and its kind, which come again even where the value never does.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[str, Any]] = {}
        self._starts: dict[bytes, list[Any]] = {}

    def read(self, pairs: Any) -> dict[str, Any]:
        """The object of a list of KeyValues, which is the caller's, but not the objects and lists within."""
        kept, starts = self._kept, self._starts
        if len(kept) > _PAIRS:
            self.forget()
        octets = pairs[:]
        found: dict[str, Any] = {}
        for pair in octets:
            known = kept.get(pair)
            if known is not None:
                key, value = known
                found[key] = value
                continue
            at = pair[1] + 5 if len(pair) > 5 else 0
            start = starts.get(pair[:at]) or self._start(pair[:at])
            key, size, kind, left = start
            value = None
            if size == len(pair):
                if kind == _LONG:
                    value = plain_text(pair[at:])
                elif kind != 0x0A:
                    value = _scalar(kind, pair[at:])
                elif pair[at] == size - at - 1:
                    value = pair[at + 1 :].decode()
            if value is None:
                key, value = _unusual(pair)
            found[key] = value
            start[3] = left - 1 if left > -_NOT_KEPT else _ALIKE
            if left > 0 and len(pair) <= _PAIR_MAX:
                kept[pair] = key, value
        if len(found) != len(octets):
            raise Uncommon("a key that comes twice")
        return found

    def forget(self) -> None:
        """Keeps none any more."""
        self._kept.clear()
        self._starts.clear()

    def _start(self, start: bytes) -> list[Any]:
        """[key, bytes of the whole, tag of its value, how many to keep] of KeyValues that start so; they count down."""
        found = ["", 0, 0, _ALIKE]
        if len(start) > 5:
            end = start[1] + 2
            size, kind = start[-2:]
            if len(start) == end + 3 < 0x83 and start[0] == 0x0A and start[end] == 0x12 and size > 1:
                if size >= 0x80:  # it goes on where the kind of a short value is
                    size, kind = 1 + (size & 0x7F | kind << 7), _LONG
                found = [start[2:end].decode(), len(start) - 1 + size, kind, _ALIKE]
        if len(self._starts) >= _PAIRS:
            self._starts.clear()
        self._starts[start] = found
        return found


def _unusual(pair: bytes) -> tuple[str, Any]:
    """The same of any KeyValue, by protobuf."""
    found = _attribute_in(pair)
    if found.key_strindex == parts.KEPT:
        raise Uncommon("as only requests in JSON have them")
    return found.key, parts.any_value(found.value)


_attribute_in = within(ExportMetricsServiceRequest, 1, 2, 2, 5, 1, 7)
"""As deep as attributes of a data point are: others that protobuf takes only just are for the fallback."""


def _scalar(kind: int, octets: bytes) -> Any:
    """The value that follows its tag in an AnyValue, and nothing else; None if it is not written the usual way."""
    if kind == 0x10:
        return _BOOLS.get(octets)
    if kind != 0x18:
        return parts.number(unpack("<d", octets)[0]) if kind == 0x21 and len(octets) == 8 else None
    number, end = varint(octets, 0)
    if end != len(octets) or number >= 2**64:
        return None
    return number - 2**64 if number >= 2**63 else number


_ATTRIBUTES = Attributes()
attributes = _ATTRIBUTES.read
