"""Tells systemd how the service is (sd_notify(3)): ready, stopping, still alive. Without systemd it does nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the socket that NOTIFY_SOCKET names, each through one of its own: a child inherits none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        usec = environ.get("WATCHDOG_USEC", "")
        self.period: float | None = int(usec) / 1e6 / 3 if self._address and usec.isdecimal() and int(usec) else None
        """Seconds between signs of life, a third of what systemd waits; None if it does not wait for any."""

    def send(self, state: str) -> None:
        """Sends one state, such as ``READY=1``; a manager that is gone is no error."""
        if not self._address:
            return
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out,
        ):
            out.sendto(state.encode(), address)
