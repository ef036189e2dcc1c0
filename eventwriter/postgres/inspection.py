"""What a live table has that decides what becomes of rows: read for whoever asks, before any row is written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import namedtuple_row

from eventwriter.postgres.plan import Plan

PARTS = """parts AS (SELECT %(table)s::regclass::oid AS oid UNION SELECT c.oid
  FROM pg_inherits i JOIN parts ON i.inhparent = parts.oid JOIN pg_class c ON c.oid = i.inhrelid
 WHERE c.relnamespace <> coalesce(to_regnamespace('_timescaledb_internal')::oid, 0))"""
"""A table and what rows may be handed down to; a chunk has nothing of its own. For WITH RECURSIVE."""

_RELATION = f"""WITH RECURSIVE {PARTS}
SELECT c.relkind::text AS kind, row_security_active(c.oid) AS secured,
  ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY 1) AS policies,
  EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polpermissive AND polcmd IN ('a', '*') AND EXISTS (
    SELECT FROM unnest(polroles) r WHERE r = 0 OR pg_has_role(r, 'USAGE'))) AS permitted, current_user AS role,
  EXISTS (SELECT FROM pg_class p JOIN parts USING (oid) WHERE p.relpersistence = 'u' AND p.relkind = 'r') AS unlogged,
  ARRAY(SELECT oid::regclass::text FROM pg_class JOIN parts USING (oid) WHERE relkind = 'f' ORDER BY 1) AS foreign,
  (SELECT count(*) - 1 FROM parts) AS partitions,
  ARRAY(SELECT p.partrelid::regclass::text FROM pg_partitioned_table p JOIN parts ON p.partrelid = parts.oid
         WHERE p.partstrat <> 'h' AND p.partdefid = 0 ORDER BY 1) AS without_default
  FROM pg_class c WHERE c.oid = %(table)s::regclass"""

# Of its own: to plan it takes ten times as long as all the others.
_PUBLICATIONS = f"""WITH RECURSIVE {PARTS}
SELECT DISTINCT p.pubname::text AS name FROM pg_publication p JOIN pg_publication_tables t USING (pubname)
  JOIN pg_namespace n ON n.nspname = t.schemaname
  JOIN pg_class c ON (c.relnamespace, c.relname) = (n.oid, t.tablename) JOIN parts ON parts.oid = c.oid
 WHERE p.pubupdate
   AND EXISTS (SELECT FROM pg_class leaf JOIN parts USING (oid) WHERE leaf.relkind = 'r' AND NOT CASE
    leaf.relreplident WHEN 'f' THEN true WHEN 'n' THEN false ELSE EXISTS (SELECT FROM pg_index i
      WHERE i.indrelid = leaf.oid AND CASE leaf.relreplident WHEN 'i' THEN i.indisreplident
      ELSE i.indisprimary AND i.indimmediate END) END) ORDER BY 1"""

_COLUMNS = """
SELECT a.attname::text AS name, format_type(a.atttypid, a.atttypmod) AS type,
       CASE WHEN a.attidentity = 'a' THEN 'an identity of its own' WHEN a.attidentity <> '' THEN 'an identity'
            WHEN a.attgenerated <> '' THEN 'generated'
            ELSE coalesce(pg_get_expr(d.adbin, d.adrelid), 'NULL') END AS value
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

# Of an index that a partition has of its parent, the parent's alone.
_KEYS = f"""WITH RECURSIVE {PARTS}
SELECT i.indexrelid::regclass::text AS name,
       (SELECT string_agg(pg_get_indexdef(i.indexrelid, n, false), ', ' ORDER BY n)
          FROM generate_series(1, i.indnkeyatts) n) AS columns,
       pg_get_expr(i.indpred, i.indrelid) AS condition, i.indisexclusion AS exclusion, NOT i.indimmediate AS deferrable,
       i.indexprs IS NULL AND i.indpred IS NULL AND NOT i.indisexclusion AS plain,
       CASE WHEN i.indrelid <> %(table)s::regclass THEN i.indrelid::regclass::text END AS partition
  FROM pg_index i JOIN parts ON i.indrelid = parts.oid
 WHERE (i.indisunique OR i.indisexclusion) AND NOT EXISTS (SELECT FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
 ORDER BY i.indisprimary DESC, 1"""

_CONSTRAINTS = f"""WITH RECURSIVE {PARTS}
SELECT DISTINCT CASE c.contype WHEN 'c' THEN 'check ' ELSE 'foreign key ' END || c.conname AS name
  FROM pg_constraint c JOIN parts ON c.conrelid = parts.oid
 WHERE c.contype IN ('c', 'f') AND c.conparentid = 0 ORDER BY 1"""

