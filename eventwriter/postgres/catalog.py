"""Compares what a stream fills with the live PostgreSQL catalog, and plans how its rows are written."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal

from psycopg import Connection, sql

from eventwriter.errors import TableError, listed
from eventwriter.stream import Column, Row, Stream

Mode = Literal["copy", "upsert", "insert"]

# Declared type → live types that take it. The binary form on the wire is that of the live type.
_ACCEPTED: dict[str, tuple[str, ...]] = {
    "text": ("text", "character varying"),
    "integer": ("integer", "bigint", "smallint"),
    "bigint": ("bigint", "integer"),
    "double precision": ("double precision", "real"),
    "boolean": ("boolean",),
    "timestamptz": ("timestamp with time zone",),
    "jsonb": ("jsonb", "json", "text", "character varying"),
    "uuid": ("uuid", "text", "character varying"),
}
# Live type → the type whose dumper writes a value of the declared type to it.
_DUMPED_AS = {
    "character varying": "text",
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
    """Index of its value in a row of the stream."""
    type: str
    """Live type as format_type() prints it."""
    dumper: str
    """Name of the type whose psycopg dumper writes the value."""
    convert: Callable[[Any], Any] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """How rows of a stream get into its table."""

    table: sql.Composable
    table_name: str
    mode: Mode
    """``copy``: straight in; ``upsert``: the latest row of a key replaces; ``insert``: a key is written once."""
    targets: tuple[Target, ...]
    keys: tuple[tuple[str, ...], ...]
    """The unique keys of the live table, as column names."""
    key_of: Callable[[Row], tuple[Any, ...]] | None
    """For ``upsert``: the key of a row of the stream."""
    guard: str | None
    """For ``upsert``: a timestamptz column that only ever grows for a key (``received_at``), if there is one."""
    project: Callable[[Row], Sequence[Any]] | None
    """From a row of the stream to the values of ``targets``; None when they are the same."""
    omitted: tuple[str, ...]
    """Columns of the stream that are not written, for the table lacks them."""
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


_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), a.attnotnull,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '', a.attgenerated <> '' OR a.attidentity = 'a'
  FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_KEYS = """
SELECT array(SELECT a.attname::text FROM unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place)
  FROM pg_index i
 WHERE i.indrelid = %s AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
 ORDER BY i.indisprimary DESC, i.indexrelid
