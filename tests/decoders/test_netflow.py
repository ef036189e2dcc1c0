"""NETFLOW: every form of a flow record, what becomes of it, and what never happens to it."""

from __future__ import annotations

import json
import struct
import zlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from checks import decode_checked
from compression import gz
from eventwriter.stream import Decoded, Message
from eventwriter.values import EPOCH, INT4_MAX, INT8_MAX
from profiles import examples
from workers._flow import texts
from workers._flow.flow_pb2 import FlowMessage, FlowTail
from workers.netflow import STREAM

ARRIVED = 1765535402_123456789
ARRIVED_AT = ARRIVED // 1000 - EPOCH
NAMES = [column.name for column in STREAM.columns]
LARGE = 2**53

V9 = b64decode(
    "CAMY6Acg48AFMgQKFB4oOgTGM2QHSNL4AlApWgQKAAABYgQKAAD+cID4A3jBdoABGIgBFpABA5gBB6ABBqgBupIDsAG7A7gBKMgBP9ABG9gB1YjN"
    "kZIC8AGAEIgCePAGgIWdkvqinMAY+AaAjIGSmqGcwBiAB4DXg934opzAGA=="
)
ICMP6 = bytes.fromhex(
    "480804321020010db80010000000000000000000053a1020010db800200000000000000000000948d00150025a040a000002a0013af001dd8d02"
    "f8018001f00681b4edf7fca29cc018"
)
NAMED = bytes.fromhex(
    "08011880043204c000020a3a04c0000235484a50015a040a000003a00111a801c0b802b00135f0018010da0603756470f00680c8d8d480a39cc0"
    "18"
)
SHORT = bytes.fromhex("080232030a00013a04c000023548015a040a000003")
TRAP = b64decode(
    "fQgCGAEgi8kpMgQKFB4oOgTGM2QHSMjTIlAFWgQKAAABYgQKAAD+cID4A3jBdoABGIgBFpABxAGYAW+gAQaoAZP4A7ABuwO4ASjIAT/QARvYAfWpv+CW"
    "ui7wAYAQ8AaAhZ2S+qKcwBj4BoCMgZKaoZzAGIAHgNeD3fiinMAY"
)
FLAT = (
    b'{"timestamp":"2025-12-12T10:30:00Z","src_addr":"192.0.2.10","dst_addr":"192.0.2.53","src_port":40000,'
    b'"dst_port":53,"protocol":17,"packets":1,"octets":74,"sampler_address":"10.0.0.3","input_snmp":2,"output_snmp":5,'
    b'"metadata":{"sampling_rate":512}}'
)
GOFLOW2 = (
    b'{"type":"NETFLOW_V9","time_received_ns":1765535400250000000,"sequence_num":90212,"sampling_rate":1000,'
    b'"sampler_address":"10.0.0.1","time_flow_start_ns":1765535340120000000,"time_flow_end_ns":1765535399870000000,'
    b'"bytes":1500,"packets":1,"src_addr":"10.20.30.40","dst_addr":"198.51.100.7","etype":"IPv4","proto":"TCP",'
    b'"src_port":51514,"dst_port":443,"in_if":3,"out_if":7,"src_mac":"00:11:22:33:44:55","src_as":64512,"dst_as":15169}'
)
ARRAY = (
    b'[{"timestamp":1765535400,"sourceAddress":"10.1.1.1","destinationAddress":"10.1.1.2","sourcePort":0,'
    b'"destinationPort":0,"protocol":1,"bytes":84,"packets":1}]'
)
PAYLOADS = [V9, ICMP6, NAMED, SHORT, TRAP, FLAT, GOFLOW2, ARRAY]


def message(payload: bytes, headers: dict[str, str] | None = None) -> Message:
    """A message with that payload."""
    return Message("netflow.raw", payload, 7, ARRIVED, headers)


def decode(payload: bytes, headers: dict[str, str] | None = None) -> Decoded:
    """What becomes of a payload, checked against the columns and for determinism."""
    return decode_checked(STREAM, message(payload, headers))


