"""The values of records: what fits its column goes in; what does not leaves it NULL, is kept, and is counted.

The originals are kept in ``rest``, a dict that becomes metadata or attributes of the row; ``repairs`` counts them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeVar

from orjson import dumps

from eventwriter import values
from eventwriter.masking.community import CAPITAL, LOWER, UPPER, masked
from eventwriter.values import LongNumber, Unfit, dump_json, shown, time_from_seconds, usual_time

T = TypeVar("T")

EXACT = 2**53
"""Integers up to this size are exact as float64."""
_GO_ZERO = -63_082_281_600_000_000
"""0001-01-01T00:00:00Z, which Go writes for a time that was never set; in zones with odd minutes seconds off it."""
_GO_ZERO_NANOS = -7_742_049_378_871_346
"""1754-08-30T22:43:41.128654Z: the same in int64 nanoseconds since 1970, where it wraps around."""
_GO_ZERO_TEXT = re.compile("0000-12-31T.*|11651379494838206464|-6795364578871345152|-62135596800(000)?")
"""The same west of Greenwich, in a year that Python has not; in uint64 nanoseconds; and as texts of numbers."""
_ZERO_TEXT = re.compile(r"(0+(\.0*)?(e[+-]?\d+)?)?", re.IGNORECASE)


def keep(rest: dict[str, Any], name: str, value: Any) -> None:
    """Keeps what has no column under its name, without displacing anything."""
    while name in rest:
        name = f"original.{name}"
    rest[name] = value


def keep_original(rest: dict[str, Any], name: str, original: Any, repairs: list[str], reason: str) -> None:
    """The same of what its column cannot hold."""
    repairs.append(reason)
    keep(rest, name, original)


def fitting(convert: Callable[[Any], T], name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> T | None:
    """A value converted, or None with the original in ``rest``."""
    try:
        return None if value is None else convert(value)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None


def moment(value: Any, name: str = "time", repairs: list[str] | None = None) -> int | None:
    """A time of any form as timestamptz, in nanoseconds or milliseconds if its name says so; None if there is none:
    null, "", 0, or the zero of Go. Anything else raises Unfit("bad_time"). A leap second counts as repaired."""
    usual = usual_time if type(value) is not float or unit_of(name) else time_from_seconds
    if (micros := usual(value)) is not None:
        return micros
    try:
        micros = _micros(value, name)
    except Unfit as error:
        if not isinstance(value, list | dict) and _GO_ZERO_TEXT.fullmatch(str(value)):
            return None
        raise Unfit("bad_time", f"{name}: {error}") from None
    if repairs is not None and type(value) is str and value[17:19] == "60":
        repairs.append("leap_second")
    if micros is None or micros > 0:
        return micros
    return None if abs(micros - _GO_ZERO) < 60_000_000 or micros == _GO_ZERO_NANOS else micros


def _micros(value: Any, name: str) -> int | None:
    if value is None or (value == 0 and value is not False) or (type(value) is str and _ZERO_TEXT.fullmatch(value)):
        return None
    unit = unit_of(name)
    if unit is None or type(value) is bool or (type(value) is str and ("-" in value[1:] or value[10:11] == "T")):
        return values.time(value)
    return values.time_from_nanos(values.nanoseconds(value, unit))


_last_word = re.compile(r"(?:[A-Z]|(?<![A-Za-z]))[a-z]+\Z").search
_UNITS: Mapping[str, int] = {"ns": 1, "nano": 1, "ms": 1_000_000}


@lru_cache(maxsize=1024)
def unit_of(name: str) -> int | None:
    """Nanoseconds of the unit that ends a name, as a word: time_received_ns, startTimeUnixNano, TimeFlowEndMs."""
    word = _last_word(name)
    return _UNITS.get(word[0].lower()) if word else None


def moment_or_kept(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """A time, or None with the original in ``rest``."""
    return fitting(lambda given: moment(given, name, repairs), name, value, rest, repairs)


def real(
    name: str, value: Any, rest: dict[str, Any], repairs: list[str], *, made: Callable[[Any], float] = values.real
) -> float | None:
    """A float, or None with the original in ``rest``; a number that float64 only comes near is kept there as text."""
    number = fitting(made, name, value, rest, repairs)
    if number is not None and _is_rounded(number, value):
        keep_original(rest, name, value if type(value) is str else dump_json(value).decode(), repairs, "rounded")
    return number


def _is_rounded(number: float, given: Any) -> bool:
    """Whether a float is not all that was given: an integer, a long number, a text."""
    if type(given) is int:
        return int(number) != given
    if type(given) is str:
        return values.is_rounded(number, given)
    return type(given) is LongNumber


def integer(name: str, low: int, high: int, value: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """An integer in low…high, or None with the original in ``rest``."""
    return fitting(lambda given: values.integer(given, low, high), name, value, rest, repairs)


def clamped(name: str, low: int, high: int, value: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """The same, but one beyond them, unless below 0 where none is, is the nearest within, and kept as text."""
    number = fitting(values.whole, name, value, rest, repairs)
    if number is None or low <= number <= high:
        return number
    if low == 0 and number < 0:
        keep_original(rest, name, value, repairs, "out_of_range")
        return None
    keep_original(rest, name, value.strip() if isinstance(value, str) else str(number), repairs, "clamped")
    return low if number < 0 else high


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; nesting that nobody can compare is not."""
    try:
        return bool(one == other)
    except RecursionError:
        return False


