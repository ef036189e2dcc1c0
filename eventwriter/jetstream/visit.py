"""A command's connection to NATS: made within seconds or not at all, asked for a while, and ended."""

from __future__ import annotations

import asyncio
import contextlib

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.jetstream.api import ANSWER_TIMEOUT, Api
from eventwriter.jetstream.connection import Client, connect, words
from eventwriter.jetstream.permissions import Permissions


class Visit:
    """One connection for the questions of all streams; what is refused is told to whoever asked for it."""

    def __init__(self, settings: NatsConfig, name: str) -> None:
        self.settings = settings
        self.client = Client()
        self._name = name
        self._permissions: list[Permissions] = []

    async def open(self) -> None:
        """Raises AuthenticationError, ConfigurationError or UnavailableError, which name the servers and the remedy."""
        await connect(self.client, self.settings, self._name, self)

    async def close(self) -> None:
        """Ends it, whatever became of it."""
        # What is only half connected raises anything, and nothing is lost with it.
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self.client.close(), 1.0)

    def questions(self, config: StreamConfig, patience: float = ANSWER_TIMEOUT) -> tuple[Api, Permissions]:
        """Asks for one stream, and what is refused then."""
        permissions = Permissions(self.settings, config)
        self._permissions.append(permissions)
        return Api(self.client, permissions, patience), permissions

    async def on_disconnected(self) -> None:
        """Whoever asks will see."""

    async def on_reconnected(self) -> None:
        """Likewise."""

    async def on_closed(self) -> None:
        """Likewise."""

    async def on_error(self, error: Exception) -> None:
        """A refusal, perhaps."""
        text = words(error)
        for each in self._permissions:
            each.note(text)
