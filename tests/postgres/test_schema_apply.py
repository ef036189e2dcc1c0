"""`schema apply`: says before what it will do, does each table by itself, keeps nobody waiting, and names remedies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql

from boards import settings
from eventwriter.commands import schema_apply
from eventwriter.errors import SchemaError, UnavailableError, UsageError
from eventwriter.postgres.steps import Wanted, split
from fix_service import ROOT, wait_until
from tables import ALL, DECLARED, TABLES, apply, catalog


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def told(connection: psycopg.Connection[Any], line: list[str], **wanted: Any) -> None:
    """What a dry run prints is run by hand, and nothing is left to do."""
    before = catalog(connection)
    lines = apply(connection, dry_run=True, **wanted)
    assert catalog(connection) == before
    assert [each for each in line if not any(each in shown for shown in lines)] == []
    for statement in split("\n".join(lines)):
        connection.execute(sql.SQL(statement))
    assert not [each for each in apply(connection, dry_run=True, **wanted) if not each.endswith(": nothing to do")]
    assert apply(connection, **wanted) == ALL


def test_a_dry_run_prints_what_runs(db: psycopg.Connection[Any]) -> None:
    """On an empty database, for columns, indexes and keys that are missing, and where nothing is."""
    told(db, ["CREATE TABLE IF NOT EXISTS logs", "CREATE INDEX IF NOT EXISTS idx_logs_trace_id"])
    whole = catalog(db)
    db.execute("ALTER TABLE netflow_metrics DROP COLUMN octets; DROP INDEX idx_logs_trace_id")
    told(db, ['ALTER TABLE netflow_metrics ADD COLUMN "octets" bigint;', 'CREATE INDEX "idx_logs_trace_id" ON logs'])
    db.execute("ALTER TABLE events DROP CONSTRAINT events_pkey, ALTER source DROP NOT NULL, ALTER source DROP DEFAULT, "
               "ADD PRIMARY KEY (event_timestamp, id)")  # fmt: skip
    told(db, ["ALTER TABLE events DROP CONSTRAINT", "ADD PRIMARY KEY (event_timestamp, id, source);"], new_keys=True)
    db.execute("ALTER TABLE eventwriter.ledger DROP COLUMN comparing; DROP TABLE eventwriter.ledger_losses")
    told(db, ["ADD COLUMN IF NOT EXISTS comparing uuid", "CREATE TABLE IF NOT EXISTS eventwriter.ledger_losses"])
    assert {row[:7] for row in catalog(db)} == {row[:7] for row in whole}


def test_indexes_of_tables_with_rows_are_built_on_request(db: psycopg.Connection[Any]) -> None:
    """Beside an open transaction that wrote, which a usual CREATE INDEX would wait for; what broke off is replaced."""
    apply(db)
    whole = catalog(db)
    db.execute("INSERT INTO logs (timestamp) VALUES (now()); INSERT INTO otel_traces (timestamp) VALUES (now()); "
               "DROP INDEX idx_logs_trace_id, idx_logs_service_time, idx_otel_traces_trace_id")  # fmt: skip
    lines = apply(db)
    assert "logs has no index idx_logs_service_time (btree (service_name, \"timestamp\" DESC)): `eventwriter schema " \
        "apply --indexes` builds it beside the writers" in lines  # fmt: skip
    assert len(lines) == len(ALL) + 3
    db.execute("CREATE INDEX idx_logs_trace_id ON logs (trace_id) WHERE trace_id <> ''")
    db.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_logs_trace_id'::regclass")
    printed = [line for line in apply(db, indexes=True, dry_run=True) if line.endswith(";")]
    assert [line.partition(" ON ")[0].split('"')[0] for line in printed] == [
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS ", "DROP INDEX CONCURRENTLY IF EXISTS ",
        "CREATE INDEX CONCURRENTLY IF NOT EXISTS ", "CREATE INDEX CONCURRENTLY IF NOT EXISTS ",
    ]  # fmt: skip
    lines = apply(db, indexes=True)
    assert {line for line in lines if line.startswith("added")} == {
        "added index idx_logs_trace_id to logs", "added index idx_logs_service_time to logs",
        "added index idx_otel_traces_trace_id to otel_traces",
    }  # fmt: skip
    assert catalog(db) == whole
    assert db.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid").fetchone() == (0,)


@pytest.mark.parametrize("rows", [False, True])
def test_a_name_that_another_index_has_is_no_hindrance(db: psycopg.Connection[Any], rows: bool) -> None:
    """That of a table which was renamed keeps it: a new table, or one that lacks some, gets others."""
    made = "SELECT count(*) FROM pg_index WHERE indrelid = 'logs'::regclass"
    apply(db)
    whole = db.execute(made).fetchone()
    db.execute("ALTER TABLE logs RENAME TO logs_before")
    assert apply(db) == ALL
    assert db.execute(made).fetchone() == whole
    for (index,) in db.execute("SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = 'logs'::regclass"):
        db.execute(sql.SQL(f"DROP INDEX {index}"))
    if rows:
        db.execute("INSERT INTO logs (timestamp) VALUES (now())")
    apply(db, indexes=rows)
    assert db.execute(made).fetchone() == whole
    assert apply(db, dry_run=True) == [f"-- {name}: nothing to do" for name in TABLES]


def test_where_there_is_no_schema_for_tables(db: psycopg.Connection[Any]) -> None:
    """The remedy names the search_path, which no grant makes better."""
    db.execute(sql.SQL("ALTER DATABASE {} SET search_path = nowhere").format(sql.Identifier(db.info.dbname)))
    with pytest.raises(SchemaError, match=r"\(3F000\): search_path names no schema that there is: create one, or set"):
        apply(db)
    db.execute("CREATE SCHEMA nowhere")
    assert apply(db) == ALL


def test_an_index_that_cannot_be_built_is_told(db: psycopg.Connection[Any]) -> None:
    """All else is done, and the next try finds what is left of this one."""
    apply(db)
    db.execute("DROP INDEX idx_logs_service_time; ALTER TABLE events DROP COLUMN host")
    db.execute("INSERT INTO logs (timestamp, service_name) SELECT now(), string_agg(gen_random_uuid()::text, '') "
               "FROM generate_series(1, 5000)")  # fmt: skip
    with pytest.raises(SchemaError, match=r"logs: index row .* \(54000\); 7 of 8 are applied"):
        apply(db, indexes=True)
    db.execute("DELETE FROM logs")
    assert "added index idx_logs_service_time to logs" in apply(db)


def test_one_that_cannot_be_extended_blocks_no_other(db: psycopg.Connection[Any]) -> None:
    """A view of that name, a table of another role, an event trigger that refuses one: each is named with its cause."""
    apply(db)
    whole = catalog(db)
    db.execute("""
        ALTER TABLE sweep_host_states DROP COLUMN hostname; ALTER TABLE events DROP COLUMN host;
        ALTER TABLE logs RENAME TO kept; CREATE VIEW logs AS SELECT * FROM kept;
        CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            IF current_query() LIKE 'ALTER TABLE sweep%' THEN
                RAISE EXCEPTION 'sweeps are sacred' USING DETAIL = 'By law.', HINT = 'Ask Ann.'; END IF; END $$;
        CREATE EVENT TRIGGER no_ddl ON ddl_command_start EXECUTE FUNCTION no();""")  # fmt: skip
    with pytest.raises(SchemaError) as caught:
        apply(db)
    assert str(caught.value) == (
        "sweep_host_states: sweeps are sacred (P0001): By law, hint: Ask Ann: the event trigger no_ddl refuses it: "
        "have it let this pass, or ALTER EVENT TRIGGER no_ddl DISABLE; 7 of 8 are applied"
    )
    db.execute("ALTER EVENT TRIGGER no_ddl DISABLE")
    lines = apply(db)
    assert "left logs as it is, for it is not ours (it is a view)" in lines
    assert "added column hostname to sweep_host_states" in lines
    assert not [line for line in lines if "events" in line and line != "applied events"], "that was done before"
    db.execute("DROP VIEW logs; ALTER TABLE kept RENAME TO logs")
    assert {row[:7] for row in catalog(db)} == {row[:7] for row in whole}


GRANT = re.compile(r"GRANT [A-Z, ]+ ON (?:DATABASE|SCHEMA) \w+ TO \w+")


def refused(connection: psycopg.Connection[Any]) -> list[str]:
    """The grants that `schema apply` says a role lacks; empty once there is nothing that it cannot do."""
    try:
        while apply(connection, user="maker") != ALL:
            pass
    except SchemaError as error:
        return sorted({*GRANT.findall(str(error))}) or [f"none is named: {error}"]
    return []


def test_remedies_for_a_role_without_rights_work(db: psycopg.Connection[Any]) -> None:
    """What a message says is granted, until nothing is lacking; whatever the language of PostgreSQL's own words."""
    db.execute("CREATE ROLE maker LOGIN; REVOKE ALL ON SCHEMA public FROM PUBLIC")
    db.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(db.info.dbname)))
    db.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO maker").format(sql.Identifier(db.info.dbname)))
    granted: list[str] = []
    try:
        for prepare in ("SELECT", "ALTER TABLE events DROP COLUMN host", "DROP INDEX idx_logs_trace_id"):
            db.execute(prepare)
            while lacking := refused(db):
                assert not {*lacking} & {*granted}, "granted, and still lacking"
                for grant in lacking:
                    db.execute(sql.SQL(grant))
                granted += lacking
        name = db.info.dbname
        assert granted == [
            f"GRANT CREATE ON DATABASE {name} TO maker", "GRANT USAGE, CREATE ON SCHEMA public TO maker",
            f"GRANT TEMPORARY ON DATABASE {name} TO maker",
        ]  # fmt: skip
        db.execute("ALTER TABLE logs OWNER TO postgres; ALTER TABLE logs DROP COLUMN body")
        for dry_run, end in ((True, "7 of 8 can be applied"), (False, "7 of 8 are applied")):
            with pytest.raises(
                SchemaError, match=rf"^logs: (.* \(42501\): )?run this as postgres, who owns logs; {end}"
            ):
                apply(db, user="maker", dry_run=dry_run)
        db.execute("DROP SCHEMA eventwriter CASCADE; CREATE SCHEMA eventwriter")
        with pytest.raises(SchemaError, match=r"eventwriter: .*: GRANT USAGE, CREATE ON SCHEMA eventwriter TO maker"):
            apply(db, user="maker", ledger_only=True)
    finally:
        db.execute("DROP OWNED BY maker; DROP ROLE maker")


