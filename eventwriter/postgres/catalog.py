"""Compares what a stream fills with the live PostgreSQL catalog, and plans how its rows are written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg import Connection, sql

from eventwriter.errors import RestoringError, TableError, listed
from eventwriter.postgres.plan import Plan, Target, plan_of, target_of
from eventwriter.stream import Column, Stream
from eventwriter.values import Unfit

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
    "inet": ("inet", "text", "character varying"),
    "text[]": ("text[]", "character varying[]"),
}
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, NULL), a.attnotnull,
       a.atthasdef OR a.attidentity <> '' OR a.attgenerated <> '', a.attgenerated <> '' OR a.attidentity = 'a'
  FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_TYPED = _COLUMNS.replace("%s", "to_regclass(%s)")
_KEYS = """
SELECT array(SELECT a.attname::text FROM unnest(i.indkey[:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)
               JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum ORDER BY k.place)
  FROM pg_index i
 WHERE i.indrelid = %s AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
   AND (i.indimmediate OR %s)
 ORDER BY i.indisprimary DESC, i.indexrelid
"""

_ON = "'^(on|t|tr|tru|true|y|ye|yes|1)$'"
_RESTORES_HERE = f"current_setting('timescaledb.restoring', true) ~* {_ON}"
_RESTORES = f"""EXISTS (SELECT FROM pg_db_role_setting s, unnest(s.setconfig) c WHERE s.setrole = 0
   AND s.setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND split_part(c, '=', 1) = 'timescaledb.restoring' AND split_part(c, '=', 2) ~* {_ON})"""
"""Expressions: whether rows of this session would go into the heap of a hypertable, where nobody sees them, and those
of sessions to come: ALTER DATABASE, with which a restore begins and ends, leaves sessions of before as they were."""

_GRANTED = ", ".join(f"has_column_privilege(a.attrelid, a.attnum, '{each}')" for each in ("INSERT", "SELECT", "UPDATE"))
SHAPE = f"""(SELECT CASE WHEN {_RESTORES_HERE} OR {_RESTORES} THEN NULL ELSE (
SELECT hashtextextended(concat(c.oid, c.relkind,
  (SELECT string_agg(concat_ws(' ', a.attnum, a.attname, a.atttypid, a.attnotnull, a.atthasdef, a.attidentity,
     a.attgenerated, {_GRANTED}), ',' ORDER BY a.attnum) FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
  (SELECT string_agg(concat(i.indexrelid, i.indisvalid), ',' ORDER BY i.indexrelid) FROM pg_index i
    WHERE i.indrelid = c.oid AND i.indisunique)), 0) FROM pg_class c WHERE c.oid = to_regclass(%(table)s)) END)"""
"""An expression: a number that changes with all that a plan is made of, and with what we may do; NULL if there is no
table, and while nothing must be written to any. Takes 0.1 ms."""


def read_shape(connection: Connection[Any], table: str) -> int | None:
    """The present value of ``SHAPE``."""
    row = connection.execute(f"SELECT {SHAPE}", {"table": table}).fetchone()
    return row[0] if row else None


def read_plan(connection: Connection[Any], stream: Stream, table: str) -> Plan:
    """The plan for writing ``stream`` into the live ``table`` (``schema.name`` or found by the search_path).

    Raises TableError, naming table, column and remedy, when a row could not be written as it should, and RestoringError
    while TimescaleDB restores.
    """
    here, others = connection.execute(f"SELECT {_RESTORES_HERE}, {_RESTORES}").fetchone() or (None, None)
    if here or others:
        raise RestoringError(
            "TimescaleDB restores this database (timescaledb.restoring is on): what is written now would never be "
            "seen; `SELECT timescaledb_post_restore()` ends it",
            here=not others,
        )
    shape = read_shape(connection, table)  # first: what changes from here on makes a difference later
    found = connection.execute("SELECT c.oid, n.nspname, c.relname FROM pg_class c "
                               "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s) "
                               "AND c.relkind IN ('r', 'p', 'v', 'f')", [table]).fetchone()  # fmt: skip
    if found is None:
        remedy = "run `eventwriter schema apply`" if stream.owns(table) else "create it"
        raise TableError(
            f"table {table} of stream {stream.name} does not exist: {remedy}, "
            f"or set streams.{stream.name}.table to the table's name"
        )
    oid, schema, name = found
    live = {row[0]: row[1:] for row in connection.execute(_COLUMNS, [oid])}
    # Before their types: what lacks most of them is another table, and a type in there is not what is wrong.
    lacking = [column for column in stream.columns if column.core and live.keys().isdisjoint(_names(column))]
    if lacking:
        raise _lacks(stream, table, lacking)
    stream = _fitted(stream, table, live)
    targets: list[Target] = []
    for position, column in enumerate((*stream.columns, *stream.computed)):
        # A live column goes to the first that claims it: on older tables an alias may be another column's name.
        taken = {target.name for target in targets}
        live_name = next((name for name in _names(column) if name in live and name not in taken), None)
        if live_name is None or not column.wanted:
            continue
        live_type, not_null, _, generated = live[live_name]
        if generated:
            continue
        if live_type not in _ACCEPTED[column.type]:
            raise TableError(
                f"column {live_name} of table {table} is {live_type}, stream {stream.name} writes {column.type}: "
                f"ALTER TABLE {table} ALTER COLUMN {live_name} TYPE {column.type}, or rename it"
            )
        targets.append(target_of(live_name, position, column.type, live_type, not_null))
    if not targets:
        raise TableError(f"table {table} has none of the columns of stream {stream.name}: is it the right table?")
    filled = {target.name for target in targets}
    for live_name, (live_type, not_null, has_default, _) in live.items():
        if not_null and not has_default and live_name not in filled:
            raise TableError(
                f"column {live_name} {live_type} of table {table} is NOT NULL without a default and stream "
                f"{stream.name} does not fill it: give it a default, or drop NOT NULL"
            )
    # What ON CONFLICT does not take, deferrable keys, only ever refuses.
    keys = unique_keys(connection, oid, deferrable=False)
    return plan_of(stream, sql.Identifier(schema, name), table, targets, keys, shape)


def fitted(connection: Connection[Any], stream: Stream, table: str) -> Stream:
    """The stream, with the columns that it has for this table; raises what ``read_plan`` does."""
    if stream.fit is None:
        return stream
    read_plan(connection, stream, table)
    return _fitted(stream, table, {row[0]: row[1:] for row in connection.execute(_TYPED, [table])})


def _fitted(stream: Stream, table: str, live: Mapping[str, Sequence[Any]]) -> Stream:
    if stream.fit is None:
        return stream
    try:
        return replace(stream, columns=stream.fit({name: (each[0], each[1]) for name, each in live.items()}))
    except Unfit as error:
        raise TableError(f"table {table} of stream {stream.name}: {error}") from None


def _names(column: Column) -> tuple[str, ...]:
    return (column.name, *column.aliases)


def _lacks(stream: Stream, table: str, lacking: Sequence[Column]) -> TableError:
    what = listed([" or ".join(_names(column)) for column in lacking])
    core = sum(column.core for column in stream.columns)
    if 2 * len(lacking) > core:
        most = f"lacks most columns of stream {stream.name}, such as {what}"
        none = f"has none of the columns of stream {stream.name}"
        told = most if len(lacking) < core else none
        return TableError(f"table {table} {told}: is it the right table? streams.{stream.name}.table names it")
    definitions = listed([f"ADD COLUMN {column.name} {column.type}" for column in lacking], 3)
    ours = "run `eventwriter schema apply`, or " if stream.owns(table) else ""
    return TableError(
        f"table {table} lacks the column{'s' if len(lacking) > 1 else ''} {what} of stream {stream.name}: "
        f"{ours}ALTER TABLE {table} {definitions}"
    )


def unique_keys(connection: Connection[Any], oid: int, *, deferrable: bool = True) -> tuple[tuple[str, ...], ...]:
    """The unique keys of a table, each as sorted column names, with those that are ``deferrable`` or without."""
    return tuple(dict.fromkeys(tuple(sorted(row[0])) for row in connection.execute(_KEYS, [oid, deferrable])))
