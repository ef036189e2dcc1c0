"""The bulk parser: whatever the chunks, every delivery comes out once, in order, and all else goes to nats-py."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError

from eventwriter.jetstream import wire
from eventwriter.jetstream.wire import BulkParser, Delivery
from patience import PATIENCE

SUBJECT = st.sampled_from([b"logs.otel", b"events.x.y", b"PING", b"MSG"])
PAYLOAD = st.binary(max_size=300) | st.sampled_from([b"", b"\r\n", b"PING\r\n", b"MSG a 7 $JS.ACK.x 3\r\nabc\r\n"])
HEADERS = st.sampled_from([b"", b"NATS/1.0\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\nC: d: e\r\n\r\n"])


class FakeClient:
    """What nats-py's parser calls, noted."""

    def __init__(self) -> None:
        self.events: list[object] = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.events.append(("msg", sid, subject, data))

    async def _process_ping(self) -> None:
        self.events.append("ping")

    async def _process_pong(self) -> None:
        self.events.append("pong")

    async def _process_err(self, message: str) -> None:
        self.events.append(("err", message))

    async def _process_info(self, info: object) -> None:
        self.events.append("info")


def delivery(subject: bytes, payload: bytes, headers: bytes, number: int, sid: bytes = b"7") -> tuple[bytes, object]:
    """The bytes of a delivery and what must come of it."""
    reply = b"$JS.ACK.LOGS.eventwriter-logs.1.%d.%d.1765535400000000000.5" % (number, number)
    sizes = b"%d %d" % (len(headers), len(headers) + len(payload)) if headers else b"%d" % len(payload)
    verb = b"HMSG" if headers else b"MSG"
    line = b"%s %s %s %s %s\r\n" % (verb, subject, sid, reply, sizes)
    if sid == b"7":
        expected: object = (subject, payload, reply, headers or None)
    else:
        expected = ("msg", int(sid), subject, payload)
    return line + headers + payload + b"\r\n", expected


OTHERS = st.sampled_from(
    [
        (b"PING\r\n", "ping"),
        (b"PONG\r\n", "pong"),
        (b"+OK\r\n", None),
        (b"-ERR 'slow'\r\n", ("err", "'slow'")),
        (b'INFO {"a": 1}\r\n', "info"),
        (b"MSG _INBOX.a.1 7 0\r\n\r\n", ("msg", 7, b"_INBOX.a.1", b"")),
        (b"HMSG _INBOX.a.1 7 31 31\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n\r\n", ("msg", 7, b"_INBOX.a.1", b"")),
    ]
)
DELIVERIES = st.builds(delivery, SUBJECT, PAYLOAD, HEADERS, st.integers(1, 2**40), st.sampled_from([b"7", b"7", b"3"]))


@given(st.lists(DELIVERIES | OTHERS, max_size=12), st.lists(st.integers(1, 60), max_size=200))
def test_chunks_do_not_matter(operations: list[tuple[bytes, object]], cuts: list[int]) -> None:
    """Deliveries of the subscription arrive whole and in order; the client sees the rest in order."""
    client = FakeClient()
    delivered: list[Delivery] = []
    parser = BulkParser(client, lambda found, size: delivered.extend(found))  # type: ignore[arg-type]
    parser.sid = b"7"
    data = b"".join(line for line, _ in operations)

    async def feed() -> None:
        position = 0
        for cut in cuts:
            await parser.parse(data[position : position + cut])
            position += cut
        await parser.parse(data[position:])

    asyncio.run(feed())
    expected = [outcome for _, outcome in operations if outcome is not None]
    ours = [isinstance(outcome, tuple) and isinstance(outcome[0], bytes) for outcome in expected]
    assert delivered == [outcome for outcome, our in zip(expected, ours, strict=True) if our]
    assert client.events == [outcome for outcome, our in zip(expected, ours, strict=True) if not our]