def rows(payload: bytes, repairs: Sequence[str] = (), headers: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """The rows of a payload without rejects, by column, with metadata as a dict."""
    decoded = decode(payload, headers)
    assert not decoded.rejects
    assert list(decoded.repairs) == list(repairs)
    found = [dict(zip(NAMES, each, strict=True)) for each in decoded.rows]
    for each in found:
        each["metadata"] = {} if each["metadata"] is None else json.loads(each["metadata"])
    return found


def row(payload: bytes, *repairs: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """The only row of a payload."""
    (found,) = rows(payload, repairs, headers)
    return found


def flat(*repairs: str, **values: Any) -> dict[str, Any]:
    """The row of a flat record with these values."""
    return row(json.dumps(values).encode(), *repairs)


def reason(payload: bytes) -> str:
    """Why a whole payload is rejected."""
    decoded = decode(payload)
    (reject,) = decoded.rejects
    assert not decoded.rows
    return reject.reason


def micros(text: str) -> int:
    """A time as a row holds it."""
    moment = datetime.fromisoformat(text) - datetime(2000, 1, 1, tzinfo=UTC)
    return (moment.days * 86400 + moment.seconds) * 1_000_000 + moment.microseconds


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def made(**fields: Any) -> FlowMessage:
    """A flow with these fields."""
    return FlowMessage(**fields)


def padded(flow: bytes, size: int) -> bytes:
    """The flow, made that long by fields that are there more than once: the last one counts."""
    missing = size - len(flow)
    odd = b"\x20\x80\x01" if missing % 2 else b""
    return flow + odd + b"\x08\x01" * ((missing - len(odd)) // 2)


def delimited(*flows: bytes) -> bytes:
    """Flows, each after its length."""
    return b"".join(varint(len(flow)) + flow for flow in flows)


def expected(**values: Any) -> dict[str, Any]:
    """A whole row: NULL where nothing else is said, 0 where protobuf says nothing."""
    zeros = dict.fromkeys(("src_port", "dst_port", "protocol", "packets", "octets", "input_snmp", "output_snmp"), 0)
    return dict.fromkeys(NAMES) | zeros | {"timestamp": ARRIVED_AT} | values


# --- the samples ---


def test_a_bare_netflow_9_flow() -> None:
    """Every column, and everything else in metadata."""
    assert row(V9) == expected(
        timestamp=micros("2025-12-12T10:30:00.250Z"),
        src_addr="10.20.30.40",
        dst_addr="198.51.100.7",
        src_port=51514,
        dst_port=443,
        protocol=6,
        packets=41,
        octets=48210,
        sampler_address="10.0.0.1",
        input_snmp=3,
        output_snmp=7,
        metadata={
            "type": "NETFLOW_V9",
            "sampling_rate": 1000,
            "sequence_num": 90211,
            "next_hop": "10.0.0.254",
            "src_as": 64512,
            "dst_as": 15169,
            "src_net": 24,
            "dst_net": 22,
            "in_if": 3,
            "out_if": 7,
            "ip_tos": 40,
            "ip_ttl": 63,
            "tcp_flags": 27,
            "src_mac": "00:11:22:33:44:55",
            "etype": 0x800,
            "src_vlan": 120,
            "time_received_ns": "1765535400250000000",
            "time_flow_start_ns": "1765535340120000000",
            "time_flow_end_ns": "1765535399870000000",
        },
    )


def test_a_delimited_icmpv6_flow() -> None:
    """The length is not a field; a flow without ports has ports 0."""
    assert row(ICMP6) == expected(
        timestamp=micros("2025-12-12T10:30:01Z"),
        src_addr="2001:db8:10::5",
        dst_addr="2001:db8:20::9",
        protocol=58,
        packets=2,
        octets=208,
        sampler_address="10.0.0.2",
        metadata={"type": "IPFIX", "etype": 0x86DD, "icmp_type": 128, "time_received_ns": "1765535401000000001"},
    )


def test_a_bare_flow_with_the_name_of_its_protocol() -> None:
    """A field of 2026 is kept."""
    assert row(NAMED) == expected(
        timestamp=micros("2025-12-12T10:30:02Z"),
        src_addr="192.0.2.10",
        dst_addr="192.0.2.53",
        src_port=40000,
        dst_port=53,
        protocol=17,
        packets=1,
        octets=74,
        sampler_address="10.0.0.3",
        metadata={
            "type": "SFLOW_5",
            "sampling_rate": 512,
            "etype": 0x800,
            "protocol_name": "udp",
            "time_received_ns": "1765535402000000000",
        },
    )


def test_a_flow_with_an_address_of_three_bytes() -> None:
    """The row stays, without that address, whose bytes are kept."""
    assert row(SHORT, "bad_address") == expected(
        dst_addr="192.0.2.53",
        octets=1,
        sampler_address="10.0.0.3",
        metadata={"type": "NETFLOW_V5", "src_addr": "0a0001"},
    )


def test_a_delimited_flow_that_also_parses_as_bare() -> None:
    """The length wins that fits: nothing is eaten by a field that is none."""
    assert row(TRAP) == expected(
        timestamp=micros("2025-12-12T10:30:00.250Z"),
        src_addr="10.20.30.40",
        dst_addr="198.51.100.7",
        src_port=64531,
        dst_port=443,
        protocol=6,
        packets=5,
        octets=567752,
        sampler_address="10.0.0.1",
        input_snmp=196,
        output_snmp=111,
        metadata={
            "type": "NETFLOW_V5",
            "sampling_rate": 1,
            "sequence_num": 681099,
            "next_hop": "10.0.0.254",
            "src_as": 64512,
            "dst_as": 15169,
            "src_net": 24,
            "dst_net": 22,
            "in_if": 196,
            "out_if": 111,
            "ip_tos": 40,
            "ip_ttl": 63,
            "tcp_flags": 27,
            "src_mac": "b9:d1:6c:0f:d4:f5",
            "etype": 0x800,
            "time_received_ns": "1765535400250000000",
            "time_flow_start_ns": "1765535340120000000",
            "time_flow_end_ns": "1765535399870000000",
        },
    )


FLAT_ROW = expected(
    timestamp=micros("2025-12-12T10:30:00Z"),
    src_addr="192.0.2.10",
    dst_addr="192.0.2.53",
    src_port=40000,
    dst_port=53,
    protocol=17,
    packets=1,
    octets=74,
    sampler_address="10.0.0.3",
    input_snmp=2,
    output_snmp=5,
    metadata={"sampling_rate": 512},
)
GOFLOW2_ROW = expected(
    timestamp=micros("2025-12-12T10:30:00.250Z"),
    src_addr="10.20.30.40",
    dst_addr="198.51.100.7",
    src_port=51514,
    dst_port=443,
    protocol=6,
    packets=1,
    octets=1500,
    sampler_address="10.0.0.1",
    input_snmp=3,
    output_snmp=7,
    metadata={
        "type": "NETFLOW_V9",
        "sequence_num": 90212,
        "sampling_rate": 1000,
        "etype": "IPv4",
        "src_mac": "00:11:22:33:44:55",
        "src_as": 64512,
        "dst_as": 15169,
        "time_received_ns": "1765535400250000000",
        "time_flow_start_ns": "1765535340120000000",
        "time_flow_end_ns": "1765535399870000000",
    },
)
ARRAY_ROW = expected(
    timestamp=micros("2025-12-12T10:30:00Z"),
    src_addr="10.1.1.1",
    dst_addr="10.1.1.2",
    protocol=1,
    packets=1,
    octets=84,
    input_snmp=None,
    output_snmp=None,
    metadata={},
)


def test_a_flat_record() -> None:
    """The columns by their own names."""
    assert row(FLAT) == FLAT_ROW


def test_an_object_of_goflow2() -> None:
    """Protocols by name; nanoseconds are kept exactly, as text."""
    assert row(GOFLOW2) == GOFLOW2_ROW


def test_an_array() -> None:
    """Other names of columns; ports and octets of 0 are values."""
    assert row(ARRAY) == ARRAY_ROW


# --- containers ---


def test_json_lines() -> None:
    """One object per line, with either line end; empty lines are none."""
    assert rows(FLAT + b"\r\n\n" + GOFLOW2 + b"\n") == [FLAT_ROW, GOFLOW2_ROW]


def test_a_bad_line_costs_only_itself() -> None:
    """It is rejected with its number, also when it is the first."""
    for bad in (b'{"src_addr":', b"7", b"{}", b'{"other":1}'):
        decoded = decode(b"\n".join((FLAT, bad, GOFLOW2)))
        assert [reject.record_index for reject in decoded.rejects] == [1]
        assert len(decoded.rows) == 2
    for bad in (b'{"src_addr":', b"{}", b'{"other":1}'):
        decoded = decode(b"\n".join((bad, FLAT)))
        assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 0)]
        assert len(decoded.rows) == 1


def test_a_bad_element_costs_only_itself() -> None:
    """So it is in an array."""
    decoded = decode(b'[{"src_addr":"10.0.0.1"},5,{"src_addr":"10.0.0.2","timestamp":"soon"},{"dst_addr":"10.0.0.3"}]')
    assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1), ("bad_time", 2)]
    assert len(decoded.rows) == 2


