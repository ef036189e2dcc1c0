"""Messages of the JSON streams for the oracle: records whose values are all different, in every wrapping."""

from __future__ import annotations

import base64
import gzip
import ipaddress
import zlib
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from oracle import Leaf, Number, dumps, leaves
from strategies_otlp import pairs, plain, real, requests, to_json
from workers._flow.flow_pb2 import FlowMessage

NAMES: dict[str, tuple[str, ...]] = {
    "TELEMETRY": (
        "timestamp", "gateway_id", "gatewayId", "poller_id", "pollerId", "agent_id", "metric_name", "metricName",
        "name", "metric_type", "type", "device_id", "value", "unit", "tags", "partition", "scale", "is_delta",
        "target_device_ip", "if_index", "ifIndex", "metadata",
    ),
    "EVENTS": (
        "version", "host", "short_message", "message", "timestamp", "time", "level", "severity", "_remote_addr",
        "remote_addr", "varbinds", "class_uid", "severity_id", "device_id", "action", "current_state", "poller_id",
    ),
    "SWEEP": (
        "host_ip", "hostIp", "ip", "host", "gateway_id", "poller_id", "agent_id", "partition", "network_cidr",
        "hostname", "mac", "icmp_available", "icmp_response_time_ns", "icmp_packet_loss", "tcp_ports_scanned",
        "port_scan_results", "last_sweep_time", "first_seen", "metadata", "icmp_status",
    ),
    "NETFLOW": (
        "timestamp", "poller_id", "flow_direction", "FlowDirection", "src_addr", "srcAddr", "sourceAddress", "SrcAddr",
        "dst_addr", "src_port", "SrcPort", "protocol", "proto", "packets", "octets", "bytes", "sampler_address",
        "input_snmp", "in_if", "InIf", "output_snmp", "metadata", "time_received_ns", "timeReceivedNs",
        "time_flow_end_ns", "next_hop", "src_mac", "srcMac", "sampling_rate", "mpls_ip",
    ),
    "LOGS": (
        "timestamp", "time", "ts", "@timestamp", "timeUnixNano", "observed_timestamp", "trace_id", "traceId",
        "span_id", "trace_flags", "flags", "severity_text", "severityText", "severity_number", "severity", "level",
        "body", "message", "msg", "short_message", "varbinds", "event_name", "service_name", "service.name", "service",
        "host", "scope", "scope_name", "scope_attributes", "attributes", "resource", "resource_attributes",
        "dropped_attributes_count", "schema_url", "source", "service_version", "service_instance",
    ),
    "OTEL_TRACES": (
        "timestamp", "trace_id", "traceId", "span_id", "parent_span_id", "trace_state", "flags", "name", "span_name",
        "kind", "start_time_unix_nano", "startTimeUnixNano", "end_time_unix_nano", "service_name", "status",
        "status_code", "status_message", "attributes", "resource", "resource_attributes", "events", "links", "data",
    ),
    "OTEL_METRICS": (
        "timestamp", "start_timestamp", "trace_id", "span_id", "series_key", "service_name", "span_name", "name",
        "metric_name", "span_kind", "metric_type", "value", "value_int", "unit", "duration_ms", "durationMs",
        "duration_seconds", "count", "sum", "http_status_code", "grpc_service", "is_slow", "level", "attributes",
        "resource", "scope_attributes", "data",
    ),
}  # fmt: skip
"""Names that records of each stream have, several of one column among them."""
_ESSENTIAL: dict[str, dict[str, Any]] = {
    "TELEMETRY": {"value": Number(1)}, "EVENTS": {}, "SWEEP": {"host_ip": "h"}, "NETFLOW": {"src_addr": "10.0.0.1"},
    "LOGS": {"body": "b"}, "OTEL_TRACES": {"name": "n"}, "OTEL_METRICS": {"name": "n"},
}  # fmt: skip
"""Without which a record would be rejected, and nothing learnt."""
OBJECTS = {"tags", "metadata", "attributes", "resource", "resource_attributes", "scope", "scope_attributes", "status",
           "data", "icmp_status", "event", "varbinds", "events", "links"}  # fmt: skip
