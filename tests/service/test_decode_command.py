"""`eventwriter decode`: every sample payload from the command line, and what its help shows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import forkserver
from compression import gz
from eventwriter.cli import cli
from fix_service import ROOT, STREAMS

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples"
BINARY = [tuple(line.split()) for line in (SAMPLES / "protobuf.txt").read_text().splitlines()]
JSON = [(name, line) for name in STREAMS for line in (SAMPLES / f"{name.lower()}.jsonl").read_text().splitlines()]


def decode(stream: str, payload: bytes, *options: str) -> Result:
    """Runs the command in this process."""
    return CliRunner().invoke(cli, ["decode", "--stream", stream, *options], input=payload)


def records(result: Result) -> list[dict[str, Any]]:
    """The lines it printed."""
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize(("stream", "form", "payload"), BINARY)
def test_every_protobuf_sample_becomes_rows(stream: str, form: str, payload: str) -> None:
    """From base64 and hexadecimal; none is rejected."""
    result = decode(stream, payload.encode(), f"--{form}")
    assert result.exit_code == 0, result.output
    assert any("row" in record for record in records(result))


@pytest.mark.parametrize(("stream", "payload"), JSON)
def test_every_json_sample_becomes_rows(stream: str, payload: str) -> None:
    """As raw bytes and compressed; none is rejected, and times are those of the message."""
    result = decode(stream, payload.encode(), "--time", "2026-01-02T03:04:05Z")
    assert result.exit_code == 0, result.output
    assert all("reject" not in record for record in records(result))
    assert any("row" in record for record in records(result))
    compressed = decode(stream, gz(payload.encode()), "--time", "2026-01-02T03:04:05Z")
    if stream != "EVENTS":  # raw_data holds the payload's text
        assert records(compressed) == records(result)


@pytest.mark.parametrize("stream", STREAMS)
def test_json_lines_are_one_message_each(stream: str) -> None:
    """--lines reads all samples of a stream at once, from a file."""
    result = CliRunner().invoke(
        cli, ["decode", "--stream", stream, "--lines", str(SAMPLES / f"{stream.lower()}.jsonl")]
    )
    assert result.exit_code == 0, result.output
    assert len(records(result)) >= sum(name == stream for name, _ in JSON)


def test_what_is_rejected_says_why_and_ends_with_65() -> None:
    """Rows and rejects appear in the order of the message, with their record's index."""
    result = decode(
        "TELEMETRY", b'[{"metric_name":"a","value":1},{"metric_name":"b","value":"x"},{"metric_name":"c","value":2}]'
    )
    assert result.exit_code == 65
    found = [record for record in records(result) if "repairs" not in record]
    assert [("row" if "row" in r else "reject") for r in found] == ["row", "reject", "row"]
    assert found[1]["reject"]["record_index"] == 1
    assert found[1]["reject"]["reason"]


def test_a_cloudevent_in_binary_mode_comes_from_headers() -> None:
    """--header gives the attributes."""
    headers = [
        "--header",
        "ce-specversion=1.0",
        "--header",
        "ce-id=7",
        "--header",
        "ce-source=/a",
        "--header",
        "ce-type=t",
    ]
    result = decode("EVENTS", b'{"msg": "hello"}', *headers)
    assert result.exit_code == 0, result.output
    assert records(result)[0]["row"]["id"] == "7"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--stream", "LOGZ"], "there is no stream LOGZ"),
        (["--stream", "LOGS", "--hex"], "not hex"),
        (["--stream", "LOGS", "--base64"], "not base64"),
        (["--stream", "LOGS", "--header", "nothing"], "not name=value"),
        (["--stream", "LOGS", "--time", "soon"], "not a time"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], words: str) -> None:
    """Exit code 64, no traceback."""
    done = forkserver.run(["decode", *arguments], os.environ, b"%%%")
    assert done.returncode == 64
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_help_shows_each_encoding_with_options_that_exist() -> None:
    """Every example of the help parses."""
    text = CliRunner().invoke(cli, ["decode", "--help"]).output
    examples = re.findall(r"eventwriter decode (.*?)(?:  +\S.*)?$", text.replace("\\\n", " "), re.MULTILINE)
    assert len(examples) >= 9
    for example in examples:
        options = re.findall(r"--[a-z0-9]+", example)
        assert all(option in text.partition("Examples")[0] for option in options)
    for word in ("JSON lines", "CloudEvent", "GELF", "OTLP protobuf", "OTLP/JSON", "FlowMessage", "gzip"):
        assert word in text


def test_the_example_of_the_readme() -> None:
    """It runs as it stands there: one row, one reject, exit code 65."""
    block = re.search(r"```sh\n(echo [^\n]* \| eventwriter decode [^\n]*)\n```", (ROOT / "README.md").read_text())
    assert block
    command = block.group(1).replace("eventwriter decode", f"{sys.executable} -m eventwriter decode")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False)
    row, reject = (json.loads(line) for line in done.stdout.splitlines())
    assert row["row"]["body"] == "disk is slow"
    assert row["row"]["severity_number"] == 13
    assert reject["reject"]["record_index"] == 1
    assert done.returncode == 65
