"""Whatever decoders make of whatever arrives, PostgreSQL takes it: real COPY into the real tables, nothing refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from google.protobuf.message import Message as Protobuf
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eventwriter import registry
from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message
from fix_service import STREAMS
from profiles import examples
from strategies_otlp import requests
from workers._flow.flow_pb2 import FlowMessage

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples"
DECLARED = registry.load()
REQUESTS: dict[str, type[Protobuf]] = {
    "LOGS": ExportLogsServiceRequest,
    "OTEL_TRACES": ExportTraceServiceRequest,
    "OTEL_METRICS": ExportMetricsServiceRequest,
    "NETFLOW": FlowMessage,
}


def samples(stream: str) -> list[bytes]:
    """The JSON samples of a stream."""
    return [line.encode() for line in (SAMPLES / f"{stream.lower()}.jsonl").read_text().splitlines()]


def keys(value: Any) -> set[str]:
    """Every key in a JSON value."""
    if isinstance(value, dict):
        return set(value) | {key for each in value.values() for key in keys(each)}
    return {key for each in value for key in keys(each)} if isinstance(value, list) else set()


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(
        ["\0", "1", "-1", "1e400", "2025-12-12T10:30:00Z", "9" * 30, 1765535400123456789, 2**63, 0.1, "\ud800"]
    )
)


def records(stream: str) -> st.SearchStrategy[bytes]:
    """JSON with the stream's own keys and any values."""
    names = sorted({key for sample in samples(stream) for key in keys(json.loads(sample))})
    name = st.sampled_from(names)
    values = st.recursive(
        SCALARS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(name, inner, max_size=4),
        max_leaves=6,
    )
    record = st.dictionaries(name, values, max_size=14)
    return (record | st.lists(record, max_size=3)).map(lambda value: json.dumps(value).encode())


def mutated(stream: str) -> st.SearchStrategy[bytes]:
    """Samples with one value of theirs replaced, with a bit flipped, or cut short."""

    def replaced(sample: bytes, key: str, value: Any) -> bytes:
        def walk(node: Any) -> Any:
            if isinstance(node, dict):
                return {k: value if k == key else walk(v) for k, v in node.items()}
            return [walk(each) for each in node] if isinstance(node, list) else node

        return json.dumps(walk(json.loads(sample))).encode()

    def flipped(sample: bytes, place: int, bit: int) -> bytes:
        place %= len(sample)
        return sample[:place] + bytes([sample[place] ^ 1 << bit]) + sample[place + 1 :]

    chosen = st.sampled_from(samples(stream))
    names = sorted({key for sample in samples(stream) for key in keys(json.loads(sample))})
    return (
        st.builds(replaced, chosen, st.sampled_from(names), SCALARS)
        | st.builds(flipped, chosen, st.integers(0, 2000), st.integers(0, 7))
        | st.builds(lambda sample, end: sample[: end % len(sample)], chosen, st.integers(0, 2000))
    )


def payloads(stream: str) -> st.SearchStrategy[bytes]:
    """Everything that might arrive."""
    found = records(stream) | mutated(stream) | st.binary(max_size=60)
    if stream in REQUESTS:
        protobuf = requests(REQUESTS[stream]).map(lambda request: request.SerializeToString())
        found |= protobuf | st.builds(lambda data, end: data[: end % (len(data) + 1)], protobuf, st.integers(0, 500))
    return found


@pytest.fixture(scope="module")
def sinks(postgres_server: PostgresServer) -> Iterator[dict[str, Sink]]:
    """A sink for each stream, all in one database."""
    dsn = postgres_server.create_database("copy_everything")
    with psycopg.connect(dsn, autocommit=True) as connection:
        for name in ("eventwriter", *(stream.table for stream in DECLARED.values())):
            connection.execute(registry.table_sql(name))
    opened = {}
    for name, stream in DECLARED.items():
        sink = Sink(PostgresConfig(dsn=dsn), stream, stream.table)
        sink.open()
        sink.begin(Opening(Identity(name, name, datetime(2026, 1, 1, tzinfo=UTC), "copy"), (">",)))
        opened[name] = sink
    yield opened
    for sink in opened.values():
        sink.close()


_sequence = iter(range(1, 2**62))


@pytest.mark.filterwarnings("ignore:Do not use the `random` module")  # the pool's threads do, beside the test
@pytest.mark.parametrize("stream", STREAMS)
@settings(max_examples=examples(48))
@given(data=st.data())
def test_postgresql_takes_whatever_comes_out(sinks: dict[str, Sink], stream: str, data: st.DataObject) -> None:
    """No row that a decoder lets through is refused; every message is accounted for."""
    messages = [
        Message("logs.otel" if stream == "LOGS" else "x.y", payload, next(_sequence), 1_765_535_400_123_456_789)
        for payload in data.draw(st.lists(payloads(stream), min_size=1, max_size=20))
    ]
    outcome = sinks[stream].write(Batch(messages, [message.sequence for message in messages]))
    assert "refused" not in outcome.rejects
    assert outcome.written + outcome.deadlettered == len(messages)