def test_locks_keep_nobody_waiting(db: psycopg.Connection[Any]) -> None:
    """Where nothing is to be done, none is needed; a table that is in use is named, with who uses it, and the others
    are done; whoever writes meanwhile waits for a try, not for its end."""
    apply(db)
    with psycopg.connect(db.info.dsn, application_name="a long one") as other:
        for name in TABLES[1:]:
            other.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(name)))
        other.execute("SELECT FROM eventwriter.ledger FOR UPDATE; SELECT FROM eventwriter.dead_letters")
        assert apply(db, lock_wait=0) == ALL
        other.rollback()
        db.execute("ALTER TABLE netflow_metrics DROP COLUMN octets; ALTER TABLE events DROP COLUMN host; "
                   "ALTER TABLE eventwriter.ledger DROP COLUMN comparing")  # fmt: skip
        other.execute("INSERT INTO netflow_metrics (timestamp) VALUES (now()); SELECT FROM eventwriter.ledger")
        with pytest.raises(UnavailableError) as caught:
            apply(db, lock_wait=0)
        assert str(caught.value).startswith("6 of 8 are applied; could not be:\neventwriter: ")
        assert re.search(
            rf"\nnetflow_metrics: .*\(55P03\): it needs a lock, held by process {other.info.backend_pid} "
            r"\(a long one, idle in transaction for \d+ s\): run it again when that has ended",
            str(caught.value),
        )
        assert db.execute("SELECT host FROM events").fetchall() == []
        db.execute("SET statement_timeout = '20s'; INSERT INTO netflow_metrics (timestamp) VALUES (now())")
    assert "added column octets to netflow_metrics" in apply(db, lock_wait=0)


