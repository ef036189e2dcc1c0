"""JSON in and out, and the text that PostgreSQL takes."""

from __future__ import annotations

import json
import re
import sys
from decimal import Decimal
from typing import Any

import msgspec
import orjson

from eventwriter.values.unfit import Unfit

MAX_DEPTH = 254
"""Objects and arrays within each other that can be written; a text may be parsed and kept as text up to 1024."""
_PARSED_DEPTH = 1024
_TOO_DEEP = f"JSON nested more than {MAX_DEPTH} deep"

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSAFE = re.compile("[\0\ud800-\udfff]")
_DIGITS_MAX = 4300
"""Python makes no integer of more digits, nor text of one."""
_BACKSLASH = ord("\\")
_SURE, _TINY = 15, 2.3e-308
"""Digits of numbers that float64 tells apart, unless they are this small."""


class LongNumber(float):
    """A number of JSON that float64 only comes near: the nearest float64, and the text it came as."""

    __slots__ = ("text",)
    text: str

    def __new__(cls, text: str) -> LongNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number


def is_rounded(number: float, text: str) -> bool:
    """Whether a finite float64 has not every digit of the decimal text that it was made of."""
    if not number:
        return bool(text.lower().partition("e")[0].strip().strip("+-0."))
    if len(text) <= _SURE + ("." in text) and abs(number) > _TINY:
        return False
    shortest = orjson.dumps(number)
    return shortest != text.encode() and Decimal(shortest.decode()) != Decimal(text)


_dumps = orjson.dumps
_float = msgspec.json.Decoder(float).decode


def real_from_text(text: str) -> float:
    """The float64 that a number of JSON is, or a LongNumber; raises ValueError if its text has to do instead."""
    try:
        number = _float(text)  # in a quarter of the time that float takes
    except msgspec.ValidationError:
        raise ValueError("beyond float64") from None
    if (len(text) < _SURE + 2 and abs(number) > _TINY) or _dumps(number).decode() == text:  # as nearly everybody writes
        return number
    if len(text) > _DIGITS_MAX or number - number != 0:
        raise ValueError("beyond float64")
    if not is_rounded(number, text):
        return number
    if not number:
        raise ValueError("too small for float64")
    return LongNumber(text)


_decode = msgspec.json.Decoder(float_hook=real_from_text).decode


def parse_json(payload: bytes, repairs: list[str]) -> Any:
    """The JSON value of a whole payload (RFC 8259), strings free of U+0000 and lone surrogates.

    A byte order mark is skipped; invalid UTF-8, NUL and lone surrogates inside strings become U+FFFD. Integers are
    exact, other numbers float64 or, if that has not all their digits, a LongNumber; one beyond float64 becomes its
    text. Raises Unfit("malformed") for anything that is not one complete JSON value.
    """
    try:
        value = _decode(payload)
    except msgspec.ValidationError as error:  # a number beyond float64
        value = _parse_leniently(payload, error, repairs)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        value = _parse_again(payload, repairs)
    # The only way a NUL can enter a string of a JSON text; most texts have no backslash, and an octet is found quickly.
    if _BACKSLASH in payload and b"\\u0000" in payload:
        _check_depth(value, "malformed")
        value = scrub(value, repairs)
    return value


def _parse_again(payload: bytes, repairs: list[str]) -> Any:
    """The value of what msgspec does not take, or not at this depth of calls: orjson's limit is the same everywhere."""
    limit = sys.getrecursionlimit()
    try:
        orjson.loads(payload)
        sys.setrecursionlimit(limit + _PARSED_DEPTH)
        return _decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        if payload[:3] == b"\xef\xbb\xbf" != payload[3:6]:
            return parse_json(payload[3:], repairs)
        return _parse_leniently(payload, error, repairs)
    finally:
        sys.setrecursionlimit(limit)


def _parse_leniently(payload: bytes, cause: Exception, repairs: list[str]) -> Any:
    # Both refuse lone surrogates, invalid UTF-8 and huge numbers: parse what still has JSON's outline again.
    if payload.lstrip()[:1] not in (b"{", b"["):
        raise Unfit("malformed", f"not JSON: {cause}") from None
    text = payload.decode("utf-8", "replace")
    noted: list[str] = []
    if REPLACEMENT in text and REPLACEMENT.encode() not in payload:
        noted.append("invalid_utf8")

    def refuse(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def whole(digits: str) -> int | str:
        return int(digits) if len(digits.lstrip("-")) <= _DIGITS_MAX else as_text(digits)

    def real(digits: str) -> float | str:
        try:
            return real_from_text(digits)
        except ValueError:
            return as_text(digits)

    def as_text(digits: str) -> str:
        noted.append("number_as_text")
        return digits

    try:
        value = json.loads(text, parse_constant=refuse, parse_int=whole, parse_float=real, object_pairs_hook=_apart)
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
        return _apart([(clean(key, repairs), scrub(element, repairs)) for key, element in value.items()])
    return value


def _apart(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these members. Keys that are equal and have U+FFFD, which may be all that makes them so, are told
    apart; of others that are equal the last counts."""
    found: dict[str, Any] = {}
    number = 0
    for key, value in members:
        if key in found and REPLACEMENT in key:
            base = key
            while key in found:
                key = f"original.{number}.{base}" if number else f"original.{base}"
                number += 1
        found[key] = value
    return found


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

    Every digit of a number is written, keys as they come or sorted. Raises Unfit("bad_value") for nesting that nobody
    can read back.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) if sort else orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, long numbers, nesting beyond orjson's limit
        _check_depth(value, "bad_value")
        return dump_json(_with_digits(value), sort=sort)


def _with_digits(value: Any) -> Any:
    """The same value for orjson, which takes numbers that it does not know as text."""
    if isinstance(value, dict):
        return {key: _with_digits(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_with_digits(each) for each in value]
    if type(value) is LongNumber:
        return orjson.Fragment(value.text)
    return orjson.Fragment(str(value)) if type(value) is int else value


def _check_depth(value: Any, reason: str) -> None:
    """Refuses what recursion cannot be trusted with: how deep that goes would depend on who is calling."""
    if not isinstance(value, list | dict):
        return
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, list | dict)
        ]
        if not level:
            return
    raise Unfit(reason, _TOO_DEEP)
