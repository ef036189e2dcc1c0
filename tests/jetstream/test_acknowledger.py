"""Acks: sent once, the last confirmed, again only what may have been lost. And what is told of all not written yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import cast

import nats.errors
import pytest

from consumers import STREAM
from eventwriter.config.loading import NatsConfig
from eventwriter.jetstream.acknowledger import Acknowledger
from eventwriter.jetstream.api import Api
from eventwriter.jetstream.connection import Client
from eventwriter.jetstream.deliveries import read
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress

REPLY_SUBJECTS = [b"$JS.ACK.a\n$JS.ACK.b", b"$JS.ACK.c"]
FIRST_TWO = b"PUB $JS.ACK.a 0\r\n\r\nPUB $JS.ACK.b 0\r\n\r\n"


class Server:
    """A client whose server confirms the request of this number; ``between`` runs when one is late."""

    is_connected = True

    def __init__(self, confirms: int = 1, between: Callable[[Server], None] = lambda server: None) -> None:
        self.stats = {"reconnects": 0}
        self.sent: list[bytes] = []
        self.asked: list[tuple[str, bytes]] = []
        self._confirms = confirms
        self._between = between

    async def _send_command(self, data: bytes) -> None:
        self.sent.append(data)

    async def _flush_pending(self) -> None:
        pass

    async def request(self, subject: str, payload: bytes, timeout: float) -> None:
        self.asked.append((subject, payload))
        if len(self.asked) < self._confirms:
            self._between(self)
            raise nats.errors.TimeoutError


def acknowledger(server: Server, handover: Handover | None = None, ack_wait: float = 30.0) -> Acknowledger:
    """One that speaks with this server."""
    config = replace(STREAM, writer=replace(STREAM.writer, ack_wait=ack_wait))
    client, permissions = cast(Client, server), Permissions(NatsConfig(), STREAM)
    return Acknowledger(
        client, Api(client, permissions), config, handover or Handover(STREAM), permissions, Progress(STREAM)
    )


def acknowledged(server: Server) -> Server:
    """The server after the acks of one batch."""
    acks = acknowledger(server)
    asyncio.run(acks.acknowledge(REPLY_SUBJECTS))
    assert len(acks.seconds) == 1
    return server


def waiting() -> Handover:
    """Three messages are taken and not written, and two wait."""
    handover = Handover(STREAM)
    for part in ((1, 2, 3), (4, 5)):
        handover.put(read([(b"logs.x", b"", reply(number), None) for number in part], 0))
        if not handover.in_flight:
            handover.buffer.take()
            handover.in_flight.append([b"\n".join(map(reply, part))])
    return handover


def reply(number: int) -> bytes:
    """The reply subject of a delivery."""
    return b"$JS.ACK.LOGS.eventwriter-logs.1.%d.%d.1.0" % (number, number)


def words(kind: bytes, *numbers: int) -> bytes:
    """What is sent about these deliveries."""
    return b"".join(b"PUB %b %d\r\n%b\r\n" % (reply(number), len(kind), kind) for number in numbers)


def test_a_late_confirmation_is_asked_for_again() -> None:
    """Thousands of acks sent a second and a third time would make the server later still."""
    server = acknowledged(Server(3))
    assert server.sent == [FIRST_TWO]
    assert server.asked == [("$JS.ACK.c", b"")] * 3


def test_after_a_reconnect_all_are_sent_again() -> None:
    """What was written to the connection before may not have arrived."""

    def reconnect(server: Server) -> None:
        server.stats["reconnects"] = 1

    server = acknowledged(Server(3, reconnect))
    assert server.sent == [FIRST_TWO, FIRST_TWO]
    assert server.asked == [("$JS.ACK.c", b"")] * 3


def test_acks_that_nobody_confirms_are_given_up() -> None:
    """The messages come again, and are known."""
    server = Server(99)
    acks = acknowledger(server)
    asyncio.run(acks.acknowledge(REPLY_SUBJECTS))
    assert (len(server.asked), len(acks.seconds)) == (3, 0)


@pytest.mark.parametrize("confirms", [1, 99])
def test_the_end_waits_for_acks_but_not_forever(confirms: int) -> None:
    """Afterwards none is under way."""

    async def end() -> bool:
        acks = acknowledger(Server(confirms))
        acks.begin(REPLY_SUBJECTS, {})
        finished = await acks.finish(time.monotonic() + (20 if confirms == 1 else 0.05))
        await asyncio.sleep(0)
        assert len(acks.seconds) == int(finished)
        return finished

    assert asyncio.run(end()) == (confirms == 1)


@pytest.mark.parametrize(
    ("seconds", "delivered", "delay"), [(2.0, 1, 2), (2.0, 4, 16), (0.5, 30, 600), (1500.0, 1, 1500), (1500.0, 9, 1500)]
)
def test_what_is_set_aside_comes_later_each_time(seconds: float, delivered: int, delay: int) -> None:
    """The others of its batch are acknowledged, if there are any; twice as late, up to ten minutes or what is asked."""
    again = b"$JS.ACK.LOGS.eventwriter-logs.%d.2.9.1.0" % delivered
    postponed = b'-NAK {"delay": %d}' % (delay * 10**9)
    for replies in ([reply(1) + b"\n" + again, reply(3)], [again]):
        server = Server(1)

        async def begin(server: Server = server, replies: list[bytes] = replies) -> None:
            acks = acknowledger(server)
            acks.begin(replies, {2: seconds})
            assert await acks.finish(time.monotonic() + 20)

        asyncio.run(begin())
        assert server.sent[0] == b"PUB %b %d\r\n%b\r\n" % (again, len(postponed), postponed)
        assert server.sent[1:] == ([words(b"", 1)] if len(replies) > 1 else [])
        assert server.asked == ([(reply(3).decode(), b"")] if len(replies) > 1 else [])


def test_what_is_not_written_is_given_back() -> None:
    """In flight or waiting; the answer to the last says that all have arrived."""
    server = Server()
    asyncio.run(acknowledger(server, waiting()).release())
    assert server.sent == [words(b"-NAK", 1, 2, 3, 4)]
    assert server.asked == [(reply(5).decode(), b"-NAK")]


def test_nothing_is_given_back_when_all_is_written() -> None:
    """Or when nobody would hear it."""
    for server, handover in ((Server(), Handover(STREAM)), (Server(), waiting())):
        server.is_connected = not handover.in_flight
        asyncio.run(acknowledger(server, handover).release())
        assert (server.sent, server.asked) == ([], [])


def test_what_is_not_written_for_long_is_kept_alive() -> None:
    """Not before a third of its deadline has passed, nor what arrived since."""
    server, handover = Server(), waiting()

    async def keep() -> None:
        keeping = asyncio.create_task(acknowledger(server, handover, ack_wait=0.3).keep_alive())
        await asyncio.sleep(0)
        assert not server.sent
        while len(server.sent) < 2:
            await asyncio.sleep(0.001)
        handover.put(read([(b"logs.x", b"", reply(6), None)], 0))
        while len(server.sent) < 6:
            await asyncio.sleep(0.001)
        keeping.cancel()

    asyncio.run(asyncio.wait_for(keep(), 20))
    assert server.sent[:4] == [words(b"+WPI", 1, 2, 3), words(b"+WPI", 4, 5)] * 2
    assert server.sent[4:6] == [words(b"+WPI", 1, 2, 3), words(b"+WPI", 4, 5, 6)], "before its deadline has passed"
