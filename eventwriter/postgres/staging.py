"""The statements with which rows go through a temporary table; staged.py runs them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, NamedTuple

from psycopg import sql

from eventwriter.postgres.plan import Plan, Target
from eventwriter.stream import Row

_TEXTS = ("text", "character varying")
_ARRAYS = ("text[]", "character varying[]")
_JSON = ("jsonb", "json")
_ELEMENTS: LiteralString = (
    "CASE WHEN {0} IS NOT NULL THEN ARRAY("
    "SELECT e FROM jsonb_array_elements_text(convert_from({0}, 'UTF8')::jsonb) WITH ORDINALITY u (e, n) ORDER BY n)"
)
"""The array that a JSON array in UTF-8 stands for."""
_TIME = "timestamp with time zone"
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NOTHING = {
    "text": "''",
    "character varying": "''",
    _TIME: "now()",
    "boolean": "false",
    "jsonb": "'{}'",
    "json": "'{}'",
    "uuid": "gen_random_uuid()",
    "inet": "'0.0.0.0'",
    "text[]": "'{}'",
    "character varying[]": "'{}'",
}
"""Type → the value of a column that must have one, in a row of nothing; numbers are 0."""


class Question(NamedTuple):
    """What is asked of rows in a temporary table."""

    word: LiteralString
    condition: sql.Composable
    """Which rows of the target it is about."""
    equal: tuple[Target, ...]
    """Columns in which those are equal to the row, by that condition."""


class Stage:
    """The statements for a temporary table with the columns of a plan and an ordinal.

    To ``isolate`` what is refused, text and JSON are bytes there: which of them the database can hold it tells itself,
    row by row. What meets a row that is there is refused as well.
    """

    def __init__(self, plan: Plan, *, isolate: bool, pooled: bool = False) -> None:
        # It lives as long as the session, if that is ours: ``pooled``, as long as the transaction. After the target
        # was altered it must have other columns: another name.
        shape = f"{(plan.shape or 0) % 2**64:016x}"
        name = sql.Identifier(f"eventwriter_stage{'_text' if isolate else ''}{'_once' if pooled else ''}_{shape}")
        self._isolate = isolate
        other = (*_JSON, *_ARRAYS) if isolate else ()  # of text, the binary form is that of bytes already
        self.dumpers = ["int8", *("bytea" if target.type in other else target.dumper for target in plan.targets)]
        self._arrays = [isolate and target.type in _ARRAYS for target in plan.targets]
        definitions = [
            sql.SQL("{} {}").format(_named(target), sql.SQL("bytea" if self._loose(target) else target.type))
            for target in plan.targets
        ]
        # Where ranges of it are tried again and again, they are to be found without looking at all.
        self.create = sql.SQL(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} (eventwriter_ordinal bigint {}, {}) ON COMMIT {}"
        ).format(
            *(name, sql.SQL("PRIMARY KEY" if isolate else ""), sql.SQL(", ").join(definitions)),
            sql.SQL("DROP" if pooled else "DELETE ROWS"),
        )
        self.copy = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(name)
        values = sql.SQL(", ").join(self._typed(target) for target in plan.targets)
        self._on_conflict = _on_conflict(plan, isolate)
        self._insert_parts = (plan.table, plan.columns, values, name)
        same = sql.SQL(" AND ").join(part for target in plan.targets for part in self._same(target))
        self._among_parts = (name, plan.table)
        self.absent = Question("NOT EXISTS", same, tuple(t for t in plan.targets if t.not_null))
        """Which ordinals have no equal row in the target."""
        keyed = tuple(t for t in plan.targets if plan.mode == "upsert" and t.name in plan.keys[0])
        self.outdated = Question("EXISTS", self._newer(plan), keyed)
        """Of which there is a newer row."""
        self.rivals = Question("EXISTS", self._rival(plan), keyed)
        """Whose key another row has that is not to be replaced."""
        required = [target for target in plan.targets if target.not_null] or plan.targets[:1]
        self.another = sql.SQL("INSERT INTO {} AS t ({}) VALUES ({}) {}").format(
            plan.table,
            sql.SQL(", ").join(map(_named, required)),
            sql.SQL(", ").join(sql.SQL(_NOTHING.get(t.type, "0") if t.not_null else "DEFAULT") for t in required),
            self._on_conflict,
        )
        """Inserts a row of nothing: whether the target takes any row at all."""

    def insert(self, first: str, last: str) -> sql.Composed:
        """The insertion of the ordinals first … last, each a number or a placeholder."""
        return sql.SQL(
            "INSERT INTO {} AS t ({}) SELECT {} FROM {} WHERE eventwriter_ordinal BETWEEN {} AND {} "
            "ORDER BY eventwriter_ordinal {}"
        ).format(*self._insert_parts, sql.SQL(first), sql.SQL(last), self._on_conflict)

    def among(self, question: Question, ordinals: Sequence[int], rows: Sequence[Row]) -> sql.Composed:
        """Asks it of these ordinals and their rows, in those parts of a table alone that their times are of.

        Each chunk that it cannot leave out takes locks, and the time to plan.
        """
        name, table = self._among_parts
        condition = [question.condition]
        for target in question.equal:
            if target.type == _TIME:
                values = [row[target.position] for row in rows]
                with suppress(OverflowError, TypeError):
                    span = sql.Literal(_moment(min(values))), sql.Literal(_moment(max(values)))
                    condition.append(sql.SQL("t.{} BETWEEN {} AND {}").format(_named(target), *span))
        return sql.SQL(
            "SELECT s.eventwriter_ordinal FROM {} s "
            "WHERE s.eventwriter_ordinal = ANY({}::bigint[]) AND {} (SELECT FROM {} t WHERE {})"
        ).format(name, sql.Literal(list(ordinals)), sql.SQL(question.word), table, sql.SQL(" AND ").join(condition))

    def held(self, values: Sequence[Any]) -> Sequence[Any]:
        """The values of a row as they are in the temporary table."""
        if not any(self._arrays):
            return values
        held = zip(values, self._arrays, strict=True)
        return [json.dumps(value).encode() if array and value is not None else value for value, array in held]

    def _typed(self, target: Target, alias: str = "") -> sql.Composable:
        """Its value in the temporary table, as the target takes it."""
        value = sql.SQL(alias) + _named(target)
        if not self._loose(target):
            return value
        if target.type in _ARRAYS:
            return sql.SQL(_ELEMENTS + "::" + target.type + " END").format(value)
        return sql.SQL("convert_from({}, 'UTF8')::" + target.type).format(value)

    def _loose(self, target: Target) -> bool:
        return self._isolate and target.type in (*_TEXTS, *_JSON, *_ARRAYS)

    def _same(self, target: Target) -> Iterable[sql.Composable]:
        """Conditions under which a row has the same value in both; what a collation takes for equal is not the same."""
        there, here = sql.SQL("t.") + _named(target), self._typed(target, "s.")
        if target.not_null and target.type != "json":
            yield there + sql.SQL(" = ") + here  # IS NOT DISTINCT FROM uses no index
        form = sql.SQL(
            ' COLLATE "C"' if target.type in (*_TEXTS, *_ARRAYS) else "::text" if target.type == "json" else ""
        )
        yield there + form + sql.SQL(" IS NOT DISTINCT FROM ") + here + form

    def _newer(self, plan: Plan) -> sql.Composable:
        if plan.mode != "upsert" or not plan.guard:
            return sql.SQL("false")
        guard = sql.SQL("(t.{0} IS NULL OR t.{0} <= s.{0}) IS NOT TRUE").format(sql.Identifier(plan.guard))
        return sql.SQL(" AND ").join([*self._keyed(plan), *_alike(plan, self._staged(plan)), guard])

    def _rival(self, plan: Plan) -> sql.Composable:
        if not plan.apart:
            return sql.SQL("false")
        alike = sql.SQL(" AND ").join(_alike(plan, self._staged(plan)))
        return sql.SQL(" AND ").join([*self._keyed(plan), sql.SQL("NOT ({})").format(alike)])

    def _keyed(self, plan: Plan) -> list[sql.Composable]:
        """Conditions under which a row has the same key in both."""
        staged = self._staged(plan)
        return [sql.SQL("t.{} = {}").format(sql.Identifier(column), staged[column]) for column in plan.keys[0]]

    def _staged(self, plan: Plan) -> dict[str, sql.Composable]:
        """Column → its value in the temporary table."""
        return {target.name: self._typed(target, "s.") for target in plan.targets}


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


def _named(target: Target) -> sql.Identifier:
    return sql.Identifier(target.name)


def _on_conflict(plan: Plan, isolate: bool) -> sql.Composable:
    if plan.mode != "upsert":
        return sql.SQL("" if isolate else "ON CONFLICT DO NOTHING")
    key = plan.keys[0]
    changes = [
        sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(target.name))
        for target in plan.targets
        if target.name not in key
    ]
    guards = _alike(plan, {column: sql.SQL("EXCLUDED.") + sql.Identifier(column) for column in plan.apart})
    if plan.guard:
        guards.append(sql.SQL("(t.{0} IS NULL OR t.{0} <= EXCLUDED.{0})").format(sql.Identifier(plan.guard)))
    return sql.SQL("ON CONFLICT ({}) DO UPDATE SET {}{}{}").format(
        sql.SQL(", ").join(map(sql.Identifier, key)),
        sql.SQL(", ").join(changes),
        sql.SQL(" WHERE " if guards else ""),
        sql.SQL(" AND ").join(guards),
    )


def _alike(plan: Plan, other: Mapping[str, sql.Composable]) -> list[sql.Composable]:
    """Conditions under which a row replaces one with the same key; a text that is empty is as good as none."""
    form = sql.SQL("nullif(t.{}, '') IS NOT DISTINCT FROM nullif({}, '')")
    return [form.format(sql.Identifier(column), other[column]) for column in plan.apart]
