"""What becomes of each row where that is not plain: tried by itself, or in a table with triggers and rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from psycopg import Connection, sql

from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import DOUBTFUL, FORBIDDEN, NOT_DATA, explained

MISCOUNTED = "EW001"
"""Our SQLSTATE for a row of which the table took none, or more than one."""

_RANGE = 1_000
"""Ordinals that one statement tries: each that is refused takes half a millisecond or more, and a statement has a time
limit, whatever a message brings."""
_FUNCTION = "pg_temp.eventwriter_insert_each(text, bigint, bigint, text[], text[], boolean)"
# Of the session, not of a schema: so it is always that of this release. Behind a pooler, of the transaction.
_DEFINITION = """
CREATE OR REPLACE FUNCTION pg_temp.eventwriter_insert_each(
    insert_sql text, first_ordinal bigint, last_ordinal bigint, about_rows text[], about_none text[], raised boolean)
RETURNS TABLE (ordinal bigint, code text, message text, detail text, hint text, constraint_name text)
LANGUAGE plpgsql AS $$
DECLARE
    firsts bigint[] := ARRAY[first_ordinal];
    lasts bigint[] := ARRAY[last_ordinal];
    depth integer := 1;
    first_one bigint;
    last_one bigint;
    middle bigint;
    took bigint;
    inserted bigint := 0;
    place text;
BEGIN
    WHILE depth > 0 LOOP
        first_one := firsts[depth];
        last_one := lasts[depth];
        depth := depth - 1;
        BEGIN
            EXECUTE insert_sql USING first_one, last_one;
            GET DIAGNOSTICS took = ROW_COUNT;
            IF took <> last_one - first_one + 1 THEN
                RAISE EXCEPTION '%', took USING ERRCODE = 'EW001';
            END IF;
            SET CONSTRAINTS ALL IMMEDIATE;
            inserted := inserted + took;
        EXCEPTION WHEN assert_failure OR OTHERS THEN
            GET STACKED DIAGNOSTICS place = PG_EXCEPTION_CONTEXT;
            -- Only the keyword is the same in all languages.
            IF left(SQLSTATE, 2) = ANY(about_none) AND SQLSTATE <> ALL(about_rows)
               AND NOT (raised AND split_part(place, E'\n', 1) ~ '\\mRAISE\\M') THEN
                RAISE;
            ELSIF first_one = last_one THEN
                ordinal := first_one;
                GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                    detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT, constraint_name = CONSTRAINT_NAME;
                RETURN NEXT;
            ELSE
                middle := (first_one + last_one) / 2;
                -- The lower half comes first: rows keep their order.
                firsts[depth + 1] := middle + 1;
                lasts[depth + 1] := last_one;
                firsts[depth + 2] := first_one;
                lasts[depth + 2] := middle;
                depth := depth + 2;
            END IF;
        END;
    END LOOP;
    ordinal := 0;
    message := inserted;
    RETURN NEXT;
END
$$"""

# Not pg_partition_tree(), which locks all of them.
_BYSTANDERS = """
WITH RECURSIVE parts AS (SELECT %(table)s::regclass::oid AS oid
                         UNION SELECT i.inhrelid FROM pg_inherits i JOIN parts ON i.inhparent = parts.oid)
SELECT ARRAY(SELECT DISTINCT 'trigger ' || t.tgname FROM pg_trigger t JOIN parts ON t.tgrelid = parts.oid
              WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgname <> 'ts_insert_blocker'
                AND (t.tgtype & 3 = 3 AND t.tgtype & 20 > 0 OR t.tgtype & 64 > 0)
             UNION ALL
             SELECT 'rule ' || r.rulename FROM pg_rewrite r JOIN parts ON r.ev_class = parts.oid
              WHERE r.rulename <> '_RETURN' AND r.ev_enabled <> 'D' ORDER BY 1 DESC),
       ARRAY(SELECT DISTINCT i.indexrelid::regclass::text FROM pg_index i
              WHERE i.indrelid = %(table)s::regclass AND (i.indisunique OR i.indisexclusion) ORDER BY 1)
"""


class Fate(NamedTuple):
    """Why a row that was tried by itself is not in the table."""

    code: str
    """SQLSTATE."""
    text: str
    took: int
    """How many rows the table took for it, if that is what is wrong: ``MISCOUNTED``."""


class Bystanders(NamedTuple):
    """What else has a say in what a table takes."""

    meddlers: tuple[str, ...]
    """Triggers and rules that may leave out a row, or write another one."""
    keys: tuple[str, ...]
    """Unique indexes and exclusion constraints."""


def insert_each(
    connection: BusyConnection, statement: str, last: int, *, policed: bool = False, raised: bool = False
) -> tuple[int, Mapping[int, Fate]]:
    """Runs ``statement``, which inserts the ordinals $1 to $2, over 1 … ``last``; how many rows the table took, and
    the fates of the others. Where it is ``policed``, what is not permitted is about a row.

    A range with such a row is cut in two, so k of them among n cost about k · log2(n / k) attempts, in one round trip
    for each thousand rows. Errors that are not about rows are raised; with ``raised``, not those that a trigger raises
    itself.
    """
    if connection.pooled or connection.execute("SELECT to_regprocedure(%s)", [_FUNCTION]).fetchone() == (None,):
        connection.execute(_DEFINITION)
    fates: dict[int, Fate] = {}
    inserted = 0
    about = [*DOUBTFUL, *([FORBIDDEN] if policed else [])]
    for first in range(1, last + 1, _RANGE):
        for ordinal, code, message, detail, hint, constraint in connection.execute(
            "SELECT * FROM pg_temp.eventwriter_insert_each(%s, %s, %s, %s, %s, %s)",
            [statement, first, min(first + _RANGE - 1, last), about, [*NOT_DATA], raised],
        ):
            if not ordinal:
                inserted += int(message)
            elif code == MISCOUNTED:
                fates[ordinal] = Fate(code, message, int(message))
            else:
                fates[ordinal] = Fate(code, explained(code, message, detail, hint, constraint), 0)
    if connection.pooled:
        connection.execute(sql.SQL("DROP FUNCTION {}").format(sql.SQL(_FUNCTION)))
    return inserted, fates


def bystanders(connection: Connection[Any], table: sql.Composable) -> Bystanders:
    """Those of a table and its partitions, as they are now."""
    row = connection.execute(_BYSTANDERS, {"table": table.as_string(connection)}).fetchone()
    assert row is not None, "an expression has a value"
    return Bystanders(*map(tuple, row))


def policed(connection: Connection[Any], table: sql.Composable) -> bool:
    """Whether row security applies to us there."""
    row = connection.execute("SELECT row_security_active(%s::regclass)", [table.as_string(connection)]).fetchone()
    return row == (True,)
