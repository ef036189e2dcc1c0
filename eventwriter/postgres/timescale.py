"""What `schema apply` asks of TimescaleDB. Its functions are called by the schema that the extension is in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from psycopg import Connection, sql

from eventwriter.postgres.steps import Step, Wanted

_DIRECTIVE = re.compile(r"^-- With TimescaleDB: hypertable by (\w+)$", re.MULTILINE)
_LARGE = 128 * 2**20
"""Bytes of a plain table that are moved in a second or two; meanwhile nobody else can use it."""
_COLUMNSTORE = (2, 18)
"""Since this version compression goes by that name."""

_EXTENSION = """
SELECT quote_ident(n.nspname), e.extversion FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
 WHERE e.extname = 'timescaledb'
"""
_OF_TABLE = "(hypertable_schema, hypertable_name) = (SELECT n.nspname, c.relname FROM pg_class c " \
    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(%s))"  # fmt: skip
_HYPERTABLE = f"SELECT compression_enabled FROM timescaledb_information.hypertables WHERE {_OF_TABLE}"
_INTERVAL = f"""
SELECT EXISTS (SELECT FROM timescaledb_information.dimensions
                WHERE {_OF_TABLE} AND dimension_number = 1 AND time_interval = %s::interval)
"""
_JOB = f"""
SELECT (config ->> %s)::interval = %s::interval FROM timescaledb_information.jobs WHERE {_OF_TABLE} AND proc_name = %s
"""
_KEYS_WITHOUT = """
SELECT i.indexrelid::regclass::text FROM pg_index i WHERE i.indrelid = to_regclass(%s) AND i.indisunique
   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attname = %s
                    AND a.attnum = ANY (i.indkey[:i.indnkeyatts - 1]))
"""


def time_column(text: str) -> str:
    """By what column the table of this definition is a hypertable; empty: it is none."""
    found = _DIRECTIVE.search(text)
    return found[1] if found else ""


def extension(connection: Connection[Any]) -> tuple[str, tuple[int, ...]] | None:
    """The extension's schema, quoted, and version; None if the database does not have it."""
    found = connection.execute(_EXTENSION).fetchone()
    return (found[0], tuple(int(part) for part in re.findall(r"\d+", found[1])[:2])) if found else None


def script(table: str, text: str) -> str:
    """The definition as psql runs it on any database: with TimescaleDB the table becomes a hypertable."""
    column = time_column(text)
    if not column:
        return text
    return f"""{text}
DO $$
DECLARE
    -- The functions are in the extension's schema, which need not be on the search_path.
    home text := (SELECT quote_ident(nspname) FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace
                   WHERE extname = 'timescaledb');
BEGIN
    IF home IS NOT NULL THEN
        EXECUTE 'SELECT ' || home || $call$.{_arguments(table, column)}$call$;
    END IF;
EXCEPTION WHEN OTHERS THEN
    RAISE WARNING '{table} stays a plain table: %', SQLERRM;
END
$$;
"""


def _arguments(table: str, column: str, interval: str = "") -> str:
    more = f", chunk_time_interval => INTERVAL '{interval}'" if interval else ""
    # The definition makes the index on time itself, where the primary key does not serve.
    return (
        f"create_hypertable('{table}', '{column}', if_not_exists => true, migrate_data => true, "
        f"create_default_indexes => false{more})"
    )


def steps(connection: Connection[Any], table: str, text: str, wanted: Wanted, new: bool = False) -> Iterator[Step]:
    """Makes it a hypertable with the policies that are wanted, as far as it is not; nothing without the extension."""
    column = time_column(text)
    found = extension(connection) if column else None
    if found is None:
        for option in wanted.policies if column else ():
            yield Step(said=f"{option} needs TimescaleDB, which this database does not have", failing=True)
        return
    home, version = found
    compressed = None if new else _hypertable(connection, table)
    if compressed is None:
        if not new and not wanted.migrate_data and _size(connection, table) > _LARGE:
            yield Step(
                said=f"{table} stays a plain table, for it has many rows: `eventwriter schema apply --migrate-data` "
                "moves them into a hypertable, and nobody else can use the table meanwhile"
            )
            yield from _unfulfilled(table, wanted)
            return
        call = f"SELECT {home}.{_arguments(table, column, wanted.chunk_interval)}"
        yield Step(call, f"{table} is a hypertable now", otherwise=f"{table} stays a plain table")
        if not wanted.dry_run and _hypertable(connection, table) is None:
            yield from _unfulfilled(table, wanted)
            return
    elif wanted.chunk_interval and not _holds(connection, _INTERVAL, table, wanted.chunk_interval):
        call = f"SELECT {home}.set_chunk_time_interval('{table}', INTERVAL '{wanted.chunk_interval}')"
        yield Step(call, f"{table} gets a chunk for each {wanted.chunk_interval} from now on")
    yield from _policies(connection, table, wanted, home, version, bool(compressed))


