"""Messages made to stop a stream, against real servers: each is one dead letter, and its neighbours are rows."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from compression import gz
from eventwriter import registry
from fix_service import STREAMS, World, only, wait_until
from traffic import Publication, Traffic
from workers._limits import RECORDS_MAX, REJECTS_MAX
from workers._wire import field

RSS_MAX = 350 * 2**10
"""KiB of memory that no message may drive a worker to."""
CPU_MAX = 2.0
"""Seconds of a processor for one of them. The processors may be busy with something else: on a quiet machine this is
also how long its neighbours wait."""
ELEMENTS = gz(b"[" + b"1," * 8_300_000 + b"1]")
RECORDS = {
    "OTEL_METRICS": field(0x0A, field(0x12, field(0x12, field(0x2A, b"\x0a\x00" * 2**19)))),
    "OTEL_TRACES": field(0x0A, field(0x12, b"\x12\x00" * 2**19)),
    "LOGS": field(0x0A, field(0x12, b"\x12\x00" * 2**19)),
    "NETFLOW": b"\x06\x32\x04\x0a\x00\x00\x01" * 2**20,
}
"""The same in protobuf, in a few kilobytes of gzip."""


def peak(pid: int) -> int:
    """The most memory that a process has had, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    pytest.fail("no VmHWM")


def at_the_limits(stream: str) -> list[tuple[bytes, int, int]]:
    """Messages that are just not too much, with the rows and dead letters that they become."""
    record: dict[str, object] = {"host_ip": "10.0.0.1", "value": 1, "name": "n", "body": "b", "src_addr": "10.0.0.1"}
    if stream == "EVENTS":
        record = {"specversion": "1.0", "id": "7", "source": "a", "type": "t"}
    one = json.dumps(record).encode()
    keys = b",".join(b'"%x":0' % number for number in range(300_000))
    found = [
        (b"[" + b",".join([one] * RECORDS_MAX) + b"]", RECORDS_MAX, 0),
        (b"[" + b",".join([b"0"] * REJECTS_MAX) + b"]", 0, REJECTS_MAX),
        (one[:-1] + b',"data":{' + keys + b"}}", 1, 0),
        (one[:-1] + b',"data":{"text":"' + b"x" * 15_000_000 + b'"}}', 1, 0),
    ]
    if stream in RECORDS and stream != "NETFLOW":
        resource = field(0x0A, field(0x0A, b"\x0a\x01k" + field(0x12, field(0x0A, b"x" * 2**20))))
        span = b"\x12\x1c" + b"\x0a\x10" + b"t" * 16 + b"\x12\x08" + b"s" * 8
        metric = field(0x12, b"\x0a\x01m" + field(0x2A, b"\x0a\x00" * 100))
        records = {"LOGS": b"\x12\x00" * 100, "OTEL_TRACES": span * 100, "OTEL_METRICS": metric}[stream]
        found.append((field(0x0A, resource + field(0x12, records)), 100, 0))
    return [(gz(payload), rows, letters) for payload, rows, letters in found]


@pytest.mark.parametrize(
    "stream", [name if name == "LOGS" else pytest.param(name, marks=pytest.mark.long) for name in STREAMS]
)
def test_memory_is_bounded_whatever_arrives(world: World, stream: str) -> None:
    """Many messages that are just not too much, in one batch with good ones."""
    source = Traffic(stream, records=3)
    subject = registry.load()[stream].subjects[-1].replace(">", "large")
    kinds = at_the_limits(stream)
    large = [*kinds, *kinds[1:4]]
    world.publish(stream, [source.next()])
    world.prefix = ["env"]  # with nothing in memory that tests have loaded
    service = world.start(**only(stream))
    world.wait_settled()
    worker = world.worker(stream)
    assert worker is not None
    world.publish(stream, [*(Publication(subject, payload, ()) for payload, _, _ in large), source.next()])
    world.wait_settled()
    assert peak(worker.pid) < RSS_MAX
    assert world.query("SELECT count(*) FROM eventwriter.dead_letters") == [(sum(each[2] for each in large),)]
    assert world.stop(service) == 0
    assert "restart" not in world.log


def hostile(stream: str) -> list[Publication]:
    """What would be millions of records."""
    subject = registry.load()[stream].subjects[-1].replace(">", "hostile")
    payloads = [ELEMENTS, *([gz(RECORDS[stream])] if stream in RECORDS else [])]
    assert all(len(payload) < 2**15 for payload in payloads)
    return [Publication(subject, payload, (), 1) for payload in payloads]


def publish_headers(world: World, subject: str, block: bytes, count: int) -> None:
    """Publishes messages with these headers, as no client would."""
    with socket.create_connection(("127.0.0.1", world.nats.port), 30.0) as connection:
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"INFO")
        connection.sendall(b'CONNECT {"verbose": false, "headers": true}\r\n')
        message = b"HPUB %b %d %d\r\n%b{}\r\n" % (subject.encode(), len(block), len(block) + 2, block)
        for _ in range(count):
            connection.sendall(message)
        connection.sendall(b"PING\r\n")
        assert reader.readline() == b"PONG\r\n"


@pytest.mark.parametrize("stream", [pytest.param("EVENTS", marks=pytest.mark.long), "LOGS"])
def test_many_headers_take_no_memory(world: World, stream: str) -> None:
    """As many as JetStream takes, 64 KiB of them, in each of many messages would be a gigabyte of names and values."""
    source, count = Traffic(stream, records=3), 500
    block = b"NATS/1.0\r\n%b\r\n" % b"".join(b"h%x:\r\n" % number for number in range(7000))
    world.publish(stream, [source.next()])
    service = world.start(**only(stream))
    world.wait_settled()
    worker = world.worker(stream)
    assert worker is not None
    publish_headers(world, registry.load()[stream].subjects[-1].replace(">", "headers"), block, count)
    world.publish(stream, [source.next()])
    wait_until(lambda: sum(world.counts(stream)) == count + 2, lambda: f"all of it\n{world.log[-2000:]}")
    assert world.counts(stream) == (2, count)
    assert peak(worker.pid) < RSS_MAX
    letters = world.query("SELECT DISTINCT reason, detail, length(headers->>'') FROM eventwriter.dead_letters")
    assert letters == [("too_large", "more than 4000 headers", len(block))]
    assert world.stop(service) == 0


@pytest.mark.parametrize(
    "batch", ["10000", pytest.param("1", marks=pytest.mark.long)], ids=["one batch", "a batch each"]
)
def test_a_few_bytes_of_gzip_stop_no_stream(world: World, batch: str) -> None:
    """Between good messages, on every stream: in one transaction with them, and in one of its own."""
    service = world.start(EVENTWRITER_WRITER__BATCH_MESSAGES=batch)
    for stream in STREAMS:
        source = Traffic(stream, records=3)
        world.publish(stream, [source.next()])
        world.wait_settled()
        worker = world.worker(stream)
        assert worker is not None
        before = sum(worker.cpu_times()[:2])
        bad = hostile(stream)
        world.publish(stream, [source.next(), *bad, source.next()])
        world.wait_settled()
        assert sum(worker.cpu_times()[:2]) - before < CPU_MAX * len(bad), stream
        assert peak(worker.pid) < RSS_MAX, stream
        letters = world.query(
            "SELECT reason, record_index FROM eventwriter.dead_letters WHERE logical_stream = %s", stream
        )
        assert letters == [("too_large", None)] * len(bad)
    world.assert_exact()
    assert world.stop(service) == 0
    assert "restart" not in world.log
