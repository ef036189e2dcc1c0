"""Durations and sizes as people write them: "20ms", "1m30s", "8MiB"."""

from __future__ import annotations

import re
from decimal import Decimal

_SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),  # U+00B5, what keyboards give
    "μs": Decimal("1e-6"),  # U+03BC, what Unicode prefers
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_NUMBER = r"(?:[0-9]{1,18}(?:\.[0-9]{0,18})?|\.[0-9]{1,18})"
_PART = re.compile(rf"({_NUMBER})(ns|us|µs|μs|ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZE = re.compile(rf"({_NUMBER})\s*([a-zA-Z]*)")
_BARE = re.compile(_NUMBER)


def parse_duration(text: str) -> float:
    """Seconds in "20ms", "1.5s", "1m30s" (as Go writes it), "30d" or "3" (seconds); raises ValueError."""
    text = text.strip()
    if _BARE.fullmatch(text):
        return float(text)
    if not _DURATION.fullmatch(text):
        raise ValueError(f"not a duration: {text!r}")
    return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in _PART.findall(text)))


def parse_size(text: str) -> int:
    """Bytes in "8MiB" (powers of 1024), "8MB" (powers of 1000) or "4096"; raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    factor = _BYTES.get(match[2].lower() or "b") if match else None
    if match is None or factor is None:
        raise ValueError(f"not a size: {text!r}")
    size = Decimal(match[1]) * factor
    if size != int(size):
        raise ValueError(f"not a whole number of bytes: {text!r}")
    return int(size)


def format_duration(seconds: float) -> str:
    """The shortest text that :func:`parse_duration` reads as exactly the same number."""
    exact = Decimal(repr(seconds))
    if exact > 86_400 and exact % 86_400 == 0:
        return _plain(exact / 86_400, "d")
    if exact and exact % 3600 == 0:
        return _plain(exact / 3600, "h")
    if exact >= 120 and exact % 60 == 0:
        return _plain(exact / 60, "m")
    if not exact or exact >= 1:
        return _plain(exact, "s")
    unit = "ms" if exact >= _SECONDS["ms"] else "us"
    return _plain(exact / _SECONDS[unit], unit)


def _plain(number: Decimal, unit: str) -> str:
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + unit


def format_size(size: int) -> str:
    """A text that :func:`parse_size` reads as the same number of bytes."""
    for unit in ("TiB", "GiB", "MiB", "KiB", "TB", "GB", "MB", "kB"):
        if size and size % _BYTES[unit.lower()] == 0:
            return f"{size // _BYTES[unit.lower()]}{unit}"
    return f"{size}B"
