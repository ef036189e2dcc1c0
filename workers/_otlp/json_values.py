"""Values of logs, spans and metrics in JSON: those of OTLP's fields, and what flat records have in common.

Trace and span ids, of 16 and 8 bytes, are hexadecimal in rows, sometimes base64 in JSON, and absent if all are zeros.
"""

from __future__ import annotations

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
_USUAL = frozenset((0, 16, 32))
"""Characters of ids."""
_BASE64_LENGTHS = {"trace_id": 22, "span_id": 11, "parent_span_id": 11}
"""Without what pads it."""
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
        if type(raw) is bool and field.name.endswith("_unix_nano"):
            raise Unfit("bad_time", f"{field.name} is {raw}, not a time")
        return _CONVERT[field.cpp_type](raw)
    if field.name == "bytes_value":
        octets = from_base64(_padded(raw)) if isinstance(raw, str) else None
        if octets is None:
            raise Unfit("bad_value", f"{shown(raw)} is not base64")
        return octets
    octets = octets_of(field.name, raw)
    if octets is not None:
        repairs.append("bad_id")
        return octets
    if not isinstance(raw, str) or len(raw) % 2 or not _is_hex(raw):
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


def _padded(text: str) -> str:
    return text + "=" * (-len(text) % 4)


def _is_hex(text: str) -> bool:
    digits = text + "0" if len(text) % 2 else text
    try:
        return 2 * len(bytes.fromhex(digits)) == len(digits)  # or there are spaces
    except ValueError:
        return False


def octets_of(name: str, text: Any) -> bytes | None:
    """The bytes of an id in base64, padded or not, as protobuf's own JSON has it; None of any other text."""
    if not isinstance(text, str) or len(digits := text.rstrip("=")) != _BASE64_LENGTHS.get(name) or _is_hex(text):
        return None
    padded = _padded(digits)
    return from_base64(padded) if text in (digits, padded) else None


def present(text: str) -> str:
    """An id as lower-case hexadecimal text, or "" if it is one of zeros."""
    return "" if text in _NO_IDS else text


def fill_ids(row: list[Any], at: Mapping[str, int], columns: tuple[str, ...], repairs: list[str]) -> None:
    """The ids of a flat record as lower-case hexadecimal text; "" for those that are absent. Another text stays."""
    for column in columns:
        text = row[at[column]] or ""
        if len(text) not in _USUAL or text != text.lower():
            if _is_hex(text):
                text = text.lower()
            elif (octets := octets_of(column, text)) is not None:
                repairs.append("bad_id")
                text = octets.hex()
        row[at[column]] = present(text)


def unusual(ids: Sequence[str]) -> set[int]:
    """The places of those ids that take the fallback: of zeros, or not hexadecimal."""
    if _is_hex("".join(ids)) and _NO_IDS.isdisjoint(ids):
        return set()
    return {place for place, text in enumerate(ids) if not _is_hex(text) or text in _NO_IDS}


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
