"""Values of logs, spans and metrics in JSON: those of OTLP's fields, and what flat records have in common.

Trace and span ids, of 16 and 8 bytes, are hexadecimal in rows, sometimes base64 in JSON, and absent if all are zeros.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from eventwriter import values
from eventwriter.values import INT4_MAX, INT4_MIN, Unfit, shown
from workers._json.convert import from_base64, keep, merged, packed, parsed

NO_TRACE, NO_SPAN = bytes(16), bytes(8)
"""OpenTelemetry's invalid ids, which some exporters write for those that are absent."""
_NO_IDS = frozenset((NO_TRACE.hex(), NO_SPAN.hex()))
_HEX = re.compile(r"(?:[0-9a-fA-F]{2})*")
_SIZES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}
SERVICE: Mapping[str, str] = {
    "service_name": "service.name",
    "service_version": "service.version",
    "service_instance": "service.instance.id",
}
"""Column → attribute of a resource."""


_NOT_FINITE = ("NaN", "Infinity", "-Infinity")


def _real(raw: Any) -> float:
    return float(raw) if isinstance(raw, str) and raw in _NOT_FINITE else values.real(raw)


_CONVERT: Mapping[int, Callable[[Any], Any]] = {
    FieldDescriptor.CPPTYPE_STRING: values.text,
    FieldDescriptor.CPPTYPE_BOOL: values.boolean,
    FieldDescriptor.CPPTYPE_DOUBLE: _real,
    FieldDescriptor.CPPTYPE_UINT32: partial(values.integer, low=0, high=2**32 - 1),
    FieldDescriptor.CPPTYPE_INT32: partial(values.integer, low=INT4_MIN, high=INT4_MAX),
    FieldDescriptor.CPPTYPE_UINT64: partial(values.integer, low=0, high=2**64 - 1),
    FieldDescriptor.CPPTYPE_INT64: values.integer,
}


def converted(field: FieldDescriptor, raw: Any, repairs: list[str]) -> Any:
    """The value of a field that is no message; raises Unfit for what does not fit."""
    if field.type == FieldDescriptor.TYPE_ENUM:
        return enum_number(field, raw)
    if field.type != FieldDescriptor.TYPE_BYTES:
        return _CONVERT[field.cpp_type](raw)
    if field.name == "bytes_value":
        octets = _from_base64(raw + "=" * (-len(raw) % 4)) if isinstance(raw, str) else None
        if octets is None:
            raise Unfit("bad_value", f"{shown(raw)} is not base64")
        return octets
    octets = octets_of(field.name, raw)
    if octets is not None:
        repairs.append("bad_id")
        return octets
    if not isinstance(raw, str) or not _HEX.fullmatch(raw):
        raise Unfit("bad_id", f"{field.name} is {shown(raw)}, not hexadecimal text")
    return bytes.fromhex(raw)


def enum_number(field: FieldDescriptor, raw: Any) -> int:
    """The number of an enum value, given as such or by its name, in full (``SPAN_KIND_SERVER``) or short (server)."""
    if isinstance(raw, str) and field.enum_type is not None:
        name = raw.strip().upper()
        for known, value in field.enum_type.values_by_name.items():
            if known == name or known.endswith("_" + name):
                return value.number
    return int(_CONVERT[FieldDescriptor.CPPTYPE_INT32](raw))


def _from_base64(text: str) -> bytes | None:
    """The bytes that a text is in base64, in either alphabet."""
    return from_base64(text.replace("-", "+").replace("_", "/"))


def octets_of(name: str, text: Any) -> bytes | None:
    """The bytes of an id in base64, which protobuf's own JSON has: it ends in "=", and so is no hexadecimal text."""
    octets = _from_base64(text) if isinstance(text, str) and text[-1:] == "=" else None
    return octets if octets is not None and len(octets) == _SIZES.get(name) else None


def present(text: str) -> str:
    """An id as lower-case hexadecimal text, or "" if it is one of zeros."""
    return "" if text in _NO_IDS else text


def fill_ids(row: list[Any], at: Mapping[str, int], columns: tuple[str, ...], repairs: list[str]) -> None:
    """The ids of a flat record as lower-case hexadecimal text; "" for those that are absent. Another text stays."""
    for column in columns:
        text = row[at[column]] or ""
        octets = octets_of(column, text) if text[-1:] == "=" else None
        if octets is not None:
            repairs.append("bad_id")
            text = octets.hex()
        row[at[column]] = present(text.lower())


def unusual(ids: Sequence[str]) -> set[int]:
    """The places of those lower-case ids that take the fallback."""
    if "=" not in "".join(ids) and _NO_IDS.isdisjoint(ids):
        return set()
    return {place for place, text in enumerate(ids) if "=" in text or text in _NO_IDS}


def fill_service(given: list[Any], at: Mapping[str, int]) -> Any:
    """Service name, version and instance from the resource's attributes where the record itself does not say; the
    resource."""
    resource = parsed(given[at["resource_attributes"]])
    if isinstance(resource, dict):
        for column, key in SERVICE.items():
            if given[at[column]] is None:
                given[at[column]] = resource.get(key)
    return resource


def attributes_of(attributes: Any, rest: dict[str, Any], envelope: Mapping[str, Any] | None) -> bytes:
    """The attributes of a record, with what has no column, and those of the CloudEvent around it."""
    if attributes is None:
        attributes = rest
    elif rest or type(attributes) is not dict:
        attributes = merged(attributes, rest)
    if envelope is not None:
        attributes = {**attributes}
        keep(attributes, "cloudevent", envelope)
    return packed(attributes)
