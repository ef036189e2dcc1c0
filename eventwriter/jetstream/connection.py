"""The connection to NATS: made within seconds or not at all, then forever; errors say what to do."""

# mypy: allow-untyped-calls
# nats-py's transports have no types.

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

import nats.aio.client
import nats.errors

from eventwriter import masking
from eventwriter.config.loading import NatsConfig, TlsConfig
from eventwriter.errors import AuthenticationError, ConfigurationError, UnavailableError
from eventwriter.jetstream import credentials, tls
from eventwriter.jetstream.credentials import Unusable
from eventwriter.jetstream.transport import HungUp, Transport, Unencrypted

_PATIENCE = 3.5
"""Seconds that each server has at the first connection; for a step of it, half a second less."""

_LONGEST = 25.0
"""Seconds that all servers have together."""

_TRIES = 3
"""A server that refuses hangs up at once: while we still write, its reason may be lost, and is asked for again."""


class Listener(Protocol):
    """Is told what becomes of a connection."""

    async def on_disconnected(self) -> None: ...
    async def on_reconnected(self) -> None: ...
    async def on_closed(self) -> None: ...
    async def on_error(self, error: Exception) -> None: ...


class Client(nats.aio.client.Client):
    """nats-py's client, which reads certificates for each connection, and takes TLS where it has the choice."""

    tls = TlsConfig()

    @property
    def ssl_context(self) -> ssl.SSLContext:
        """For the next connection."""
        return tls.context(self.tls)

    async def close(self) -> None:
        """Also of one that was never to connect, for a file cannot be used: nats-py fails then. Who does not wait for
        the end of it leaves nothing open."""
        try:
            if self.options:
                await super().close()
        finally:
            if isinstance(self._transport, Transport):
                self._transport.abort()

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and "tls" in self.options and info.get("tls_available"):
            info["tls_required"] = True  # all that nats-py looks at
        await super()._process_info(info, initial_connection)


async def connect(client: Client, settings: NatsConfig, name: str, listener: Listener) -> None:
    """Connects for good: the first time within seconds or not at all, then reconnecting forever.

    If the settings ask for TLS, no connection is ever used without. Raises AuthenticationError, ConfigurationError or
    UnavailableError, which name the servers and the remedy.
    """
    reasons: list[Exception] = []

    async def on_error(error: Exception) -> None:
        reasons.append(error)

    # The first connection is tried twice per server, so that a wrong address is told at once …
    options: dict[str, Any] = {"max_reconnect_attempts": 1, "reconnect_time_wait": 0.2}
    client.tls = settings.tls
    try:
        if settings.tls_asked_by:
            options["tls"] = client.ssl_context  # only says that it is asked for
            options["tls_handshake_first"] = settings.tls.handshake_first
            options["tls_hostname"] = settings.tls.hostname
        options |= credentials.options(settings, client)
    except Unusable as error:
        raise _explained(error, settings) from None
    client._transport = transport = Transport(settings.tls_asked_by)
    try:
        async with asyncio.timeout(min(_LONGEST, _PATIENCE * len(settings.url))):
            for left in reversed(range(_TRIES)):
                reasons.clear()
                try:
                    await client.connect(
                        servers=list(settings.url),
                        name=name,
                        inbox_prefix=settings.inbox_prefix,
                        connect_timeout=_PATIENCE - 0.5,  # type: ignore[arg-type]
                        ping_interval=20,
                        error_cb=on_error,
                        disconnected_cb=listener.on_disconnected,
                        reconnected_cb=listener.on_reconnected,
                        closed_cb=listener.on_closed,
                        **options,
                    )
                    break
                except (OSError, nats.errors.Error, ValueError) as error:
                    reasons += [] if reasons else [error]
                    if not (left and isinstance(_most_telling(reasons), BrokenPipeError | ConnectionResetError)):
                        raise _explained(_most_telling(reasons), settings) from None
    except TimeoutError as error:
        transport.abort()
        raise _explained(_most_telling(reasons or [error]), settings) from None
    # … and later ones forever.
    client.options |= {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.5, "connect_timeout": 5}
    client._error_cb = listener.on_error


def words(reason: Exception, encrypted: bool = True) -> str:
    """What went wrong, for people; ``encrypted``: the connection is, or may have to be."""
    if isinstance(reason, ssl.SSLError):
        return tls.words(reason)
    if isinstance(reason, BrokenPipeError | ConnectionResetError) and not isinstance(reason, HungUp):
        told = "the server closed the connection before it said why"
        return f"{told}: is nats.tls.cert what it wants?" if encrypted else told
    blank: dict[type[Exception], str] = {TimeoutError: "no answer in time"}
    return masking.text(str(reason)) or blank.get(type(reason), type(reason).__name__)


def _most_telling(reasons: Sequence[Exception]) -> Exception:
    """What went wrong at one server or another: with TLS, with the credentials, or else the latest."""
    kinds = Unencrypted | Unusable | ssl.SSLError
    telling = (each for each in reasons if isinstance(each, kinds) or _is_refusal(each))
    return next(telling, reasons[-1])


def _is_refusal(reason: Exception) -> bool:
    return "uthorization" in str(reason) or "uthentication" in str(reason)


def _explained(reason: Exception, settings: NatsConfig) -> Exception:
    """The typed error for what went wrong."""
    text = f"cannot connect to NATS at {', '.join(map(masking.url, settings.url))}: {words(reason)}"
    if isinstance(reason, Unusable):
        return ConfigurationError(text)
    if _is_refusal(reason):
        return AuthenticationError(f"{text}: check nats.user, nats.password, nats.token, nats.nkey or nats.credentials")
    return UnavailableError(text)
