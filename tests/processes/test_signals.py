"""Signals: real ones, sent to this process or to a real child."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from eventwriter.processes.signals import on_stop
from patience import PATIENCE
from processes import ending

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process that runs ``code`` after the imports it needs."""
    code = "import os, signal, time\nfrom eventwriter.processes.signals import *\n" + code
    command = [sys.executable, "-c", code]
    with ending(
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ) as process:
        yield process


def line(process: subprocess.Popen[str]) -> str:
    """The next line the process prints, empty at its end."""
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_calls_back_and_handlers_return(number: signal.Signals) -> None:
    """Inside the context the signal calls the callback; afterwards the earlier handlers are back."""
    calls: list[str] = []
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with on_stop(lambda: calls.append("stop")):
        assert calls == []
        signal.raise_signal(number)
        assert calls == ["stop"]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_handlers_return_after_an_error() -> None:
    """An error that leaves the context restores the handlers too."""
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with on_stop(lambda: None):
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        work()
    assert signal.getsignal(signal.SIGTERM) is before


def test_later_signals_can_be_left_to_a_supervisor() -> None:
    """With second_ends=False the callback is called once and the process goes on."""
    calls: list[str] = []
    with on_stop(lambda: calls.append("stop"), second_ends=False):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            signal.raise_signal(number)
    assert calls == ["stop"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    """A process that does not finish its drain ends with 75 at the second signal, without cleaning up."""
    with python(
        "with on_stop(lambda: os.write(1, b'draining\\n')):\n"  # print() in a handler may meet the other one
        "    print('ready', flush=True)\n"
        "    try:\n"
        "        while True: time.sleep(0.01)\n"  # a signal right before a long sleep is not seen until its end
        "    finally: print('cleanup', flush=True)"
    ) as process:
        assert line(process) == "ready"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "draining"
        process.send_signal(second)
        assert process.wait(5 * PATIENCE) == 75
        assert line(process) == ""


def test_queue_hands_out_blocked_signals() -> None:
    """Signals wait in the queue instead of ending the process, and come out one at a time, duplicates once."""
    with python(
        "queue = SignalQueue([signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD])\n"
        "print('ready', flush=True); input()\n"
        "got = [queue.wait(5), queue.wait(5), queue.wait(0), queue.wait(-1)]\n"
        "print(sorted(s.name for s in got if s), got.count(None), flush=True)"
    ) as process:
        assert line(process) == "ready"
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            process.send_signal(number)
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
        assert line(process) == "['SIGHUP', 'SIGTERM'] 2"


def test_queue_wakes_at_once_and_waits_without_limit() -> None:
    """A signal ends a wait without limit within milliseconds."""
    with python(
        "queue = SignalQueue([signal.SIGTERM])\n"
        "print('ready', flush=True)\n"
        "print(queue.wait(None).name, time.monotonic(), flush=True)"
    ) as process:
        assert line(process) == "ready"
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        name, woken = line(process).split()
        assert name == "SIGTERM"
        assert float(woken) - sent < 0.5 * PATIENCE


def test_queue_waits_no_longer_than_told() -> None:
    """Without a signal the wait ends with None after its timeout."""
    with python("queue = SignalQueue([signal.SIGTERM])\nprint(queue.wait(0.05))") as process:
        assert line(process) == "None"


QUEUE = (
    "queue = SignalQueue([signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD])\n"
    "print('ready', flush=True)\n"
    "got = None\n"
    "while got != signal.SIGTERM:\n"
    "    got = queue.wait(0.02)\n"
    "    if got: print(got.name, flush=True)"
)
"""Prints each signal that a queue hands out, and looks for the next fifty times a second."""


def pause(process: subprocess.Popen[str], *meanwhile: signal.Signals, seconds: float = 0.05) -> None:
    """Stops a process, for longer than it means to wait, sends it these signals, and lets it go on."""
    process.send_signal(signal.SIGSTOP)
    deadline = time.monotonic() + 10 * PATIENCE
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
    time.sleep(seconds)
    for number in meanwhile:
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)


