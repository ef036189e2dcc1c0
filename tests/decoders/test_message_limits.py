"""How much one message may hold: at the limit it is decoded, beyond it is one dead letter, on every stream."""

from __future__ import annotations

import base64
import gc
import json
import re
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any

import pytest

from compression import gz
from eventwriter import registry
from eventwriter.postgres.attempt import fast_rows
from eventwriter.stream import HEADERS_MAX, Decoded
from fix_service import ROOT
from records import message, reasons
from workers._flow.flow_pb2 import FlowMessage
from workers._limits import (
    ALL_INFLATED_MAX,
    INFLATED_MAX,
    PARSED_MAX,
    RECORDS_MAX,
    REJECTS_MAX,
    ROWS_MAX,
    SHARED_MAX,
    SUBMESSAGES_FROM,
)
from workers._otlp import request as otlp_request
from workers._wire import field

STREAMS = registry.load()
EVENT = b'{"specversion":"1.0","id":"7","source":"/a","type":"t",%b}'
FLOW = FlowMessage(src_addr=b"\x0a\0\0\1").SerializeToString()
OTLP = {
    "LOGS": b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[%b]}]}]}',
    "OTEL_TRACES": b'{"resource_spans":[{"scopeSpans":[{"spans":[%b]}]}]}',
    "OTEL_METRICS": b'{"resourceMetrics":[{"scope_metrics":[{"metrics":[{"name":"m","sum":{"dataPoints":[%b]}}]}]}]}',
}
KINDS = {"gauge": 0x2A, "sum": 0x3A, "histogram": 0x4A, "exponential histogram": 0x52, "summary": 0x5A}


def many(element: bytes, count: int, separator: bytes = b",") -> bytes:
    """So many of them."""
    return separator.join([element] * count)


def array(count: int) -> bytes:
    """A JSON array of what is no record: each would be rejected by itself."""
    return b"[" + many(b"0", count) + b"]"


def request(stream: str, count: int, kind: int = 0x2A) -> bytes:
    """An OTLP request in protobuf with empty records."""
    if stream == "OTEL_METRICS":
        return field(0x0A, field(0x12, field(0x12, field(kind, b"\x0a\x00" * count))))
    return field(0x0A, field(0x12, b"\x12\x00" * count))


def b64(octets: bytes) -> bytes:
    """As the data of an event."""
    return EVENT % (b'"data_base64":"' + base64.b64encode(octets) + b'"')


def json_request(stream: str, count: int) -> bytes:
    """The same in JSON."""
    return OTLP[stream] % many(b"{}", count)


