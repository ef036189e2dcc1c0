"""Counts what is in OTLP requests without making anything of it, in protobuf and, by its shape, in JSON."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any

from workers._json.count import RECORD, Shape
from workers._limits import COUNTED_FROM, PARSED_MAX, RECORDS_MAX, SUBMESSAGE, SUBMESSAGES_FROM, too_full, too_many
from workers._wire import LENGTH, fields

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

_Tree = Mapping[int, Any]
"""Tag of a field with groups or records → the same of these; empty for records."""


def below(message: Any) -> list[Any]:
    """The fields of a message with this descriptor that are groups or records."""
    return [field for field in message.fields if field.message_type and field.message_type.name in BELOW]


@cache
def shape_of(request: Any, events: int = 8) -> Shape:
    """Where a request with this descriptor has records in JSON, with ``events`` around it."""
    groups: dict[str, Shape] = {}
    for field in below(request):
        inner = RECORD if field.message_type.name in RECORDS else shape_of(field.message_type, 0)
        groups |= {field.name: inner, field.json_name: inner}
    return Shape(groups, events=events)


@cache
def _tree_of(message: Any) -> _Tree:
    return {field.number << 3 | LENGTH: _tree_of(field.message_type) for field in below(message)}


def check_request(payload: bytes, request: Any) -> None:
    """Raises TooLarge if a request has more than RECORDS_MAX records, or takes more than PARSED_MAX: one of more than
    COUNTED_FROM bytes may.

    A group without any counts as one. As many fields are all that a group, or a large record, may have besides: to
    look at fields that are unknown takes memory too. What is no message is left to the parser.
    """
    with suppress(ValueError):
        _count(payload, 0, len(payload), _tree_of(request))
    if len(payload) > SUBMESSAGES_FROM:
        with suppress(ValueError, RecursionError):
            _weigh(payload, 0, len(payload), _messages_of(request), PARSED_MAX // SUBMESSAGE)


def _count(data: bytes, place: int, end: int, tree: _Tree) -> int:
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
    return {
        field.number << 3 | LENGTH: field.message_type for field in message.fields if field.message_type is not None
    }


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
