"""LOGS: log records from OTLP, flat JSON, GELF and SNMP traps become rows of ``logs``."""

from __future__ import annotations

from functools import partial

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from eventwriter.stream import Stream
from workers._guard import total
from workers._json.fast import fast_path
from workers._json.records import decode_records
from workers._otlp.log_records import fast_rows, otlp_rows
from workers._otlp.logs_flat import TABLE, FlatLog, columns_of, flat_row
from workers._otlp.message import signal_of

_SIGNAL = signal_of(ExportLogsServiceRequest, otlp_rows, fast_rows, flat_row, "body")

decode = total(partial(decode_records, _SIGNAL))
"""The rows of one message: OTLP protobuf or JSON, flat JSON, GELF, SNMP traps, CloudEvents around them."""

STREAM = Stream(
    name="LOGS",
    subjects=("logs.>",),
    table="logs",
    columns=TABLE.columns,
    decode=decode,
    quick=fast_path(TABLE.columns, FlatLog, b'"severity_text"', columns_of, ["attributes"]),
)
