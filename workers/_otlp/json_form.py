"""OTLP/JSON requests, turned into the protobuf messages that they stand for, so that rows are made in one place.

Follows "JSON Protobuf Encoding" of the OTLP specification: lowerCamelCase names (original names are taken too), trace
and span ids in hex, other bytes in base64, enums as numbers (names are taken too), 64-bit integers as decimal text
(numbers are taken too). Under unknown names scalars are ignored, lists and objects kept among the attributes of the
nearest message that has some, or a reject where they may be records. Lenient per field: a value that does not fit
is kept as text among these attributes, and counted; a record without its essential field is rejected alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from eventwriter import values
from eventwriter.stream import Reject
from eventwriter.values import Unfit, shown
from workers._limits import RECORDS_MAX, TooLarge, too_many
from workers._otlp.json_values import converted
from workers._otlp.parts import KEPT
from workers._otlp.request import GROUPS, RECORDS, below

_MAX_DEPTH = 60
"""Levels of AnyValue; protobuf parsers stop at 100 levels of messages, three of which make a level of values."""
_ELEMENTS_MAX = 1_000_000
"""Attributes of all records together, with what is in lists and objects: each takes some ten microseconds."""
_ESSENTIAL = {("Span", "trace_id"), ("Span", "span_id"), ("NumberDataPoint", "as_int"),
              ("NumberDataPoint", "as_double")}  # fmt: skip
_PAIR = {"key", "value"}


def build_request(kind: type[Message], value: Mapping[str, Any], repairs: list[str]) -> tuple[Message, list[Reject]]:
    """The protobuf form of a request, without the records that are rejected, and those, numbered among all records.

    A group (resource, scope, metric) that is not one counts as one record; so does one without any, but it has no
    number. Raises Unfit if there is no list of groups, TooLarge for too many records or values."""
    request = kind()
    builder = _Builder(repairs)
    builder.fill(request, value)
    return request, builder.rejects


class _Builder:
    def __init__(self, repairs: list[str]) -> None:
        self.repairs = repairs
        self.rejects: list[Reject] = []
        self.records = self.empty = self.elements = 0

    def fill(self, message: Message, given: Mapping[str, Any]) -> None:
        """Sets the fields of ``message``; raises Unfit, before counting any record, if it makes no sense as a whole."""
        name = message.DESCRIPTOR.name
        fields, groups, unknown = _fields(message, given)
        for field, raw in fields.items():
            try:
                self._set(message, field, raw)
            except Unfit as error:
                if (name, field.name) in _ESSENTIAL and error.reason != "out_of_range":
                    raise
                pairs = _attributes_of(message, error)
                self.repairs.append(error.reason)
                pairs.add(key=field.name, value=AnyValue(string_value=_as_text(raw)), key_strindex=KEPT)
                if field.name == "as_int":
                    message.as_double = float(str(raw))  # type: ignore[attr-defined]
        if unknown and name not in GROUPS:
            refusal = Unfit("malformed", f"{name} with {shown(next(iter(unknown)))}")
            self._pairs(_attributes_of(message, refusal), unknown, 1)
        elif unknown and not any(groups.values()):
            raise Unfit("malformed", f"{name} without records, but with {shown(next(iter(unknown)))}")
        for field, raw in groups.items():
            inner = getattr(message, field.name)
            if field.is_repeated:
                for element in raw:
                    self._element(inner, element, field)
            else:
                self._inner(inner, raw)
        if groups and (other := next((key for key, raw in unknown.items() if _has_objects(raw)), None)):
            self._reject(Unfit("malformed", f"{name} beside its records has {shown(other)}"), self._count())

    def _count(self) -> int:
        """The index of what counts as one more record."""
        self.records += 1
        if self.records > RECORDS_MAX:
            raise too_many()
        return self.records - self.empty - 1

    def _reject(self, error: Unfit, index: int) -> None:
        self.rejects.append(Reject(error.reason, str(error)[:500], index))

    def _element(self, siblings: Any, given: Any, field: Any) -> None:
        index = self._count() if field.message_type.name in RECORDS else None
        before, counted = len(siblings), self.records
        try:
            if not isinstance(given, dict):
                raise Unfit("malformed", f"an element of {field.name} is {shown(given)}, not an object")
            self.fill(siblings.add(), given)
        except Unfit as error:
            del siblings[before:]
            self._reject(error, self._count() if index is None else index)
        if index is None and self.records == counted:
            self._count()
            self.empty += 1

    def _set(self, message: Message, field: FieldDescriptor, raw: Any) -> None:
        """Sets a field that is no group; raises Unfit, and leaves it unset, if the value does not fit."""
        kind = field.message_type and field.message_type.name
        if kind == "KeyValue":
            self._pairs(getattr(message, field.name), raw, 1)
        elif kind == "AnyValue":
            self._any(getattr(message, field.name), raw, 1)
        elif field.is_repeated and not isinstance(raw, list):
            raise Unfit("bad_value", f"{field.name} is {shown(raw)}, not a list")
        elif kind is None and field.is_repeated:
            getattr(message, field.name).extend([converted(field, element, self.repairs) for element in raw])
        elif kind is None:
            setattr(message, field.name, converted(field, raw, self.repairs))
        elif field.is_repeated:
            try:
                for element in self._within_limit(raw):
                    self._inner(getattr(message, field.name).add(), element)
            except Unfit:
                message.ClearField(field.name)  # kept as a whole instead
                raise
        else:
            self._inner(getattr(message, field.name), raw)

    def _inner(self, message: Message, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise Unfit("bad_value", f"{message.DESCRIPTOR.name} is {shown(raw)}, not an object")
        message.SetInParent()
        self.fill(message, raw)

    def _within_limit(self, elements: list[Any]) -> list[Any]:
        self.elements += len(elements)
        if self.elements > _ELEMENTS_MAX:
            raise TooLarge(f"more than {_ELEMENTS_MAX} attributes, or values in them, in one message")
        return elements

    def _pairs(self, pairs: Any, raw: Any, depth: int) -> None:
        """A list of {key, value}; a plain object is taken too."""
        if isinstance(raw, dict):
            raw = [{"key": key, "value": value} for key, value in raw.items()]
        if not isinstance(raw, list):
            raise Unfit("bad_value", f"attributes are {shown(raw)}, not a list")
        for element in self._within_limit(raw):
            pair = pairs.add()
            is_pair = isinstance(element, dict) and not (element and _PAIR.isdisjoint(element))
            if is_pair and isinstance(element.get("key", ""), str):
                pair.key, element = element.get("key", ""), element.get("value")
                try:
                    self._any(pair.value, element, depth)
                    continue
                except Unfit:
                    pass
            self.repairs.append("bad_value")
            pair.value.string_value = values.dump_json(element).decode()

    def _any(self, target: AnyValue, raw: Any, depth: int) -> None:
        """An AnyValue; plain JSON is taken too, and what does not fit its kind becomes text."""
        if depth > _MAX_DEPTH:
            raise Unfit("bad_value", f"a value nested more than {_MAX_DEPTH} deep")
        kind, inner = _kind_of(raw)
        if kind is None:
            return
        if kind in ("array_value", "kvlist_value"):
            listed = getattr(target, kind)
            listed.SetInParent()
            elements = (inner.get("values") or []) if isinstance(inner, dict) else inner
            if kind == "kvlist_value":
                self._pairs(listed.values, elements, depth + 1)
            elif isinstance(elements, list):
                for element in self._within_limit(elements):
                    self._any(listed.values.add(), element, depth + 1)
            else:
                raise Unfit("bad_value", f"arrayValue is {shown(inner)}")
            return
        try:
            setattr(target, kind, converted(_KINDS[kind], inner, self.repairs))
        except Unfit as error:
            self.repairs.append(error.reason)
            target.string_value = _as_text(inner)


_KINDS = AnyValue.DESCRIPTOR.fields_by_name
_ANY_KINDS = {
    name: field.name
    for field in AnyValue.DESCRIPTOR.fields
    if not field.name.endswith("strindex")
    for name in (field.json_name, field.name)
}
_PLAIN = {list: "array_value", bool: "bool_value", int: "int_value", str: "string_value", type(None): None}
"""Kinds of JSON values beside objects and reals."""


def _kind_of(raw: Any) -> tuple[str | None, Any]:
    """Which kind of AnyValue a JSON value is, and the value itself."""
    if not isinstance(raw, dict):
        return _PLAIN.get(type(raw), "double_value"), raw
    given = [(_ANY_KINDS[key], inner) for key, inner in raw.items() if key in _ANY_KINDS and inner is not None]
    if len(given) == 1:
        return given[0]
    if all(inner is None for inner in raw.values()):
        return None, None
    return "kvlist_value", {"values": raw}  # a plain object


def _as_text(raw: Any) -> str:
    return raw if isinstance(raw, str) else values.dump_json(raw).decode()


@cache
def _known(message: Any) -> dict[str, tuple[FieldDescriptor, Any, bool]]:
    """Name → field of a message, what excludes others, and whether it is a group or records; by either of its names."""
    groups = below(message)
    found = {field: (field, field.containing_oneof or field, field in groups) for field in message.fields}
    return {name: each for field, each in found.items() for name in (field.name, field.camelcase_name)}


def _fields(message: Message, given: Mapping[str, Any]) -> tuple[dict[Any, Any], dict[Any, Any], dict[str, Any]]:
    """The known fields with a value that are no groups, those that are groups or records, and the lists and objects
    under unknown names; raises Unfit if a field is given twice, or two that exclude each other."""
    plain: dict[FieldDescriptor, Any] = {}
    groups: dict[FieldDescriptor, Any] = {}
    unknown: dict[str, Any] = {}
    choices = set()
    known = _known(message.DESCRIPTOR)
    for key, raw in given.items():
        field, choice, is_group = known.get(key) or (None, None, False)
        if field is None and raw and isinstance(raw, list | dict):
            unknown[key] = raw
        if field is None or raw is None:
            continue
        if choice in choices:
            raise Unfit("malformed", f"{field.name} is given twice, or together with what it excludes")
        choices.add(choice)
        if is_group and not isinstance(raw, list if field.is_repeated else dict):
            raise Unfit("malformed", f"{field.name} is {shown(raw)}")
        (groups if is_group else plain)[field] = raw
    return plain, groups, unknown


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
