"""What a process asks of the operating system about itself: to end with its parent, and its title."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys

import setproctitle

_PR_SET_PDEATHSIG = 1


def die_with_parent(sig: int = signal.SIGTERM, parent: int | None = None) -> None:
    """Asks the kernel to send this process ``sig`` when its parent ends (prctl(2), PR_SET_PDEATHSIG; Linux only).

    It follows the *thread* that forked. With ``parent``, the pid that forked us, a parent that is gone already
    means the same: the process ends here. Compared with the saved pid, since under a subreaper it is not 1.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(sig), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(128 + int(sig))


def settle() -> None:
    """What every command begins with, whoever starts it and however: standard streams, and no end by accident.

    SIGUSR1 and SIGUSR2 mean nothing to us, and are ignored, also by what is forked: by default they end a process.
    As PID 1, of a container, SIGTERM ends it as it ends others: the kernel drops what PID 1 does not handle.
    """
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what its encoding lacks is shown as an escape
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if os.getpid() == 1:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))


def open_standard_streams() -> None:
    """Makes sure of standard input, output and error: one that is closed (``2>&-``) is /dev/null from here on.

    Otherwise Python has None in its place, and what is opened next gets its number: a socket on which C libraries,
    and each child, would write their errors.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, "r" if fd == 0 else "w", encoding="utf-8", closefd=False))  # noqa: SIM115


def set_title(title: str) -> None:
    """Sets what ``ps`` shows."""
    setproctitle.setproctitle(title)


def look(pid: int) -> tuple[str, int]:
    """The state letter and the resident bytes of a process, as /proc tells them."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[21]) * 4096
    except (OSError, IndexError, ValueError):
        return "", 0