_PLAIN = ("s{}", "ä{}", "S{} T", "{}", "{}.5", "2025-12-12T10:30:00.{:06d}Z", '{{"k{}":{}}}', "[{}]", "a{}\0",
          "\ud800{}", "true", "", " {} ", "1e999")  # fmt: skip
_NUMBERS = (
    "{}", "{}", "-{}", "{}.25", "17655354{:02d}", "1765535400{:09d}", "99999999{:02d}", "9223372036854775{:03d}",
    "12345678901234567890{:02d}", "0.12345678901234567{:03d}", "{}.0", "1e4{:02d}", "4{}e-400",
)  # fmt: skip


class Generated(NamedTuple):
    """A message, and what the oracle asks for."""

    payload: bytes
    headers: dict[str, str] | None
    records: list[list[Leaf]]
    shared: list[Leaf]


@st.composite
def json_messages(draw: st.DrawFn, stream: str) -> Generated:
    """One record or several, alone, in arrays, in CloudEvents within each other, compressed."""
    number = count(11)
    records = [draw(_record(stream, number)) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
    found = [[*leaves(record)] for record in records]
    value: Any = records[0] if len(records) == 1 and draw(st.booleans()) else records
    shared: list[Leaf] = []
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2]))):
        if isinstance(value, list) and len(records) == 1 and draw(st.booleans()):
            value = value[0]
        envelope = draw(_envelope(number))
        shared += leaves(envelope)
        value = _wrapped(draw, envelope, value)
    payload = dumps(value).encode()
    headers = None
    if draw(st.integers(0, 3)) == 0:
        envelope = {
            name: text for name, text in draw(_envelope(number)).items() if type(text) is str and text.isascii()
        }
        envelope = {name: text for name, text in envelope.items() if text.isprintable()}
        shared += leaves(envelope)
        headers = {f"ce-{name}": text for name, text in envelope.items()}
    if stream == "EVENTS" and shared:  # where a CloudEvent is one record, whatever its data is
        found, shared = [[*shared, *(leaf for record in found for leaf in record)]], []
    return Generated(draw(st.sampled_from(_COMPRESSED))(payload), headers, found, shared)


def _record(stream: str, number: Any) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from(NAMES[stream]) | st.builds(lambda: f"x{next(number)}")

    def record(draw: Any) -> dict[str, Any]:
        given = draw(st.lists(names, max_size=9, unique=True))
        return _ESSENTIAL[stream] | {name: _value(draw, name, number) for name in given}

    return st.composite(record)()


def _value(draw: Any, name: str, number: Any, depth: int = 0) -> Any:
    kind = draw(st.integers(0, 9))
    if depth < 2 and (kind == 0 or (kind < 8 and name in OBJECTS)):
        inner = {f"y{next(number)}": _value(draw, "", number, depth + 1) for _ in range(draw(st.integers(1, 2)))}
        return [inner] if draw(st.integers(0, 3)) == 0 else inner
    if depth < 2 and kind == 1:
        return [_value(draw, "", number, depth + 1) for _ in range(draw(st.integers(1, 2)))]
    return draw(st.sampled_from([None, True, False])) if kind == 2 else _scalar(draw, number)


def _scalar(draw: Any, number: Any) -> Any:
    text, form = draw(st.sampled_from([(True, f) for f in _PLAIN] + [(False, f) for f in _NUMBERS]))
    value = form.format(next(number), next(number))
    return value if text else Number(value)


def _envelope(number: Any) -> st.SearchStrategy[dict[str, Any]]:
    more = st.sampled_from(("time", "subject", "dataschema", "datacontenttype", "tenant", "sequence"))

    def envelope(draw: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"specversion": "1.0"}
        found |= {name: f"{name}{next(number)}" for name in ("id", "source", "type")}
        for name in draw(st.lists(more, max_size=3, unique=True)):
            found[name] = f"{name}{next(number)}"
            if name == "time":
                found[name] = f"2025-12-12T10:31:00.{next(number):06d}Z"
            elif name == "datacontenttype":
                found[name] = "application/json"
            elif name == "sequence":
                found[name] = Number(next(number))
        return found

    return st.composite(envelope)()


