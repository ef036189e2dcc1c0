"""LOGS: log records from OTLP, flat JSON, GELF and SNMP traps become rows of ``logs``."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from eventwriter.stream import Column, Decoded, Message, Stream
from workers._guard import total
from workers._otlp.log_records import fast_rows, otlp_rows
from workers._otlp.logs_flat import flat_row
from workers._otlp.logs_flat_fast import typed_rows
from workers._otlp.message import Signal, decode_message

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


_SIGNAL = Signal(ExportLogsServiceRequest, otlp_rows, flat_row, ("resourceLogs", "resource_logs"), "body", fast_rows)


@total
def decode(message: Message) -> Decoded:
    """The rows of one message: OTLP protobuf or JSON, flat JSON, GELF, SNMP traps, CloudEvents around them."""
    return decode_message(_SIGNAL, message)


STREAM = Stream(name="LOGS", subjects=("logs.>",), table="logs", columns=COLUMNS, decode=decode, quick=typed_rows)