def test_a_large_message_in_small_pieces_takes_linear_time() -> None:
    """Pieces are joined once, not once a piece."""
    line, expected = delivery(b"logs.x", b"x" * 8_000_000, b"", 1)
    delivered: list[Delivery] = []
    parser = BulkParser(FakeClient(), lambda found, size: delivered.extend(found))  # type: ignore[arg-type]
    parser.sid = b"7"

    async def feed() -> None:
        for start in range(0, len(line), 1024):
            await parser.parse(line[start : start + 1024])

    asyncio.run(asyncio.wait_for(feed(), 10))
    assert delivered == [expected]


REPLY = b"$JS.ACK.LOGS.eventwriter-logs.1.5.5.1765535400000000000.3"
MALFORMED = [
    b"MSG logs.x 7 %b -80\r\n" % REPLY,  # it would end before it begins, and come again and again
    b"MSG logs.x 7 %b five\r\nhello\r\n" % REPLY,
    b"MSG logs.x 7 %b %b\r\n" % (REPLY, b"9" * 5000),
    b"MSG logs.x 7 %b 999999999999\r\n" % REPLY,
    b"MSG _INBOX.a 3 999999999999\r\n",
    b"HMSG logs.x 7 %b 9 5\r\nhello\r\n" % REPLY,
    b"HMSG logs.x 7 %b -2 5\r\nhello\r\n" % REPLY,
    b"-ERR \r\n",
    b"INFO {\r\n",
    b"INFO \xff\r\n",
    b"x" * 5000 + b"\r\n",
    b"x" * 1_100_000,
]


@pytest.mark.parametrize("said", MALFORMED, ids=lambda said: said[:40])
@pytest.mark.parametrize("sid", [b"7", None])
def test_what_is_no_protocol_is_an_error_of_it(said: bytes, sid: bytes | None) -> None:
    """Nothing is kept of it that grows, nothing is tried for ever, and the client can tell it from a bug."""
    delivered: list[Delivery] = []
    parser = BulkParser(FakeClient(), lambda found, size: delivered.extend(found))  # type: ignore[arg-type]
    parser.sid = sid

    async def feed() -> None:
        for start in range(0, len(said), 100_000):
            await parser.parse(said[start : start + 100_000])

    # Before the subscription a message is nats-py's.
    lenient = sid is None and (said.startswith((b"HMSG logs.x 7 %b 9" % REPLY, b"x" * 5000 + b"\r")))
    if lenient:
        asyncio.run(feed())
    else:
        with pytest.raises(ProtocolError):
            asyncio.run(feed())
    assert not delivered


@pytest.mark.parametrize("said", [MALFORMED[0], MALFORMED[1], b"-ERR \r\n"])
def test_the_client_connects_again_after_it(said: bytes) -> None:
    """At once, where it stopped reading for good."""
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.write(b'INFO {"max_payload": 1048576, "headers": true}\r\n')
        while line := await reader.readline():
            writer.write(b"PONG\r\n" if line == b"PING\r\n" else b"")
        writer.close()

    async def talk() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            client = Client()
            parser = wire.install(client, lambda deliveries, size: None)
            again = asyncio.Event()

            async def reconnected() -> None:
                again.set()

            port = server.sockets[0].getsockname()[1]
            await client.connect(f"nats://127.0.0.1:{port}", reconnect_time_wait=0, reconnected_cb=reconnected)
            parser.sid = b"7"
            connections[0].write(said)
            await asyncio.wait_for(again.wait(), 10 * PATIENCE)
            await client.close()
            for writer in connections:
                await writer.wait_closed()

    asyncio.run(talk())
    assert len(connections) == 2


def test_headers_are_read_as_they_were_written() -> None:
    """Names and values, colons in values kept; the status line is not a header."""
    assert wire.parse_headers(b"NATS/1.0\r\nce-id: 1\r\nce-source: nats://a\r\n\r\n") == {
        "ce-id": "1",
        "ce-source": "nats://a",
    }


def test_the_client_is_built_as_this_module_expects() -> None:
    """An update of nats-py that moves its parser or its buffer fails here, not in production."""
    client = Client()
    parser = wire.install(client, lambda deliveries, size: None)
    assert client._ps is parser
    assert callable(client._send_command)
    assert callable(client._flush_pending)
