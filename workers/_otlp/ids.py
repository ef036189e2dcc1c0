"""Trace and span ids, of 16 and 8 bytes: hexadecimal in rows, sometimes base64 in JSON, and absent if all are zeros."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any

NO_TRACE, NO_SPAN = bytes(16), bytes(8)
"""OpenTelemetry's invalid ids, which some exporters write for those that are absent."""
_NO_IDS = frozenset((NO_TRACE.hex(), NO_SPAN.hex()))

_SPAN = re.compile(r"[A-Za-z0-9+/_-]{11}=")
_CODED = {"trace_id": re.compile(r"[A-Za-z0-9+/_-]{22}=="), "span_id": _SPAN, "parent_span_id": _SPAN}


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
