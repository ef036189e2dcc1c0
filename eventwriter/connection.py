"""The connection to NATS: credentials, TLS, and errors that say what to do."""

from __future__ import annotations

import ssl
from typing import Any, Protocol

import nats.errors
from nats.aio.client import Client

from eventwriter.config import NatsConfig
from eventwriter.errors import AuthenticationError, ConfigurationError, UnavailableError


class Listener(Protocol):
    """Is told what becomes of a connection."""

    async def on_disconnected(self) -> None: ...
    async def on_reconnected(self) -> None: ...
    async def on_closed(self) -> None: ...
    async def on_error(self, error: Exception) -> None: ...


async def connect(client: Client, settings: NatsConfig, name: str, listener: Listener) -> None:
    """Connects for good: the first time or not at all, then reconnecting for ever.

    Raises AuthenticationError, ConfigurationError or UnavailableError, which name the servers and the remedy.
    """
    context = _tls_context(settings)
    options: dict[str, Any] = {}
    if settings.credentials:
        options["user_credentials"] = settings.credentials
    if settings.user is not None:
        options["user"] = settings.user
        options["password"] = settings.password or ""
    if settings.token is not None:
        options["token"] = settings.token
    if context is not None:
        options["tls"] = context
        options["tls_handshake_first"] = settings.tls.handshake_first
        if settings.tls.hostname:
            options["tls_hostname"] = settings.tls.hostname
    reasons: list[Exception] = []

    async def on_error(error: Exception) -> None:
        reasons.append(error)

    try:
        # The first connection is tried once per server, so that a wrong address is told at once …
        await client.connect(
            servers=list(settings.url),
            name=name,
            max_reconnect_attempts=1,
            reconnect_time_wait=1,
            connect_timeout=5,
            ping_interval=20,
            error_cb=on_error,
            disconnected_cb=listener.on_disconnected,
            reconnected_cb=listener.on_reconnected,
            closed_cb=listener.on_closed,
            **options,
        )
    except (OSError, nats.errors.Error, ValueError) as error:
        reason = reasons[-1] if reasons else error
        text = f"NATS at {', '.join(_masked(url) for url in settings.url)}: {reason or type(reason).__name__}"
        if "uthorization" in str(reason) or isinstance(reason, nats.errors.InvalidUserCredentialsError):
            raise AuthenticationError(
                f"{text}: check nats.user, nats.password, nats.token or nats.credentials"
            ) from None
        if isinstance(reason, FileNotFoundError | PermissionError):
            raise ConfigurationError(f"{text}: check nats.credentials") from None
        raise UnavailableError(f"cannot connect to {text}") from None
    # … and later ones for ever.
    client.options["max_reconnect_attempts"] = -1
    client.options["reconnect_time_wait"] = 0.5
    client._error_cb = listener.on_error


def _masked(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else url


def _tls_context(settings: NatsConfig) -> ssl.SSLContext | None:
    tls = settings.tls
    if not (tls.ca or tls.cert or tls.handshake_first or any(url.startswith("tls://") for url in settings.url)):
        return None
    try:
        context = ssl.create_default_context(cafile=tls.ca)
        if tls.cert:
            context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nats.tls: {error}") from None
    return context
