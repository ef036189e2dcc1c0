"""A stand-in for the Go db-event-writer: a durable of its own, fifty messages a fetch, its tables, its values.

As far as rows are counted and told apart; what it is known to lose of a row's values it loses here as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

TABLES = """
CREATE SCHEMA platform;
CREATE TABLE platform.logs (
    timestamp timestamptz NOT NULL, trace_id text, span_id text, severity_text text, severity_number integer, body text,
    service_name text, service_version text, service_instance text, scope_name text, scope_version text,
    attributes text, resource_attributes text, created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (timestamp, trace_id, span_id));
CREATE TABLE platform.events (
    event_timestamp timestamptz NOT NULL, specversion text, id text NOT NULL, source text, type text,
    datacontenttype text, subject text, remote_addr text, host text, level integer, severity text, short_message text,
    version text, raw_data text, created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (event_timestamp, id));
"""
"""Those of December 2025."""
_LOGS = "timestamp, trace_id, span_id, severity_text, severity_number, body, service_name, attributes"
_EVENTS = "event_timestamp, specversion, id, source, type, subject, host, level, short_message, raw_data"
_FETCH = 50
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _pairs(attributes: Any) -> str:
    """``k=v,k=v``, without what is false, zero or empty."""
    values = ((each.key, getattr(each.value, each.value.WhichOneof("value") or "string_value")) for each in attributes)
    return ",".join(f"{key}={value}" for key, value in values if value)


def _logs(message: Any) -> Iterator[tuple[Any, ...]]:
    request = ExportLogsServiceRequest.FromString(message.data)
    for resource in request.resource_logs:
        service = next((a.value.string_value for a in resource.resource.attributes if a.key == "service.name"), "")
        for record in (record for scope in resource.scope_logs for record in scope.log_records):
            time = _EPOCH + timedelta(microseconds=record.time_unix_nano // 1000)
            ids = record.trace_id.hex(), record.span_id.hex()
            severity = record.severity_text, record.severity_number
            yield time, *ids, *severity, record.body.string_value, service, _pairs(record.attributes)


def _events(message: Any) -> Iterator[tuple[Any, ...]]:
    event = json.loads(message.data, parse_float=Decimal)
    data = event["data"]
    time = data.get("timestamp") or event["time"]
    if isinstance(time, Decimal):
        time = _EPOCH + timedelta(microseconds=int(time * 1_000_000))
    else:  # what is finer than a microsecond is cut off, not rounded
        time = datetime.fromisoformat(time)
    envelope = event["specversion"], event["id"], event["source"], event["type"]
    yield time, *envelope, message.subject, data.get("host"), data.get("level"), None, message.data.decode()


async def write(client: Any, table: str, dsn: str, stream: str, subject: str = ">") -> int:
    """Writes what its durable has not had yet, OTLP into ``logs`` or CloudEvents into ``events``; how many rows."""
    columns, rows = {"logs": (_LOGS, _logs), "events": (_EVENTS, _events)}[table]
    durable = f"db-event-writer-go-{table}"
    subscription = await client.jetstream().pull_subscribe(subject, durable=durable, stream=stream)
    marks = ", ".join(["%s"] * len(columns.split(",")))
    statement = f"INSERT INTO platform.{table} ({columns}) VALUES ({marks}) ON CONFLICT DO NOTHING"
    count = 0
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        while True:
            try:
                messages = await subscription.fetch(_FETCH, timeout=0.5)
            except TimeoutError:  # nats-py's, or asyncio's
                if not (await subscription.consumer_info()).num_pending:
                    return count
                continue
            found = [row for message in messages for row in rows(message)]
            cursor.executemany(statement, found)
            connection.commit()
            count += len(found)
            for message in messages:
                await message.ack()