def test_an_empty_array_has_no_records() -> None:
    """That is legal."""
    assert decode(b"[]") == Decoded([], [], [])


EVENT = {"specversion": "1.0", "id": "1", "source": "probe", "type": "flow", "time": "2025-12-12T10:31:00.5Z"}


def test_a_cloud_event_around_a_flow_or_several() -> None:
    """Its data are the flows; its attributes are kept; its time stands in for a missing one."""
    about = {"metadata": {"cloudevent": EVENT}}
    bare = {"src_addr": "10.0.0.1"}
    wanted = expected(
        timestamp=micros("2025-12-12T10:31:00.500Z"),
        src_addr="10.0.0.1",
        metadata={"cloudevent": EVENT},
        **dict.fromkeys(("src_port", "dst_port", "protocol", "packets", "octets", "input_snmp", "output_snmp")),
    )
    assert row(json.dumps(EVENT | {"data": bare}).encode()) == wanted
    assert rows(json.dumps([EVENT | {"data": [bare, bare]}]).encode()) == [wanted, wanted]
    assert row(json.dumps(EVENT | {"data": json.loads(ARRAY)}).encode()) == ARRAY_ROW | about
    encoded = json.dumps(EVENT | {"data_base64": b64encode(V9).decode()}).encode()
    assert row(encoded)["metadata"] == row(V9)["metadata"] | {"cloudevent": EVENT}


def test_a_cloud_event_in_binary_mode() -> None:
    """The headers are the envelope, the payload is the data, protobuf too."""
    headers = {f"ce-{name}": value for name, value in EVENT.items()}
    assert row(ARRAY, headers=headers)["metadata"] == {"cloudevent": EVENT}
    found = row(SHORT, "bad_address", headers=headers)
    assert found["metadata"]["cloudevent"] == EVENT
    assert found["timestamp"] == micros("2025-12-12T10:31:00.500Z")
    (reject,) = decode(b"\x08\x00", headers).rejects  # a flow without any field
    assert reject.reason == "malformed"


@pytest.mark.parametrize("data", [None, 5, "text", []])
def test_a_cloud_event_without_flows(data: Any) -> None:
    """It is rejected, unless it says that there are none."""
    decoded = decode(json.dumps(EVENT | {"data": data}).encode())
    assert [reject.reason for reject in decoded.rejects] == ([] if data == [] else ["malformed"])
    assert not decoded.rows


@pytest.mark.parametrize("payload", [V9, ICMP6, TRAP, FLAT, ARRAY, FLAT + b"\n" + GOFLOW2])
def test_compressed(payload: bytes) -> None:
    """gzip and zlib around any of it."""
    assert rows(gz(payload)) == rows(zlib.compress(payload)) == rows(payload)


@pytest.mark.parametrize("payload", [V9, ICMP6, TRAP, FLAT, ARRAY, FLAT + b"\n" + GOFLOW2, delimited(V9, ICMP6[1:])])
def test_compressed_in_a_cloud_event(payload: bytes) -> None:
    """In binary mode or in base64, all that a payload may be."""
    headers = {f"ce-{name}": value for name, value in EVENT.items()}
    plain = rows(payload, headers=headers)
    assert len(plain) == len(rows(payload))
    for octets in (payload, gz(payload), zlib.compress(payload)):
        assert rows(octets, headers=headers) == plain
        assert rows(json.dumps(EVENT | {"data_base64": b64encode(octets).decode()}).encode()) == plain


# --- bare or delimited ---


def test_several_flows_in_one_payload() -> None:
    """Each after its length, in their order."""
    flows = [V9, ICMP6[1:], NAMED, TRAP[1:]]
    assert rows(delimited(*flows)) == [row(flow) for flow in flows]


@pytest.mark.parametrize("size", [9, 10, 13, 30, 31, 32, 91, 120, 123, 127, 128, 129, 239, 300, 16383, 16384, 20000])
def test_a_length_that_looks_like_something_else(size: int) -> None:
    """White space, a brace, a bracket, a compression or a byte order mark in front is a length all the same."""
    flow = padded(made(src_addr=b"\n\0\0\1").SerializeToString(), size)
    assert len(flow) == size
    assert row(delimited(flow)) == row(flow)
    assert rows(delimited(flow, V9)) == [row(flow), row(V9)]


def test_a_delimited_flow_without_addresses() -> None:
    """A sample of layer 2 has none; its length fits, and it does not parse as bare."""
    flow = made(type=1, src_mac=0x001122334455, etype=0x806, bytes=64).SerializeToString()
    assert row(delimited(flow)) == row(flow)
    assert rows(delimited(flow, V9)) == [row(flow), row(V9)]


