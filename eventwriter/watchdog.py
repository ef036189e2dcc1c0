"""What the supervisor knows of its children, noted for the monitor; and the end of those that stall."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from typing import Any

from eventwriter.metrics import SUPERVISOR, Board, Slot

log = logging.getLogger("eventwriter.supervisor")


class Children:
    """Observes the supervisor: notes each child on the board, and kills those that give no sign of life."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._children: dict[str, dict[str, Any]] = {}
        self._since: dict[str, float] = {}
        self._started = time.time()
        self.stall_timeouts: dict[str, float] = {}

    def started(self, name: str, pid: int) -> None:
        """A process was forked."""
        self._since[name] = time.monotonic()
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
        """SIGKILL for workers whose last sign of life is older than their stall_timeout. A sign of life of its own."""
        beats = {state["name"]: state.get("beat", 0.0) for state in board.read()}
        now = time.monotonic()
        for name, timeout in self.stall_timeouts.items():
            child = self._children.get(name, {})
            last = max(self._since.get(name, now), beats.get(name, 0.0))
            if child.get("pid") and now - last > timeout:
                why = f"stalled: no sign of life for {now - last:.0f} s"
                log.error("%s, killing pid %d", why, child["pid"], extra={"stream": name})
                self._since[name] = now
                self._note(name, why=f"{why}, killed")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child["pid"], signal.SIGKILL)
        self._write()

    def _note(self, name: str, **changes: Any) -> None:
        self._children.setdefault(name, {}).update(changes)
        self._write()

    def _write(self) -> None:
        state = {"name": SUPERVISOR, "started": self._started, "beat": time.monotonic(), "children": self._children}
        self._slot.write(state)
