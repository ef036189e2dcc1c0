"""Flow records in JSON: the objects that goflow2 writes, and flat rows of this table. One object is one flow.

What has no column goes into metadata as it is, but for integers beyond 2^53, which become strings. Times stay there
too, with the nanoseconds that the column does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any

from eventwriter.stream import Row
from eventwriter.values import INT4_MAX, INT8_MAX, INT8_MIN, Unfit, integer, nanoseconds
from workers._flow.flow_pb2 import FlowMessage
from workers._flow.texts import address, dump_safe, mac_text
from workers._json.convert import from_base64, keep_original, merged, moment, unit_of
from workers._json.records import Origin
from workers._json.table import POLLER, Field, Table

_PORT, _SNMP, _COUNTER = (0, 0xFFFF), (0, INT4_MAX), (0, INT8_MAX)
TABLE = Table(
    Field("timestamp", "timestamptz", must=True),
    Field("gateway_id", "text", first=POLLER, aliases=("poller_id",)),
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
_INTERFACES = (("in_if", _AT["input_snmp"]), ("out_if", _AT["output_snmp"]))
"""What is beyond the column is kept under the name that protobuf has for it, as there."""
_ADDRESSES = tuple(_AT[name] for name in ("src_addr", "dst_addr", "sampler_address"))

TIMES = (
    "time_received_ns", "timeReceivedNs", "time_received", "TimeReceived",
    "time_flow_end_ns", "timeFlowEndNs", "time_flow_end_ms", "TimeFlowEndMs", "time_flow_end", "TimeFlowEnd",
    "time_flow_start_ns", "timeFlowStartNs", "time_flow_start_ms", "TimeFlowStartMs", "time_flow_start",
    "TimeFlowStart",
)  # fmt: skip
"""Received, else end, else start."""
_STRINGS = ("time_received_ns", "time_flow_start_ns", "time_flow_end_ns")
_BYTES = {"next_hop", "nextHop", "bgp_next_hop", "bgpNextHop", "mpls_ip", "mplsIp", "ipv6_routing_header_addresses",
          "ipv6RoutingHeaderAddresses"}  # fmt: skip
_FIELDS = {name for field in FlowMessage.DESCRIPTOR.fields for name in (field.name, field.camelcase_name)} - {"type"}
"""What a flow may have, under names that say so, which ``type`` does not."""
_MACS = ("src_mac", "srcMac", "dst_mac", "dstMac")

_DIRECTIONS: Mapping[int, str] = {0: "ingress", 1: "egress"}
"""IPFIX information element 61."""
_LONGEST_ADDRESS = 64
_KEYWORDS = (
    "HOPOPT", "ICMP", "IGMP", "GGP", "IPv4", "ST", "TCP", "CBT", "EGP", "IGP", "BBN-RCC-MON", "NVP-II", "PUP", "ARGUS",
    "EMCON", "XNET", "CHAOS", "UDP", "MUX", "DCN-MEAS", "HMP", "PRM", "XNS-IDP", "TRUNK-1", "TRUNK-2", "LEAF-1",
    "LEAF-2", "RDP", "IRTP", "ISO-TP4", "NETBLT", "MFE-NSP", "MERIT-INP", "DCCP", "3PC", "IDPR", "XTP", "DDP",
    "IDPR-CMTP", "TP++", "IL", "IPv6", "SDRP", "IPv6-Route", "IPv6-Frag", "IDRP", "RSVP", "GRE", "DSR", "BNA", "ESP",
    "AH", "I-NLSP", "SWIPE", "NARP", "Min-IPv4", "TLSP", "SKIP", "IPv6-ICMP", "IPv6-NoNxt", "IPv6-Opts",
    "any host internal protocol", "CFTP", "any local network", "SAT-EXPAK", "KRYPTOLAN", "RVD", "IPPC",
    "any distributed file system", "SAT-MON", "VISA", "IPCV", "CPNX", "CPHB", "WSN", "PVP", "BR-SAT-MON", "SUN-ND",
    "WB-MON", "WB-EXPAK", "ISO-IP", "VMTP", "SECURE-VMTP", "VINES", "IPTM", "NSFNET-IGP", "DGP", "TCF", "EIGRP",
    "OSPFIGP", "Sprite-RPC", "LARP", "MTP", "AX.25", "IPIP", "MICP", "SCC-SP", "ETHERIP", "ENCAP",
    "any private encryption scheme", "GMTP", "IFMP", "PNNI", "PIM", "ARIS", "SCPS", "QNX", "A/N", "IPComp", "SNP",
    "Compaq-Peer", "IPX-in-IP", "VRRP", "PGM", "any 0-hop protocol", "L2TP", "DDX", "IATP", "STP", "SRP", "UTI", "SMP",
    "SM", "PTP", "ISIS over IPv4", "FIRE", "CRTP", "CRUDP", "SSCOPMCE", "IPLT", "SPS", "PIPE", "SCTP", "FC",
    "RSVP-E2E-IGNORE", "Mobility Header", "UDPLite", "MPLS-in-IP", "manet", "HIP", "Shim6", "WESP", "ROHC", "Ethernet",
    "AGGFRAG", "NSH", "Homa", "BIT-EMU",
)  # fmt: skip
"""The keywords of IANA's registry, in the order of their numbers from 0."""
_PROTOCOLS: Mapping[str, int] = {name.upper(): number for number, name in enumerate(_KEYWORDS)} | {
    "ICMPV6": 58, "ICMP6": 58, "IPV6ICMP": 58, "OSPF": 89, "ISIS": 124, "IS-IS": 124, "UDP-LITE": 136, "IPENCAP": 4,
    "RSPF": 73, "CARP": 112, "MOBILITY-HEADER": 135, "ARGUS (DEPRECATED)": 13, "SWIPE (DEPRECATED)": 53,
    "MICP (DEPRECATED)": 95, "SM (DEPRECATED)": 122, "MOBILE": 55, "TTP": 84, "RESERVED": 255,
}  # fmt: skip
"""Upper-case name → number, also of other names that collectors write."""


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of a record; raises Unfit for a time that is none, and for one that has nothing of a flow."""
    _, _, received, envelope, repairs = origin
    row, rest = TABLE.places.sort(record)
    if row.count(None) == len(row) and all(rest[name] is None for name in _FIELDS & rest.keys()):
        raise Unfit("malformed", "a JSON object without any field of a flow")
    direction, protocol = row[_AT["flow_direction"]], row[_AT["protocol"]]
    if type(direction) is int:
        row[_AT["flow_direction"]] = _DIRECTIONS.get(direction, direction)
    if type(protocol) is str:  # goflow2 writes an empty text for one without a name
        row[_AT["protocol"]] = _PROTOCOLS.get(protocol.strip().upper(), protocol) if protocol else None
    for name, place in _INTERFACES:
        if row[place] is not None:
            with suppress(Unfit):
                index = integer(row[place])
                if index > INT4_MAX:
                    keep_original(rest, name, index, repairs, "clamped")
                    row[place] = INT4_MAX
    _open_bytes(row, rest, repairs)
    TABLE.fill(row, rest, repairs)
    if row[0] is None:
        row[0] = _time_in(rest, received, repairs)
    for place in _ADDRESSES:
        if row[place] is not None and ":" in row[place][:_LONGEST_ADDRESS] == row[place]:  # what is longer is none
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


def _time_in(rest: Mapping[str, Any], received: int, repairs: list[str]) -> int:
    """The first time that is there and within int64, else that of receipt; what is beyond counts as in protobuf."""
    found: int | None = None
    for name in TIMES:
        if name not in rest:
            continue
        value = rest[name]
        if (unit := unit_of(name)) and _is_beyond(value, unit):
            repairs.append("bad_time")
        elif found is None:
            found = moment(value, name, repairs)
    return received if found is None else found


def _is_beyond(value: Any, unit: int) -> bool:
    """Whether a time in units of so many nanoseconds is beyond int64."""
    with suppress(Unfit):
        return not INT8_MIN <= nanoseconds(value, unit) <= INT8_MAX
    return False


# --- protobuf's own JSON form: bytes are base64, integers of 64 bits are texts --------------------------------


def _open_bytes(row: list[Any], rest: dict[str, Any], repairs: list[str]) -> None:
    """Addresses and MAC addresses of protobuf's own JSON form as goflow2's JSON has them; of other forms, only MAC
    addresses that are numbers."""
    is_protojson = type(rest.get("timeReceivedNs")) is str or any(
        _octets(value, padded=True) is not None
        for value in (*(row[place] for place in _ADDRESSES), rest.get("nextHop"))
    )
    for name in _MACS:
        mac = rest.get(name)
        if is_protojson and type(mac) is str and mac.isascii() and mac.isdigit() and len(mac) <= 20:
            mac = int(mac)
        if type(mac) is int and mac > 0:
            rest[name] = mac_text(mac)
    if not is_protojson:
        return
    for place in _ADDRESSES:
        given = row[place]
        octets = _octets(given)
        if octets is not None:
            row[place] = address(octets)
            if octets and row[place] is None:  # base64 or not, it is no address
                rest[TABLE.fields[place].name] = given
                repairs.append("bad_address")
    for name in rest.keys() & _BYTES:
        value = rest[name]
        rest[name] = [*map(_opened, value)] if isinstance(value, list) else _opened(value)


def _opened(value: Any) -> Any:
    """The address that a text in base64 is; any other value as it is."""
    return address(_octets(value) or b"") or value


def _octets(value: Any, *, padded: bool = False) -> bytes | None:
    """The bytes that a text is in base64, if it is no address; ``padded``: only those of one, which ends with two =."""
    if type(value) is not str or "." in value or ":" in value or (padded and value[-2:] != "=="):
        return None
    octets = from_base64(value)
    return None if octets is None or (padded and len(octets) not in (4, 16)) else octets


@lru_cache(maxsize=65536)
def _canonical(text: str) -> str:
    """An IPv6 address as RFC 5952 writes it; any other text, and an address with a zone, as it is."""
    try:
        return text if "%" in text else address(IPv6Address(text).packed) or text
    except ValueError:
        return text
