"""The privileges that eventwriter needs: the one table of them, what a role lacks, and the statements that give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from psycopg import Connection

from eventwriter.errors import TableError
from eventwriter.postgres.inspection import PARTS, inspect, obstacles
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
    "reader": {
        "ledger": ("SELECT",),
        "ledger_past": ("SELECT",),
        "ledger_losses": ("SELECT",),
        "dead_letter_messages": ("SELECT",),
        "dead_letter_records": ("SELECT",),
        "dead_letters": ("SELECT",),
        "schema_versions": ("SELECT",),
    },
    "operator": dict.fromkeys(("dead_letter_messages", "dead_letter_records"), (*_CHANGES, "DELETE")),
}
"""Role → our own table → what it must be allowed there."""
_REMOVING: dict[str, tuple[str, ...]] = {"dead_letter_messages": ("SELECT", "UPDATE", "DELETE")}
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

# What PostgreSQL runs with our rights for a row: defaults that we do not fill, generated columns, checks, expressions
# of indexes, policies. Functions of its own are not recorded.
_CALLED = f"""
WITH RECURSIVE {PARTS}, expressions AS (
  SELECT 'pg_attrdef'::regclass AS class, d.oid FROM pg_attrdef d JOIN parts ON d.adrelid = parts.oid
    JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.adrelid, d.adnum) WHERE a.attname <> ALL(%(filled)s)
  UNION ALL SELECT 'pg_constraint'::regclass, c.oid FROM pg_constraint c JOIN parts ON c.conrelid = parts.oid
    WHERE c.contype = 'c'
  UNION ALL SELECT 'pg_class'::regclass, i.indexrelid FROM pg_index i JOIN parts ON i.indrelid = parts.oid
  UNION ALL SELECT 'pg_policy'::regclass, p.oid FROM pg_policy p WHERE p.polrelid = %(table)s::regclass
    AND row_security_active(%(table)s::regclass))
