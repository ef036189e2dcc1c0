"""What becomes of the fields of a flow in protobuf, one by one (rows.py) as many at a time (fast.py).

Metadata holds what has no column, under the field's name, and leaves out what is 0 (proto3 does not send it). Types and
layers are named, addresses and MAC addresses are text as in goflow2's JSON, integers beyond 2^53 are strings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

import msgspec

from workers._flow.flow_pb2 import FlowMessage, FlowTail, FlowType
from workers._flow.texts import address_or_hex, mac_text, protocol_text


class _Names(dict[int, Any]):
    """The names of an enumeration; a number that has none stands for itself."""

    def __missing__(self, number: int) -> int:
        return number


layer: Callable[[int], str | int] = _Names({number: name for name, number in FlowMessage.Layer.items()}).__getitem__

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
OWN = (*KEPT, "src_addr", "dst_addr", "sampler_address", "src_port", "dst_port", "proto", "packets", "bytes", "in_if",
       "out_if")  # fmt: skip
"""Those, and the fields that have columns."""
PLAIN = (
    "sampling_rate", "sequence_num", "in_if", "out_if", "etype", "ip_tos", "ip_ttl", "tcp_flags", "src_as", "dst_as",
    "src_net", "dst_net", "forwarding_status", "src_vlan", "dst_vlan", "vlan_id", "icmp_type", "icmp_code",
    "next_hop_as", "observation_domain_id",
)  # fmt: skip
"""Fields of FlowHead that go into metadata as they are; the common ones first."""
REST = tuple(field.name for field in FlowTail.DESCRIPTOR.fields if field.name in FlowMessage.DESCRIPTOR.fields_by_name)
"""Fields beyond FlowHead that go into metadata."""
fields_of = attrgetter(*OWN, *PLAIN)
"""All that a FlowHead has, the values of OWN first."""


@lru_cache
def metadata_of(size: int) -> type[msgspec.Struct]:
    """Metadata of the first so many of KEPT, PLAIN and REST, each in its own form, without what is not there.

    A Struct takes a third of the time of a dict, and the less of it the fewer fields it could have.
    """
    fields = [*((name, Any, None) for name in KEPT), *((name, Any, 0) for name in (*PLAIN, *REST))]
    return msgspec.defstruct("Metadata", fields[:size], omit_defaults=True, gc=False)


def _compiled() -> Callable[..., msgspec.Struct]:
    """The metadata of what ``fields_of`` gives, as one would write it by hand: a loop takes half as long again."""
    kept = ", ".join(f"as_{name}({name}) if {name} else None" for name in KEPT)
    known = {f"as_{name}": convert for name, convert in KEPT.items()}
    known["Metadata"] = metadata_of(len(KEPT) + len(PLAIN))
    made: Callable[..., msgspec.Struct] = eval(f"lambda {', '.join(OWN)}, *plain: Metadata({kept}, *plain)", known)
    return made


metadata_from = _compiled()