def _wrapped(draw: Any, envelope: dict[str, Any], value: Any) -> dict[str, Any]:
    """A CloudEvent around a value, in any of the forms that its data may have."""
    text = dumps(value)
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return {**envelope, "data": text}
    if kind == 1:
        return {**envelope, "data_base64": base64.b64encode(draw(st.sampled_from(_COMPRESSED))(text.encode())).decode()}
    return {**envelope, "data": value}


_COMPRESSED = [bytes, bytes, lambda octets: gzip.compress(octets, 1, mtime=0), zlib.compress]


# --- OTLP ---------------------------------------------------------------------------------------------------

KINDS: dict[str, Any] = {
    "LOGS": ExportLogsServiceRequest,
    "OTEL_TRACES": ExportTraceServiceRequest,
    "OTEL_METRICS": ExportMetricsServiceRequest,
}
_RECORDS = ("log_records", "spans", "data_points")
_GROUPS = ("resource_logs", "scope_logs", "resource_spans", "scope_spans", "resource_metrics", "scope_metrics",
           "metrics", "gauge", "sum", "histogram", "exponential_histogram", "summary")  # fmt: skip
_ENUMS = {"aggregation_temporality": ("unspecified", "delta", "cumulative")}


@st.composite
def otlp_messages(draw: st.DrawFn, stream: str) -> Generated:
    """Requests over all fields, as protobuf and as JSON, in CloudEvents, compressed, several in an array."""
    some = requests(KINDS[stream]).filter(lambda request: request.ByteSize())
    each = [draw(some) for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
    found = [record for request in each for record in _records_of(request, ())]
    shared: list[Leaf] = []
    envelope = draw(_envelope(count(11)))
    payload = each[0].SerializeToString()
    if len(each) > 1 or draw(st.booleans()):
        values = [to_json(request) for request in each]
        value = values[0] if len(values) == 1 else values
        if draw(st.booleans()):
            value = _wrapped(draw, envelope, value)
            shared = [*leaves(envelope)]
        payload = dumps(value).encode()
    elif draw(st.integers(0, 3)) == 0:
        payload = dumps({**envelope, "data_base64": base64.b64encode(payload).decode()}).encode()
        shared = [*leaves(envelope)]
    return Generated(draw(st.sampled_from(_COMPRESSED))(payload), None, found, shared if found else [])


def _records_of(node: Any, around: tuple[Leaf, ...]) -> Iterator[list[Leaf]]:
    """The leaves of each record below a node, with those ``around`` it."""
    own: list[Leaf] = [*around]
    inner: list[Any] = []
    for field, value in node.ListFields():
        if field.name in (*_GROUPS, *_RECORDS):
            inner += [(field.name, each) for each in (value if field.is_repeated else [value])]
        else:
            own += _leaves_of(node.DESCRIPTOR.name, field, value)
    for name, each in inner:
        if name in _RECORDS:
            yield [*own, *(leaf for field, value in each.ListFields() for leaf in _leaves_of("", field, value))]
        else:
            yield from _records_of(each, tuple(own))


def _leaves_of(owner: str, field: Any, value: Any) -> Iterator[Leaf]:
    """The leaves of one field, named as the field or attribute is."""
    name = field.name
    kind = field.message_type and field.message_type.name
    if owner.startswith("Resource") and name in ("schema_url", "dropped_attributes_count"):
        name = f"resource_{name}"
    elif owner == "InstrumentationScope":
        name = f"scope_{name}"
    if kind == "KeyValue":
        yield from leaves(pairs(value), (name,))
    elif kind == "AnyValue":
        yield from leaves(plain(value), (name,))
    elif kind is not None:
        for each in value if field.is_repeated else (value,):
            for inner, found in each.ListFields():
                yield from _leaves_of(kind, inner, found)
    else:
        for each in value if field.is_repeated else (value,):
            if isinstance(each, bytes):
                if any(each):
                    yield (name,), each.hex()
            elif name in _ENUMS and each in (0, 1, 2):
                yield (name,), _ENUMS[name][each]
            else:
                if name in ("as_int", "as_double") and not each:
                    continue  # a point without recorded value has it
                form = real(each) if isinstance(each, float) else each
                yield (name,), form if isinstance(form, str | bool) else Number(repr(form))


# --- flows and sweeps ---------------------------------------------------------------------------------------


@st.composite
def flow_messages(draw: st.DrawFn, _: str = "NETFLOW") -> Generated:
    """Flows in protobuf over all fields, and some that nobody has; bare, after their length, in a CloudEvent."""
    flows = [draw(_flow()) for _ in range(draw(st.sampled_from([1, 1, 2, 3])))]
    bodies = []
    found: list[list[Leaf]] = []
    for flow, more in flows:
        unknown = b"".join(_varint(number << 3) + _varint(value) for number, value in more)
        bodies.append(flow.SerializeToString() + unknown)
        found.append([leaf for field, value in flow.ListFields() for leaf in _flow_leaves(field, value)])
        found[-1] += [((str(number),), Number(value)) for number, value in more]
    payload = bodies[0]
    if len(bodies) > 1 or draw(st.booleans()):
        payload = b"".join(_varint(len(body)) + body for body in bodies)
    shared: list[Leaf] = []
    if draw(st.integers(0, 3)) == 0:
        envelope = draw(_envelope(count(11)))
        shared = [*leaves(envelope)]
        payload = dumps({**envelope, "data_base64": base64.b64encode(payload).decode()}).encode()
    return Generated(draw(st.sampled_from(_COMPRESSED))(payload), None, found, shared)


def _flow() -> st.SearchStrategy[tuple[Any, list[tuple[int, int]]]]:
    def flow(draw: Any) -> tuple[Any, list[tuple[int, int]]]:
        made = FlowMessage(src_addr=bytes((10, 0, 0, draw(st.integers(1, 255)))))
        for field in FlowMessage.DESCRIPTOR.fields:
            if field.name != "src_addr" and draw(st.integers(0, 2)) == 0:
                values = [draw(_flow_value(field)) for _ in range(2)]
                if field.is_repeated:
                    getattr(made, field.name).extend(values)
                else:
                    setattr(made, field.name, values[0])
        return made, draw(st.lists(st.tuples(st.integers(1000, 1009), st.integers(0, 2**64 - 1)), max_size=2,
                                   unique_by=lambda pair: pair[0]))  # fmt: skip

    return st.composite(flow)()


def _flow_value(field: Any) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    if field.type == field.TYPE_BYTES:
        return st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
    if field.type == field.TYPE_STRING:
        return st.text(max_size=8)
    limit = {"type": 4, "proto": 255, "src_port": 65535, "dst_port": 65535}.get(field.name)
    return st.integers(0, limit or (2**64 if field.cpp_type == field.CPPTYPE_UINT64 else 2**32) - 1)


def _flow_leaves(field: Any, value: Any) -> Iterator[Leaf]:
    for each in value if field.is_repeated else (value,):
        if field.enum_type is not None:
            yield (field.name,), field.enum_type.values_by_number[each].name
        elif isinstance(each, bytes):
            yield (field.name,), str(ipaddress.ip_address(each))
        else:
            yield (field.name,), each if isinstance(each, str) else Number(each)


def _varint(number: int) -> bytes:
    low, rest = number & 127, number >> 7
    return bytes((low | 128,)) + _varint(rest) if rest else bytes((low,))


@st.composite
def sweep_messages(draw: st.DrawFn, _: str = "SWEEP") -> Generated:
    """Summaries of several hosts, whose own keys come first."""
    number = count(11)
    hosts = [draw(_record("SWEEP", number)) for _ in range(draw(st.integers(1, 3)))]
    names = ["agent_id", "partition", "network", "last_sweep", "gateway_id", "poller_id", "total_hosts", "x", "mac"]
    summary = {name: _value(draw, name, number) for name in draw(st.lists(st.sampled_from(names), unique=True))}
    shared = [*leaves(summary)]
    value: dict[str, Any] = {**summary, "hosts": hosts}
    if draw(st.booleans()):
        envelope = draw(_envelope(number))
        shared += leaves(envelope)
        value = _wrapped(draw, envelope, value)
    return Generated(dumps(value).encode(), None, [[*leaves(host)] for host in hosts], shared)
