"""Flow records in protobuf (workers/flow.proto): telling bare from length-delimited messages, and their rows.

A payload is one bare FlowMessage, or any number of them, each after its length as a varint. Nothing says which, and
some payloads parse as both; then the reading wins whose flows look like flows, see read().

Metadata holds what has no column, under the field's name, and leaves out what is 0 (proto3 does not send it). Types are
named, addresses and MAC addresses are text as in goflow2's JSON, integers beyond 2^53 are strings.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from itertools import compress
from operator import attrgetter
from socket import AF_INET6, inet_ntop
from typing import Any

import orjson
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT4_MAX, INT8_MAX, Unfit, dump_json, scrub
from workers.flow_pb2 import FlowMessage, FlowMessageV1, FlowType

JS_SAFE = 2**53 - 1
"""The largest integer that every reader of JSON takes exactly; larger ones are written as strings."""

_KNOWN = FlowMessage.DESCRIPTOR.fields_by_number
_KNOWN_V1 = FlowMessageV1.DESCRIPTOR.fields_by_number
_TYPES = {number: name for name, number in FlowType.items()}
_LAYERS = {number: name for name, number in FlowMessage.Layer.items()}

_PLAIN = (
    "sampling_rate", "sequence_num", "next_hop_as", "src_as", "dst_as", "src_net", "dst_net", "in_if", "out_if",
    "ip_tos", "forwarding_status", "ip_ttl", "tcp_flags", "vlan_id", "etype", "icmp_type", "icmp_code",
    "src_vlan", "dst_vlan", "fragment_id", "fragment_offset", "ipv6_flow_label", "ip_flags",
    "observation_domain_id", "observation_point_id", "ipv6_routing_header_seg_left", "protocol_name",
    "bytes_in", "bytes_out", "packets_in", "packets_out",
)  # fmt: skip
"""Fields that go into metadata as they are."""
_LISTS = (
    "mpls_ttl", "mpls_label", "mpls_ip", "bgp_communities", "as_path", "layer_stack", "layer_size",
    "ipv6_routing_header_addresses",
)  # fmt: skip
_ADDRESSES = ("src_addr", "dst_addr", "sampler_address")
_NOT_IN_V2 = ("time_received", "time_flow_end", "time_flow_start_ms")
"""Of these a message of version 1 has at least one."""

_plain = attrgetter(*_PLAIN)
_lists = attrgetter(*_LISTS)
_addresses = attrgetter(*_ADDRESSES)


# --- from bytes to flows ------------------------------------------------------------------------------------


def read(payload: bytes) -> Sequence[FlowMessage | None]:
    """The flows of a payload; None stands for a record that is none. Raises Unfit("malformed") if there is no flow.

    Lengths that fit exactly are strong evidence, but one bare message in some hundred thousand has them by chance, and
    some delimited messages parse as bare, their length read as a field. So the delimited reading needs flows with
    valid addresses; without them a bare reading comes first that has such addresses and no unknown field.
    """
    pieces, complete = _split(payload)
    whole: FlowMessage | None
    if complete:
        flows = [_parse(piece) for piece in pieces]
        if all(map(_is_good, flows)):
            return flows
        whole = _parse(payload)
        if whole is not None and _is_good(whole) and not len(UnknownFieldSet(whole)):
            return (whole,)
        sound = [flow if _is_sound(flow) else None for flow in flows]
        if None not in sound or any(map(_is_good, flows)):
            return sound
    else:
        whole = _parse(payload)
        if whole is not None and not len(UnknownFieldSet(whole)):
            return (whole,)
        # Cut off or damaged behind good flows: those are kept.
        if pieces and _is_good(_parse(pieces[0])):
            flows = [_parse(piece) for piece in pieces]
            return [*(flow if _is_sound(flow) else None for flow in flows), None]
    if _is_sound(whole):
        return (whole,)
    raise Unfit("malformed", "neither JSON nor a protobuf FlowMessage, bare or length-delimited")


def _split(payload: bytes) -> tuple[list[bytes], bool]:
    """Cuts at canonical varint lengths of one to three bytes: the pieces, and whether they fill the payload."""
    pieces: list[bytes] = []
    at, end = 0, len(payload)
    while at < end:
        length = payload[at]
        start = at + 1
        if length > 0x7F:
            head = payload[at : at + 3]
            if len(head) > 1 and 0 < head[1] < 0x80:
                length = length & 0x7F | head[1] << 7
                start = at + 2
            elif len(head) > 2 and head[1] > 0x7F and 0 < head[2] < 0x80:
                length = length & 0x7F | (head[1] & 0x7F) << 7 | head[2] << 14
                start = at + 3
            else:
                return pieces, False
        at = start + length
        if at > end:
            return pieces, False
        pieces.append(payload[start:at])
    return pieces, bool(pieces)


def _parse(payload: bytes) -> FlowMessage | None:
    try:
        return FlowMessage.FromString(payload)
    except DecodeError:
        return None


def _is_good(flow: FlowMessage | None) -> bool:
    """Whether it has an address, and nothing that a flow cannot have."""
    if flow is None:
        return False
    sizes = [len(octets) for octets in _addresses(flow) if octets]
    return (
        bool(sizes)
        and all(size in (4, 16) for size in sizes)
        and flow.type <= 4
        and flow.proto <= 0xFF
        and flow.src_port <= 0xFFFF
        and flow.dst_port <= 0xFFFF
    )


def _is_sound(flow: FlowMessage | None) -> bool:
    """Whether it has any field of a flow, and none with the wire type of another message's field."""
    if flow is None or not flow.ListFields():
        return False
    unknown = UnknownFieldSet(flow)
    return _is_good(flow) or all(unknown[place].field_number not in _KNOWN for place in range(len(unknown)))


