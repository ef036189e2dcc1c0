"""The fast path of OTLP requests gives what the fallback gives, or leaves the request to it."""

from __future__ import annotations

import dataclasses
import struct

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from profiles import examples
from strategies_otlp import NOW, message, requests
from traffic import Traffic
from workers import logs, otel_metrics, otel_traces
from workers._json.records import decode_records
from workers._otlp import reader
from workers._otlp.message import Signal
from workers._otlp.reader import fast_reader
from workers._wire import field

SIGNALS: dict[str, Signal] = {
    "LOGS": logs._SIGNAL,
    "OTEL_TRACES": otel_traces._SIGNAL,
    "OTEL_METRICS": otel_metrics._SIGNAL,
}
every_signal = pytest.mark.parametrize("name", SIGNALS)
RECORD = (0x0A, 0x12, 0x12)
"""Tags of a group, a scope and a record."""
ATTRIBUTES = {"LOGS": 0x32, "OTEL_TRACES": 0x4A, "OTEL_METRICS": 0x3A}


def agree(name: str, payload: bytes) -> bool:
    """Whether a request takes the fast path; asserts that it makes no difference, for new attributes and known ones."""
    signal = SIGNALS[name]
    fallback = repr(decode_records(dataclasses.replace(signal, lean=None), message(payload)))
    reader._ATTRIBUTES.forget()
    for _ in range(2):
        assert repr(decode_records(signal, message(payload))) == fallback
    assert signal.lean is not None
    repairs: list[str] = []
    try:
        request = signal.lean.FromString(payload)
        rows = signal.otlp_rows(fast_reader(payload), request, (message(payload), NOW, NOW, None, repairs))
        return bool(rows) and "text_replaced" not in repairs
    except (ValueError, DecodeError):
        return False


def nested(tags: tuple[int, ...], octets: bytes) -> bytes:
    """Submessages within each other, the last of which has these bytes."""
    for tag in reversed(tags):
        octets = field(tag, octets)
    return octets


def with_attributes(name: str, pairs: list[bytes]) -> bytes:
    """A request with a single record, which has the attributes that these bytes are."""
    octets = b"".join(field(ATTRIBUTES[name], pair) for pair in pairs)
    return nested(RECORD if name != "OTEL_METRICS" else (*RECORD, 0x2A, 0x0A), octets)


# --- any request ---


@every_signal
@given(data=st.data())
@settings(max_examples=examples(100))
def test_any_request_gives_the_same(name: str, data: st.DataObject) -> None:
    """All fields with any values, many of them not common."""
    agree(name, data.draw(requests(SIGNALS[name].request)).SerializeToString())


@every_signal
@given(data=st.data())
@settings(max_examples=examples(120))
def test_damaged_requests_give_the_same(name: str, data: st.DataObject) -> None:
    """Requests that are cut, changed, repeated in part, or several in one, which protobuf merges."""
    payload = data.draw(requests(SIGNALS[name].request)).SerializeToString()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(payload)))
        end = data.draw(st.integers(place, min(len(payload), place + 30)))
        payload = data.draw(
            st.sampled_from(
                [
                    payload[:place],
                    payload[:place] + data.draw(st.binary(min_size=1, max_size=2)) + payload[place + 1 :],
                    payload[:place] + data.draw(st.binary(min_size=1, max_size=3)) + payload[place:],
                    payload[:place] + payload[end:],
                    payload[:end] + payload[place:],
                    payload + payload,
                ]
            )
        )
    agree(name, payload)


@every_signal
@given(data=st.data())
@settings(max_examples=examples(120))
def test_damaged_attributes_give_the_same(name: str, data: st.DataObject) -> None:
    """What is read by hand is read as protobuf reads it."""
    pairs = []
    for _ in range(data.draw(st.integers(1, 2))):
        value = data.draw(
            st.builds(lambda text: AnyValue(string_value=text), st.text(max_size=5))
            | st.builds(lambda number: AnyValue(int_value=number), st.integers(-(2**63), 2**63 - 1))
            | st.builds(lambda real: AnyValue(double_value=real), st.floats())
            | st.builds(lambda truth: AnyValue(bool_value=truth), st.booleans())
        )
        pair = bytearray(KeyValue(key=data.draw(st.sampled_from(["k", "key", ""])), value=value).SerializeToString())
        for _ in range(data.draw(st.integers(0, 2))):
            if pair:
                pair[data.draw(st.integers(0, len(pair) - 1))] = data.draw(
                    st.sampled_from([0, 1, 2, 3, 8, 10, 11, 16, 18, 24, 33, 127, 128, 129, 255]) | st.integers(0, 255)
                )
        pairs.append(bytes(pair))
    agree(name, with_attributes(name, pairs))


