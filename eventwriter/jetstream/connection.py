"""The connection to NATS: credentials, TLS, and errors that say what to do."""

# mypy: allow-untyped-calls
# nats-py's transports have no types.

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import ParseResult

import nats.aio.client
import nats.errors
from nats.aio.transport import TcpTransport

from eventwriter import masking
from eventwriter.config.loading import NatsConfig
from eventwriter.errors import AuthenticationError, ConfigurationError, UnavailableError
from eventwriter.jetstream import credentials

_FAREWELL = 0.5
"""Seconds that the peer has to close a connection: TLS would give it 30, and after a failure wait forever."""

_TRIES = 3
"""A server that refuses hangs up at once: while we still write, its reason may be lost, and is asked for again."""


class Listener(Protocol):
    """Is told what becomes of a connection."""

    async def on_disconnected(self) -> None: ...
    async def on_reconnected(self) -> None: ...
    async def on_closed(self) -> None: ...
    async def on_error(self, error: Exception) -> None: ...


class Unencrypted(nats.errors.Error):
    """The server offers no TLS although it was asked for. A NATS error, so the client goes on to the next server."""


class Client(nats.aio.client.Client):
    """nats-py's client, which takes TLS also from a server that leaves the choice to its clients."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and "tls" in self.options and info.get("tls_available"):
            info["tls_required"] = True  # all that nats-py looks at
        await super()._process_info(info, initial_connection)


class _Encrypted(TcpTransport):
    """A transport for who asked for TLS: nothing is written in clear, neither credentials nor the name of a stream.

    nats-py sends CONNECT in clear to a server that does not ask for TLS, whatever its own settings. Every connection
    passes here: the first, those after an outage, and those to servers that others told of.
    """

    def __init__(self, asked_by: str) -> None:
        super().__init__()
        self._asked_by = asked_by
        self._server = ""

    def __bool__(self) -> bool:
        return True  # the client would put another transport, of its own kind, in the place of one that is false

    @property
    def _is_encrypted(self) -> bool:
        return self._io_writer is not None and self._io_writer.get_extra_info("ssl_object") is not None

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        self.close()  # reconnecting, the client leaves open what came to nothing
        self._server = f"{uri.hostname}:{uri.port}"
        await super().connect(uri, buffer_size, connect_timeout)

    def write(self, payload: bytes) -> None:
        if not self._is_encrypted:
            raise Unencrypted(
                f"{self._server} offers no TLS, and {self._asked_by} asks for it: nothing was sent. "
                "Enable TLS in that server, or ask for none (nats:// and no nats.tls settings)"
            )
        super().write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        if self._is_encrypted:  # else the client is being closed while it reconnects, and empties its buffer
            super().writelines(payload)

    async def wait_closed(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(super().wait_closed(), _FAREWELL)
        if self._io_writer is not None:
            self._io_writer.transport.abort()


async def connect(client: Client, settings: NatsConfig, name: str, listener: Listener) -> None:
    """Connects for good: the first time or not at all, then reconnecting forever.

    If the settings ask for TLS, no connection is ever used without. Raises AuthenticationError, ConfigurationError or
    UnavailableError, which name the servers and the remedy.
    """
    # The first connection is tried twice per server, so that a wrong address is told at once …
    options: dict[str, Any] = {"max_reconnect_attempts": 1, "reconnect_time_wait": 0.2}
    if settings.credentials:
        options |= credentials.options(settings.credentials)
    if settings.user is not None:
        options["user"] = settings.user
        options["password"] = settings.password or ""
    if settings.token is not None:
        options["token"] = settings.token
    if settings.tls_asked_by:
        options["tls"] = _tls_context(settings)
        options["tls_handshake_first"] = settings.tls.handshake_first
        options["tls_hostname"] = settings.tls.hostname
        if not any(url.startswith("wss://") for url in settings.url):  # there it is part of the scheme
            client._transport = _Encrypted(settings.tls_asked_by)
    reasons: list[Exception] = []

    async def on_error(error: Exception) -> None:
        reasons.append(error)

    for left in reversed(range(_TRIES)):
        reasons.clear()
        try:
            await client.connect(
                servers=list(settings.url),
                name=name,
                connect_timeout=5,
                ping_interval=20,
                error_cb=on_error,
                disconnected_cb=listener.on_disconnected,
                reconnected_cb=listener.on_reconnected,
                closed_cb=listener.on_closed,
                **options,
            )
            break
        except (OSError, nats.errors.Error, ValueError) as error:
            reason = _most_telling(reasons or [error])
            if not (left and isinstance(reason, BrokenPipeError | ConnectionResetError)):
                raise _explained(reason, settings) from None
    # … and later ones forever.
    client.options["max_reconnect_attempts"] = -1
    client.options["reconnect_time_wait"] = 0.5
    client._error_cb = listener.on_error


def _most_telling(reasons: Sequence[Exception]) -> Exception:
    """What went wrong at one server or another: with TLS, with the credentials, or else the latest."""
    telling = (each for each in reasons if isinstance(each, Unencrypted | ssl.SSLError) or _is_refusal(each))
    return next(telling, reasons[-1])


def _is_refusal(reason: Exception) -> bool:
    return "uthorization" in str(reason) or isinstance(reason, nats.errors.InvalidUserCredentialsError)


def _explained(reason: Exception, settings: NatsConfig) -> Exception:
    """The typed error for what went wrong."""
    text = f"NATS at {', '.join(map(masking.url, settings.url))}: {reason or type(reason).__name__}"
    if _is_refusal(reason):
        return AuthenticationError(f"{text}: check nats.user, nats.password, nats.token or nats.credentials")
    if isinstance(reason, FileNotFoundError | PermissionError):
        return ConfigurationError(f"{text}: check nats.credentials")
    if isinstance(reason, ssl.SSLError):
        text = f"{text}: check nats.tls and the certificate of the server"
    return UnavailableError(f"cannot connect to {text}")


def _tls_context(settings: NatsConfig) -> ssl.SSLContext:
    tls = settings.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nats.tls: {error}") from None
    return context
