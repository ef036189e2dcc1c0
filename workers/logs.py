"""LOGS: log records from OTLP, flat JSON, GELF and SNMP traps become rows of ``logs``."""

from __future__ import annotations

import orjson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from eventwriter.stream import Column, Decoded, Message, Row, Stream
from eventwriter.values import EPOCH, INT8_MAX, clean
from workers._guard import total
from workers._json.flat import trimmed
from workers._otlp import values
from workers._otlp.log_body import other_body
from workers._otlp.logs_fast import common_rows
from workers._otlp.logs_flat import flat_row, source_of
from workers._otlp.logs_flat_fast import typed_rows
from workers._otlp.message import Context, Signal, decode_message
from workers._otlp.severity import BANDS

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("observed_timestamp", "timestamptz", core=False),
    Column("trace_id", "text"),
    Column("span_id", "text"),
    Column("trace_flags", "integer", core=False),
    Column("flags", "bigint", core=False),
    Column("severity_text", "text"),
    Column("severity_number", "integer"),
    Column("body", "text"),
    Column("event_name", "text", core=False),
    Column("service_name", "text"),
    Column("service_version", "text"),
    Column("service_instance", "text"),
    Column("scope_name", "text"),
    Column("scope_version", "text"),
    Column("scope_attributes", "jsonb", core=False),
    Column("attributes", "jsonb"),
    Column("resource_attributes", "jsonb"),
    Column("dropped_attributes_count", "bigint", core=False),
    Column("schema_url", "text", core=False),
    Column("resource_schema_url", "text", core=False),
    Column("source", "text", core=False),
    Column("data", "jsonb", core=False),
)


def otlp_rows(request: ExportLogsServiceRequest, context: Context) -> list[Row]:
    """The rows of an OTLP request, one per log record, in its order."""
    subject, received, envelope, repairs = context
    source = source_of(subject)
    rows: list[Row] = []
    for group in request.resource_logs:
        resource = values.resource_values(group.resource, group.schema_url, repairs)
        service, version, instance, resource_attributes, resource_schema_url, _ = resource
        for scoped in group.scope_logs:
            scope = values.scope_values(scoped.scope, scoped.schema_url, resource.rest, repairs)
            scope_name, scope_version, scope_attributes, schema_url, rest, scope_data = scope
            for record in scoped.log_records:
                attributes = values.attributes(record.attributes)
                time = record.time_unix_nano
                observed = record.observed_time_unix_nano
                if time > INT8_MAX or observed > INT8_MAX:
                    values.keep_times(record, ("time_unix_nano", "observed_time_unix_nano"), attributes, repairs)
                observed_timestamp = observed // 1000 - EPOCH if 0 < observed <= INT8_MAX else received
                if envelope is not None:
                    values.add_envelope(attributes, envelope)
                try:
                    packed = trimmed(orjson.dumps(attributes))
                except TypeError:
                    packed = values.dump(attributes, repairs)
                if b"\\" in packed and b"\\u0000" in packed:
                    packed = values.dump(attributes, repairs)
                data = scope_data
                body: str | None = record.body.string_value
                if not body:
                    body, data = other_body(record.body, rest, data, repairs)
                elif "\0" in body:
                    body = clean(body, repairs)
                number = record.severity_number or None
                severity: str | None = record.severity_text
                if not severity:
                    severity = BANDS.get(number) if number else None
                elif "\0" in severity:
                    severity = clean(severity, repairs)
                trace_id = record.trace_id.hex()
                span_id = record.span_id.hex()
                if len(trace_id) not in (32, 0) or len(span_id) not in (16, 0):
                    repairs.append("bad_id")
                flags = record.flags
                event_name = record.event_name or None
                if event_name and "\0" in event_name:
                    event_name = clean(event_name, repairs)
                rows.append(
                    (
                        time // 1000 - EPOCH if 0 < time <= INT8_MAX else observed_timestamp,
                        observed_timestamp,
                        trace_id,
                        span_id,
                        flags & 0xFF,
                        flags,
                        severity,
                        number,
                        body,
                        event_name,
                        service,
                        version,
                        instance,
                        scope_name,
                        scope_version,
                        scope_attributes,
                        packed,
                        resource_attributes,
                        record.dropped_attributes_count,
                        schema_url,
                        resource_schema_url,
                        source,
                        data,
                    )
                )
    return rows


_SIGNAL = Signal(ExportLogsServiceRequest, otlp_rows, flat_row, ("resourceLogs", "resource_logs"), "body", common_rows)


@total
def decode(message: Message) -> Decoded:
    """The rows of one message: OTLP protobuf or JSON, flat JSON, GELF, SNMP traps, CloudEvents around them."""
    return decode_message(_SIGNAL, message)


STREAM = Stream(name="LOGS", subjects=("logs.>",), table="logs", columns=COLUMNS, decode=decode, quick=typed_rows)
