"""The hot path on the wire: takes JetStream deliveries out of the byte stream, and acknowledges them, in bulk.

nats-py spends a regular expression, a coroutine, a queue and a task on each message (6–8 µs); here a message costs a
split and a slice. Everything else on the connection (the handshake, pings, requests, statuses, reconnecting) stays
with nats-py: its parser is replaced by a subclass that handles deliveries of one subscription itself.

Protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache

import nats.aio.client
from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

from eventwriter.stream import HEADERS_MAX, Headers, LateHeaders

_MESSAGE = re.compile(rb"H?MSG [^\r\n]* ([0-9]+)\r\n")
_PREFIX = b"$JS.ACK."
_LONGEST_LINE = 1024 * 1024
_LARGEST = 64 * 1024 * 1024
"""Bytes of a message: no server lets more through."""
_LONG, _MANY = 2048, 32
"""Bytes and lines of headers from which on they are read when they are asked for."""
READ_SIZE = 256 * 1024
"""Bytes to read at once, as many as asyncio takes from a socket: nats-py's 32 KiB are 70 messages."""

Delivery = tuple[bytes, bytes, bytes, bytes | None]
"""One message as it came, nothing decoded: subject, payload, reply subject, block of headers."""

Deliver = Callable[[list[Delivery], int], None]
"""Is given deliveries and the bytes of their payloads."""


class BulkParser(Parser):
    """nats-py's parser, for which deliveries to the subscription ``sid`` are not messages but a list."""

    def __init__(self, client: Client, deliver: Deliver) -> None:
        super().__init__(client)
        self.sid: bytes | None = None
        self._deliver = deliver

    def reset(self) -> None:
        """Forgets what is half received: there is a new connection."""
        super().reset()
        self._parts: list[bytes] = []
        self._have = 0
        self._need = 0

    async def parse(self, data: bytes = b"") -> None:
        """Takes complete operations out of the bytes received; the rest waits for more.

        Raises ProtocolError, upon which the client connects again: of anything else it would stop reading, for good.
        """
        try:
            await self._parse(data)
        except (ValueError, AttributeError) as error:  # the latter is nats-py's, of an error without text
            raise ProtocolError(f"nats: what the server sends cannot be read: {error}") from error

    async def _parse(self, data: bytes) -> None:
        if self.sid is None or self.buf:  # before the subscription, or still in an operation from before it
            await super().parse(data)
            in_line = self.state == AWAITING_CONTROL_LINE
            if len(self.buf) > _LONGEST_LINE if in_line else self.needed > _LARGEST:
                raise ProtocolError("nats: what the server sends does not end")
            return
        self._parts.append(data)
        self._have += len(data)
        if self._have < self._need:
            return  # in the middle of a large message: no point in looking at it again
        data = b"".join(self._parts) if len(self._parts) > 1 else data
        self.reset()
        position = 0
        while position < len(data):
            position = self._take(data, position)
            end = self._end(data, position)
            if end == 0:
                break
            await super().parse(data[position:end])  # exactly one operation: nothing is left in the buffer
            if self.buf and self.state == AWAITING_CONTROL_LINE:
                raise ProtocolError("nats: unknown protocol")
            position = end
        if position < len(data):
            self._parts = [data[position:]]
            self._have = len(data) - position
            self._need = self._needed(data, position)
            if self._need > _LARGEST + _LONGEST_LINE or (not self._need and self._have > _LONGEST_LINE):
                raise ProtocolError("nats: what the server sends does not end")

    def _take(self, data: bytes, position: int) -> int:
        """Hands over the deliveries that begin at ``position``, and returns where they end.

        ``MSG <subject> <sid> <reply> <bytes>`` and ``HMSG <subject> <sid> <reply> <bytes of headers> <bytes>``.
        """
        find, sid, last = data.find, self.sid, len(data) - 2
        found: list[Delivery] = []
        payloads = 0
        while (line := find(b"\r", position)) >= 0:  # one byte alone is found sooner
            words = data[position:line].split(b" ")
            count = len(words)
            if count == 5:
                verb, subject, its_sid, reply, length = words
                if verb != b"MSG":
                    break
                headers = b"0"
            elif count == 6:
                verb, subject, its_sid, reply, headers, length = words
                if verb != b"HMSG":
                    break
            else:
                break
            if its_sid != sid or reply[:8] != _PREFIX:
                break
            start = line + 2
            end = start + int(length)
            if not start <= end <= last:
                if end < start:
                    raise ProtocolError("nats: malformed MSG")
                break
            if count == 5:
                found.append((subject, data[start:end], reply, None))
            else:
                body = start + int(headers)
                if not start <= body <= end:
                    raise ProtocolError("nats: malformed HMSG")
                found.append((subject, data[body:end], reply, data[start:body]))
                start = body
            payloads += end - start
            position = end + 2
        if found:
            self._deliver(found, payloads)
        return position

    @staticmethod
    def _end(data: bytes, position: int) -> int:
        """Where the operation at ``position`` ends; 0 if it is not complete."""
        message = _MESSAGE.match(data, position)
        if message:
            end = message.end() + int(message.group(1)) + 2
            return end if end <= len(data) else 0
        end = data.find(b"\r\n", position)
        return end + 2 if end >= 0 else 0

    @staticmethod
    def _needed(data: bytes, position: int) -> int:
        """How many bytes from ``position`` on the operation has; 0 if that is not known yet."""
        message = _MESSAGE.match(data, position)
        return message.end() - position + int(message.group(1)) + 2 if message else 0