# --- common ones ---


@every_signal
@pytest.mark.parametrize("records", [1, 3])
def test_common_traffic_takes_the_fast_path(name: str, records: int) -> None:
    """So what agrees above is not only requests that the fast path leaves alone."""
    traffic = Traffic(name, only="otlp", records=records, clock=lambda: NOW / 1e9)
    assert all(agree(name, traffic.next().payload) for _ in range(20))


def test_spans_with_everything_take_the_fast_path() -> None:
    """Events, links, a status with a message, scope attributes, bad ids."""
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add(schema_url="u")
    group.resource.dropped_attributes_count = 3
    scoped = group.scope_spans.add(schema_url="v")
    scoped.scope.attributes.add(key="a", value=AnyValue(int_value=1))
    span = scoped.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="n", end_time_unix_nano=NOW, flags=257)
    span.status.code = Status.STATUS_CODE_ERROR
    span.status.message = "failed " * 50
    span.attributes.add(key="list", value=AnyValue()).value.array_value.values.add(string_value="x" * 300)
    for number in range(2):
        event = span.events.add(name=f"e{number}", time_unix_nano=NOW)
        event.attributes.add(key="exception.stacktrace", value=AnyValue(string_value="line\n" * 100))
        span.links.add(trace_id=b"x", trace_state="s").attributes.add(key="a").value.int_value = number
    scoped.spans.add(trace_id=b"t", parent_span_id=bytes(8))
    assert agree("OTEL_TRACES", request.SerializeToString())


