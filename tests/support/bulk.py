"""Publishes millions of small messages: NATS' own protocol over one socket, as fast as JetStream takes them."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import islice

_AT_ONCE = 5000
"""Messages before the last one's confirmation is waited for: JetStream drops what it cannot hold (10,000)."""
_INBOX = "_INBOX.bulk"


def publish(port: int, messages: Iterable[tuple[str, bytes]]) -> None:
    """Publishes (subject, payload) pairs to the server on this port of 127.0.0.1; returns when all are stored."""
    source = iter(messages)
    with socket.create_connection(("127.0.0.1", port), 30) as connection, connection.makefile("rb") as answers:
        connection.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB %b 1\r\n' % _INBOX.encode())
        while chunk := list(islice(source, _AT_ONCE)):
            pieces = [b"PUB %b %d\r\n%b\r\n" % (s.encode(), len(p), p) for s, p in chunk[:-1]]
            subject, payload = chunk[-1]
            pieces.append(b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), _INBOX.encode(), len(payload), payload))
            connection.sendall(b"".join(pieces))
            _confirmed(connection, answers)


def _confirmed(connection: socket.socket, answers: Iterable[bytes]) -> None:
    for line in answers:
        if line.startswith(b"PING"):
            connection.sendall(b"PONG\r\n")
        elif line.startswith(b'{"stream"'):
            return
        elif line.startswith((b"-ERR", b'{"error"')):
            raise RuntimeError(line.decode())
    raise ConnectionError("the server closed the connection")