def install(client: Client, deliver: Deliver) -> BulkParser:
    """Puts a BulkParser into a client that is not connected yet; set its ``sid`` once the subscription exists."""
    parser = BulkParser(client, deliver)
    if not isinstance(client._ps, Parser):
        raise TypeError("this version of nats-py keeps its parser elsewhere")
    client._ps = parser
    nats.aio.client.DEFAULT_BUFFER_SIZE = READ_SIZE
    return parser


async def acknowledge(client: Client, reply_subjects: bytes, kind: bytes = b"") -> None:
    """Sends acks (or ``-NAK``, ``+WPI``) for many deliveries, a reply subject a line, as one buffered write.

    It confirms nothing.
    """
    if not reply_subjects:
        return
    tail = b" %d\r\n%b\r\n" % (len(kind), kind)
    await client._send_command(b"PUB " + reply_subjects.replace(b"\n", tail + b"PUB ") + tail)
    await client._flush_pending()


def from_message(subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> Delivery:
    """The delivery that nats-py made a message of."""
    lines = "".join(f"\r\n{name}: {value}" for name, value in (headers or {}).items())
    block = f"NATS/1.0{lines}\r\n\r\n".encode() if headers else None
    return subject.encode(), payload, reply.encode(), block


def headers_of(block: bytes) -> Mapping[str, str]:
    """As ``parse_headers``; many or long ones are parsed when they are asked for."""
    few = len(block) <= _LONG and block.count(b"\n") <= _MANY
    return parse_headers(block) if few else LateHeaders(block, _parse_late)


@lru_cache(maxsize=1)
def _parse_late(block: bytes) -> Mapping[str, str]:
    if block.count(b"\n") > HEADERS_MAX:  # for the dead letter
        return {"": block.decode("utf-8", "replace")}
    return parse_headers(block)


def parse_headers(block: bytes) -> Mapping[str, str]:
    """The headers of a message: ``NATS/1.0`` and lines of ``name: value``; those with a repeated name as Headers.

    What is not UTF-8 becomes U+FFFD; a line without a colon is no header.
    """
    headers = {}
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            headers[name] = value.strip()
    if len(headers) + 2 == len(lines):  # nearly always: one each, and the two line ends after them
        return headers
    parts = [line.partition(":") for line in lines]
    pairs = [(name, value.strip()) for name, separator, value in parts if separator]
    return Headers(pairs) if len(pairs) > len(headers) else headers
