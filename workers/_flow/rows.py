"""Flow records in protobuf, from flows to rows, one by one: what is not as it should be is repaired, all else kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import msgspec

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT4_MAX, INT8_MAX, Unfit
from workers._flow import texts
from workers._flow.flow_pb2 import FlowHead, FlowTail
from workers._flow.json_form import TABLE
from workers._flow.read import Flow, by_number
from workers._flow.texts import ADDRESSES, COLUMNS, NUMBERS, TAIL, address, address_or_hex, fields_of, metadata_from

_tail = attrgetter(*TAIL)
_LIMITS = [TABLE.fields[TABLE.places.place_of[name]] for name in NUMBERS]
_encode = msgspec.json.Encoder().encode


def row(flow: Flow, received: int, repairs: list[str], envelope: Mapping[str, Any] | None = None) -> Row:
    """The row of a flow; ``received`` stands in for a missing time, and metadata has the CloudEvent around it, if any.
    Raises Unfit("malformed") if the flow has no field at all."""
    head, _, others, _, fields = flow
    more: dict[str, Any] = {}
    direction = None
    if others:
        more, direction = _beyond(flow, repairs)
        fields = fields_of(head)
    time, start, end = fields[1:4]
    (
        name, src_octets, dst_octets, sampler_octets, src_port, dst_port, protocol, packets, volume, in_if, out_if,
        rate,
    ) = fields[COLUMNS]  # fmt: skip
    if time > INT8_MAX or end > INT8_MAX or start > INT8_MAX:
        times = time, end, start
        repairs += ["bad_time" for nanos in times if nanos > INT8_MAX]
        time = next((nanos for nanos in times if 0 < nanos <= INT8_MAX), 0)
    else:
        time = time or end or start
    src_addr, dst_addr, sampler_address = address(src_octets), address(dst_octets), address(sampler_octets)
    if src_addr is None or dst_addr is None or sampler_address is None:
        for column in ADDRESSES:
            octets = getattr(head, column)
            if octets and address(octets) is None:
                more[column] = octets.hex()
                repairs.append("bad_address")
    if (
        src_port > 0xFFFF or dst_port > 0xFFFF or protocol > 0xFF or packets > INT8_MAX or volume > INT8_MAX
        or in_if > INT4_MAX or out_if > INT4_MAX
    ):  # fmt: skip
        numbers = fields[COLUMNS][4:-1]
        src_port, dst_port, protocol, packets, volume, in_if, out_if = _limited(numbers, more, repairs)
    if name:
        repairs += texts.repairs_of(name)
    metadata = metadata_from(*fields)
    packed: bytes | None = _encode(metadata)
    if (packed == b"{}" or envelope) and not more and not head.ListFields():
        raise Unfit("malformed", "a FlowMessage without any field")
    if more or envelope or rate > texts.JS_SAFE:  # the rate is the only one that may be
        more = msgspec.to_builtins(metadata) | more
        if envelope:
            more["cloudevent"] = envelope
        packed = texts.dump_safe(more)
    elif packed == b"{}":
        packed = None
    return (
        time // 1000 - EPOCH if time else received, None, None, None, direction, src_addr, dst_addr, src_port, dst_port,
        protocol, packets, volume, sampler_address, in_if, out_if, packed,
    )  # fmt: skip


def _limited(numbers: Sequence[int], more: dict[str, Any], repairs: list[str]) -> list[int | None]:
    """The numbers as their columns can hold them; ``more`` gets the others, but for interfaces, which metadata has."""
    fit: list[int | None] = []
    for number, field in zip(numbers, _LIMITS, strict=True):
        limit = field.range[1]
        if number > limit:
            repairs.append("clamped" if field.clamp else "bad_value")
            if limit != INT4_MAX:
                more[field.name] = number
        fit.append(number if number <= limit else limit if field.clamp else None)
    return fit


# --- the tail: lists, version 1, fields of others -------------------------------------------------------------


def _beyond(flow: Flow, repairs: list[str]) -> tuple[dict[str, Any], str | None]:
    """What metadata has of all that is not in the head; the direction, which version 1 has there.

    Version 1 has other times, which the head gets in the names and unit of version 2. Fields of nobody's, such as the
    user-defined ones from 1000, go under ``unknown_fields`` by their numbers: integers as such, bytes as hex.
    """
    head, tail, others, unknown, _ = flow
    metadata = {name: texts.tail_value(name, value) for name, value in zip(TAIL, _tail(tail), strict=True) if value}
    direction = None
    old = tail.time_received or tail.time_flow_end or tail.time_flow_start_ms
    if old and not head.time_received_ns:
        if tail.ip_flags:
            metadata["time_flow_start"] = metadata.pop("ip_flags")
        _open_v1_times(tail, head, repairs)
        direction = "egress" if tail.flow_direction == 1 else None
    if segments := [value for value in unknown.get(105, ()) if isinstance(value, int)]:
        # goflow2 of August 2024: 104 held the addresses of the routing header, 105 the segments left.
        octets = [value for value in others.get(104, ()) if isinstance(value, bytes)]
        metadata.pop("layer_size", None)
        metadata["ipv6_routing_header_addresses"] = [*map(address_or_hex, octets)]
        metadata["ipv6_routing_header_seg_left"] = segments[-1]
        unknown = {number: values for number, values in unknown.items() if number not in (104, 105)}
    if unknown:
        metadata["unknown_fields"] = _by_name(unknown)
    return metadata, direction


def _open_v1_times(tail: FlowTail, head: FlowHead, repairs: list[str]) -> None:
    """Gives the head the times of version 1, which has the start in seconds where IP's flags are now."""
    for name, nanos in (
        ("time_flow_start_ns", tail.time_flow_start_ms * 1_000_000 or tail.ip_flags * 1_000_000_000),
        ("time_flow_end_ns", tail.time_flow_end_ms * 1_000_000 or tail.time_flow_end * 1_000_000_000),
        ("time_received_ns", tail.time_received * 1_000_000_000),
    ):
        if nanos > INT8_MAX:
            repairs.append("bad_time")
        elif nanos:
            setattr(head, name, nanos)


def _by_name(unknown: Mapping[int, list[Any]]) -> dict[str, list[Any]]:
    return {str(number): [*map(_unknown_value, values)] for number, values in unknown.items()}


def _unknown_value(value: Any) -> Any:
    if isinstance(value, int):
        return texts.safe(value)
    return value.hex() if isinstance(value, bytes) else _by_name(by_number(value))
