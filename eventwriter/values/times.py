"""Times of every form as timestamptz: microseconds since 2000, truncated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

from eventwriter.values.jsontext import LongNumber
from eventwriter.values.scalars import INT8_MAX, INT8_MIN, whole
from eventwriter.values.unfit import Unfit, shown

EPOCH = 946_684_800_000_000
"""Microseconds from 1970 to 2000-01-01T00:00:00Z, where PostgreSQL's timestamptz begins."""
MIN_TIME = -211_813_488_000_000_000
MAX_TIME = 9_223_371_331_200_000_000 - 1
"""The range of timestamptz, 4713 BC to 294276 AD, in microseconds since 2000."""

_UNIX_2000 = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SECONDS_MIN, _SECONDS_MAX = 2.0**30, 2.0**33
_from_text = datetime.fromisoformat
_EXACT = Context(prec=5000)
"""More digits than any number has that is parsed."""


def time_from_nanos(nanos: int) -> int:
    """Nanoseconds since 1970 as timestamptz (microseconds since 2000), truncated; beyond int64: Unfit."""
    if not INT8_MIN <= nanos <= INT8_MAX:
        raise Unfit("bad_time", f"{shown(nanos)} is not a time in int64 nanoseconds")
    return nanos // 1000 - EPOCH


def _decimal(text: str) -> Decimal:
    """The number that a text is, of ASCII digits and without "_", both of which Decimal takes; else ArithmeticError."""
    return Decimal(text if text.isascii() and "_" not in text else "")


def nanoseconds(value: Any, unit: int) -> int:
    """A number, or the text of one, of units of so many nanoseconds, in nanoseconds, truncated; other values: Unfit.

    So is a fraction of a nanosecond, where these are the unit.
    """
    try:
        return whole(value) * unit
    except Unfit:
        if not isinstance(value, float | str) or (isinstance(value, str) and len(value) > 64):
            raise
    try:
        exact = _decimal(value.text if isinstance(value, LongNumber) else str(value).strip())
        if exact.is_finite() and exact.adjusted() < 400 and (unit > 1 or exact == exact.to_integral_value()):
            return math.floor(_EXACT.multiply(exact, unit))
    except ArithmeticError:
        pass
    raise Unfit("bad_time", f"{shown(value)} is not a time")


def time_from_text(text: str, *, leap: bool = True) -> int:
    """RFC 3339 text as timestamptz, truncated to the microsecond; without an offset it is UTC; else Unfit.

    So is a leap second unless that may be taken for the one after it.
    """
    try:
        return (_from_text(text) - _UNIX_2000) // _MICROSECOND
    except (ValueError, TypeError):  # TypeError: no offset
        pass
    plain = text.strip().upper()
    leap = leap and plain[16:19] == ":60"  # the first second of the next minute, as for PostgreSQL
    try:
        moment = _from_text(f"{plain[:16]}:59{plain[19:]}" if leap else plain)
    except ValueError:
        raise Unfit("bad_time", f"{shown(text)} is not a time") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _UNIX_2000) // _MICROSECOND + leap * 1_000_000


def usual_time(value: Any) -> int | None:
    """A time since 2000 in text with a T in its place, as in RFC 3339; None for any other, and for what is none."""
    if type(value) is not str or value[10:11] != "T":
        return None
    try:
        micros = (_from_text(value) - _UNIX_2000) // _MICROSECOND
    except (ValueError, TypeError):
        try:
            micros = time_from_text(value, leap=False)
        except Unfit:
            return None
    return micros if micros > 0 else None  # not Go's zero, for one


def usual_times(values: Sequence[Any]) -> list[int | None]:
    """``usual_time`` of each, in less time for texts of one length."""
    try:
        if "".join(values)[10 :: len(values[0])] == "T" * len(values) and len({*map(len, values)}) == 1:
            times = [(moment - _UNIX_2000) // _MICROSECOND for moment in map(_from_text, values)]
            if min(times) > 0:
                return [*times]
    except (TypeError, ValueError, IndexError):  # no text, no offset, no time, nothing
        pass
    return [*map(usual_time, values)]


def time_from_number(number: int | float | Decimal) -> int:
    """A number since 1970 as timestamptz; its magnitude tells the unit: below 1e11 s, 1e14 ms, 1e17 µs, else ns."""
    if type(number) is float:
        if (time := time_from_seconds(number)) is not None:
            return time
        if not math.isfinite(number):
            raise Unfit("bad_time", f"{number} is not a time")
    # Decimal, not float64: 1765535400.123456 has no exact binary form, its shortest text has.
    exact: Any = number
    if isinstance(number, float):
        exact = Decimal(number.text if isinstance(number, LongNumber) else repr(number))
    size = abs(exact)
    if size < 100_000_000_000_000_000:
        unit = 1_000_000 if size < 100_000_000_000 else 1000 if size < 100_000_000_000_000 else 1
        micros = exact * unit if isinstance(exact, int) else _EXACT.multiply(exact, unit)
    elif size <= INT8_MAX:
        micros = exact // 1000
    else:
        raise Unfit("bad_time", f"{shown(number)} is not a time")
    floor: int = math.floor(micros)
    return floor - EPOCH


def time_from_seconds(seconds: float) -> int | None:
    """Seconds since 1970 as timestamptz, from 2004 to 2242, 2^30 to 2^33; None for any other number.

    Truncated to the microsecond it is what Decimal would find of their shortest text, quicker: floats are then 2^-22 to
    2^-20 apart, between a tenth of a microsecond and one, so one decimal at most with six digits after the point means
    this float, else it is the nearest with seven. The products are exact.
    """
    if not _SECONDS_MIN <= seconds < _SECONDS_MAX:
        return None
    floor = int(seconds)
    fraction = seconds - floor
    nearest = floor * 1_000_000 + round(fraction * 1e6)
    if nearest / 1_000_000 == seconds:
        return nearest - EPOCH
    return floor * 1_000_000 + round(fraction * 1e7) // 10 - EPOCH


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
                return time_from_number(_decimal(text))
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
