"""Flat JSON records of logs, spans and metrics: keys that are known go to their places, all others are kept.

Lenient per field: what does not fit its column leaves it NULL and is kept among the attributes, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from eventwriter import values
from eventwriter.stream import Column, Row
from eventwriter.values import Unfit

C = TypeVar("C")
MANY = 1000
"""Records of a message from which on it counts how much memory each takes."""


class Places:
    """The places of a record and the names of each: the first name that is there, and not null, wins."""

    def __init__(self, *names: tuple[str, ...]) -> None:
        self.names = names
        self.place_of = {name: place for place, group in enumerate(names) for name in group}

    def sort(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The value of each place, None where there is none, and what has no place."""
        # One look-up per key that is there: asking for every name that could be costs several times as much.
        place_of = self.place_of.get
        given: list[Any] = [None] * len(self.names)
        rest: dict[str, Any] = {}
        for key, value in record.items():
            place = place_of(key)
            if place is None:
                rest[key] = value
            elif value is not None:
                if given[place] is not None:
                    return self.by_precedence(record)
                given[place] = value
        return given, rest

    def by_precedence(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The same, for a record that gives a place under several names."""
        given: list[Any] = [None] * len(self.names)
        rest = {key: value for key, value in record.items() if value is not None or key not in self.place_of}
        for place in range(len(self.names)):
            name = self.name_in(record, place)
            if name is not None:
                given[place] = rest.pop(name)
        return given, rest

    def name_in(self, record: Mapping[str, Any], place: int) -> str | None:
        """The name by which the record gives this place."""
        return next((name for name in self.names[place] if record.get(name) is not None), None)


def names(column: str, *others: str) -> tuple[str, ...]:
    """A column's name, the same in lowerCamelCase, and others, without duplicates."""
    first, *more = column.split("_")
    return tuple(dict.fromkeys((column, first + "".join(word.capitalize() for word in more), *others)))


class Converter:
    """Makes the values of columns fit their types; NULL for what does not, which is kept.

    Times are left as they are: only the stream knows what stands in for them.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._width = len(columns)
        self._fields = [
            (place, column.name, _EXACT.get(column.type), _CONVERT[column.type])
            for place, column in enumerate(columns)
            if column.type != "timestamptz"
        ]

    def row(self, given: Sequence[Any], rest: dict[str, Any], repairs: list[str]) -> list[Any]:
        """The values of the columns, from the first places of ``given``; originals that do not fit go to ``rest``."""
        row = [*given[: self._width]]
        for place, name, exact, convert in self._fields:
            value = row[place]
            if value is not None and type(value) is not exact:
                try:
                    row[place] = convert(value)
                except Unfit as error:
                    keep_original(rest, name, value, repairs, error.reason)
                    row[place] = None
        return row


def keep_original(rest: dict[str, Any], name: str, original: Any, repairs: list[str], reason: str) -> None:
    """Keeps what its column cannot hold among the attributes, without displacing one."""
    repairs.append(reason)
    while name in rest:
        name = f"original.{name}"
    rest[name] = original


def time(name: str | None, value: Any) -> int | None:
    """A time as timestamptz, in nanoseconds if its name says so; None for 0, which means that there is none."""
    if value in (0, "0") and value is not False:
        return None
    try:
        if name is not None and name.endswith(("_unix_nano", "UnixNano")):
            return values.time_from_nanos(values.integer(value))
        return values.time_from_number(value) if type(value) is float else values.time(value)
    except Unfit as error:
        raise Unfit("bad_time", f"{name}: {error}") from None


def text(name: str, value: Any, rest: dict[str, Any], repairs: list[str]) -> str | None:
    """Text, also from a number or a bool."""
    try:
        return values.text(value)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None


def integer(name: str, value: Any, low: int, high: int, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """An integer in low…high."""
    try:
        return values.integer(value, low, high)
    except Unfit as error:
        keep_original(rest, name, value, repairs, error.reason)
        return None


def fill_service(
    row: list[Any], place: Mapping[str, int], resource: Any, rest: dict[str, Any], repairs: list[str]
) -> None:
    """Service name, version and instance from the resource's attributes where the record itself does not say."""
    if isinstance(resource, dict):
        for column, key in _SERVICE:
            if row[place[column]] is None and resource.get(key) is not None:
                row[place[column]] = text(column, resource[key], rest, repairs)
    row[place["service_name"]] = row[place["service_name"]] or "unknown"


_SERVICE = (
    ("service_name", "service.name"),
    ("service_version", "service.version"),
    ("service_instance", "service.instance.id"),
)


def parsed(value: Any) -> Any:
    """The JSON value that a text holds; any other value, and a text that holds none, as it is."""
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        return values.parse_json(value.encode(), [])
    except Unfit:
        return value


_EXACT: Mapping[str, type] = {"text": str, "double precision": float, "boolean": bool}
"""Types whose every value fits the column."""
_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "text": values.text,
    "integer": lambda value: values.integer(value, values.INT4_MIN, values.INT4_MAX),
    "bigint": values.integer,
    "double precision": values.real,
    "boolean": values.boolean,
    "jsonb": lambda value: values.dump_json(parsed(value)),
}


def merged(attributes: Any, rest: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes, in whatever form they came, and what stood beside them, renamed where both have a key."""
    attributes = parsed(attributes)
    if attributes is None:
        found = {}
    else:
        found = dict(attributes) if isinstance(attributes, dict) else {"attributes": attributes}
    for name, value in rest.items():
        while name in found:
            name = f"record.{name}"
        found[name] = value
    return found


def trimmed(text: bytes) -> bytes:
    """The same in no more memory than it takes.

    orjson writes into 4 KiB, and what it does not need of them is a gap that its next text does not fit into: the rows
    of one message that had 250,000 records would take a gigabyte.
    """
    return b"".join((text, b""))


def trimming(row_of: Callable[[Mapping[str, Any], C], Row]) -> Callable[[Mapping[str, Any], C], Row]:
    """``row_of`` with the JSON in its rows trimmed."""

    def trimmed_row(record: Mapping[str, Any], context: C) -> Row:
        return tuple([trimmed(value) if type(value) is bytes else value for value in row_of(record, context)])

    return trimmed_row
