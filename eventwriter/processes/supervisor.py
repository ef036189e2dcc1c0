"""The parent process: forks one process per child, restarts those that die, drains all of them when told to stop."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, Protocol

from eventwriter.errors import AUTHENTICATION, CONFIGURATION, DRAIN_DEADLINE, INTERNAL, OK, EventWriterError
from eventwriter.processes.backoff import Backoff
from eventwriter.processes.process import die_with_parent, set_title
from eventwriter.processes.signals import STOP_SIGNALS, SignalQueue, reset_signals

logger = logging.getLogger("eventwriter.supervisor")

PARKING = (CONFIGURATION, AUTHENTICATION)
"""Exit statuses that another try with the same settings would only repeat."""


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
    """Whether the service has a purpose without it: when all that are essential are parked, it ends."""
    passing: Callable[[], bool] | None = None
    """Asked when it parks: whether what stopped it may pass without a reload, so that it looks again now and then."""


class Observer(Protocol):
    """Is told what becomes of the children, in the supervisor's loop: must not block and must not raise.

    A status is an exit status, or the negative number of the signal that ended the process.
    """

    def started(self, name: str, pid: int) -> None: ...
    def exited(self, name: str, status: int) -> None: ...
    def restarting(self, name: str, delay: float) -> None: ...
    def parked(self, name: str, status: int) -> None: ...


class _Nobody:
    """Observes nothing."""

    def started(self, name: str, pid: int) -> None: ...
    def exited(self, name: str, status: int) -> None: ...
    def restarting(self, name: str, delay: float) -> None: ...
    def parked(self, name: str, status: int) -> None: ...


@dataclass(slots=True)
class _Slot:
    """One name, from when it is wanted until its last process is reaped.

    Running (pid), draining (pid, due), waiting to start (due), or parked.
    """

    name: str
    child: Child | None
    """What to start next; None: nothing, the name goes when its process has ended."""
    backoff: Backoff
    looks: Backoff
    """How long it stays parked when it is to look again."""
    due: float | None
    """When to start, or for a running process when to kill it."""
    pid: int = 0
    since: float = 0.0
    draining: bool = False
    parked: int | None = None


class Supervisor:
    """Keeps its children running until it is told to stop; single-threaded, opens no descriptor, works as PID 1.

    A child that ends by itself, in whatever way, is started again after a backoff of its own, which a healthy
    ``stable_after`` resets. One that exits 78 or 77 is parked until a reload: it would fail again, and the others go
    on without it. If it is ``passing`` it is tried again by itself, ``look_initial`` to ``look_maximum`` seconds later.

    SIGTERM or SIGINT: all children get SIGTERM together and ``drain_timeout`` seconds, then SIGKILL; a second one
    kills at once. SIGHUP: calls ``on_reload``, which returns the children wanted from now on, or None for no change;
    if it raises, everything stays as it is. It runs in the parent: no connections, no threads. ``on_tick`` is called
    every ``tick`` seconds and may ask for a reload; ``on_state`` is told READY=1 and STOPPING=1, as systemd is.

    ``restarts`` counts by name how often a child ended by itself and was scheduled again. If the supervisor itself
    is killed, its children get SIGTERM.
    """

    def __init__(
        self,
        children: Sequence[Child],
        *,
        drain_timeout: float,
        stable_after: float = 60.0,
        restart_initial: float = 0.25,
        restart_maximum: float = 30.0,
        look_initial: float = 5.0,
        look_maximum: float = 60.0,
        on_reload: Callable[[], Sequence[Child] | None] | None = None,
        on_tick: Callable[[], bool] | None = None,
        tick: float | None = None,
        on_state: Callable[[str], None] | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        """Raises ValueError if there are no children or two have the same name."""
        self.restarts: dict[str, int] = {}
        self._drain_timeout = drain_timeout
        self._stable_after = stable_after
        self._restart = restart_initial, restart_maximum
        self._look = look_initial, look_maximum
        self._on_reload = on_reload
        self._on_tick = on_tick
        self._tick = tick if on_tick else None
        self._next_tick = 0.0
        self._on_state = on_state or (lambda state: None)
        self._observer: Observer = observer or _Nobody()
        self._clock = clock
        self._rng = rng or random.Random()
        self._stopping = False
        self._undrained = False
        self._slots = {name: self._slot(child) for name, child in _by_name(children).items()}

    def run(self) -> int:
        """Runs until stopped, or until every child is parked; returns the exit status of the service.

        Stopped: 0 if every child drained, else 75. A child drained if it exited 0, or if SIGTERM ended it, for then
        it had no handler yet and nothing in hand. Any other end (killed at the deadline, crashed, non-zero) means
        that messages in hand will be delivered again. All parked: 78, or 77 if that is what all of them said.

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
                    logger.info("reaped process %d, not one of ours: %s", pid, _how(status))
                else:
                    self._exited(slot, status)

    def _exited(self, slot: _Slot, status: int) -> None:
        """Decides what follows the end of a child."""
        as_told = status in (OK, -signal.SIGTERM)
        level = logging.INFO if as_told and slot.draining else logging.WARNING
        logger.log(
            level, "exited after %.1f s: %s", self._clock() - slot.since, _how(status), extra={"stream": slot.name}
        )
        slot.pid, slot.due = 0, None
        self._observer.exited(slot.name, status)
        if self._stopping:
            self._undrained |= not as_told
            del self._slots[slot.name]
        elif slot.child is None:
            del self._slots[slot.name]
        elif slot.draining:
            self._slots[slot.name] = self._slot(slot.child)
        elif status in PARKING:
            self._park(slot, slot.child, status)
        else:
            self._retry(slot)

    def _park(self, slot: _Slot, child: Child, status: int) -> None:
        """Leaves a child alone until a reload, or until it is time to look whether what stopped it has passed."""
        slot.parked = status
        again = "not started again before a reload (SIGHUP, or a changed configuration file)"
        if child.passing is not None and child.passing():
            now = self._clock()
            delay = slot.looks.failed(now)
            slot.due = now + delay
            again = f"looking again in {delay:.3g} s"
        logger.error("parked: exit status %d, %s", status, again, extra={"stream": slot.name})
        self._observer.parked(slot.name, status)

    def _retry(self, slot: _Slot) -> None:
        """Schedules the next start of a child that failed."""
        now = self._clock()
        delay = slot.backoff.failed(now)
        slot.due = now + delay
        self.restarts[slot.name] += 1
        logger.warning("restarting in %.2f s", delay, extra={"stream": slot.name})
        self._observer.restarting(slot.name, delay)

    def _finished(self) -> int | None:
        """The exit status once there is nothing left to wait for."""
        if self._stopping:
            if self._slots:
                return None
            return DRAIN_DEADLINE if self._undrained else OK
        needed = [slot for slot in self._slots.values() if slot.child is None or slot.child.essential]
        statuses = [slot.parked for slot in needed if slot.parked is not None and slot.due is None]
        if len(statuses) < len(needed):
            return None
        for slot in self._slots.values():
            if slot.pid:
                os.kill(slot.pid, signal.SIGKILL)
        return max(statuses)

    # --- what is due ------------------------------------------------------------------------------------------

    def _slot(self, child: Child) -> _Slot:
        """A place for a child that is to start now."""
        self.restarts.setdefault(child.name, 0)
        backoff, looks = (
            Backoff(*limits, reset_after=self._stable_after, rng=self._rng) for limits in (self._restart, self._look)
        )
        return _Slot(child.name, child, backoff, looks, due=self._clock())

    def _act(self) -> None:
        """Starts and kills what is due."""
        now = self._clock()
        for slot in self._slots.values():
            if slot.due is None or slot.due > now:
                continue
            if slot.pid:
                slot.due = None
                os.kill(slot.pid, signal.SIGKILL)
                logger.warning("killed: did not drain in time, pid %d", slot.pid, extra={"stream": slot.name})
            elif slot.child:
                self._start(slot, slot.child)

    def _start(self, slot: _Slot, child: Child) -> None:
        """Forks the child; a fork that fails counts as a child that died."""
        parent = os.getpid()
        _flush()
        now = self._clock()
        try:
            pid = os.fork()
        except OSError as error:
            logger.error("cannot fork: %s", error, extra={"stream": child.name})
            self._retry(slot)
            return
        if not pid:
            _live(child, parent)
        slot.pid, slot.since, slot.due, slot.parked = pid, now, None, None
        slot.backoff.succeeded(now)
        slot.looks.succeeded(now)
        logger.info("started, pid %d", pid, extra={"stream": child.name})
        self._observer.started(child.name, pid)

    # --- what we are told -------------------------------------------------------------------------------------

    def _drain(self, *slots: _Slot) -> None:
        """Asks running children to end under one deadline; each only once, for a second SIGTERM may end it at once."""
        told = [slot for slot in slots if not slot.draining]
        for slot in told:
            os.kill(slot.pid, signal.SIGTERM)
        deadline = self._clock() + self._drain_timeout
        for slot in told:
            slot.draining, slot.due = True, deadline
            logger.info("draining, pid %d, %g s left", slot.pid, self._drain_timeout, extra={"stream": slot.name})

    def _stop(self) -> None:
        """Drains every child under one deadline; the second time, makes that deadline now."""
        if self._stopping:
            logger.warning("told to stop again: not waiting for the children")
            for slot in self._slots.values():
                slot.due = self._clock()
            return
        self._stopping = True
        self._on_state("STOPPING=1")
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
            logger.info("reloaded: nothing changed")
            return
        for name, slot in list(self._slots.items()):
            self._replace(slot, wanted.pop(name, None))
        self._slots |= {name: self._slot(child) for name, child in wanted.items()}

    def _replace(self, slot: _Slot, child: Child | None) -> None:
        """Makes ``child`` what the slot runs: now, after its process has drained, or at the next start if unchanged."""
        old, slot.child = slot.child, child
        unchanged = old is not None and child is not None and old.settings == child.settings
        if unchanged and slot.parked is None:  # what is parked is tried again: its table may be there by now
            return
        if slot.pid:
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


def _how(status: int) -> str:
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
    except BaseException:
        logger.exception("uncaught exception", extra={"stream": child.name})
    finally:
        _flush()
        os._exit(status)
