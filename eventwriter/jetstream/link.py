"""One worker's connection to NATS, and all that the loop thread does with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

import nats.errors
from nats.aio.msg import Msg

from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.errors import ForbiddenError, UnavailableError
from eventwriter.jetstream import wire
from eventwriter.jetstream.acknowledger import Acknowledger
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.binding import Binding
from eventwriter.jetstream.connection import Client, connect, words
from eventwriter.jetstream.consumer import StreamInfo
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.puller import Puller
from eventwriter.jetstream.rereading import Reader
from eventwriter.jetstream.turn import Turn
from eventwriter.jetstream.watch import Watch
from eventwriter.outage import Member, Outage

log = logging.getLogger("eventwriter.source")

CONNECT_TIMEOUT = 10.0
_LOSS = (nats.errors.UnexpectedEOF, nats.errors.StaleConnectionError, OSError)
"""Errors with which a connection ends: that it is lost comes next, and names them."""


class Link:
    """Puts the parts together, opens and closes them in order, and passes on what the client tells.

    Of the loop thread; what properties tell may be read by any.
    """

    def __init__(
        self,
        settings: NatsConfig,
        config: StreamConfig,
        handover: Handover,
        turn: Turn | None = None,
        at: Callable[[str], None] | None = None,
        member: Member | None = None,
    ) -> None:
        self._settings = settings
        self._config = config
        self._handover = handover
        self._turn = turn
        self._extra = {"stream": config.name}
        self._client = client = Client()
        self._permissions = permissions = Permissions(settings, config)
        self._progress = progress = Progress(config, member)
        self.api = Api(client, permissions)
        self.binding = Binding(self.api.request, config, handover)
        self.puller = Puller(client, self.binding, config, handover, permissions, progress, turn, at)
        self.acknowledger = Acknowledger(client, self.api, config, handover, permissions, progress, at)
        self.reader = Reader(client, self.api, config, handover)
        self.watch = Watch(client, self.api, self.binding, self.puller, permissions, progress, handover.claims)
        self._parser = wire.install(client, self.puller.deliver)
        self._subscription: Any = None
        self._tasks: list[asyncio.Task[None]] = []
        self._outage = Outage(log, "NATS", self._extra, member=member)
        self.nats_error = ""
        """Why there is no connection, while there is none: what the latest try said."""
        self.reconnects = 0
        """How often the connection was lost and made again."""

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return bool(self._client.is_connected)

    @property
    def trouble(self) -> str:
        """What keeps messages or acks from flowing although there is a connection; empty if nothing does."""
        if self._handover.claims.full:  # for want of an answer: that it is forbidden is part of why
            return self._progress.trouble or self._permissions.trouble
        return self._permissions.trouble or self._progress.trouble

    def told(self) -> tuple[bool, int | None, int | None, str, str]:
        """What is known of NATS and the consumer now: connected, pending, not acknowledged (None: unknown), errors."""
        info = self.watch.latest
        pending, ack_pending = (info.pending, info.ack_pending) if info else (None, None)
        return self.connected, pending, ack_pending, self.nats_error, self.trouble

    # --- start and end ------------------------------------------------------------------------------------------

    async def open(self, pulls: bool) -> StreamInfo:
        """Connects and asks for the stream; raises the error that tells why reading cannot begin."""
        name = f"eventwriter {self._config.name}"
        await connect(self._client, self._settings, name, self)
        await self.api.probe(pulls)
        if not self._permissions.complete:
            raise ForbiddenError(self._permissions.trouble)
        return await self.binding.open()

    async def start(self) -> None:
        """Begins to pull, to keep alive, and to watch."""
        inbox = self.puller.pull.inbox = self._client.new_inbox()
        self._subscription = await self._client.subscribe(f"{inbox}.*", cb=self._on_message)
        self._parser.sid = str(self._subscription._id).encode()
        works = (self.puller.run(), self.acknowledger.keep_alive(), self.watch.run())
        self._tasks = [asyncio.create_task(self._handover.guarded(work)) for work in works]

    async def close(self, timeout: float) -> None:
        """Waits for acks, releases what was not written, disconnects; UnavailableError past ``timeout`` seconds."""
        deadline = monotonic() + timeout
        for task in self._tasks:
            task.cancel()
        if self._turn is not None:
            self._turn.leave()
        if self._client.is_connected and self._subscription is not None and not self._handover.failure:
            # The server stops sending before it answers, so nothing is on its way afterwards.
            await asyncio.wait_for(self._subscription.drain(), max(0.1, deadline - monotonic()))
        finished = await self.acknowledger.finish(deadline)
        await self.acknowledger.release()
        if not self._client.is_closed:
            await asyncio.wait_for(self._client.close(), 2.0)
        if not finished:
            raise UnavailableError("some acks were not confirmed: these messages will be delivered again, and known")

    # --- what the client tells ----------------------------------------------------------------------------------

    async def _on_message(self, msg: Msg) -> None:
        """What the parser leaves to the client: heartbeats and the end of a pull."""
        if msg.reply:
            self.puller.deliver([wire.from_message(msg.subject, msg.data, msg.reply, msg.headers)], len(msg.data))
        else:
            headers = msg.headers or {}
            self.puller.told(msg.subject, headers.get("Status", ""), headers.get("Description", ""))

    async def on_disconnected(self) -> None:
        """The connection is lost."""
        self.puller.interrupt()
        if self._tasks and not self._handover.stopping:
            why = f" ({self.nats_error})" if self.nats_error else ""
            self._outage.failed(f"disconnected from NATS{why}", "reconnecting")

    async def on_reconnected(self) -> None:
        """There is a connection again: pull."""
        self.nats_error = ""
        self.reconnects += 1
        self._outage.over()
        self.puller.interrupt()

    async def on_closed(self) -> None:
        """The client gives up for good, whatever the reconnect settings say (expired credentials, for one)."""
        if not self._handover.stopping:
            self._handover.fail(UnavailableError("the connection to NATS was closed for good: starting again"))

    async def on_error(self, error: Exception) -> None:
        """Something went wrong that the client goes on from; the log has why there is no connection once a cause."""
        text = words(error, bool(self._settings.tls_asked_by))
        if self._permissions.note(text):
            if not self._permissions.may_pull:
                self.puller.pull.give_up()
            return
        self.nats_error = text
        if self._handover.stopping:
            return
        if not self._client.is_connected:
            self._outage.failed(f"NATS: {text}")
        elif not isinstance(error, _LOSS):
            log.warning("NATS: %s", text, extra=self._extra)
