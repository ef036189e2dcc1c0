"""OTLP/JSON requests, turned into the protobuf messages that they stand for, so that rows are made in one place.

Follows "JSON Protobuf Encoding" of the OTLP specification: lowerCamelCase names (original names are taken too), trace
and span ids in hex, other bytes in base64, enums as numbers (names are taken too), 64-bit integers as decimal text
(numbers are taken too). Under unknown names scalars are ignored, lists and objects kept among the attributes of the
nearest message that has some, or a reject where they may be records. Lenient per field: a value that does not fit
is kept as text among these attributes, and counted; a record without its essential field is rejected alone.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from eventwriter import values
from eventwriter.stream import Reject
from eventwriter.values import INT8_MAX, INT8_MIN, Unfit, shown
from workers._limits import RECORDS_MAX, TooLarge, too_many
from workers._otlp.ids import octets_of
from workers._otlp.parts import KEPT
from workers._otlp.request_count import GROUPS, RECORDS

M = TypeVar("M", bound=Message)

_MAX_DEPTH = 60
"""Levels of AnyValue; protobuf parsers stop at 100 levels of messages, three of which make a level of values."""
_ELEMENTS_MAX = 1_000_000
"""Attributes of all records together, with what is in lists and objects: each takes some ten microseconds."""

_ESSENTIAL = {("Span", "trace_id"), ("Span", "span_id"), ("NumberDataPoint", "as_int"),
              ("NumberDataPoint", "as_double")}  # fmt: skip
_PAIR = {"key", "value"}
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_NOT_FINITE: Mapping[str, float] = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_INTEGERS = {
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_FIXED64: (0, 2**64 - 1),
    FieldDescriptor.TYPE_INT64: (INT8_MIN, INT8_MAX),
    FieldDescriptor.TYPE_SFIXED64: (INT8_MIN, INT8_MAX),
}


def build_request(kind: type[M], value: Mapping[str, Any], repairs: list[str]) -> tuple[M, list[Reject]]:
    """The protobuf form of a request, without the records that are rejected, and those, numbered among all records.

    A group (resource, scope, metric) that is not one counts as one record. Raises Unfit if there is no list of groups,
    TooLarge for too many records or values.
    """
    request = kind()
    builder = _Builder(repairs)
    builder.fill(request, value)
    return request, builder.rejects


class _Builder:
    def __init__(self, repairs: list[str]) -> None:
        self.repairs = repairs
        self.rejects: list[Reject] = []
        self.records = 0
        self.elements = 0

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
                self._pairs(_attributes_of(message, refusal), unknown, 1)
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
            self._reject(Unfit("malformed", f"{known.name} beside its records has {shown(other)}"))

    def _reject(self, error: Unfit, index: int | None = None) -> None:
        """Adds a reject for what counts as one record, or for the one at ``index``, which is counted."""
        if index is None:
            index = self.records
            self.records += 1
            self._check()
        self.rejects.append(Reject(error.reason, str(error)[:500], index))

    def _element(self, siblings: Any, given: Any, field: FieldDescriptor) -> None:
        assert field.message_type is not None
        index = self.records
        if is_record := field.message_type.name in RECORDS:
            self.records += 1
            self._check()
        try:
            if not isinstance(given, dict):
                raise Unfit("malformed", f"an element of {field.name} is {shown(given)}, not an object")
            self.fill(siblings.add(), given)
        except Unfit as error:
            if isinstance(given, dict):
                del siblings[-1]
            self._reject(error, index if is_record else None)

    def _check(self) -> None:
        if self.records > RECORDS_MAX:
            raise too_many()

    def _within_limit(self, elements: list[Any]) -> list[Any]:
        self.elements += len(elements)
        if self.elements > _ELEMENTS_MAX:
            raise TooLarge(f"more than {_ELEMENTS_MAX} attributes, or values in them, in one message")
        return elements

    def _set(self, message: Message, field: FieldDescriptor, raw: Any) -> None:
        if not field.is_repeated:
            if field.message_type is None:
                setattr(message, field.name, self._scalar(field, raw))
            elif field.message_type.name == "AnyValue":
                self._any(getattr(message, field.name), raw, 1)
            else:
                self._inner(getattr(message, field.name), raw)
        elif field.message_type is not None and field.message_type.name == "KeyValue":
            self._pairs(getattr(message, field.name), raw, 1)
        elif not isinstance(raw, list):
            raise Unfit("bad_value", f"{field.name} is {shown(raw)}, not a list")
        elif field.message_type is None:
            getattr(message, field.name).extend([self._scalar(field, element) for element in raw])
        else:
            try:
                for element in self._within_limit(raw):
                    self._inner(getattr(message, field.name).add(), element)
            except Unfit:
                message.ClearField(field.name)  # kept as a whole instead
                raise

    def _inner(self, message: Message, raw: Any) -> None:
        if not isinstance(raw, dict):
            raise Unfit("bad_value", f"{message.DESCRIPTOR.name} is {shown(raw)}, not an object")
        message.SetInParent()
        self.fill(message, raw)

    def _scalar(self, field: FieldDescriptor, raw: Any) -> Any:
        if field.type == FieldDescriptor.TYPE_STRING:
            return values.text(raw)
        if field.type == FieldDescriptor.TYPE_BOOL:
            return values.boolean(raw)
        if field.type == FieldDescriptor.TYPE_DOUBLE:
            return _real(raw)
        if field.type == FieldDescriptor.TYPE_ENUM:
            return enum_number(field, raw)
        if field.type == FieldDescriptor.TYPE_BYTES:
            octets = octets_of(field.name, raw)
            if octets is not None:
                self.repairs.append("bad_id")
                return octets
            if not isinstance(raw, str) or not _HEX.fullmatch(raw):
                raise Unfit("bad_id", f"{field.name} is {shown(raw)}, not hexadecimal text")
            return bytes.fromhex(raw)
        return values.integer(raw, *_INTEGERS[field.type])

    def _pairs(self, pairs: Any, raw: Any, depth: int) -> None:
        """A list of {key, value}; a plain object is taken too."""
        if isinstance(raw, dict):
            raw = [{"key": key, "value": value} for key, value in raw.items()]
        if not isinstance(raw, list):
            raise Unfit("bad_value", f"attributes are {shown(raw)}, not a list")
        for element in self._within_limit(raw):
            key, value = "", element
            if (
                isinstance(element, dict)
                and isinstance(element.get("key", ""), str)
                and not (element and _PAIR.isdisjoint(element))
            ):
                key, value = element.get("key", ""), element.get("value")
                try:
                    self._any(pairs.add(key=key).value, value, depth)
                    continue
                except Unfit:
                    del pairs[-1]
            self.repairs.append("bad_value")
            pairs.add(key=key, value=AnyValue(string_value=values.dump_json(value).decode()))

    def _any(self, target: AnyValue, raw: Any, depth: int) -> None:
        """An AnyValue; plain JSON is taken too, and what does not fit its kind becomes text."""
        if depth > _MAX_DEPTH:
            raise Unfit("bad_value", f"a value nested more than {_MAX_DEPTH} deep")
        if raw is None:
            return
        kind, inner = _kind_of(raw)
        if kind is None:
            return
        if kind == "kvlist_value":
            target.kvlist_value.SetInParent()
            self._pairs(target.kvlist_value.values, _values(inner), depth + 1)
            return
        if kind == "array_value":
            target.array_value.SetInParent()
            elements = _values(inner)
            if not isinstance(elements, list):
                raise Unfit("bad_value", f"arrayValue is {shown(inner)}")
            for element in self._within_limit(elements):
                self._any(target.array_value.values.add(), element, depth + 1)
            return
        try:
            setattr(target, kind, _CONVERT[kind](inner))
        except Unfit as error:
            self.repairs.append(error.reason)
            target.string_value = inner if isinstance(inner, str) else values.dump_json(inner).decode()


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


_ANY_KINDS = {
    name: field.name
    for field in AnyValue.DESCRIPTOR.fields
    if not field.name.endswith("strindex")
    for name in (field.json_name, field.name)
}


def _kind_of(raw: Any) -> tuple[str | None, Any]:
    """Which kind of AnyValue a JSON value is, and the value itself."""
    if isinstance(raw, dict):
        given = [(_ANY_KINDS[key], inner) for key, inner in raw.items() if key in _ANY_KINDS and inner is not None]
        if len(given) == 1:
            return given[0]
        if all(inner is None for inner in raw.values()):
            return None, None
        return "kvlist_value", {"values": raw}  # a plain object
    if isinstance(raw, list):
        return "array_value", {"values": raw}
    if isinstance(raw, bool):
        return "bool_value", raw
    if isinstance(raw, int):
        return "int_value", raw
    return ("double_value" if isinstance(raw, float) else "string_value"), raw


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "string_value": values.text,
    "bool_value": values.boolean,
    "int_value": values.integer,
    "double_value": lambda inner: _real(inner),
    "bytes_value": lambda inner: _octets(inner),
}


def _values(inner: Any) -> Any:
    if isinstance(inner, dict):
        return inner.get("values") or []
    return inner


def _real(raw: Any) -> float:
    if isinstance(raw, str) and raw in _NOT_FINITE:
        return _NOT_FINITE[raw]
    return values.real(raw)


def _octets(raw: Any) -> bytes:
    try:
        return b64decode(raw.replace("-", "+").replace("_", "/") + "=" * (-len(raw) % 4), validate=True)
    except (AttributeError, binascii.Error, ValueError):
        raise Unfit("bad_value", f"{shown(raw)} is not base64") from None


def enum_number(field: FieldDescriptor, raw: Any) -> int:
    """The number of an enum value, given as such or by its name, in full (``SPAN_KIND_SERVER``) or short (server)."""
    if isinstance(raw, str) and field.enum_type is not None:
        name = raw.strip().upper()
        for known, value in field.enum_type.values_by_name.items():
            if known == name or known.endswith("_" + name):
                return value.number
    return values.integer(raw, -(2**31), 2**31 - 1)
