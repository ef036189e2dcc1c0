"""The service as a process among others: whatever its standard error is, and whoever sends it signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import forkserver
from eventwriter.embedded import PostgresServer
from fix_service import ROOT, World, new_world, only, wait_until
from patience import PATIENCE
from processes import Process


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """Servers for all that is done here."""
    with new_world(tmp_path_factory.mktemp("process"), postgres_server, template) as world:
        yield world


def fill(end: int) -> None:
    """Writes until there is room for nothing more."""
    os.set_blocking(end, False)
    try:
        while os.write(end, b"." * 4096):
            pass
    except BlockingIOError:
        os.set_blocking(end, True)


@pytest.fixture(params=["pipe", "socket", "broken pipe", "full disk"])
def stderr(request: pytest.FixtureRequest) -> Iterator[int]:
    """A standard error that takes nothing."""
    if request.param == "socket":
        reader, writer = socket.socketpair()
        kept = [reader.detach(), writer.detach()]
    elif request.param == "full disk":
        kept = [os.open("/dev/full", os.O_WRONLY)]
    else:
        kept = [*os.pipe()]
    if request.param == "broken pipe":
        os.close(kept.pop(0))
    elif request.param != "full disk":
        fill(kept[-1])
    yield kept[-1]
    for end in kept:
        os.close(end)


def environment(world: World) -> dict[str, str]:
    told = {"EVENTWRITER_POSTGRES__DSN": world.writer, "EVENTWRITER_LOG__LEVEL": "debug"}
    return world.environment | only("LOGS") | told


def works(world: World, process: Process) -> None:
    """It writes, hears what it is told, ignores what it is not, and ends in order."""
    world.traffic(["LOGS"], count=20)
    world.wait_settled()
    service = psutil.Process(process.pid)
    family = {service, *service.children(recursive=True)}
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP):
        for each in family:
            each.send_signal(number)
    world.traffic(["LOGS"], count=20)
    world.wait_settled()
    assert {service, *service.children(recursive=True)} == family, "all are those that they were"
    assert world.stop(process) == 0
    world.assert_exact()


def test_nobody_reads_its_standard_error(shared: World, stderr: int, tmp_path: Path) -> None:
    """A pipe that is full, a reader who is gone: it writes on, and signals are heard. SIGUSR1 and 2 mean nothing."""
    with os.fdopen(os.dup(stderr), "wb") as theirs, (tmp_path / "out").open("wb") as out:
        process = forkserver.started(["supervise"], environment(shared), out, theirs)
    shared.services.append(process)
    works(shared, process)


def test_its_standard_streams_are_closed(shared: World) -> None:
    """What is opened next would get their numbers."""
    command = ["sh", "-c", 'exec "$0" -m eventwriter supervise <&- >&- 2>&-', sys.executable]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(shared))
    shared.services.append(process)
    wait_until(lambda: shared.worker("LOGS"), "a worker")
    for each in psutil.Process(process.pid).children():
        assert {os.readlink(f"/proc/{each.pid}/fd/{fd}") for fd in (0, 1, 2)} == {os.devnull}
    works(shared, process)


def test_commands_without_standard_streams() -> None:
    """They end as they would."""
    for command, status in (("config show", 0), ("decode --stream NONE", 64)):
        script = f'exec "$0" -m eventwriter {command} <&- >&- 2>&-'
        done = subprocess.run(["sh", "-c", script, sys.executable], cwd=ROOT, check=False, timeout=30 * PATIENCE)
        assert done.returncode == status
