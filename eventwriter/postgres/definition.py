"""What a live table lacks of its definition in ``schemas``: the steps that add it, if the table is one of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

from psycopg import Connection, sql

from eventwriter.errors import listed
from eventwriter.postgres import timescale
from eventwriter.postgres.catalog import unique_keys
from eventwriter.postgres.steps import WHATEVER_LACKS, Step, Wanted, split
from eventwriter.stream import Stream

_SCRATCH = "pg_temp"
_OF_TABLE = ("CREATE TABLE", "CREATE INDEX", "CREATE UNIQUE INDEX")
"""How statements begin that make a table, which is compared and not made again."""
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}
_NAMED = re.compile(r"(?P<create>CREATE (?:UNIQUE )?INDEX )IF NOT EXISTS (?P<name>\w+) ")
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' OR a.attgenerated <> ''
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_INDEXES = """
SELECT c.relname, CASE WHEN i.indisunique THEN 'UNIQUE ' ELSE '' END,
       regexp_replace(pg_get_indexdef(i.indexrelid), '^.*? USING ', ''), i.indisvalid
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
 WHERE i.indrelid = %s
   AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = i.indexrelid AND conrelid = i.indrelid)
"""
_KEY_INDEXES = """
SELECT i.indexrelid::regclass::text, c.conname FROM pg_index i
  LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
 WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
   AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
         WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])) = %s::text[]