def test_a_bare_flow_that_begins_like_a_delimited_one() -> None:
    """Its first bytes are a length and a flow of that length; but all of it is a flow as well, without a rest."""
    payload = bytes.fromhex(
        "18f52d20afe00232042e1351073a04ceab1c974896fccb8d015a04d4917c546210fc78cece9716ca4a99976bf46e7c7e8b68bcb7f0bc0c9801"
        "88bfd6a506a0018c01d001d301d801fec7fc89dc9910e801b11cf001dfe902b2060fbf898bcf0afaf5a8d40cef9aabe30cba0603000104c206"
        "030e1408f8069c93a5f2c2ade5e30e"
    )
    assert row(payload) == written(FlowMessage.FromString(payload))


def test_a_bad_flow_among_several_costs_only_itself() -> None:
    """So do an empty one and one that is cut off."""
    for bad in (b"", b"\xff\xff\xff", b"\x0a\x01a"):
        decoded = decode(delimited(V9, bad, NAMED))
        assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1)]
        assert len(decoded.rows) == 2
    decoded = decode(delimited(V9, NAMED)[:-5])
    assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 1)]
    assert [*decoded.rows] == [*decode(V9).rows]


# --- other dialects ---


def test_version_1_with_seconds() -> None:
    """Its times are used, and kept in the names of version 2; the start is not taken for flags."""
    head = made(type=3, src_addr=b"\n\0\0\1", mpls_ttl=[]).SerializeToString()
    tail = FlowTail(time_received=1765535400, ip_flags=1765535340, time_flow_end=1765535399, flow_direction=1,
                    ingress_vrf_id=4, has_mpls=True, mpls_1_label=17, mpls_label_ip=b"\n\0\0\2")  # fmt: skip
    assert row(head + tail.SerializeToString()) == expected(
        timestamp=micros("2025-12-12T10:30:00Z"),
        src_addr="10.0.0.1",
        flow_direction="egress",
        metadata={
            "type": "NETFLOW_V9",
            "time_received": 1765535400,
            "time_flow_start": 1765535340,
            "time_flow_end": 1765535399,
            "time_received_ns": "1765535400000000000",
            "time_flow_start_ns": "1765535340000000000",
            "time_flow_end_ns": "1765535399000000000",
            "flow_direction": 1,
            "ingress_vrf_id": 4,
            "has_mpls": True,
            "mpls_1_label": 17,
            "mpls_label_ip": "10.0.0.2",
        },
    )


def test_version_1_with_milliseconds() -> None:
    """They are finer than the seconds beside them; the end is nearer to the receipt than the start."""
    tail = FlowTail(time_flow_start_ms=1765535340120, time_flow_end_ms=1765535399870, time_flow_end=1765535399)
    found = row(b"\x32\x04\x0a\x00\x00\x01" + tail.SerializeToString())
    assert found["timestamp"] == micros("2025-12-12T10:29:59.870Z")
    assert found["metadata"]["time_flow_start_ns"] == "1765535340120000000"


def test_version_1_with_a_time_that_cannot_be() -> None:
    """The next best is taken, and the original kept."""
    tail = FlowTail(time_received=2**63, time_flow_end=1765535399)
    found = row(b"\x32\x04\x0a\x00\x00\x01" + tail.SerializeToString(), "bad_time")
    assert found["timestamp"] == micros("2025-12-12T10:29:59Z")
    assert found["metadata"]["time_received"] == str(2**63)


def test_the_routing_header_of_august_2024() -> None:
    """It had other numbers; sizes of layers are not made up from addresses."""
    hop = ip_address("2001:db8::1").packed
    found = row(V9 + b"\xc2\x06\x10" + hop + b"\xc2\x06\x10" + hop + b"\xc8\x06\x02")
    assert found["metadata"] == row(V9)["metadata"] | {
        "ipv6_routing_header_addresses": ["2001:db8::1"] * 2,
        "ipv6_routing_header_seg_left": 2,
    }


def test_fields_of_others_are_kept_by_number() -> None:
    """User-defined ones begin at 1000."""
    found = row(V9 + b"\xc0\x3e\x05" + b"\xca\x3e\x02hi" + b"\xc0\x3e\x06")
    assert found["metadata"] == row(V9)["metadata"] | {"unknown_fields": {"1000": [5, 6], "1001": ["6869"]}}


# --- values ---


def test_the_tail_of_a_message() -> None:
    """Lists, layers by name, addresses as text."""
    flow = made(
        src_addr=b"\n\0\0\1",
        mpls_ttl=[1, 2],
        mpls_label=[3],
        mpls_ip=[b"\n\0\0\2", b"odd"],
        bgp_next_hop=b"\n\0\0\3",
        bgp_communities=[2**32 - 1],
        as_path=[64512, 2**32 - 1],
        layer_stack=[0, 1, 3, 99, 77],
        layer_size=[14, 20],
        ipv6_routing_header_addresses=[ip_address("2001:db8::1").packed],
        ipv6_routing_header_seg_left=1,
        ip_flags=2,
        fragment_id=3,
        bytes_in=2**64 - 1,
    )
    assert row(flow.SerializeToString())["metadata"] == {
        "mpls_ttl": [1, 2],
        "mpls_label": [3],
        "mpls_ip": ["10.0.0.2", "6f6464"],
        "bgp_next_hop": "10.0.0.3",
        "bgp_communities": [2**32 - 1],
        "as_path": [64512, 2**32 - 1],
        "layer_stack": ["Ethernet", "IPv4", "TCP", "Custom", 77],
        "layer_size": [14, 20],
        "ipv6_routing_header_addresses": ["2001:db8::1"],
        "ipv6_routing_header_seg_left": 1,
        "ip_flags": 2,
        "fragment_id": 3,
        "bytes_in": str(2**64 - 1),
    }


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (bytes(16), "::"),
        (bytes(15) + b"\1", "::1"),
        (bytes(12) + b"\1\2\3\4", "::102:304"),
        (bytes(10) + b"\xff\xff\xc0\0\2\1", "::ffff:192.0.2.1"),
        (bytes.fromhex("20010db8000000010001000100010001"), "2001:db8:0:1:1:1:1:1"),
        (bytes.fromhex("20010db8000000000001000000000001"), "2001:db8::1:0:0:1"),
        (b"\xff\xff\xff\xff", "255.255.255.255"),
    ],
)
def test_addresses_are_written_as_rfc_5952_says(octets: bytes, text: str) -> None:
    """From bytes, and from any other spelling in JSON."""
    assert row(made(src_addr=octets).SerializeToString())["src_addr"] == text
    if ":" in text:
        assert flat(src_addr=ip_address(octets).exploded.upper())["src_addr"] == text