# --- from flows to rows -------------------------------------------------------------------------------------


def row(flow: FlowMessage, received: int, repairs: list[str]) -> Row:
    """The row of a flow, in the order of netflow.COLUMNS; ``received`` stands in for a missing time.

    Raises Unfit("malformed") if the flow has no field at all.
    """
    plain = _plain(flow)
    metadata: dict[str, Any] = dict(compress(zip(_PLAIN, plain, strict=True), plain))
    if kind := flow.type:
        metadata["type"] = _TYPES.get(kind, kind)
    if octets := flow.next_hop:
        metadata["next_hop"] = address(octets) or octets.hex()
    if octets := flow.bgp_next_hop:
        metadata["bgp_next_hop"] = address(octets) or octets.hex()
    if mac := flow.src_mac:
        metadata["src_mac"] = mac_text(mac)
    if mac := flow.dst_mac:
        metadata["dst_mac"] = mac_text(mac)
    lists = _lists(flow)
    if any(lists):
        _keep_lists(lists, metadata)

    # Received, else end, else start; all three stay in metadata with their nanoseconds.
    time = 0
    if nanos := flow.time_flow_start_ns:
        metadata["time_flow_start_ns"] = nanos if nanos <= JS_SAFE else str(nanos)
        time = nanos if nanos <= INT8_MAX else _bad_time(time, repairs)
    if nanos := flow.time_flow_end_ns:
        metadata["time_flow_end_ns"] = nanos if nanos <= JS_SAFE else str(nanos)
        time = nanos if nanos <= INT8_MAX else _bad_time(time, repairs)
    if nanos := flow.time_received_ns:
        metadata["time_received_ns"] = nanos if nanos <= JS_SAFE else str(nanos)
        time = nanos if nanos <= INT8_MAX else _bad_time(time, repairs)

    direction = None
    if len(UnknownFieldSet(flow)):
        time, direction = _keep_unknown(flow, time, metadata, repairs)

    src_octets, dst_octets, sampler_octets = _addresses(flow)
    src_addr = address(src_octets)
    dst_addr = address(dst_octets)
    sampler_address = address(sampler_octets)
    if src_addr is None or dst_addr is None or sampler_address is None:
        _keep_addresses(flow, metadata, repairs)
    src_port: int | None = flow.src_port
    dst_port: int | None = flow.dst_port
    protocol: int | None = flow.proto
    if flow.src_port > 0xFFFF or flow.dst_port > 0xFFFF or flow.proto > 0xFF:
        src_port = _within("src_port", flow.src_port, 0xFFFF, metadata, repairs)
        dst_port = _within("dst_port", flow.dst_port, 0xFFFF, metadata, repairs)
        protocol = _within("proto", flow.proto, 0xFF, metadata, repairs)
    packets = flow.packets
    octets_count = flow.bytes
    if packets > INT8_MAX or octets_count > INT8_MAX:
        packets = _clamp("packets", packets, INT8_MAX, metadata, repairs)
        octets_count = _clamp("bytes", octets_count, INT8_MAX, metadata, repairs)
    in_if = flow.in_if
    out_if = flow.out_if
    if in_if > INT4_MAX or out_if > INT4_MAX:
        in_if = _clamp("in_if", in_if, INT4_MAX, metadata, repairs)
        out_if = _clamp("out_if", out_if, INT4_MAX, metadata, repairs)
    if not metadata and not flow.ListFields():
        raise Unfit("malformed", "a FlowMessage without any field")
    return (
        time // 1000 - EPOCH if time else received,
        None,
        None,
        None,
        direction,
        src_addr,
        dst_addr,
        src_port,
        dst_port,
        protocol,
        packets,
        octets_count,
        sampler_address,
        in_if,
        out_if,
        _dump(metadata, repairs) if metadata else None,
    )


@lru_cache(maxsize=65536)
def address(octets: bytes) -> str | None:
    """The text of an IP address of 4 or 16 bytes (RFC 5952); None for any other length."""
    if len(octets) == 4:
        return f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}"
    if len(octets) != 16:
        return None
    if octets.startswith(bytes(10)):  # where C libraries disagree about dotted quads inside IPv6
        mapped = IPv6Address(octets).ipv4_mapped
        return str(IPv6Address(octets)) if mapped is None else f"::ffff:{mapped}"
    return inet_ntop(AF_INET6, octets)


