"""Counting records: in protobuf before anything is made of them, in JSON before rows are, the values of JSON before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eventwriter.stream import Decoded, Stream
from eventwriter.values import Unfit
from profiles import examples
from records import message, reasons
from strategies_otlp import requests
from workers import events, logs, sweep, telemetry
from workers._json import records
from workers._json.payload import parse
from workers._limits import PARSED_MAX, RECORDS_MAX, VALUE, TooLarge
from workers._otlp import json_form
from workers._otlp import request as otlp_request
from workers._otlp.request import check_request
from workers._wire import field

KEYS = ["specversion", "id", "type", "data", "hosts", "host_ip", "resourceLogs", "resource_logs", "scopeLogs",
        "logRecords", "x"]  # fmt: skip
LIMITED = (events, records, json_form)
"""Modules that count records in JSON."""


texts = (
    st.text(st.sampled_from('a"\\,[]{}: é\n'), max_size=6) | st.sampled_from(KEYS) | st.sampled_from(["1.0", "[1,2]"])
)
values = st.recursive(
    st.none() | st.integers(0, 20) | st.floats(-1, 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | texts, inner, max_size=5),
    max_leaves=40,
)


def nested(keys: list[str], leaf: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values with lists of lists under these keys, which random ones hardly ever have."""
    for key in reversed(keys):
        rest = st.dictionaries(st.sampled_from(KEYS), values, max_size=2)
        leaf = st.builds(lambda inner, more, key=key: more | {key: inner}, st.lists(leaf, max_size=4) | leaf, rest)
    return leaf


def decoded(stream: Stream, value: Any, limit: int) -> Decoded:
    """What a message becomes where one may have so many records."""
    with pytest.MonkeyPatch.context() as patch:
        for module in LIMITED:
            patch.setattr(module, "RECORDS_MAX", limit)
        return stream.decode(message(value, "s"))


def containers(value: Any) -> int:
    """How many groups without any record a value may have."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(containers, inner))


@given(
    values
    | nested(["data", "data"], values)
    | nested(["hosts"], values)
    | nested(["resourceLogs", "scopeLogs", "logRecords"], values)
    | st.lists(nested(["data", "resource_logs", "scopeLogs", "logRecords"], values), max_size=3),
    st.sampled_from([telemetry.STREAM, sweep.STREAM, logs.STREAM, events.STREAM]),
)
@example([{"hosts": [None, None]}, {"x": 1}], sweep.STREAM)
@settings(max_examples=examples(200))
def test_no_record_is_beyond_the_limit_however_they_are_wrapped(value: Any, stream: Stream) -> None:
    """Nor does anything else count, but for groups and arrays without any."""
    if isinstance(value, list | dict):
        found = decoded(stream, value, RECORDS_MAX)
        count = len(found.rows) + len(found.rejects)
        if count > 1:
            assert reasons(decoded(stream, value, count - 1)) == [("too_large", None)]
        assert decoded(stream, value, count + containers(value)) == found


def group_count(message: Any) -> int:
    """The records of an OTLP message; a group without any is one."""
    found = 0
    for descriptor, value in message.ListFields():
        kind = descriptor.message_type
        if kind is not None and kind.name in otlp_request.GROUPS | otlp_request.RECORDS:
            for each in value if descriptor.is_repeated else [value]:
                found += 1 if kind.name in otlp_request.RECORDS else group_count(each) or 1
    return found


@given(
    requests(ExportLogsServiceRequest) | requests(ExportTraceServiceRequest) | requests(ExportMetricsServiceRequest),
    st.sampled_from([b"", field(0x7A, b"x"), b"\x7b\x0a\x00\x7c"]),
)
@settings(max_examples=examples(200))
def test_protobuf_is_counted_as_what_it_becomes(request: Any, unknown: bytes) -> None:
    """All three signals, and all five kinds of metrics."""
    tree = otlp_request._tree_of(request.DESCRIPTOR)
    payload = request.SerializeToString()
    assert otlp_request._count(payload, 0, len(payload), tree) == group_count(request)


def numbers(count: int) -> bytes:
    """An array of so many elements, not all of them numbers."""
    return b"[" + b",".join([b"[{}]", b'"\\""'] + [b"0"] * (count - 2)) + b"]"


MOST = PARSED_MAX // VALUE


def test_what_a_parser_would_make_is_limited() -> None:
    """Commas and brackets in strings do not count."""
    with pytest.raises(TooLarge):
        parse(numbers(MOST), [])
    with pytest.raises(TooLarge):
        parse(b"\xef\xbb\xbf\n " + numbers(MOST), [])
    assert len(parse(numbers(MOST - 10), [])) == MOST - 10
    text = '],["\\' * MOST
    assert parse(json.dumps([text, 1, text]).encode(), []) == [text, 1, text]


def test_what_is_not_json_is_not_made_into_anything_either() -> None:
    """A parser would give up at its end, with millions of objects in hand."""
    with pytest.raises(Unfit, match="not JSON, for all its commas"):
        parse(numbers(MOST)[:-1], [])
    with pytest.raises(Unfit, match=r"^(?!.*commas)"):
        parse(b"0" + numbers(MOST), [])  # which the parser sees at once


@pytest.mark.parametrize(
    "unit", [b"\x12\x00", b"\x92\x00\x00", b"\x12\x80\x00"], ids=["plain", "long tag", "long size"]
)
def test_a_record_is_one_however_it_is_written(unit: bytes) -> None:
    """Parsers take tags and lengths that are longer than they need be."""
    request = ExportLogsServiceRequest.DESCRIPTOR
    check_request(field(0x0A, field(0x12, unit * RECORDS_MAX)), request)
    for payload in (
        field(0x0A, field(0x12, unit * (RECORDS_MAX + 1))),
        b"\x7b\x7c" + field(0x0A, field(0x12, unit * (RECORDS_MAX + 1))),
        field(0x0A, field(0x12, unit * (RECORDS_MAX - 1))) + b"\x0a\x00\x0a\x00",
    ):
        with pytest.raises(TooLarge, match="records"):
            check_request(payload, request)
    assert ExportLogsServiceRequest.FromString(field(0x0A, field(0x12, unit * 3))).resource_logs[0].scope_logs[0]


def test_fields_of_a_group_or_a_record_have_a_limit_too() -> None:
    """Unknown ones cost as much to look at as records."""
    request = ExportLogsServiceRequest.DESCRIPTOR
    many = b"\xf8\x01\x00" * (RECORDS_MAX + 1)
    for payload in (
        many,
        field(0x0A, many),
        field(0x0A, field(0x12, many)),
        field(0x0A, field(0x12, field(0x12, many))),
    ):
        with pytest.raises(TooLarge, match="fields"):
            check_request(payload, request)
