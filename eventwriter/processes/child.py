"""A child process: what runs in it, how it is forked, and how it ends."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from eventwriter.errors import INTERNAL, OK, UNAVAILABLE, EventWriterError
from eventwriter.processes import room
from eventwriter.processes.process import die_with_parent, set_title
from eventwriter.processes.signals import reset_signals

logger = logging.getLogger("eventwriter.supervisor")


@dataclass(frozen=True, slots=True)
class Child:
    """What runs in one process."""

    name: str
    """Unique, such as ``LOGS`` or ``LOGS/2``; shown in the process title and in the log."""
    run: Callable[[], int]
    """Called in the forked process, whose exit status it returns. It ends by os._exit: no atexit function runs."""
    settings: object = None
    """What the process depends on: after a reload it is restarted only if this is no longer equal."""
    essential: bool = True
    """Whether the service has a purpose without it: it ends when all that are essential are parked for good."""
    passing: Callable[[], bool] | None = None
    """Asked when it parks: whether what stopped it may be over though its settings stay; if not, it is for good."""
    drain_timeout: float | None = None
    """Seconds that its process has to end when told to, by the settings it was started with; None: as the service."""


def fork(child: Child) -> int:
    """Starts it; returns its pid, in the parent alone. Raises OSError."""
    parent = os.getpid()
    _flush()
    pid = os.fork()
    if not pid:
        _live(child, parent)
    return pid


def how(status: int) -> str:
    """An exit status, or a negative signal number, in words."""
    return f"exit status {status}" if status >= 0 else f"signal {-status} ({signal.strsignal(-status)})"


def _flush() -> None:
    """Empties the buffers of standard output and error; what stays in them at a fork would be written twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, broken, closed
            stream.flush()


def _live(child: Child, parent: int) -> NoReturn:
    """The whole life of a forked child: never returns into the parent's loop."""
    status = INTERNAL
    try:
        # A session of its own: Ctrl-C reaches the supervisor alone, which passes on one SIGTERM, not a second signal.
        os.setsid()
        die_with_parent(signal.SIGTERM, parent)
        reset_signals()
        set_title(f"eventwriter: worker {child.name}")
        status = int(child.run())
    except EventWriterError as error:
        logger.error("%s", error, extra={"stream": child.name})
        status = error.exit_code
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else OK if error.code is None else INTERNAL
        if status == INTERNAL:
            logger.error("%s", error, extra={"stream": child.name})
    except BaseException as error:
        if told := room.explained(error):
            status = UNAVAILABLE
            logger.error("%s", told, extra={"stream": child.name})
        else:
            logger.exception("uncaught exception", extra={"stream": child.name})
    finally:
        _flush()
        os._exit(status)
