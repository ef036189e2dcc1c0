"""A stand-in for TimescaleDB, which cannot be installed where the tests run: an extension that notes what it is asked.

Its functions have the names, parameters and refusals of the real one (2.28); chunks it has none.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

_CONTROL = "default_version = '2.28.0'\nrelocatable = false\n"
_SCRIPT = """
CREATE TABLE @extschema@.calls (id serial, call text);
CREATE SCHEMA timescaledb_information;
CREATE TABLE timescaledb_information.hypertables (
    hypertable_schema name, hypertable_name name, compression_enabled boolean DEFAULT false);
CREATE TABLE timescaledb_information.dimensions (
    hypertable_schema name, hypertable_name name, dimension_number bigint, time_interval interval);
CREATE TABLE timescaledb_information.jobs (
    hypertable_schema name, hypertable_name name, proc_name name, config jsonb);

CREATE FUNCTION @extschema@.create_hypertable(
    relation regclass, time_column_name name, chunk_time_interval anyelement DEFAULT NULL::bigint,
    create_default_indexes boolean DEFAULT true, if_not_exists boolean DEFAULT false,
    migrate_data boolean DEFAULT false) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    place record;
BEGIN
    SELECT n.nspname, c.relname INTO place FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.oid = relation;
    IF EXISTS (SELECT FROM timescaledb_information.hypertables WHERE hypertable_name = place.relname) THEN
        RAISE EXCEPTION 'table "%" is already a hypertable', place.relname USING ERRCODE = 'TS110';
    END IF;
    IF EXISTS (SELECT FROM pg_publication WHERE puballtables) THEN
        RAISE EXCEPTION 'publication FOR ALL TABLES' USING ERRCODE = 'TS101';
    END IF;
    IF EXISTS (SELECT FROM pg_index i WHERE i.indrelid = relation AND indisunique AND NOT EXISTS (
            SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
               AND a.attname = time_column_name)) THEN
        RAISE EXCEPTION 'cannot create a unique index without the column "%" (used in partitioning)', time_column_name
            USING ERRCODE = 'TS103', HINT = 'Make it part of the key.';
    END IF;
    EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', relation, time_column_name);
    IF create_default_indexes THEN
        EXECUTE format('CREATE INDEX ON %s (%I DESC)', relation, time_column_name);
    END IF;
    INSERT INTO timescaledb_information.hypertables VALUES (place.nspname, place.relname);
    INSERT INTO timescaledb_information.dimensions
         VALUES (place.nspname, place.relname, 1, chunk_time_interval::text::interval);
    INSERT INTO @extschema@.calls (call) VALUES (format('create_hypertable %s %s', relation, chunk_time_interval));
END
$$;
CREATE FUNCTION @extschema@.set_chunk_time_interval(hypertable regclass, chunk_time_interval anyelement) RETURNS void
LANGUAGE sql AS $$
    UPDATE timescaledb_information.dimensions SET time_interval = chunk_time_interval::text::interval
     WHERE hypertable_name = (SELECT relname FROM pg_class WHERE oid = hypertable);
    INSERT INTO @extschema@.calls (call)
         VALUES (format('set_chunk_time_interval %s %s', hypertable, chunk_time_interval));
$$;
CREATE FUNCTION @extschema@.add_retention_policy(relation regclass, drop_after interval) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO timescaledb_information.jobs SELECT n.nspname, relname, 'policy_retention',
           jsonb_build_object('drop_after', drop_after) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.oid = relation;
    INSERT INTO @extschema@.calls (call) VALUES (format('add_retention_policy %s %s', relation, drop_after));
$$;
CREATE FUNCTION @extschema@.remove_retention_policy(relation regclass) RETURNS void
LANGUAGE sql AS $$
    DELETE FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention';
    INSERT INTO @extschema@.calls (call) VALUES (format('remove_retention_policy %s', relation));
$$;
CREATE PROCEDURE @extschema@.add_columnstore_policy(hypertable regclass, after interval)
LANGUAGE sql AS $$
    INSERT INTO timescaledb_information.jobs SELECT n.nspname, relname, 'policy_compression',
           jsonb_build_object('compress_after', after) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
     WHERE c.oid = hypertable;
    INSERT INTO @extschema@.calls (call) VALUES (format('add_columnstore_policy %s %s', hypertable, after));
$$;
CREATE PROCEDURE @extschema@.remove_columnstore_policy(hypertable regclass)
LANGUAGE sql AS $$
    DELETE FROM timescaledb_information.jobs WHERE proc_name = 'policy_compression';
    INSERT INTO @extschema@.calls (call) VALUES (format('remove_columnstore_policy %s', hypertable));
$$;
"""


def install(connection: psycopg.Connection[Any], folder: Path, schema: str) -> None:
    """Creates the extension, whose files go into ``folder``, in a schema of its own that is on no search_path."""
    files = folder / "extension"
    files.mkdir()
    for name, text in (("timescaledb.control", _CONTROL), ("timescaledb--2.28.0.sql", _SCRIPT)):
        (files / name).write_text(text)
        (files / name).chmod(0o644)
    files.chmod(0o755)
    connection.execute("SELECT set_config('extension_control_path', %s, false)", [str(folder)])
    place = sql.Identifier(schema)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(place))
    connection.execute(sql.SQL("CREATE EXTENSION timescaledb SCHEMA {}").format(place))


def calls(connection: psycopg.Connection[Any], schema: str) -> list[str]:
    """What it was asked since the last look."""
    gone = sql.SQL("WITH gone AS (DELETE FROM {} RETURNING *) SELECT call FROM gone ORDER BY id")
    return [call for (call,) in connection.execute(gone.format(sql.Identifier(schema, "calls")))]
