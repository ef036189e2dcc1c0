"""Severities of logs: OpenTelemetry numbers 1–24, their names, and what syslog, GELF and CEF call them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_NAMES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

BANDS: Mapping[int, str] = MappingProxyType({number: _NAMES[(number - 1) // 4] for number in range(1, 25)})
"""Severity number → name of its range (OpenTelemetry logs data model)."""

SYSLOG: tuple[int, ...] = (24, 23, 21, 17, 13, 10, 9, 5)
"""Syslog and GELF level, 0 (emergency) to 7 (debug) → severity number."""

_NUMBERS = {
    "trace": 1, "verbose": 1,
    "debug": 5,
    "info": 9, "information": 9, "informational": 9, "low": 9,
    "notice": 10,
    "warn": 13, "warning": 13, "medium": 13,
    "err": 17, "error": 17, "high": 17,
    "crit": 21, "critical": 21, "fatal": 21, "very high": 21, "very-high": 21,
    "alert": 23,
    "emerg": 24, "emergency": 24, "panic": 24,
}  # fmt: skip
_NUMBERED = re.compile(r"(trace|debug|info|warn|error|fatal)([1-4])")


def number_of(text: str) -> int | None:
    """Severity number of a name in any case, such as ``WARN``, ``INFO2``, ``Informational``; None for other words."""
    name = text.strip().lower()
    known = _NUMBERS.get(name)
    if known is None and (found := _NUMBERED.fullmatch(name)):
        return _NUMBERS[found[1]] + int(found[2]) - 1
    return known
