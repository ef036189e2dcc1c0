"""What carries the bytes to NATS: nothing in clear for who asked for TLS, and a peer that is no NATS server is told."""

# mypy: allow-untyped-calls
# nats-py's transports have no types.

from __future__ import annotations

import asyncio
import contextlib
import json
from urllib.parse import ParseResult

import nats.errors
from nats.aio.transport import TcpTransport

_FAREWELL = 0.5
"""Seconds that the peer has to close a connection: TLS would give it 30, and after a failure wait forever."""


class Unencrypted(nats.errors.Error):
    """The server offers no TLS although it was asked for. A NATS error, so the client goes on to the next server."""


class Stranger(nats.errors.Error):
    """What answers is no NATS server, or says nothing."""


class HungUp(ConnectionResetError):
    """The peer closed the connection while something was expected of it."""


class Transport(TcpTransport):
    """With ``asked_by``, which tells what asks for TLS, nothing is written in clear: no credentials, no stream's name.

    nats-py sends CONNECT in clear to a server that does not ask for TLS, whatever its own settings. Every connection
    passes here: the first, those after an outage, and those to servers that others told of.
    """

    def __init__(self, asked_by: str) -> None:
        super().__init__()
        self._asked_by = asked_by
        self._server = ""
        self._greeted = False

    def __bool__(self) -> bool:
        return True  # the client would put another transport, of its own kind, in the place of one that is false

    @property
    def _may_write(self) -> bool:
        if not self._asked_by:
            return True
        return self._io_writer is not None and self._io_writer.get_extra_info("ssl_object") is not None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self.close()  # reconnecting, the client leaves open what came to nothing
        self._server = f"{uri.hostname}:{uri.port}"
        self._greeted = False
        await super().connect(uri, buffer_size, connect_timeout)

    def write(self, payload: bytes) -> None:
        if not self._may_write:
            raise Unencrypted(
                f"{self._server} offers no TLS, and {self._asked_by} asks for it: nothing was sent. "
                "Enable TLS in that server, or ask for none (nats:// and no nats.tls settings)"
            )
        super().write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        if self._may_write:  # else the client is being closed while it reconnects, and empties its buffer
            super().writelines(payload)

    async def readline(self) -> bytes:
        """A line while the connection is made; the client takes silence, and what it cannot read, for consent."""
        try:
            line: bytes = await super().readline()
        except ValueError:
            line = b"?"  # longer than the buffer
        if not line:
            hint = "" if self._greeted else "; servers that begin with TLS need nats.tls.handshake_first"
            raise HungUp(f"{self._server} closed the connection{hint}")
        if not self._greeted and not _is_greeting(line):
            raise Stranger(f"what answers at {self._server} is no NATS server")
        self._greeted = True
        return line

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().wait_closed(), _FAREWELL)
        self.abort()

    def abort(self) -> None:
        """Ends the connection, whatever the peer does."""
        if self._io_writer is not None:
            self._io_writer.transport.abort()


def _is_greeting(line: bytes) -> bool:
    try:
        return line.startswith(b"INFO ") and isinstance(json.loads(line[5:]), dict)
    except ValueError:
        return False
