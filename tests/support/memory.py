"""Where tests write: into memory where there is room for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

ROOM = 6 * 2**30
"""Bytes that must be free: a run with eight processes takes two or three gigabytes."""


def use_memory(memory: Path = Path("/dev/shm")) -> None:
    """Puts temporary files below ``memory``, those of all that is started from here too, unless TMPDIR says where.

    A server is a thousand files, and so is a database: on a disk, to create them takes most of the time of many tests.
    """
    if "TMPDIR" in os.environ or not os.access(memory, os.W_OK | os.X_OK):
        return
    found = os.statvfs(memory)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    if free >= ROOM and not found.f_flag & os.ST_NOEXEC:
        folder = memory / "eventwriter-tests"  # one alone, for tests look at what services leave beside it
        if not folder.exists():
            folder.mkdir(exist_ok=True)
            folder.chmod(0o1777)
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
