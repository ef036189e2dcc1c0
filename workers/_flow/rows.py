"""Flow records in protobuf, from flows to rows, one by one: what is not as it should be is repaired, all else kept."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import msgspec
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT4_MAX, INT8_MAX, Unfit
from workers._flow import texts
from workers._flow.flow_pb2 import FlowMessage, FlowTail
from workers._flow.read import Flow, by_number, parsed, unknown_in
from workers._flow.texts import COLUMNS, JS_SAFE, REST, address, address_or_hex, metadata_from, safe, tail_value
from workers._json.convert import clamped

_rest = attrgetter(*REST)
_encode = msgspec.json.Encoder().encode


def row(flow: Flow, received: int, repairs: list[str], envelope: Mapping[str, Any] | None = None) -> Row:
    """The row of a flow; ``received`` stands in for a missing time, and metadata has the CloudEvent around it, if any.
    Raises Unfit("malformed") if the flow has no field at all."""
    _, head, has_tail, fields = flow
    received_at, start, end = fields[1:4]
    (
        name, src_octets, dst_octets, sampler_octets, src_port, dst_port, protocol, packets, volume, in_if, out_if,
        rate,
    ) = fields[COLUMNS]  # fmt: skip
    more: dict[str, Any] = {}
    time = received_at or end or start
    if start > INT8_MAX or end > INT8_MAX or received_at > INT8_MAX:
        times = received_at, end, start
        repairs += ["bad_time" for nanos in times if nanos > INT8_MAX]
        time = next((nanos for nanos in times if 0 < nanos <= INT8_MAX), 0)
    direction = None
    if has_tail:
        time, direction = _keep_tail(flow, time, more, repairs)

    src_addr, dst_addr, sampler_address = address(src_octets), address(dst_octets), address(sampler_octets)
    if src_addr is None or dst_addr is None or sampler_address is None:
        for column in ("src_addr", "dst_addr", "sampler_address"):
            octets = getattr(head, column)
            if octets and address(octets) is None:
                more[column] = octets.hex()
                repairs.append("bad_address")
    if src_port > 0xFFFF or dst_port > 0xFFFF or protocol > 0xFF:
        given = (("src_port", src_port, 0xFFFF), ("dst_port", dst_port, 0xFFFF), ("protocol", protocol, 0xFF))
        beyond = {column: number for column, number, limit in given if number > limit}
        repairs += ["bad_value"] * len(beyond)
        more |= beyond
        src_port, dst_port, protocol = (None if column in beyond else number for column, number, _ in given)
    if packets > INT8_MAX or volume > INT8_MAX:
        packets = clamped("packets", 0, INT8_MAX, packets, more, repairs)
        volume = clamped("octets", 0, INT8_MAX, volume, more, repairs)
    if in_if > INT4_MAX or out_if > INT4_MAX:
        repairs += ["clamped"] * ((in_if > INT4_MAX) + (out_if > INT4_MAX))
        in_if, out_if = min(in_if, INT4_MAX), min(out_if, INT4_MAX)  # metadata has both as they are
    if name:
        repairs += texts.repairs_of(name)
    metadata = metadata_from(*fields)
    packed: bytes | None = _encode(metadata)
    if (packed == b"{}" or envelope) and not more and not head.ListFields():
        raise Unfit("malformed", "a FlowMessage without any field")
    if more or envelope or rate > JS_SAFE:  # the rate is the only one that may be
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


# --- the tail: lists, version 1, fields of others -------------------------------------------------------------


def _keep_tail(flow: Flow, time: int, metadata: dict[str, Any], repairs: list[str]) -> tuple[int, str | None]:
    """Keeps what is not in the head; the time in nanoseconds and the direction, which version 1 has there.

    Version 1 has other times, which are added in the names and unit of version 2. Fields of nobody's, such as the
    user-defined ones from 1000, go under ``unknown_fields`` by their numbers: integers as such, bytes as hex.
    """
    payload, head, *_ = flow
    whole = parsed(FlowMessage, payload)
    if whole is not None and not len(UnknownFieldSet(whole)):  # to look at them one by one costs more than all the rest
        metadata |= {name: tail_value(name, value) for name, value in zip(REST, _rest(whole), strict=True) if value}
        return time, None

    direction = None
    tail = parsed(FlowTail, payload)
    unknown = unknown_in(flow, tail)
    if tail is not None:
        metadata |= {field.name: tail_value(field.name, value) for field, value in tail.ListFields()}
        old = tail.time_received or tail.time_flow_end or tail.time_flow_start_ms
        if old and not head.time_received_ns:
            time = _keep_v1_times(tail, time, metadata, repairs)
            direction = "egress" if tail.flow_direction == 1 else None
    if segments := [value for value in unknown.get(105, ()) if isinstance(value, int)]:
        # goflow2 of August 2024: 104 held the addresses of the routing header, 105 the segments left.
        octets = [value for value in by_number(UnknownFieldSet(head)).get(104, ()) if isinstance(value, bytes)]
        metadata.pop("layer_size", None)
        metadata["ipv6_routing_header_addresses"] = [*map(address_or_hex, octets)]
        metadata["ipv6_routing_header_seg_left"] = safe(segments[-1])
        del unknown[105]
        unknown.pop(104, None)
    if unknown:
        metadata["unknown_fields"] = {str(n): [*map(_unknown_value, values)] for n, values in unknown.items()}
    return time, direction


def _unknown_value(value: Any) -> Any:
    if isinstance(value, int):
        return safe(value)
    if isinstance(value, bytes):
        return value.hex()
    return {str(n): [*map(_unknown_value, values)] for n, values in by_number(value).items()}


def _keep_v1_times(tail: FlowTail, time: int, metadata: dict[str, Any], repairs: list[str]) -> int:
    if tail.ip_flags:
        del metadata["ip_flags"]
        metadata["time_flow_start"] = safe(tail.ip_flags)
    for name, nanos in (
        ("time_flow_start_ns", tail.time_flow_start_ms * 1_000_000 or tail.ip_flags * 1_000_000_000),
        ("time_flow_end_ns", tail.time_flow_end_ms * 1_000_000 or tail.time_flow_end * 1_000_000_000),
        ("time_received_ns", tail.time_received * 1_000_000_000),
    ):
        if nanos > INT8_MAX:
            repairs.append("bad_time")
        elif nanos:
            metadata[name] = str(nanos)
            time = nanos
    return time
