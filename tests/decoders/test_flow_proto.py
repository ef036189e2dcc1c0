"""The messages of workers/_flow/flow.proto: their wire format is goflow2's, and their parts fit the whole."""

from __future__ import annotations

from google.protobuf.descriptor import FieldDescriptor

from workers._flow.flow_pb2 import FlowFields, FlowHead, FlowMessage, FlowTail

NUMBERS = {
    "type": 1, "sampling_rate": 3, "sequence_num": 4, "src_addr": 6, "dst_addr": 7, "bytes": 9, "packets": 10,
    "sampler_address": 11, "next_hop": 12, "next_hop_as": 13, "src_as": 14, "dst_as": 15, "src_net": 16, "dst_net": 17,
    "in_if": 18, "out_if": 19, "proto": 20, "src_port": 21, "dst_port": 22, "ip_tos": 23, "forwarding_status": 24,
    "ip_ttl": 25, "tcp_flags": 26, "src_mac": 27, "dst_mac": 28, "vlan_id": 29, "etype": 30, "icmp_type": 31,
    "icmp_code": 32, "src_vlan": 33, "dst_vlan": 34, "fragment_id": 35, "fragment_offset": 36, "ipv6_flow_label": 37,
    "ip_flags": 38, "observation_domain_id": 70, "observation_point_id": 71, "mpls_ttl": 80, "mpls_label": 81,
    "mpls_ip": 82, "bgp_next_hop": 100, "bgp_communities": 101, "as_path": 102, "layer_stack": 103, "layer_size": 104,
    "ipv6_routing_header_addresses": 105, "ipv6_routing_header_seg_left": 106, "protocol_name": 107,
    "time_received_ns": 110, "time_flow_start_ns": 111, "time_flow_end_ns": 112, "bytes_in": 113, "bytes_out": 114,
    "packets_in": 115, "packets_out": 116,
}  # fmt: skip


def test_the_numbers_are_those_of_goflow2() -> None:
    """A field keeps its number for ever, for it is the wire format."""
    assert {field.name: field.number for field in FlowMessage.DESCRIPTOR.fields} == NUMBERS


def test_head_and_tail_together_are_the_whole_message() -> None:
    """Every field of FlowMessage is in exactly one of the two, with the same number and form."""
    head = {field.number: field for field in FlowHead.DESCRIPTOR.fields}
    tail = {field.number: field for field in FlowTail.DESCRIPTOR.fields}
    assert not head.keys() & tail.keys()
    for field in FlowMessage.DESCRIPTOR.fields:
        part = (head | tail)[field.number]
        assert (part.name, part.is_repeated) == (field.name, field.is_repeated)
        if field.name == "protocol_name":  # bytes and string are the same on the wire
            assert part.type == FieldDescriptor.TYPE_BYTES
        elif field.name == "ip_flags":  # and so are uint32 and uint64; version 1 has a time here
            assert part.type == FieldDescriptor.TYPE_UINT64
        else:
            assert part.type == field.type


def test_flow_fields_are_those_of_the_whole_message() -> None:
    """With the same numbers, and forms that read the same bytes; each is known to be there or not."""
    fields = {field.number: field for field in FlowFields.DESCRIPTOR.fields}
    others = {number: fields.pop(number).name for number in (2, 5, 8)}
    assert others == {2: "time_received", 5: "time_flow_end", 8: "unassigned"}
    assert fields.keys() == {*NUMBERS.values()}
    for field in FlowMessage.DESCRIPTOR.fields:
        other = fields[field.number]
        assert (other.name, other.is_repeated, other.enum_type) == (field.name, field.is_repeated, field.enum_type)
        assert other.has_presence or other.is_repeated
        if field.name == "protocol_name":
            assert other.type == FieldDescriptor.TYPE_BYTES
        elif field.name in ("time_received_ns", "time_flow_start_ns", "time_flow_end_ns"):
            assert (field.type, other.type) == (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_INT64)
        else:
            assert other.type == field.type
