"""A small HTTP server that nobody keeps busy: one thread, a deadline per connection, and a cap on how many there are.

A thread for each connection, as http.server has it, is held by whoever sends slowly, and a thousand of them silence it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

from eventwriter import __version__
from eventwriter.config.model import HttpTlsConfig

log = logging.getLogger("eventwriter.monitor")

CONNECTIONS = 256
"""Most at a time; the one open longest makes room for the next: an honest client has its answer by then."""
ENCRYPTED = 64
"""The same with TLS, for which asyncio takes 300 KiB each."""
DEADLINE = 5.0
"""Seconds from a connection to the end of the answer."""
HEAD = 16_384
"""Bytes of a request's head."""
BUSY = 32
"""Connections from which on an answer is given to all who ask for the same within the next moments."""
MOMENT = 0.25
TEXT = "text/plain; charset=utf-8"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = (
    f"Server: eventwriter/{__version__}\r\nConnection: close\r\nCache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\n"
    f"Cross-Origin-Resource-Policy: same-origin\r\nContent-Security-Policy: {POLICY}\r\n"
)


_ASKED = ("host", "authorization", "accept")
"""Headers on which an answer may depend."""


class Answer(NamedTuple):
    """What a request gets."""

    status: int
    kind: str
    body: bytes
    headers: str = ""
    """More lines of the head."""


class _Refused(Exception):
    """A request that cannot be read."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(status, TEXT, f"{text}\n".encode())


class UnusableFiles(OSError):
    """The certificate or its key."""


class Server:
    """Answers GET and HEAD by ``answer(path, headers)``, with names of headers in small letters."""

    def __init__(
        self, address: tuple[str, int], tls: HttpTlsConfig, answer: Callable[[str, Mapping[str, str]], Answer]
    ) -> None:
        """Listens; raises OSError."""
        self._answer = answer
        self._files = tls
        self._tls = _context(tls) if tls.cert else None
        self._open: dict[asyncio.WriteTransport, None] = {}  # the oldest first
        self._kept: dict[tuple[str, ...], tuple[float, Answer]] = {}
        self._socket = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(address)
            self._socket.listen(1024)
        except OSError:
            self._socket.close()
            raise
        self._loop, self._ended = asyncio.new_event_loop(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)
        host, self.port = self._socket.getsockname()[:2]
        self.url = f"http{'s' * bool(self._tls)}://{f'[{host}]' if ':' in host else host}:{self.port}/"

    def start(self) -> None:
        """Serves in a thread of its own, until ``stop`` or for as long as the process lives."""
        self._thread.start()

    def stop(self) -> None:
        """Hangs up on everybody and listens no more."""
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def renew(self) -> None:
        """Takes the certificate as it is in its files now; of those that cannot be used it keeps what it had."""
        if self._tls is not None:
            with contextlib.suppress(OSError):
                self._tls = _context(self._files)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=HEAD, backlog=1024)
        await self._ended.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        transport = writer.transport
        self._open[transport] = None
        if len(self._open) > (ENCRYPTED if self._tls else CONNECTIONS):
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.abort()
        try:
            async with asyncio.timeout(DEADLINE):
                # A StreamWriter that nobody has any more closes its connection, so the first one is kept, too.
                streams = (reader, writer) if self._tls is None else await _encrypted(transport, self._tls)
                await self._talk(*streams)
        except (OSError, EOFError):
            pass  # who hangs up, is too slow, or speaks something else
        except Exception:
            log.exception("a request failed")
        finally:
            self._open.pop(transport, None)
            transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method = ""
        try:
            method, path, headers = await _request(reader)
            answer = self._answered(path, headers)
        except _Refused as refused:
            answer = refused.answer
        head = (
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\nContent-Type: {answer.kind}\r\n"
            f"Content-Length: {len(answer.body)}\r\n{_HEADERS}{answer.headers}\r\n"
        )
        writer.write(head.encode() + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    def _answered(self, path: str, headers: Mapping[str, str]) -> Answer:
        if len(self._open) < BUSY:
            return self._answer(path, headers)
        key, now = (path, *(headers.get(name, "") for name in _ASKED)), time.monotonic()
        if key in self._kept and now - self._kept[key][0] < MOMENT:
            return self._kept[key][1]
        answer = self._answer(path, headers)
        if len(self._kept) >= 64:
            self._kept.clear()
        self._kept[key] = now, answer
        return answer


def _context(files: HttpTlsConfig) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(files.cert or "", files.key, password="")  # without one OpenSSL would ask the terminal
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or "no certificate, or no key"
        text = f"http.tls.cert {files.cert}, http.tls.key {files.key}: {reason.replace('_', ' ').lower()}"
        raise UnusableFiles(text) from None
    return context


async def _encrypted(
    transport: asyncio.WriteTransport, context: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """TLS over a connection. Not by asyncio.start_server, which would let handshakes take any time and number."""
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(HEAD)
    protocol = asyncio.StreamReaderProtocol(reader)
    over = await loop.start_tls(transport, protocol, context, server_side=True, ssl_shutdown_timeout=1.0)
    if over is None:
        raise ConnectionAbortedError
    protocol.connection_made(over)
    return reader, asyncio.StreamWriter(over, protocol, reader, loop)


async def _request(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str]]:
    """Method, path and headers; raises _Refused."""
    lines: list[str] = []
    size = 0
    while not lines or lines[-1]:
        try:
            line = await reader.readline()
        except ValueError:
            line = b" " * HEAD
        size += len(line)
        if size >= HEAD:
            raise _Refused(431, "the head of the request is too long")
        if not line.endswith(b"\n"):
            raise EOFError
        lines.append(line.decode("latin-1").rstrip("\r\n"))
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise _Refused(400, "this is HTTP/1.1")
    if words[0] not in ("GET", "HEAD"):
        raise _Refused(405, "GET and HEAD are all there is")
    headers: dict[str, str] = {}
    for text in lines[1:-1]:
        name, colon, value = text.partition(":")
        if not colon or (name.lower() in headers and name.lower() in ("host", "authorization")):
            raise _Refused(400, "a header cannot be read, or stands there twice")
        headers[name.lower()] = value.strip()
    return words[0], words[1].partition("?")[0], headers
