"""OTLP/JSON requests, turned into the protobuf messages that they stand for, so that rows are made in one place.

Follows "JSON Protobuf Encoding" of the OTLP specification: lowerCamelCase names (original names are taken too), trace
and span ids in hex, other bytes in base64, enums as numbers (names are taken too), 64-bit integers as decimal text
(numbers are taken too). Under unknown names scalars are ignored, lists and objects kept among the attributes of the
nearest message that has some, or a reject where they may be records. Lenient per field: a value that does not fit
is kept as text among these attributes, and counted; a record without its essential field is rejected alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from eventwriter import values
from eventwriter.stream import Reject
from eventwriter.values import Unfit, shown
from workers._limits import RECORDS_MAX, too_many
from workers._otlp.json_values import Values
from workers._otlp.parts import KEPT
from workers._otlp.request_count import GROUPS, RECORDS

M = TypeVar("M", bound=Message)

_ESSENTIAL = {("Span", "trace_id"), ("Span", "span_id"), ("NumberDataPoint", "as_int"),
              ("NumberDataPoint", "as_double")}  # fmt: skip


def build_request(kind: type[M], value: Mapping[str, Any], repairs: list[str]) -> tuple[M, list[Reject]]:
    """The protobuf form of a request, without the records that are rejected, and those, numbered among all records.

    A group (resource, scope, metric) that is not one counts as one record. Raises Unfit if there is no list of groups,
    TooLarge for too many records or values.
    """
    request = kind()
    builder = _Builder(repairs)
    builder.fill(request, value)
    return request, builder.rejects


class _Builder(Values):
    def __init__(self, repairs: list[str]) -> None:
        super().__init__(repairs)
        self.rejects: list[Reject] = []
        self.records = 0

    def fill(self, message: Message, given: Mapping[str, Any]) -> None:
        """Sets the fields of ``message``; raises Unfit, before counting any record, if it makes no sense as a whole."""
        known = message.DESCRIPTOR
        groups: list[tuple[FieldDescriptor, Any]] = []
        fields, unknown = _fields(message, given)
        for field, raw in fields.items():
            if field.message_type is not None and field.message_type.name in GROUPS | RECORDS:
                if not isinstance(raw, list if field.is_repeated else dict):
                    raise Unfit("malformed", f"{field.name} is {shown(raw)}")
                groups.append((field, raw))
                continue
            try:
                self._set(message, field, raw)
            except Unfit as error:
                if (known.name, field.name) in _ESSENTIAL and error.reason != "out_of_range":
                    raise
                pairs = _attributes_of(message, error)
                self.repairs.append(error.reason)
                original = raw if isinstance(raw, str) else values.dump_json(raw).decode()
                pairs.add(key=field.name, value=AnyValue(string_value=original), key_strindex=KEPT)
                if field.name == "as_int":
                    message.as_double = float(str(raw))  # type: ignore[attr-defined]
        if known.name not in GROUPS:
            if unknown:
                refusal = Unfit("malformed", f"{known.name} with {shown(next(iter(unknown)))}")
                self.pairs(_attributes_of(message, refusal), unknown, 1)
        elif unknown and not any(raw for _, raw in groups):
            raise Unfit("malformed", f"{known.name} without records, but with {shown(next(iter(unknown)))}")
        for field, raw in groups:
            inner = getattr(message, field.name)
            if field.is_repeated:
                for element in raw:
                    self._element(inner, element, field)
            else:
                inner.SetInParent()
                self.fill(inner, raw)
        if groups and (other := next((name for name, raw in unknown.items() if _has_objects(raw)), None)):
            self._reject(Unfit("malformed", f"{known.name} beside its records has {shown(other)}"), self._count())

    def _count(self) -> int:
        """The index of what counts as one more record."""
        self.records += 1
        if self.records > RECORDS_MAX:
            raise too_many()
        return self.records - 1

    def _reject(self, error: Unfit, index: int) -> None:
        self.rejects.append(Reject(error.reason, str(error)[:500], index))

    def _element(self, siblings: Any, given: Any, field: FieldDescriptor) -> None:
        assert field.message_type is not None
        index = self._count() if field.message_type.name in RECORDS else None
        try:
            if not isinstance(given, dict):
                raise Unfit("malformed", f"an element of {field.name} is {shown(given)}, not an object")
            self.fill(siblings.add(), given)
        except Unfit as error:
            if isinstance(given, dict):
                del siblings[-1]
            self._reject(error, self._count() if index is None else index)

    def _set(self, message: Message, field: FieldDescriptor, raw: Any) -> None:
        if not field.is_repeated:
            if field.message_type is None:
                setattr(message, field.name, self.scalar(field, raw))
            elif field.message_type.name == "AnyValue":
                self.any(getattr(message, field.name), raw, 1)
            else:
                self._inner(getattr(message, field.name), raw)
        elif field.message_type is not None and field.message_type.name == "KeyValue":
            self.pairs(getattr(message, field.name), raw, 1)
        elif not isinstance(raw, list):
            raise Unfit("bad_value", f"{field.name} is {shown(raw)}, not a list")
        elif field.message_type is None:
            getattr(message, field.name).extend([self.scalar(field, element) for element in raw])
        else:
            try:
                for element in self.within_limit(raw):
                    self._inner(getattr(message, field.name).add(), element)
            except Unfit:
                message.ClearField(field.name)  # kept as a whole instead
                raise

    def _inner(self, message: Message, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise Unfit("bad_value", f"{message.DESCRIPTOR.name} is {shown(raw)}, not an object")
        message.SetInParent()
        self.fill(message, raw)


def _fields(message: Message, given: Mapping[str, Any]) -> tuple[dict[FieldDescriptor, Any], dict[str, Any]]:
    """The known fields with a value, and the lists and objects under unknown names; raises Unfit if a field is given
    twice, or two that exclude each other."""
    by_json_name = message.DESCRIPTOR.fields_by_camelcase_name
    by_name = message.DESCRIPTOR.fields_by_name
    found: dict[FieldDescriptor, Any] = {}
    unknown: dict[str, Any] = {}
    choices = set()
    for key, raw in given.items():
        field: Any = by_json_name.get(key) or by_name.get(key)
        if field is None and raw and isinstance(raw, list | dict):
            unknown[key] = raw
        if field is None or raw is None:
            continue
        choice = field if field.containing_oneof is None else field.containing_oneof
        if choice in choices:
            raise Unfit("malformed", f"{field.name} is given twice, or together with what it excludes")
        choices.add(choice)
        found[field] = raw
    return found, unknown


def _attributes_of(message: Message, error: Unfit) -> Any:
    """The attributes of a message, where what has no other place is kept; raises the error if it has none."""
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith("attributes"):
            return getattr(message, field.name)
    raise error


def _has_objects(value: Any) -> bool:
    """Whether a list or object holds a list of objects: it looks like records."""
    if isinstance(value, dict):
        return any(isinstance(inner, list) and _has_objects(inner) for inner in value.values())
    return any(isinstance(element, dict) for element in value)
