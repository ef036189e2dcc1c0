"""One declaration a table: its columns, where flat JSON records have their values, and how those are converted.

The columns of the stream, the row that the fallback makes and the fast path (fast.py) follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import NoneType
from typing import Any, NoReturn

from eventwriter.stream import Column, PgType
from eventwriter.values import INT4_MAX, INT4_MIN, INT8_MAX, INT8_MIN, Unfit, dump_json, shown
from workers._json import convert

RANGES: Mapping[PgType, tuple[int, int]] = {"integer": (INT4_MIN, INT4_MAX), "bigint": (INT8_MIN, INT8_MAX)}
_EXACT: Mapping[PgType, type] = {"text": str, "double precision": float, "boolean": bool}
"""Types whose every value fits the column."""
_MEANING: Mapping[PgType, str] = {"text": "text", "boolean": "a boolean"}
_CONVERT: Mapping[PgType, Callable[..., Any]] = {
    "text": convert.text,
    "double precision": convert.real,
    "boolean": convert.boolean,
    "timestamptz": convert.moment_or_kept,
}


Step = Callable[[Any, dict[str, Any], list[str]], Any]
"""From a value to that of its column; an original that does not fit goes to the dict, the reason to the list."""


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the table, and what a flat record has for it."""

    name: str
    type: PgType
    others: tuple[str, ...] = ()
    """Its names in records, beside its own and that in lowerCamelCase; of several the first that is not null wins."""
    default: Any = None
    """What stands for a value that is missing."""
    must: bool = False
    """A value that does not fit rejects the record; otherwise it is NULL, and kept."""
    required: bool = False
    """A value that is missing, or an empty text, rejects the record."""
    blank: bool = True
    """Whether an empty text is a value; if not, it is NULL."""
    clamp: bool = False
    """An integer out of range is the nearest within; otherwise it is NULL. Either way the original is kept."""
    limits: tuple[int, int] | None = None
    """Range of an integer that is narrower than its type."""
    own: bool = False
    """The stream makes the value from the given one by itself."""
    given: bool = True
    """Whether records have it; the last columns of a table may be those of receipt."""
    aliases: tuple[str, ...] = ()
    core: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in records."""
        return names(self.name, *self.others)

    @property
    def range(self) -> tuple[int, int]:
        """The range of an integer."""
        return self.limits or RANGES[self.type]


def names(column: str, *others: str) -> tuple[str, ...]:
    """A column's name, the same in lowerCamelCase, and others, without duplicates."""
    first, *more = column.split("_")
    return tuple(dict.fromkeys((column, first + "".join(word.capitalize() for word in more), *others)))


class Places:
    """The places of a record and the names of each: the first name that is there, and not null, wins."""

    def __init__(self, *names: tuple[str, ...]) -> None:
        self.names = names
        self.place_of = {name: place for place, group in enumerate(names) for name in group}
        self._firsts = tuple(group[0] for group in names)
        self._only_firsts = frozenset(self._firsts).issuperset

    def sort(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The value of each place, None where there is none, and what has no place."""
        if self._only_firsts(record):
            return [*map(record.get, self._firsts)], {}
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
                    return self._by_precedence(record)
                given[place] = value
        return given, rest

    def _by_precedence(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
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


class Table:
    """The fields of a table in the order of its columns, and the places of a record: those first, then ``others``."""

    def __init__(self, *fields: Field, others: Sequence[tuple[str, ...]] = ()) -> None:
        self.fields = fields
        self.columns = tuple(Column(field.name, field.type, field.aliases, field.core) for field in fields)
        self.at = {field.name: place for place, field in enumerate(fields)}
        self.places = Places(*(field.names for field in fields if field.given), *others)
        self._steps = lru_cache(maxsize=1024)(self._find_steps)

    def fill(self, given: list[Any], rest: dict[str, Any], repairs: list[str]) -> None:
        """Makes the values of all fields fit that the stream does not make by itself; originals go to ``rest``.

        Raises Unfit where there must be another value.
        """
        for place, step in self._steps(tuple(map(type, given))):
            given[place] = step(given[place], rest, repairs)

    def _find_steps(self, types: tuple[type, ...]) -> list[tuple[int, Step]]:
        """The places whose values are not as they must be if they are of these types, and what makes them so.

        They are looked up, for neighbours are mostly of the same types, and most of those are the expected ones.
        """
        steps = (
            (place, step_of(field, kind)) for place, (field, kind) in enumerate(zip(self.fields, types, strict=False))
        )
        return [(place, step) for place, step in steps if step is not None]


def prefer(given: list[Any], rest: dict[str, Any], place: int, name: str, value: Any) -> None:
    """Puts a value in a place, whose own value is kept if it is another one."""
    other = given[place]
    if other is not None and (type(other) is not str or other != value):
        rest[name] = other
    given[place] = value


def step_of(field: Field, kind: type) -> Step | None:
    """What makes the value of a field's column from one of this type; None if it may stay as it is."""
    if field.own:
        return None
    if kind is NoneType:
        if field.required:
            return partial(_missing, field.name)
        return None if field.default is None else lambda value, rest, repairs: field.default
    if field.type == "text" and kind is str:
        if field.required:
            return lambda value, rest, repairs: value or _missing(field.name)
        return None if field.blank else lambda value, rest, repairs: value or None
    if kind is _EXACT.get(field.type):
        return None
    if field.type == "jsonb":
        return _dumped if kind is dict else lambda value, rest, repairs: convert.jsonb(value)
    if field.type == "timestamptz" and field.must:
        return lambda value, rest, repairs: convert.moment(value, field.name)
    fitting: Step
    if field.type in RANGES:
        fitting = partial(convert.clamped if field.clamp else convert.integer, field.name, *field.range)
    else:
        fitting = partial(_CONVERT[field.type], field.name)
    return _demanding(field, fitting) if field.must else fitting


def _demanding(field: Field, fitting: Step) -> Step:
    """The same, but what does not fit rejects the record."""

    def demanded(value: Any, rest: dict[str, Any], repairs: list[str]) -> Any:
        found = fitting(value, rest, repairs)
        if found is None:
            raise Unfit("bad_value", f"{field.name}: {shown(value)} is not {_MEANING.get(field.type, 'a number')}")
        return found

    return demanded


def _missing(name: str, *_: Any) -> NoReturn:
    raise Unfit("missing_field", f"{name} is missing")


def _dumped(value: Any, rest: dict[str, Any], repairs: list[str]) -> bytes:
    return dump_json(value)
