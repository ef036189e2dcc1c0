"""The rows of flat records from the declaration of their table: one by one, and many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from eventwriter.stream import Row
from eventwriter.values import is_rounded, is_single, usual_times
from workers._json.convert import EXACT, metadata_of
from workers._json.fast import Arrivals, Columns, Fast, fast_path, members_of, nested_json, received
from workers._json.records import Origin
from workers._json.table import RANGES, Field, Table

_NULL = msgspec.Raw(b"null")
_SURE = 15
"""Digits of a number that float64 tells apart, and of an integer that it has exactly."""
_DECIMAL = b"0123456789.-"


def row_of(table: Table, time: str) -> Callable[[Mapping[str, Any], Origin], Row]:
    """Makes the row of a flat record: the column ``time`` has that of the message if the record has none, and metadata
    what has no column."""
    at, sort, fill = table.at, table.places.sort, table.fill
    at_time, gateway, metadata, receipt = at[time], at["gateway_id"], at["metadata"], at.get("received_at")

    def row(record: Mapping[str, Any], origin: Origin) -> Row:
        _, received, time, envelope, repairs = origin
        given, rest = sort(record)
        if rest and type(given[gateway]) is str:
            for name in ("gateway_id", "gatewayId"):
                if rest.get(name) == given[gateway]:
                    del rest[name]
        fill(given, rest, repairs)
        if given[at_time] is None:
            given[at_time] = time
        given[metadata] = metadata_of(given[metadata], rest, envelope)
        if receipt is not None:
            given[receipt] = received
        return tuple(given)

    return row


def fast_path_of(table: Table, mark: bytes, *, closed: bool = True) -> Fast:
    """The fast path for records of a table that have the names of its fields, a name with dots within others; if
    not ``closed``, what else they have is not wanted."""
    given = [field for field in table.fields if field.given]
    record, _ = _record("record", [(field.name.split("."), _member(field)) for field in given], closed=closed)
    members_in = members_of(record)
    kinds = [(field, field.type if field.blank else "blank") for field in given]
    converters = [(field, _COLUMN[kind]) for field, kind in kinds if kind in _COLUMN]
    others = [field.name for field in table.fields if not field.given]

    def columns_of(arrivals: Arrivals, records: Sequence[msgspec.Struct], odd: set[int]) -> Columns:
        columns: dict[str, Any] = {**members_in(records)}
        for field, converter in converters:
            columns[field.name] = converter(field, columns[field.name], odd)
        return columns | {name: received(arrivals) for name in others}

    return fast_path(table.columns, record, mark, columns_of)


def _record(
    name: str, members: Iterable[tuple[Sequence[str], tuple[Any, ...]]], *, closed: bool
) -> tuple[type[msgspec.Struct], bool]:
    """What records are like, and whether they may lack all of it; of each member its keys, one within the other, its
    type and its default."""
    found: list[tuple[Any, ...]] = []
    below: dict[str, list[tuple[Sequence[str], tuple[Any, ...]]]] = {}
    for (key, *more), member in members:
        if more:
            below.setdefault(key, []).append((more, member))
        else:
            found.append((key, *member))
    for key, inner in below.items():
        struct, optional = _record(key, inner, closed=closed)
        found.append((key, struct, msgspec.field(default_factory=struct)) if optional else (key, struct))
    optional = all(default for _, _, *default in found)
    return msgspec.defstruct(name, found, forbid_unknown_fields=closed, gc=False, kw_only=True), optional


def _member(field: Field) -> tuple[Any, ...]:
    """The type of a Struct's member, and its default if it may be missing."""
    if field.type in ("jsonb", "double precision"):
        return msgspec.Raw, _NULL
    kind: Any
    if field.type in RANGES:
        kind = Annotated[int, msgspec.Meta(ge=field.range[0], le=field.range[1])]
    elif field.required and not field.blank:
        kind = Annotated[str, msgspec.Meta(min_length=1)]
    else:
        kind = _TYPES[field.type]
    if field.required or (field.must and field.type == "timestamptz"):
        return (kind,)
    return (kind, field.default) if field.default is not None else (kind | None, None)


_TYPES: Mapping[str, Any] = {"text": str, "timestamptz": str, "boolean": bool}


def _times(field: Field, column: Sequence[str | None], odd: set[int]) -> Sequence[int | None]:
    if column.count(None) == len(column) and not field.must:
        return [None] * len(column)
    times = usual_times(column)
    if None in times:
        odd.update(place for place, time in enumerate(times) if time is None and (field.must or column[place]))
    return times


def _reals(field: Field, column: Sequence[msgspec.Raw], odd: set[int]) -> list[float | None]:
    """Numbers that float64 holds with every digit."""
    texts = [*map(bytes, column)]
    if b"-0" in texts:  # an integer, and so without a sign
        texts = [b"0" if text == b"-0" else text for text in texts]
    reals: list[float | None]
    try:
        reals = [*map(float, texts)]
    except ValueError:
        reals = [float(text) if text[-1:].isdigit() else None for text in texts]
    if max(map(len, texts)) <= _SURE and not b"".join(texts).translate(None, _DECIMAL):
        return reals
    for place, (real, text) in enumerate(zip(reals, texts, strict=True)):
        if real is None:
            fits = text == b"null" and not field.required and field.default is None
        else:
            fits = -EXACT < real < EXACT and not is_rounded(real, text.decode())
            fits = fits and (not field.single or is_single(real))
        if not fits:
            odd.add(place)
    return reals


def _nested(field: Field, column: Sequence[msgspec.Raw], odd: set[int]) -> Sequence[bytes | None]:
    texts = nested_json(column, odd)
    if field.required and None in texts:
        odd.update(place for place, text in enumerate(texts) if text is None)
    return texts


_COLUMN: Mapping[str, Callable[[Field, Sequence[Any], set[int]], Iterable[Any]]] = {
    "timestamptz": _times,
    "double precision": _reals,
    "jsonb": _nested,
    "blank": lambda _, column, odd: [text or None for text in column],
}
"""How the columns of some types are made; all others are as they come."""
