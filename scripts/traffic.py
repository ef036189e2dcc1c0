"""Realistic numbered traffic for the seven streams, for demo, benchmark, chaos and tests.

Every record carries a number of its own in a column that ``NUMBER`` names, so that what arrived in a table can be
compared with what was published, record by record.
"""

from __future__ import annotations

import json
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from workers._flow.flow_pb2 import NETFLOW_V9, FlowMessage

NUMBER = {
    "TELEMETRY": "value::bigint",
    "EVENTS": "substr(id, 3)::bigint",
    "SWEEP": "substr(hostname, 3)::bigint",
    "NETFLOW": "octets",
    "OTEL_METRICS": "coalesce(value, duration_ms)::bigint",
    "OTEL_TRACES": "(attributes->>'n')::bigint",
    "LOGS": "(attributes->>'n')::bigint",
}
"""SQL of a record's number in the table of each stream."""


@dataclass(frozen=True, slots=True)
class Publication:
    """One message to publish, with the numbers of the records that must arrive in its table."""

    subject: str
    payload: bytes
    records: tuple[int, ...]
    rejects: int = 0
    """Records, or the one whole message, that must become dead letters."""
    headers: dict[str, str] | None = None


@dataclass
class Traffic:
    """An endless, seeded sequence of messages for one stream; ``broken`` is the share that cannot be decoded."""

    stream: str
    seed: int = 0
    broken: float = 0.0
    records: int = 1
    """Records of an OTLP message."""
    only: str | None = None
    """Name of the one encoding to use; None mixes all of them."""
    number: int = 0
    clock: Callable[[], float] = time.time
    rng: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.stream}/{self.seed}")

    def __iter__(self) -> Iterator[Publication]:
        while True:
            yield self.next()

    def next(self) -> Publication:
        """The next message."""
        if self.broken and self.rng.random() < self.broken:
            return self._broken()
        makers = _MAKERS[self.stream]
        maker = makers[self.only] if self.only else self.rng.choice(list(makers.values()))
        return maker(self)

    def take(self) -> int:
        """A number for the next record, from 1."""
        self.number += 1
        return self.number

    def nanos(self) -> int:
        """The time of the next record."""
        return int(self.clock() * 1e9) - self.rng.randrange(1_000_000_000)

    def _broken(self) -> Publication:
        good = next(iter(_MAKERS[self.stream].values()))(Traffic(self.stream, self.seed, clock=self.clock, records=2))
        kind = self.rng.randrange(3)
        if kind == 0:
            return Publication(good.subject, good.payload[: len(good.payload) // 2] + b"\xff\xff", (), 1)
        if kind == 1:
            return Publication(good.subject, b"\xff\xfe not a message " + self.rng.randbytes(20), (), 1)
        return Publication(good.subject, b'{"truncated": "' + self.rng.randbytes(4).hex().encode(), (), 1)


def _iso(nanos: int) -> str:
    seconds, rest = divmod(nanos, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# --- TELEMETRY ------------------------------------------------------------------------------------------------


def _metric(t: Traffic, number: int) -> dict[str, object]:
    port = t.rng.randrange(1, 49)
    host = t.rng.randrange(1, 255)
    return {
        "timestamp": _iso(t.nanos()),
        "gateway_id": f"edge-{host % 8:02d}",
        "agent_id": f"agent-{host % 32}",
        "metric_name": t.rng.choice(("ifInOctets", "ifOutOctets", "ifInErrors")),
        "metric_type": "snmp",
        "device_id": f"default:10.20.0.{host}",
        "value": number,
        "unit": "By",
        "tags": {"ifName": f"ge-0/0/{port}"},
        "partition": "default",
        "scale": 1,
        "is_delta": False,
        "target_device_ip": f"10.20.0.{host}",
        "if_index": port,
        "metadata": {"community": "ro"},
    }


def _telemetry_object(t: Traffic) -> Publication:
    number = t.take()
    return Publication("telemetry.snmp", _dumps(_metric(t, number)), (number,))


def _telemetry_array(t: Traffic) -> Publication:
    numbers = tuple(t.take() for _ in range(3))
    return Publication("telemetry.sysmon.agent-1", _dumps([_metric(t, number) for number in numbers]), numbers)


# --- EVENTS ---------------------------------------------------------------------------------------------------


def _event(t: Traffic, subject: str, type_: str, data: dict[str, object]) -> Publication:
    number = t.take()
    envelope = {
        "specversion": "1.0",
        "id": f"e-{number}",
        "source": "nats://events/events.syslog",
        "type": type_,
        "datacontenttype": "application/json",
        "subject": subject,
        "time": _iso(t.nanos()),
        "data": data,
    }
    return Publication(subject, _dumps(envelope), (number,))


def _event_gelf(t: Traffic) -> Publication:
    host = t.rng.randrange(1, 255)
    data: dict[str, object] = {
        "version": "1.1",
        "host": f"fw-{host}",
        "short_message": f"CEF:0|Acme|FW|3|100|deny|7|src=203.0.113.{host}",
        "full_message": None,
        "timestamp": t.nanos() / 1e9,
        "level": 4,
        "severity": "High",
        "application_name": "kernel",
        "_remote_addr": f"default:10.20.0.{host}",
    }
    return _event(t, "events.syslog.processed", "cef_severity", data)


def _event_health(t: Traffic) -> Publication:
    now = _iso(t.nanos())
    data: dict[str, object] = {
        "poller_id": f"edge-{t.rng.randrange(8):02d}",
        "previous_state": "unhealthy",
        "current_state": "healthy",
        "timestamp": now,
        "last_seen": now,
        "source_ip": "10.20.0.9",
        "partition": "default",
        "alert_sent": False,
        "recovery_reason": "status_report_received",
    }
    return _event(t, "events.poller.health", "com.carverauto.serviceradar.poller.health", data)


def _event_lifecycle(t: Traffic) -> Publication:
    data: dict[str, object] = {
        "device_id": f"default:10.20.0.{t.rng.randrange(1, 255)}",
        "partition": "default",
        "action": "deleted",
        "actor": "registry",
        "timestamp": _iso(t.nanos()),
        "severity": "Low",
        "level": 6,
    }
    return _event(t, "events.devices.lifecycle", "com.carverauto.serviceradar.device.lifecycle", data)


def _event_trap(t: Traffic) -> Publication:
    data: dict[str, object] = {
        "source": f"10.20.0.{t.rng.randrange(1, 255)}:50314",
        "version": "V2C",
        "community": "public",
        "severity": "Unknown",
        "varbinds": [{"oid": "1.3.6.1.6.3.1.1.4.1.0", "value": "OBJECT IDENTIFIER: 1.3.6.1.6.3.1.1.5.3"}],
    }
    return _event(t, "events.snmp.processed", "snmp_severity", data)


# --- SWEEP ----------------------------------------------------------------------------------------------------


def _sweep_object(t: Traffic) -> Publication:
    number = t.take()
    up = t.rng.random() < 0.8
    record = {
        "host_ip": f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}",
        "gateway_id": "edge-07",
        "agent_id": "agent-a1",
        "partition": "default",
        "network_cidr": "10.0.0.0/8",
        "hostname": f"h-{number}",
        "mac": "00:11:22:33:44:55",
        "icmp_available": up,
        "icmp_response_time_ns": 1_481_200 if up else None,
        "icmp_packet_loss": 0.0 if up else 100.0,
        "tcp_ports_scanned": [22, 80, 443],
        "tcp_ports_open": [80] if up else [],
        "port_scan_results": [{"port": 80, "available": up, "response_time": 2_210_000, "service": "http"}],
        "last_sweep_time": _iso(t.nanos()),
        "metadata": {"scanner": "icmp"},
    }
    return Publication("sweep.results", _dumps(record), (number,))


# --- NETFLOW --------------------------------------------------------------------------------------------------


def _flow(t: Traffic, number: int) -> FlowMessage:
    now = t.nanos()
    return FlowMessage(
        type=NETFLOW_V9,
        sampling_rate=1000,
        sequence_num=number & 0xFFFFFFFF,
        src_addr=bytes((10, 20, t.rng.randrange(256), t.rng.randrange(256))),
        dst_addr=bytes((198, 51, 100, t.rng.randrange(256))),
        bytes=number,
        packets=41,
        sampler_address=bytes((10, 0, 0, 1)),
        next_hop=bytes((10, 0, 0, 254)),
        src_as=64512,
        dst_as=15169,
        src_net=24,
        dst_net=22,
        in_if=3,
        out_if=7,
        proto=6,
        src_port=t.rng.randrange(1024, 65536),
        dst_port=443,
        ip_tos=40,
        ip_ttl=63,
        tcp_flags=27,
        etype=0x800,
        time_received_ns=now,
        time_flow_start_ns=now - 60_000_000_000,
        time_flow_end_ns=now - 1_000_000,
    )


def _flow_bare(t: Traffic) -> Publication:
    number = t.take()
    return Publication("netflow.raw", _flow(t, number).SerializeToString(), (number,))


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _flow_delimited(t: Traffic) -> Publication:
    numbers = tuple(t.take() for _ in range(2))
    pieces = [_flow(t, number).SerializeToString() for number in numbers]
    return Publication("netflow.goflow2", b"".join(_varint(len(piece)) + piece for piece in pieces), numbers)


# --- OpenTelemetry --------------------------------------------------------------------------------------------


def _resource(resource: object) -> None:
    for key, value in (
        ("service.name", "checkout"),
        ("service.version", "2.4.1"),
        ("service.instance.id", "checkout-7f9c"),
        ("host.name", "n1"),
    ):
        attribute = resource.attributes.add()  # type: ignore[attr-defined]
        attribute.key = key
        attribute.value.string_value = value


def _attributes(record: object, number: int) -> None:
    for key, value in (
        ("http.request.method", "POST"),
        ("url.path", "/pay"),
        ("client.address", "203.0.113.9"),
        ("user_agent.original", "curl/8.5.0"),
    ):
        attribute = record.attributes.add()  # type: ignore[attr-defined]
        attribute.key = key
        attribute.value.string_value = value
    attribute = record.attributes.add()  # type: ignore[attr-defined]
    attribute.key = "retry"
    attribute.value.bool_value = False
    attribute = record.attributes.add()  # type: ignore[attr-defined]
    attribute.key = "n"
    attribute.value.int_value = number


def _metrics_otlp(t: Traffic) -> Publication:
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    _resource(resource.resource)
    scope = resource.scope_metrics.add()
    scope.scope.name = "http"
    numbers = tuple(t.take() for _ in range(t.records))
    gauge = scope.metrics.add(name="queue.depth", unit="{item}")
    for number in numbers:
        point = gauge.gauge.data_points.add(time_unix_nano=t.nanos(), as_int=number)
        attribute = point.attributes.add()
        attribute.key = "queue"
        attribute.value.string_value = f"q{number % 16}"
    return Publication("otel.metrics.raw", request.SerializeToString(), numbers)


def _metrics_performance(t: Traffic) -> Publication:
    numbers = tuple(t.take() for _ in range(2))
    now = _iso(t.nanos())
    records = [
        {
            "timestamp": now,
            "trace_id": t.rng.randbytes(16).hex(),
            "span_id": t.rng.randbytes(8).hex(),
            "service_name": "checkout",
            "span_name": "POST /pay",
            "span_kind": "server",
            "duration_ms": float(number),
            "duration_seconds": number / 1000,
            "metric_type": kind,
            "http_method": "POST",
            "http_route": "/pay",
            "http_status_code": "402",
            "is_slow": True,
            "component": "otel-collector",
            "level": "warn",
        }
        for number, kind in zip(numbers, ("span", "http"), strict=True)
    ]
    return Publication("otel.metrics.derived", _dumps(records), numbers)


def _traces_otlp(t: Traffic) -> Publication:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    _resource(resource.resource)
    scope = resource.scope_spans.add()
    scope.scope.name, scope.scope.version = "http", "0.9"
    trace = t.rng.randbytes(16)
    numbers = tuple(t.take() for _ in range(t.records))
    for number in numbers:
        start = t.nanos()
        span = scope.spans.add(
            trace_id=trace,
            span_id=struct.pack(">Q", number),
            name="POST /pay",
            kind=Span.SPAN_KIND_SERVER,
            start_time_unix_nano=start,
            end_time_unix_nano=start + 187_500_000,
        )
        _attributes(span, number)
        span.status.code = Status.STATUS_CODE_OK
    return Publication("otel.traces.raw", request.SerializeToString(), numbers)


def _logs_otlp(t: Traffic) -> Publication:
    request = ExportLogsServiceRequest()
    resource = request.resource_logs.add()
    _resource(resource.resource)
    scope = resource.scope_logs.add()
    scope.scope.name = "lib"
    numbers = tuple(t.take() for _ in range(t.records))
    for number in numbers:
        now = t.nanos()
        record = scope.log_records.add(
            time_unix_nano=now,
            observed_time_unix_nano=now + 1_000_000,
            severity_number=17,
            severity_text="ERROR",
            trace_id=t.rng.randbytes(16),
            span_id=t.rng.randbytes(8),
        )
        record.body.string_value = "charge failed: card declined by issuer"
        _attributes(record, number)
    return Publication("logs.otel", request.SerializeToString(), numbers)


def _logs_flat(t: Traffic) -> Publication:
    number = t.take()
    record = {
        "timestamp": t.nanos(),
        "severity_number": 9,
        "severity_text": "INFO",
        "trace_id": t.rng.randbytes(16).hex(),
        "span_id": t.rng.randbytes(8).hex(),
        "resource": {"service.name": "cart", "service.version": "1.9.3", "host.name": "n2"},
        "scope": "lib",
        "body": f"cart {number} loaded for customer 10.20.0.{number & 255}",
        "attributes": {"items": 3, "cached": False, "n": number},
    }
    return Publication("logs.otel.processed", _dumps(record), (number,))


def _logs_gelf(t: Traffic) -> Publication:
    number = t.take()
    record = {
        "version": "1.1",
        "host": "web-3",
        "short_message": "GET /health 200",
        "full_message": "GET /health 200 1ms",
        "timestamp": t.nanos() / 1e9,
        "level": 6,
        "application_name": "nginx",
        "process_id": "77",
        "n": number,
        "_remote_addr": "default:10.20.0.77",
    }
    return Publication("logs.syslog", _dumps(record), (number,))


_MAKERS: dict[str, dict[str, Callable[[Traffic], Publication]]] = {
    "TELEMETRY": {"json": _telemetry_object, "json-array": _telemetry_array},
    "EVENTS": {"gelf": _event_gelf, "health": _event_health, "lifecycle": _event_lifecycle, "trap": _event_trap},
    "SWEEP": {"json": _sweep_object},
    "NETFLOW": {"protobuf": _flow_bare, "delimited": _flow_delimited},
    "OTEL_METRICS": {"otlp": _metrics_otlp, "performance": _metrics_performance},
    "OTEL_TRACES": {"otlp": _traces_otlp},
    "LOGS": {"json": _logs_flat, "otlp": _logs_otlp, "gelf": _logs_gelf},
}

ENCODINGS = {stream: tuple(makers) for stream, makers in _MAKERS.items()}
"""The encodings of each stream, the canonical one first."""
