"""Flat JSON records of logs, spans and metrics: what they have in common. What has no column is kept as attributes.

Trace and span ids, of 16 and 8 bytes, are hexadecimal in rows, sometimes base64 in JSON, and absent if all are zeros.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any

from workers._json.convert import keep, merged, parsed
from workers._json.secrets import packed

NO_TRACE, NO_SPAN = bytes(16), bytes(8)
"""OpenTelemetry's invalid ids, which some exporters write for those that are absent."""
_NO_IDS = frozenset((NO_TRACE.hex(), NO_SPAN.hex()))
_SPAN = re.compile(r"[A-Za-z0-9+/_-]{11}=")
_CODED = {"trace_id": re.compile(r"[A-Za-z0-9+/_-]{22}=="), "span_id": _SPAN, "parent_span_id": _SPAN}
_SERVICE = (
    ("service_name", "service.name"),
    ("service_version", "service.version"),
    ("service_instance", "service.instance.id"),
)


def octets_of(name: str, text: Any) -> bytes | None:
    """The bytes of an id in base64, which protobuf's own JSON has: it ends in "=", and so is no hexadecimal text."""
    coded = _CODED.get(name)
    if coded is None or not isinstance(text, str) or not coded.fullmatch(text):
        return None
    return urlsafe_b64decode(text.replace("+", "-").replace("/", "_"))


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
        for column, key in _SERVICE:
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
