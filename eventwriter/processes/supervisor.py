"""The parent process: one process per child, restarted when it dies, and all of them drained when told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import time
from collections.abc import Callable, Sequence

from eventwriter.errors import AUTHENTICATION, CONFIGURATION, DRAIN_DEADLINE, OK, UNAVAILABLE
from eventwriter.processes.child import Child, how
from eventwriter.processes.process import set_title
from eventwriter.processes.signals import STOP_SIGNALS, SignalQueue
from eventwriter.processes.slot import AS_TOLD, Nobody, Observer, Pace, Slot

logger = logging.getLogger("eventwriter.supervisor")

PARKING = (CONFIGURATION, AUTHENTICATION)
"""Exit statuses that another try would only repeat, as long as nobody does anything about it."""

STOPPING = "STOPPING=1"
"""What ``on_state`` is told when the service ends, as systemd is."""

BY_ITSELF = (UNAVAILABLE, *PARKING)
"""Exit statuses of a child that nobody told to end: one that was told says 0, or 75."""


class Supervisor:
    """Keeps its children running until it is told to stop; single-threaded, opens no descriptor, works as PID 1.

    A child that ends by itself, in whatever way, is started again after a backoff of its own, as ``pace`` tells. One
    that exits 78 or 77 is parked: it looks now and then, and after a reload, whether what stopped it is over.

    SIGTERM or SIGINT: all children get SIGTERM together and ``drain_timeout`` seconds, then SIGKILL; a second one
    kills at once. SIGHUP: calls ``on_reload``, which returns the children wanted from now on, or None if it said why
    not; if it raises, everything stays as it is. It runs in the parent: no connections, no threads. ``on_tick`` is
    called every ``tick`` seconds and may ask for a reload; ``on_state`` is told READY=1 and STOPPING=1, as systemd is.

    If the supervisor itself is killed, its children get SIGTERM.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        drain_timeout: float,
        pace: Pace | None = None,
        on_reload: Callable[[], Sequence[Child] | None] | None = None,
        on_tick: Callable[[], bool] | None = None,
        tick: float | None = None,
        on_state: Callable[[str], None] | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Raises ValueError if there are no children or two have the same name."""
        self._drain_timeout = drain_timeout
        self._pace = pace or Pace()
        self._on_reload = on_reload
        self._on_tick = on_tick
        self._tick = tick if on_tick else None
        self._next_tick = 0.0
        self._on_state = on_state or (lambda state: None)
        self._observer: Observer = observer or Nobody()
        self._clock = clock
        self._rng = rng or random.Random()
        self._stopping = False
        self._undrained = False
        self._slots = {name: self._slot(child) for name, child in _by_name(children).items()}

    def run(self) -> int:
        """Runs until stopped, or until nothing can work with these settings; returns the exit status of the service.

        Stopped: 0 if every child drained, else 75. A child drained if it exited 0, or if SIGTERM ended it, for then
        it had no handler yet and nothing in hand; one that ended ``BY_ITSELF`` at that moment does not count. Any
        other end means that messages in hand will come again. All parked for good: 78, or 77 if all of them said that.

        Leaves the signals it handles blocked: the process is expected to end with the returned status.
        """
        signals = SignalQueue((*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD))
        set_title("eventwriter: supervisor")
        self._act()
        self._on_state("READY=1")
        while True:
            self._act()
            status = self._finished()
            if status is not None:
                return status
            if self._ticked() and not self._stopping:
                self._reload()
                continue
            dues = [slot.due for slot in self._slots.values() if slot.due is not None]
            if self._tick is not None:
                dues.append(self._next_tick)
            number = signals.wait(min(dues) - self._clock() if dues else None)
            self._reap()  # a child that ended before a stop or a reload must not look as if that had ended it
            if number in STOP_SIGNALS:
                self._stop()
            elif number == signal.SIGHUP and not self._stopping:
                self._reload()

    def _ticked(self) -> bool:
        """Calls ``on_tick`` when it is time to; whether it asks for a reload."""
        now = self._clock()
        if self._tick is None or self._on_tick is None or now < self._next_tick:
            return False
        self._next_tick = now + self._tick
        return self._on_tick()

    # --- what ended -------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Collects every process that ended, also those that PID 1 inherits."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, wait_status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                status = os.waitstatus_to_exitcode(wait_status)
                slot = next((slot for slot in self._slots.values() if slot.pid == pid), None)
                if slot is None:
                    logger.info("reaped process %d, not one of ours: %s", pid, how(status))
                else:
                    self._exited(slot, status)

    def _exited(self, slot: Slot, status: int) -> None:
        """Decides what follows the end of a child."""
        now = self._clock()
        slot.exited(status, now)
        if self._stopping:
            self._undrained |= status not in (*AS_TOLD, *BY_ITSELF)
            del self._slots[slot.name]
        elif slot.child is None:
            del self._slots[slot.name]
        elif slot.draining:
            self._slots[slot.name] = self._slot(slot.child)
        elif status in PARKING:
            slot.park(slot.child, status, now)
        else:
            slot.retry(now)

    def _finished(self) -> int | None:
        """The exit status once there is nothing left to wait for."""
        if self._stopping:
            if self._slots:
                return None
            return DRAIN_DEADLINE if self._undrained else OK
        needed = [slot for slot in self._slots.values() if slot.child is None or slot.child.essential]
        statuses = [slot.parked for slot in needed if slot.parked is not None and not slot.waits]
        if len(statuses) < len(needed):
            return None
        for slot in self._slots.values():
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)
        logger.error("nothing can work with these settings: ending with exit status %d", max(statuses))
        return max(statuses)

    # --- what is due ------------------------------------------------------------------------------------------

    def _slot(self, child: Child) -> Slot:
        """A place for a child that is to start now."""
        return Slot(child, self._pace, self._observer, self._rng, self._clock())

    def _act(self) -> None:
        """Starts and kills what is due."""
        now = self._clock()
        for slot in self._slots.values():
            if slot.due is None or slot.due > now:
                continue
            if slot.pid:
                slot.kill()
            elif slot.child:
                slot.start(slot.child, self._clock())

    # --- what we are told -------------------------------------------------------------------------------------

    def _drain(self, *slots: Slot) -> None:
        """Asks running children to end under one deadline; each only once, for a second SIGTERM may end it at once."""
        told = [slot for slot in slots if not slot.draining]
        for slot in told:
            os.kill(slot.pid, signal.SIGTERM)
        now = self._clock()
        for slot in told:
            slot.drain(now, self._drain_timeout)

    def _stop(self) -> None:
        """Drains every child under one deadline; the second time, makes that deadline now."""
        if self._stopping:
            logger.warning("told to stop again: not waiting for the children")
            for slot in self._slots.values():
                slot.due = self._clock()
            return
        self._stopping = True
        self._on_state(STOPPING)
        self._slots = {name: slot for name, slot in self._slots.items() if slot.pid}
        self._drain(*self._slots.values())

    def _reload(self) -> None:
        """Starts, drains or replaces the children whose presence or settings changed, and no others."""
        if self._on_reload is None:
            logger.info("SIGHUP ignored: nothing to reload")
            return
        try:
            children = self._on_reload()
            wanted = None if children is None else _by_name(children)
        except Exception:
            logger.exception("reload failed, everything stays as it is")
            return
        if wanted is None:
            return
        logger.info("reloaded")
        for slot in [*self._slots.values()]:
            self._replace(slot, wanted.pop(slot.name, None))
        self._slots |= {name: self._slot(child) for name, child in wanted.items()}

    def _replace(self, slot: Slot, child: Child | None) -> None:
        """Makes ``child`` what the slot runs: now, after its process has drained, or at the next start if unchanged."""
        old, slot.child = slot.child, child
        unchanged = old is not None and child is not None and old.settings == child.settings
        if unchanged:
            slot.look(self._clock())
        elif slot.pid:
            self._drain(slot)
        elif child is None:
            del self._slots[slot.name]
        else:
            self._slots[slot.name] = self._slot(child)


def _by_name(children: Sequence[Child]) -> dict[str, Child]:
    """The children by name; raises ValueError if there are none or two have the same."""
    named = {child.name: child for child in children}
    if not named or len(named) != len(children):
        raise ValueError(f"children need unique names: {[child.name for child in children]}")
    return named
