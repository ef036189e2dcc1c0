"""`schema apply` in process, and what a database has then."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import conninfo

from boards import settings
from eventwriter import registry
from eventwriter.commands import schema_apply
from eventwriter.postgres.steps import Wanted

DECLARED = registry.load()
TABLES = ["eventwriter", *sorted(stream.table for stream in DECLARED.values())]
ALL = [f"applied {name}" for name in TABLES]
"""What it says where nothing is to be done."""
_CATALOG = """
SELECT n.nspname, c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
       pg_get_expr(d.adbin, d.adrelid), CASE WHEN c.relkind = 'i' THEN pg_get_indexdef(c.oid) END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE n.nspname IN ('public', 'eventwriter') ORDER BY 1, 2, 4
"""


def apply(
    connection: psycopg.Connection[Any], *only: str, user: str = "postgres", lock_wait: float = 30, **wanted: Any
) -> list[str]:
    """`schema apply` with these options, for the database of a connection; what it says."""
    found = settings(POSTGRES__DSN=conninfo.make_conninfo(connection.info.dsn, user=user))
    return list(schema_apply.apply(found, DECLARED, Wanted(only=only, **wanted), lock_wait=lock_wait))


def catalog(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """All that the database has of tables and indexes."""
    return connection.execute(_CATALOG).fetchall()