def test_a_mac_address_beyond_48_bits_stays_a_number() -> None:
    """Two bytes are not dropped."""
    found = row(made(bytes=1, src_mac=2**48, dst_mac=2**64 - 1).SerializeToString())
    assert found["metadata"] == {"src_mac": 2**48, "dst_mac": str(2**64 - 1)}


def test_a_protocol_name_that_is_not_utf8() -> None:
    """It is repaired; so is NUL in it."""
    name = b"\xda\x06\x04a\x00\xffb"
    found = row(made(bytes=1).SerializeToString() + name, "invalid_utf8", "text_replaced")
    assert found["metadata"] == {"protocol_name": "a\ufffd\ufffdb"}


def test_the_time_is_received_then_end_then_start_then_arrival() -> None:
    """The same in both encodings."""
    times = {"time_received_ns": 3_000_000_000, "time_flow_end_ns": 2_000_000_000, "time_flow_start_ns": 1_000_000_000}
    for seconds in (3, 2, 1):
        flow = made(bytes=1, **times)
        assert row(flow.SerializeToString())["timestamp"] == seconds * 1_000_000 - EPOCH
        assert flat(bytes=1, **times)["timestamp"] == seconds * 1_000_000 - EPOCH
        times.pop(next(iter(times)))
    assert row(made(bytes=1).SerializeToString())["timestamp"] == ARRIVED_AT
    assert flat(bytes=1, time_received_ns=0, timestamp=None)["timestamp"] == ARRIVED_AT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timestamp", "2025-12-12T10:30:00.250Z"),
        ("timestamp", 1765535400.25),
        ("timestamp", 1765535400250),
        ("timestamp", "1765535400250000"),
        ("time_received_ns", "1765535400250000000"),
        ("time_received_ns", "2025-12-12T11:30:00.25+01:00"),
        ("TimeFlowEndMs", 1765535400250),
        ("time_flow_start", "2025-12-12 10:30:00.250"),
    ],
)
def test_times_in_json(name: str, value: Any) -> None:
    """In every form that producers use."""
    assert flat(bytes=1, **{name: value})["timestamp"] == micros("2025-12-12T10:30:00.250Z")


@pytest.mark.parametrize(
    ("name", "value"),
    [("timestamp", "soon"), ("timestamp", []), ("timestamp", False), ("time_received_ns", 1.5)],
)  # fmt: skip
def test_a_bad_time_in_json_rejects_the_record(name: str, value: Any) -> None:
    """The only column that a row cannot do without."""
    assert reason(json.dumps({"bytes": 1, name: value}).encode()) == "bad_time"


def test_names_of_columns_in_json() -> None:
    """The first name that is there and not null wins; the others stay in metadata."""
    found = flat(poller_id="p", agentId="a", device_id=5, flowDirection="inbound", src_addr=None, srcAddr="10.0.0.1",
                 sourceAddress="10.0.0.2", partition="x", outputSnmp="4")  # fmt: skip
    assert (found["gateway_id"], found["agent_id"], found["device_id"]) == ("p", "a", "5")
    assert (found["flow_direction"], found["src_addr"], found["output_snmp"]) == ("inbound", "10.0.0.1", 4)
    assert found["metadata"] == {"sourceAddress": "10.0.0.2", "partition": "x"}
    older = flat(gateway_id="g", pollerId="p")
    assert (older["gateway_id"], older["metadata"]) == ("p", {"gateway_id": "g"})


@pytest.mark.parametrize(
    "record",
    [{"sampling_rate": 5}, {"srcMac": "00:11:22:33:44:55"}, {"time_received_ns": "1765535400250000000"}, {"etype": 0}],
    ids=str,
)
def test_a_flow_without_anything_that_has_a_column(record: dict[str, Any]) -> None:
    """It is kept in JSON as in protobuf; what no flow has is no flow."""
    assert flat(**record)["metadata"] == record
    assert reason(json.dumps({"type": "x", "name": "y", "etype": None}).encode()) == "malformed"


def test_lines_of_which_some_are_no_json() -> None:
    """Whatever the first begins with, in a payload and in a CloudEvent, compressed or not."""
    payload = b'garbage\n{"bytes":1}\n{"bytes":3}'
    for octets in (payload, gz(payload)):
        for sent in (octets, json.dumps(EVENT | {"data_base64": b64encode(octets).decode()}).encode()):
            decoded = decode(sent)
            assert [row[NAMES.index("octets")] for row in decoded.rows] == [1, 3]
            assert [(reject.reason, reject.record_index) for reject in decoded.rejects] == [("malformed", 0)]


def test_digits_of_large_numbers_in_json() -> None:
    """However they are written."""
    for received in (1.76553540025e18, "1.76553540025e18", "1765535400250000000"):
        assert flat(bytes=1, time_received_ns=received)["timestamp"] == micros("2025-12-12T10:30:00.250Z")
    found = flat("clamped", bytes=1e23)
    assert (found["octets"], found["metadata"]) == (2**63 - 1, {"octets": "1" + "0" * 23})


def test_capital_names_of_version_1_in_json() -> None:
    """They were its fields' names."""
    found = flat(Type="IPFIX", TimeReceived=1765535400, SrcAddr="10.0.0.1", DstAddr="", Bytes=7, Proto=6, InIf=3,
                 FlowDirection=0)  # fmt: skip
    assert (found["src_addr"], found["dst_addr"], found["octets"]) == ("10.0.0.1", None, 7)
    assert (found["protocol"], found["input_snmp"], found["flow_direction"]) == (6, 3, "ingress")
    assert found["timestamp"] == micros("2025-12-12T10:30:00Z")