SELECT DISTINCT 'FUNCTION', p.oid::int8,
       format('%%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), 'EXECUTE'
  FROM pg_depend d JOIN expressions e ON (d.classid, d.objid) = (e.class, e.oid)
  JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid
  JOIN pg_namespace n ON n.oid = p.pronamespace
UNION SELECT CASE s.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END, s.oid::int8,
       format('%%I.%%I', n.nspname, s.relname), CASE s.relkind WHEN 'S' THEN 'USAGE' ELSE 'SELECT' END
  FROM pg_depend d JOIN expressions e ON (d.classid, d.objid) = (e.class, e.oid)
  JOIN pg_class s ON d.refclassid = 'pg_class'::regclass AND s.oid = d.refobjid
   AND (s.relkind = 'S' OR e.class = 'pg_policy'::regclass AND s.oid NOT IN (SELECT oid FROM parts))
  JOIN pg_namespace n ON n.oid = s.relnamespace ORDER BY 1, 3
"""
# Where a row may be refused by a key, of the table or of what a trigger or a rule writes to, we look for one like it.
_COMPARES = f"""
WITH RECURSIVE {PARTS}
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
    shown: str = ""
    """The name for a person, if that is shorter."""

    def __str__(self) -> str:
        return f"{self.privilege} on {self.kind.lower()} {self.shown or self.target}"


def creation(connection: Connection[Any]) -> list[Need]:
    """What it takes to create our own schema and the streams' tables, the latter where they are looked for first, and
    to compare them with temporary ones when they are there."""
    rows = connection.execute(
        "SELECT 'SCHEMA', quote_ident(nspname), p, oid::int8 FROM pg_namespace, unnest(ARRAY['USAGE', 'CREATE']) p "
        "WHERE nspname = current_schema()"
    )
    return [*_on_database(connection, "CONNECT", "CREATE", "TEMPORARY"), *(Need(*row) for row in rows)]


def entrance(connection: Connection[Any]) -> Need:
    """What everybody needs who connects."""
    return next(_on_database(connection, "CONNECT"))


def session(connection: Connection[Any]) -> list[Need]:
    """What the writer needs to connect, for temporary tables, and to let PostgreSQL try rows by itself."""
    languages = connection.execute("SELECT oid::int8 FROM pg_language WHERE lanname = 'plpgsql'")
    return [
        *_on_database(connection, "CONNECT", "TEMPORARY"),
        *(Need("LANGUAGE", "plpgsql", "USAGE", oid) for (oid,) in languages),
    ]


def _on_database(connection: Connection[Any], *privileges: str) -> Iterator[Need]:
    row = connection.execute(
        "SELECT quote_ident(datname), oid::int8 FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    assert row is not None, "we are connected to it"
    return (Need("DATABASE", row[0], privilege, row[1]) for privilege in privileges)


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


def hidden(connection: Connection[Any], table: str) -> list[Need]:
    """The schemas in which a table of this name is, if it cannot be found for want of USAGE on them."""
    rows = connection.execute(
        "SELECT DISTINCT 'SCHEMA', quote_ident(n.nspname), 'USAGE', n.oid::int8 FROM pg_class c "
        "JOIN pg_namespace n ON n.oid = c.relnamespace, parse_ident(%(table)s) AS name "
        "WHERE c.relname = name[array_length(name, 1)] AND c.relkind IN ('r', 'p', 'v', 'f') AND "
        "CASE WHEN array_length(name, 1) > 1 THEN n.nspname = name[1] ELSE to_regclass(%(table)s) IS NULL AND "
        "position(n.nspname IN current_setting('search_path')) > 0 END AND NOT has_schema_privilege(n.oid, 'USAGE')",
        {"table": table},
    )
    return [Need(*row) for row in rows]


def of_table(connection: Connection[Any], plan: Plan) -> list[Need]:
    """What the writer needs for the table of a plan."""
    table = plan.table.as_string(connection)
    row = connection.execute(
        "SELECT c.oid::int8, format('%%I.%%I', n.nspname, c.relname), c.oid::regclass::text, n.oid::int8, "
        "quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE c.oid = %s::regclass",
        [table],
    ).fetchone()
    assert row is not None, "it has a plan"
    oid, name, shown, schema_oid, schema = row
    filled = [target.name for target in plan.targets]
    columns = {"INSERT": filled}
    if plan.mode == "upsert" or connection.execute(_COMPARES, {"table": table}).fetchone() == (True,):
        columns["SELECT"] = filled
    if plan.mode == "upsert":
        columns["UPDATE"] = [column for column in filled if column not in plan.keys[0]]
    found = [Need("SCHEMA", schema, "USAGE", schema_oid)]
    found += [Need("TABLE", name, privilege, oid, those, shown) for privilege, those in columns.items()]
    for kind, number, what, privilege in connection.execute(_CALLED, {"table": table, "filled": filled}):
        found.append(Need(kind, what, privilege, number))
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
    """Raises TableError if every row of a plan is kept out: a privilege is lacking, or the table takes none."""
    needs = [need for need in of_table(connection, plan) if need.privilege != "SELECT" or plan.mode == "upsert"]
    if lacks := lacking(connection, needs):
        raise TableError(lack(connection, lacks))
    for obstacle in obstacles(plan, inspect(connection, plan)):
        raise TableError(obstacle)


def see(connection: Connection[Any], table: str) -> None:
    """Raises TableError if a table cannot be found for want of USAGE on its schema."""
    if lacks := hidden(connection, table):
        raise TableError(lack(connection, lacks))


def lack(connection: Connection[Any], lacks: Sequence[Need]) -> str:
    """That the role of this connection lacks them, and the remedy."""
    row = connection.execute("SELECT quote_ident(current_user)").fetchone()
    role = row[0] if row else ""
    return f"role {role} lacks {', '.join(map(str, lacks))}: {'; '.join(grants(lacks, role))}"


def grants(needs: Iterable[Need], role: str) -> Iterator[str]:
    """The statements that give them to ``role``, one for each object."""
    of: dict[tuple[str, str], dict[str, None]] = {}
    for need in needs:
        of.setdefault((need.kind, need.target), {})[need.privilege] = None
    for (kind, target), privileges in of.items():
        yield f"GRANT {', '.join(privileges)} ON {kind} {target} TO {role}"
