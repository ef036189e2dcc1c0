"""Conversions from what producers send to what PostgreSQL takes: JSON, times, numbers, text.

All are pure. A value that cannot be converted raises Unfit, whose ``reason`` is a bounded word for counting.
Functions that may repair a value take ``repairs``, a list to which they append the reason of each repair.
"""

from __future__ import annotations

import json
import math
import re
import reprlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson

EPOCH = 946_684_800_000_000
"""Microseconds from 1970 to 2000-01-01T00:00:00Z, where PostgreSQL's timestamptz begins."""
MIN_TIME = -211_813_488_000_000_000
MAX_TIME = 9_223_371_331_200_000_000 - 1
"""The range of timestamptz, 4713 BC to 294276 AD, in microseconds since 2000."""

INT4_MIN, INT4_MAX = -(2**31), 2**31 - 1
INT8_MIN, INT8_MAX = -(2**63), 2**63 - 1

MAX_DEPTH = 254
"""Objects and arrays within each other that can be written; a text may be parsed and kept as text up to 1024."""
_TOO_DEEP = f"JSON nested more than {MAX_DEPTH} deep"

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNIX_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_from_text = datetime.fromisoformat
_UNSAFE = re.compile("[\0\ud800-\udfff]")
_INTEGER = re.compile(r"[+-]?[0-9]+")


class Unfit(ValueError):
    """A value that has no meaning in its column; ``reason`` is a bounded word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def shown(value: object, limit: int = 80) -> str:
    """The value as an error message quotes it: its repr, cut to ``limit`` characters."""
    if isinstance(value, str):
        value = value[: limit + 1]
    elif isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    # Of a list or an object its beginning: repr() of all of it may be megabytes, or fail for its depth.
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


# --- JSON -------------------------------------------------------------------------------------------------


def parse_json(payload: bytes, repairs: list[str]) -> Any:
    """The JSON value of a whole payload (RFC 8259), strings free of U+0000 and lone surrogates.

    A byte order mark is skipped; invalid UTF-8, NUL and lone surrogates inside strings become U+FFFD; a number
    beyond float64 becomes its text. Raises Unfit("malformed") for anything that is not one complete JSON value.
    """
    try:
        value = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        if payload[:3] == b"\xef\xbb\xbf" != payload[3:6]:
            return parse_json(payload[3:], repairs)
        value = _parse_leniently(payload, error, repairs)
    # The only way a NUL can enter a string of a JSON text; most texts have no backslash, which is quicker to find.
    if b"\\" in payload and b"\\u0000" in payload:
        _check_depth(value, "malformed")
        value = scrub(value, repairs)
    return value


def _parse_leniently(payload: bytes, cause: orjson.JSONDecodeError, repairs: list[str]) -> Any:
    # orjson refuses lone surrogates, invalid UTF-8 and huge numbers: parse what still has JSON's outline again.
    if payload.lstrip()[:1] not in (b"{", b"["):
        raise Unfit("malformed", f"not JSON: {cause}") from None
    text = payload.decode("utf-8", "replace")
    noted: list[str] = []
    if REPLACEMENT in text and REPLACEMENT.encode() not in payload:
        noted.append("invalid_utf8")

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def whole(digits: str) -> int | str:
        if len(digits) <= 400:
            return int(digits)
        noted.append("number_as_text")
        return digits

    def real(digits: str) -> float | str:
        number = float(digits)
        if math.isfinite(number):
            return number
        noted.append("number_as_text")
        return digits

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=whole, parse_float=real)
    except ValueError:
        raise Unfit("malformed", f"not JSON: {cause}") from None
    except RecursionError:
        raise Unfit("malformed", _TOO_DEEP) from None
    _check_depth(value, "malformed")
    value = scrub(value, noted)
    repairs.extend(noted)
    return value


def scrub(value: Any, repairs: list[str]) -> Any:
    """A JSON value whose strings and keys are free of U+0000 and lone surrogates."""
    if isinstance(value, str):
        return clean(value, repairs)
    if isinstance(value, list):
        return [scrub(element, repairs) for element in value]
    if isinstance(value, dict):
        return {clean(key, repairs): scrub(element, repairs) for key, element in value.items()}
    return value


def clean(text: str, repairs: list[str]) -> str:
    """Text that PostgreSQL takes: U+0000 and lone surrogates replaced by U+FFFD."""
    if "\0" not in text:
        try:
            text.encode()
        except UnicodeEncodeError:
            pass
        else:
            return text
    repairs.append("text_replaced")
    return _UNSAFE.sub(REPLACEMENT, text)


def dump_json(value: Any, *, sort: bool = False) -> bytes:
    """JSON text of a value whose strings are clean; NaN and infinities must already be strings.

    Integers of any size are written exactly, keys as they come or sorted. Raises Unfit("bad_value") for nesting that
    nobody can read back.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort else None)
    except TypeError:  # integers beyond 64 bits, nesting beyond orjson's limit
        _check_depth(value, "bad_value")
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=sort).encode()