# Bits of tgtype: 1 each row, 2 before, 4 insert, 16 update, 64 instead of.
_TRIGGERS = f"""WITH RECURSIVE {PARTS}
SELECT DISTINCT t.tgname::text AS name, t.tgtype & 4 > 0 AS insert, t.tgtype & 16 > 0 AS update,
       t.tgtype & 64 > 0 AS instead, t.tgtype & 1 > 0 AS row,
       t.tgtype & 64 > 0 OR t.tgtype & 3 = 3 AS may_drop, p.prosecdef AS definer
  FROM pg_trigger t JOIN parts ON t.tgrelid = parts.oid JOIN pg_proc p ON p.oid = t.tgfoid
 WHERE NOT t.tgisinternal AND t.tgenabled IN ('O', 'A') AND t.tgname <> 'ts_insert_blocker' AND t.tgtype & 20 > 0
 ORDER BY 1"""

_RULES = f"""WITH RECURSIVE {PARTS}
SELECT DISTINCT r.rulename::text AS name, r.ev_type = '3' AS insert
  FROM pg_rewrite r JOIN parts ON r.ev_class = parts.oid
 WHERE r.rulename <> '_RETURN' AND r.ev_enabled IN ('O', 'A') AND r.ev_type IN ('2', '3') ORDER BY 1"""

# By way of JSON: what these views show differs from one release of TimescaleDB to the next.
_HYPERTABLE = """
SELECT coalesce((to_jsonb(h) ->> 'compression_enabled')::boolean, false) AS compressed,
       to_jsonb(h) ->> 'num_chunks' AS chunks,
       (SELECT string_agg(concat_ws(' of ', coalesce(d.it ->> 'time_interval', d.it ->> 'integer_interval',
          (d.it ->> 'num_partitions') || ' partitions'), d.column_name), ', ' ORDER BY d.dimension_number)
          FROM (SELECT *, to_jsonb(dimensions) AS it FROM timescaledb_information.dimensions) d
         WHERE (d.hypertable_schema, d.hypertable_name) = (h.hypertable_schema, h.hypertable_name)) AS dimensions
  FROM timescaledb_information.hypertables h
 WHERE (h.hypertable_schema, h.hypertable_name) = (SELECT n.nspname, c.relname FROM pg_class c
   JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %(table)s::regclass)"""


class Inspection(NamedTuple):
    """A table as it is now; the rows of each list have the columns of their query."""

    relation: Any
    publications: list[str]
    """Those by which rows of this table cannot be updated; empty where none will be."""
    columns: list[Any]
    keys: list[Any]
    constraints: list[str]
    triggers: list[Any]
    """Those that fire for an insertion or an update."""
    rules: list[Any]
    hypertable: Any
    """None if it is none."""


def inspect(connection: Connection[Any], plan: Plan) -> Inspection:
    """Reads the catalog; for tables that a plan could be made for."""
    values = {"table": plan.table.as_string(connection)}
    with connection.cursor(row_factory=namedtuple_row) as cursor:

        def read(query: str) -> list[Any]:
            return cursor.execute(query, values).fetchall()

        known = read("SELECT to_regclass('timescaledb_information.hypertables') AS hypertables")[0].hypertables
        hypertables = read(_HYPERTABLE) if known else []
        return Inspection(
            relation=read(_RELATION)[0],
            publications=[each.name for each in read(_PUBLICATIONS)] if plan.mode == "upsert" else [],
            columns=read(_COLUMNS),
            keys=read(_KEYS),
            constraints=[each.name for each in read(_CONSTRAINTS)],
            triggers=read(_TRIGGERS),
            rules=read(_RULES),
            hypertable=hypertables[0] if hypertables else None,
        )


def obstacles(plan: Plan, seen: Inspection) -> Iterator[str]:
    """What keeps every row out, with its remedy: PostgreSQL would tell only when it is asked to write one."""
    table, upsert = plan.table_name, plan.mode == "upsert"
    if seen.relation.kind == "v" and not any(each.instead and each.insert for each in seen.triggers):
        yield (
            f"{table} is a view, into which COPY takes an INSTEAD OF INSERT trigger: create one, or name the table "
            "behind it in the settings"
        )
    if seen.relation.secured and not seen.relation.permitted:
        yield (
            f"row-level security of table {table} has no policy by which role {seen.relation.role} may insert: create "
            f"one, or ALTER ROLE {seen.relation.role} BYPASSRLS"
        )
    if upsert and seen.rules:
        rules = ", ".join(each.name for each in seen.rules)
        yield (
            f"table {table} has rules, with which PostgreSQL lets no row replace another: "
            f"replace these by triggers: {rules}"
        )
    if seen.publications:
        publications = ", ".join(seen.publications)
        yield (
            f"table {table} has no replica identity, without which no row can be updated while it is published "
            f"({publications}): add a primary key, or ALTER TABLE {table} REPLICA IDENTITY FULL"
        )
