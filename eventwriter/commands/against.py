"""`verify --against`: the rows of a stream beside those of a table that another writer fills, hour by hour, key by key.

PostgreSQL does the counting: what comes here is a line for each hour that differs, and some of the keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg import Connection, sql

from eventwriter import terminal
from eventwriter.errors import UsageError
from eventwriter.postgres.catalog import fitted, unique_keys
from eventwriter.postgres.errors import translated
from eventwriter.stream import Column, Stream

_SHOWN = 20
"""Hours and keys that are shown to a person."""
_KEYS = 1000
"""Keys that a program gets, of each side."""

Moment = datetime | timedelta | None
Window = tuple[Moment, Moment]
"""Rows since then and before then, an age or a time each."""

_HOURS = sql.SQL(
    "SELECT hour, coalesce(a.n, 0), coalesce(b.n, 0), a.keys IS NOT DISTINCT FROM b.keys FROM {ours} a "
    "FULL JOIN {theirs} b USING (hour) ORDER BY hour"
)
_SIDE = sql.SQL("(SELECT {hour} AS hour, n, keys FROM (SELECT date_trunc('hour', {time}) AS time, count(*) AS n, "
                "{keys} AS keys FROM {rows} GROUP BY 1) hours)")  # fmt: skip
# As text: other writers may have none, and such as no datetime can be. Those without are in one line, too.
_HOUR = sql.SQL("CASE WHEN isfinite({time}) THEN to_char({time}, 'YYYY-MM-DD\"T\"HH24:MI:SS\"+00:00\"') "
                "ELSE coalesce({time}::text, '') END")  # fmt: skip
_ROWS = sql.SQL("(SELECT * FROM {table} WHERE {where}) rows")
_ONLY = sql.SQL("SELECT count(*) OVER (), {columns} FROM (SELECT {ours} FROM {a} EXCEPT SELECT {theirs} FROM {b}) d "
                "ORDER BY {columns} LIMIT %(limit)s")  # fmt: skip


@dataclass(slots=True)
class Comparison:
    """Two tables, beside each other."""

    table: str
    """The other one."""
    ours: int = 0
    """Rows."""
    theirs: int = 0
    hours: list[tuple[str, int, int]] = field(default_factory=list)
    """Those that differ, RFC 3339 in UTC, infinity, or empty for NULL; with the rows in our table and in the other."""
    key: tuple[str, ...] = ()
    """The columns by which rows were told apart; empty: they were only counted."""
    only_ours: int = 0
    """Keys."""
    only_theirs: int = 0
    keys: dict[str, list[list[str]]] = field(default_factory=dict)
    """Some of them."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.hours

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "table": self.table,
            "ours": self.ours,
            "theirs": self.theirs,
            "hours": [[hour or None, *counts] for hour, *counts in self.hours],
            "key": [*self.key],
            "only_ours": self.only_ours,
            "only_theirs": self.only_theirs,
            "keys": self.keys,
        }


def _keys(stream: Stream, theirs: _Table) -> Iterator[list[Column]]:
    """The columns by which rows may be told apart: the key of the stream, or one of the other table."""
    columns = {column.name: column for column in stream.columns}
    if stream.key:
        yield [columns[name] for name in stream.key]
    for key in theirs.keys:
        found = [column for column in stream.columns if theirs.column(column) in key]
        if len(found) == len(key):
            yield found


class _Table:
    """One of the two, with the names that it has for a stream's columns."""

    def __init__(self, connection: Connection[Any], stream: Stream, name: str) -> None:
        found = connection.execute(
            "SELECT c.oid, n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')",
            [name],
        ).fetchone()
        if found is None:
            raise UsageError(f"there is no table {name}: give its schema as well, such as old.{name}")
        oid, schema, table = found
        columns = "SELECT attname FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped"
        self._live = {row[0] for row in connection.execute(columns, [oid])}
        self._name = sql.Identifier(schema, table)
        self.keys = unique_keys(connection, oid)
        column = next((each for each in stream.columns if each.type == "timestamptz"), None)
        if column is None:
            raise UsageError(f"stream {stream.name} has no column with a time, by which rows are compared")
        time = self.column(column)
        if time is None:
            raise UsageError(f"table {name} has no column {column.name}: is it one of stream {stream.name}?")
        self.time = sql.Identifier(time)

    def column(self, column: Column) -> str | None:
        """The name that it has here."""
        return next((name for name in (column.name, *column.aliases) if name in self._live), None)

    def rows(self, where: sql.Composable) -> sql.Composed:
        return _ROWS.format(table=self._name, where=where)

    def texts(self, key: list[Column]) -> list[sql.Composed]:
        """The values of a key as text, which is the same whatever type a table has for it."""
        return [sql.SQL("coalesce({}::text, '')").format(sql.Identifier(self.column(each) or "")) for each in key]