def _check_depth(value: Any, reason: str) -> None:
    """Refuses what recursion cannot be trusted with: how deep that goes would depend on who is calling."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for node in level
            if isinstance(node, list | dict)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise Unfit(reason, _TOO_DEEP)


# --- times ------------------------------------------------------------------------------------------------


def time_from_nanos(nanos: int) -> int:
    """Nanoseconds since 1970 as timestamptz (microseconds since 2000), truncated; beyond int64: Unfit."""
    if not INT8_MIN <= nanos <= INT8_MAX:
        raise Unfit("bad_time", f"{shown(nanos)} is not a time in int64 nanoseconds")
    return nanos // 1000 - EPOCH


def time_from_text(text: str) -> int:
    """RFC 3339 text as timestamptz, truncated to the microsecond; without an offset it is UTC; else Unfit."""
    try:
        return (_from_text(text) - _UNIX_2000) // _MICROSECOND
    except (ValueError, TypeError):  # TypeError: no offset
        pass
    try:
        moment = _from_text(text.strip().upper())
    except ValueError:
        raise Unfit("bad_time", f"{shown(text)} is not a time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _UNIX_2000) // _MICROSECOND


def time_from_number(number: int | float | Decimal) -> int:
    """A number since 1970 as timestamptz; its magnitude tells the unit: below 1e11 s, 1e14 ms, 1e17 µs, else ns."""
    if isinstance(number, float):
        if not math.isfinite(number):
            raise Unfit("bad_time", f"{number} is not a time")
        if 2**30 <= number < 2**33:
            return _micros_from_seconds(number) - EPOCH
    # Decimal, not float64: 1765535400.123456 has no exact binary form, its shortest text has.
    exact: Any = Decimal(repr(number)) if isinstance(number, float) else number
    size = abs(exact)
    if size < 100_000_000_000:
        micros = exact * 1_000_000
    elif size < 100_000_000_000_000:
        micros = exact * 1000
    elif size < 100_000_000_000_000_000:
        micros = exact
    elif size <= INT8_MAX:
        micros = exact // 1000
    else:
        raise Unfit("bad_time", f"{shown(number)} is not a time")
    whole: int = math.floor(micros)
    return whole - EPOCH


def _micros_from_seconds(seconds: float) -> int:
    """Microseconds of the shortest decimal text of 2^30 … 2^33 seconds, truncated: what Decimal would find, quicker.

    Floats are then 2^-22 to 2^-20 apart, between a tenth of a microsecond and one: one decimal at most with six digits
    after the point means this float, else it is the nearest with seven. The products are exact.
    """
    whole = int(seconds)
    fraction = seconds - whole
    nearest = whole * 1_000_000 + round(fraction * 1e6)
    if nearest / 1_000_000 == seconds:
        return nearest
    return whole * 1_000_000 + round(fraction * 1e7) // 10


def time(value: Any) -> int:
    """A time of any JSON form (number, numeric text, RFC 3339 text) as timestamptz; anything else: Unfit."""
    if isinstance(value, str):
        if value[10:11] == "T":
            return time_from_text(value)
        text = value.strip()
        if len(text) > 64:
            raise Unfit("bad_time", f"{shown(value)} is not a time")
        if text[:1].isdecimal() and "T" not in text and text.count("-") < 2:
            try:
                return time_from_number(Decimal(text))
            except ArithmeticError:  # no number, or one with an exponent beyond all bounds
                return time_from_text(text)
        return time_from_text(text)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return time_from_number(value)
    raise Unfit("bad_time", f"{shown(value)} is not a time")


def time_to_text(micros: int) -> str:
    """timestamptz (microseconds since 2000) as RFC 3339 text in UTC, for people and for JSON."""
    try:
        moment = _UNIX_2000 + timedelta(microseconds=micros)
    except OverflowError:
        return f"{micros} µs since 2000"
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- scalars: lenient about the form, strict about the meaning -----------------------------------------------


def integer(value: Any, low: int = INT8_MIN, high: int = INT8_MAX) -> int:
    """An integer in low…high from an int, a whole float, a decimal text or a bool; otherwise Unfit.

    Out of range is ``out_of_range``, so that a caller may clamp; anything else is ``bad_value``.
    """
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        number = int(value)
    elif isinstance(value, str) and len(value) <= 400 and _INTEGER.fullmatch(text := value.strip()):
        number = int(text)
    else:
        raise Unfit("bad_value", f"{shown(value)} is not an integer")
    if not low <= number <= high:
        raise Unfit("out_of_range", f"{shown(value)} is not between {low} and {high}")
    return number


def real(value: Any) -> float:
    """A finite float64 from a number, a numeric text or a bool (1.0, 0.0); otherwise Unfit."""
    if isinstance(value, int | float) or (isinstance(value, str) and "_" not in value and value.isascii()):
        try:
            number = float(value)
        except (ValueError, OverflowError):
            pass
        else:
            if math.isfinite(number):
                return number
    raise Unfit("bad_value", f"{shown(value)} is not a number")


_BOOLEANS: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}


def boolean(value: Any) -> bool:
    """A bool from a bool, 0 or 1, or the texts true, false, 1 and 0 in any case; otherwise Unfit."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    if isinstance(value, str) and (known := _BOOLEANS.get(value.strip().lower())) is not None:
        return known
    raise Unfit("bad_value", f"{shown(value)} is not a boolean")


def text(value: Any) -> str:
    """Text from text; a number or bool gives its JSON text; a list or object is Unfit."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return dump_json(value).decode()
    raise Unfit("bad_value", f"{shown(value)} is not text")
