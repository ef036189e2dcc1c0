"""Processes that tests start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import AnyStr, Protocol

import psutil


class Process(Protocol):
    """What subprocess.Popen has, and Forked too."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


def end(process: Process) -> None:
    """Kills a process and its children if it runs: whatever a failed test leaves behind disturbs the next one."""
    if process.poll() is None:
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.wait()
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.kill()


@contextmanager
def ending(process: subprocess.Popen[AnyStr]) -> Iterator[subprocess.Popen[AnyStr]]:
    """A process that does not outlive the block."""
    with process:
        try:
            yield process
        finally:
            end(process)
