"""What a process asks of the operating system about itself: to end with its parent, and its title."""

from __future__ import annotations

import ctypes
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


def set_title(title: str) -> None:
    """Sets what ``ps`` shows."""
    setproctitle.setproctitle(title)
