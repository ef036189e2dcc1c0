"""What connects to NATS in tests of the connection."""

from __future__ import annotations

import asyncio
import time

import pytest

from eventwriter.config.loading import NatsConfig
from eventwriter.errors import EventWriterError, UnavailableError
from eventwriter.jetstream.connection import Client, connect
from patience import PATIENCE


class Silent:
    """Listens to nothing."""

    async def on_disconnected(self) -> None: ...
    async def on_reconnected(self) -> None: ...
    async def on_closed(self) -> None: ...
    async def on_error(self, error: Exception) -> None: ...


def attempt(settings: NatsConfig) -> str:
    """Connects, asks for an answer, and disconnects; "tls" or "clear", as the connection was."""

    async def run() -> str:
        client = Client()
        await connect(client, settings, "test", Silent())
        try:
            await client.flush()
            writer = client._transport._io_writer  # type: ignore[union-attr]
            return "tls" if writer.get_extra_info("ssl_object") else "clear"
        finally:
            await client.close()

    return asyncio.run(run())


def refusal(settings: NatsConfig, kind: type[EventWriterError] = UnavailableError) -> str:
    """The error that ends an attempt, within seconds."""
    begun = time.monotonic()
    with pytest.raises(EventWriterError) as caught:
        attempt(settings)
    assert time.monotonic() - begun < 5 * PATIENCE
    assert isinstance(caught.value, kind), caught.value
    return str(caught.value)