def _unfulfilled(table: str, wanted: Wanted) -> Iterator[Step]:
    for option in wanted.policies:
        yield Step(said=f"{option} needs a hypertable, which {table} is not", failing=True)


def _policies(
    connection: Connection[Any], table: str, wanted: Wanted, home: str, version: tuple[int, ...], compressed: bool
) -> Iterator[Step]:
    new = version >= _COLUMNSTORE
    if wanted.compress_after:
        names = ("columnstore", "after") if new else ("compression", "compress_after")
        verb = "CALL" if new else "SELECT"
        if not compressed:
            option = "timescaledb.enable_columnstore" if new else "timescaledb.compress"
            yield Step(f"ALTER TABLE {table} SET ({option} = true)")
        remove = f"{verb} {home}.remove_{names[0]}_policy('{table}')"
        add = f"{verb} {home}.add_{names[0]}_policy('{table}', {names[1]} => INTERVAL '{wanted.compress_after}')"
        said = f"chunks of {table} are compressed after {wanted.compress_after}"
        yield from _replaced(connection, table, "compress_after", wanted.compress_after, "policy_compression",
                             Step(remove), Step(add, said))  # fmt: skip
    if wanted.retention:
        remove = f"SELECT {home}.remove_retention_policy('{table}')"
        add = f"SELECT {home}.add_retention_policy('{table}', drop_after => INTERVAL '{wanted.retention}')"
        said = f"chunks of {table} are dropped after {wanted.retention}"
        yield from _replaced(connection, table, "drop_after", wanted.retention, "policy_retention",
                             Step(remove), Step(add, said))  # fmt: skip


def _replaced(
    connection: Connection[Any], table: str, key: str, interval: str, job: str, remove: Step, add: Step
) -> Iterator[Step]:
    """The policy, unless the table has it; if it has another one, that goes before."""
    found = connection.execute(_JOB, [key, interval, table, job]).fetchone()
    if found != (True,):
        if found:
            yield remove
        yield add


def _hypertable(connection: Connection[Any], table: str) -> bool | None:
    """Whether chunks of the table may be compressed; None if it is no hypertable."""
    found = connection.execute(_HYPERTABLE, [table]).fetchone()
    return bool(found[0]) if found else None


def _holds(connection: Connection[Any], query: str, *values: object) -> bool:
    return connection.execute(sql.SQL(query), values).fetchone() == (True,)


def _size(connection: Connection[Any], table: str) -> int:
    found = connection.execute("SELECT pg_table_size(to_regclass(%s))", [table]).fetchone()
    return int(found[0]) if found and found[0] is not None else 0


def index_steps(
    connection: Connection[Any], table: str, kind: str, name: str, unique: str, made: str, broken: bool
) -> Iterator[Step]:
    """Builds an index of a table with rows while others write; what is left of an earlier try goes before.

    ``name`` is quoted, and empty where PostgreSQL is to find one.
    """
    if kind == "p":
        yield Step(said=f"{table} has no index on {made}: build it on each partition, then on the table", failing=True)
        return
    chunked = extension(connection) is not None and _hypertable(connection, table) is not None
    beside = "" if chunked else "CONCURRENTLY "
    if chunked:  # which do not do it concurrently; chunk by chunk only the writers of one wait
        made, where, condition = made.partition(" WHERE ")
        made = f"{made} WITH (timescaledb.transaction_per_chunk){where}{condition}"
    if broken:
        yield Step(f"DROP INDEX {beside}IF EXISTS {name}", alone=True)
    named = name and f"IF NOT EXISTS {name} "
    shown = name.strip('"') or made
    yield Step(
        f"CREATE {unique}INDEX {beside}{named}ON {table} USING {made}", f"added index {shown} to {table}", alone=True
    )


def hindrance(connection: Connection[Any], table: str, column: str, sqlstate: str | None) -> str:
    """What to do about a table that could not become a hypertable; empty if that is not known."""
    if sqlstate == "23502":
        return f"rows without a time keep it from that: DELETE FROM {table} WHERE {column} IS NULL, then run this again"
    if lacking := connection.execute(_KEYS_WITHOUT, [table, column]).fetchone():
        return f"{lacking[0]} is unique without {column}, which a hypertable needs in each unique index: replace it"
    all_tables = "SELECT string_agg(quote_ident(pubname), ', ') FROM pg_publication WHERE puballtables"
    if (published := connection.execute(all_tables).fetchone()) and published[0]:
        return (
            f"TimescaleDB takes no publication FOR ALL TABLES ({published[0]}): create it anew FOR TABLE …, "
            "then run this again"
        )
    return ""
