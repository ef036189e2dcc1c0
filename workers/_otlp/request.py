"""OTLP requests in protobuf: counted before anything is made of them, and told from other messages.

OTLP has receivers ignore what they do not know; but a group that holds something else instead of records, or what looks
like records beside those that are known, comes from a version, or a sender, with other names: it would be lost in
silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from google.protobuf.message import DecodeError, EncodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from eventwriter.stream import Reject
from eventwriter.values import Unfit
from workers._limits import COUNTED_FROM, PARSED_MAX, RECORDS_MAX, SUBMESSAGE, SUBMESSAGES_FROM, too_full, too_many
from workers._otlp.utf8 import mended
from workers._wire import GROUP, GROUP_END, LENGTH, each_of, fields

RECORDS = frozenset(
    ("LogRecord", "Span", "NumberDataPoint", "HistogramDataPoint", "ExponentialHistogramDataPoint", "SummaryDataPoint")
)
GROUPS = frozenset(
    ("ResourceLogs", "ScopeLogs", "ResourceSpans", "ScopeSpans", "ResourceMetrics", "ScopeMetrics", "Metric", "Gauge",
     "Sum", "Histogram", "ExponentialHistogram", "Summary", "ExportLogsServiceRequest", "ExportTraceServiceRequest",
     "ExportMetricsServiceRequest")
)  # fmt: skip
"""Messages with records somewhere below."""
BELOW = GROUPS | RECORDS


@cache
def below(message: Any) -> list[Any]:
    """The fields of a message with this descriptor that are groups or records."""
    return [field for field in message.fields if field.message_type and field.message_type.name in BELOW]


def inside(group: Any) -> Any:
    """The groups in a request or in one of a resource, the records in one of a scope."""
    return getattr(group, below(group.DESCRIPTOR)[0].name)


@cache
def _tree_of(message: Any) -> Mapping[int, Any]:
    """Tag of a field with groups or records → the same of these; empty for records."""
    return {field.number << 3 | LENGTH: _tree_of(field.message_type) for field in below(message)}


def check_request(payload: bytes, request: Any) -> None:
    """Raises TooLarge if a request has more than RECORDS_MAX records, or takes more than PARSED_MAX.

    A group without any counts as one. As many fields are all that a group, or a large record, may have besides: to
    look at fields that are unknown takes memory too. What is no message is left to the parser.
    """
    if len(payload) > COUNTED_FROM:
        with suppress(ValueError):
            _count(payload, 0, len(payload), _tree_of(request))
    if len(payload) > SUBMESSAGES_FROM:
        with suppress(ValueError, RecursionError):
            _weigh(payload, 0, len(payload), _messages_of(request), PARSED_MAX // SUBMESSAGE)


def _count(data: bytes, place: int, end: int, tree: Mapping[int, Any]) -> int:
    """The records in a message."""
    found = others = 0
    for tag, begin, stop in fields(data, place, end):
        inner = tree.get(tag)
        if inner is None:
            others += 1
        elif inner or stop - begin > COUNTED_FROM:
            found += _count(data, begin, stop, inner) or 1
        else:
            found += 1
        if found > RECORDS_MAX:
            raise too_many()
        if others > RECORDS_MAX:
            raise too_many("fields", "group" if tree else "record")
    return found


@cache
def _messages_of(message: Any) -> dict[int, Any]:
    """Tag → descriptor, of the fields of a message that are messages."""
    return {field.number << 3 | LENGTH: field.message_type for field in message.fields if field.message_type}


def _weigh(data: bytes, place: int, end: int, messages: Mapping[int, Any], left: int) -> int:
    """How many messages more there may be than there are in this one; raises TooLarge if that is none."""
    for tag, begin, stop in fields(data, place, end):
        inner = messages.get(tag)
        if inner is not None:
            left -= 1
            if left < 0:
                raise too_full()
            if stop > begin:
                left = _weigh(data, begin, stop, _messages_of(inner), left)
    return left


# --- what is a request, and what is not ----------------------------------------------------------------------


def parse_request(kind: type[Message], payload: bytes, repairs: list[str]) -> Message:
    """The protobuf request of type ``kind``, its text mended; raises Unfit("malformed") for bytes that are not one.

    Protobuf does not say its type, and most bytes of one type parse as another one, with nonsense in it. What gives it
    away is a known field number with the wire type of something else; the first record shows it.
    """
    try:
        request = kind.FromString(payload)
    except DecodeError:
        try:
            request = kind.FromString(mended(kind, payload, repairs))
        except (DecodeError, EncodeError):
            raise Unfit("malformed", f"neither JSON nor a protobuf {kind.DESCRIPTOR.name}") from None
    record: Any = request
    for _ in range(3):
        if not (siblings := inside(record)):
            return request
        record = siblings[0]
    if any(field.field_number in record.DESCRIPTOR.fields_by_number for field in each_of(UnknownFieldSet(record))):
        raise Unfit("malformed", f"a protobuf message, but not a {kind.DESCRIPTOR.name}")
    return request


# --- records that are none of OTLP's ------------------------------------------------------------------------


def unreadable(request: Message) -> list[Reject]:
    """A reject for each group that has unknown submessages instead of records, or beside them, with its index among
    all records; raises Unfit("malformed") if unknown fields are all that the request has: it was something else."""
    rejects: list[Reject] = []
    unknown: list[Any] = []
    if _visit(request, rejects, unknown, 0) == len(rejects) and unknown:
        raise Unfit("malformed", f"a protobuf {request.DESCRIPTOR.name} without records, but with unknown fields")
    return rejects


def _visit(node: Any, rejects: list[Reject], unknown: list[Any], count: int) -> int:
    """Goes through a group; ``count`` is that of the records before it, the result that with its own."""
    beside = False
    for field, value in node.ListFields():
        if field.message_type is None or field.message_type.name not in BELOW:
            continue
        # What is neither repeated nor has any bytes, such as an empty gauge, is as good as absent.
        beside = beside or field.is_repeated or value.ByteSize() > 0
        if field.message_type.name in RECORDS:
            count += len(value)
        else:
            for group in value if field.is_repeated else (value,):
                count = _visit(group, rejects, unknown, count)
    others = each_of(UnknownFieldSet(node))
    unknown += others
    for field in others:
        if field.wire_type == GROUP or (field.wire_type == LENGTH and (not beside or _is_message(field.data))):
            how = "beside its records has" if beside else "without records, but with"
            detail = f"{node.DESCRIPTOR.name} {how} the unknown field {field.field_number}"
            rejects.append(Reject("malformed", detail, count))
            return count + 1
    return count


def _is_message(octets: bytes) -> bool:
    """Whether an unknown field beside good records may be one, and is no text."""
    try:
        tags = [tag for tag, _, _ in fields(octets, 0, len(octets))]
    except ValueError:
        return False
    return bool(tags) and not any(tag <= 7 or tag & 7 in (GROUP, GROUP_END) for tag in tags)