def test_writers_go_on_while_a_lock_is_tried_for(db: psycopg.Connection[Any], database: str) -> None:
    """Of the table that is in use and of those that were changed already; once it is let go it is taken."""
    apply(db)
    db.execute("ALTER TABLE netflow_metrics DROP COLUMN octets; ALTER TABLE events DROP COLUMN host")
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'netflow_metrics'::regclass"
    with psycopg.connect(database) as other, ThreadPoolExecutor() as pool:
        other.execute("LOCK TABLE netflow_metrics IN ROW EXCLUSIVE MODE")
        applying = pool.submit(apply, db, lock_wait=600)
        wait_until(lambda: db.execute(waits).fetchone() == (1,), "the first try")
        db.execute("INSERT INTO netflow_metrics (timestamp) VALUES (now())")
        db.execute("INSERT INTO events (event_timestamp, id) VALUES (now(), '1')")
        assert db.execute("SELECT host FROM events").fetchone() == (None,)
        assert not applying.done()
        other.rollback()
        assert "added column octets to netflow_metrics" in applying.result()


def test_two_at_a_time_are_one_after_the_other(db: psycopg.Connection[Any], database: str) -> None:
    """On an empty database, where they would meet in the catalog; one that does not end is told."""
    with ThreadPoolExecutor() as pool:
        told = [each.result() for each in [pool.submit(apply, db) for _ in range(3)]]
    assert sorted(len(lines) for lines in told) == [len(ALL), len(ALL), len(ALL) + 1]
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(hashtext('eventwriter schema'))")
        with pytest.raises(UnavailableError, match="another `eventwriter schema apply` is at work"):
            apply(db, lock_wait=0.2)


