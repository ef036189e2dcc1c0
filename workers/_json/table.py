"""One declaration a table: its columns, where flat JSON records have their values, and how those are converted.

The columns of the stream, the row that the fallback makes and the fast path (fast.py) follow from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from eventwriter import values
from eventwriter.stream import Column, PgType
from eventwriter.values import INT4_MAX, INT4_MIN, INT8_MAX, INT8_MIN, Unfit, shown, usual_time
from workers._json import convert
from workers._json.convert import EXACT, packed

POLLER = ("poller_id", "pollerId")
"""What a gateway was called before."""
RANGES: Mapping[PgType, tuple[int, int]] = {"integer": (INT4_MIN, INT4_MAX), "bigint": (INT8_MIN, INT8_MAX)}
_MEANING: Mapping[PgType, str] = {
    "text": "text", "double precision": "a number", "boolean": "a boolean", "timestamptz": "a time", "uuid": "a UUID",
    "inet": "an address", "text[]": "an array of texts",
}  # fmt: skip
_CONVERT: Mapping[PgType, Callable[..., Any]] = {
    "text": partial(convert.fitting, values.text),
    "double precision": convert.real,
    "boolean": partial(convert.fitting, values.boolean),
    "timestamptz": convert.moment_or_kept,
    "jsonb": lambda name, value, rest, repairs: convert.jsonb(value),
    "uuid": partial(convert.fitting, partial(convert.made_of_text, UUID)),
    "inet": partial(convert.fitting, lambda value: values.inet(value) and value),
    "text[]": partial(convert.fitting, convert.texts),
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
    first: tuple[str, ...] = ()
    """Those that come before its own."""
    exact: bool = False
    """Records have it under its name alone."""
    default: Any = None
    """What stands for a value that is missing."""
    must: bool = False
    """A value that does not fit rejects the record; otherwise it is NULL, and kept."""
    required: bool = False
    """A value that is missing rejects the record."""
    blank: bool = True
    """Whether an empty text is a value; if not, it is missing."""
    clamp: bool = False
    """An integer out of range is the nearest within; otherwise it is NULL. Either way the original is kept."""
    limits: tuple[int, int] | None = None
    """Range of an integer that is narrower than its type."""
    single: bool = False
    """A number that float32 does not come near does not fit."""
    own: bool = False
    """The stream makes the value from the given one by itself."""
    given: bool = True
    """Whether records have it; the last columns of a table may be those of receipt."""
    aliases: tuple[str, ...] = ()
    core: bool = True
    instead: tuple[str, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in records, without duplicates."""
        if not self.given or self.exact:
            return (self.name,) * self.given
        first, *more = self.name.split("_")
        return tuple(dict.fromkeys((*self.first, self.name, first + "".join(map(str.capitalize, more)), *self.others)))

    @property
    def range(self) -> tuple[int, int]:
        """The range of an integer."""
        return self.limits or RANGES.get(self.type, (0, 0))


_SHAPES, _SHAPE_MAX = 256, 1024
"""Lists of keys that a table remembers, and characters of each: the same few come again and again."""


