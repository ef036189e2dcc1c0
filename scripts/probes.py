"""Messages with one field more than another one: what they fill shows which column a field belongs to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as Proto
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from workers._flow.flow_pb2 import FlowMessage
from workers._json.table import Table
from workers._otlp.data_points import KNOWN

RECEIVED = 1_700_000_000_000_000_000
_TIME = RECEIVED + 1_000_000_000
_EVENT = ("time", "timestamp", "remote_addr", "remoteAddr", "_remote_addr", "host", "level", "severity",
          "short_message", "message", "msg", "version")  # fmt: skip
"""What is looked for in any event; events of known shapes say more."""
_CONTEXT = ("time", "specversion", "id", "source", "type", "datacontenttype", "subject")
_ENVELOPE = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {"k": 1}}
_FITTING: Mapping[str, list[Any]] = {
    "text": ["zz", "0a0b0c0d0e0f0102"],
    "integer": [7],
    "bigint": [7],
    "double precision": [0.5],
    "boolean": [True],
    "timestamptz": [_TIME, _TIME // 1_000_000],
    "jsonb": [{"z": 1}],
    "": ["zz", 7, {"name": "zz", "version": "1", "attributes": {"z": 1}, "code": 2, "message": "m"}],
}
"""Values that a column of this type takes; for a name that is no column's own several are tried."""
_SERVICE = ("service.name", "service.version", "service.instance.id")
_REQUESTS = {
    "LOGS": (ExportLogsServiceRequest, ("resource_logs", "scope_logs", "log_records")),
    "OTEL_METRICS": (ExportMetricsServiceRequest, ("resource_metrics", "scope_metrics", "metrics")),
    "OTEL_TRACES": (ExportTraceServiceRequest, ("resource_spans", "scope_spans", "spans")),
}
_KINDS = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


class Probe(NamedTuple):
    """A field, a message without it, and the same with it."""

    name: str
    without: bytes
    payload: bytes


def dumped(record: Mapping[str, Any]) -> bytes:
    """A record as a payload."""
    return json.dumps(record).encode()


def flat(table: Table, minimal: Mapping[str, Any], times: Iterable[str]) -> Iterator[Probe]:
    """Flat records, by each name that they may have, but for columns' own in lowerCamelCase."""
    own = {field.names[1 + len(field.first)] for field in table.fields if "_" in field.name and field.given}
    places = {name: {*names} for names in table.places.names for name in names}
    types: dict[str, str] = dict.fromkeys(places, "")
    types |= {name: field.type for field in table.fields for name in field.names} | dict.fromkeys(times, "timestamptz")
    for name, kind in types.items():
        others = {key: value for key, value in minimal.items() if key not in places.get(name, ())}
        for value in _FITTING[kind] if name not in own else ():
            yield Probe(name, dumped(minimal), dumped({**others, name: value}))


def events(minimal: Mapping[str, Any]) -> Iterator[Probe]:
    """Events that are flat."""
    for name in (*_CONTEXT, *_EVENT):
        for value in ("zz", 3, _TIME // 1_000_000_000):
            yield Probe(name, dumped(minimal), dumped({**minimal, name: value}))


def wrapped() -> Iterator[Probe]:
    """CloudEvents."""
    without = dumped(_ENVELOPE)
    for name in dict.fromkeys(("timestamp", "_remote_addr", *_EVENT)):  # those two come first there
        for given in ("zz", 3, _TIME // 1_000_000_000):
            yield Probe(f"data.{name}", without, dumped({**_ENVELOPE, "data": {"k": 1, name: given}}))
    for name in _CONTEXT:
        value = "2026-01-01T00:00:00Z" if name == "time" else "1.1"
        yield Probe(name, without, dumped({**_ENVELOPE, name: value}))


def flows() -> Iterator[Probe]:
    """Flows in protobuf."""
    flow = FlowMessage()
    flow.ParseFromString(b"\x08\x04")  # its type
    yield from _more(flow, flow, "")


def requests(stream: str) -> Iterator[Probe]:
    """Requests of OTLP with one record, or one data point of each kind, in a unit of time."""
    request, (outer, inner, records) = _REQUESTS[stream]
    for kind in _KINDS if stream == "OTEL_METRICS" else ("",):
        whole: Any = request()
        resource = getattr(whole, outer).add()
        scope = getattr(resource, inner).add()
        record = getattr(scope, records).add()
        if kind:
            record.unit = "s"
            getattr(record, kind).data_points.add()
        yield from _more(whole, resource, f"{outer}.", only=("schema_url",))
        yield from _more(whole, resource.resource, "resource.", keys=_SERVICE)
        yield from _more(whole, scope, f"{inner}.", only=("schema_url",))
        yield from _more(whole, scope.scope, "scope.")
        yield from _more(whole, record, "")
        if kind:
            yield from _more(whole, getattr(record, kind), f"{kind}.")
            known = [key for keys in KNOWN for key in keys]
            yield from _more(whole, getattr(record, kind).data_points[0], "point.", keys=known)
        elif stream == "OTEL_TRACES":
            yield from _more(whole, record.status, "status.")


def _more(whole: Proto, part: Any, prefix: str, only: Iterable[str] = (), keys: Iterable[str] = ()) -> Iterator[Probe]:
    """The message with one more field of a part of it, or one more attribute."""
    for field in part.DESCRIPTOR.fields:
        is_kind = part.DESCRIPTOR.name == "Metric" and field.containing_oneof
        if is_kind or field.name in ("data_points", "status") or (only and field.name not in only):
            continue
        without, before = whole.SerializeToString(), getattr(part, field.name)
        _set(part, field)
        yield Probe(f"{prefix}{field.name}", without, whole.SerializeToString())
        part.ClearField(field.name)
        if before and field.message_type is None and not field.is_repeated:
            setattr(part, field.name, before)
    without = whole.SerializeToString()
    for key in keys:
        part.attributes.add(key=key).value.string_value = "zz"
        yield Probe(f"{prefix}attributes: {key}", without, whole.SerializeToString())
        part.ClearField("attributes")


def _set(part: Any, field: FieldDescriptor) -> None:
    """Gives a field a value that it has not."""
    if field.message_type is not None:
        message = getattr(part, field.name)
        message = message.add() if field.is_repeated else message
        message.SetInParent()
        for name, given in (("key", "zz"), ("trace_id", bytes(range(1, 17))), ("span_id", bytes(range(1, 9)))):
            if name in message.DESCRIPTOR.fields_by_name:
                setattr(message, name, given)
        if message.DESCRIPTOR.name == "AnyValue":
            message.string_value = "zz"
        return
    value: Any = 2
    if field.type == FieldDescriptor.TYPE_STRING:
        value = "zz"
    elif field.type == FieldDescriptor.TYPE_BYTES:
        value = bytes(range(1, {"trace_id": 17, "span_id": 9, "parent_span_id": 9}.get(field.name, 5)))
    elif field.type == FieldDescriptor.TYPE_BOOL:
        value = True
    elif field.name.startswith("time_") or field.name.endswith("_time_unix_nano"):
        value = _TIME
    if field.is_repeated:
        getattr(part, field.name).append(value)
    else:
        setattr(part, field.name, value)
