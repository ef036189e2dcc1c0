"""Tables that somebody else created work unchanged: older and later names, text for jsonb, unique keys."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from eventwriter import registry
from eventwriter.config.loading import PostgresConfig
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message
from fix_service import STREAMS
from traffic import Traffic

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples"
DECLARED = registry.load()
GENERATIONS = {"2025-12": ["tables_2025_12.sql"], "2026-01": ["tables_2025_12.sql", "tables_2026_01.sql"]}


@pytest.fixture(params=GENERATIONS)
def tables(request: pytest.FixtureRequest, database: str) -> str:
    """A database with the tables of one generation, and eventwriter's own."""
    with psycopg.connect(database, autocommit=True) as connection:
        for file in GENERATIONS[request.param]:
            connection.execute((SAMPLES / file).read_text())
        connection.execute(registry.table_sql("eventwriter"))
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


@pytest.mark.parametrize("stream", STREAMS)
def test_every_record_becomes_a_row(tables: str, stream: str) -> None:
    """All encodings of a stream, without a conflict and without a refusal."""
    traffic = Traffic(stream, records=10)
    published = [traffic.next() for _ in range(60)]
    messages = [Message(p.subject, p.payload, n, 1_765_535_400_000_000_000 + n) for n, p in enumerate(published, 1)]
    outcome = write(tables, stream, messages)
    assert outcome.rejects == {}
    assert outcome.rows == traffic.number
    assert query(tables, f"SELECT count(*) FROM {DECLARED[stream].table}") == [(traffic.number,)]


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
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute((SAMPLES / "tables_2025_12.sql").read_text())
        connection.execute(registry.table_sql("eventwriter"))
    record = b'[{"timestamp":1765535400123456789,"body":"first"},{"timestamp":1765535400123456900,"body":"second"}]'
    outcome = write(database, "LOGS", [Message("logs.x", record, 1, 10**18)])
    assert outcome.rejects == {"conflict": 1}
    assert query(database, "SELECT body FROM logs") == [("first",)]
    assert query(database, "SELECT record_index, sqlstate FROM eventwriter.dead_letters") == [(1, "23505")]
