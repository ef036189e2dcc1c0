"""Ids, severities and series of OTLP: what is not really there, or written in another way."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from checks import decode_checked
from eventwriter.stream import Stream
from strategies_otlp import as_dict, message
from workers import logs, otel_metrics, otel_traces

TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"


def only_row(stream: Stream, payload: Any) -> tuple[dict[str, Any], list[str]]:
    """The single row of a payload, and its repairs."""
    decoded = decode_checked(stream, message(orjson.dumps(payload), stream.subjects[0]))
    (row,) = decoded.rows
    assert not decoded.rejects
    return as_dict(stream.columns, row), list(decoded.repairs)


def log(**fields: Any) -> Any:
    """A request with one log record."""
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x"}, **fields}]}]}]}


def flat_log(**fields: Any) -> Any:
    """A record that the fast path takes, but for its ids."""
    usual = {"timestamp": 1765535400123456789, "body": "x", "attributes": {}, "resource": {}, "severity_text": "INFO"}
    return {**usual, "severity_number": 9, **fields}


def span(**fields: Any) -> Any:
    """A request with one span."""
    return {"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "op", **fields}]}]}]}


def point(**fields: Any) -> Any:
    """A request with one gauge."""
    return {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [fields]}}]}]}]}


@pytest.mark.parametrize(
    ("stream", "payload"),
    [
        (logs.STREAM, log(traceId="0" * 32, spanId="0" * 16)),
        (logs.STREAM, {"body": "x", "trace_id": "0" * 32, "span_id": "0" * 16}),
        (logs.STREAM, flat_log(trace_id="0" * 32, span_id="0" * 16)),
        (otel_traces.STREAM, span(traceId="0" * 32, spanId="0" * 16)),
        (otel_traces.STREAM, {"name": "op", "trace_id": "0" * 32, "span_id": "0" * 16}),
        (otel_metrics.STREAM, point(asInt="1", exemplars=[{"traceId": "0" * 32, "spanId": "0" * 16}])),
        (otel_metrics.STREAM, {"span_name": "m", "trace_id": "0" * 32, "span_id": "0" * 16}),
    ],
)
def test_ids_of_zeros_are_absent(stream: Stream, payload: Any) -> None:
    """OpenTelemetry calls them invalid."""
    row, _ = only_row(stream, payload)
    assert (row["trace_id"], row["span_id"]) == ("", "")


@pytest.mark.parametrize(
    ("given", "number"),
    [("SEVERITY_NUMBER_ERROR", 17), ("ERROR", 17), ("severity_number_warn3", 15), ("17", 17), (17.0, 17), ("x", None)],
)
def test_a_severity_number_by_its_name(given: Any, number: int | None) -> None:
    """Protobuf's JSON writes enums by their names, and flat records are made of it."""
    assert only_row(logs.STREAM, {"body": "x", "severity_number": given})[0]["severity_number"] == number
    if number:
        assert only_row(logs.STREAM, log(severityNumber=given))[0]["severity_number"] == number


@pytest.mark.parametrize("level", [3, "3", 3.0, "3.0", " 3 "])
def test_a_level_of_syslog_in_every_form(level: Any) -> None:
    """A number, or its text."""
    row, _ = only_row(logs.STREAM, {"version": "1.1", "host": "h", "short_message": "m", "level": level})
    assert (row["severity_number"], row["severity_text"]) == (17, "ERROR")


@pytest.mark.parametrize(("text", "number"), [("ERROR", 17), ("warn", 13), ("Info2", 10), ("loud", None)])
def test_a_severity_by_its_text(text: str, number: int | None) -> None:
    """As in flat JSON; a number that is given counts."""
    assert only_row(logs.STREAM, log(severityText=text))[0]["severity_number"] == number
    assert only_row(logs.STREAM, log(severityText=text, severityNumber=5))[0]["severity_number"] == 5


@pytest.mark.parametrize(
    ("stream", "payload"),
    [
        (logs.STREAM, log(traceId="W47/95gDgQPSabYzgT/GDA==", spanId="7uGbfsPBsXQ=")),
        (logs.STREAM, {"body": "x", "traceId": "W47_95gDgQPSabYzgT_GDA==", "spanId": "7uGbfsPBsXQ="}),
        (logs.STREAM, flat_log(trace_id="W47/95gDgQPSabYzgT/GDA==", span_id="7uGbfsPBsXQ=")),
        (otel_traces.STREAM, span(traceId="W47/95gDgQPSabYzgT/GDA==", spanId="7uGbfsPBsXQ=")),
        (otel_traces.STREAM, {"name": "op", "trace_id": "W47/95gDgQPSabYzgT/GDA==", "span_id": "7uGbfsPBsXQ="}),
        (otel_metrics.STREAM, {"span_name": "m", "trace_id": "W47/95gDgQPSabYzgT/GDA==", "span_id": "7uGbfsPBsXQ="}),
    ],
)
def test_ids_in_base64_are_decoded_and_counted(stream: Stream, payload: Any) -> None:
    """Protobuf's own JSON has them so, and so have flat records that a rule engine made of bytes."""
    row, repairs = only_row(stream, payload)
    assert (row["trace_id"], row["span_id"], repairs) == (TRACE, SPAN, ["bad_id"] * 2)


@pytest.mark.parametrize("coded", ["W47/95gDgQPSabYzgT/GDAA=", "W47/95gDgQPSabYzgT/GDA=", "W47/95gDgQP!abYzgT/GDA=="])
def test_base64_of_another_length_is_no_id(coded: str) -> None:
    """Of 17 bytes, too short a padding, and what is no base64."""
    payload = orjson.dumps(span(traceId=coded, spanId=SPAN))
    (reject,) = decode_checked(otel_traces.STREAM, message(payload, otel_traces.STREAM.subjects[0])).rejects
    assert (reject.reason, reject.record_index) == ("bad_id", 0)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"timeUnixNano": "2025-12-12T10:30:00Z"}, {"timeUnixNano": "2025-12-12T10:30:10Z"}),
        ({"startTimeUnixNano": "a"}, {"startTimeUnixNano": "b"}),
        ({"flags": "x"}, {"flags": 2**40}),
        ({"asInt": str(2**70)}, {"asInt": str(2**71)}),
    ],
)
def test_what_was_repaired_is_no_part_of_the_series(one: Any, two: Any) -> None:
    """It is kept among the attributes, and the series is that of the points without it."""
    keys, kept = set(), []
    no_fields: dict[str, Any] = {}
    for fields in (one, two, no_fields):
        row, _ = only_row(otel_metrics.STREAM, point(**{"asInt": "5", "attributes": {"a": "x"}, **fields}))
        keys.add(row["series_key"])
        kept.append(row["attributes"])
    assert len(keys) == 1
    assert len({*kept}) == 3


@pytest.mark.parametrize("field", ["grpc_service", "grpcMethod", "http_route"])
def test_a_call_without_name_is_a_row(field: str) -> None:
    """Its name is unknown."""
    assert only_row(otel_metrics.STREAM, {"service_name": "s", field: "x"})[0]["span_name"] == "unknown"
