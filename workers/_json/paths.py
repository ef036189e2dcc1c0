"""Streams that need no code: JSON into columns by path, with the types that the live table has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import permutations
from operator import itemgetter
from typing import Any, get_args

from eventwriter.stream import Column, Message, PgType, Row, Stream
from eventwriter.values import Unfit, parse_path
from workers._json import convert
from workers._json.fast_table import fast_path_of
from workers._json.records import Kind, Origin, decoder
from workers._json.table import Field, Table, misfit

_TYPES: Mapping[str, PgType] = {
    **{each: each for each in get_args(PgType)},
    "character varying": "text",
    "smallint": "integer",
    "real": "double precision",
    "timestamp with time zone": "timestamptz",
    "json": "jsonb",
    "character varying[]": "text[]",
}
"""Live type → type of the stream's column."""
_SMALLINT = (-(2**15), 2**15 - 1)
_FROM_MESSAGE: Mapping[str, tuple[PgType, Callable[[Origin], Any]]] = {
    "$time": ("timestamptz", itemgetter(1)),
    "$subject": ("text", lambda origin: origin[0].subject),
    "$sequence": ("bigint", lambda origin: origin[0].sequence),
}
_SPECIAL = frozenset(("uuid", "inet", "text[]"))
"""Types that the fast path does not know."""


def stream_of(name: str, subjects: tuple[str, ...], table: str, paths: Mapping[str, str], rest: str | None) -> Stream:
    """The stream whose columns are filled by these paths, and ``rest`` with what no path takes."""
    shape: _Shape | None = None

    def row_of(record: Mapping[str, Any], origin: Origin) -> Row:
        if shape is None:
            raise RuntimeError("nobody has looked at the table yet")
        return shape.row(record, origin)

    def fast_rows(messages: Sequence[Message]) -> Sequence[Row | None]:
        return shape.fast_rows(messages) if shape is not None else ()

    def fit(live: Mapping[str, tuple[str, bool]]) -> tuple[Column, ...]:
        """Goes by the types of these columns, and whether they are NOT NULL, from now on: the columns of its rows."""
        nonlocal shape
        shape = _Shape(paths, rest, live)
        return shape.columns

    columns = (*(Column(each, "text") for each in paths), *([Column(rest, "jsonb")] if rest is not None else ()))
    decode = decoder(Kind(row_of, opens=False))
    return Stream(name, subjects, table, columns, decode, fast_rows, sql="", fit=fit)


class _Shape:
    """What becomes of records in a table with these types."""

    def __init__(self, paths: Mapping[str, str], rest: str | None, live: Mapping[str, tuple[str, bool]]) -> None:
        self._rest = rest
        self._keys = [parse_path(path) for path in paths.values()]
        fields = [_field(name, path, *live[name]) for name, path in paths.items()]
        self._table = Table(*fields)
        self._times = [place for place, field in enumerate(fields) if field.type == "timestamptz" and field.must]
        self._made = [(place, _FROM_MESSAGE[path][1]) for place, path in enumerate(paths.values()) if path[:1] == "$"]
        self._flat = all(len(keys) == 1 for keys in self._keys) and len({*self._keys}) == len(self._keys)
        self._taken = _tree(keys for keys, field in zip(self._keys, fields, strict=True) if field.given)
        self.columns = tuple(Column(name, field.type) for name, field in zip(paths, fields, strict=True))
        self._full = False
        if rest is not None:
            type_, self._full = live[rest]
            if type_ not in ("jsonb", "json"):
                raise Unfit("bad_value", f"column {rest} is {type_}: what no path takes needs jsonb")
            self.columns += (Column(rest, "jsonb"),)
        self.fast_rows = self._fast_path()

    def row(self, record: Mapping[str, Any], origin: Origin) -> Row:
        """The row of a record; raises Unfit if a column must have a value and has none that fits."""
        _, _, time, envelope, repairs = origin
        if self._flat:
            given, left = self._table.places.sort(record)
        else:
            given = [_at(record, keys) for keys in self._keys]
            left = _left(record, self._taken) if self._rest is not None else {}
        kept: dict[str, Any] = {}
        self._table.fill(given, kept, repairs)
        for place, make in self._made:
            given[place] = make(origin)
        for place in self._times:
            if given[place] is None:
                given[place] = time
        if self._rest is not None:
            given.append(convert.metadata_of(left or None, kept, envelope) or (b"{}" if self._full else None))
        elif kept:
            for value, field in zip(given, self._table.fields, strict=True):
                if value is None and field.name in kept:
                    raise misfit(field, kept[field.name])
        return tuple(given)

    def _fast_path(self) -> Callable[[Sequence[Message]], Sequence[Row | None]]:
        """The fast path, if the records that it takes may be flat; else what takes none."""
        keys = [each for each, field in zip(self._keys, self._table.fields, strict=True) if field.given]
        plain = all(key.isidentifier() and key[0] != "_" for each in keys for key in each)
        apart = not any(one == other[: len(one)] for one, other in permutations(keys, 2))
        types = {column.type for column in self.columns}
        made = {self.columns[place].type for place, _ in self._made}
        if not (plain and apart and keys) or self._full or types & _SPECIAL or made - {"timestamptz"}:
            return lambda messages: ()
        table = Table(*self._table.fields)
        if self._rest is not None:
            table.columns += (Column("", "jsonb"),)  # NULL, for nothing is left
        return fast_path_of(table, f'"{keys[0][0]}"'.encode(), closed=self._rest is not None)


def _field(name: str, path: str, live: str, not_null: bool) -> Field:
    """Where records have what a column takes; it is called as they call it."""
    if live not in _TYPES:
        raise Unfit("bad_value", f"column {name} is {live}, which a path cannot fill: expected {', '.join(_TYPES)}")
    type_ = _TYPES[live]
    if path in _FROM_MESSAGE:
        if _FROM_MESSAGE[path][0] != type_:
            raise Unfit("bad_value", f"column {name} is {live}: {path} needs {_FROM_MESSAGE[path][0]}")
        return Field(path, type_, given=False)
    limits = _SMALLINT if live == "smallint" else None
    required, single = not_null and type_ != "timestamptz", live == "real"
    name = ".".join(parse_path(path))
    return Field(name, type_, exact=True, must=not_null, required=required, limits=limits, single=single)


def _tree(paths: Iterable[Sequence[str]]) -> dict[str, Any]:
    """Keys → the keys within what they have, or None for all of it."""
    below: dict[str, list[Sequence[str]]] = {}
    for first, *more in paths:
        below.setdefault(first, []).append(more)
    return {key: None if [] in inner else _tree(inner) for key, inner in below.items()}


def _at(value: Any, keys: Sequence[str]) -> Any:
    """What a record has at a path, None if nothing; of an array, a number is the place of an element."""
    for key in keys:
        if type(value) is dict:
            value = value.get(key)
        elif type(value) is list and key.isdecimal() and len(key) < 6 and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def _left(value: Mapping[str, Any], taken: Mapping[str, Any]) -> dict[str, Any]:
    """What no path takes. An array stays whole, whatever paths lead into it."""
    left = {}
    for key, member in value.items():
        if key not in taken:
            left[key] = member
        elif (below := taken[key]) is not None:
            if type(member) is not dict:
                left[key] = member
            elif inner := _left(member, below):
                left[key] = inner
    return left
