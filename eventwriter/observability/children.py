"""What the supervisor knows of its children, noted for the monitor; and the end of those that stall."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from eventwriter.observability.board import SUPERVISOR, Board, Slot

log = logging.getLogger("eventwriter.supervisor")

AWAKE = 1.0
"""Seconds that one look counts for at most; they are that far apart, unless the supervisor was kept from looking."""


class Children:
    """Observes the supervisor: notes each child on the board, and kills those that give no sign of life.

    For how long a child was silent is counted in the time that the supervisor was at work itself. While it was stopped,
    its container frozen or the machine overloaded, so may its children have been: that time counts for nobody.
    """

    def __init__(self, slot: Slot, clock: Callable[[], float] = time.monotonic) -> None:
        self._slot = slot
        self._clock = clock
        self._children: dict[str, dict[str, Any]] = {}
        self._looked = clock()
        self._awake = 0.0
        self._beats: dict[str, float] = {}
        self._alive: dict[str, float] = {}
        """For how long we had been awake when a child's last sign of life was new."""
        self._started = time.time()
        self.stall_timeouts: dict[str, float] = {}

    def started(self, name: str, pid: int) -> None:
        """A process was forked."""
        self._alive[name] = self._awake
        self._note(name, state="running", pid=pid, since=time.time(), why="")

    def exited(self, name: str, status: int) -> None:
        """A process ended."""
        self._note(name, state="draining", pid=0, status=status)

    def restarting(self, name: str, delay: float) -> None:
        """It will be started again."""
        self._note(name, state="restarting", restarts=self._children.get(name, {}).get("restarts", 0) + 1)

    def parked(self, name: str, status: int) -> None:
        """It will not be started again before a reload."""
        self._note(name, state="parked")

    def kill_stalled(self, board: Board) -> None:
        """SIGKILL for workers that were silent for longer than their stall_timeout. A sign of life of its own."""
        beats = {state["name"]: state.get("beat", 0.0) for state in board.read()}
        now = self._clock()
        self._awake += min(now - self._looked, AWAKE)
        self._looked = now
        for name, timeout in self.stall_timeouts.items():
            if beats.get(name) != self._beats.get(name):
                self._beats[name] = beats[name]
                self._alive[name] = self._awake
            child = self._children.get(name, {})
            silence = self._awake - self._alive.get(name, self._awake)
            if child.get("pid") and silence > timeout:
                why = f"stalled: no sign of life for {silence:.0f} s"
                log.error("%s, killing pid %d", why, child["pid"], extra={"stream": name})
                self._alive[name] = self._awake
                self._note(name, why=f"{why}, killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child["pid"], signal.SIGKILL)
        self._write()

    def _note(self, name: str, **changes: Any) -> None:
        self._children.setdefault(name, {}).update(changes)
        self._write()

    def _write(self) -> None:
        state = {"name": SUPERVISOR, "started": self._started, "beat": self._clock(), "children": self._children}
        self._slot.write(state)
