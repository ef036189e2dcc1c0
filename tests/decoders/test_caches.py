"""What decoders keep is bounded, in number and in size, whatever messages hold."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest

from eventwriter import registry
from eventwriter.postgres.attempt import fast_rows
from records import message
from workers._wire import field

STREAMS = registry.load()
LARGEST = 30_000
GROWTH = 1_000_000
"""Bytes that decoders may keep of three megabytes."""


def pair(name: bytes, value: bytes) -> bytes:
    """An attribute."""
    return field(0x0A, name) + field(0x12, field(0x0A, value))


def request(stream: str, *, resource: bytes = b"", scope: bytes = b"", record: bytes = b"") -> bytes:
    """An OTLP request with one record."""
    around = field(0x0A, field(0x0A, resource)) if resource else b""
    within = field(0x0A, scope) if scope else b""
    if stream == "OTEL_METRICS":
        records = field(0x12, b"\x0a\x01m" + field(0x2A, field(0x0A, field(0x3A, record) if record else b"")))
    elif stream == "OTEL_TRACES":
        span = b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8 + b"\x2a\x01n"
        records = field(0x12, span + (field(0x4A, record) if record else b""))
    else:
        records = field(0x12, field(0x2A, field(0x0A, b"b")) + (field(0x32, record) if record else b""))
    return field(0x0A, around + field(0x12, within + records))


PLACES: dict[str, Callable[[str, bytes], bytes]] = {
    "resource": lambda stream, text: request(stream, resource=pair(b"k", text)),
    "scope": lambda stream, text: request(stream, scope=field(0x0A, text)),
    "scope attribute": lambda stream, text: request(stream, scope=field(0x1A, pair(b"k", text))),
    "attribute": lambda stream, text: request(stream, record=pair(b"k", text)),
    "name of an attribute": lambda stream, text: request(stream, record=pair(text, b"v")),
    "schema": lambda stream, text: field(0x0A, field(0x1A, text) + request(stream)[2:]),
}
FIELDS = ("name", "body", "severity", "level", "scope", "resource", "src_addr", "dst_addr", "proto", "type", "src_mac",
          "host_ip", "id", "source", "time", "timestamp", "unit", "trace_id", "status_message", "hostname")  # fmt: skip


def flat(text: str) -> bytes:
    """A record of any stream in JSON, with the text wherever there may be one."""
    return json.dumps({"value": 1, "attributes": {text: text}, text: 1} | dict.fromkeys(FIELDS, text)).encode()


def in_request(stream: str, place: Callable[[str, bytes], bytes], text: str) -> bytes:
    """A request with the text in this place."""
    return place(stream, text.encode())


CASES: dict[str, tuple[str, Callable[[str], bytes]]] = {
    **{
        f"{stream} {name}": (stream, partial(in_request, stream, place))
        for stream in ("LOGS", "OTEL_METRICS", "OTEL_TRACES")
        for name, place in PLACES.items()
    },
    **{f"{stream} in JSON": (stream, flat) for stream in STREAMS},
    "NETFLOW address": ("NETFLOW", lambda text: b'{"src_addr":":%b"}' % text.encode()),
}


QUICK = {"NETFLOW address", *(f"LOGS {name}" for name in PLACES), "OTEL_METRICS attribute", "OTEL_TRACES resource",
         "EVENTS in JSON", "LOGS in JSON", "NETFLOW in JSON"}  # fmt: skip
"""Cases of each kind; the others are long."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in QUICK else [pytest.mark.long]) for case in CASES]
)
def test_large_things_are_not_kept(case: str) -> None:
    """Each is in one message alone."""
    stream, make = CASES[case]
    declared = STREAMS[stream]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(100):
            given = message(make(f"{number:08d}" * (LARGEST // 8)), declared.subjects[0].replace(">", "x"))
            (row,) = fast_rows(declared, [given])
            if row is None:
                declared.decode(given)
            row = None
        assert tracemalloc.get_traced_memory()[0] - before < GROWTH
    finally:
        tracemalloc.stop()
