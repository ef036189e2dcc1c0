"""Tables that somebody else created work unchanged: older and later names, text for jsonb, unique keys."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import Any

import psycopg
import pytest
from psycopg import sql

import generations
from boards import settings
from eventwriter import registry
from eventwriter.commands import schema_check
from eventwriter.commands.findings import Finding
from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.errors import TableError
from eventwriter.postgres.catalog import read_plan
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message
from fix_servers import new_database
from fix_service import ROOT, STREAMS
from traffic import Traffic

DECLARED = registry.load()


def made(dsn: str, generation: str) -> str:
    """A database with the tables of one generation, and eventwriter's own."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        generations.create(connection, generation)
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
    return dsn


@pytest.fixture(params=["2025-12", "2026-01-08"])
def tables(request: pytest.FixtureRequest, database: str) -> str:
    """A database with the tables of one of the generations that have all seven, and take logs of no tenant."""
    made(database, request.param)
    if request.param != "2025-12":
        with psycopg.connect(database) as connection:
            connection.execute("ALTER TABLE logs ALTER COLUMN tenant_id SET DEFAULT gen_random_uuid()")
    return database


def write(dsn: str, stream: str, messages: list[Message]) -> Any:
    """Writes a batch and closes."""
    sink = Sink(PostgresConfig(dsn=dsn), DECLARED[stream], DECLARED[stream].table)
    try:
        sink.open()
        identity = Identity(stream, stream, datetime(2026, 1, 1, tzinfo=UTC), "w")
        sink.begin(Opening(identity, registry.load()[stream].subjects))
        return sink.write(Batch(messages, [message.sequence for message in messages]))
    finally:
        sink.close()


