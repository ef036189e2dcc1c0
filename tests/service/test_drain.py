"""SIGTERM at any moment under load: always a clean end, nothing lost, nothing twice, nobody left."""

from __future__ import annotations

import os
import random
import threading
import time
from functools import partial

import psutil

from fix_service import STREAMS, World, wait_until

ROUNDS = int(os.environ.get("ROUNDS", "6"))


def is_up(process: psutil.Process) -> bool:
    """Whether the supervisor has taken over its process."""
    return " ".join(process.cmdline()).strip() == "eventwriter: supervisor"


def test_sigterm_at_random_moments(world: World) -> None:
    """From the first instant of the service to the middle of a backlog."""
    rng = random.Random(4)
    stop = threading.Event()
    failures: list[Exception] = []

    def publish() -> None:
        number = 0
        try:
            while not stop.is_set():
                world.traffic(STREAMS, count=10, seed=number)
                number += 1
                stop.wait(0.2)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        for _ in range(ROUNDS):
            service = world.start()
            supervisor = psutil.Process(service.pid)
            # Before that it is the interpreter that starts, and a signal ends it as it ends any process.
            wait_until(partial(is_up, supervisor), "the service")
            time.sleep(rng.choice((0.0, 0.3, 0.6, 0.9, 1.5, 2.5)) * rng.random())
            running = supervisor.children(recursive=True)
            assert world.stop(service) == 0, world.log[-3000:]
            assert not [process for process in running if process.is_running()]
    finally:
        stop.set()
        thread.join()
    assert not failures
    world.start()
    world.wait_settled(90)
    world.assert_exact()
