"""Random OTLP requests over all of their fields, and what a test needs to read them without the code under test."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message as Protobuf
from hypothesis import strategies as st

from eventwriter.stream import Column, Message, Row

M = TypeVar("M", bound=Protobuf)

NOW = 1_765_535_400_987_654_321
"""Time of the messages in tests, nanoseconds since 1970."""
NOW_MICROS = NOW // 1000 - 946_684_800_000_000


def message(payload: bytes, subject: str = "logs.otel", headers: dict[str, str] | None = None) -> Message:
    """A message with this payload."""
    return Message(subject, payload, 7, NOW, headers)


def as_dict(columns: tuple[Column, ...], row: Row) -> dict[str, Any]:
    """A row by the names of its columns."""
    return {column.name: value for column, value in zip(columns, row, strict=True)}


# U+0000 and what it becomes often enough to make keys the same, or change their order.
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\0\ufffd"), max_size=6)
_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(2**63), 2**63 - 1),
}


def requests(kind: type[M]) -> st.SearchStrategy[M]:
    """Requests with up to two of everything, any field absent or set to any value of its type."""
    return st.composite(lambda draw: _filled(draw, kind(), 0))()


def _filled(draw: Any, node: Any, depth: int) -> Any:
    for field in _chosen(draw, node.DESCRIPTOR):
        if field.name.endswith("strindex"):
            continue
        if field.is_repeated:
            for _ in range(draw(st.sampled_from([1, 2, 0, 1, 2]))):
                if field.message_type is None:
                    getattr(node, field.name).append(draw(_scalar(field)))
                elif depth < 9:
                    _filled(draw, getattr(node, field.name).add(), depth + 1)
        elif field.message_type is None:
            setattr(node, field.name, draw(_scalar(field)))
        elif depth < 9:
            getattr(node, field.name).SetInParent()
            _filled(draw, getattr(node, field.name), depth + 1)
    return node


def _chosen(draw: Any, descriptor: Descriptor) -> Iterator[FieldDescriptor]:
    """Each field or not; of fields that exclude each other at most one. Lists are nearly always there."""
    for field in descriptor.fields:
        alone = field.containing_oneof is None or len(field.containing_oneof.fields) == 1
        if alone and draw(st.integers(0, 9)) < (9 if field.is_repeated else 6):
            yield field
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1 and draw(st.integers(0, 9)) < 9:
            yield draw(st.sampled_from(list(oneof.fields)))


def _scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _TEXTS
    if field.type == FieldDescriptor.TYPE_BYTES:
        if field.name.endswith("trace_id"):
            return st.binary(min_size=16, max_size=16) | st.binary(max_size=4)
        if field.name.endswith("span_id"):
            return st.binary(min_size=8, max_size=8) | st.just(bytes(8)) | st.binary(max_size=4)
        return st.binary(max_size=5)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return st.booleans()
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return st.floats()
    if field.type == FieldDescriptor.TYPE_ENUM:
        return st.sampled_from([value.number for value in field.enum_type.values])  # type: ignore[union-attr]
    return st.integers(*_INTEGERS[field.type]) | st.sampled_from([0, 1, NOW if field.cpp_type in (2, 4) else 2])


def to_json(request: Protobuf) -> Any:
    """OTLP/JSON of a request, made with protobuf's own JSON mapping: OTLP differs from it in its ids, which are hex."""
    return _with_hex_ids(MessageToDict(request, use_integers_for_enums=True))


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_hex_ids(element) for element in value]
    if isinstance(value, dict):
        return {
            key: base64.b64decode(inner).hex() if key in ("traceId", "spanId", "parentSpanId") else _with_hex_ids(inner)
            for key, inner in value.items()
        }
    return value


def plain(value: Any) -> Any:
    """The JSON value that an AnyValue must become: every kind keeps its type."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(element) for element in value.array_value.values]
    if kind == "kvlist_value":
        return pairs(value.kvlist_value.values)
    inner = getattr(value, kind)
    if kind == "bytes_value":
        return base64.b64encode(inner).decode()
    if kind == "double_value":
        return real(inner)
    return inner.replace("\0", "\ufffd") if kind == "string_value" else inner


def hex_id(octets: bytes) -> str:
    """An id in hex; one of zeros only is absent."""
    return "" if octets in (bytes(16), bytes(8)) else octets.hex()


def pairs(attributes: Any) -> dict[str, Any]:
    """The JSON object that a list of attributes must become; the values of a key that is repeated are a list."""
    found: dict[str, list[Any]] = {}
    for pair in attributes:
        found.setdefault(pair.key.replace("\0", "\ufffd"), []).append(plain(pair.value))
    return {key: at[0] if len(at) == 1 else at for key, at in found.items()}


def real(number: float) -> float | str:
    """A float64 as JSON can hold it."""
    if math.isnan(number):
        return "NaN"
    return number if math.isfinite(number) else "Infinity" if number > 0 else "-Infinity"


def time(nanos: int) -> int | None:
    """A time in nanoseconds as microseconds since 2000; None if absent or beyond int64."""
    return nanos // 1000 - 946_684_800_000_000 if 0 < nanos < 2**63 else None


def text(value: str) -> str | None:
    """A text field: U+0000 replaced, empty means absent."""
    return value.replace("\0", "\ufffd") or None


def attribute_text(resource: Any, key: str) -> str | None:
    """A resource attribute as a text column holds it, if it is a string."""
    value = pairs(resource.attributes).get(key)
    assert value is None or isinstance(value, str)
    return value
