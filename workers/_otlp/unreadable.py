"""Groups of an OTLP request whose records stand under a name or number that OTLP does not have.

OTLP has receivers ignore what they do not know; but a group without records that holds something else instead comes
from a version, or a sender, with other names: to ignore that would lose records in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Reject
from eventwriter.values import Unfit, shown
from workers._otlp.request_count import GROUPS, RECORDS
from workers._wire import GROUP, LENGTH


def check_names(message: Message, given: Mapping[str, Any]) -> None:
    """Raises Unfit("malformed") for a group of OTLP/JSON without records if an unknown name holds a list or object."""
    known = message.DESCRIPTOR
    for name, value in given.items():
        if value and isinstance(value, list | dict) and not _is_known(known, name):
            raise Unfit("malformed", f"{known.name} without records, but with {shown(name)}")


def _is_known(descriptor: Any, name: str) -> bool:
    return name in descriptor.fields_by_camelcase_name or name in descriptor.fields_by_name


def unreadable(request: Message) -> tuple[list[Reject], int]:
    """A reject for each group of a protobuf message that has unknown submessages instead of records, with its index
    among all records, and the number of records that can be read."""
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
    if not children or (not repeated and not children[0].ByteSize()):
        number = _unknown_submessage(node)
        if number is not None:
            detail = f"{node.DESCRIPTOR.name} without records, but with the unknown field {number}"
            rejects.append(Reject("malformed", detail, count))
            count += 1
    return count


@cache
def _inner(descriptor: Any) -> tuple[str, bool, bool] | None:
    """(name, repeated, of records) of the field that a group consists of; None for a metric, which has a choice."""
    found = [field for field in descriptor.fields if field.message_type and field.message_type.name in GROUPS | RECORDS]
    return (found[0].name, True, found[0].message_type.name in RECORDS) if len(found) == 1 else None


def _unknown_submessage(node: Message) -> int | None:
    """The number of an unknown field that may be a message."""
    unknown = UnknownFieldSet(node)
    fields = [unknown[place] for place in range(len(unknown))]
    return next((field.field_number for field in fields if field.wire_type in (LENGTH, GROUP)), None)
