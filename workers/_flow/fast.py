"""The fast path of flow records in protobuf (flow.proto), many messages at a time: to columns, then to rows.

All are parsed together, and only fields are read that one of them has: to read one costs as much as to parse three.
A flow with a value that must be repaired takes the fallback, and so does one without an address: see read().
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain, compress, count, repeat
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH
from workers._flow.flow_pb2 import FlowFields, Flows
from workers._flow.json_form import TABLE
from workers._flow.texts import JS_SAFE, KEPT, NUMBERS, OWN, PLAIN, REST, address, metadata_of, repairs_of, tail_value

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
_LIMITS = {"type": 4, "sampling_rate": JS_SAFE} | {
    name: TABLE.fields[TABLE.places.place_of[name]].range[1] for name in NUMBERS
}
"""Beyond these a number is repaired, or written in another form."""
_ZEROS: Any = repeat(0)
_NULLS = repeat(None)
"""The column of a field that no flow has, before and after it is converted: endless, ``zip`` ends with the others."""
_place_of = {
    TABLE.places.place_of[name]: place for place, name in enumerate(("timestamp", *OWN[len(KEPT) :], "metadata"))
}
_in_order = itemgetter(*[_place_of.get(place, -1) for place in range(len(TABLE.columns))])
"""From these columns to all of the table's, the last one standing for those that flows in protobuf have not."""
_Pick = Callable[[Sequence[Column]], tuple[Column, ...]]
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


def fast_rows(messages: Sequence[Message]) -> list[Row | None]:
    """The row of each message that is one such flow; None for every other message."""
    rows: list[Row | None] = [None] * len(messages)
    table = _table_of(messages)
    if table is None:
        return rows
    made = _rows(table)
    if len(made) == len(rows):
        return made
    for place, row in zip(table[0], made, strict=True):
        rows[place] = row
    return rows


@lru_cache(maxsize=1024)
def _plan(names: tuple[str, ...]) -> tuple[list[tuple[int, int]], _Pick, _Pick, list[tuple[str, int]], Any]:
    """Where the columns of some fields are, _ZEROS being the last of all: the places of those with limits, what picks
    OWN and PLAIN, the names and places of REST if any of them is there, and the type of the metadata."""
    places = dict.fromkeys((*PLAIN, *REST, *OWN), -1) | {name: place for place, name in enumerate(names)}
    rest = [(name, places[name]) for name in REST] if {*REST}.intersection(names) else []
    plain = [places[name] for name in PLAIN]
    while len(plain) > 2 and plain[-1] < 0 and not rest:  # of one alone, itemgetter would not make a tuple
        del plain[-1]
    return (
        [(places[name], _LIMITS[name]) for name in names if name in _LIMITS],
        itemgetter(*(places[name] for name in OWN)),
        itemgetter(*plain),
        rest,
        metadata_of(len(KEPT) + len(plain) + len(rest)),
    )


def _rows(table: Table) -> list[Row | None]:
    """The rows of flows; None for one that takes the fallback."""
    _, arrivals, names, columns = table
    limits, own_of, plain_of, rest, metadata_type = _plan(names)
    columns = [*columns, _ZEROS]
    own = own_of(columns)
    _, received, start, end, *_ = kept = own[: len(KEPT)]
    src_octets, dst_octets, sampler_octets, *numbers = own[len(KEPT) :]
    odd: set[int] = set()
    for place, limit in limits:
        if sum(columns[place]) > limit and max(columns[place]) > limit:  # a sum takes a third of the time
            _mark(odd, map(limit.__lt__, columns[place]))
    src_addr, dst_addr, sampler_address = addresses = [
        _NULLS if octets is _ZEROS else [*map(address, octets)] for octets in (src_octets, dst_octets, sampler_octets)
    ]
    if None in src_addr or None in dst_addr or None in sampler_address:
        each = zip(arrivals, src_octets, dst_octets, sampler_octets, strict=False)
        _mark(odd, (not any(octets) or any(o and address(o) is None for o in octets) for _, *octets in each))
    times = received
    if 0 in received:
        times = [a or b or c or d for a, b, c, d in zip(received, end, start, arrivals, strict=False)]
    metadata = map(
        metadata_type,
        *[_NULLS if each is _ZEROS else _made(name, each, odd) for name, each in zip(KEPT, kept, strict=True)],
        *plain_of(columns),
        *[_made(name, columns[place], odd) for name, place in rest],
    )
    packed = _encode_lines([*metadata]).split(b"\n")  # an iterator, and what it holds, msgspec would never let go
    micros = [time // 1000 - EPOCH for time in times]
    rows: list[Row | None] = [*zip(*_in_order((micros, *addresses, *numbers, packed, _NULLS)), strict=False)]
    for place in odd:
        rows[place] = None
    return rows


def _mark(odd: set[int], flags: Iterable[object]) -> None:
    odd.update(compress(count(), flags))


def _made(name: str, column: Column, odd: set[int]) -> Iterable[Any]:
    """What metadata has of a field of KEPT or REST."""
    convert = KEPT.get(name)
    if convert is None:
        return column if column is _ZEROS else [tail_value(name, value) if value else 0 for value in column]
    if convert is str:
        return _digits(column, odd)
    if name == "protocol_name":
        _mark(odd, map(repairs_of, column))
    return map(convert, column) if all(column) else [convert(value) if value else None for value in column]


def _digits(column: Column, odd: set[int]) -> Iterable[str | None]:
    """Times as text, in half the time that str takes; those beyond int64 are negative here."""
    text = _encode(column).decode()
    if "-" in text:
        _mark(odd, (number < 0 for number in column))
    texts = text[1:-1].split(",")
    return [digits if digits != "0" else None for digits in texts] if 0 in column else texts


# --- from messages to columns ------------------------------------------------------------------------------------


def _table_of(messages: Sequence[Message]) -> Table | None:
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
    if read is None and any(_read([body]) for body in bodies[:_SAMPLE]):
        fits = [_read([body]) is not None for body in bodies]
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