class Places:
    """The places of a record and the names of each: the first name that is there, and not null, wins."""

    def __init__(self, *names: tuple[str, ...]) -> None:
        self.names = names
        self.place_of = {name: place for place, group in enumerate(names) for name in group}
        self._sorters: dict[tuple[str, ...], Callable[..., tuple[list[Any], dict[str, Any]]]] = {}

    def sort(self, record: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """The value of each place, None where there is none, and what has no place."""
        keys = tuple(record)
        sorter = self._sorters.get(keys)
        if sorter is not None:
            return sorter(*record.values())
        place_of = self.place_of.get
        given: list[Any] = [None] * len(self.names)
        rest: dict[str, Any] = {}
        for key, value in record.items():
            place = place_of(key)
            if place is None:
                rest[key] = value
            elif value is not None and given[place] is None:
                given[place] = value
            elif value is not None:
                first, *others = [name for name in self.names[place] if record.get(name) is not None]
                given[place] = record[first]
                rest |= {name: record[name] for name in others}
        if len(self._sorters) < _SHAPES and len("".join(keys)) <= _SHAPE_MAX:
            self._learn(keys)
        return given, rest

    def _learn(self, keys: tuple[str, ...]) -> None:
        """Has records with these keys sorted in half the time, unless a place may be given under two names."""
        taken = {self.place_of.get(key, key): f"v{number}" for number, key in enumerate(keys)}
        if len(taken) == len(keys):
            given = ", ".join(taken.get(place, "None") for place in range(len(self.names)))
            rest = ", ".join(f"{key!r}: {value}" for key, value in taken.items() if type(key) is str)
            self._sorters[keys] = eval(f"lambda {', '.join(taken.values())}: ([{given}], {{{rest}}})")

    def name_in(self, record: Mapping[str, Any], place: int) -> str | None:
        """The name by which the record gives this place."""
        return next((name for name in self.names[place] if record.get(name) is not None), None)


class Table:
    """The fields of a table in the order of its columns, and the places of a record: those first, then ``others``."""

    def __init__(self, *fields: Field, others: Sequence[tuple[str, ...]] = ()) -> None:
        self.fields = fields
        self.columns = tuple(Column(f.name, f.type, f.aliases, f.core, f.instead) for f in fields)
        self.at = {field.name: place for place, field in enumerate(fields)}
        self.places = Places(*(field.names for field in fields), *others)
        self.fill = _compiled(fields)
        """Makes the values of all fields fit that the stream does not make by itself (values, ``rest``, ``repairs``);
        originals go to ``rest``. Raises Unfit where there must be another value."""


_INTEGER = ("type({0}) is int and {1[0]} <= {0} <= {1[1]}", "pass")
_USUAL: Mapping[PgType, Sequence[tuple[str, str]]] = {
    "text": [("type({0}) is str", "pass")],
    "boolean": [("type({0}) is bool", "pass")],
    "integer": [_INTEGER],
    "bigint": [_INTEGER],
    "double precision": [
        ("type({0}) is float", "pass"),
        (f"type({{0}}) is int and -{EXACT} <= {{0}} <= {EXACT}", "{2} = float({0})"),
    ],
    "jsonb": [("type({0}) is dict", "{2} = packed({0})")],
    "timestamptz": [("(time := usual_time({0})) is not None", "{2} = time")],
}
"""Conditions of the values that most records have, and what to do; for all others there is a function."""


def _compiled(fields: Sequence[Field]) -> Callable[[list[Any], dict[str, Any], list[str]], None]:
    """A function with a statement for each field, as one would write it by hand: a loop takes half as long again.

    if v1 is None: given[1] = default1
    elif type(v1) is str: pass
    elif True: given[1] = step1(v1, rest, repairs)
    """
    lines = ["def fill(given, rest, repairs):", f"    {''.join(f'v{place}, ' for place in range(len(fields)))}= given"]
    known: dict[str, Any] = {"packed": packed, "usual_time": usual_time}
    for place, field in enumerate(fields):
        if field.own or not field.given:
            continue
        known |= {f"default{place}": field.default, f"step{place}": _step_of(field)}
        absent = "pass" if field.default is None else "{2} = default{3}"
        choices = [] if field.required else [f"{{0}} is None: {absent}"]
        usually = () if field.single else _USUAL.get(field.type, ())
        choices += [f"{usual}{'' if field.blank else ' and {0}'}: {made}" for usual, made in usually]
        choices.append("True: {2} = step{3}({0}, rest, repairs)")
        choices = [f"    {'elif' if number else 'if'} {choice}" for number, choice in enumerate(choices)]
        lines += [choice.format(f"v{place}", field.range, f"given[{place}]", place) for choice in choices]
    exec("\n".join(lines), known)
    fill: Callable[[list[Any], dict[str, Any], list[str]], None] = known["fill"]
    return fill


def prefer(given: list[Any], rest: dict[str, Any], place: int, name: str, value: Any) -> None:
    """Puts a value in a place, whose own value is kept if it is another one."""
    other = given[place]
    if other is not None and (type(other) is not str or other != value):
        rest[name] = other
    given[place] = value


def misfit(field: Field, value: Any) -> Unfit:
    """Why a value does not fit the column of a field."""
    whole = f"a whole number from {field.range[0]} to {field.range[1]}"
    return Unfit("bad_value", f"{field.name}: {shown(value)} is not {_MEANING.get(field.type, whole)}")


def _step_of(field: Field) -> Step:
    """What makes the value of a field's column from one that is not as usual."""
    if field.type == "timestamptz" and field.must:
        return lambda value, rest, repairs: convert.moment(value, field.name, repairs)
    fitting: Step
    if field.type in RANGES:
        fitting = partial(convert.clamped if field.clamp else convert.integer, field.name, *field.range)
    elif field.single:
        fitting = partial(convert.real, field.name, made=values.single)
    else:
        fitting = partial(_CONVERT[field.type], field.name)

    def step(value: Any, rest: dict[str, Any], repairs: list[str]) -> Any:
        if value is None or (value == "" and (field.type == "jsonb" or not field.blank)):
            if field.required:
                raise Unfit("missing_field", f"{field.name} is missing")
            return field.default
        found = fitting(value, rest, repairs)
        if found is None and field.must:
            raise misfit(field, value)
        return found

    return step
