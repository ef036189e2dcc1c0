"""Flows made into rows together are what they are one by one, whatever stands beside them."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from both_paths import plain
from compression import gz
from eventwriter.stream import Message, Row
from profiles import examples
from traffic import ENCODINGS, Traffic
from workers._flow.fast import fast_rows
from workers._flow.flow_pb2 import FlowMessage, FlowTail
from workers.netflow import STREAM

ARRIVED = 1765535402_123456789
ENOUGH = 8
"""Messages that are worth it."""


def message(payload: bytes, headers: dict[str, str] | None = None) -> Message:
    """A message with that payload."""
    return Message("netflow.raw", payload, 7, ARRIVED, headers)


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def delimited(*flows: bytes) -> bytes:
    """Flows, each after its length."""
    return b"".join(varint(len(flow)) + flow for flow in flows)


def agreed(messages: Sequence[Message]) -> list[Row | None]:
    """The rows of messages, each of which is what the fallback says, with neither reject nor repair."""
    rows = fast_rows(messages)
    assert len(rows) == len(messages)
    for each, row in zip(messages, rows, strict=True):
        if row is not None:
            fallback = STREAM.decode(each)
            assert not fallback.rejects
            assert not fallback.repairs
            assert [plain(STREAM, row)] == [plain(STREAM, other) for other in fallback.rows]
    return rows


def taken(payload: bytes, headers: dict[str, str] | None = None) -> bool:
    """Whether the fast path takes a message: among its like, and among others."""
    alike = agreed([message(payload, headers)] * ENOUGH)
    others = [message(flow.SerializeToString()) for flow in exported(ENOUGH)]
    among = agreed([*others, message(payload, headers)])
    assert all(row is not None for row in among[:-1])
    assert {row is not None for row in alike} == {among[-1] is not None}
    return among[-1] is not None


def made(**fields: Any) -> bytes:
    """A flow with these fields."""
    return FlowMessage(**fields).SerializeToString()


def exported(number: int, seed: int = 0) -> Iterator[FlowMessage]:
    """What a collector makes of NetFlow 9, IPFIX and sFlow of some routers: no two have all the same fields."""
    rng = random.Random(seed)
    for count in range(number):
        kind, proto, is_v6 = rng.choice([1, 3, 3, 4]), rng.choice([6, 6, 17, 17, 1, 47]), rng.random() < 0.3
        has_ports = proto in (6, 17)
        flow = FlowMessage(
            type=kind,  # type: ignore[arg-type]
            sampling_rate=rng.choice([0, 1000]),
            sequence_num=90211 + count // 10,
            sampler_address=bytes((10, 0, 0, rng.randrange(1, 4))),
            src_addr=rng.randbytes(16 if is_v6 else 4),
            dst_addr=rng.randbytes(16 if is_v6 else 4),
            next_hop=rng.choice([b"", bytes((10, 0, 0, 254))]),
            bgp_next_hop=rng.choice([b"", b"", bytes((10, 0, 0, 253))]),
            bytes=rng.randrange(40, 1 << 24),
            packets=rng.randrange(1, 500),
            etype=0x86DD if is_v6 else 0x800,
            proto=proto,
            src_port=rng.randrange(1, 65536) * has_ports,
            dst_port=rng.choice([53, 443]) * has_ports,
            in_if=rng.randrange(1, 40),
            out_if=rng.choice([0, 7]),
            src_mac=rng.choice([0, 0x001122334455]),
            dst_mac=rng.choice([0, 0x00AABBCCDDEE]),
            src_vlan=rng.choice([0, 120]),
            dst_vlan=rng.choice([0, 120]),
            vlan_id=rng.choice([0, 120]),
            ip_tos=rng.choice([0, 40]),
            ip_ttl=rng.choice([0, 63]),
            ip_flags=rng.choice([0, 2]),
            tcp_flags=27 if proto == 6 else 0,
            forwarding_status=64,
            icmp_type=8 if proto == 1 else 0,
            icmp_code=rng.choice([0, 3]) if proto == 1 else 0,
            ipv6_flow_label=rng.randrange(1 << 20) if is_v6 else 0,
            fragment_id=rng.choice([0, 4711]),
            fragment_offset=rng.choice([0, 0, 185]),
            src_as=rng.choice([0, 64512]),
            dst_as=rng.choice([0, 15169]),
            next_hop_as=rng.choice([0, 3320]),
            src_net=rng.choice([0, 24]),
            dst_net=rng.choice([0, 22]),
            observation_domain_id=rng.choice([0, 256]),
            time_received_ns=ARRIVED - rng.randrange(10**9),
            time_flow_start_ns=ARRIVED - 60 * 10**9,
            time_flow_end_ns=ARRIVED - rng.randrange(10**9),
        )
        if kind == 1:
            flow.layer_stack.extend([0, 2 if is_v6 else 1, 3])  # type: ignore[list-item]
            flow.layer_size.extend([14, 20, 20])
            flow.as_path.extend([64512, 15169])
        yield flow


COMMON = next(exported(1))
PAYLOAD = COMMON.SerializeToString()


# --- it is of use ---


@pytest.mark.parametrize("frame", [bytes, delimited])
def test_what_collectors_send_takes_the_fast_path(frame: Any) -> None:
    """Every flow, whatever fields it has, and even if its length is also a brace."""
    messages = [message(frame(flow.SerializeToString())) for flow in exported(320)]
    assert STREAM.fast is fast_rows
    for start in range(0, 320, 32):
        assert None not in agreed(messages[start : start + 32])


@pytest.mark.parametrize("size", [13, 30, 31, 32, 91, 120, 123, 127, 128, 239, 300, 2047])
def test_any_length_takes_the_fast_path(size: int) -> None:
    """Also one that looks like JSON or compression: a flow does not go on like that."""
    flow = made(type=3, src_addr=b"\n\0\0\2", next_hop=bytes(size - 10 - (size > 137)))
    assert len(flow) == size
    assert taken(delimited(flow))


@pytest.mark.parametrize("names", [[], ["start"], ["end"], ["start", "end"]])
def test_the_time_of_receipt_may_be_missing(names: list[str]) -> None:
    """Then it is the end, the start, or the arrival of the message."""
    times = {f"time_flow_{name}_ns": ARRIVED - 10**9 * place for place, name in enumerate(names, 1)}
    assert taken(made(type=3, src_addr=b"\n\0\0\2", **times))


def test_the_traffic_of_the_benchmark_takes_the_fast_path() -> None:
    """All of it."""
    traffic = Traffic("NETFLOW", only=ENCODINGS["NETFLOW"][0])
    assert None not in agreed([message(traffic.next().payload) for _ in range(32)])


@pytest.mark.parametrize("kind", [b"\x08\x00", b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"])
def test_a_type_without_a_name_takes_the_fast_path(kind: bytes) -> None:
    """It follows another type, and is the one that holds."""
    assert taken(PAYLOAD + kind)


def sample(field: FieldDescriptor) -> Any:
    """A value that a field may well have."""
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_STRING):
        value: Any = "udp" if field.type == FieldDescriptor.TYPE_STRING else b"\n\0\0\1"
    else:
        value = 3
    return [value, value] if field.is_repeated else value


@pytest.mark.parametrize("name", [field.name for field in FlowMessage.DESCRIPTOR.fields])
def test_any_field_takes_the_fast_path(name: str) -> None:
    """Alone beside a type and an address."""
    value = sample(FlowMessage.DESCRIPTOR.fields_by_name[name])
    fields: dict[str, Any] = {"type": 3, "src_addr": b"\n\0\0\2", name: value}
    assert taken(made(**fields))


def test_few_messages_are_left_to_the_general_way() -> None:
    """One by one they are done sooner."""
    assert fast_rows([message(PAYLOAD)]) == [None]
    assert fast_rows([]) == []


def test_the_next_hop_may_be_of_any_length() -> None:
    """It is hex then, and nothing to repair."""
    for octets in (b"\1", b"\1\2\3\4\5", bytes(16)):
        assert taken(made(type=3, src_addr=b"\n\0\0\2", next_hop=octets, bgp_next_hop=octets))


def test_counters_beyond_the_head_may_be_of_any_size() -> None:
    """They are text then, and nothing to repair."""
    for size in (2**53 - 1, 2**53, 2**64 - 1):
        assert taken(made(type=3, src_addr=b"\n\0\0\2", bytes_in=size, packets_out=size))


# --- what is not for it ---


@pytest.mark.parametrize(
    "change",
    [
        {"type": 0},
        {"type": 5},
        {"type": -1},
        {"src_addr": b"\1\2\3"},
        {"sampler_address": bytes(17)},
        {"src_port": 65536},
        {"dst_port": 65536},
        {"proto": 256},
        {"in_if": 2**31},
        {"out_if": 2**32 - 1},
        {"packets": 2**63},
        {"bytes": 2**64 - 1},
        {"sampling_rate": 2**53},
        {"time_received_ns": 2**63},
        {"time_flow_start_ns": 2**64 - 1},
        {"time_flow_end_ns": 2**63},
        {"protocol_name": "nul \0"},
        {"src_addr": b"", "dst_addr": b"", "sampler_address": b""},
    ],
)
def test_values_that_are_not_common_take_the_fallback(change: dict[str, Any]) -> None:
    """What to make of them is decided in one place; their neighbours are not concerned."""
    flow = FlowMessage.FromString(PAYLOAD)
    for name, value in change.items():
        setattr(flow, name, value)
    assert not taken(flow.SerializeToString())


@pytest.mark.parametrize(
    "more",
    [
        b"\xc0\x3e\x05",  # field 1000
        b"\x10\x00",  # field 2, of version 1
        b"\x28\x01",  # field 5
        b"\x40\x00",  # field 8, nobody's
        b"\xa2\x01\x01\x06",  # proto as a list of one
        b"\xa2\x01\x00",  # proto as a list of none
        b"\xa5\x01\0\0\0\0",  # proto in 32 bits
        b"\x3b\x3c",  # a group
        b"\xda\x06\x01\xff",  # a name that is not UTF-8
        FlowTail(flow_direction=1, time_flow_start_ms=1).SerializeToString(),
        b"\x08\x05",  # another type
        b"\x32",  # cut off
        b"\x0c",  # the end of no group
        b"\x08\x03" * 1000,
    ],
)
def test_fields_that_are_not_common_take_the_fallback(more: bytes) -> None:
    """Those of others, and those that are not what they should be."""
    assert not taken(PAYLOAD + more)


def test_other_forms_take_the_fallback() -> None:
    """JSON, events, compression, several flows, and flows whose first field is not the type."""
    assert not taken(b'{"src_addr":"10.0.0.1"}')
    assert not taken(PAYLOAD, {"ce-specversion": "1.0", "ce-id": "1"})
    assert not taken(gz(PAYLOAD))
    assert not taken(delimited(PAYLOAD, PAYLOAD))
    assert not taken(PAYLOAD[2:] + PAYLOAD[:2])
    assert not taken(made(type=3))
    assert not taken(b"")


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_a_payload_that_could_be_delimited_by_its_first_bytes(kind: int) -> None:
    """If the 8 is a length, what follows is no flow: no flow begins with these bytes."""
    flow = bytes((8, kind)) + b"\x32\x04\x0a\x00\x00\x01"
    for rest in (b"", b"\x18", b"\x18\x01", *(bytes((size,)) + bytes(size) for size in range(12))):
        agreed([message(flow + rest)] * ENOUGH)
        agreed([message(delimited(flow + rest))] * ENOUGH)


def test_a_field_that_is_said_to_be_0_does_not_hide_that_of_another_flow() -> None:
    """Nor does one that is there twice: the last one counts, and of a list all."""
    extra = (b"\x90\x01\x00", b"\x90\x01\x05\x90\x01\x06", b"\x08\x00\x08\x02", b"\xc2\x06\x01\x0e\xc2\x06\x02\x14\x08")
    flows = [PAYLOAD + more for more in (*extra, b"")]
    assert None not in agreed([message(flow) for flow in flows * 2])
    assert None not in agreed([message(flow) for flow in flows[::-1] * 2])


# --- anything at all ---

OCTETS = st.sampled_from([4, 4, 4, 16, 0, 1, 7]).flatmap(lambda size: st.binary(min_size=size, max_size=size))


def values(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    """Values of a field, now and then one that is too large or too long."""
    single: st.SearchStrategy[Any]
    if field.enum_type is not None:
        single = st.sampled_from([1, 2, 3, 4, 0, 77])
    elif field.type == FieldDescriptor.TYPE_BYTES:
        single = OCTETS
    elif field.type == FieldDescriptor.TYPE_STRING:
        single = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    else:
        most = 2**64 - 1 if field.type == FieldDescriptor.TYPE_UINT64 else 2**32 - 1
        single = st.integers(0, 255) | st.sampled_from([2**16, 2**31, 2**53, 2**63, most]).map(lambda n: min(n, most))
    return st.lists(single, max_size=3) if field.is_repeated else single


FIELDS = {field.name: values(field) for field in FlowMessage.DESCRIPTOR.fields}
USUAL = {"type": st.sampled_from([1, 2, 3, 4]), "src_addr": st.binary(min_size=4, max_size=4)}
FLOW = st.fixed_dictionaries(USUAL, optional={name: each for name, each in FIELDS.items() if name not in USUAL}).map(
    lambda fields: made(**fields)
)
LIKELY = st.sampled_from([flow.SerializeToString() for flow in exported(50)])
FIELD = st.builds(
    lambda number, kind, value, octets: (
        varint(number << 3 | kind) + {0: varint(value), 1: bytes(8), 2: delimited(octets), 5: bytes(4)}.get(kind, b"")
    ),
    st.sampled_from([*range(1, 48), 63, *range(70, 72), *range(80, 83), *range(100, 117), 1000]),
    st.sampled_from([0, 0, 2, 2, 1, 5, 3, 4]),
    st.integers(0, 300) | st.integers(0, 2**64 - 1),
    st.binary(max_size=6),
)
"""A field of any number and wire type."""
PADDED = st.builds(lambda flow, fields: flow + b"".join(fields), LIKELY | FLOW, st.lists(FIELD, max_size=3))


def damaged(payload: bytes, places: list[tuple[float, int, int]]) -> bytes:
    """Cut, overwritten or with something in between at some places."""
    octets = bytearray(payload)
    for place, width, octet in places:
        at = int(place * len(octets))
        octets[at : at + width] = bytes([octet]) if octet < 256 else b""
    return bytes(octets)


DAMAGED = st.builds(
    damaged,
    LIKELY | FLOW,
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3) | st.just(1000), st.integers(0, 256)), min_size=1, max_size=2
    ),
)
ANY = st.one_of(LIKELY, FLOW, PADDED, DAMAGED, st.binary(max_size=40))
ONE = st.tuples(
    ANY
    | ANY.map(delimited)
    | st.builds(delimited, ANY, ANY)
    | st.builds(bytes.__add__, ANY, ANY)
    | ANY.map(gzip.compress),
    st.sampled_from([None, None, None, None, {"Nats-Msg-Id": "1"}]),
)


@given(st.lists(ONE, max_size=12), st.lists(LIKELY, max_size=ENOUGH), st.randoms())
@settings(max_examples=examples(150))
def test_any_messages_together(some: list[tuple[bytes, dict[str, str] | None]], others: list[bytes], rng: Any) -> None:
    """The row of each is that of the fallback, or there is none."""
    messages = [message(*each) for each in some] + [message(flow) for flow in others]
    rng.shuffle(messages)
    agreed(messages)


@given(ONE)
@settings(max_examples=examples(150))
def test_any_message_among_its_like(one: tuple[bytes, dict[str, str] | None]) -> None:
    """Nor does it depend on the others."""
    first, *more = agreed([message(*one)] * ENOUGH)
    assert all(row == first for row in more)
    among = agreed([*(message(flow.SerializeToString()) for flow in exported(ENOUGH, 3)), message(*one)])
    assert first is None or among[-1] is None or among[-1] == first
