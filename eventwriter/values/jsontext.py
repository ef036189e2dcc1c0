"""JSON in and out, and the text that PostgreSQL takes."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

from eventwriter.values.unfit import Unfit

MAX_DEPTH = 254
"""Objects and arrays within each other that can be written; a text may be parsed and kept as text up to 1024."""
_TOO_DEEP = f"JSON nested more than {MAX_DEPTH} deep"

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_UNSAFE = re.compile("[\0\ud800-\udfff]")


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
