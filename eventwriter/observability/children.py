"""What the supervisor knows of its children, noted for the monitor; and the end of those that stall."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from msgspec.structs import replace

from eventwriter.observability.board import SUPERVISOR, Board, Slot
from eventwriter.observability.states import Beat, ChildState, SupervisorState
from eventwriter.terminal import one_line

log = logging.getLogger("eventwriter.supervisor")

AWAKE = 1.0
"""Seconds that one look counts for at most; they are that far apart, unless the supervisor was kept from looking."""


_ERROR = 500
"""Characters of what is wrong with the settings."""


class Children:
    """Observes the supervisor: notes each child on the board, and kills those that give no sign of life.

    For how long a child was silent is counted in the time that the supervisor was at work itself. While it was stopped,
    its container frozen or the machine overloaded, so may its children have been: that time counts for nobody.
    """

    def __init__(self, slot: Slot, clock: Callable[[], float] = time.monotonic) -> None:
        self._slot = slot
        self._clock = clock
        self._state = SupervisorState(name=SUPERVISOR, started=time.time(), beat=clock(), since=clock())
        self._looked = clock()
        self._awake = 0.0
        self._beats: dict[str, float] = {}
        self._alive: dict[str, float] = {}
        """For how long we had been awake when a child's last sign of life was new."""
        self.stall_timeouts: dict[str, float] = {}

    def started(self, name: str, pid: int) -> None:
        """A process was forked."""
        self._alive[name] = self._awake
        child = self._child(name)
        child.state, child.pid, child.since, child.why = "running", pid, self._clock(), ""
        self._write()

    def exited(self, name: str, status: int) -> None:
        """A process ended."""
        child = self._child(name)
        child.state, child.pid, child.status = "draining", 0, status
        self._write()

    def restarting(self, name: str, delay: float) -> None:
        """It will be started again."""
        child = self._child(name)
        child.state = "restarting"
        child.restarts += 1
        self._write()

    def parked(self, name: str, status: int) -> None:
        """It will be started now and then, to look whether what stopped it is over."""
        self._child(name).state = "parked"
        self._write()

    def reloaded(self, error: str) -> None:
        """The settings were read again; why they stay as they are, if they were wrong."""
        self._state.config_error = one_line(error)[:_ERROR]
        self._write()

    def stopping(self) -> None:
        """The service was told to end."""
        self._state.stopping = True
        self._write()

    def kill_stalled(self, board: Board) -> None:
        """SIGKILL for workers that were silent for longer than their stall_timeout. A sign of life of its own."""
        beats = {state.name: state.beat for state in board.read(Beat)}
        now = self._clock()
        self._awake += min(now - self._looked, AWAKE)
        self._looked = now
        for name, timeout in self.stall_timeouts.items():
            if beats.get(name) != self._beats.get(name):
                self._beats[name] = beats[name]
                self._alive[name] = self._awake
            child = self._state.children.get(name, ChildState())
            silence = self._awake - self._alive.get(name, self._awake)
            if child.pid and silence > timeout:
                why = f"stalled: no sign of life for {silence:.0f} s"
                log.error("%s, killing pid %d", why, child.pid, extra={"stream": name})
                self._alive[name] = self._awake
                child.why = f"{why}, killed"
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child.pid, signal.SIGKILL)
        self._write()

    def _child(self, name: str) -> ChildState:
        return self._state.children.setdefault(name, ChildState())

    def _write(self) -> None:
        self._state.beat = self._clock()
        if self._slot.write(self._state):
            return
        for child in sorted(self._state.children.values(), key=lambda child: child.since or 0.0):
            if child.why:
                child.why = ""  # the least of what is told, and the oldest of that
                if self._slot.write(self._state):
                    return
        self._slot.write(replace(self._state, children={}))  # whoever counts the beats counts on them