@pytest.mark.parametrize("body", ["", "x", "x" * 127, "x" * 128, "\u20ac" * 3000, "x" * 20_000, '"\\\n\x01\U0001f600'])
def test_bodies_of_any_length_take_the_fast_path(body: str) -> None:
    """Long text is common in logs."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(severity_number=9, event_name="e").body.string_value = body
    records.add(severity_number=99, flags=2**32 - 1, time_unix_nano=NOW)
    records.add().body.kvlist_value.values.add(key="a", value=AnyValue(string_value=body))
    records.add().body.int_value = 5
    assert agree("LOGS", request.SerializeToString())


def test_metrics_of_all_kinds_take_the_fast_path() -> None:
    """In the order of the request, with metrics that have no data."""
    request = ExportMetricsServiceRequest()
    group = request.resource_metrics.add(schema_url="u")
    group.resource.attributes.add(key="service.name", value=AnyValue(string_value="s"))
    for _ in range(2):
        metrics = group.scope_metrics.add(schema_url="v").metrics
        for unit in ("s", "", "By"):
            metrics.add(name="h", unit=unit).histogram.data_points.add(count=5, bucket_counts=[1, 4])
            metrics.add(name="g", unit=unit).gauge.data_points.add(as_double=-0.0, flags=2)
            metrics.add(name="none")
            summed = metrics.add(name="c", unit=unit, metadata=[KeyValue(key="m")]).sum
            summed.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            summed.is_monotonic = True
            for value in ({"as_int": 0}, {"as_int": -5}, {"as_double": 1e300}, {}, {"as_int": 7, "flags": 1}):
                point = summed.data_points.add(**value, time_unix_nano=NOW, start_time_unix_nano=NOW - 5)
                for key in ("http.route", "level", "b", "a"):
                    point.attributes.add(key=key, value=AnyValue(string_value='/{"id"}'))
            point.exemplars.add(trace_id=b"t" * 16, as_double=float("nan")).filtered_attributes.add(key="a")
            metrics.add(name="e").exponential_histogram.data_points.add(count=5, scale=-2)
            metrics.add(name="q").summary.data_points.add(count=5, sum=1.5)
    assert agree("OTEL_METRICS", request.SerializeToString())


VALUES = {
    "text": AnyValue(string_value="text"),
    "empty text": AnyValue(string_value=""),
    "escaped": AnyValue(string_value='"\\\b\f\n\r\t\x01\x7f\u2028\U0001f600'),
    "like U+0000": AnyValue(string_value="\\u0000"),
    "long": AnyValue(string_value="x" * 128),
    "longer": AnyValue(string_value="\u20ac" * 5000),
    "true": AnyValue(bool_value=True),
    "false": AnyValue(bool_value=False),
    "empty": AnyValue(),
    "list": AnyValue(),
    "object": AnyValue(),
    "bytes": AnyValue(bytes_value=b"\0\xff"),
    **{f"int {number}": AnyValue(int_value=number) for number in (0, 1, -1, 127, 128, 2**35, 2**63 - 1, -(2**63))},
    **{
        f"real {real}": AnyValue(double_value=real)
        for real in (0.0, -0.0, 1.0, 1e300, 5e-324, 0.1, float("nan"), float("inf"), float("-inf"))
    },
}
VALUES["list"].array_value.values.add(int_value=1)
VALUES["object"].kvlist_value.values.add(key="z", value=AnyValue(int_value=1))
VALUES["object"].kvlist_value.values.add(key="a", value=AnyValue(int_value=2))


@every_signal
@pytest.mark.parametrize("key", ["k", "", 'a"\\\n\U0001f600', "x" * 125, "x" * 126, "x" * 200])
@pytest.mark.parametrize("value", VALUES)
def test_every_value_takes_the_fast_path(name: str, key: str, value: str) -> None:
    """Whatever its kind, size and key."""
    pairs = [KeyValue(key=key, value=VALUES[value]), KeyValue(key="b"), KeyValue(key="a", value=VALUES[value])]
    assert agree(name, with_attributes(name, [pair.SerializeToString() for pair in pairs]))


# --- what is left to the fallback ---


@every_signal
@pytest.mark.parametrize(
    "pairs",
    [
        [KeyValue(key="a").SerializeToString()] * 2,
        [KeyValue(key="a", value=AnyValue(int_value=n)).SerializeToString() for n in (1, 2)],
        [KeyValue(key="a\0").SerializeToString()],
        [KeyValue(key="a", value=AnyValue(string_value="\0")).SerializeToString()],
        [b"\x0a\x01\xff\x12\x03\x0a\x01x"],
        [b"\x0a\x01x\x12\x03\x0a\x01\xff"],
        [b"\x0a\x01x\x12\x04\x0a\x02\xed\xa0"],
        [b"\x0a\x01x\x12\x02\x18"],
    ],
    ids=repr,
)
def test_uncommon_attributes_take_the_fallback(name: str, pairs: list[bytes]) -> None:
    """Keys that come twice, U+0000, text that is not UTF-8, broken bytes."""
    assert not agree(name, with_attributes(name, pairs))


@every_signal
@pytest.mark.parametrize(
    "pair",
    [
        b"\x12\x02\x10\x01\x0a\x01k",  # value before key
        b"\x0a\x01k\x12\x02\x10\x02",  # true in another way
        b"\x0a\x01k\x12\x04\x18\x01\x18\x02",  # one of several
        b"\x0a\x01k\x12\x03\x18\x80\x00",  # more octets than needed
        b"\x0a\x01k\x12\x0c\x18" + b"\x80" * 10 + b"\x00",
        b"\x0a\x01k\x12\x0b\x18" + b"\xff" * 9 + b"\x7f",
        b"\x0a\x01k\x12\x01\x18",
        b"\x0a\x01k\x12\x01\x0a",
        b"\x0a\x01k\x12\x82\x00\x10\x01",
        b"\x0a\x81\x00k\x12\x02\x10\x01",
        b"\x0a\x01k\x12\x85\x00\x0a\x83\x00abc",
        b"\x0a\x01k\x12\x02\x10\x01\x12\x02\x18\x05",  # merged
        b"\x0a\x01k\x12\x09\x21" + struct.pack("<d", 1e16) + b"\x28\x05",  # an unknown field
        b"\x0a\x01k\x12\x83\x01\x0a\x80\x01" + b"x" * 128,
        b"\x0a\x01k\x12\x83\x01\x0a\x81\x01" + b"x" * 128,
        b"\x0a\x01k\x12\x84\x01\x0a\x80\x01" + b"x" * 128,
        b"\x0a\x01k\x12\x83\x01\x12\x80\x01" + b"x" * 128,
        b"\x0a\x7e" + b"k" * 130,
        b"\x0a\x7d" + b"k" * 125 + b"\x12",
        b"\x0a\x7d" + b"k" * 125 + b"\x12\x01" + b"\x0a",
    ],
    ids=repr,
)
def test_attributes_written_in_another_way_are_the_same(name: str, pair: bytes) -> None:
    """Protobuf leaves some freedom, and bytes may be broken anywhere."""
    agree(name, with_attributes(name, [pair]))


@every_signal
def test_submessages_that_come_twice_are_merged(name: str) -> None:
    """Resource, scope, status, body: protobuf merges them."""
    (one, two) = (KeyValue(key=key, value=AnyValue(int_value=1)).SerializeToString() for key in "ab")
    resource = field(0x0A, field(0x0A, one)) + field(0x0A, field(0x0A, two))
    assert not agree(name, field(0x0A, resource + field(0x12, field(0x12, b""))))
    scope = field(0x0A, field(0x0A, b"x")) + field(0x0A, field(0x12, b"y"))
    assert not agree(name, field(0x0A, field(0x12, scope + field(0x12, b""))))
    for tag, values in ((0x7A, (b"\x18\x01", b"\x12\x01x")), (0x2A, (b"\x0a\x01x", b"\x18\x01"))):
        twice = b"".join(field(tag, value) for value in values)
        agree(name, nested(RECORD, twice))


@pytest.mark.parametrize("size", [10, 4060, 5000])
@every_signal
def test_what_is_around_records_is_the_same(name: str, size: int) -> None:
    """Whether each has it, the first of its resource, or the first of a scope with which it is just too large."""
    refs = nested((0x0A, 0x1A, 0x12), b"x" * size)
    points = nested((0x62, 0x12, 0x0A), b"y" * size) + field(0x4A, b"\x0a\x00" * 3)
    record = {"LOGS": field(0x2A, b"\x18\x01"), "OTEL_TRACES": b"", "OTEL_METRICS": points}[name]
    scopes = field(0x12, field(0x12, record) * 3) + field(0x12, field(0x0A, b"\x20\x05") + field(0x12, record) * 3)
    group = field(0x0A, refs + b"\x12\x00" + scopes * 2)
    assert agree(name, group * 2)


def test_a_metric_of_several_kinds_is_of_the_last() -> None:
    """The kinds exclude each other."""
    point = field(0x0A, b"\x31" + struct.pack("<q", 5))
    for tags in ((0x2A, 0x3A), (0x3A, 0x2A), (0x2A, 0x4A), (0x4A, 0x2A), (0x5A, 0x4A), (0x2A, 0x2A)):
        agree("OTEL_METRICS", nested(RECORD, b"".join(field(tag, point) for tag in tags)))


@every_signal
@pytest.mark.parametrize("where", ["resource", "scope", "attribute", "status", "body", "event"])
def test_the_deepest_values_are_the_same(name: str, where: str) -> None:
    """Around the depth at which protobuf refuses a request, in lists and in groups that it does not know."""
    for depth in range(85, 105):
        for value in (nested((0x2A, 0x0A) * (depth // 2), b""), b"\x5b" * depth + b"\x5c" * depth):
            pair = field(0x0A, b"k") + field(0x12, value)
            if where == "resource":
                payload = field(0x0A, field(0x0A, field(0x0A, pair)) + field(0x12, field(0x12, b"")))
            elif where == "scope":
                payload = field(0x0A, field(0x12, field(0x0A, field(0x1A, pair)) + field(0x12, b"")))
            elif where == "attribute":
                payload = with_attributes(name, [pair])
            else:
                tag = {"status": 0x7A, "body": 0x2A, "event": 0x5A}[where]
                payload = nested((*RECORD, tag), value if where != "event" else field(0x1A, pair))
            agree(name, payload)


@every_signal
def test_unknown_fields_of_the_first_record_take_the_fallback(name: str) -> None:
    """By them the fallback tells other messages from requests."""
    for record in (b"\x08\x05", b"\xf8\x07\x05", b"\x10\x05", b"\x50\x05"):
        agree(name, nested(RECORD, record))
        agree(name, field(0x0A, field(0x12, field(0x12, b"") + field(0x12, record))))
    assert not agree(name, nested(RECORD, b"\xf8\x07\x05"))
    assert not agree(name, b"\x0a\x00")


@every_signal
def test_attributes_that_are_all_new_take_the_fast_path(name: str) -> None:
    """Whether they come again is a matter of speed only."""
    for number in range(30):
        pairs = [
            KeyValue(key=f"k{n % 50}", value=AnyValue(string_value=f"{number}/{n}")).SerializeToString()
            for n in range(50)
        ]
        assert agree(name, with_attributes(name, pairs))


def test_attributes_that_are_refused_do_not_fill_the_memory_either() -> None:
    """Each list has a key that comes twice, and others that are new."""
    kept = reader.Attributes()
    for number in range(3000):
        keys = ["twice", "twice", *(f"{number}/{n}" for n in range(5))]
        with pytest.raises(reader.Uncommon):
            kept.read([KeyValue(key=key, value=AnyValue(bool_value=True)).SerializeToString() for key in keys])
    assert len(kept._kept) < 5000


def test_after_values_that_never_come_again_others_are_kept() -> None:
    """Values that are all new are mostly not worth keeping, until they are."""
    kept = reader.Attributes()

    def read(value: str) -> None:
        assert kept.read([KeyValue(key="k", value=AnyValue(string_value=value)).SerializeToString()]) == {"k": value}

    for number in range(10_000, 30_000):
        read(str(number))
    assert len(kept._kept) < 2000
    for _ in range(5000):
        read("again")
    known = len(kept._kept)
    read("again")
    assert len(kept._kept) == known
    assert KeyValue(key="k", value=AnyValue(string_value="again")).SerializeToString() in kept._kept
