"""Numbers, bools and text: lenient about the form, strict about the meaning."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from ipaddress import IPv4Interface, IPv6Interface, ip_interface
from typing import Any

from eventwriter.values.jsontext import LongNumber, dump_json
from eventwriter.values.unfit import Unfit, shown

INT4_MIN, INT4_MAX = -(2**31), 2**31 - 1
INT8_MIN, INT8_MAX = -(2**63), 2**63 - 1
_INTEGER = re.compile(r"[+-]?[0-9]+")
_EXACT = 2**53
_SINGLE_MIN, _SINGLE_MAX = 2.0**-150, 2.0**128 - 2.0**103


def integer(value: Any, low: int = INT8_MIN, high: int = INT8_MAX) -> int:
    """An integer in low…high as ``whole`` has it; otherwise Unfit("out_of_range")."""
    number = whole(value)
    if not low <= number <= high:
        raise Unfit("out_of_range", f"{shown(value)} is not between {low} and {high}")
    return number


def whole(value: Any) -> int:
    """An integer, with every digit, from an int, a whole float, a decimal text or a bool; else Unfit("bad_value")."""
    if isinstance(value, LongNumber) and (exact := Decimal(value.text)) == exact.to_integral_value():
        return int(exact)
    if isinstance(value, int) or (type(value) is float and -_EXACT <= value <= _EXACT and value.is_integer()):
        return int(value)
    if type(value) is float and value.is_integer():
        return int(Decimal(repr(value)))  # as it was written: its binary form has other digits
    if isinstance(value, str) and len(value) <= 400 and _INTEGER.fullmatch(text := value.strip()):
        return int(text)
    raise Unfit("bad_value", f"{shown(value)} is not an integer")


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


def is_single(number: float) -> bool:
    """Whether float32 comes near a finite float64: neither as 0 nor as infinity."""
    return not number or _SINGLE_MIN < abs(number) < _SINGLE_MAX


def single(value: Any) -> float:
    """The same as ``real``, of numbers that float32 comes near; others are Unfit("out_of_range")."""
    if not is_single(number := real(value)):
        raise Unfit("out_of_range", f"{shown(value)} is beyond float32")
    return number


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


def inet(value: Any) -> IPv4Interface | IPv6Interface:
    """An IP address, with a prefix or without, from a text that PostgreSQL's inet takes: without a zone; else Unfit."""
    if isinstance(value, str) and "%" not in value:
        with suppress(ValueError):
            return ip_interface(value)
    raise Unfit("bad_value", f"{shown(value)} is not an address")


def text(value: Any) -> str:
    """Text from text; a number or bool gives its JSON text; a list or object is Unfit."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return dump_json(value).decode()
    raise Unfit("bad_value", f"{shown(value)} is not text")
