"""NETFLOW: flow records in protobuf (goflow2 and its relatives) or JSON become rows of ``netflow_metrics``.

The bytes say which: JSON is what parses as JSON, one value or one object per line; all else is protobuf. Either may be
gzip or zlib, and either may be the data of a CloudEvent.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from eventwriter.stream import Row, Stream
from eventwriter.values import Unfit
from workers._flow.fast import fast_rows
from workers._flow.json_form import TABLE, flat_row
from workers._flow.read import Flows, read
from workers._flow.rows import row
from workers._json.payload import parse, unpack
from workers._json.records import Kind, Origin, Records, after_first, decoder
from workers._limits import RECORDS_MAX, TooLarge

_NOT_PLAIN = frozenset(b"{[ \t\r\n\xef\x1f\x78")
"""First bytes of JSON and of gzip and zlib; protobuf may begin with them too."""
_lines = re.compile(rb"\S[^\n]*+").finditer
_lines_of_objects = re.compile(rb"^[^\S\n]*+\{[^\n]*+", re.MULTILINE).finditer


class _Flows(Kind):
    """Flows in JSON, one value or a line each, and in protobuf."""

    def rows_of(self, payload: bytes, origin: Origin) -> Sequence[Row]:
        _, _, received, _, repairs = origin
        if payload and payload[0] not in _NOT_PLAIN:
            try:
                flows = read(payload)
                if None not in flows:
                    return [row(flow, received, repairs) for flow in flows if flow]
            except Unfit:
                repairs.clear()
        return ()

    def read(self, records: Records, octets: bytes, origin: Origin, depth: int) -> None:
        if octets and octets[0] not in _NOT_PLAIN:
            with suppress(Unfit):
                return _take_flows(records, read(octets), origin)
        try:
            octets = unpack(octets, records)
        except Unfit as error:
            if error.reason != "malformed" or not octets:  # lengths of 30, 31 and 120 bytes look like compression
                raise
        return _take(records, octets, origin, depth)

    read_data = read


def _take(records: Records, octets: bytes, origin: Origin, depth: int) -> None:
    """JSON, JSON lines or protobuf; raises Unfit if it is none of them."""
    first, _, more = octets.partition(b"\n")
    if more and _is_object(first) and more.strip():
        return _take_lines(records, octets, origin, depth)
    try:
        value = parse(octets, origin[4])
    except Unfit:
        try:
            flows = read(octets)
        except (Unfit, TooLarge):
            if not any(_is_object(line[0]) for line in islice(_lines_of_objects(more), RECORDS_MAX)):
                raise
            return _take_lines(records, octets, origin, depth)
        return _take_flows(records, flows, origin)
    return records.take(value, origin, depth)


def _take_lines(records: Records, octets: bytes, origin: Origin, depth: int) -> None:
    if octets.count(b"\n") >= RECORDS_MAX:  # nothing is made of them before
        records.check(sum(1 for _ in islice(_lines(octets), RECORDS_MAX + 1)))
    others, before = origin, records.count
    if origin[3] is not None:
        others = after_first(origin, sum(1 for _ in _lines(octets)))
    for line in _lines(octets):
        records.check(1)
        try:
            records.take_each([parse(line[0], origin[4])], origin, depth)
        except Unfit as error:
            records.reject(error)
        if records.count > before:
            origin = others


def _take_flows(records: Records, flows: Flows, origin: Origin) -> None:
    _, _, received, envelope, repairs = origin
    records.check(len(flows))
    _, _, _, others, _ = after_first(origin, len(flows))
    add = records.rows.append
    for flow in flows:
        try:
            if flow is None:
                raise Unfit("malformed", "not a FlowMessage of the length before it")
            add(row(flow, received, repairs, envelope))
        except Unfit as error:
            records.reject(error)
        envelope = others


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip()[:1] == b"{" and isinstance(parse(line, []), dict)
    except Unfit:
        return False


STREAM = Stream(
    name="NETFLOW",
    subjects=("netflow.>",),
    table="netflow_metrics",
    columns=TABLE.columns,
    decode=decoder(_Flows(flat_row)),
    fast=fast_rows,
)