def compare(
    connection: Connection[Any], stream: Stream, ours: str, theirs: str, since: Moment = None, until: Moment = None
) -> Comparison:
    """Compares the rows of the two, ``ours`` being that of the stream; raises UsageError for what is no such table."""
    with translated():
        connection.execute("SET TIME ZONE 'UTC'")
        stream = fitted(connection, stream, ours)
        a, b = _Table(connection, stream, ours), _Table(connection, stream, theirs)
        key = next((key for key in _keys(stream, b) if all(a.column(each) and b.column(each) for each in key)), [])
        found = Comparison(theirs, key=tuple(each.name for each in key))
        now = datetime.now(UTC)
        bounds = {name: now - value if isinstance(value, timedelta) else value
                  for name, value in (("since", since), ("until", until))}  # fmt: skip
        sides = [_side(table, key, bounds) for table in (a, b)]
        for hour, mine, other, same in connection.execute(_HOURS.format(ours=sides[0], theirs=sides[1]), bounds):
            found.ours += mine
            found.theirs += other
            if mine != other or not same:
                found.hours.append((hour, mine, other))
        if key and found.hours:
            values = bounds | {"hours": [hour for hour, *_ in found.hours]}
            found.only_ours, mine = _only(connection, a, b, key, values)
            found.only_theirs, other = _only(connection, b, a, key, values)
            found.keys = {"only_ours": mine, "only_theirs": other}
        connection.rollback()
    return found


def _where(table: _Table, bounds: dict[str, Any]) -> sql.Composed:
    conditions = [sql.SQL("true")]
    for name, operator in (("since", ">="), ("until", "<")):
        if bounds[name] is not None:
            conditions.append(sql.SQL("{} " + operator + " {}").format(table.time, sql.Placeholder(name)))  # type: ignore[arg-type]
    if "hours" in bounds:
        hour = _HOUR.format(time=sql.SQL("date_trunc('hour', {})").format(table.time))
        conditions.append(sql.SQL("{} = ANY(%(hours)s)").format(hour))  # type: ignore[arg-type]
    return sql.SQL(" AND ").join(conditions)


def _side(table: _Table, key: list[Column], bounds: dict[str, Any]) -> sql.Composed:
    keys: sql.Composable = sql.SQL("0")
    if key:
        keys = sql.SQL("sum(hashtextextended(concat_ws(chr(31), {}), 0))").format(sql.SQL(", ").join(table.texts(key)))
    hour = _HOUR.format(time=sql.Identifier("time"))
    return _SIDE.format(hour=hour, time=table.time, keys=keys, rows=table.rows(_where(table, bounds)))


def _only(
    connection: Connection[Any], a: _Table, b: _Table, key: list[Column], bounds: dict[str, Any]
) -> tuple[int, list[list[str]]]:
    """How many keys ``a`` alone has in these hours, and the first of them."""
    names = [sql.Identifier(each.name) for each in key]
    parts = [
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(text, name) for text, name in zip(table.texts(key), names, strict=True)
        )
        for table in (a, b)
    ]
    query = _ONLY.format(
        columns=sql.SQL(", ").join(names),
        ours=parts[0],
        theirs=parts[1],
        a=a.rows(_where(a, bounds)),
        b=b.rows(_where(b, bounds)),
    )
    rows = connection.execute(query, bounds | {"limit": _KEYS}).fetchall()
    return (rows[0][0] if rows else 0), [[*row[1:]] for row in rows]


def shown(found: Comparison) -> str:
    """For a person."""
    head = f"{found.table}: {found.ours} rows in ours, {found.theirs} in theirs"
    if found.same:
        return f"✓ {head}, {'the same keys' if found.key else 'as many'} in each hour"
    lines = [f"✗ {head}, {len(found.hours)} hours differ"]
    for hour, ours, theirs in found.hours[:_SHOWN]:
        when = hour.replace("T", " ").replace(":00+00:00", "Z") or "without a time"
        lines.append(f"    {when}  ours {ours}, theirs {theirs} ({ours - theirs:+d})")
    for side, count in (("only_ours", found.only_ours), ("only_theirs", found.only_theirs)):
        if count:
            lines.append(
                f"    {count} keys in {'ours' if side == 'only_ours' else 'theirs'} alone ({', '.join(found.key)}):"
            )
            lines += [f"      {terminal.one_line(', '.join(each))}" for each in found.keys[side][:_SHOWN]]
    if len(found.hours) > _SHOWN or max(found.only_ours, found.only_theirs) > _SHOWN:
        lines.append("    … and more: --output json has all hours, and more keys")
    return "\n".join(lines)
