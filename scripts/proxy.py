"""A TCP proxy that misbehaves on demand: stalls, delays, cuts, or loses the answer to a COMMIT."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from types import TracebackType
from typing import Literal, Self

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: the peer gets a reset, not an orderly end."""


class _Link:
    """One client's connection with the one it stands for."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.answer_lost: bytes | None = None
        """What the client gets instead of the next answer."""

    def cut(self) -> None:
        """Resets both ends."""
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                end.close()


class Proxy:
    """Listens on a port of ``address`` and forwards to ``target``, a port of 127.0.0.1; a context manager."""

    def __init__(self, target: int, address: str = "127.0.0.1") -> None:
        self.target = target
        self.address = address
        self.port = 0
        self.delay = 0.0
        """Seconds that every piece waits before it is forwarded."""
        self.connections = 0
        """Accepted so far."""
        self.sent = 0
        """Pieces that clients sent, nearly one a round trip for protocols that ask and wait."""
        self.heard: bytearray | None = None
        """Everything that clients send, from when this is a bytearray."""
        self._flowing = threading.Event()
        self._flowing.set()
        self._trap: tuple[bytes, Literal["before", "after", "hold"], bytes] | None = None
        self._sprung = threading.Event()
        self._links: set[_Link] = set()
        self._listener: socket.socket | None = None
        self._kept: socket.socket | None = None
        """Bound to the port while it refuses."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        if self._kept is not None:
            self._kept.close()

    def start(self) -> None:
        """Accepts connections, on the same port as before."""
        listener = socket.create_server((self.address, self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        if self._kept is not None:
            self._kept.close()
            self._kept = None
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections and cuts those there are; nobody else gets the port meanwhile."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
            self._kept = socket.socket()
            self._kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):  # then it is as good as nothing
                self._kept.bind((self.address, self.port))
        self._flowing.set()
        self.cut()

    def stall(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._flowing.clear()

    def resume(self) -> None:
        """Lets through what has waited since ``stall``."""
        self._flowing.set()

    def cut(self) -> None:
        """Resets all connections; new ones are accepted."""
        for link in list(self._links):
            link.cut()

    def half_close(self) -> None:
        """Clients see the end of what the server says and may go on talking to it."""
        for link in list(self._links):
            with contextlib.suppress(OSError):
                link.client.shutdown(socket.SHUT_WR)

    def lose(self, needle: bytes, when: Literal["before", "after"], words: bytes = b"") -> None:
        """The next piece with ``needle`` ends its connection: unsent, or once the server has answered it.

        Instead of the answer the client gets the last ``words``, and then an orderly end.
        """
        self._sprung.clear()
        self._trap = needle, when, words

    def hold(self, needle: bytes) -> None:
        """The next piece with ``needle`` is the last that comes through, and nobody is told."""
        self._sprung.clear()
        self._trap = needle, "hold", b""

    def lost(self, seconds: float) -> bool:
        """Whether what ``lose`` or ``hold`` asks for happens within this time."""
        return self._sprung.wait(seconds)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._flowing.wait()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), 5.0)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        self._links.add(link)
        self.connections += 1
        threading.Thread(target=self._pump, args=(link, server, client), daemon=True).start()
        self._pump(link, client, server)

    def _pump(self, link: _Link, source: socket.socket, sink: socket.socket) -> None:
        try:
            while piece := source.recv(65536):
                if not self._flowing.is_set():
                    self._flowing.wait()
                if self.delay:
                    time.sleep(self.delay)
                if source is link.client:
                    self.sent += 1
                    if self.heard is not None:
                        self.heard += piece
                    if self._springs(link, piece):
                        break
                elif link.answer_lost is not None:
                    self._end(link, link.answer_lost)
                    break
                sink.sendall(piece)
        except OSError:
            pass
        finally:
            link.cut()
            self._links.discard(link)

    def _springs(self, link: _Link, piece: bytes) -> bool:
        """Whether this piece ends the connection unsent."""
        trap = self._trap
        if trap is None or trap[0] not in piece:
            return False
        self._trap = None
        if trap[1] == "after":
            link.answer_lost = trap[2]
            return False
        if trap[1] == "hold":
            self.stall()
            self._sprung.set()
            return False
        self._end(link, trap[2])
        return True

    def _end(self, link: _Link, words: bytes) -> None:
        self._sprung.set()
        if words:
            link.client.sendall(words)
            link.client.shutdown(socket.SHUT_WR)
            link.client.settimeout(5.0)
            while link.client.recv(65536):  # a reset could overtake the words
                pass
