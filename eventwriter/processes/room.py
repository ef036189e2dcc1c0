"""How many processes and threads there may be: a limit that is too small is told, once, as what it is."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from eventwriter.errors import ConfigurationError

_FULL = "can't start new thread"
"""CPython's words, of a RuntimeError like any other."""


class Limit(NamedTuple):
    """A number of processes and threads, and what sets it."""

    most: int
    name: str


def least(proc: Path = Path("/proc/self"), sys: Path = Path("/sys/fs/cgroup")) -> Limit | None:
    """The smallest of the limits that hold for this process; None if there are none."""
    return min(_limits(proc, sys), default=None)


def check(needed: int) -> None:
    """Raises ConfigurationError if there cannot be as many, whatever else runs."""
    limit = least()
    if limit is not None and limit.most < needed:
        raise ConfigurationError(
            f"{limit.most} processes and threads are too few, {needed} are needed: raise {limit.name} "
            "(TasksMax of systemd, --pids-limit of docker, podPidsLimit of Kubernetes), or enable fewer streams"
        )


def explained(error: BaseException) -> str:
    """That there is no room for one more process or thread, if that is what the error says; otherwise empty."""
    threads = isinstance(error, RuntimeError) and _FULL in str(error)
    if not threads and not (isinstance(error, OSError) and error.errno == errno.EAGAIN):
        return ""
    limit = least()
    reached = f", {limit.most} by {limit.name}" if limit else ""
    return f"there is no room for one more process or thread: a limit is reached{reached}"


def _limits(proc: Path, sys: Path) -> Iterator[Limit]:
    if os.geteuid():  # it does not hold for root
        most, _ = resource.getrlimit(resource.RLIMIT_NPROC)
        if most != resource.RLIM_INFINITY:
            yield Limit(most, "ulimit -u, for all that this user runs")
    try:
        groups = (proc / "cgroup").read_text().splitlines()
    except OSError:
        return
    for group in groups:
        _, controllers, path = group.split(":", 2)
        if controllers in ("", "pids"):  # all of version 2, or that of version 1
            folder = sys / controllers
            for each in (folder / path.strip("/"), *(folder / path.strip("/")).parents):
                if each.is_relative_to(folder):
                    yield from _of_group(each / "pids.max")


def _of_group(file: Path) -> Iterator[Limit]:
    try:
        yield Limit(int(file.read_text()), f"pids.max of the control group, {file}")
    except (OSError, ValueError):  # none there, or "max"
        return
