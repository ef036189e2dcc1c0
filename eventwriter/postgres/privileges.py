"""The privileges that eventwriter needs: the one table of them, what a role lacks, and the statements that give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from psycopg import Connection

from eventwriter.errors import SchemaError
from eventwriter.postgres.plan import Plan

Role = Literal["writer", "reader", "operator"]

SCHEMA = "eventwriter"
_CHANGES = ("SELECT", "INSERT", "UPDATE")
OWN: dict[Role, dict[str, tuple[str, ...]]] = {
    "writer": {
        "ledger": _CHANGES,
        "ledger_past": _CHANGES,
        "ledger_losses": _CHANGES,
        "dead_letter_messages": ("INSERT",),
        "dead_letter_records": ("INSERT",),
    },
    "reader": dict.fromkeys(("ledger", "dead_letter_messages", "dead_letter_records", "dead_letters"), ("SELECT",)),
    "operator": dict.fromkeys(("dead_letter_messages", "dead_letter_records"), (*_CHANGES, "DELETE")),
}
"""Role → our own table → what it must be allowed there."""
_REMOVING = {"dead_letter_messages": ("SELECT", "UPDATE", "DELETE")}
"""What the writer needs beside that to remove dead letters that were kept for long enough."""

_HELD = {
    "DATABASE": "has_database_privilege(%(oid)s::oid, %(privilege)s)",
    "SCHEMA": "has_schema_privilege(%(oid)s::oid, %(privilege)s)",
    "LANGUAGE": "has_language_privilege(%(oid)s::oid, %(privilege)s)",
    "FUNCTION": "has_function_privilege(%(oid)s::oid, %(privilege)s)",
    "SEQUENCE": "has_sequence_privilege(%(oid)s::oid, %(privilege)s)",
    "TABLE": "has_table_privilege(%(oid)s::oid, %(privilege)s) OR (%(columns)s <> '{}' AND NOT EXISTS (SELECT FROM "
    "unnest(%(columns)s::text[]) c WHERE NOT has_column_privilege(%(oid)s::oid, c, %(privilege)s)))",
}

_PARTS = """parts AS (SELECT %(table)s::regclass::oid AS oid
  UNION SELECT i.inhrelid FROM pg_inherits i JOIN parts ON i.inhparent = parts.oid)"""
# What PostgreSQL runs with our rights for a row: defaults that we do not fill, generated columns, checks, expressions
# of indexes, policies. Functions of its own are not recorded.
_CALLED = f"""
WITH RECURSIVE {_PARTS}, expressions AS (
  SELECT 'pg_attrdef'::regclass AS class, d.oid FROM pg_attrdef d JOIN parts ON d.adrelid = parts.oid
    JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum) WHERE a.attname <> ALL(%(filled)s)
  UNION ALL SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN parts ON c.conrelid = parts.oid
    WHERE c.contype = 'c'
  UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN parts ON i.indrelid = parts.oid
  UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p WHERE p.polrelid = %(table)s::regclass)
SELECT DISTINCT CASE WHEN d.refclassid = 'pg_proc'::regclass THEN 'FUNCTION' ELSE 'SEQUENCE' END, d.refobjid::int8,
       CASE WHEN d.refclassid = 'pg_proc'::regclass THEN d.refobjid::regprocedure::text
            ELSE d.refobjid::regclass::text END
  FROM pg_depend d JOIN expressions e ON (d.classid, d.objid) = (e.class, e.oid)
 WHERE d.refclassid = 'pg_proc'::regclass
    OR d.refclassid = 'pg_class'::regclass AND (SELECT relkind FROM pg_class WHERE oid = d.refobjid) = 'S' ORDER BY 1, 3
