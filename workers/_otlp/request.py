"""OTLP requests in protobuf: told from other messages, and records in them under numbers that OTLP does not have.

OTLP has receivers ignore what they do not know; but a group without records that holds something else instead comes
from a version, or a sender, with other names, and so does what looks like records beside those that are known: to
ignore that would lose them in silence.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter import values
from eventwriter.stream import Reject
from eventwriter.values import Unfit
from workers._otlp.request_count import RECORDS, below
from workers._otlp.utf8 import mended
from workers._wire import GROUP, GROUP_END, LENGTH, each_of, fields

M = TypeVar("M", bound=Message)


def parse_request(kind: type[M], payload: bytes, repairs: list[str]) -> M:
    """The protobuf request of type ``kind``; raises Unfit("malformed") for bytes that are not one.

    Text that is not UTF-8 is repaired: OTLP exporters exist that cut a text inside a character.

    Protobuf does not say its type, and most bytes of one type parse as another one, with nonsense in it. What gives it
    away is a known field number with the wire type of something else; the first record shows it.
    """
    try:
        request = kind.FromString(payload)
    except DecodeError:
        try:
            octets, count = mended(payload, kind.DESCRIPTOR)
            request = kind.FromString(octets)
        except (ValueError, DecodeError):
            raise Unfit("malformed", f"neither JSON nor a protobuf {kind.DESCRIPTOR.name}") from None
        repairs.extend(["invalid_utf8"] * count)
    record: Any = request
    for name in path(kind.DESCRIPTOR):
        siblings = getattr(record, name)
        if not siblings:
            return request
        record = siblings[0]
    if any(field.field_number in record.DESCRIPTOR.fields_by_number for field in each_of(UnknownFieldSet(record))):
        raise Unfit("malformed", f"a protobuf message, but not a {kind.DESCRIPTOR.name}")
    return request


def check_empty(request: Message) -> None:
    """Raises Unfit("malformed") if a request without records has fields that OTLP does not: it was something else."""
    nodes: list[Any] = [request]
    for name in (*path(request.DESCRIPTOR), None):
        if any(len(UnknownFieldSet(node)) for node in nodes):
            raise Unfit("malformed", f"a protobuf {request.DESCRIPTOR.name} without records, but with unknown fields")
        nodes = [] if name is None else [child for node in nodes for child in getattr(node, name)]


@cache
def path(descriptor: Any) -> tuple[str, ...]:
    """The names of the lists that lead from a request to its records: of resource groups, scope groups, records."""
    names = []
    for _ in range(3):
        field = below(descriptor)[0]
        names.append(field.name)
        descriptor = field.message_type
    return tuple(names)


def clean_text(message: Message, repairs: list[str]) -> None:
    """Replaces U+0000 in every text of a message."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else (value,):
                clean_text(inner, repairs)
        elif field.type == field.TYPE_STRING and field.is_repeated:
            value[:] = [values.clean(text, repairs) for text in value]
        elif field.type == field.TYPE_STRING:
            setattr(message, field.name, values.clean(value, repairs))


def unreadable(request: Message) -> tuple[list[Reject], int]:
    """A reject for each group of a protobuf message that has unknown submessages instead of records, or beside them,
    with its index among all records, and the number of records that can be read."""
    rejects: list[Reject] = []
    count = _visit(request, rejects, 0)
    return rejects, count - len(rejects)


def _visit(node: Any, rejects: list[Reject], count: int) -> int:
    """Goes through a group; ``count`` is that of the records before it, the result that with its own."""
    name, repeated, is_record = _inner(node.DESCRIPTOR) or (node.WhichOneof("data"), False, False)
    children = [] if name is None else getattr(node, name) if repeated else [getattr(node, name)]
    if is_record:
        count += len(children)
    else:
        for child in children:
            count = _visit(child, rejects, count)
    # What is neither repeated nor has any bytes, such as an empty gauge, is as good as absent.
    beside = bool(children) and (repeated or children[0].ByteSize() > 0)
    number = _unknown_submessage(node, beside=beside)
    if number is not None:
        how = "beside its records has" if beside else "without records, but with"
        rejects.append(Reject("malformed", f"{node.DESCRIPTOR.name} {how} the unknown field {number}", count))
        count += 1
    return count


@cache
def _inner(descriptor: Any) -> tuple[str, bool, bool] | None:
    """(name, repeated, of records) of the field that a group consists of; None for a metric, which has a choice."""
    first, *others = below(descriptor)
    return None if others else (first.name, True, first.message_type.name in RECORDS)


def _unknown_submessage(node: Message, *, beside: bool) -> int | None:
    """The number of an unknown field that may be a message; ``beside`` good records, one that is no text either."""
    for field in each_of(UnknownFieldSet(node)):
        if field.wire_type == GROUP or (field.wire_type == LENGTH and (not beside or _is_message(field.data))):
            return int(field.field_number)
    return None


def _is_message(octets: bytes) -> bool:
    try:
        return bool(octets) and all(
            tag > 7 and tag & 7 not in (GROUP, GROUP_END) for tag, _, _ in fields(octets, 0, len(octets))
        )
    except ValueError:
        return False
