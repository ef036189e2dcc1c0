"""Processes that tests start."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import AnyStr

import psutil


def end(process: subprocess.Popen[AnyStr]) -> None:
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
