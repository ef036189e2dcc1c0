"""LOGS alone, its consumer as somebody else would make or edit it, and what the service says of that."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

from eventwriter.config.loading import StreamConfig, WriterConfig
from eventwriter.embedded import free_port
from eventwriter.stream import Batch, Message
from fix_monitor import Endpoint
from fix_service import STREAMS, World, wait_until

STREAM = StreamConfig(
    name="LOGS",
    stream="LOGS",
    durable="eventwriter-logs",
    subjects=("logs.>",),
    table="logs",
    writer=replace(WriterConfig(), batch_messages=100, batch_bytes=100_000, linger=0.01),
)
ONLY_LOGS = {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}
GAP = Batch([Message("logs.x", b"", 9, 1)], [5])
"""A batch of one message, before which there may be some of somebody else."""
TOLD = 10.0
"""Seconds within which /readyz must name a cause."""


def api(world: World, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """The answer of JetStream's API."""

    async def ask(client: Any) -> dict[str, Any]:
        answer = await client.request(f"$JS.API.{subject}", b"" if body is None else json.dumps(body).encode(), 5)
        found: dict[str, Any] = json.loads(answer.data)
        assert "error" not in found, found
        return found

    found: dict[str, Any] = world.call(ask)
    return found


def create(world: World, **settings: Any) -> None:
    """Creates LOGS's durable as somebody else would."""
    wanted = {"durable_name": "eventwriter-logs", "ack_policy": "explicit", "deliver_policy": "all"} | settings
    api(world, "CONSUMER.DURABLE.CREATE.LOGS.eventwriter-logs", {"stream_name": "LOGS", "config": wanted})


def settings(world: World) -> dict[str, Any]:
    """The durable's configuration."""
    found: dict[str, Any] = api(world, "CONSUMER.INFO.LOGS.eventwriter-logs")["config"]
    return found


def edit(world: World, **changes: Any) -> None:
    """Changes the durable as somebody else would, with all the rest as it is."""
    create(world, **settings(world) | changes)


def serving(world: World, **environment: str) -> Endpoint:
    """A service for LOGS alone, ready."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    world.start(EVENTWRITER_HTTP__LISTEN=endpoint.address, **environment)
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness", 15)
    return endpoint


def told(endpoint: Endpoint, *words: str) -> None:
    """/readyz names the cause in time."""
    wait_until(partial(endpoint.answers, "/readyz", 503, "LOGS: ", *words), f"{words} in /readyz", TOLD)


def well(endpoint: Endpoint) -> None:
    """/readyz is 200 again in time."""
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness again", TOLD)
