"""Fixture: a proxy before each server of a world, through which its services connect."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest

from fix_service import World
from proxy import Proxy


@dataclass
class Proxied:
    """A world whose services reach their servers through proxies; the test itself connects directly."""

    world: World
    nats: Proxy
    postgres: Proxy


@pytest.fixture
def proxied(world: World) -> Iterator[Proxied]:
    """A world with proxies; what a test stalled flows again at its end."""
    port = psycopg.conninfo.conninfo_to_dict(world.dsn)["port"]
    with Proxy(world.nats.port) as to_nats, Proxy(int(str(port))) as to_postgres:
        world.environment["EVENTWRITER_NATS__URL"] = f"nats://127.0.0.1:{to_nats.port}"
        world.environment["EVENTWRITER_POSTGRES__DSN"] = psycopg.conninfo.make_conninfo(
            world.dsn, port=to_postgres.port, tcp_user_timeout=1500
        )
        world.environment["EVENTWRITER_WRITER__ACK_WAIT"] = "1s"
        yield Proxied(world, to_nats, to_postgres)


def last_words(severity: str, code: str, text: str = "last words") -> bytes:
    """PostgreSQL's ErrorResponse, its severity also in another language, as ``lc_messages`` may ask for.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """
    fields = {"S": "ВАЖНО", "V": severity, "C": code, "M": text}
    body = b"".join(f"{kind}{value}\0".encode() for kind, value in fields.items()) + b"\0"
    return b"E" + struct.pack(">I", len(body) + 4) + body
