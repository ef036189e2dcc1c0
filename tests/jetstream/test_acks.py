"""Acknowledging a batch: sent once, the last confirmed, and again only what may have been lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import nats.errors

from consumers import STREAM
from eventwriter.jetstream.acknowledger import Acknowledger
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress

REPLY_SUBJECTS = [b"$JS.ACK.a\n$JS.ACK.b", b"$JS.ACK.c"]
FIRST_TWO = b"PUB $JS.ACK.a 0\r\n\r\nPUB $JS.ACK.b 0\r\n\r\n"


class LateServer:
    """A client whose server confirms only the third request; ``between`` runs when one is late."""

    is_connected = True

    def __init__(self, between: Callable[[LateServer], None]) -> None:
        self.stats = {"reconnects": 0}
        self.sent: list[bytes] = []
        self.asked: list[str] = []
        self._between = between

    async def _send_command(self, data: bytes) -> None:
        self.sent.append(data)

    async def _flush_pending(self) -> None:
        pass

    async def request(self, subject: str, payload: bytes, timeout: float) -> None:
        self.asked.append(subject)
        if len(self.asked) < 3:
            self._between(self)
            raise nats.errors.TimeoutError


def acknowledged(client: LateServer) -> LateServer:
    """The client after the acks of one batch."""
    nats, permissions = cast(Client, client), Permissions(STREAM)
    api = Api(nats, permissions)
    acknowledger = Acknowledger(nats, api, STREAM, Handover(STREAM), permissions, Progress(STREAM))
    asyncio.run(acknowledger.acknowledge(REPLY_SUBJECTS))
    assert len(acknowledger.seconds) == 1
    return client


def test_a_late_confirmation_is_asked_for_again() -> None:
    """Thousands of acks sent a second and a third time would make the server later still."""
    client = acknowledged(LateServer(lambda client: None))
    assert client.sent == [FIRST_TWO]
    assert client.asked == ["$JS.ACK.c"] * 3


def test_after_a_reconnect_all_are_sent_again() -> None:
    """What was written to the connection before may not have arrived."""

    def reconnect(client: LateServer) -> None:
        client.stats["reconnects"] = 1

    client = acknowledged(LateServer(reconnect))
    assert client.sent == [FIRST_TWO, FIRST_TWO]
    assert client.asked == ["$JS.ACK.c"] * 3