"""


@dataclass(frozen=True, slots=True)
class _Column:
    type: str
    not_null: bool
    default: str | None
    generated: bool

    @property
    def restorable(self) -> bool:
        """Whether it can be added by itself; what it is made of may belong to the table."""
        return not self.generated and _SCRATCH not in f"{self.type} {self.default}"

    @property
    def constraints(self) -> list[str]:
        return [f"DEFAULT {self.default}"] * (self.default is not None) + ["NOT NULL"] * self.not_null


class _Index(NamedTuple):
    unique: str
    made: str
    whole: bool


@dataclass(frozen=True, slots=True)
class _Table:
    kind: str
    columns: Mapping[str, _Column]
    keys: tuple[tuple[str, ...], ...]
    indexes: Mapping[str, _Index]
    """Without those of keys that are constraints."""


def steps(connection: Connection[Any], stream: Stream, text: str, wanted: Wanted = WHATEVER_LACKS) -> Iterator[Step]:
    """What brings the stream's table to ``text``, its definition: all of it where there is none, else what it has more.
    With ``new_keys`` a table with the former key of the stream gets the present one; without, it says what that is.

    A table that somebody else created is left as it is: what it has of our columns has the same types and names in a
    table of ours, and no other keys.
    """
    live = _read(connection, stream.table)
    if live is None:
        for statement in split(text):
            index = _NAMED.match(statement)
            taken = index is not None and _is_taken(connection, index["name"])
            yield Step(_NAMED.sub(r"\g<create>", statement) if taken else statement)
        yield from timescale.steps(connection, stream.table, text, wanted, new=True)
        return
    defined = _defined(connection, stream.table, text) if live.kind in "rp" else live
    if why := _foreign(live, defined, stream):
        missing = [name for name in defined.columns if name not in live.columns]
        more = f"; it has no {listed(missing)}" if missing else ""
        yield Step(said=f"left {stream.table} as it is, for it is not ours ({why}){more}")
        for option in wanted.policies:
            yield Step(said=f"{option} is not for {stream.table}, which is not ours", failing=True)
        return
    if stream.former_key and tuple(sorted(stream.former_key)) in live.keys:
        yield from _give_key(connection, stream, defined, wanted.new_keys)
    rows = cache(lambda: _has_rows(connection, stream.table))  # asked only where something is missing
    yield from _add_columns(stream, live, defined, rows)
    yield from (Step(each) for each in split(text) if not each.startswith(_OF_TABLE))
    yield from _add_indexes(connection, stream.table, live, defined, rows, wanted.indexes)
    yield from timescale.steps(connection, stream.table, text, wanted)
    needless = f"{stream.table}_{timescale.time_column(text)}_idx"  # as create_hypertable() of earlier releases made it
    if needless in live.indexes and live.indexes[needless].made not in {each.made for each in defined.indexes.values()}:
        yield Step(
            said=f"{stream.table} needs no index {needless}, for its key begins with the time: DROP INDEX {needless}"
        )


def _raw(text: str) -> sql.SQL:
    return sql.SQL(cast(Any, text))


def _is_taken(connection: Connection[Any], name: str) -> bool:
    """Whether there is another index of this name, such as that of a table which was renamed: ours gets no name then,
    and PostgreSQL gives it one."""
    return connection.execute("SELECT to_regclass(quote_ident(%s)) IS NOT NULL", [name]).fetchone() == (True,)


def _has_rows(connection: Connection[Any], table: str) -> bool:
    return connection.execute(_raw(f"SELECT EXISTS (SELECT FROM {table})")).fetchone() == (True,)


def _read(connection: Connection[Any], table: str) -> _Table | None:
    found = connection.execute(
        "SELECT oid::int8, relkind FROM pg_class WHERE oid = to_regclass(%s)", [table]
    ).fetchone()
    if found is None:
        return None
    oid, kind = found
    columns = {name: _Column(*facts) for name, *facts in connection.execute(_COLUMNS, [oid])}
    indexes = {name: _Index(*facts) for name, *facts in connection.execute(_INDEXES, [oid])}
    return _Table(kind, columns, unique_keys(connection, oid), indexes)


def _defined(connection: Connection[Any], table: str, text: str) -> _Table:
    """The table as ``text`` makes it where there is none: a temporary one, in a transaction that does not last."""
    with connection.transaction(force_rollback=True):
        connection.execute(
            "SELECT set_config('search_path', concat_ws(',', %s::text, nullif(current_setting('search_path'), '')), "
            "true)",
            [_SCRATCH],
        )
        for statement in split(text):
            if statement.startswith(_OF_TABLE):
                connection.execute(_raw(statement))
        found = _read(connection, f"{_SCRATCH}.{table}")
        return found or cast(_Table, _read(connection, table))  # it names its schema: nothing to compare


def _foreign(live: _Table, defined: _Table, stream: Stream) -> str:
    """What shows that somebody else created the table; empty if nothing does."""
    if live.kind not in "rp":
        return f"it is {_KINDS.get(live.kind, 'no table')}"
    for ours in stream.columns:
        older = next((name for name in ours.aliases if name in live.columns and name not in defined.columns), None)
        if older and ours.name not in live.columns:
            return f"{ours.name} is {older} there"
    for name, column in defined.columns.items():
        if name in live.columns and live.columns[name].type != column.type:
            return f"{name} is {live.columns[name].type} there"
    known = (*defined.keys, tuple(sorted(stream.former_key)))
    key = next((key for key in live.keys if key not in known), None)
    return f"it has a key of {', '.join(key)}" if key else ""


def _add_columns(stream: Stream, live: _Table, defined: _Table, rows: Callable[[], bool]) -> Iterator[Step]:
    missing = {name: each for name, each in defined.columns.items() if name not in live.columns and each.restorable}
    for name, column in missing.items():
        add = f"ALTER TABLE {stream.table} ADD COLUMN {sql.Identifier(name).as_string()} {column.type}"
        said = f"added column {name} to {stream.table}"
        if column.not_null and column.default is None and rows():
            yield Step(add, f"{said} without NOT NULL: it contains null values, for the rows that are there have none")
        else:
            yield Step(" ".join([add, *column.constraints]), said, bare=add if column.constraints else "")
    if missing and defined.keys and not live.keys:  # it went with a column
        key = ", ".join(stream.key or defined.keys[0])
        yield Step(said=f"{stream.table} has no key any more: ALTER TABLE {stream.table} ADD PRIMARY KEY ({key})")


def _add_indexes(
    connection: Connection[Any], table: str, live: _Table, defined: _Table, rows: Callable[[], bool], wanted: bool
) -> Iterator[Step]:
    """The indexes that the table lacks; of one with rows, whose writers would wait, on request and beside them."""
    whole = {(each.unique, each.made) for each in live.indexes.values() if each.whole}
    for name, index in defined.indexes.items():
        broken = name in live.indexes and not live.indexes[name].whole
        if (index.unique, index.made) in whole or (name in live.indexes and not broken):
            continue
        taken = name not in live.indexes and _is_taken(connection, name)
        quoted = "" if taken else sql.Identifier(name).as_string()
        if not rows():
            if broken:
                yield Step(f"DROP INDEX {quoted}")
            create = f"CREATE {index.unique}INDEX {quoted and f'{quoted} '}ON {table} USING {index.made}"
            yield Step(create, f"added index {name} to {table}")
        elif wanted:
            yield from timescale.index_steps(connection, table, live.kind, quoted, index.unique, index.made, broken)
        else:
            yield Step(
                said=f"{table} has no index {name} ({index.made}): `eventwriter schema apply --indexes` builds it "
                "beside the writers"
            )


def _give_key(connection: Connection[Any], stream: Stream, defined: _Table, wanted: bool) -> Iterator[Step]:
    """Replaces the former key of the stream's table, if that is ``wanted``; says what it does, or would."""
    table, former, key = stream.table, ", ".join(stream.former_key), ", ".join(stream.key)
    statements = [
        f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"' if constraint else f"DROP INDEX {index}"
        for index, constraint in connection.execute(_KEY_INDEXES, [table, sorted(stream.former_key)])
    ]
    for name in stream.key:
        column = defined.columns[name]
        if name not in stream.former_key:
            if column.default is not None:
                statements.append(f"UPDATE {table} SET {name} = {column.default} WHERE {name} IS NULL")
                statements.append(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {column.default}")
            statements.append(f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL")
    statements.append(f"ALTER TABLE {table} ADD PRIMARY KEY ({key})")
    if wanted:
        yield from (Step(statement) for statement in statements)
        yield Step(said=f"{table} has the key ({key}) now, not ({former})")
    else:
        yield Step(said=f"{table} has the key ({former}), and of rows that differ in the rest of ({key}) takes but one")
        yield Step(said=f"`eventwriter schema apply --new-keys` would do: {'; '.join(statements)}")