@pytest.mark.parametrize(
    ("value", "number"),
    [("TCP", 6), ("udp", 17), ("ICMP", 1), ("IPv6-ICMP", 58), ("ICMPv6", 58), ("SCTP", 132), ("47", 47), (0, 0),
     ("", None)],
)  # fmt: skip
def test_protocols_in_json(value: Any, number: int | None) -> None:
    """By number or name; goflow2 writes an empty one for those that it has no name for."""
    assert flat(bytes=1, proto=value)["protocol"] == number


@pytest.mark.parametrize(
    ("name", "number"),
    [("IPIP", 94), ("IPv4", 4), ("ISIS over IPv4", 124), ("HOPOPT", 0), ("mobility header", 135), ("ESP", 50),
     ("A/N", 107), ("IPv6-NoNxt", 59), ("L2TP", 115), ("UDPLite", 136), ("BIT-EMU", 147), ("OSPF", 89),
     ("MICP (deprecated)", 95), ("swipe (deprecated)", 53), ("ipencap", 4), ("rspf", 73), ("carp", 112),
     ("mobility-header", 135), ("IS-IS", 124)],
)  # fmt: skip
def test_protocols_of_the_registry(name: str, number: int) -> None:
    """IANA's keywords, in any case, and those of /etc/protocols."""
    assert flat(bytes=1, proto=name)["protocol"] == number


PROTOJSON = {
    "type": "IPFIX", "timeReceivedNs": "1765535400250000000", "srcAddr": "CgAAAQ==", "dstAddr": "xjNkBw==",
    "samplerAddress": "CgAA/g==", "bytes": "1500", "packets": "1", "srcMac": "73588229205", "proto": 6, "inIf": 3,
}  # fmt: skip


def test_json_as_protobuf_writes_it() -> None:
    """Bytes are in base64 there, and a MAC address is a number."""
    found = flat(**PROTOJSON)
    assert (found["src_addr"], found["dst_addr"], found["sampler_address"]) == (
        "10.0.0.1",
        "198.51.100.7",
        "10.0.0.254",
    )
    assert found["metadata"]["srcMac"] == "00:11:22:33:44:55"
    assert found["timestamp"] == micros("2025-12-12T10:30:00.250Z")


@pytest.mark.parametrize(
    ("octets", "text"),
    [(bytes.fromhex("20010db8000000000000000000000001"), "2001:db8::1"), (b"", None), (bytes(4), "0.0.0.0")],
)
def test_base64_of_addresses(octets: bytes, text: str | None) -> None:
    """Of both families, also in metadata."""
    encoded = b64encode(octets).decode()
    found = flat(**PROTOJSON | {"dstAddr": encoded, "nextHop": encoded or None, "mplsIp": [encoded]})
    assert found["dst_addr"] == text
    assert found["metadata"]["mplsIp"] == [text or ""]


def test_base64_that_is_no_address_is_in_no_address_column() -> None:
    """It is kept as it is, for a word may look like base64; what is none is not touched."""
    for text in (b64encode(b"abcde").decode(), "true"):
        found = flat("bad_address", **PROTOJSON | {"srcAddr": text})
        assert (found["src_addr"], found["metadata"]["src_addr"]) == (None, text)
    assert flat(src_addr="10.0.0.1", src_mac="001122334455")["metadata"]["src_mac"] == "001122334455"
    assert flat(src_addr="10.0.0.1", src_mac=73588229205)["metadata"]["src_mac"] == "00:11:22:33:44:55"


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({"time_flow_start_ns": 5008454549467889664, "time_flow_end_ns": 2**63}, 5008454549467889664),
        ({"time_received_ns": 1765535400250000000, "time_flow_end_ns": 2**63}, 1765535400250000000),
        ({"time_received_ns": 2**63}, ARRIVED),
    ],
)
def test_a_time_beyond_int64_gives_way_to_the_next(times: dict[str, int], expected: int) -> None:
    """In JSON and in protobuf alike; the original is kept."""
    for found in flat("bad_time", bytes=1, **times), row(made(**times).SerializeToString(), "bad_time"):
        assert found["timestamp"] == expected // 1000 - EPOCH
        assert times.items() == {name: int(found["metadata"][name]) for name in times}.items()
    assert flat("bad_time", bytes=1, TimeFlowEndMs=2**62)["timestamp"] == ARRIVED_AT


def test_bad_values_in_json_are_kept() -> None:
    """What has no meaning in its column is NULL there."""
    found = flat("bad_value", "out_of_range", "bad_value", "bad_value", "out_of_range",
                 src_addr=["10.0.0.1"], src_port=65536, dst_port="http", protocol="FOO", packets=-1)  # fmt: skip
    assert found["metadata"] == {
        "src_addr": ["10.0.0.1"], "src_port": 65536, "dst_port": "http", "protocol": "FOO", "packets": -1,
    }  # fmt: skip
    assert {found[name] for name in found["metadata"]} == {None}


def test_metadata_in_json_loses_nothing() -> None:
    """Also from JSON text, from something that is no object, and beside keys of the same name."""
    assert flat(bytes=1, metadata='{"a":1}')["metadata"] == {"a": 1}
    assert flat(bytes=1, metadata=[1])["metadata"] == {"metadata": [1]}
    assert flat(bytes=1, metadata={"a": 1}, a=2)["metadata"] == {"a": 1, "record.a": 2}
    assert flat(bytes=1, deep={"n": [LARGE, LARGE - 1]})["metadata"] == {"deep": {"n": [str(LARGE), LARGE - 1]}}


# --- what is not a flow ---


@pytest.mark.parametrize(
    "payload",
    [b"", b"null", b"7", b'"text"', b"true", b"{", b"{}", b"[[]]", b'{"other":1}', b"hello", b"\0", b"\0\0\0",
     b"\x08\x00", b"\x1f\x8b", b"\x0a\x02\x0a\x00", b"123456789", b"\xef\xbb\xbf"],
)  # fmt: skip
def test_what_is_not_a_flow_is_malformed(payload: bytes) -> None:
    """An OTLP request, a scalar, text, zeros: nothing of it becomes a row."""
    assert reason(payload) == "malformed"


