"""Why PostgreSQL refuses a statement of `schema apply`, and what to do about it, asked of its catalog.

Not of the words of the message, which are in the language of lc_messages.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import Connection, sql

from eventwriter.config import dsn
from eventwriter.errors import UnavailableError, listed
from eventwriter.postgres.errors import explained

LOCKED = ("55P03", "40P01")
"""SQLSTATE of who does not get a lock: not in time, or in a circle."""

_OWNERS = """
SELECT DISTINCT format('run this as %%I, who owns %%s', r.rolname, CASE WHEN %s THEN 'schema eventwriter or its tables'
       ELSE c.oid::regclass::text END)
  FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
 WHERE (c.oid = to_regclass(%s) OR (%s AND c.relnamespace = to_regnamespace('eventwriter') AND c.relkind IN ('r', 'v')))
   AND NOT pg_has_role(c.relowner, 'USAGE')
"""
# The definition of a table that is there is compared as a temporary one.
_DATABASE = """
SELECT format('GRANT %%s ON DATABASE %%I TO %%I', wanted, current_database(), current_user)
  FROM (VALUES ('CREATE', %s AND to_regnamespace('eventwriter') IS NULL),
               ('TEMPORARY', to_regclass(%s) IS NOT NULL)) need (wanted, needed)
 WHERE needed AND NOT has_database_privilege(current_database(), wanted)
"""
# Where a table is, or would be made: has_schema_privilege() with two privileges is true if there is one of them.
_SCHEMA = """
SELECT format('GRANT USAGE, CREATE ON SCHEMA %%I TO %%I', nspname, current_user) FROM pg_namespace
 WHERE oid = ANY(%s::oid[])
   AND NOT (has_schema_privilege(oid, 'USAGE') AND has_schema_privilege(oid, 'CREATE'))
"""
_PLACE = """
SELECT coalesce((SELECT array[relnamespace] FROM pg_class WHERE oid = to_regclass(%s)),
                (SELECT array_agg(oid) FROM pg_namespace WHERE nspname = ANY(string_to_array(%s, ','))))
"""
_PATH = """
SELECT n.nspname FROM unnest(string_to_array(current_setting('search_path'), ',')) WITH ORDINALITY p (name, place)
  JOIN pg_namespace n ON n.nspname = replace(trim(both ' "' FROM p.name), '$user', current_user) ORDER BY place LIMIT 1
"""
_HOLDERS = """
SELECT DISTINCT format('process %%s (%%s, %%s for %%s s)', a.pid, coalesce(nullif(a.application_name, ''), a.usename),
       coalesce(a.state, 'state unknown'),
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start)::integer::text, '?'))
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.granted AND l.pid <> pg_backend_pid() AND (l.relation = to_regclass(%s)
    OR (%s AND l.relation IN (SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('eventwriter'))))
"""
_EVENT_TRIGGERS = """
SELECT evtname, proname FROM pg_event_trigger JOIN pg_proc p ON p.oid = evtfoid WHERE evtenabled <> 'D'
"""


def told(error: psycopg.Error) -> str:
    """What PostgreSQL says, with its DETAIL and HINT, in one line."""
    diag = error.diag
    if error.sqlstate is None:
        return " ".join(dsn.told(error).split())
    primary = f"{(diag.message_primary or str(error)).rstrip('.')} ({error.sqlstate})"
    return explained(error.sqlstate, primary, diag.message_detail, diag.message_hint, diag.constraint_name)


def remedy(connection: Connection[Any], error: psycopg.Error, table: str) -> str:
    """What to do about it, ``table`` being what the statement was for; empty if nothing is known.

    Of the transaction in which it was raised nothing is left: it asks the catalog.
    """
    own = table == "eventwriter"
    if error.sqlstate in LOCKED:
        holders = _column(connection, _HOLDERS, [table, own])
        by = f", held by {listed(holders, 3)}" if holders else ""
        return f"it needs a lock{by}: run it again when that has ended, or with a longer --lock-wait"
    if triggers := _event_triggers(connection, error):
        names = listed(triggers)
        return f"the event trigger {names} refuses it: have it let this pass, or ALTER EVENT TRIGGER {names} DISABLE"
    if error.sqlstate in ("42501", "3F000"):
        elsewhere = (
            "search_path names no schema that there is: create one, or set options=-csearch_path=… in postgres.dsn"
        )
        return "; ".join(_privileges(connection, table, own)) or (elsewhere if error.sqlstate == "3F000" else "")
    if error.sqlstate == "25006":
        return "it can only be done on the primary: see target_session_attrs in postgres.dsn"
    return ""


def lacking(connection: Connection[Any], table: str) -> str:
    """What the role lacks for changing a table, or for making it, before that is tried."""
    own = table == "eventwriter"
    there = "SELECT 1 WHERE to_regclass(%s) IS NOT NULL"
    if _column(connection, there, ["eventwriter.ledger" if own else table]):
        return "; ".join(_column(connection, _OWNERS, [own, table, own]))
    return "; ".join(_privileges(connection, table, own))


def _privileges(connection: Connection[Any], table: str, own: bool) -> list[str]:
    """What the role lacks: whose it is, else the grants, as statements."""
    if owners := _column(connection, _OWNERS, [own, table, own]):
        return owners  # who alone may change it, whatever is granted
    path = "eventwriter" if own else _creates_in(connection)
    place = _column(connection, _PLACE, [None if own else table, path])
    schemas = _column(connection, _SCHEMA, [place[0] if place else []])
    return [*_column(connection, _DATABASE, [own, None if own else table]), *schemas]


def _creates_in(connection: Connection[Any]) -> str:
    """The first schema of the search_path that there is, whether or not we may use it, as PostgreSQL passes over it."""
    found = _column(connection, _PATH, [])
    return str(found[0]) if found else ""


def _event_triggers(connection: Connection[Any], error: psycopg.Error) -> list[str]:
    """Those whose functions raised the error."""
    context = error.diag.context or ""
    found = connection.execute(_EVENT_TRIGGERS).fetchall()
    return [str(name) for name, function in found if f"{function}(" in context]


def _column(connection: Connection[Any], query: str, values: list[Any]) -> list[Any]:
    return [row[0] for row in connection.execute(sql.SQL(query), values)]


def no_lock(seconds: float) -> UnavailableError:
    """Another `schema apply` is at work, and does not end."""
    return UnavailableError(
        f"another `eventwriter schema apply` is at work on this database, since more than {seconds:g} s"
    )
