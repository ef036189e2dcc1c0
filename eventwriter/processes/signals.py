"""Signals: noted where they arrive, acted on where the code is ready for them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from eventwriter.errors import DRAIN_DEADLINE

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class SignalQueue:
    """The kernel's own queue of blocked signals: no handler, no descriptor, nothing interrupted, nothing to inherit.

    For a process with a single thread. Works as PID 1, for which the kernel drops signals that are neither
    blocked nor handled. Signals of one kind that arrive before they are taken count once (signal(7)).

    The end of a wait is a signal too: SIGALRM, blocked like the others, of a timer that no child inherits. So whatever
    is returned was taken from the kernel, by sigwait(), which has no time limit and is never interrupted (POSIX). The
    call with a limit will not do: sigtimedwait() is interrupted by a stop and continue, and past its limit CPython 3.11
    to 3.13 return a siginfo that nobody filled in. It often looks like the signal before: its number proves nothing.
    """

    def __init__(self, signals: Iterable[signal.Signals]) -> None:
        """Blocks ``signals`` from here on. They stay blocked, so that a late one cannot change an exit status."""
        self._signals = frozenset(signals)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals | {signal.SIGALRM})
        if signal.SIGCHLD in self._signals:
            # Inherited as ignored, the kernel would reap our children itself and keep their statuses from us.
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def wait(self, timeout: float | None) -> signal.Signals | None:
        """The next signal, as soon as it arrives; None after ``timeout`` seconds (None: no limit)."""
        pending = signal.sigpending() & self._signals  # first, or a timer that always goes off at once would hide it
        if pending or timeout is None:
            return signal.Signals(signal.sigwait(pending or self._signals))
        if timeout <= 0:
            return None
        signal.setitimer(signal.ITIMER_REAL, timeout)
        number = signal.sigwait(self._signals | {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, 0)
        if number == signal.SIGALRM:
            return None
        if signal.SIGALRM in signal.sigpending():  # it went off after the other came, and would end the next wait
            signal.sigwait({signal.SIGALRM})
        return signal.Signals(number)


def reset_signals() -> None:
    """Gives a freshly forked child default handlers, no wake-up descriptor and no blocked signal.

    With the parent's wake-up descriptor, a signal to the child would wake the parent. Signals that the process
    ignores (SIGPIPE, in Python) stay ignored. What arrived since the fork takes effect now, by default an end; but
    SIGHUP, which whoever signals a whole service sends to us as well, is the parent's business and changes nothing.
    """
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    for number in STOP_SIGNALS:  # a shell starts background jobs with SIGINT ignored
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextmanager
def on_stop(callback: Callable[[], object], *, second_ends: bool = True) -> Iterator[None]:
    """Calls ``callback`` at the first SIGTERM or SIGINT; a second one ends the process at once with status 75.

    ``callback`` runs inside the handler, in the main thread between any two instructions: it must not block, lock or
    log (``loop.call_soon_threadsafe``, setting a flag). Earlier handlers are back afterwards. Main thread only.

    With ``second_ends=False`` later signals change nothing. That is for a process whose supervisor sets the deadline:
    a service manager that signals the whole group, and the supervisor that passes it on, make two signals of one.
    """
    stopping = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            callback()
        elif second_ends:
            os._exit(DRAIN_DEADLINE)

    previous = {number: signal.signal(number, handle) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: installed by C code, which cannot be put back from here.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
