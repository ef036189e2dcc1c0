"""Another host, for tests: a network of its own, joined to this machine's by a cable that can be pulled.

That needs root, who may make network namespaces; they end with us. Elsewhere it is behind proxies that fall silent.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from eventwriter.processes.process import die_with_parent
from proxy import Proxy

_numbers = itertools.count()


class Host:
    """A host with an address, whose processes ``command`` starts; ``here`` is where it finds us."""

    def __init__(self) -> None:
        # Several runs may be at work on this machine: each takes a network of its own within 10.192.0.0/10.
        number = (os.getpid() * 8 + next(_numbers) % 8) % (1 << 20)
        network = (10 << 24) + (3 << 22) + number * 4
        self.here, self.there = (_address(network + host) for host in (1, 2))
        self._cable = f"ew{number}"
        self._holder: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def _start(self) -> None:
        parent = os.getpid()
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sleep", "infinity"],
            stderr=subprocess.DEVNULL,
            preexec_fn=lambda: die_with_parent(signal.SIGKILL, parent),
        )
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self._holder.pid}/ns/net") == ours:
            if self._holder.poll() is not None or time.monotonic() > deadline:
                raise OSError("no network namespace can be made here")
            time.sleep(0.01)
        far = f"{self._cable}b"
        _run("ip", "link", "add", self._cable, "type", "veth", "peer", "name", far, "netns", str(self._holder.pid))
        _run("ip", "address", "add", f"{self.here}/30", "dev", self._cable)
        _run("ip", "link", "set", self._cable, "up")
        _run(*self.command("ip", "address", "add", f"{self.there}/30", "dev", far))
        _run(*self.command("ip", "link", "set", "lo", "up"))
        self.join()

    def _end(self) -> None:
        if self._holder is not None:
            subprocess.run(["ip", "link", "delete", self._cable], capture_output=True, check=False)
            self._holder.kill()
            self._holder.wait()

    def command(self, *command: str) -> list[str]:
        """How to start a command there."""
        assert self._holder is not None
        return ["nsenter", "--net", "--target", str(self._holder.pid), "--", *command]

    def cut(self) -> None:
        """Pulls the cable: no connection ends, and nothing comes through any more."""
        _run(*self.command("ip", "link", "set", f"{self._cable}b", "down"))

    def join(self) -> None:
        """Plugs it in again."""
        _run(*self.command("ip", "link", "set", f"{self._cable}b", "up"))


def possible() -> bool:
    """Whether this process may make one."""
    try:
        with Host():
            return True
    except OSError:
        return False


@dataclass
class Far:
    """What a service on another host needs to know, and its cable."""

    address: str
    """Where it finds NATS and PostgreSQL."""
    nats: int
    postgres: int
    cut: Callable[[], None]
    join: Callable[[], None]
    prefix: list[str] = field(default_factory=list)
    """What starts a command there."""


def settings_for(host: Host | None, folder: Path) -> dict[str, str]:
    """Settings with which PostgreSQL takes connections from that host; ``folder`` is to be readable for it."""
    if host is None:
        return {}
    hba = folder / "hba.conf"
    hba.write_text("host all all 0.0.0.0/0 trust\nhost replication all 127.0.0.1/32 trust\n")
    hba.chmod(0o644)
    return {"listen_addresses": f"127.0.0.1,{host.here}", "hba_file": str(hba)}


@contextmanager
def joined(host: Host | None, nats: int, postgres: int) -> Iterator[Far]:
    """Another host for servers on these ports: ``host``, or, where there can be none, proxies that fall silent.

    A silent proxy is the harder case: PostgreSQL's own keepalives are answered all the time.
    """
    if host is not None:
        with Proxy(nats, host.here) as to_nats:  # PostgreSQL is reached directly
            yield Far(host.here, to_nats.port, postgres, host.cut, host.join, host.command())
        return
    with Proxy(nats) as to_nats, Proxy(postgres) as to_postgres:
        proxies = to_nats, to_postgres

        def cut() -> None:
            for proxy in proxies:
                proxy.stall()

        def join() -> None:
            for proxy in proxies:
                proxy.cut()
                proxy.resume()

        yield Far("127.0.0.1", to_nats.port, to_postgres.port, cut, join)


def _address(number: int) -> str:
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
