"""Hypertables: made wherever the extension is, with one index on time; what cannot be one stays a plain table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from psycopg import sql

import timescale as stand_in
from boards import settings
from eventwriter import cli, registry
from eventwriter.commands import schema_apply
from eventwriter.errors import SchemaError
from fix_service import ROOT
from tables import DECLARED, apply

HOME = "Time Scale"


@pytest.fixture
def db(database: str, open_folder: Path) -> Iterator[psycopg.Connection[Any]]:
    """A database with the stand-in, in a schema that needs quotes and is not on the search_path."""
    with psycopg.connect(database, autocommit=True) as connection:
        stand_in.install(connection, open_folder, HOME)
        yield connection


def time_indexes(connection: psycopg.Connection[Any]) -> dict[str, int]:
    """Table → how many indexes begin with its time."""
    return dict(
        connection.execute(
            "SELECT i.indrelid::regclass::text, count(*) FROM pg_index i JOIN timescaledb_information.hypertables "
            "ON i.indrelid::regclass::text = hypertable_name JOIN pg_attribute a ON a.attrelid = i.indrelid "
            "AND a.attnum = i.indkey[0] WHERE a.atttypid = 'timestamptz'::regtype GROUP BY 1"
        ).fetchall()
    )


def test_every_table_becomes_a_hypertable(db: psycopg.Connection[Any]) -> None:
    """Once, by `schema apply` and by the SQL that `schema sql` prints; each has one index that begins with its time."""
    names = sorted(stream.table for stream in DECLARED.values())
    lines = apply(db)
    assert [line for line in lines if "hypertable" in line] == [f"{name} is a hypertable now" for name in names]
    assert stand_in.calls(db, HOME) == [f"create_hypertable {name} " for name in names]
    assert time_indexes(db) == dict.fromkeys(names, 1)
    assert not [line for line in apply(db) if not line.startswith("applied")]
    for name, text in schema_apply.files(settings(), DECLARED):  # with a table that is one already it only warns
        db.execute(sql.SQL(text))
        assert ("hypertable by" in text) == (name != "eventwriter")
    assert stand_in.calls(db, HOME) == []
    db.execute("DROP TABLE logs; DELETE FROM timescaledb_information.hypertables WHERE hypertable_name = 'logs'")
    db.execute(sql.SQL(dict(schema_apply.files(settings(), DECLARED))["logs"]))
    assert stand_in.calls(db, HOME) == ["create_hypertable logs "]
    assert time_indexes(db)["logs"] == 1


def test_one_that_earlier_releases_made_keeps_its_index(db: psycopg.Connection[Any]) -> None:
    """It has the name that TimescaleDB gave it, and is not built a second time; a plain table of ours is moved."""
    apply(db, "LOGS")
    db.execute("ALTER INDEX idx_logs_timestamp RENAME TO logs_timestamp_idx")
    db.execute(registry.table_sql("events"))
    db.execute("INSERT INTO events (event_timestamp, id) VALUES (now(), '1')")
    assert apply(db, "LOGS", "EVENTS") == ["events is a hypertable now", "applied events", "applied logs"]
    assert time_indexes(db) == {"logs": 1, "events": 1}
    db.execute("CREATE INDEX ON events (event_timestamp DESC)")
    (told, _) = apply(db, "EVENTS")
    assert told == "events needs no index events_event_timestamp_idx, for its key begins with the time: DROP INDEX " \
        "events_event_timestamp_idx"  # fmt: skip
    db.execute(told.rpartition(": ")[2])
    assert apply(db, "EVENTS") == ["applied events"]


@pytest.mark.parametrize(
    ("stream", "hindrance", "why", "remedy"),
    [
        ("LOGS", "ALTER TABLE logs ALTER timestamp DROP NOT NULL; INSERT INTO logs (timestamp) VALUES (NULL), (now())",
         'column "timestamp" of relation "logs" contains null values (23502)',
         "DELETE FROM logs WHERE timestamp IS NULL"),
        ("SWEEP", "ALTER TABLE sweep_host_states DROP CONSTRAINT sweep_host_states_pkey, "
         "ALTER last_sweep_time DROP NOT NULL; INSERT INTO sweep_host_states VALUES ('1.2.3.4', 'g', 'a', 'p')",
         "contains null values", "DELETE FROM sweep_host_states WHERE last_sweep_time IS NULL"),
        ("TELEMETRY", "CREATE PUBLICATION everything FOR ALL TABLES", "(TS101)", "DROP PUBLICATION everything"),
        ("NETFLOW", "CREATE PUBLICATION \"Every Thing\" FOR ALL TABLES", '("Every Thing")',
         'DROP PUBLICATION "Every Thing"'),
    ],
    ids=["no time", "no time and no key", "publication", "publication with a strange name"],
)  # fmt: skip
def test_what_keeps_a_table_plain_is_told(
    db: psycopg.Connection[Any], stream: str, hindrance: str, why: str, remedy: str
) -> None:
    """With a remedy that works; everything else about the table is done. Asked for a policy, that is an error."""
    table = DECLARED[stream].table
    db.execute(registry.table_sql(table))
    db.execute(hindrance)
    db.execute(f"ALTER TABLE {table} DROP COLUMN metadata" if stream != "LOGS" else "ALTER TABLE logs DROP COLUMN data")
    added, *_, plain, applied = apply(db, stream)
    assert added.startswith("added column ")
    assert plain.startswith(f"{table} stays a plain table: ")
    assert why in plain
    assert applied == f"applied {table}"
    with pytest.raises(SchemaError, match=f"--retention needs a hypertable, which {table} is not"):
        apply(db, stream, retention="1 day")
    db.execute(remedy)
    assert f"{table} is a hypertable now" in apply(db, stream)


def test_a_key_without_the_time_is_told(db: psycopg.Connection[Any]) -> None:
    """As far as the table still is one of ours: of others nothing is made a hypertable."""
    db.execute(
        "CREATE TABLE events AS SELECT now() AS event_timestamp, ''::text AS id; ALTER TABLE events ADD UNIQUE (id)"
    )
    assert "left events as it is, for it is not ours (it has a key of id)" in apply(db, "EVENTS")[0]
    assert stand_in.calls(db, HOME) == []
    db.execute("ALTER TABLE events DROP CONSTRAINT events_id_key; CREATE UNIQUE INDEX ON events (id) WHERE id <> ''")
    (plain,) = [line for line in apply(db, "EVENTS") if "plain" in line]
    assert "(TS103), hint: Make it part of the key" in plain
    assert "events_id_idx is unique without event_timestamp" in plain
    db.execute("DROP INDEX events_id_idx")
    assert "events is a hypertable now" in apply(db, "EVENTS")


def test_policies(db: psycopg.Connection[Any]) -> None:
    """Only on request; those that are there stay, others are replaced; a dry run prints the calls and makes none."""
    wanted: dict[str, Any] = {"chunk_interval": "1 day", "compress_after": "7 days", "retention": "30 days"}
    assert apply(db, "LOGS", dry_run=True, **wanted)[-4:] == [
        f"SELECT \"{HOME}\".create_hypertable('logs', 'timestamp', if_not_exists => true, "
        "migrate_data => true, create_default_indexes => false, chunk_time_interval => INTERVAL '1 day');",
        "ALTER TABLE logs SET (timescaledb.enable_columnstore = true);",
        f"CALL \"{HOME}\".add_columnstore_policy('logs', after => INTERVAL '7 days');",
        f"SELECT \"{HOME}\".add_retention_policy('logs', drop_after => INTERVAL '30 days');",
    ]
    assert stand_in.calls(db, HOME) == []
    apply(db, "LOGS", chunk_interval="1 day", retention="30 days")
    assert stand_in.calls(db, HOME) == ["create_hypertable logs 1 day", "add_retention_policy logs 30 days"]
    db.execute("UPDATE timescaledb_information.hypertables SET compression_enabled = true")  # ALTER TABLE does
    assert apply(db, "LOGS", **wanted) == ["chunks of logs are compressed after 7 days", "applied logs"]
    assert stand_in.calls(db, HOME) == ["add_columnstore_policy logs 7 days"]
    apply(db, "LOGS", **wanted)
    apply(db, "LOGS")
    assert stand_in.calls(db, HOME) == []
    apply(db, "LOGS", chunk_interval="43200 seconds", compress_after="8 days", retention="31 days")
    assert stand_in.calls(db, HOME) == [
        "set_chunk_time_interval logs 12:00:00",
        "remove_columnstore_policy logs",
        "add_columnstore_policy logs 8 days",
        "remove_retention_policy logs",
        "add_retention_policy logs 31 days",
    ]


def test_without_the_extension_a_policy_is_an_error(database: str) -> None:
    """Which says so, beside the tables that are made all the same."""
    with psycopg.connect(database) as connection:
        for option in ("chunk_interval", "compress_after", "retention"):
            flag = "--" + option.replace("_", "-")
            asked: dict[str, Any] = {option: "1 day"}
            with pytest.raises(SchemaError, match=f"logs: {flag} needs TimescaleDB, which this database does not have"):
                apply(connection, "LOGS", **asked)
        assert connection.execute("SELECT count(*) FROM logs").fetchone() == (0,)


def test_what_the_document_shows_runs(db: psycopg.Connection[Any]) -> None:
    """Each command, as it stands there."""
    text = (ROOT / "docs" / "tables.md").read_text()
    commands = [line.split()[1:] for line in text.splitlines() if line.startswith("eventwriter schema apply ")]
    assert len(commands) == 2
    for command in commands:
        done = CliRunner().invoke(cli.cli, ["--postgres-dsn", db.info.dsn, *command], catch_exceptions=False)
        assert done.exit_code == 0
    assert stand_in.calls(db, HOME) == ["create_hypertable logs ", "add_retention_policy logs 90 days"]
