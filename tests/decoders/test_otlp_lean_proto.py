"""The lean schema of OTLP reads the same wire format as the official one."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from workers._otlp.otlp_lean_pb2 import Logs, Metrics, Traces


def check(lean: Any, official: Any) -> None:
    """Asserts that a lean message has the fields of the official one, in a form that reads the same bytes."""
    assert set(lean.fields_by_number) == set(official.fields_by_number), lean.name
    for number, field in lean.fields_by_number.items():
        other = official.fields_by_number[number]
        if field.message_type is not None:
            assert (field.is_repeated, field.type) == (other.is_repeated, other.type)
            check(field.message_type, other.message_type)
        elif other.message_type is not None:  # repeated, so that none is lost
            assert (field.is_repeated, field.type) == (True, FieldDescriptor.TYPE_BYTES)
        elif other.enum_type is not None:
            assert (field.is_repeated, field.type) == (False, FieldDescriptor.TYPE_INT32)
        else:
            assert (field.is_repeated, field.type) == (other.is_repeated, other.type)
            assert (field.containing_oneof is None) == (other.containing_oneof is None)


@pytest.mark.parametrize(
    ("lean", "official"),
    [
        (Traces, ExportTraceServiceRequest),
        (Logs, ExportLogsServiceRequest),
        (Metrics, ExportMetricsServiceRequest),
    ],
    ids=["traces", "logs", "metrics"],
)
def test_every_field_is_that_of_otlp(lean: Any, official: Any) -> None:
    """Number and wire type; when OTLP gets a new field, this says so."""
    check(lean.DESCRIPTOR, official.DESCRIPTOR)