def test_only_what_is_named(db: psycopg.Connection[Any]) -> None:
    """--only for tables, --ledger-only where the tables belong to somebody else."""
    assert apply(db, "logs", "SWEEP") == ["applied logs", "applied sweep_host_states"]
    assert {row[0] for row in catalog(db)} == {"public"}
    assert apply(db, ledger_only=True)[-1] == "applied eventwriter"
    assert {row[1] for row in catalog(db) if row[0] == "public" and row[2] == "r"} == {"logs", "sweep_host_states"}
    with pytest.raises(UsageError, match="there is no stream ALERTS; the streams are EVENTS"):
        apply(db, "ALERTS")
    for variable, value, why in (
        ("STREAMS__LOGS__ENABLED", "false", "the stream LOGS is not enabled"),
        ("STREAMS__LOGS__TABLE", "app_logs", "streams.LOGS.table names a table that is not ours"),
    ):
        with pytest.raises(UsageError, match=why):
            list(schema_apply.apply(settings(**{variable: value}), DECLARED, Wanted(only=("LOGS",))))


def test_what_the_document_shows_runs(db: psycopg.Connection[Any]) -> None:
    """DELETE takes old rows and no others; the partitioned table is one of ours, and its rows are found in it."""
    delete, partitions = re.findall(r"```sql\n(.*?)```", (ROOT / "docs" / "tables.md").read_text(), re.DOTALL)
    apply(db)
    db.execute("INSERT INTO logs (timestamp) SELECT now() - n * interval '1 day' FROM generate_series(0, 59) n")
    assert db.execute(delete).rowcount == 30
    assert db.execute(delete).rowcount == 0
    db.execute(partitions)
    db.execute("INSERT INTO logs (timestamp, body) VALUES (now(), 'new')")
    assert apply(db) == ALL
    assert db.execute("SELECT body FROM logs").fetchall() == [("new",)]
    db.execute("ALTER TABLE logs DROP COLUMN service_name")
    with pytest.raises(SchemaError, match=r"logs: logs has no index on btree .*: build it on each partition"):
        apply(db, indexes=True)
    assert "service_name" in [row[3] for row in catalog(db) if row[1] == "logs"]


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("-- a; b\nSELECT 1; -- c;\n\nSELECT 2\n", ["SELECT 1", "SELECT 2"]),
        ("DO $$ BEGIN; END $$;\nDO $x$ SELECT $$;$$; $x$;", ["DO $$ BEGIN; END $$", "DO $x$ SELECT $$;$$; $x$"]),
        ("SELECT 'it''s; --', \";\"; /* ; */ SELECT /* ; */ 2;", ["SELECT 'it''s; --', \";\"", "SELECT /* ; */ 2"]),
        ("", []),
        (" -- nothing;", []),
    ],
)
def test_a_file_is_run_by_statements(text: str, statements: list[str]) -> None:
    """Wherever semicolons stand that end none."""
    assert [*split(text)] == statements
