"""The statements with which rows go through a temporary table; staged.py runs them."""

from __future__ import annotations

from psycopg import sql

from eventwriter.postgres.plan import Plan


class Stage:
    """The statements for a temporary table with the columns of a plan and an ordinal."""

    def __init__(self, plan: Plan, *, text_json: bool) -> None:
        # It lives as long as the session. After the target was altered it must have other columns: another name.
        shape = f"{(plan.shape or 0) % 2**64:016x}"
        name = sql.Identifier(f"eventwriter_stage{'_text' if text_json else ''}_{shape}")
        loose = {target.name for target in plan.targets if text_json and target.type in ("jsonb", "json")}
        self.dumpers = ["int8", *("bytea" if t.name in loose else t.dumper for t in plan.targets)]
        definitions = [
            sql.SQL("{} {}").format(
                sql.Identifier(target.name), sql.SQL("text" if target.name in loose else target.type)
            )
            for target in plan.targets
        ]
        self.create = sql.SQL(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {} (eventwriter_ordinal bigint, {}) ON COMMIT DELETE ROWS"
        ).format(name, sql.SQL(", ").join(definitions))
        self.copy = sql.SQL("COPY {} FROM STDIN (FORMAT BINARY)").format(name)
        values = sql.SQL(", ").join(
            sql.SQL("{}::{}").format(sql.Identifier(t.name), sql.SQL(t.type))
            if t.name in loose
            else sql.Identifier(t.name)
            for t in plan.targets
        )
        self._insert_parts = (plan.table, plan.columns, values, name, _on_conflict(plan))
        same = sql.SQL(" AND ").join(
            sql.SQL("t.{0}{2} IS NOT DISTINCT FROM s.{0}{1}").format(
                sql.Identifier(t.name),
                sql.SQL(
                    f"::{t.type}" if t.name in loose and t.type != "json" else "::text" if t.type == "json" else ""
                ),
                sql.SQL("::text" if t.type == "json" else ""),
            )
            for t in plan.targets
        )
        keyed = sql.SQL(" OR ").join(
            sql.SQL(" AND ").join(sql.SQL("t.{0} = s.{0}").format(sql.Identifier(column)) for column in key)
            for key in plan.keys
            if set(key) <= {target.name for target in plan.targets}
        )
        self.conflicts = sql.SQL(
            "SELECT s.eventwriter_ordinal FROM {0} s WHERE EXISTS (SELECT 1 FROM {1} t WHERE {2}) "
            "AND NOT EXISTS (SELECT 1 FROM {1} t WHERE ({2}) AND {3})"
        ).format(name, plan.table, keyed if plan.keys else sql.SQL("false"), same)

    def insert(self, first: str, last: str) -> sql.Composed:
        """The insertion of the ordinals first … last, each a number or a placeholder."""
        table, columns, values, name, on_conflict = self._insert_parts
        return sql.SQL(
            "INSERT INTO {} AS t ({}) SELECT {} FROM {} WHERE eventwriter_ordinal BETWEEN {} AND {} "
            "ORDER BY eventwriter_ordinal {}"
        ).format(table, columns, values, name, sql.SQL(first), sql.SQL(last), on_conflict)


def _on_conflict(plan: Plan) -> sql.Composable:
    if plan.mode == "copy":
        return sql.SQL("")
    if plan.mode == "insert":
        return sql.SQL("ON CONFLICT DO NOTHING")
    key = plan.keys[0]
    changes = [
        sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(target.name))
        for target in plan.targets
        if target.name not in key
    ]
    guard: sql.Composable = sql.SQL("")
    if plan.guard:
        guard = sql.SQL(" WHERE t.{0} IS NULL OR t.{0} <= EXCLUDED.{0}").format(sql.Identifier(plan.guard))
    return sql.SQL("ON CONFLICT ({}) DO UPDATE SET {}{}").format(
        sql.SQL(", ").join(map(sql.Identifier, key)), sql.SQL(", ").join(changes), guard
    )
