"""The lean schema of OTLP reads the same wire format as the official one, and its generated classes belong to it."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from workers import otlp_lean_pb2
from workers.otlp_lean_pb2 import Logs, Metrics, Traces

ROOT = Path(__file__).parents[1]


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


def test_the_generated_code_is_current(tmp_path: Path) -> None:
    """Compiling the .proto again describes the same messages; versions of the compiler may differ in all else."""
    if importlib.util.find_spec("grpc_tools") is None:
        assert not os.environ.get("CI"), "grpcio-tools is missing"
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path / "lean.binpb"
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--descriptor_set_out={out}", "workers/otlp_lean.proto"],
        cwd=ROOT,
        check=True,
        timeout=60,
    )
    (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    for message in compiled.message_type:
        for field in message.field:
            field.ClearField("json_name")  # only the compiler writes it
    described = FileDescriptorProto()
    otlp_lean_pb2.DESCRIPTOR.CopyToProto(described)
    assert compiled == described


def test_the_stub_names_every_field() -> None:
    """What type checkers read has the fields of the generated classes."""
    stub = (ROOT / "workers" / "otlp_lean_pb2.pyi").read_text(encoding="utf-8")
    for message in otlp_lean_pb2.DESCRIPTOR.message_types_by_name.values():
        body = stub.partition(f"class {message.name}(")[2].partition("\nGlobal___")[0]
        names = set(re.findall(r"^    ([A-Z0-9_]+)_FIELD_NUMBER: ", body, re.M))
        assert names == {field.name.upper() for field in message.fields}


def test_the_oldest_declared_protobuf_loads_the_generated_code() -> None:
    """setup.cfg allows protobuf 6, whose first release is 6.30.0: later generators ask for later ones."""
    source = (ROOT / "workers" / "otlp_lean_pb2.py").read_text(encoding="utf-8")
    version = re.search(r"^# Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", source, re.M)
    assert version is not None
    assert tuple(map(int, version.groups())) <= (6, 30, 0)