"""

SHAPE = """(
SELECT hashtextextended(concat(c.oid, c.relkind,
  (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.attnotnull, a.atthasdef, a.attidentity,
     a.attgenerated), ',' ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT string_agg(i.indexrelid::text, ',' ORDER BY i.indexrelid) FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique)), 0) FROM pg_class c WHERE c.oid = to_regclass(%(table)s))"""
"""An expression: a number that changes with all that a plan is made of; NULL if there is no table. Takes 0.05 ms."""


def read_shape(connection: Connection[Any], table: str) -> int | None:
    """The present value of ``SHAPE``."""
    row = connection.execute(f"SELECT {SHAPE}", {"table": table}).fetchone()
    return row[0] if row else None


def read_plan(connection: Connection[Any], stream: Stream, table: str) -> Plan:
    """The plan for writing ``stream`` into the live ``table`` (``schema.name`` or found by the search_path).

    Raises TableError, naming table, column and remedy, when a row could not be written as it should.
    """
    shape = read_shape(connection, table)  # first: what changes from here on makes a difference later
    found = connection.execute("SELECT c.oid, n.nspname, c.relname FROM pg_class c "
                               "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s) "
                               "AND c.relkind IN ('r', 'p', 'v', 'f')", [table]).fetchone()  # fmt: skip
    if found is None:
        raise TableError(
            f"table {table} of stream {stream.name} does not exist: run `eventwriter schema apply`, "
            f"or set streams.{stream.name}.table to the table's name"
        )
    oid, schema, name = found
    live = {row[0]: row[1:] for row in connection.execute(_COLUMNS, [oid])}
    targets: list[Target] = []
    for position, column in enumerate(stream.columns):
        # A live column goes to the first that claims it: on older tables an alias may be another column's name.
        taken = {target.name for target in targets}
        live_name = next((name for name in _names(column) if name in live and name not in taken), None)
        if live_name is None:
            continue
        live_type, _, _, generated = live[live_name]
        if generated:
            continue
        if live_type not in _ACCEPTED[column.type]:
            raise TableError(
                f"column {live_name} of table {table} is {live_type}, stream {stream.name} writes {column.type}: "
                f"ALTER TABLE {table} ALTER COLUMN {live_name} TYPE {column.type}, or rename it"
            )
        targets.append(_target(live_name, position, column.type, live_type))
    if not targets:
        raise TableError(f"table {table} has none of the columns of stream {stream.name}: is it the right table?")
    lacking = [column for column in stream.columns if column.core and live.keys().isdisjoint(_names(column))]
    if lacking:
        raise _lacks(stream, table, lacking)
    filled = {target.name for target in targets}
    for live_name, (live_type, not_null, has_default, _) in live.items():
        if not_null and not has_default and live_name not in filled:
            raise TableError(
                f"column {live_name} {live_type} of table {table} is NOT NULL without a default and stream "
                f"{stream.name} does not fill it: give it a default, or drop NOT NULL"
            )
    return _plan(stream, sql.Identifier(schema, name), table, targets, unique_keys(connection, oid), shape)


def _names(column: Column) -> tuple[str, ...]:
    return (column.name, *column.aliases)


def _lacks(stream: Stream, table: str, lacking: Sequence[Column]) -> TableError:
    what = listed([" or ".join(_names(column)) for column in lacking])
    definitions = listed([f"ADD COLUMN {column.name} {column.type}" for column in lacking], 3)
    ours = "run `eventwriter schema apply`, or " if table == stream.table else ""
    return TableError(
        f"table {table} lacks the column{'s' if len(lacking) > 1 else ''} {what} of stream {stream.name}: "
        f"{ours}ALTER TABLE {table} {definitions}"
    )


def _omitted(stream: Stream, targets: Sequence[Target]) -> tuple[str, ...]:
    """What is not written; on older tables because another column has taken the place."""
    filled = {target.position for target in targets}
    holds = {target.name: stream.columns[target.position].name for target in targets}
    return tuple(
        f"{column.name} (there is {holds[column.name]})" if column.name in holds else column.name
        for position, column in enumerate(stream.columns)
        if position not in filled
    )


def unique_keys(connection: Connection[Any], oid: int) -> tuple[tuple[str, ...], ...]:
    """The unique keys of a table, each as sorted column names."""
    return tuple(dict.fromkeys(tuple(sorted(row[0])) for row in connection.execute(_KEYS, [oid])))


def _plan(
    stream: Stream,
    table: sql.Composable,
    name: str,
    targets: list[Target],
    keys: tuple[tuple[str, ...], ...],
    shape: int | None,
) -> Plan:
    by_position = {target.position: target.name for target in targets}
    positions = {column.name: position for position, column in enumerate(stream.columns)}
    mode: Mode = "insert" if keys else "copy"
    key_of = guard = None
    if stream.key:
        ours = tuple(by_position.get(positions[column], "") for column in stream.key)
        if keys == (tuple(sorted(ours)),):
            mode = "upsert"
            keys = (ours,)
            key_of = itemgetter(*(positions[column] for column in stream.key))
            guard = next((target.name for target in targets if target.name == "received_at"), None)
    return Plan(
        table=table,
        table_name=name,
        mode=mode,
        targets=tuple(targets),
        keys=keys,
        key_of=key_of,
        guard=guard,
        project=_projection(stream, targets),
        omitted=_omitted(stream, targets),
        shape=shape,
    )


def _projection(stream: Stream, targets: list[Target]) -> Callable[[Row], Sequence[Any]] | None:
    positions = [target.position for target in targets]
    converters = [(index, target.convert) for index, target in enumerate(targets) if target.convert is not None]
    select: Callable[[Row], Sequence[Any]] | None = None
    if positions != list(range(len(stream.columns))):
        select = itemgetter(*positions) if len(positions) > 1 else lambda row: (row[positions[0]],)
    if not converters:
        return select

    def project(row: Row) -> Sequence[Any]:
        values = list(row if select is None else select(row))
        for index, convert in converters:
            if values[index] is not None:
                values[index] = convert(values[index])
        return values

    return project


def _target(name: str, position: int, declared: str, live: str) -> Target:
    dumper = _DUMPED_AS.get(live, live)
    convert: Callable[[Any], Any] | None = None
    if declared == "jsonb" and live != "jsonb":
        dumper = "bytea"  # JSON text as it is: json and text take the same bytes
    elif declared == "uuid" and live != "uuid":
        convert = str
    elif live == "real":
        convert = _to_real
    elif _INTEGER_BITS.get(declared, 0) > _INTEGER_BITS.get(live, 64):
        convert = _narrowed(_INTEGER_BITS[live])
    return Target(name, position, live, dumper, convert)


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
