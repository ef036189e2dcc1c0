"""What systemd is told."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from eventwriter.processes.systemd import Notifier
from fix_service import World


def test_without_systemd_nothing_happens() -> None:
    """No socket, no period, no error; nor with one that nobody listens on."""
    Notifier({}).send("READY=1")
    assert Notifier({"WATCHDOG_USEC": "1000000"}).period is None
    Notifier({"NOTIFY_SOCKET": "/nonexistent"}).send("READY=1")


def test_abstract_sockets_are_addressed(tmp_path: Path) -> None:
    """A leading @ means Linux's abstract namespace."""
    name = f"eventwriter-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send("READY=1")
        assert listener.recv(100) == b"READY=1"


def test_systemd_is_told_ready_alive_and_stopping(world: World, tmp_path: Path) -> None:
    """READY=1 once the workers are started, WATCHDOG=1 in time, STOPPING=1 at the end."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(path))
        listener.settimeout(10)
        service = world.start(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="1500000")
        assert listener.recv(100) == b"READY=1"
        for _ in range(3):
            assert listener.recv(100) == b"WATCHDOG=1"
        assert world.stop(service) == 0
        said = set()
        while b"STOPPING=1" not in said:
            said.add(listener.recv(100))
