"""The fast path of flow records in protobuf, many messages at a time: from columns to rows.

A flow with a value that must be repaired takes the fallback, and so does one without an address: see read().
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import compress, count, repeat
from operator import itemgetter
from typing import Any

import msgspec

from eventwriter.stream import Message, Row
from eventwriter.values import EPOCH, INT4_MAX, INT8_MAX
from workers._flow.columns import Column, Table, table_of
from workers._flow.json_form import TABLE
from workers._flow.texts import JS_SAFE, KEPT, OWN, PLAIN, REST, address, metadata_of, repairs_of, tail_value

_LIMITS = {
    "type": 4, "src_port": 0xFFFF, "dst_port": 0xFFFF, "proto": 0xFF, "in_if": INT4_MAX, "out_if": INT4_MAX,
    "packets": INT8_MAX, "bytes": INT8_MAX, "sampling_rate": JS_SAFE,
}  # fmt: skip
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
    table = table_of(messages)
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
