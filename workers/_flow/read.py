"""Flow records in protobuf (flow.proto), from bytes to flows: telling bare from length-delimited messages.

A payload is one bare FlowMessage, or any number of them, each after its length as a varint. Nothing says which, and
some payloads parse as both; then the reading wins whose flows look like flows, see read().
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.values import Unfit
from workers._flow.flow_pb2 import FlowHead, FlowTail
from workers._flow.texts import KEPT, OWN, fields_of
from workers._limits import COUNTED_FROM, RECORDS_MAX, too_many
from workers._wire import each_of, fields

Flow = tuple[FlowHead, FlowTail, dict[int, list[Any]], dict[int, list[Any]], tuple[Any, ...]]
"""The two messages that have the fields of one flow; by their numbers the values of those that are not in the head,
and of those that are in neither; and what ``fields_of`` says of the head."""

Flows = Sequence[Flow | None]

_HEAD = FlowHead.DESCRIPTOR.fields_by_number
_TAIL = FlowTail.DESCRIPTOR.fields_by_number
_SIZES = frozenset((0, 4, 16))
_NO_TAIL, _NONE = FlowTail(), dict[int, list[Any]]()
_TYPE, _COLUMNS = OWN.index("type"), slice(len(KEPT), len(KEPT) + 6)


def read(payload: bytes) -> Flows:
    """The flows of a payload; None stands for a record that is none. Raises Unfit("malformed") if there is no flow,
    and TooLarge if there are more than a message may hold.

    Lengths that fit exactly are strong evidence, but one bare message in some hundred thousand has them by chance, and
    some delimited messages parse as bare, their length read as a field. So the delimited reading needs flows with
    valid addresses; without them a bare reading comes first that has such addresses and no unknown field.
    """
    pieces, complete = _split(payload)
    if len(pieces) > RECORDS_MAX:
        whole = _parse(payload)
        if _is_clean(whole):
            return (whole,)
        raise too_many()
    if complete:
        flows = [_parse(payload[start:end]) for start, end in pieces]
        if all(map(_is_good, flows)):
            return flows
        whole = _parse(payload)
        if _is_clean(whole):
            return (whole,)
        sound = [flow if _is_sound(flow) else None for flow in flows]
        if None not in sound or any(map(_is_good, flows)):
            return sound
    else:
        whole = _parse(payload)
        if whole is not None and not whole[2]:
            return (whole,)
        # Cut off or damaged behind good flows: those are kept.
        if pieces and _is_clean(_parse(payload[slice(*pieces[0])])) and not _is_clean(whole):
            flows = [_parse(payload[start:end]) for start, end in pieces]
            return [*(flow if _is_sound(flow) else None for flow in flows), None]
    if _is_sound(whole):
        return (whole,)
    raise Unfit("malformed", "neither JSON nor a protobuf FlowMessage, bare or length-delimited")


def _split(payload: bytes) -> tuple[list[tuple[int, int]], bool]:
    """Cuts at canonical varint lengths of one to three bytes: where the pieces are, at most one more than a message may
    have records, and whether they fill it."""
    pieces: list[tuple[int, int]] = []
    at, end = 0, len(payload)
    while at < end and len(pieces) <= RECORDS_MAX:
        length = payload[at]
        at += 1
        if length > 0x7F:
            head = payload[at : at + 2]
            if head and 0 < head[0] < 0x80:
                length = length & 0x7F | head[0] << 7
                at += 1
            elif len(head) == 2 and head[0] > 0x7F and 0 < head[1] < 0x80:
                length = length & 0x7F | (head[0] & 0x7F) << 7 | head[1] << 14
                at += 2
            else:
                return pieces, False
        start = at
        at += length
        if at > end:
            return pieces, False
        pieces.append((start, at))
    return pieces, bool(pieces)


def _parse(payload: bytes) -> Flow | None:
    if not payload or (len(payload) > COUNTED_FROM and _has_too_many_fields(payload)):
        return None
    try:
        head = FlowHead.FromString(payload)
    except DecodeError:
        return None
    beyond = UnknownFieldSet(head)
    if not len(beyond):
        return head, _NO_TAIL, _NONE, _NONE, fields_of(head)
    others = by_number(beyond)
    try:
        tail = FlowTail.FromString(payload)
    except DecodeError:
        return head, _NO_TAIL, others, others, fields_of(head)
    known = by_number(UnknownFieldSet(tail))
    unknown = {number: values for number, values in known.items() if number in others}
    return head, tail, others, unknown, fields_of(head)


def _has_too_many_fields(payload: bytes) -> bool:
    """Whether they are more than any flow has: to look at unknown ones takes memory."""
    try:
        return any(number == RECORDS_MAX for number, _ in enumerate(fields(payload, 0, len(payload))))
    except ValueError:
        return False


def _is_good(flow: Flow | None) -> bool:
    """Whether it has an address, and nothing that a flow cannot have."""
    if flow is None:
        return False
    fields = flow[-1]
    src_addr, dst_addr, sampler_address, src_port, dst_port, proto = fields[_COLUMNS]
    if fields[_TYPE] > 4 or proto > 0xFF or src_port > 0xFFFF or dst_port > 0xFFFF:
        return False
    given = (src_addr or dst_addr or sampler_address) != b""
    return given and len(src_addr) in _SIZES and len(dst_addr) in _SIZES and len(sampler_address) in _SIZES


def _is_clean(flow: Flow | None) -> bool:
    """Whether it is good, and has no field that we do not know."""
    return flow is not None and not flow[3] and _is_good(flow)


def _is_sound(flow: Flow | None) -> bool:
    """Whether it is good, or has any field of a flow and none with the wire type of another message's field."""
    if flow is None or _is_good(flow):
        return flow is not None
    if not flow[0].ListFields() and not flow[1].ListFields():
        return False
    return not any(number in _HEAD or number in _TAIL for number in flow[3])


def by_number(unknown: UnknownFieldSet) -> dict[int, list[Any]]:
    """The values of unknown fields: integers, bytes, and groups as another UnknownFieldSet."""
    found: dict[int, list[Any]] = {}
    for field in each_of(unknown):
        found.setdefault(field.field_number, []).append(field.data)
    return found