def packed(value: Any) -> bytes:
    """The JSON of a value as rows have it: without the communities in it."""
    try:
        text = dumps(value)
    except TypeError:  # most values of a row are made here: nothing is called that need not be
        text = dump_json(value)
    if text.find(LOWER) < 0 and (CAPITAL not in text or text.find(UPPER) < 0):
        return text
    return masked(text)


def in_order(text: bytes) -> bytes:
    """The same JSON with its keys in order, for producers promise none; as it is if it is none."""
    with suppress(Unfit):
        text = dump_json(values.parse_json(text, []), sort=True)
    return text


def jsonb(value: Any) -> bytes | None:
    """JSON for a jsonb column, from JSON or from text that holds some; other text is a JSON string, "" is None."""
    if type(value) is dict:
        return packed(value)
    return None if value is None or value == "" else packed(parsed(value))


def parsed(value: Any) -> Any:
    """The JSON value that a text holds; any other value, and a text that holds none, as it is."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return values.parse_json(value.encode(), [])
    except Unfit:
        return value


def metadata_of(metadata: Any, rest: Mapping[str, Any], envelope: Mapping[str, Any] | None) -> bytes | None:
    """Metadata, with what else is to be kept: ``rest``, and the CloudEvent's context attributes as ``cloudevent``."""
    if not rest and envelope is None:
        return packed(metadata) if type(metadata) is dict else jsonb(metadata)
    if envelope is not None:
        rest = {**rest}
        keep(rest, "cloudevent", envelope)
    return packed(merged(metadata, rest, "metadata"))


def merged(given: Any, rest: Mapping[str, Any], name: str = "attributes") -> dict[str, Any]:
    """Attributes or metadata, in whatever form they came, and what stood beside them, renamed where both have a key."""
    given = parsed(given)
    found = dict(given) if isinstance(given, dict) else {} if given is None or given == "" else {name: given}
    for key, value in rest.items():
        while key in found:
            key = f"record.{key}"
        found[key] = value
    return found


def spread(row: list[Any], members: Iterable[tuple[str, int]], name: str, given: Any, rest: dict[str, Any]) -> None:
    """Fills places of a row from members of the object ``name`` where the record itself does not say; what is left of
    it is kept, and so is what is no object."""
    if type(given) is dict:
        given = dict(given)
        for key, place in members:
            if row[place] is None:
                row[place] = given.pop(key, None)
    if given != {}:
        rest[name] = given


def texts(value: Any) -> Any:
    """An array of texts and nulls."""
    if type(value) is list and all(each is None or type(each) is str for each in value):
        return value
    raise Unfit("bad_value", f"{shown(value)} is no array of texts")


def made_of_text(make: Callable[[str], Any], value: Any) -> Any:
    """What ``make`` makes of a text, unless that raises ValueError."""
    try:
        if type(value) is str:
            return make(value)
    except ValueError:
        pass
    raise Unfit("bad_value", f"{shown(value)} does not fit")


def from_base64(text: Any) -> bytes | None:
    """The bytes that a text is in base64, of either alphabet; None for anything else."""
    try:
        return b64decode(text, b"-_", validate=True)
    except (TypeError, ValueError):
        return None


def trimmed(text: bytes) -> bytes:
    """The same in no more memory than it takes: orjson writes into 4 KiB, and what it does not need of them is a gap
    that its next text does not fit into. The rows of 250,000 records would take a gigabyte."""
    return b"".join((text, b""))
