"""Records of an OTLP request under a name or number that OTLP does not have.

OTLP has receivers ignore what they do not know; but a group without records that holds something else instead comes
from a version, or a sender, with other names, and so does what looks like records beside those that are known: to
ignore that would lose them in silence.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Reject
from workers._otlp.request_count import GROUPS, RECORDS
from workers._wire import GROUP, GROUP_END, LENGTH, fields


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
    found = [field for field in descriptor.fields if field.message_type and field.message_type.name in GROUPS | RECORDS]
    return (found[0].name, True, found[0].message_type.name in RECORDS) if len(found) == 1 else None


def _unknown_submessage(node: Message, *, beside: bool) -> int | None:
    """The number of an unknown field that may be a message; ``beside`` good records, one that is no text either."""
    unknown = UnknownFieldSet(node)
    found = [unknown[place] for place in range(len(unknown))]
    return next(
        (
            field.field_number
            for field in found
            if field.wire_type == GROUP or (field.wire_type == LENGTH and (not beside or _is_message(field.data)))
        ),
        None,
    )


def _is_message(octets: bytes) -> bool:
    try:
        return bool(octets) and all(
            tag > 7 and tag & 7 not in (GROUP, GROUP_END) for tag, _, _ in fields(octets, 0, len(octets))
        )
    except ValueError:
        return False