def test_a_pause_is_no_signal() -> None:
    """Stopped and continued, again and again, a queue hands out nothing, least of all the signal before."""
    with python(QUEUE) as process:
        assert line(process) == "ready"
        for number in (signal.SIGHUP, signal.SIGCHLD):
            process.send_signal(number)
            assert line(process) == number.name
            for _ in range(20):
                pause(process)
        process.send_signal(signal.SIGTERM)
        assert line(process) == "SIGTERM"
        assert process.wait(5 * PATIENCE) == 0


def test_signals_of_a_pause_are_not_lost() -> None:
    """What is sent while the process is stopped comes out afterwards, each kind once."""
    with python(QUEUE) as process:
        assert line(process) == "ready"
        for _ in range(5):
            pause(process, signal.SIGCHLD, signal.SIGHUP, signal.SIGHUP)
            assert [line(process), line(process)] == ["SIGHUP", "SIGCHLD"]
        pause(process, signal.SIGTERM)
        assert line(process) == "SIGTERM"
        assert process.wait(5 * PATIENCE) == 0


def test_a_timer_that_goes_off_late_ends_no_other_wait() -> None:
    """Whether the signal or the end of the wait comes first: a wait without limit that follows goes on."""
    with python(
        "queue = SignalQueue([signal.SIGTERM])\n"
        "print('ready', flush=True)\n"
        "if not queue.wait(0.05): queue.wait(None)\n"
        "print(signal.sigpending(), signal.getitimer(signal.ITIMER_REAL), flush=True)\n"
        "print(queue.wait(None).name, flush=True)"
    ) as process:
        assert line(process) == "ready"
        pause(process, signal.SIGTERM, seconds=0.1)
        assert line(process) == "set() (0.0, 0.0)"
        process.send_signal(signal.SIGTERM)
        assert line(process) == "SIGTERM"


def test_a_short_wait_hides_no_signal() -> None:
    """With a limit that is over at once the signals that wait come first."""
    with python(
        "queue = SignalQueue([signal.SIGTERM, signal.SIGCHLD])\n"
        "for number in (signal.SIGCHLD, signal.SIGTERM): os.kill(os.getpid(), number)\n"
        "print([each and each.name for each in (queue.wait(1e-9), queue.wait(1e-9), queue.wait(1e-9))])"
    ) as process:
        assert line(process) == "['SIGTERM', 'SIGCHLD', None]"


def test_queue_sees_children_end_even_if_sigchld_was_ignored() -> None:
    """A parent that was started with SIGCHLD ignored still gets the signal and the status of its child."""
    with python(
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        "queue = SignalQueue([signal.SIGCHLD])\n"
        "pid = os.fork() or os._exit(3)\n"
        "print(queue.wait(5).name, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))"
    ) as process:
        assert line(process) == "SIGCHLD 3"


def test_reset_gives_a_child_its_defaults_back() -> None:
    """After a reset nothing is blocked or handled by Python, and no wake-up descriptor is set."""
    with python(
        "r, w = os.pipe(); os.set_blocking(w, False); signal.set_wakeup_fd(w)\n"
        "signal.signal(signal.SIGUSR1, lambda *a: None)\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "SignalQueue([signal.SIGTERM, signal.SIGCHLD])\n"
        "reset_signals()\n"
        "print(signal.set_wakeup_fd(-1), signal.pthread_sigmask(signal.SIG_BLOCK, ()),\n"
        "      {int(signal.getsignal(s)) for s in (signal.SIGUSR1, *STOP_SIGNALS)})"
    ) as process:
        assert line(process) == "-1 set() {0}"


def test_reset_lets_waiting_signals_through() -> None:
    """A SIGTERM that arrived while blocked ends the process when it is reset."""
    with python("SignalQueue([signal.SIGTERM])\nos.kill(os.getpid(), signal.SIGTERM)\nreset_signals()") as process:
        assert process.wait(5 * PATIENCE) == -signal.SIGTERM