@lru_cache(maxsize=65536)
def mac_text(mac: int) -> str | int:
    """00:11:22:33:44:55, the way goflow2's JSON writes a MAC address; a number beyond 48 bits stays one."""
    return mac.to_bytes(6, "big").hex(":") if mac < 1 << 48 else mac


def _keep_lists(lists: Sequence[Any], metadata: dict[str, Any]) -> None:
    for name, values in zip(_LISTS, lists, strict=True):
        if values:
            if name == "layer_stack":
                metadata[name] = [_LAYERS.get(layer, layer) for layer in values]
            elif name in ("mpls_ip", "ipv6_routing_header_addresses"):
                metadata[name] = [address(octets) or octets.hex() for octets in values]
            else:
                metadata[name] = [*values]


def _keep_addresses(flow: FlowMessage, metadata: dict[str, Any], repairs: list[str]) -> None:
    for name, octets in zip(_ADDRESSES, _addresses(flow), strict=True):
        if octets and address(octets) is None:
            metadata[name] = octets.hex()
            repairs.append("bad_address")


def _within(name: str, number: int, limit: int, metadata: dict[str, Any], repairs: list[str]) -> int | None:
    """The number, or None with the original in metadata if it has no meaning."""
    if number <= limit:
        return number
    metadata[name] = number
    repairs.append("bad_value")
    return None


def _clamp(name: str, number: int, limit: int, metadata: dict[str, Any], repairs: list[str]) -> int:
    """The number, or the limit with the original as text in metadata."""
    if number <= limit:
        return number
    metadata[name] = str(number)
    repairs.append("clamped")
    return limit


def _bad_time(other: int, repairs: list[str]) -> int:
    repairs.append("bad_time")
    return other


# --- version 1 and fields of others -------------------------------------------------------------------------


def _keep_unknown(flow: FlowMessage, time: int, metadata: dict[str, Any], repairs: list[str]) -> tuple[int, str | None]:
    """Keeps what version 2 does not know; the time in nanoseconds and the direction that version 1 knows.

    Version 1 has no time_received_ns, but one of _NOT_IN_V2; its times are added in the names and unit of version 2.
    Fields of nobody's, such as the user-defined ones from 1000, go under ``unknown_fields`` by their numbers.
    """
    direction = None
    others = _by_number(UnknownFieldSet(flow))
    if not flow.time_received_ns:
        old = FlowMessageV1.FromString(flow.SerializeToString())
        if any(getattr(old, name) for name in _NOT_IN_V2):
            metadata.pop("ip_flags", None)
            time = _keep_v1(old, metadata, repairs) or time
            direction = "egress" if old.flow_direction == 1 else None
            others = {number: value for number, value in others.items() if int(number) not in _KNOWN_V1}
    if others:
        metadata["unknown_fields"] = others
    return time, direction


def _keep_v1(old: FlowMessageV1, metadata: dict[str, Any], repairs: list[str]) -> int:
    for field, value in old.ListFields():
        metadata[field.name] = (address(value) or value.hex()) if isinstance(value, bytes) else value
    found = {
        "time_flow_start_ns": old.time_flow_start_ms * 1_000_000 or old.time_flow_start * 1_000_000_000,
        "time_flow_end_ns": old.time_flow_end_ms * 1_000_000 or old.time_flow_end * 1_000_000_000,
        "time_received_ns": old.time_received * 1_000_000_000,
    }
    time = 0
    for name, nanos in found.items():
        if nanos > INT8_MAX:
            repairs.append("bad_time")
        elif nanos:
            metadata[name] = str(nanos)
            time = nanos
    return time


def _by_number(unknown: UnknownFieldSet) -> dict[str, Any]:
    """Unknown fields by number, a list if there are several: integers as such, bytes as hex, groups as objects."""
    found: dict[str, list[Any]] = {}
    for place in range(len(unknown)):
        field = unknown[place]
        value: Any = field.data
        if isinstance(value, bytes):
            value = value.hex()
        elif not isinstance(value, int):
            value = _by_number(value)
        elif value > JS_SAFE:
            value = str(value)
        found.setdefault(str(field.field_number), []).append(value)
    return {number: values[0] if len(values) == 1 else values for number, values in found.items()}


def _dump(metadata: dict[str, Any], repairs: list[str]) -> bytes:
    try:
        text = orjson.dumps(metadata, option=orjson.OPT_STRICT_INTEGER)
    except TypeError:
        text = dump_json({k: str(v) if isinstance(v, int) and v > JS_SAFE else v for k, v in metadata.items()})
    if "protocol_name" in metadata and b"\\u0000" in text:
        text = dump_json(scrub(metadata, repairs))
    return text
