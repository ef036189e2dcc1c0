"""Flow records in protobuf (flow.proto), from many messages to columns: one for each field that a flow has.

All are parsed together, and only fields are read that one of them has: to read one costs as much as to parse three.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, compress
from operator import attrgetter, itemgetter
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Message
from workers._flow.flow_pb2 import FlowFields, Flows

Column = Sequence[Any]
"""The values of one field, in the order of the flows; 0, b"" or an empty list where a flow does not have it."""

_FEWEST = 8
"""Of fewer messages each is decoded sooner by itself."""
_SAMPLE = 4
"""Neighbours are mostly of one kind: if none of the first so many will do, the others are not looked at."""
_FIRST, _AFTER = b"\x08\x01", b"\x08\x05"
"""Between these are the flows that begin with a known type, field 1. If the 8 were the length of a flow, the type would
be its first tag, of a field 0, which there is not: so such a payload, if it has an address, is bare, see read(). And
behind a length the 8 tells it from JSON and from what is compressed."""

_LONGEST = 2047
_FRAMES = [bytes((10, size) if size < 128 else (10, size & 127 | 128, size >> 7)) for size in range(_LONGEST + 1)]
"""What stands before a flow of each size in Flows: the tag of field 1 and the length."""
_frame = _FRAMES.__getitem__
_OTHERS = frozenset(("time_received", "time_flow_end", "unassigned"))
"""Fields of FlowFields that FlowMessage does not have."""
_field = itemgetter(0)


Table = tuple[Sequence[int], Sequence[int], tuple[str, ...], list[Column]]
"""The flows of some messages: which messages they are, the times of those, names of fields, and a column for each."""


def table_of(messages: Sequence[Message]) -> Table | None:
    """The flows of those messages that are one flow each, of known fields, bare with a known type or after its length;
    None if few are. For such a payload, if it has an address, read() gives that flow alone."""
    if len(messages) < _FEWEST:
        return None
    _, bodies, _, arrivals, headers = zip(*messages, strict=True)
    places: Sequence[int] = range(len(messages))
    if any(headers) or min(bodies) < _FIRST or max(bodies) >= _AFTER:
        if not any(map(_body, bodies[:_SAMPLE], headers)):
            return None
        bodies = tuple(map(_body, bodies, headers))
        places = [*compress(places, bodies)]
        bodies = tuple(filter(None, bodies))
    read = _read(bodies)
    if read is None and any(map(_fits, bodies[:_SAMPLE])):
        fits = [*map(_fits, bodies)]
        places = [*compress(places, fits)]
        read = _read([*compress(bodies, fits)]) if len(places) >= _FEWEST else None
    if read is None:
        return None
    if len(places) < len(messages):
        arrivals = tuple(arrivals[place] for place in places)
    return places, arrivals, *read


def _body(payload: bytes, headers: object) -> bytes:
    """The flow of a payload that can be no more than one; else nothing."""
    if headers:
        return b""
    if _FIRST <= payload < _AFTER:
        return payload
    for size in (1, 2):
        body = payload[size : size + _LONGEST + 1]
        if _FIRST <= body < _AFTER and len(body) <= _LONGEST and _frame(len(body))[1:] == payload[:size]:
            return body
    return b""


def _read(bodies: Sequence[bytes]) -> tuple[tuple[str, ...], list[Column]] | None:
    """The names of all fields that any flow has, and their columns; None if one does not fit."""
    try:
        framed = b"".join(chain.from_iterable(zip(map(_frame, map(len, bodies)), bodies, strict=True)))
        flows = Flows.FromString(framed).flows[:]
        merged = FlowFields.FromString(b"".join(bodies))
    except (DecodeError, IndexError):  # no flow, or too long
        return None
    names, values = _reader(tuple(map(_field, merged.ListFields())))
    if values is None or len(UnknownFieldSet(merged)):
        return None
    return names, [*zip(*map(values, flows), strict=True)]


@lru_cache(maxsize=1024)
def _reader(
    fields: tuple[FieldDescriptor, ...],
) -> tuple[tuple[str, ...], Callable[[FlowFields], tuple[Any, ...]] | None]:
    """The names of these fields and what reads them all; None if it is only one or not FlowMessage's."""
    names = tuple(field.name for field in fields)
    return names, attrgetter(*names) if len(names) > 1 and _OTHERS.isdisjoint(names) else None


def _fits(body: bytes) -> bool:
    """Whether these bytes are a flow, and all its fields are FlowMessage's."""
    try:
        flow = FlowFields.FromString(body)
    except DecodeError:
        return False
    if len(body) > _LONGEST or len(UnknownFieldSet(flow)):
        return False
    return not (flow.HasField("time_received") or flow.HasField("time_flow_end") or flow.HasField("unassigned"))
