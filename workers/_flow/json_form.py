"""Flow records in JSON: the objects that goflow2 writes, and flat rows of this table. One object is one flow.

What has a column goes there, under any of its names; all else goes into metadata as it is, but for integers beyond
2^53, which become strings. Times stay in metadata too, with the nanoseconds that the column does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

from eventwriter.stream import Row
from eventwriter.values import INT4_MAX, INT8_MAX, Unfit
from workers._flow.rows import address, dump_safe
from workers._json.convert import merged, moment
from workers._json.records import Origin
from workers._json.table import Field, Table

_PORT, _SNMP, _COUNTER = (0, 0xFFFF), (0, INT4_MAX), (0, INT8_MAX)
TABLE = Table(
    Field("timestamp", "timestamptz", must=True),
    Field("gateway_id", "text", ("poller_id", "pollerId"), aliases=("poller_id",)),
    Field("agent_id", "text"),
    Field("device_id", "text"),
    Field("flow_direction", "text", ("FlowDirection",)),
    Field("src_addr", "text", ("sourceAddress", "SrcAddr"), blank=False),
    Field("dst_addr", "text", ("destinationAddress", "DstAddr"), blank=False),
    Field("src_port", "integer", ("sourcePort", "SrcPort"), limits=_PORT),
    Field("dst_port", "integer", ("destinationPort", "DstPort"), limits=_PORT),
    Field("protocol", "integer", ("proto", "Proto"), limits=(0, 0xFF)),
    Field("packets", "bigint", ("Packets",), limits=_COUNTER, clamp=True),
    Field("octets", "bigint", ("bytes", "Bytes"), limits=_COUNTER, clamp=True),
    Field("sampler_address", "text", ("SamplerAddress",), blank=False),
    Field("input_snmp", "integer", ("in_if", "inIf", "InIf"), limits=_SNMP, clamp=True),
    Field("output_snmp", "integer", ("out_if", "outIf", "OutIf"), limits=_SNMP, clamp=True),
    Field("metadata", "jsonb", own=True),
)
"""The capitals are the names of goflow2's version 1."""
_AT = TABLE.at
_ADDRESSES = tuple(_AT[name] for name in ("src_addr", "dst_addr", "sampler_address"))

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
_DIRECTIONS: Mapping[int, str] = {0: "ingress", 1: "egress"}
"""IPFIX information element 61."""


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of a record; metadata keeps the attributes of the CloudEvent around it.

    Raises Unfit: ``bad_time`` for a time that is none, ``malformed`` if the record has nothing of a flow.
    """
    _, _, received, envelope, repairs = origin
    row, rest = TABLE.places.sort(record)
    if row.count(None) == len(row):
        raise Unfit("malformed", "a JSON object without any field of a flow")
    direction, protocol = row[_AT["flow_direction"]], row[_AT["protocol"]]
    if type(direction) is int:
        row[_AT["flow_direction"]] = _DIRECTIONS.get(direction, direction)
    if type(protocol) is str:  # goflow2 writes an empty text for one without a name
        row[_AT["protocol"]] = _PROTOCOLS.get(protocol.strip().upper(), protocol) if protocol else None
    TABLE.fill(row, rest, repairs)
    if row[0] is None:
        row[0] = _time_in(rest, received)
    for place in _ADDRESSES:
        if row[place] is not None and ":" in row[place]:
            row[place] = _canonical(row[place])
    for name in _STRINGS:
        if type(rest.get(name)) is int:
            rest[name] = str(rest[name])
    if row[-1] is not None:
        rest = merged(row[-1], rest, "metadata")
    if envelope:
        rest = merged(rest, {"cloudevent": envelope})
    row[-1] = dump_safe(rest) if rest else None
    return tuple(row)


def _time_in(rest: Mapping[str, Any], received: int) -> int:
    """The first time of the flow that is there, else that of receipt."""
    for name in _TIMES:
        if name in rest and (time := moment(rest[name], name)) is not None:
            return time
    return received


@lru_cache(maxsize=65536)
def _canonical(text: str) -> str:
    """An IPv6 address as RFC 5952 writes it; any other text, and an address with a zone, as it is."""
    try:
        return text if "%" in text else address(IPv6Address(text).packed) or text
    except ValueError:
        return text
