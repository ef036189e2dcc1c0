"""Values of OTLP/JSON: fields of protobuf messages, lists of attributes, and AnyValues.

What does not fit its kind becomes text, and is counted; plain JSON is taken too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from eventwriter import values
from eventwriter.values import Unfit, shown
from workers._json.convert import from_base64
from workers._limits import TooLarge
from workers._otlp.flat import octets_of

_MAX_DEPTH = 60
"""Levels of AnyValue; protobuf parsers stop at 100 levels of messages, three of which make a level of values."""
_ELEMENTS_MAX = 1_000_000
"""Attributes of all records together, with what is in lists and objects: each takes some ten microseconds."""
_PAIR = {"key", "value"}
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_NOT_FINITE: Mapping[str, float] = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def _real(raw: Any) -> float:
    if isinstance(raw, str) and raw in _NOT_FINITE:
        return _NOT_FINITE[raw]
    return values.real(raw)


_CONVERT: Mapping[int, Callable[[Any], Any]] = {
    FieldDescriptor.CPPTYPE_STRING: values.text,
    FieldDescriptor.CPPTYPE_BOOL: values.boolean,
    FieldDescriptor.CPPTYPE_DOUBLE: _real,
    FieldDescriptor.CPPTYPE_UINT32: partial(values.integer, low=0, high=2**32 - 1),
    FieldDescriptor.CPPTYPE_INT32: partial(values.integer, low=-(2**31), high=2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT64: partial(values.integer, low=0, high=2**64 - 1),
    FieldDescriptor.CPPTYPE_INT64: values.integer,
}


class Values:
    """Those of one request."""

    def __init__(self, repairs: list[str]) -> None:
        self.repairs = repairs
        self.elements = 0

    def within_limit(self, elements: list[Any]) -> list[Any]:
        self.elements += len(elements)
        if self.elements > _ELEMENTS_MAX:
            raise TooLarge(f"more than {_ELEMENTS_MAX} attributes, or values in them, in one message")
        return elements

    def scalar(self, field: FieldDescriptor, raw: Any) -> Any:
        if field.type == FieldDescriptor.TYPE_ENUM:
            return enum_number(field, raw)
        if field.type != FieldDescriptor.TYPE_BYTES:
            return _CONVERT[field.cpp_type](raw)
        octets = octets_of(field.name, raw)
        if octets is not None:
            self.repairs.append("bad_id")
            return octets
        if not isinstance(raw, str) or not _HEX.fullmatch(raw):
            raise Unfit("bad_id", f"{field.name} is {shown(raw)}, not hexadecimal text")
        return bytes.fromhex(raw)

    def pairs(self, pairs: Any, raw: Any, depth: int) -> None:
        """A list of {key, value}; a plain object is taken too."""
        if isinstance(raw, dict):
            raw = [{"key": key, "value": value} for key, value in raw.items()]
        if not isinstance(raw, list):
            raise Unfit("bad_value", f"attributes are {shown(raw)}, not a list")
        for element in self.within_limit(raw):
            key, value = "", element
            if (
                isinstance(element, dict)
                and isinstance(element.get("key", ""), str)
                and not (element and _PAIR.isdisjoint(element))
            ):
                key, value = element.get("key", ""), element.get("value")
                try:
                    self.any(pairs.add(key=key).value, value, depth)
                    continue
                except Unfit:
                    del pairs[-1]
            self.repairs.append("bad_value")
            pairs.add(key=key, value=AnyValue(string_value=values.dump_json(value).decode()))

    def any(self, target: AnyValue, raw: Any, depth: int) -> None:
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
            self.pairs(target.kvlist_value.values, _values(inner), depth + 1)
            return
        if kind == "array_value":
            target.array_value.SetInParent()
            elements = _values(inner)
            if not isinstance(elements, list):
                raise Unfit("bad_value", f"arrayValue is {shown(inner)}")
            for element in self.within_limit(elements):
                self.any(target.array_value.values.add(), element, depth + 1)
            return
        try:
            octets = kind == "bytes_value"
            setattr(target, kind, _octets(inner) if octets else _CONVERT[_KINDS[kind].cpp_type](inner))
        except Unfit as error:
            self.repairs.append(error.reason)
            target.string_value = inner if isinstance(inner, str) else values.dump_json(inner).decode()


_KINDS = AnyValue.DESCRIPTOR.fields_by_name
_ANY_KINDS = {
    name: field.name
    for field in AnyValue.DESCRIPTOR.fields
    if not field.name.endswith("strindex")
    for name in (field.json_name, field.name)
}


_PLAIN = {list: "array_value", bool: "bool_value", int: "int_value", str: "string_value"}
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


def _values(inner: Any) -> Any:
    return (inner.get("values") or []) if isinstance(inner, dict) else inner


def _octets(raw: Any) -> bytes:
    text = raw.replace("-", "+").replace("_", "/") + "=" * (-len(raw) % 4) if isinstance(raw, str) else None
    octets = from_base64(text)
    if octets is None:
        raise Unfit("bad_value", f"{shown(raw)} is not base64")
    return octets


def enum_number(field: FieldDescriptor, raw: Any) -> int:
    """The number of an enum value, given as such or by its name, in full (``SPAN_KIND_SERVER``) or short (server)."""
    if isinstance(raw, str) and field.enum_type is not None:
        name = raw.strip().upper()
        for known, value in field.enum_type.values_by_name.items():
            if known == name or known.endswith("_" + name):
                return value.number
    return int(_CONVERT[FieldDescriptor.CPPTYPE_INT32](raw))
