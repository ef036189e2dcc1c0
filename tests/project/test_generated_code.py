"""The code that is generated from workers/*.proto: current, described to type checkers, and old enough to load."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import runtime_version
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from fix_service import ROOT
from patience import PATIENCE
from workers._flow import flow_pb2
from workers._otlp import otlp_lean_pb2

GENERATED: dict[str, Any] = {"flow": flow_pb2, "otlp_lean": otlp_lean_pb2}
FOLDERS = {"flow": "workers/_flow", "otlp_lean": "workers/_otlp"}
each = pytest.mark.parametrize("name", GENERATED)


def test_every_schema_is_tested() -> None:
    """Each .proto file is in the table above."""
    assert {path.stem for path in (ROOT / "workers").rglob("*.proto")} == {*GENERATED}


@each
def test_the_generated_code_is_current(name: str, tmp_path: Path) -> None:
    """Compiling the .proto again describes the same messages; versions of the compiler may differ in all else."""
    if importlib.util.find_spec("grpc_tools") is None:
        assert not os.environ.get("CI"), "grpcio-tools is missing"
        pytest.skip("grpcio-tools is not installed")
    out = tmp_path / f"{name}.binpb"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            "-I.",
            f"--descriptor_set_out={out}",
            FOLDERS[name] + f"/{name}.proto",
        ],
        cwd=ROOT,
        check=True,
        timeout=60 * PATIENCE,
    )
    (compiled,) = FileDescriptorSet.FromString(out.read_bytes()).file
    for message in compiled.message_type:
        for field in message.field:
            field.ClearField("json_name")  # only the compiler writes it
    described = FileDescriptorProto()
    GENERATED[name].DESCRIPTOR.CopyToProto(described)
    assert compiled == described


@each
def test_the_stub_names_every_field(name: str) -> None:
    """What type checkers read has the fields of the generated classes."""
    stub = (ROOT / FOLDERS[name] / f"{name}_pb2.pyi").read_text(encoding="utf-8")
    for message in GENERATED[name].DESCRIPTOR.message_types_by_name.values():
        body = stub.partition(f"class {message.name}(")[2].partition("\nGlobal___")[0]
        names = set(re.findall(r"^    ([A-Z0-9_]+)_FIELD_NUMBER: ", body, re.M))
        assert names == {field.name.upper() for field in message.fields}


@each
def test_the_oldest_declared_protobuf_loads_the_generated_code(name: str) -> None:
    """setup.cfg allows protobuf 6, whose first release is 6.30.0: later generators ask for later ones."""
    source = (ROOT / FOLDERS[name] / f"{name}_pb2.py").read_text(encoding="utf-8")
    version = re.search(r"^# Protobuf Python Version: (\d+)\.(\d+)\.(\d+)", source, re.M)
    assert version is not None
    assert tuple(map(int, version.groups())) <= (6, 30, 0)
    assert (runtime_version.MAJOR, runtime_version.MINOR) >= (6, 30)
