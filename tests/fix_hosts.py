"""A second host, whose network can be cut as a power failure or a pulled cable does: nobody is told."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Host:
    """A network namespace, joined to this one by a cable."""

    name: str
    here: str
    """Our address, as the host sees it."""
    there: str
    """Its own."""

    def command(self, *arguments: str) -> list[str]:
        """What runs a command on that host."""
        return ["ip", "netns", "exec", self.name, *arguments]

    def cut(self) -> None:
        """Pulls its end of the cable."""
        _ip("-n", self.name, "link", "set", "cable", "down")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=10)


@contextmanager
def second_host() -> Iterator[Host]:
    """The host while it exists; where network namespaces cannot be had, the test is skipped."""
    number = os.getpid() % 16384
    network = f"10.{200 + number // 4096}.{number // 16 % 256}.{number % 16 * 4}".rsplit(".", 1)
    host = Host(f"eventwriter{number}", *(f"{network[0]}.{int(network[1]) + n}" for n in (1, 2)))
    ours = f"ew{number}"
    try:
        _ip("netns", "add", host.name)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"no network namespace: {getattr(error, 'stderr', '') or error}")
    try:
        try:
            _ip("link", "add", ours, "type", "veth", "peer", "name", "cable", "netns", host.name)
        except subprocess.SubprocessError as error:
            pytest.skip(f"no virtual cable: {getattr(error, 'stderr', '') or error}")
        _ip("addr", "add", f"{host.here}/30", "dev", ours)
        _ip("link", "set", ours, "up")
        _ip("-n", host.name, "addr", "add", f"{host.there}/30", "dev", "cable")
        _ip("-n", host.name, "link", "set", "cable", "up")
        yield host
    finally:
        subprocess.run(["ip", "netns", "delete", host.name], check=False, timeout=10)
