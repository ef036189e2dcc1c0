"""Flow records in JSON: the objects that goflow2 writes, and flat rows of this table. One object is one flow.

What has a column goes there, under any of its names; all else goes into metadata as it is, but for integers beyond
2^53, which become strings. Times stay in metadata too, with the nanoseconds that the column does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

import orjson

from eventwriter import values
from eventwriter.stream import Row
from eventwriter.values import INT4_MAX, INT8_MAX, Unfit
from workers._flow.rows import JS_SAFE, address
from workers._json.flat import Places, keep_original, merged, names, parsed, trimmed

PLACES = Places(
    ("timestamp",),
    names("gateway_id", "poller_id", "pollerId"),
    names("agent_id"),
    names("device_id"),
    names("flow_direction", "FlowDirection"),
    names("src_addr", "sourceAddress", "SrcAddr"),
    names("dst_addr", "destinationAddress", "DstAddr"),
    names("src_port", "sourcePort", "SrcPort"),
    names("dst_port", "destinationPort", "DstPort"),
    ("protocol", "proto", "Proto"),
    ("packets", "Packets"),
    ("octets", "bytes", "Bytes"),
    names("sampler_address", "SamplerAddress"),
    names("input_snmp", "in_if", "inIf", "InIf"),
    names("output_snmp", "out_if", "outIf", "OutIf"),
    ("metadata",),
)
"""The places of a row, in the order of netflow.COLUMNS, and their names (the capitals are goflow2's version 1)."""

_TIMES = (
    "time_received_ns", "timeReceivedNs", "time_received", "TimeReceived",
    "time_flow_end_ns", "timeFlowEndNs", "time_flow_end_ms", "TimeFlowEndMs", "time_flow_end", "TimeFlowEnd",
    "time_flow_start_ns", "timeFlowStartNs", "time_flow_start_ms", "TimeFlowStartMs", "time_flow_start",
    "TimeFlowStart",
)  # fmt: skip
"""Received, else end, else start."""
_STRINGS = ("time_received_ns", "time_flow_start_ns", "time_flow_end_ns")

_PROTOCOLS: Mapping[str, int] = {
    "HOPOPT": 0, "ICMP": 1, "IGMP": 2, "GGP": 3, "IPIP": 4, "IPV4": 4, "ST": 5, "TCP": 6, "EGP": 8, "IGP": 9, "UDP": 17,
    "DCCP": 33, "IPV6": 41, "IPV6-ROUTE": 43, "IPV6-FRAG": 44, "RSVP": 46, "GRE": 47, "ESP": 50, "AH": 51,
    "IPV6-ICMP": 58, "ICMPV6": 58, "ICMP6": 58, "IPV6-NONXT": 59, "IPV6-OPTS": 60, "EIGRP": 88, "OSPF": 89,
    "OSPFIGP": 89, "ETHERIP": 97, "PIM": 103, "IPCOMP": 108, "VRRP": 112, "L2TP": 115, "ISIS": 124, "SCTP": 132,
    "FC": 133, "UDPLITE": 136, "UDP-LITE": 136, "MPLS-IN-IP": 137,
}  # fmt: skip
"""Keywords of the IANA registry of protocol numbers, and what goflow2 writes for them."""
_HUGE = 10**400
_DIRECTIONS: Mapping[int, str] = {0: "ingress", 1: "egress"}
"""IPFIX information element 61."""


def row(record: Mapping[str, Any], envelope: Mapping[str, Any] | None, received: int, repairs: list[str]) -> Row:
    """The row of a record, in the order of netflow.COLUMNS.

    ``envelope`` holds the attributes of the CloudEvent around it, which metadata keeps; ``received`` stands in for
    a missing time. Raises Unfit: ``bad_time`` for a time that is none, ``malformed`` if the
    record has nothing of a flow.
    """
    given, rest = PLACES.sort(record)
    if given.count(None) == len(given):
        raise Unfit("malformed", "a JSON object without any field of a flow")
    timestamp, gateway_id, agent_id, device_id, direction, src_addr, dst_addr, src_port, dst_port, protocol = given[:10]
    packets, octets, sampler_address, input_snmp, output_snmp, metadata = given[10:]
    time = _time_of(timestamp, rest, received)
    for name in _STRINGS:
        if type(rest.get(name)) is int:
            rest[name] = str(rest[name])
    if type(direction) is int:
        direction = _DIRECTIONS.get(direction, direction)
    cells = (
        time,
        _text("gateway_id", gateway_id, rest, repairs),
        _text("agent_id", agent_id, rest, repairs),
        _text("device_id", device_id, rest, repairs),
        _text("flow_direction", direction, rest, repairs),
        _address("src_addr", src_addr, rest, repairs),
        _address("dst_addr", dst_addr, rest, repairs),
        _number("src_port", src_port, 0xFFFF, rest, repairs),
        _number("dst_port", dst_port, 0xFFFF, rest, repairs),
        _protocol(protocol, rest, repairs),
        _count("packets", packets, INT8_MAX, rest, repairs),
        _count("octets", octets, INT8_MAX, rest, repairs),
        _address("sampler_address", sampler_address, rest, repairs),
        _count("input_snmp", input_snmp, INT4_MAX, rest, repairs),
        _count("output_snmp", output_snmp, INT4_MAX, rest, repairs),
    )
    if metadata is not None:
        if not isinstance(metadata := parsed(metadata), dict):
            metadata = {"metadata": metadata}
        rest = merged(metadata, rest)
    if envelope:
        rest = merged(rest, {"cloudevent": envelope})
    return (*cells, _dump(rest) if rest else None)


# --- times ------------------------------------------------------------------------------------------------


def _time_of(timestamp: Any, rest: Mapping[str, Any], received: int) -> int:
    if timestamp is not None and (time := _time("timestamp", timestamp)) is not None:
        return time
    for name in _TIMES:
        if name in rest and (time := _time(name, rest[name])) is not None:
            return time
    return received


def _time(name: str, value: Any) -> int | None:
    """A time as timestamptz, in the unit that its name says; None for 0, null and an empty text: there is none."""
    if value in (0, "0", "", None) and value is not False:
        return None
    unit = name[-2:].lower()
    try:
        if unit in ("ns", "ms") and not (isinstance(value, str) and "-" in value[1:]):
            return values.time_from_nanos(values.integer(value) * (1 if unit == "ns" else 1_000_000))
        return values.time(value)
    except Unfit as error:
        raise Unfit("bad_time", f"{name}: {error}") from None


# --- values -----------------------------------------------------------------------------------------------


def _text(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> str | None:
    if value is None or type(value) is str:
        return value
    try:
        return values.text(value)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None


def _address(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> str | None:
    text = _text(name, value, rest, repairs)
    return _canonical(text) if text and ":" in text else text or None


@lru_cache(maxsize=65536)
def _canonical(text: str) -> str:
    """An IPv6 address as RFC 5952 writes it; any other text, and an address with a zone, as it is."""
    try:
        return text if "%" in text else address(IPv6Address(text).packed) or text
    except ValueError:
        return text


def _number(name: str, value: Any, limit: int, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """An integer from 0 to the limit; anything else is NULL and kept."""
    if type(value) is int and 0 <= value <= limit:
        return value
    if value is None:
        return None
    try:
        return values.integer(value, 0, limit)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None


def _protocol(value: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """A protocol by its number or name; goflow2 writes an empty text for one without a name."""
    if type(value) is str:
        if not value:
            return None
        value = _PROTOCOLS.get(value.strip().upper(), value)
    return _number("protocol", value, 0xFF, rest, repairs)


def _count(name: str, value: Any, limit: int, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """An integer from 0 to the limit, larger ones clamped; the original of what does not fit is kept."""
    if type(value) is int and 0 <= value <= limit:
        return value
    if value is None:
        return None
    try:
        number = values.integer(value, 0, _HUGE)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None
    if number <= limit:
        return number
    keep_original(rest, name, str(number), repairs, "clamped")
    return limit


# --- metadata ---------------------------------------------------------------------------------------------


def _dump(metadata: dict[str, Any]) -> bytes:
    try:
        return trimmed(orjson.dumps(metadata, option=orjson.OPT_STRICT_INTEGER))
    except TypeError:
        try:
            return values.dump_json(_safe(metadata))
        except RecursionError:
            raise Unfit("bad_value", "JSON nested too deep to be written") from None


def _safe(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _safe(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_safe(each) for each in value]
    return str(value) if type(value) is int and abs(value) > JS_SAFE else value
