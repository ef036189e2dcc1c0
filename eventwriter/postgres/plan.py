"""How a stream's rows get into a live table: its columns, how each value is converted, and what a key means."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from psycopg import sql

from eventwriter.stream import Row, Stream
from eventwriter.values import inet, shown

Mode = Literal["append", "upsert"]

# Live type → the type whose dumper writes a value of the declared type to it.
_DUMPED_AS = {
    "character varying": "text",
    "character varying[]": "varchar[]",
    "timestamp with time zone": "int8",  # microseconds since 2000: its binary form is that very integer
    "integer": "int4",
    "bigint": "int8",
    "smallint": "int2",
    "double precision": "float8",
    "real": "float4",
    "boolean": "bool",
}
_INTEGER_BITS = {"smallint": 16, "integer": 32, "bigint": 64}


@dataclass(frozen=True, slots=True)
class Target:
    """A column of the live table that the rows of a stream fill."""

    name: str
    position: int
    """Index of its value in a row of the stream; beyond those are the columns that are computed."""
    type: str
    """Live type as format_type() prints it."""
    dumper: str
    """Name of the type whose psycopg dumper writes the value."""
    convert: Callable[[Any], Any] | None = None
    not_null: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows of a stream get into its table."""

    table: sql.Composable
    table_name: str
    mode: Mode
    """``append``: no row replaces another; ``upsert``: the latest row of a key does."""
    targets: tuple[Target, ...]
    keys: tuple[tuple[str, ...], ...]
    """The unique keys of the live table that ON CONFLICT may name, as column names."""
    key_of: Callable[[Row], tuple[Any, ...]] | None
    """For ``upsert``: the key of a row of the stream."""
    apart: tuple[str, ...]
    """For ``upsert``: text columns that tell rows apart which have the same key: one does not replace the other."""
    apart_of: Callable[[Row], Any]
    """The values of these."""
    guard: str | None
    """For ``upsert``: a timestamptz column that only ever grows for a key (``received_at``), if there is one."""
    project: Callable[[Row], Sequence[Any]] | None
    """From a row of the stream to the values of ``targets``; None when they are the same."""
    omitted: tuple[str, ...]
    """Columns of the stream that are not written, for the table lacks them; not those that are left out on purpose."""
    shape: int | None
    """What ``SHAPE`` said before all this was read: as long as it says the same, the plan holds."""

    @property
    def columns(self) -> sql.Composable:
        """The target columns, comma separated."""
        return sql.SQL(", ").join(sql.Identifier(target.name) for target in self.targets)

    @property
    def dumpers(self) -> list[str]:
        """Names of the types for Copy.set_types, one per target."""
        return [target.dumper for target in self.targets]


def plan_of(
    stream: Stream,
    table: sql.Composable,
    name: str,
    targets: list[Target],
    keys: tuple[tuple[str, ...], ...],
    shape: int | None,
) -> Plan:
    """The plan for these targets and unique keys of a table; ``shape`` as the plan has it."""
    by_position = {target.position: target.name for target in targets}
    positions = {column.name: position for position, column in enumerate(stream.columns)}
    mode: Mode = "append"
    key_of = guard = None
    apart: list[str] = []
    for key in filter(None, (stream.key, stream.former_key)):
        ours = tuple(by_position.get(positions[column], "") for column in key)
        if keys == (tuple(sorted(ours)),):
            mode = "upsert"
            keys = (ours,)
            key_of = itemgetter(*(positions[column] for column in key))
            apart = [column for column in stream.key if column not in key and positions[column] in by_position]
            guard = next((target.name for target in targets if target.name == "received_at"), None)
    return Plan(
        table=table,
        table_name=name,
        mode=mode,
        targets=tuple(targets),
        keys=keys,
        key_of=key_of,
        apart=tuple(by_position[positions[column]] for column in apart),
        apart_of=itemgetter(*(positions[column] for column in apart)) if apart else lambda row: None,
        guard=guard,
        project=_projection(stream, targets),
        omitted=_omitted(stream, targets),
        shape=shape,
    )