def query(dsn: str, text: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(text).fetchall()


@cache
def mixed(stream: str) -> tuple[list[Message], int]:
    """Messages of each encoding, and how many records they have."""
    traffic = Traffic(stream, records=5, clock=lambda: 1_765_535_400.0)
    published = [traffic.next() for _ in range(60)]
    messages = [Message(p.subject, p.payload, n, 1_765_535_400_000_000_000 + n) for n, p in enumerate(published, 1)]
    return messages, traffic.number


def fate(dsn: str, stream: str, found: Sequence[Finding]) -> tuple[str, str]:
    """Whether its table takes a stream of each encoding, and what is to be known of that."""
    messages, records = mixed(stream)
    told = [finding for finding in found if finding.subject == stream]
    line = ""
    try:
        outcome = write(dsn, stream, messages)
    except TableError as error:
        line = str(error)
    if line:
        assert [(finding.exit_code, finding.text) for finding in told] == [(78, line)], "said before"
        return "stops", line
    assert {finding.exit_code for finding in told} == {0}
    assert outcome.rejects == {}
    assert outcome.rows == records
    table = DECLARED[stream].table
    with psycopg.connect(dsn) as connection:
        assert connection.execute(sql.SQL(f"SELECT count(*) FROM {table}")).fetchone() == (records,)
        plan = read_plan(connection, DECLARED[stream], table)
    notes = [f"without {', '.join(plan.omitted)}"] if plan.omitted else []
    notes += [f"the latest row of ({', '.join(key)}) replaces" for key in plan.keys if plan.mode == "upsert"]
    notes += [f"unless its {', '.join(plan.apart)} differs: then it is a dead letter"] if plan.apart else []
    if plan.mode == "append" and plan.keys:
        notes.append(f"another row with the same ({', '.join(plan.keys[0])}) is a dead letter")
    return "is written", "; ".join(notes)


def test_what_becomes_of_each_stream_in_each_generation(postgres_server: PostgresServer) -> None:
    """All records land, or the stream stops, as `schema check` has said before, and docs/generations.md says."""
    lines = [f"| tables of | {' | '.join(STREAMS)} |", f"|---|{'---|' * len(STREAMS)}"]
    notes: list[str] = []
    for generation in generations.FILES:
        with new_database(postgres_server) as dsn:
            found = schema_check.check(settings(POSTGRES__DSN=made(dsn, generation)), DECLARED)
            fates = [fate(dsn, stream, found) for stream in STREAMS]
        cells = []
        for word, note in fates:
            if note and note not in notes:
                notes.append(note)
            cells.append(f"{word} ({notes.index(note) + 1})" if note else word)
        lines.append(f"| {generation} | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]
    document = ROOT / "docs" / "generations.md"
    before, mark, rest = document.read_text().partition("<!-- generations -->\n")
    _, end, after = rest.partition("<!-- end -->\n")
    current = before + mark + "\n".join(lines) + "\n" + end + after
    if "WRITE_DOCS" in os.environ:
        document.write_text(current)
    assert document.read_text() == current, "WRITE_DOCS=1 with this test writes it anew"


@pytest.mark.parametrize(("stream", "table"), [
    ("EVENTS", "ocsf_events"), ("LOGS", "ocsf_events"), ("NETFLOW", "ocsf_network_activity"), ("SWEEP", "logs"),
    ("TELEMETRY", "ocsf_events"),
])  # fmt: skip
def test_another_table_is_refused(database: str, stream: str, table: str) -> None:
    """One with hardly a column of the stream, also where some have the same name: nothing is written to these."""
    made(database, "2026-05-03")
    with psycopg.connect(database) as connection, pytest.raises(TableError, match="is it the right table") as caught:
        read_plan(connection, DECLARED[stream], table)
    none = f"table {table} has none of the columns of stream {stream}: "
    most = f"table {table} lacks most columns of stream {stream}, such as "
    assert str(caught.value).startswith(none if stream == "SWEEP" else most)
    assert f"streams.{stream}.table names it" in str(caught.value)


def test_the_key_of_a_series(database: str) -> None:
    """Computed where the table has it; a second value of a series in one microsecond is kept as a dead letter."""
    made(database, "2026-05-03")
    record = b'{"timestamp":"2026-05-03T09:00:00Z","gateway_id":"g","metric_name":"cpu.util","value":%d%s}'
    messages = [
        Message("telemetry.x", record % (1, b""), 1, 10**18),
        Message("telemetry.x", record % (2, b',"tags":{"core":"0"},"if_index":0'), 2, 10**18),
        Message("telemetry.x", record % (3, b',"series_key":"theirs"'), 3, 10**18),
    ]
    assert write(database, "TELEMETRY", messages).rejects == {"conflict": 1}
    assert query(database, "SELECT value, series_key FROM timeseries_metrics ORDER BY value") == [
        (1.0, "192b9ec52bd46a745eadd415bc3f6f51"),
        (2.0, "df7e9bc7ae2bd50252af6155c17cbd88"),
    ]
    plan_of = partial(read_plan, table="timeseries_metrics")
    with psycopg.connect(database) as connection:
        with pytest.raises(TableError, match="column series_key text of table timeseries_metrics is NOT NULL"):
            plan_of(connection, DECLARED["TELEMETRY"].leaving_out(["series_key"]))
        connection.execute("ALTER TABLE timeseries_metrics ALTER COLUMN series_key TYPE varchar(40)")
        assert plan_of(connection, DECLARED["TELEMETRY"]).omitted == ()
        connection.execute("ALTER TABLE timeseries_metrics DROP COLUMN series_key")
        assert plan_of(connection, DECLARED["TELEMETRY"]).omitted == (), "not missed"


def test_values_land_under_the_older_names(tables: str) -> None:
    """gateway_id goes to poller_id where that is the name, and JSON text to text columns."""
    traffic = Traffic("TELEMETRY", only="json")
    write(tables, "TELEMETRY", [Message("telemetry.snmp", traffic.next().payload, 1, 10**18)])
    (row,) = query(tables, "SELECT to_jsonb(t) FROM timeseries_metrics t")
    assert row[0].get("poller_id", row[0].get("gateway_id", "")).startswith("edge-")
    traffic = Traffic("LOGS", only="json")
    write(tables, "LOGS", [Message("logs.x", traffic.next().payload, 1, 10**18)])
    assert query(tables, "SELECT attributes::jsonb->>'n' FROM logs") == [("1",)]


def test_the_value_of_a_metric_goes_to_duration_ms_where_there_is_no_value_column(tables: str) -> None:
    """The old convention, on the old table; points of one metric at one time differ in their key."""
    traffic = Traffic("OTEL_METRICS", only="otlp", records=5)
    write(tables, "OTEL_METRICS", [Message("otel.metrics.raw", traffic.next().payload, 1, 10**18)])
    assert query(tables, "SELECT duration_ms FROM otel_metrics ORDER BY 1") == [(1.0,), (2.0,), (3.0,), (4.0,), (5.0,)]
    assert query(tables, "SELECT count(DISTINCT span_id) FROM otel_metrics") == [(5,)]


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("s", 0.93, (930.0, 0.93)), ("ms", 187.5, (187.5, 0.1875)), ("us", 1500.0, (1.5, 0.0015)),
        ("{item}", 17.0, (17.0, 0.017)), ("", 1e6, (1e6, 1e3)),
    ],
)  # fmt: skip
def test_the_two_durations_of_a_metric_agree(tables: str, unit: str, value: float, expected: tuple[Any, ...]) -> None:
    """Where there is no column for values: converted with a unit of time, else the value as milliseconds, as of old."""
    point = {"asDouble": value, "timeUnixNano": "1765535400000000000"}
    metrics = [{"name": "m", "unit": unit, "gauge": {"dataPoints": [point]}}]
    payload = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]}).encode()
    write(tables, "OTEL_METRICS", [Message("otel.metrics", payload, 1, 1_765_535_400_000_000_000)])
    assert query(tables, "SELECT duration_ms, duration_seconds FROM otel_metrics") == [expected]


def test_the_latest_event_replaces_under_the_older_keys(tables: str) -> None:
    """events and sweep_host_states keep their keys; all columns are replaced."""
    first, second = (
        b'{"host_ip":"10.0.0.1","gateway_id":"g","agent_id":"a","hostname":"%s","last_sweep_time":1765535400}' % name
        for name in (b"old", b"new")
    )
    write(tables, "SWEEP", [Message("sweep.x", first, 1, 10**18), Message("sweep.x", second, 2, 10**18 + 1000)])
    assert query(tables, "SELECT hostname FROM sweep_host_states") == [("new",)]


def test_another_log_at_the_same_key_is_a_conflict_not_a_loss(database: str) -> None:
    """Two different records of one span in one microsecond: the second is a dead letter of kind conflict."""
    made(database, "2025-12")
    record = b'[{"timestamp":1765535400123456789,"body":"first"},{"timestamp":1765535400123456900,"body":"second"}]'
    outcome = write(database, "LOGS", [Message("logs.x", record, 1, 10**18)])
    assert outcome.rejects == {"conflict": 1}
    assert query(database, "SELECT body FROM logs") == [("first",)]
    assert query(database, "SELECT record_index, sqlstate FROM eventwriter.dead_letters") == [(1, "23505")]
