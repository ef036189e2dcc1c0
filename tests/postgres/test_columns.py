"""Columns that a live table lacks: none is left out in silence, and a table of ours gets them back."""

from __future__ import annotations

from functools import partial
from typing import Any

import psycopg
import pytest

import generations
from boards import settings
from eventwriter import registry
from eventwriter.commands import schema_apply, schema_check
from eventwriter.commands.applying import Applying, Unit
from eventwriter.errors import TableError
from eventwriter.postgres import definition
from eventwriter.postgres.catalog import read_plan
from fix_service import STREAMS

DECLARED = registry.load()
DESCRIBED = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE a.attrelid = %s::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attname
"""


def create(connection: psycopg.Connection[Any], *names: str) -> None:
    """Makes our own tables of these streams."""
    for name in names:
        connection.execute(registry.table_sql(DECLARED[name].table))


def extend(connection: psycopg.Connection[Any], name: str) -> list[str]:
    """Brings the table of a stream to its definition; what was told of columns and keys."""
    stream = DECLARED[name]
    unit = Unit(stream.table, partial(definition.steps, stream=stream, text=registry.table_sql(stream.table)))
    told = Applying(connection, [unit], 0).applied(unit)
    return [line for line in told if " index " not in line and not line.startswith("applied ")]


def described(connection: psycopg.Connection[Any], table: str) -> dict[str, tuple[Any, ...]]:
    """Type, NOT NULL and default of each column of a table."""
    return {name: tuple(facts) for name, *facts in connection.execute(DESCRIBED, [table])}


def written(connection: psycopg.Connection[Any], name: str) -> set[str]:
    """The columns of its table that a stream fills."""
    return {target.name for target in read_plan(connection, DECLARED[name], DECLARED[name].table).targets}


@pytest.mark.parametrize("name", STREAMS)
def test_the_columns_of_the_old_writers_are_core(connection: psycopg.Connection[Any], name: str) -> None:
    """Those that the tables of December 2025 have, which is before otel_metrics got a unit; and no others."""
    generations.create(connection, "2025-12")
    had = set(described(connection, DECLARED[name].table)) - {"created_at"}
    core = {column.name for column in DECLARED[name].columns if column.core}
    assert core == {"gateway_id" if column == "poller_id" else column for column in had}


@pytest.mark.parametrize("name", STREAMS)
def test_each_column_that_is_missing_is_named(connection: psycopg.Connection[Any], name: str) -> None:
    """A core one in the error that stops the stream, with a remedy; any other among what is not written."""
    create(connection, name)
    stream = DECLARED[name]
    assert read_plan(connection, stream, stream.table).omitted == ()
    for column in stream.columns:
        with connection.transaction(force_rollback=True):
            connection.execute(f"ALTER TABLE {stream.table} DROP COLUMN {column.name}")
            if column.core:
                with pytest.raises(TableError) as caught:
                    read_plan(connection, stream, stream.table)
                assert f"table {stream.table} lacks the column {column.name}" in str(caught.value)
                assert f"`eventwriter schema apply`, or ALTER TABLE {stream.table} ADD COLUMN" in str(caught.value)
            else:
                plan = read_plan(connection, stream, stream.table)
                assert len(plan.omitted) == 1
                held = [target.name for target in plan.targets if stream.columns[target.position].name == column.name]
                assert plan.omitted == tuple(f"{other} (there is {column.name})" for other in held) or (column.name,)


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        pytest.param(
            name, rows, marks=[] if rows == (name in ("EVENTS", "TELEMETRY", "NETFLOW")) else [pytest.mark.long]
        )
        for name in STREAMS
        for rows in (False, True)
    ],
)
def test_every_column_of_our_own_tables_comes_back(connection: psycopg.Connection[Any], name: str, rows: bool) -> None:
    """As it was, with its type, default and NOT NULL; that alone cannot be had where rows have no value for it."""
    create(connection, name)
    stream = DECLARED[name]
    before = described(connection, stream.table)
    if rows:
        required = [column for column, (_, not_null, default) in before.items() if not_null and default is None]
        values = ", ".join("now()" if before[column][0].startswith("timestamp") else "'1'" for column in required)
        connection.execute(f"INSERT INTO {stream.table} ({', '.join(required)}) VALUES ({values})")
    for column, (kind, not_null, default) in before.items():
        with connection.transaction(force_rollback=True):
            connection.execute(f"ALTER TABLE {stream.table} DROP COLUMN {column}")
            line, *more = extend(connection, stream.name)
            assert line.startswith(f"added column {column} to {stream.table}")
            assert [f"ADD PRIMARY KEY ({', '.join(stream.key)})" in each for each in more] == [True] * (
                column in stream.key
            )
            bare = rows and not_null and default is None
            assert described(connection, stream.table) == before | {column: (kind, not_null and not bare, default)}
            assert ("without NOT NULL" in line and "contains null values" in line) == bare, line
            assert list(extend(connection, stream.name)) == []
    assert connection.execute("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'eventwriter_s%'").fetchone() == (
        0,
    )


@pytest.mark.parametrize("generation", ["2025-12", "2026-01-08"])
def test_tables_of_others_are_left_as_they_are(
    connection: psycopg.Connection[Any], database: str, generation: str
) -> None:
    """`schema apply`, which makes the ledger, adds to a table only what cannot be told from an older one of ours."""
    generations.create(connection, generation)
    if generation != "2025-12":
        connection.execute("ALTER TABLE logs ALTER COLUMN tenant_id SET DEFAULT gen_random_uuid()")
    before = {name: described(connection, stream.table) for name, stream in DECLARED.items()}
    plans = {name: written(connection, name) for name in STREAMS}
    lines = list(schema_apply.apply(settings(POSTGRES__DSN=database), DECLARED))
    after = {name: described(connection, stream.table) for name, stream in DECLARED.items()}
    added = {(name, column) for name in STREAMS for column in after[name].keys() - before[name].keys()}
    said = {(name, f"added column {column} to {DECLARED[name].table}") for name, column in added}
    assert {line for line in lines if line.startswith("added column")} == {line for _, line in said}
    assert added <= {("EVENTS", "received_at"), ("SWEEP", "received_at")}
    assert all(after[name][column] == facts for name in STREAMS for column, facts in before[name].items())
    left = {line.split()[1] for line in lines if line.startswith("left ")}
    assert {"otel_metrics", "otel_traces", "logs"} <= left
    assert all(len(line) < 400 for line in lines)
    assert {name: written(connection, name) - {"received_at"} for name in STREAMS} == plans, "and written as before"


def test_a_key_that_went_with_its_column_is_missed(connection: psycopg.Connection[Any], database: str) -> None:
    """Without it nothing would replace anything: `check` warns."""
    create(connection, "SWEEP")
    connection.execute("ALTER TABLE sweep_host_states DROP COLUMN partition")
    only = {f"STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "SWEEP"}
    configured = settings(POSTGRES__DSN=database, **only)
    lines = list(schema_apply.apply(configured, DECLARED))
    key = "host_ip, gateway_id, partition, last_sweep_time"
    assert f"sweep_host_states has no key any more: ALTER TABLE sweep_host_states ADD PRIMARY KEY ({key})" in lines
    (finding,) = [found for found in schema_check.check(configured, DECLARED) if found.warning]
    assert finding.ok
    assert f"no row replaces another, though the latest of ({key}) should: there is no key ({key})" in finding.text
    connection.execute(f"ALTER TABLE sweep_host_states ADD PRIMARY KEY ({key})")
    assert not any(found.warning for found in schema_check.check(configured, DECLARED))


def test_a_table_of_ours_may_have_more(connection: psycopg.Connection[Any]) -> None:
    """Columns and indexes of the operator do not make it another's; a key, another name or type do."""
    create(connection, "TELEMETRY")
    stream = DECLARED["TELEMETRY"]
    connection.execute("ALTER TABLE timeseries_metrics ADD COLUMN site text, DROP COLUMN unit")
    connection.execute("CREATE INDEX site ON timeseries_metrics (site)")
    for strange, why in (
        ("CREATE UNIQUE INDEX k ON timeseries_metrics (site)", "it has a key of site"),
        ("ALTER TABLE timeseries_metrics ALTER COLUMN tags TYPE text", "tags is text there"),
        ("ALTER TABLE timeseries_metrics RENAME COLUMN gateway_id TO poller_id", "gateway_id is poller_id there"),
    ):
        with connection.transaction(force_rollback=True):
            connection.execute(strange)
            (line,) = extend(connection, stream.name)
            assert line.startswith(f"left timeseries_metrics as it is, for it is not ours ({why}); it has no ")
            assert line.endswith("unit")
            assert "unit" not in described(connection, "timeseries_metrics")
    assert list(extend(connection, stream.name)) == ["added column unit to timeseries_metrics"]
