"""The place of one child: its process, when it is started again, and until when it may drain."""

from __future__ import annotations

import logging
import os
import random
import signal
from dataclasses import dataclass
from typing import Protocol

from eventwriter.errors import OK, UNAVAILABLE
from eventwriter.processes import room
from eventwriter.processes.backoff import Backoff
from eventwriter.processes.child import Child, fork, how

logger = logging.getLogger("eventwriter.supervisor")

AS_TOLD = (OK, -signal.SIGTERM)
"""How a child ends that drained, or had nothing in hand: then it had no handler yet."""

_LOOK = 10.0
"""Seconds that a parked child takes at most to find out that what stopped it is not over."""


class Observer(Protocol):
    """Is told what becomes of the children, in the supervisor's loop: must not block and must not raise.

    A status is an exit status, or the negative number of the signal that ended the process.
    """

    def started(self, name: str, pid: int) -> None: ...
    def exited(self, name: str, status: int) -> None: ...
    def restarting(self, name: str, delay: float) -> None: ...
    def parked(self, name: str, status: int) -> None: ...


class Nobody:
    """Observes nothing."""

    def started(self, name: str, pid: int) -> None: ...
    def exited(self, name: str, status: int) -> None: ...
    def restarting(self, name: str, delay: float) -> None: ...
    def parked(self, name: str, status: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How soon children are started again, in seconds."""

    stable_after: float = 60.0
    """For how long a child has to run until its failures are forgotten."""
    restart_initial: float = 0.25
    restart_maximum: float = 30.0
    look_initial: float = 5.0
    """Between two tries of a parked child."""
    look_maximum: float = 60.0


class Slot:
    """One name, from when it is wanted until its last process is reaped.

    Running (pid), draining (pid, due), waiting to start (due), or parked.
    """

    def __init__(self, child: Child, pace: Pace, observer: Observer, rng: random.Random, due: float) -> None:
        self.name = child.name
        self.child: Child | None = child
        """What to start next; None: nothing, the name goes when its process has ended."""
        self.due: float | None = due
        """When to start, or for a running process when to kill it."""
        self.pid = 0
        self.draining = False
        self.parked: int | None = None
        self.waits = False
        """Whether a parked one keeps the service: what stopped it may be over though its settings stay."""
        self._drain_timeout: float | None = None
        self._since = 0.0
        self._last: int | None = None
        """How its last process ended."""
        self._again = False
        """Whether that was nothing new: what it needs is away still. Told once, it is for the child to tell of it."""
        self._stable = pace.stable_after
        self._observer = observer
        self._extra = {"stream": child.name}
        self._restarts = Backoff(pace.restart_initial, pace.restart_maximum, reset_after=pace.stable_after, rng=rng)
        # What ran for longer than a look takes has worked, and stops for something new.
        self._looks = Backoff(pace.look_initial, pace.look_maximum, reset_after=min(_LOOK, pace.stable_after), rng=rng)

    def start(self, child: Child, now: float) -> None:
        """Forks the child; a fork that fails counts as a child that died."""
        try:
            pid = fork(child)
        except OSError as error:
            logger.error("cannot fork: %s", room.explained(error) or error, extra=self._extra)
            self.retry(now)
            return
        self.pid, self._since, self.due, self.parked = pid, now, None, None
        self._drain_timeout = child.drain_timeout
        self._restarts.succeeded(now)
        self._looks.succeeded(now)
        logger.log(
            logging.DEBUG if self._last == UNAVAILABLE else logging.INFO, "started, pid %d", pid, extra=self._extra
        )
        self._observer.started(self.name, pid)

    def drain(self, now: float, timeout: float) -> None:
        """The process was told to end: it is killed after so many seconds, if it has no deadline of its own."""
        timeout = timeout if self._drain_timeout is None else self._drain_timeout
        self.draining, self.due = True, now + timeout
        logger.info("draining, pid %d, %g s left", self.pid, timeout, extra=self._extra)

    def kill(self) -> None:
        """Ends a process that did not end by itself."""
        self.due = None
        os.kill(self.pid, signal.SIGKILL)
        logger.warning("killed: did not drain in time, pid %d", self.pid, extra=self._extra)

    def exited(self, status: int, now: float) -> None:
        """The process was reaped."""
        lasted = now - self._since
        self._again = status == self._last == UNAVAILABLE and lasted < self._stable
        told = logging.INFO if self.draining and status in AS_TOLD else logging.WARNING
        level = logging.DEBUG if self._again else told
        logger.log(level, "exited after %.1f s: %s", lasted, how(status), extra=self._extra)
        self.pid, self.due, self._last = 0, None, status
        self._observer.exited(self.name, status)

    def retry(self, now: float) -> None:
        """Schedules the next start of a child that failed."""
        delay = self._restarts.failed(now)
        self.due = now + delay
        level = logging.DEBUG if self._again else logging.WARNING
        logger.log(level, "restarting in %.2f s", delay, extra=self._extra)
        self._observer.restarting(self.name, delay)

    def look(self, now: float) -> None:
        """Somebody has told that something changed: one that is parked looks now."""
        if self.parked is not None:
            self.due = now

    def park(self, child: Child, status: int, now: float) -> None:
        """Leaves a child alone until it is time to look whether what stopped it is over."""
        self.parked = status
        self.waits = child.passing is not None and child.passing()
        delay = self._looks.failed(now)
        self.due = now + delay
        logger.error("parked: exit status %d, looking again in %.3g s", status, delay, extra=self._extra)
        self._observer.parked(self.name, status)