def test_a_payload_that_inflates_without_bound_is_refused() -> None:
    """It does not cost the memory."""
    assert reason(gz(bytes(2**25))) == "too_large"


# --- defects of the writers before, by their numbers ---


@pytest.mark.parametrize("size", [*range(len(V9), 400), 1000, 20000])
def test_N1_lengths_are_not_taken_for_fields(size: int) -> None:
    """Whatever length a delimited flow has, it is read as what it is."""
    flow = padded(V9, size) if size > len(V9) + 1 else V9
    assert row(delimited(flow)) == row(flow)


def test_N2_short_payloads_are_malformed() -> None:
    """Of three bytes and fewer, no more than 300 of each size: never an exception."""
    for size in (1, 2, 3):
        for number in range(0, 256**size, max(1, 256**size // 300)):
            decode(number.to_bytes(size, "big"))
    assert reason(b"\xff\xff") == reason(b"\xff\xff\xff") == "malformed"


@pytest.mark.parametrize("size", [0, 1, 3, 5, 15, 17, 40])
def test_N3_addresses_of_any_length_keep_the_row(size: int) -> None:
    """Absent is NULL; a length that no address has is NULL too, and kept as hex."""
    octets = b"\x7f" * size
    flow = made(bytes=1, dst_addr=b"\n\0\0\1", src_addr=octets, sampler_address=octets, next_hop=octets)
    found = row(flow.SerializeToString(), *(["bad_address"] * 2 if size else []))
    assert found["src_addr"] is found["sampler_address"] is None
    kept = dict.fromkeys(("src_addr", "sampler_address", "next_hop"), octets.hex()) if size else {}
    assert found["metadata"] == kept


def test_N3_a_flow_without_any_address_keeps_the_row() -> None:
    """A sample of layer 2 is one."""
    found = row(made(type=1, src_mac=1, bytes=64).SerializeToString())
    assert (found["octets"], found["metadata"]["src_mac"]) == (64, "00:00:00:00:00:01")


def test_N4_fields_without_a_column_are_in_metadata() -> None:
    """Those that were lost."""
    numbers = dict.fromkeys(("src_as", "dst_as", "ip_tos", "vlan_id", "forwarding_status"), 2**32 - 1)
    flow = made(next_hop=b"\n\0\0\1", bgp_next_hop=ip_address("2001:db8::1").packed, **numbers)
    wanted = numbers | {"next_hop": "10.0.0.1", "bgp_next_hop": "2001:db8::1"}
    assert row(flow.SerializeToString())["metadata"] == wanted


def test_N5_interfaces_are_columns_and_the_unknown_is_null() -> None:
    """Interfaces come from in_if and out_if; nothing is made up."""
    found = row(made(in_if=3, out_if=7).SerializeToString())
    assert (found["input_snmp"], found["output_snmp"]) == (3, 7)
    assert [found[name] for name in ("gateway_id", "agent_id", "device_id", "flow_direction")] == [None] * 4


def test_N6_large_numbers_are_clamped_or_null_and_kept() -> None:
    """Counters clamp; a port or protocol that cannot be is NULL."""
    huge, wide = 2**64 - 1, 2**32 - 1
    flow = made(bytes=huge, packets=huge, in_if=wide, out_if=1, src_port=65536, dst_port=65535, proto=256)
    found = row(flow.SerializeToString(), "bad_value", "bad_value", "clamped", "clamped", "clamped")
    assert (found["octets"], found["packets"]) == (INT8_MAX, INT8_MAX)
    assert (found["input_snmp"], found["output_snmp"]) == (INT4_MAX, 1)
    assert (found["src_port"], found["dst_port"], found["protocol"]) == (None, 65535, None)
    kept = {"octets": str(huge), "packets": str(huge), "in_if": wide, "out_if": 1, "src_port": 65536, "protocol": 256}
    assert found["metadata"] == kept
    found = flat("clamped", "clamped", "clamped", octets=huge, packets=2**63, input_snmp=wide)
    assert (found["octets"], found["packets"], found["input_snmp"]) == (INT8_MAX, INT8_MAX, INT4_MAX)
    assert found["metadata"] == {"octets": str(huge), "packets": str(2**63), "in_if": wide}  # as from protobuf


def test_N6_times_beyond_int64_do_not_wrap() -> None:
    """The next best is taken, and the original kept."""
    flow = made(bytes=1, time_received_ns=2**63, time_flow_end_ns=2**64 - 1, time_flow_start_ns=INT8_MAX)
    found = row(flow.SerializeToString(), "bad_time", "bad_time")
    assert found["timestamp"] == INT8_MAX // 1000 - EPOCH
    assert found["metadata"]["time_received_ns"] == str(2**63)


def test_N7_times_of_the_flow_are_kept_to_the_nanosecond() -> None:
    """They have no column; metadata has them exactly."""
    flow = made(time_flow_start_ns=1765535340120000001, time_flow_end_ns=1765535399870000002)
    found = row(flow.SerializeToString())
    assert found["timestamp"] == 1765535399870000 - EPOCH
    wanted = {"time_flow_start_ns": "1765535340120000001", "time_flow_end_ns": "1765535399870000002"}
    assert found["metadata"] == wanted
    assert flat(bytes=1, **{name: int(text) for name, text in wanted.items()})["metadata"] == wanted


def test_N8_protobuf_is_decoded() -> None:
    """Bare, delimited and several."""
    assert len(decode(V9).rows) == len(decode(ICMP6).rows) == 1
    assert len(decode(ICMP6 * 3).rows) == 3


def test_N9_zeros_are_kept() -> None:
    """An ICMP flow has ports 0, not NULL; AS numbers beyond 2^31 are what they are."""
    found = row(made(proto=1, as_path=[2**32 - 1], bgp_communities=[2**31]).SerializeToString())
    assert (found["src_port"], found["dst_port"], found["octets"], found["packets"]) == (0, 0, 0, 0)
    assert found["metadata"] == {"as_path": [2**32 - 1], "bgp_communities": [2**31]}
    found = flat(src_port=0, dst_port=0, protocol=0, octets=0, packets=0)
    assert [found[name] for name in ("src_port", "dst_port", "protocol", "octets", "packets")] == [0] * 5


# --- anything at all ---

LIMITS = {"type": 4, "proto": 0xFF, "src_port": 0xFFFF, "dst_port": 0xFFFF, "in_if": INT4_MAX, "out_if": INT4_MAX,
          "bytes": INT8_MAX, "packets": INT8_MAX, "time_received_ns": INT8_MAX, "time_flow_start_ns": INT8_MAX,
          "time_flow_end_ns": INT8_MAX}  # fmt: skip
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)


def _values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    single: st.SearchStrategy[Any]
    if field.enum_type is not None:
        single = st.sampled_from([value.number for value in field.enum_type.values])
    elif field.type == FieldDescriptor.TYPE_BYTES:
        single = addresses
    elif field.type == FieldDescriptor.TYPE_STRING:
        single = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
    else:
        most = 2**64 - 1 if field.type == FieldDescriptor.TYPE_UINT64 else 2**32 - 1
        single = st.integers(0, LIMITS.get(field.name, most))
    return st.lists(single, max_size=3) if field.is_repeated else single


_fields = {field.name: _values(field) for field in FlowMessage.DESCRIPTOR.fields}
flows = st.fixed_dictionaries({"src_addr": _fields.pop("src_addr")}, optional=_fields).map(lambda each: made(**each))


def written(flow: FlowMessage) -> dict[str, Any]:
    """The row of a valid flow, put together without regard to speed."""

    def shown(name: str, value: Any) -> Any:
        if isinstance(value, str):
            return value
        if isinstance(value, bytes):
            return texts.address(value)
        if not isinstance(value, int):
            return [shown(name, each) for each in value]
        if name == "type":
            return ["FLOWUNKNOWN", "SFLOW_5", "NETFLOW_V5", "NETFLOW_V9", "IPFIX"][value]
        if name == "layer_stack":
            return FlowMessage.Layer.Name(value)  # type: ignore[arg-type]
        if name in ("src_mac", "dst_mac") and value < 2**48:
            return struct.pack(">Q", value)[2:].hex(":")
        return str(value) if name.endswith("_ns") or value >= LARGE else value

    metadata = {field.name: shown(field.name, value) for field, value in flow.ListFields()}
    columns = {"src_addr": "src_addr", "dst_addr": "dst_addr", "sampler_address": "sampler_address"}
    found = expected(**{column: metadata.pop(name, None) for column, name in columns.items()})
    numbers = {
        "src_port": "src_port",
        "dst_port": "dst_port",
        "proto": "protocol",
        "packets": "packets",
        "bytes": "octets",
    }
    for name, column in numbers.items():
        metadata.pop(name, None)
        found[column] = getattr(flow, name)
    nanos = flow.time_received_ns or flow.time_flow_end_ns or flow.time_flow_start_ns
    found["timestamp"] = nanos // 1000 - EPOCH if nanos else ARRIVED_AT
    return found | {"input_snmp": flow.in_if, "output_snmp": flow.out_if, "metadata": metadata}


@given(flows)
@settings(max_examples=examples(200))
def test_any_bare_flow_keeps_every_field(flow: FlowMessage) -> None:
    """It is not taken for delimited, and all of it is in the row."""
    assert row(flow.SerializeToString()) == written(flow)


@given(flows)
@settings(max_examples=examples(100))
def test_any_flow_in_a_cloud_event_is_the_same_with_the_event_beside_it(flow: FlowMessage) -> None:
    """Metadata of what is in every flow is written another way when there is more."""
    headers = {"ce-specversion": "1.0", "ce-id": "1"}
    found = row(flow.SerializeToString(), headers=headers)
    assert found["metadata"].pop("cloudevent") == {"specversion": "1.0", "id": "1"}
    assert found == written(flow)


@given(st.lists(flows, min_size=1, max_size=4))
@settings(max_examples=examples(200))
def test_any_delimited_flows_keep_every_field(several: list[FlowMessage]) -> None:
    """They are not taken for a bare one, and all of each is in its row."""
    payload = delimited(*(flow.SerializeToString() for flow in several))
    assert rows(payload) == [written(flow) for flow in several]


@given(st.binary(max_size=200))
@settings(max_examples=examples(300))
def test_any_bytes_are_decoded_or_rejected(payload: bytes) -> None:
    """Never an exception; the same each time; what comes out fits."""
    decoded = decode(payload)
    assert decoded.rows or decoded.rejects or payload.strip() in (b"[]",)
    assert all(reject.reason != "internal" for reject in decoded.rejects)


@given(st.sampled_from([*PAYLOADS, ICMP6 * 3, FLAT + b"\n" + GOFLOW2]), st.data())
@settings(max_examples=examples(300))
def test_any_damaged_payload_is_decoded_or_rejected(payload: bytes, data: st.DataObject) -> None:
    """Cut off anywhere, any bit flipped."""
    damaged = bytearray(payload[: data.draw(st.integers(0, len(payload)))])
    for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) * 8 - 1)), max_size=3)):
        if damaged:
            damaged[place // 8] ^= 1 << place % 8
    assert all(reject.reason != "internal" for reject in decode(bytes(damaged)).rejects)


KEYS = [name for group in ("timestamp src_addr dst_addr src_port proto protocol packets bytes octets in_if metadata",
                           "time_received_ns time_flow_end_ms specversion id data data_base64 flow_direction poller_id")
        for name in group.split()]  # fmt: skip
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=10)
    | st.just("1.0"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(KEYS), anything, max_size=8) | anything)
@settings(max_examples=examples(300))
def test_any_json_is_decoded_or_rejected(value: Any) -> None:
    """Whatever stands under the names of a flow."""
    decoded = decode(json.dumps(value).encode())
    assert all(reject.reason != "internal" for reject in decoded.rejects)
    if isinstance(value, list) and not any(isinstance(each, dict) for each in value):
        assert not decoded.rows
        assert len(decoded.rejects) == len(value)
