"""Counting records without making anything: the same count as of what a parser makes, for any text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eventwriter.values import Unfit
from profiles import examples
from strategies_otlp import requests
from workers._json import count
from workers._json.count import EVENTS, RECORD, Shape, check_json
from workers._limits import RECORDS_MAX, TooLarge
from workers._otlp import request as otlp_request
from workers._otlp.request import check_request, shape_of
from workers._wire import field

HOSTS = Shape({"hosts": RECORD}, events=2, alone=("host_ip",))
LOGS = shape_of(ExportLogsServiceRequest.DESCRIPTOR)
SHAPES = [RECORD, EVENTS, HOSTS, LOGS]
KEYS = ["specversion", "id", "type", "data", "hosts", "host_ip", "resourceLogs", "resource_logs", "scopeLogs",
        "logRecords", "x"]  # fmt: skip


def count_of(value: Any, shape: Shape, events: int) -> int:
    """What a text is counted as, told from its value: an element without records within is one."""
    if isinstance(value, list):
        return sum(count_of(each, shape, events) or 1 if isinstance(each, dict) else 1 for each in value) or 1
    if not isinstance(value, dict):
        return 0
    identified = any(isinstance(value.get(name), str) for name in ("type", "source", "id"))
    if events and identified and isinstance(value.get("specversion"), str):
        return count_of(value.get("data"), shape, events - 1)
    if not shape.alone.isdisjoint(value):
        return 0
    return sum(count_of(value[name], inner, 0) for name, inner in shape.groups.items() if name in value)


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


@given(
    values
    | nested(["data", "data"], values)
    | nested(["hosts"], values)
    | nested(["resourceLogs", "scopeLogs", "logRecords"], values)
    | st.lists(nested(["data", "resource_logs", "scopeLogs", "logRecords"], values), max_size=3),
    st.sampled_from(SHAPES),
    st.sampled_from([None, 2]),
    st.booleans(),
)
@settings(max_examples=examples(200))
def test_json_is_counted_as_what_it_becomes(value: Any, shape: Shape, indent: int | None, escape: bool) -> None:
    """Whatever strings hold, however it is written, and in whatever order the keys come."""
    if isinstance(value, list | dict):
        text = json.dumps(value, indent=indent, ensure_ascii=escape).encode()
        assert count.records_in(text, shape, shape.events) == count_of(value, shape, shape.events)


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


def array(count: int) -> bytes:
    """An array of so many elements, not all of them numbers."""
    return b"[" + b",".join([b"[{}]", b'"\\""'] + [b"0"] * (count - 2)) + b"]"


def test_the_limit_is_exact() -> None:
    """One more is too many; commas and brackets in strings, and in what is no record, do not count."""
    check_json(array(RECORDS_MAX), EVENTS)
    with pytest.raises(TooLarge):
        check_json(array(RECORDS_MAX + 1), EVENTS)
    with pytest.raises(TooLarge):
        check_json(b"\xef\xbb\xbf\n " + array(RECORDS_MAX + 1), EVENTS)
    many = array(RECORDS_MAX + 1)
    for few in (b'{"data":' + many + b"}", b'[{"x":' + many + b"}]", b'["' + b"],[" * RECORDS_MAX + b'"]'):
        check_json(few, EVENTS)
    with pytest.raises(TooLarge):
        check_json(b'{"data":' + many + b',"specversion":"1.0","id":"1"}', EVENTS)


def test_what_is_not_json_is_not_made_into_anything_either() -> None:
    """A parser would give up at its end, with millions of objects in hand."""
    with pytest.raises(Unfit, match="not JSON"):
        check_json(array(RECORDS_MAX + 1)[:-1], EVENTS)
    check_json(b"0" + array(RECORDS_MAX + 1), EVENTS)  # which the parser sees at once


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
