"""Where tests write: into memory where there is room for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

ROOM = 6 * 2**30
"""Bytes that must be free: a run with eight processes takes two or three gigabytes."""


def use_memory(folder: Path = Path("/dev/shm")) -> None:
    """Makes ``folder`` the one for temporary files, for all that is started from here too, unless TMPDIR names another.

    A server is a thousand files, and so is a database: on a disk, to create them takes most of the time of many tests.
    """
    if "TMPDIR" in os.environ or not os.access(folder, os.W_OK | os.X_OK):
        return
    found = os.statvfs(folder)
    free = min(found.f_bavail * found.f_frsize, psutil.virtual_memory().available)
    if free >= ROOM and not found.f_flag & os.ST_NOEXEC:
        os.environ["TMPDIR"] = str(folder)
        tempfile.tempdir = None