Maker = Callable[[int], bytes]
AT_THE_LIMIT: dict[tuple[str, str], Maker] = {
    **{(name, "array"): array for name in STREAMS},
    **{(name, "OTLP/JSON"): partial(json_request, name) for name in OTLP},
    **{(name, "OTLP"): partial(request, name) for name in OTLP},
    ("SWEEP", "summary"): lambda count: b'{"hosts":' + array(count) + b"}",
    ("NETFLOW", "lines"): lambda count: many(b"{}", count, b"\n \n"),
    ("NETFLOW", "flows"): lambda count: bytes((len(FLOW),)) + FLOW + b"\x02\x30\x01" * (count - 1),
}
_EVENTS: dict[str, Maker] = {
    "event, data first": lambda count: b'{"data":' + array(count) + b',"id":"1","specversion":"1.0"}',
    "event with text": lambda count: EVENT % (b'"data":"' + array(count) + b'"'),
    "event with gzip": lambda count: b64(gz(array(count))),
    "two events": lambda count: b"[" + b64(gz(array(count - 9))) + b"," + b64(array(9)) + b"]",
}
_REQUESTS: dict[str, Callable[[str, int], bytes]] = {
    "OTLP/JSON of no objects": lambda name, count: OTLP[name] % many(b"0", count),
    "OTLP/JSON groups": lambda name, count: OTLP[name].split(b"[")[0] + b"[" + many(b"{}", count) + b"]}",
    "two in OTLP/JSON": lambda name, count: (
        b"[%b,%b]" % (OTLP[name] % many(b"{}", count - 9), OTLP[name] % many(b"{}", 9))
    ),
    "OTLP groups": lambda name, count: b"\x0a\x00" * count,
    "OTLP scopes": lambda name, count: b"\x0a\x02\x12\x00" * count,
    "OTLP in an event": lambda name, count: b64(gz(request(name, count))),
    "OTLP in two groups": lambda name, count: request(name, count - 9) + request(name, 9),
}
BEYOND: dict[tuple[str, str], Maker] = AT_THE_LIMIT | {
    **{(name, "event"): lambda count: EVENT % (b'"data":' + array(count)) for name in STREAMS if name != "EVENTS"},
    **{(name, kind): maker for name in ("TELEMETRY", "NETFLOW", "LOGS") for kind, maker in _EVENTS.items()},
    **{(name, kind): partial(make, name) for name in ("LOGS", "OTEL_METRICS") for kind, make in _REQUESTS.items()},
    **{("OTEL_METRICS", kind): partial(request, "OTEL_METRICS", kind=tag) for kind, tag in KINDS.items()},
    ("OTEL_METRICS", "summary of a request"): lambda count: json.dumps(
        {"resource_metric_count": 1, "raw_payload": base64.b64encode(request("OTEL_METRICS", count)).decode()}
    ).encode(),
    ("EVENTS", "objects"): lambda count: b"[" + many(b"{}", count) + b"]",
    ("SWEEP", "summary in an event"): lambda count: EVENT % (b'"data":{"hosts":' + array(count) + b"}"),
    ("NETFLOW", "lines of events"): lambda count: (EVENT % (b'"data":' + array(count // 2)) + b"\n") * 3,
}


def decode(stream: str, payload: bytes) -> Decoded:
    """What a message becomes, by the fast path if it takes it."""
    declared = STREAMS[stream]
    given = message(payload, declared.subjects[0].replace(">", "x"))
    (row,) = fast_rows(declared, [given])
    return declared.decode(given) if row is None else Decoded([row])


def each_kind(cases: Iterable[tuple[tuple[str, str], Maker]]) -> list[Any]:
    """A case of each kind, of the first stream that has it; the others are long."""
    known: set[str] = set()
    found = []
    for case, maker in cases:
        found.append(pytest.param(case, maker, marks=[pytest.mark.long] if case[1] in known else []))
        known.add(case[1])
    return found


def some(*streams: str) -> list[Any]:
    """These streams; the others are long."""
    return [pytest.param(name, marks=[] if name in streams else [pytest.mark.long]) for name in STREAMS]


def ids(case: object) -> str:
    """The name of a parameter."""
    return " ".join(case) if isinstance(case, tuple) else ""


@pytest.mark.parametrize(("case", "maker"), each_kind(AT_THE_LIMIT.items()), ids=ids)
def test_a_message_at_the_limit_is_decoded(case: tuple[str, str], maker: Maker) -> None:
    """Each record is a row, or would be a reject if there were not so many of them."""
    found = decode(case[0], gz(maker(RECORDS_MAX), 1))
    if found.rejects:
        assert reasons(found) == [("too_large", None)]
        assert f" of its {RECORDS_MAX} records are bad" in found.rejects[0].detail
    else:
        assert len(found.rows) == RECORDS_MAX


@pytest.mark.parametrize(("case", "maker"), (AT_THE_LIMIT | BEYOND).items(), ids=ids)
def test_nothing_is_left_behind(case: tuple[str, str], maker: Maker) -> None:
    """Cycles are looked for seldom: what is made of a message must not be part of one."""
    payloads = [gz(maker(20)), json.dumps([RECORD, {**RECORD, "name": None}, 0]).encode()]
    for payload in payloads:
        decode(case[0], payload)
    gc.collect()
    gc.disable()
    try:
        for payload in payloads:
            decode(case[0], payload)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("stream", STREAMS)
def test_many_rejects_are_one(stream: str) -> None:
    """At their limit each is a dead letter of its own, beyond it the message is one, with the first of them."""
    found = decode(stream, gz(array(REJECTS_MAX), 1))
    assert [reject.record_index for reject in found.rejects] == [*range(REJECTS_MAX)]
    found = decode(stream, gz(array(REJECTS_MAX + 1), 1))
    assert reasons(found) == [("too_large", None)]
    assert "malformed: 0 is not an object" in found.rejects[0].detail


SPAN = b"\x12\x1c" + b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
RECORD = {"host_ip": "10.0.0.1", "value": 1, "name": "n", "body": "b", "src_addr": "10.0.0.1", "trace_id": "aa",
          "span_id": "bb"}  # fmt: skip
"""A record of any stream but EVENTS, alone in its message."""
VALUES = {"objects": b"{},", "arrays": b"[],", "numbers": b"1,", "texts": b'"",', "deeper": b'[{"a":[0]}],'}
_ATTRIBUTES = {"LOGS": 0x32, "OTEL_TRACES": 0x4A, "OTEL_METRICS": 0x3A}


@pytest.mark.parametrize(
    ("value", "stream"),
    [
        pytest.param(value, stream, marks=[] if value == "objects" or stream == "LOGS" else [pytest.mark.long])
        for value in VALUES
        for stream in STREAMS
    ],
)
def test_the_values_of_a_record_are_limited_too(stream: str, value: str) -> None:
    """Millions of them in a few kilobytes would take half a gigabyte to parse; some ten thousand are kept."""

    def payload(size: int) -> bytes:
        values = VALUES[value] * (size // len(VALUES[value]))
        more = b'"data":{"x":[' + values + b"0]}"
        return gz(EVENT % more if stream == "EVENTS" else json.dumps(RECORD).encode()[:-1] + b"," + more + b"}", 1)

    assert reasons(decode(stream, payload(6 * 2**20))) == [("too_large", None)]
    found = decode(stream, payload(300_000))
    assert (len(found.rows), [*found.rejects]) == (1, [])


@pytest.mark.parametrize(
    ("stream", "octets", "part"),
    [
        pytest.param(stream, octets, part, marks=[] if stream in streams else [pytest.mark.long], id=f"{name} {stream}")
        for name, octets, part, streams in (
            ("empty", b"\x0a\x00", 16, ("LOGS",)),
            ("list", b"\x0a\x02\x32\x00", 16, ("OTEL_METRICS",)),
            ("deeper", b"\x0a\x04\x2a\x02\x0a\x00", 16, ("OTEL_TRACES", "LOGS")),
            ("list at the limit", b"\x0a\x02\x32\x00", 1, ()),
        )
        for stream in OTLP
    ],
)
def test_so_are_those_of_a_request(monkeypatch: pytest.MonkeyPatch, stream: str, octets: bytes, part: int) -> None:
    """Values in an array in an attribute, or attributes themselves. To count millions takes seconds: one kind has the
    limit as it is, all have a sixteenth of it."""
    monkeypatch.setattr(otlp_request, "PARSED_MAX", PARSED_MAX // part)
    monkeypatch.setattr(otlp_request, "SUBMESSAGES_FROM", SUBMESSAGES_FROM // part)

    def payload(attributes: bytes) -> bytes:
        if stream == "OTEL_METRICS":
            points = field(0x2A, field(0x0A, attributes))
            return gz(field(0x0A, field(0x12, field(0x12, b"\x0a\x01m" + points))))
        return gz(field(0x0A, field(0x12, field(0x12, (SPAN[2:] if stream == "OTEL_TRACES" else b"") + attributes))))

    def values(size: int) -> bytes:
        array = field(0x12, field(0x2A, octets * (size // len(octets))))
        return field(_ATTRIBUTES[stream], b"\x0a\x01k" + array)

    empty = bytes((_ATTRIBUTES[stream], 0))
    for attributes in (values(6 * 2**20 // part), values(2**17) * (80 // part), empty * (4 * 2**20 // part)):
        assert reasons(decode(stream, payload(attributes))) == [("too_large", None)]
    assert len(decode(stream, payload(values(300_000))).rows) == 1


@pytest.mark.parametrize(("case", "maker"), each_kind(BEYOND.items()), ids=ids)
def test_a_message_beyond_the_limit_is_one_dead_letter(case: tuple[str, str], maker: Maker) -> None:
    """However its records are wrapped, and however small it is."""
    found = decode(case[0], gz(maker(RECORDS_MAX + 1), 1))
    assert reasons(found) == [("too_large", None)]
    assert not found.rows


@pytest.mark.parametrize("stream", STREAMS)
def test_it_need_not_be_compressed(stream: str) -> None:
    """A larger payload than usual may hold as much by itself."""
    found = decode(stream, array(RECORDS_MAX + 1))
    assert reasons(found) == [("too_large", None)]


@pytest.mark.parametrize("stream", some("EVENTS", "LOGS", "NETFLOW"))
def test_what_is_not_a_record_does_not_count(stream: str) -> None:
    """A message with more commas than it may have records, and fewer records."""
    record = {"host_ip": "10.0.0.1", "value": 1, "name": "n", "body": "a,b,[c],{d}", "src_addr": "10.0.0.1", "msg": "m"}
    record |= {f"k{number}": number for number in range(20)} | {"data": [*range(20)], "logRecords": [1, 2, 3]}
    payload = json.dumps([record] * 6000).encode()
    assert payload.count(b",") > RECORDS_MAX
    found = decode(stream, payload)
    assert (len(found.rows), found.rejects) == (6000, [])


@cache
def nested(levels: int) -> bytes:
    """Blanks in gzip in many events in gzip, and so on: a hundred times as many at each level."""
    payload = gz(b"[" + b" " * (8 * 2**20) + b"]")
    for _ in range(levels):
        payload = gz(b"[" + many(b64(payload), 100) + b"]")
    return payload


@pytest.mark.parametrize(
    ("levels", "stream"),
    [
        pytest.param(levels, stream, marks=[] if stream in chosen else [pytest.mark.long])
        for levels, chosen in ((1, ("EVENTS",)), (4, ("LOGS", "NETFLOW")))
        for stream in STREAMS
        if (levels, stream) != (4, "EVENTS")  # takes what is in an event as it is
    ],
)
def test_compressed_parts_share_one_limit(stream: str, levels: int) -> None:
    """Each may be below it, and their number grow with the levels: to inflate them all would take for ever."""
    assert reasons(decode(stream, nested(levels))) == [("too_large", None)]


@pytest.mark.parametrize("stream", OTLP)
def test_what_records_share_counts_for_each(stream: str) -> None:
    """A few kilobytes of gzip whose records share a megabyte would be gigabytes of rows: one dead letter."""
    shared = field(0x0A, field(0x0A, b"\x0a\x01k" + field(0x12, field(0x0A, b"x" * 2**20))))

    def group(count: int) -> bytes:
        if stream == "OTEL_METRICS":
            metric = b"\x0a\x01m" + field(0x2A, b"\x0a\x00" * count)
            return field(0x0A, shared + field(0x12, field(0x12, metric)))
        return field(0x0A, shared + field(0x12, (SPAN if stream == "OTEL_TRACES" else b"\x12\x00") * count))

    payload = gz(group(50_000))
    assert len(payload) < 2**14
    found = decode(stream, payload)
    assert reasons(found) == [("too_large", None)]
    assert not found.rows
    assert len(decode(stream, gz(group(100))).rows) == 100


LARGE = b"x" * (SHARED_MAX + 1)
REFS = field(0x0A, field(0x1A, field(0x12, LARGE)))
INTEGER = field(0x12, field(0x2A, b"\x18\x01"))
"""A log record whose body is one, which is told in the column that has what is shared, too."""
POINTS: dict[str, Callable[[bytes, int], bytes]] = {
    "points": lambda metadata, count: field(0x12, metadata + field(0x4A, b"\x0a\x00" * count)),
    "metrics": lambda metadata, count: field(0x12, metadata + field(0x2A, b"\x0a\x00")) * count,
}
METADATA = field(0x62, b"\x0a\x01k" + field(0x12, field(0x0A, LARGE)))
SHARED: dict[tuple[str, str], Callable[[bytes, int], bytes]] = {
    **{
        (name, "event with OTLP/JSON"): lambda text, count, name=name: (  # type: ignore[misc]
            EVENT % (b'"ext":"%b","data":' % text + OTLP[name] % many(b"{}", count))
        )
        for name in OTLP
    },
    **{
        (name, f"event with {kind}"): lambda text, count, make=make: (  # type: ignore[misc]
            EVENT % (b'"ext":"%b","data_base64":"%b"' % (text, base64.b64encode(make(count))))
        )
        for name, kind, make in (
            ("LOGS", "OTLP", partial(request, "LOGS")),
            ("NETFLOW", "flows", lambda count: (bytes((len(FLOW),)) + FLOW) * count),
            ("NETFLOW", "lines", lambda count: many(b'{"src_port":1}', count, b"\n")),
        )
    },
    ("TELEMETRY", "event with an array"): lambda text, count: (
        EVENT % (b'"ext":"%b","data":[%b]' % (text, many(b'{"value":1}', count)))
    ),
    ("SWEEP", "summary"): lambda text, count: (
        b'{"ext":"%b","hosts":[%b]}' % (text, many(b'{"host_ip":"10.0.0.1"}', count))
    ),
}
"""What is shared is as large as a text in it."""
IN_PROTOBUF: dict[tuple[str, str], Maker] = {
    ("LOGS", "records"): lambda count: field(0x0A, REFS + field(0x12, INTEGER * count)),
    ("LOGS", "scopes"): lambda count: field(0x0A, REFS + b"\x12\x00" + field(0x12, INTEGER) * count),
    ("OTEL_TRACES", "records"): lambda count: field(0x0A, REFS + field(0x12, SPAN * count)),
    **{
        ("OTEL_METRICS", kind): lambda count, make=make: field(  # type: ignore[misc]
            0x0A, REFS + field(0x12, field(0x12, b"\x2a\x00") + make(b"", count))
        )
        for kind, make in POINTS.items()
    },
    ("OTEL_METRICS", "points of a metric with metadata"): lambda count: field(
        0x0A, field(0x12, POINTS["points"](METADATA, count))
    ),
}


@pytest.mark.parametrize("case", [*SHARED, *IN_PROTOBUF], ids=ids)
def test_what_is_large_around_records_comes_with_the_first(case: tuple[str, str]) -> None:
    """Each with a copy of it would be many times the message."""
    payload = SHARED[case](LARGE, 5) if case in SHARED else IN_PROTOBUF[case](5)
    found = decode(case[0], payload)
    assert not found.rejects
    having = [any(LARGE in value for value in row if isinstance(value, bytes)) for row in found.rows]
    assert having == [True, False, False, False, False]
    if case in SHARED:  # what is not large comes with each
        rows = decode(case[0], SHARED[case](b"here", 5)).rows
        assert all(any(b'"here"' in value for value in row if isinstance(value, bytes)) for row in rows)


NOTHING = EVENT % b'"data":[]'
"""What has no record at all."""
BEHIND_NOTHING: dict[tuple[str, str], bytes] = {
    ("LOGS", "request without records"): b'"data":[{"resourceLogs":[]},{"body":"x"},{"body":"y"}]',
    ("LOGS", "event without records"): b'"data":[%b,{"body":"x"},{"body":"y"}]' % NOTHING,
    ("LOGS", "array without records"): b'"data":[%b,{"resourceLogs":[{"scopeLogs":[{"logRecords":[{},{}]}]}]}]'
    % NOTHING,
    ("OTEL_METRICS", "request without points"): b'"data":[%b,%b]'
    % (OTLP["OTEL_METRICS"] % b"", OTLP["OTEL_METRICS"] % b'{"asInt":1},{"asInt":2}'),
    ("TELEMETRY", "event without records"): b'"data":[%b,{"value":1},{"value":2}]' % NOTHING,
    ("NETFLOW", "line without records"): b'"data_base64":"%b"'
    % base64.b64encode(b'%b\n{"src_port":1}\n{"src_port":2}' % NOTHING),
}


@pytest.mark.parametrize("case", BEHIND_NOTHING, ids=ids)
def test_what_is_large_comes_with_the_first_that_is_there(case: tuple[str, str]) -> None:
    """Behind what has no record: nothing else has it."""
    found = decode(case[0], EVENT % (b'"ext":"%b",%b' % (LARGE, BEHIND_NOTHING[case])))
    assert not found.rejects
    having = [any(LARGE in value for value in row if isinstance(value, bytes)) for row in found.rows]
    assert having == [True, False]


@pytest.mark.parametrize("case", SHARED, ids=ids)
def test_what_all_would_get_is_counted_before(case: tuple[str, str]) -> None:
    """What is not large counts for each of the records, of which none is made if it is too much."""
    found = decode(case[0], gz(SHARED[case](LARGE[:4000], ROWS_MAX // 4000), 1))
    assert reasons(found) == [("too_large", None)]
    assert "records share" in found.rejects[0].detail


def test_the_documentation_has_these_limits() -> None:
    """docs/guarantees.md has a table of them."""
    text = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")
    counts = {"records": RECORDS_MAX, "dead letters of their own": REJECTS_MAX, "headers": HEADERS_MAX}
    sizes = {"inflates to": INFLATED_MAX, "to parse": PARSED_MAX, "text and JSON": ROWS_MAX}
    for name, limit in counts.items():
        assert re.search(rf"^\| [^|]*{name}[^|]* \| {limit:,} \|$", text, re.MULTILINE), name
    for name, limit in sizes.items():
        assert re.search(rf"^\| [^|]*{name}[^|]* \| {limit >> 20} MiB\b", text, re.MULTILINE), name
    assert f"{ALL_INFLATED_MAX >> 20} MiB |" in text
    assert f"| {SHARED_MAX >> 10} KiB |" in text
