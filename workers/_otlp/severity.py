"""Severities of logs: OpenTelemetry numbers 1–24, their names, and what syslog, GELF and CEF call them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from eventwriter.values import INT4_MAX, INT4_MIN
from workers._json import convert

_NAMES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

BANDS: Mapping[int, str] = {number: _NAMES[(number - 1) // 4] for number in range(1, 25)}
"""Severity number → name of its range (OpenTelemetry logs data model)."""

SYSLOG: Mapping[float, int] = dict(enumerate((24, 23, 21, 17, 13, 10, 9, 5)))
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
_NOTHING = frozenset(("", "unknown", "undefined", "unspecified", "none", "n/a", "-"))
"""Severities that say nothing."""
_NUMBER = re.compile(r"[0-9]{1,9}(\.0*)?")
_NUMBERED = re.compile(r"(trace|debug|info|warn|error|fatal)([1-4])")


def number_of(text: str) -> int | None:
    """Severity number of a name in any case, such as ``WARN``, ``INFO2``, ``Informational``; None for other words."""
    name = text.strip().lower()
    known = _NUMBERS.get(name)
    if known is None and (found := _NUMBERED.fullmatch(name)):
        return _NUMBERS[found[1]] + int(found[2]) - 1
    return known


def severity_of(severity: Any, number: Any, level: Any, word: Any, rest: dict[str, Any]) -> tuple[Any, Any]:
    """Severity from ``level`` and ``severity`` too: a level is a name, or syslog's number, which is kept besides.

    A number comes first, then a text, then syslog's level. A text that says nothing makes way for whatever does, and is
    kept, as is every text beside the first.
    """
    if type(level) is int and 0 <= level <= 7 and severity is number is word is None:  # GELF
        rest["level"] = level
        return None, SYSLOG[level]
    if type(number) is not bool and number in (0, "0"):
        number = None
    from_level: int | None = None
    texts = {"severity_text": severity, "level": None, "severity": word}
    if isinstance(level, str) and not _NUMBER.fullmatch(level.strip()):
        texts["level"] = level
    elif level is not None:
        rest["level"] = level
        if not isinstance(level, bool) and isinstance(level, int | float | str):
            from_level = SYSLOG.get(float(level) if isinstance(level, str) else level)
    texts = {name: text for name, text in texts.items() if text is not None and text != ""}
    telling = [name for name, text in texts.items() if not says_nothing(text)]
    if not telling and from_level is None and severity_number(number, None, {}, []) is None:
        telling = [*texts]
    severity = texts.pop(telling[0]) if telling else None
    rest |= texts
    if from_level is None or number is not None or (isinstance(severity, str) and number_of(severity) is not None):
        return severity, number
    return severity, from_level


def says_nothing(severity: Any) -> bool:
    """Whether it is a text without a meaning."""
    return isinstance(severity, str) and severity.strip().lower() in _NOTHING


def severity_number(number: Any, severity: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """The number as given; else from the name, which may be unknown."""
    if isinstance(number, str) and (named := number_of(number.strip().upper().removeprefix("SEVERITY_NUMBER_"))):
        return named
    if number is not None:
        known = convert.integer("severity_number", INT4_MIN, INT4_MAX, number, rest, repairs)
        if known:
            return known
    return number_of(severity) if isinstance(severity, str) else None
