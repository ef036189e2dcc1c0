"""Pauses of the whole service, as by a container that is frozen, a debugger or Ctrl-Z: they change nothing."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import psutil

from beside import beside
from eventwriter.embedded import free_port
from eventwriter.observability.monitor import DEAD
from fix_monitor import Endpoint
from fix_service import World, wait_until
from patience import PATIENCE

STALL_TIMEOUT = 3.0


def freeze(processes: list[psutil.Process], seconds: float) -> None:
    """Stops them all, for so long; they wake in their order."""
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    for process in processes:
        process.send_signal(signal.SIGCONT)


@contextmanager
def asked(endpoint: Endpoint) -> Iterator[list[str]]:
    """Asks all the time whether the service is alive and ready, however long it takes to answer: what said no."""
    refused: list[str] = []

    def ask(ended: threading.Event) -> None:
        while not ended.wait(0.05):
            for path in ("/livez", "/readyz"):
                try:
                    status, text = endpoint.get(path, timeout=60)
                except ConnectionResetError:  # it slept for longer than who asks is given
                    continue
                if status != 200 and "(SIGSTOP)" not in text:  # of those that wake after the monitor, that is true
                    refused.append(text)

    with beside(ask):
        yield refused
        time.sleep(0.5)


def later(endpoint: Endpoint, than: float) -> bool:
    """Whether the service is alive and says that it is later than that."""
    return endpoint.answers("/livez", 200) and endpoint.status()["now"] > than


def test_a_frozen_service_goes_on_where_it_was(world: World) -> None:
    """For longer than stall_timeout the supervisor, then everybody: the same processes write what came meanwhile.

    Who asks is told of no stall, from the first answer on. A worker that was killed meanwhile is back, a stop that was
    sent meanwhile drains.
    """
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(
        EVENTWRITER_HTTP__LISTEN=endpoint.address,
        EVENTWRITER_WRITER__STALL_TIMEOUT=f"{STALL_TIMEOUT}s",
        EVENTWRITER_POSTGRES__STATEMENT_TIMEOUT="2s",
    )
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness")
    supervisor = psutil.Process(service.pid)
    before = supervisor.children()
    others = sorted(before, key=lambda child: "monitor" not in " ".join(child.cmdline()))
    for frozen, seconds in (([supervisor], 2 * STALL_TIMEOUT), ([*others, supervisor], DEAD + 1)):
        with asked(endpoint) as refused:
            freeze(frozen, seconds)
        assert refused == []
        world.traffic(count=20)
        world.wait_settled()
        wait_until(partial(endpoint.answers, "/readyz", 200), "readiness afterwards", 10)
        wait_until(partial(later, endpoint, time.time() + 2), "two looks of the watchdog")
        assert supervisor.children() == before
    assert "stalled" not in world.log
    assert all(stream["restarts"] == 0 for stream in endpoint.status()["streams"].values())

    victim = world.worker("LOGS")
    assert victim is not None
    supervisor.suspend()
    victim.kill()
    supervisor.resume()
    wait_until(lambda: endpoint.value("worker_restarts_total", stream="LOGS") == 1, "the restart")
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness again")
    supervisor.suspend()
    supervisor.terminate()
    supervisor.resume()
    assert service.wait(35 * PATIENCE) == 0
    world.assert_exact()
