"""The supervised service of the supervisor's tests, run as a script: children that behave and misbehave."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import psutil

from eventwriter.errors import ConfigurationError
from eventwriter.processes.child import Child
from eventwriter.processes.signals import on_stop
from eventwriter.processes.slot import Pace
from eventwriter.processes.supervisor import Supervisor


def say(*words: object) -> None:
    """One line of output in one write, so that lines of several processes do not mix."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def work(name: str, drain: float = 0.0, status: int = 0) -> int:
    """Works until told to stop, then drains for a while."""
    told: list[bool] = []
    with on_stop(lambda: told.append(True)):
        say(name, "ready", os.getpid())
        while not told:
            time.sleep(0.01)
        say(name, "drains")
        time.sleep(drain)
    say(name, "drained")
    return status


def ignore(name: str) -> int:
    """Does not listen to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    say(name, "ready", os.getpid())
    while True:
        signal.pause()


def pause(name: str) -> int:
    """Has not yet installed its handlers."""
    say(name, "ready", os.getpid())
    signal.pause()
    return 1


def leave_orphan(name: str) -> int:
    """Leaves behind a process whose parent is gone."""
    if not os.fork():
        if not os.fork():
            say(name, "orphan", os.getpid())
            os._exit(5)
        os._exit(0)
    os.wait()
    return work(name)


def inspect(name: str) -> int:
    """Tells what it inherited."""
    facts = {
        "descriptors": sorted(int(entry) for entry in os.listdir("/proc/self/fd"))[:-1],
        "wakeup": signal.set_wakeup_fd(-1),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "handled": [number for number in signal.valid_signals() if callable(signal.getsignal(number))],
        "leads_session": os.getsid(0) == os.getpid(),
        "title": psutil.Process().cmdline()[0],
        "parent_title": psutil.Process().parent().cmdline()[0],  # type: ignore[union-attr]
    }
    say(name, "facts", json.dumps(facts))
    return work(name)


def fail(error: BaseException) -> int:
    """Ends with an exception."""
    raise error


def kill_self() -> int:
    """Crashes as a broken C library would."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0


BEHAVIOURS: dict[str, Callable[[str], int]] = {
    "work": work,
    "drain slowly": lambda name: work(name, drain=0.7),
    "drain, then fail": lambda name: work(name, status=1),
    "drain too late": lambda name: work(name, status=75),
    "end by itself meanwhile": lambda name: work(name, status=78),
    "give up meanwhile": lambda name: work(name, status=69),
    "end before a handler": pause,
    "ignore": ignore,
    "orphan": leave_orphan,
    "inspect": inspect,
    "return 0": lambda name: 0,
    "return 1": lambda name: 1,
    "return 77": lambda name: 77,
    "pass": lambda name: work(name) if Path(sys.argv[1]).with_name("passed").exists() else 78,
    "return 78": lambda name: 78,
    "pass never": lambda name: 77,
    "sys.exit": lambda name: sys.exit(3),
    "raise": lambda name: fail(RuntimeError("broken " + name)),
    "raise typed": lambda name: fail(ConfigurationError("no such table")),
    "crash": lambda name: kill_self(),
}


class Named(logging.Formatter):
    """The message, after the stream's name if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback."""
        name = getattr(record, "stream", None)
        text = super().format(record)
        return f"{name}: {text}" if name else text


class Sayer:
    """An observer that prints what it is told, and counts by name how often a child was scheduled again."""

    def __init__(self) -> None:
        self.restarts: dict[str, int] = {}

    def started(self, name: str, pid: int) -> None:
        self.restarts.setdefault(name, 0)
        say("observed started", name, pid)

    def exited(self, name: str, status: int) -> None:
        say("observed exited", name, status)

    def restarting(self, name: str, delay: float) -> None:
        self.restarts[name] = self.restarts.get(name, 0) + 1
        say("observed restarting", name, delay)

    def parked(self, name: str, status: int) -> None:
        say("observed parked", name, status)


def serve(config: Path) -> int:
    """Supervises what the file says: options, and per child its behaviour and its settings."""

    def children() -> Sequence[Child] | None:
        wanted = json.loads(config.read_text())["children"]
        if wanted is None:
            return None
        return [
            Child(name, partial(BEHAVIOURS[what], name), settings, passing=partial(str.startswith, what, "pass"))
            for name, (what, settings) in wanted
        ]

    options = json.loads(config.read_text())["options"]
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(Named())
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    os.setpgid(0, 0)
    if options.pop("wakeup", False):
        _, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
    no_processes = options.pop("no_processes", False)
    reload = None if options.pop("no_reload", False) else children
    if "tick" in options:
        options["on_tick"] = lambda: False
    pace = Pace(**{field.name: options.pop(field.name) for field in fields(Pace) if field.name in options})
    sayer = Sayer()
    supervisor = Supervisor(children() or (), pace=pace, on_reload=reload, observer=sayer, **options)
    if no_processes:
        if os.geteuid() == 0:
            os.setuid(65534)  # the limit does not hold for root
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    status = supervisor.run()
    say("restarts", json.dumps(sayer.restarts))
    return status


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