"""
# Where a row may be refused by a key, of the table or of what a trigger or a rule writes to, we look for one like it.
_COMPARES = f"""
WITH RECURSIVE {_PARTS}
SELECT EXISTS (SELECT FROM pg_index i JOIN parts ON i.indrelid = parts.oid WHERE i.indisunique OR i.indisexclusion)
    OR EXISTS (SELECT FROM pg_trigger t JOIN parts ON t.tgrelid = parts.oid
                WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgname <> 'ts_insert_blocker')
    OR EXISTS (SELECT FROM pg_rewrite r JOIN parts ON r.ev_class = parts.oid
                WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A'))
"""


class Need(NamedTuple):
    """A privilege on one object."""

    kind: str
    """As GRANT has it: ``TABLE``, ``SCHEMA`` …"""
    target: str
    """The object's name, as SQL has it."""
    privilege: str
    oid: int
    columns: Sequence[str] = ()
    """Of a table: to have it on these is enough."""

    def __str__(self) -> str:
        return f"{self.privilege} on {self.kind.lower()} {self.target}"


def session(connection: Connection[Any]) -> list[Need]:
    """What the writer needs for temporary tables, and to let PostgreSQL try rows by itself."""
    row = connection.execute(
        "SELECT quote_ident(current_database()), (SELECT oid::int8 FROM pg_database WHERE datname = current_database())"
    ).fetchone()
    assert row is not None
    name, oid = row
    languages = connection.execute("SELECT oid::int8 FROM pg_language WHERE lanname = 'plpgsql'").fetchall()
    return [
        Need("DATABASE", name, "TEMPORARY", oid),
        *(Need("LANGUAGE", "plpgsql", "USAGE", language) for (language,) in languages),
    ]


def own(connection: Connection[Any], role: Role, *, remove: bool = False) -> list[Need]:
    """What a role needs in our own schema, as far as that is there; of a writer also to ``remove`` dead letters."""
    found: list[Need] = []
    for (oid,) in connection.execute("SELECT oid::int8 FROM pg_namespace WHERE nspname = %s", [SCHEMA]):
        found.append(Need("SCHEMA", SCHEMA, "USAGE", oid))
    tables = dict(
        connection.execute(
            "SELECT c.relname, c.oid::int8 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = %s",
            [SCHEMA],
        ).fetchall()
    )
    wanted = [OWN[role], *([_REMOVING] if remove else [])]
    for table, privileges in ((table, privileges) for each in wanted for table, privileges in each.items()):
        if table in tables:
            found += [Need("TABLE", f"{SCHEMA}.{table}", privilege, tables[table]) for privilege in privileges]
    return found


def of_table(connection: Connection[Any], plan: Plan) -> list[Need]:
    """What the writer needs for the table of a plan."""
    table = plan.table.as_string(connection)
    row = connection.execute("SELECT c.oid::int8, c.oid::regclass::text, n.oid::int8, quote_ident(n.nspname) FROM "
                             "pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %s::regclass",
                             [table]).fetchone()  # fmt: skip
    assert row is not None, "it has a plan"
    oid, name, schema_oid, schema = row
    filled = [target.name for target in plan.targets]
    found = [Need("SCHEMA", schema, "USAGE", schema_oid), Need("TABLE", name, "INSERT", oid, filled)]
    if plan.mode == "upsert" or connection.execute(_COMPARES, {"table": table}).fetchone() == (True,):
        found.append(Need("TABLE", name, "SELECT", oid, filled))
    if plan.mode == "upsert":
        found.append(Need("TABLE", name, "UPDATE", oid, [each for each in filled if each not in plan.keys[0]]))
    for kind, number, what in connection.execute(_CALLED, {"table": table, "filled": filled}):
        found.append(Need(kind, what, "EXECUTE" if kind == "FUNCTION" else "USAGE", number))
    return found


def lacking(connection: Connection[Any], needs: Iterable[Need]) -> list[Need]:
    """Those that the role of this connection has not."""
    return [
        need
        for need in needs
        if connection.execute(
            f"SELECT {_HELD[need.kind]}",
            {"oid": need.oid, "privilege": need.privilege, "columns": list(need.columns)},
        ).fetchone()
        != (True,)
    ]


def demand(connection: Connection[Any], plan: Plan) -> None:
    """Raises SchemaError if one that the table of a plan needs is lacking."""
    if lacks := lacking(connection, of_table(connection, plan)):
        raise SchemaError(f"table {plan.table_name}: role {connection.info.user} needs {', '.join(map(str, lacks))}")


def grants(needs: Iterable[Need], role: str) -> Iterator[str]:
    """The statements that give them to ``role``, one for each object."""
    of: dict[tuple[str, str], dict[str, None]] = {}
    for need in needs:
        of.setdefault((need.kind, need.target), {})[need.privilege] = None
    for (kind, target), privileges in of.items():
        yield f"GRANT {', '.join(privileges)} ON {kind} {target} TO {role}"