def target_of(name: str, position: int, declared: str, live: str, not_null: bool = False) -> Target:
    """A live column that takes the values at this position of the rows: its type as declared, and as it is."""
    dumper = _DUMPED_AS.get(live, live)
    convert: Callable[[Any], Any] | None = None
    if declared == "jsonb" and live != "jsonb":
        dumper = "bytea"  # JSON text as it is: json and text take the same bytes
    elif declared == "uuid" and live != "uuid":
        convert = str
    elif declared == "inet":
        convert = inet if live == "inet" else _to_address
    elif declared == "text[]":
        convert = _to_texts
    elif live == "real":
        convert = _to_real
    elif _INTEGER_BITS.get(declared, 0) > _INTEGER_BITS.get(live, 64):
        convert = _narrowed(_INTEGER_BITS[live])
    return Target(name, position, live, dumper, convert, not_null)


def _projection(stream: Stream, targets: list[Target]) -> Callable[[Row], Sequence[Any]] | None:
    positions = [target.position for target in targets]
    substitutes = _substitutes(stream, targets)
    converters = [(index, target.convert) for index, target in enumerate(targets) if target.convert is not None]
    select: Callable[[Row], Sequence[Any]] | None = None
    if positions != list(range(len(stream.columns))):
        select = itemgetter(*positions) if len(positions) > 1 else lambda row: (row[positions[0]],)
    if max(positions) >= len(stream.columns):
        select = _computing(stream, positions)
    if not converters and not substitutes:
        return select

    def project(row: Row) -> Sequence[Any]:
        values = list(row if select is None else select(row))
        for index, position, divisor in substitutes:
            if values[index] is None and row[position] is not None:
                values[index] = row[position] / divisor
        for index, convert in converters:
            if values[index] is not None:
                values[index] = convert(values[index])
        return values

    return project


def _computing(stream: Stream, positions: Sequence[int]) -> Callable[[Row], Sequence[Any]]:
    """From a row to the values at these positions, some of which are computed."""
    count = len(stream.columns)
    values = [itemgetter(p) if p < count else stream.computed[p - count].of for p in positions]
    makers = [value for value in values if value is not None]
    return lambda row: [maker(row) for maker in makers]


def _substitutes(stream: Stream, targets: Sequence[Target]) -> list[tuple[int, int, float]]:
    """(index, position of what stands for its value where that is missing, divisor) of targets with a substitute."""
    positions = {column.name: position for position, column in enumerate(stream.columns)}
    filled = {target.position for target in targets}
    found = []
    for index, target in enumerate(targets):
        if target.position < len(positions) and (instead := stream.columns[target.position].instead) is not None:
            name, divisor = instead
            if positions[name] not in filled and stream.columns[positions[name]].wanted:
                found.append((index, positions[name], divisor))
    return found


def _omitted(stream: Stream, targets: Sequence[Target]) -> tuple[str, ...]:
    """What is not written; on older tables because another column has taken the place."""
    filled = {target.position for target in targets}
    holds = {t.name: stream.columns[t.position].name for t in targets if t.position < len(stream.columns)}
    return tuple(
        f"{column.name} (there is {holds[column.name]})" if column.name in holds else column.name
        for position, column in enumerate(stream.columns)
        if position not in filled and column.wanted
    )


def _to_address(text: Any) -> Any:
    inet(text)
    return text


def _to_texts(texts: Any) -> Any:
    # The driver makes arrays of whatever is in a list, of more dimensions and of other types.
    if not isinstance(texts, list) or not all(text is None or isinstance(text, str) for text in texts):
        raise ValueError(f"{shown(texts)} is not a list of texts")
    return texts


def _narrowed(bits: int) -> Callable[[int], int]:
    # The driver's binary dumpers wrap silently.
    def check(number: int) -> int:
        if not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise OverflowError(f"{number} does not fit an integer of {bits} bits")
        return number

    return check


def _to_real(number: float) -> float:
    struct.pack(">f", number)  # raises OverflowError for what would become infinite
    return number
