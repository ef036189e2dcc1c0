"""What a live table lacks of its definition in ``schemas``: adds those columns, if the table is one of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import psycopg
from psycopg import Connection, sql

from eventwriter.errors import listed
from eventwriter.postgres.catalog import unique_keys
from eventwriter.stream import Stream

_SCRATCH = "eventwriter_scratch"
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), a.attidentity <> '' OR a.attgenerated <> ''
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
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


@dataclass(frozen=True, slots=True)
class _Table:
    columns: Mapping[str, _Column]
    keys: tuple[tuple[str, ...], ...]


def extend(connection: Connection[Any], stream: Stream, text: str, *, new_keys: bool = False) -> Iterator[str]:
    """Adds to the stream's table what ``text``, its definition, has more, and says so; in the caller's transaction.
    With ``new_keys`` a table with the former key of the stream gets the present one; without, it says what that is.

    A table that somebody else created is left as it is: what it has of our columns has the same types and names in a
    table of ours, and no other keys.
    """
    live = _read(connection, stream.table)
    defined = None if live is None else _defined(connection, stream.table, text)
    if live is None or defined is None:
        return
    missing = {
        name: column for name, column in defined.columns.items() if name not in live.columns and column.restorable
    }
    why = _foreign(live, defined, stream)
    if not why and stream.former_key and tuple(sorted(stream.former_key)) in live.keys:
        yield from _give_key(connection, stream, defined, new_keys)
    if not missing:
        return
    if why:
        yield f"left {stream.table} as it is, for it is not ours ({why}); it has no {listed([*missing])}"
        return
    for name, column in missing.items():
        yield f"added column {name} to {stream.table}{_add(connection, stream.table, name, column)}"
    if defined.keys and not live.keys:  # it went with a column
        key = ", ".join(stream.key or defined.keys[0])
        yield f"{stream.table} has no key any more: ALTER TABLE {stream.table} ADD PRIMARY KEY ({key})"


def _read(connection: Connection[Any], table: str) -> _Table | None:
    found = connection.execute(
        "SELECT oid::int8 FROM pg_class WHERE oid = to_regclass(%s) AND relkind IN ('r', 'p')", [table]
    ).fetchone()
    if found is None:
        return None
    columns = {name: _Column(*facts) for name, *facts in connection.execute(_COLUMNS, found)}
    return _Table(columns, unique_keys(connection, found[0]))


def _defined(connection: Connection[Any], table: str, text: str) -> _Table | None:
    """The table as ``text`` makes it where there is none, seen in a transaction that does not last."""
    with connection.transaction(force_rollback=True):
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SCRATCH)))
        connection.execute(
            "SELECT set_config('search_path', concat_ws(',', %s::text, nullif(current_setting('search_path'), '')), "
            "true)",
            [_SCRATCH],
        )
        connection.execute(sql.SQL(cast(Any, text)))
        return _read(connection, f"{_SCRATCH}.{table}")


def _foreign(live: _Table, defined: _Table, stream: Stream) -> str:
    """What shows that somebody else created the table; empty if nothing does."""
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


def _give_key(connection: Connection[Any], stream: Stream, defined: _Table, wanted: bool) -> Iterator[str]:
    """Replaces the former key of the stream's table, if that is ``wanted``; says what it does, or would."""
    table, former, key = stream.table, ", ".join(stream.former_key), ", ".join(stream.key)
    steps = [
        f'ALTER TABLE {table} DROP CONSTRAINT "{constraint}"' if constraint else f"DROP INDEX {index}"
        for index, constraint in connection.execute(_INDEXES, [table, sorted(stream.former_key)])
    ]
    for name in stream.key:
        column = defined.columns[name]
        if name not in stream.former_key:
            if column.default is not None:
                steps.append(f"UPDATE {table} SET {name} = {column.default} WHERE {name} IS NULL")
                steps.append(f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT {column.default}")
            steps.append(f"ALTER TABLE {table} ALTER COLUMN {name} SET NOT NULL")
    steps.append(f"ALTER TABLE {table} ADD PRIMARY KEY ({key})")
    if wanted:
        for step in steps:
            connection.execute(sql.SQL(cast(Any, step)))
        yield f"{table} has the key ({key}) now, not ({former})"
    else:
        yield f"{table} has the key ({former}), and of rows that differ in the rest of ({key}) takes but one"
        yield f"`eventwriter schema apply --new-keys` would do: {'; '.join(steps)}"


_INDEXES = """
SELECT i.indexrelid::regclass::text, c.conname FROM pg_index i
  LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid
 WHERE i.indrelid = to_regclass(%s) AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
   AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text) FROM pg_attribute a
         WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey::int2[])) = %s::text[]
"""


def _add(connection: Connection[Any], table: str, name: str, column: _Column) -> str:
    """Adds a column; what had to be left out of its definition, and why."""
    add = sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
        sql.SQL(cast(Any, table)), sql.Identifier(name), sql.SQL(cast(Any, column.type))
    )
    try:
        with connection.transaction():
            connection.execute(add + sql.SQL(cast(Any, " ".join(["", *column.constraints]))))
    except (psycopg.errors.NotNullViolation, psycopg.errors.FeatureNotSupported) as error:
        # The rows that are there have no value for it; or the chunks of a hypertable are compressed.
        connection.execute(add)
        return f" without {' and '.join(column.constraints)}: {error.diag.message_primary}"
    return ""
