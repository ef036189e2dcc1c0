"""What becomes of the fields of a flow: how rows write addresses, MAC addresses, names and numbers, and what metadata
has of protobuf, one flow by one (rows.py) as many at a time (fast.py).

Metadata holds what has no column, under the field's name, and leaves out what is 0 (proto3 does not send it). Types and
layers are named, addresses and MAC addresses are text as in goflow2's JSON, integers beyond 2^53 are strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address
from operator import attrgetter
from socket import AF_INET6, inet_ntop
from typing import Any

import msgspec
import orjson

from eventwriter.masking.community import masked
from eventwriter.values import Unfit, clean
from workers._flow.flow_pb2 import FlowMessage, FlowTail, FlowType
from workers._json.convert import packed

JS_SAFE = 2**53 - 1
"""The largest integer that every reader of JSON takes exactly; larger ones are written as strings."""
_ADDRESSES_MAX = 65536


class _Cache(dict[bytes, Any]):
    """What is made of addresses, once made: in half the time of lru_cache, which puts each into a tuple first."""

    def __init__(self, make: Callable[[bytes], Any]) -> None:
        self.make = make

    def __missing__(self, octets: bytes) -> Any:
        text = self.make(octets)
        if len(octets) <= 16:
            if len(self) == _ADDRESSES_MAX:
                self.clear()
            self[octets] = text
        return text


def _address(octets: bytes) -> str | None:
    if len(octets) == 4:
        return f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}"
    if len(octets) != 16:
        return None
    if octets.startswith(bytes(10)):  # where C libraries disagree about dotted quads inside IPv6
        mapped = IPv6Address(octets).ipv4_mapped
        return str(IPv6Address(octets)) if mapped is None else f"::ffff:{mapped}"
    return inet_ntop(AF_INET6, octets)


address: Callable[[bytes], str | None] = _Cache(_address).__getitem__
"""The text of an IP address of 4 or 16 bytes (RFC 5952); None for any other length."""
address_or_hex: Callable[[bytes], str] = _Cache(lambda octets: _address(octets) or octets.hex()).__getitem__
"""The same, and the digits of what is no address."""


@lru_cache(maxsize=65536)
def mac_text(mac: int) -> str | int:
    """00:11:22:33:44:55, the way goflow2's JSON writes a MAC address; beyond 48 bits it is but a number."""
    return mac.to_bytes(6, "big").hex(":") if mac < 1 << 48 else safe(mac)


def protocol_text(octets: bytes) -> str:
    """The name of a protocol, fit for PostgreSQL."""
    return clean(octets.decode("utf-8", "replace"), [])


def repairs_of(name: bytes) -> list[str]:
    """What had to be repaired in the name of a protocol."""
    text, repairs = name.decode("utf-8", "replace"), list[str]()
    if text.encode() != name:
        repairs.append("invalid_utf8")
    clean(text, repairs)
    return repairs


def safe(value: Any) -> Any:
    """A JSON value with the texts of integers that not every reader of JSON takes exactly."""
    if isinstance(value, dict):
        return {name: safe(each) for name, each in value.items()}
    if isinstance(value, list):
        return [safe(each) for each in value]
    return str(value) if isinstance(value, int) and abs(value) > JS_SAFE else value


def dump_safe(metadata: dict[str, Any]) -> bytes:
    """The JSON of metadata, with integers as ``safe`` has them."""
    try:
        return masked(orjson.dumps(metadata, option=orjson.OPT_STRICT_INTEGER))
    except TypeError:
        try:
            return packed(safe(metadata))
        except RecursionError:
            raise Unfit("bad_value", "JSON nested too deep to be written") from None


# --- metadata of flows in protobuf -------------------------------------------------------------------------------


class _Names(dict[int, Any]):
    """The names of an enumeration; a number that has none stands for itself."""

    def __missing__(self, number: int) -> int:
        return number


_layer = _Names({number: name for name, number in FlowMessage.Layer.items()}).__getitem__

KEPT: Mapping[str, Callable[[Any], Any]] = {
    "type": _Names({number: name for name, number in FlowType.items()}).__getitem__,
    "time_received_ns": str,  # as numbers, those of our days are beyond 2^53
    "time_flow_start_ns": str,
    "time_flow_end_ns": str,
    "next_hop": address_or_hex,
    "src_mac": mac_text,
    "dst_mac": mac_text,
    "protocol_name": protocol_text,
}
"""Fields of FlowHead that have another form in metadata, and what makes it."""
ADDRESSES = ("src_addr", "dst_addr", "sampler_address")
NUMBERS = ("src_port", "dst_port", "proto", "packets", "bytes", "in_if", "out_if")
OWN = (*KEPT, *ADDRESSES, *NUMBERS)
"""Those, and the fields that have columns."""
PLAIN = (
    "sampling_rate", "sequence_num", "in_if", "out_if", "etype", "ip_tos", "ip_ttl", "tcp_flags", "src_as", "dst_as",
    "src_net", "dst_net", "forwarding_status", "src_vlan", "dst_vlan", "vlan_id", "icmp_type", "icmp_code",
    "next_hop_as", "observation_domain_id",
)  # fmt: skip
"""Fields of FlowHead that go into metadata as they are; the common ones first."""
TAIL = tuple(field.name for field in FlowTail.DESCRIPTOR.fields)
"""Fields beyond FlowHead that go into metadata; those of version 1 come last."""
REST = tuple(name for name in TAIL if name in FlowMessage.DESCRIPTOR.fields_by_name)
fields_of = attrgetter(*OWN, *PLAIN)
"""All that a FlowHead has, the values of OWN first."""
COLUMNS = slice(len(KEPT) - 1, len(OWN) + 1)
"""The name of the protocol, those that have columns, and the sampling rate."""
_BYTE_LISTS = ("mpls_ip", "ipv6_routing_header_addresses")


def tail_value(name: str, value: Any) -> Any:
    """The value of a field beyond the head as metadata has it."""
    if isinstance(value, int):
        return value if value <= JS_SAFE else str(value)
    if isinstance(value, bytes):
        return address_or_hex(value)
    values = value[:]  # a third of the time that going through it takes
    if name == "layer_stack":
        return [*map(_layer, values)]
    return [*map(address_or_hex, values)] if name in _BYTE_LISTS else values


@lru_cache
def metadata_of(size: int) -> type[msgspec.Struct]:
    """Metadata of the first so many of KEPT, PLAIN and REST, without what is not there. A Struct takes a third of the
    time of a dict, and the less of it the fewer fields it could have."""
    fields = [*((name, Any, None) for name in KEPT), *((name, Any, 0) for name in (*PLAIN, *REST))]
    return msgspec.defstruct("Metadata", fields[:size], omit_defaults=True, gc=False)


_kept = ", ".join(f"as_{name}({name}) if {name} else None" for name in KEPT)
metadata_from: Callable[..., msgspec.Struct] = eval(
    f"lambda {', '.join(OWN)}, *plain: Metadata({_kept}, *plain)",
    {f"as_{name}": convert for name, convert in KEPT.items()} | {"Metadata": metadata_of(len(KEPT) + len(PLAIN))},
)
"""The metadata of what ``fields_of`` gives, as one would write it by hand: a loop takes half as long again."""
