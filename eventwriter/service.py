"""The supervised service: which processes there are, and what starts, watches, reloads and ends them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

from eventwriter import __version__, worker
from eventwriter.config import rendering
from eventwriter.config.model import Config
from eventwriter.config.watching import Watched
from eventwriter.errors import ConfigurationError, EventWriterError
from eventwriter.jetstream.turn import Turn, Turns
from eventwriter.observability import monitor, report
from eventwriter.observability.board import SUPERVISOR, Board, Slot
from eventwriter.observability.children import Children
from eventwriter.outage import Member, Together
from eventwriter.processes import room
from eventwriter.processes.child import Child
from eventwriter.processes.slot import Pace
from eventwriter.processes.supervisor import STOPPING, Supervisor
from eventwriter.processes.systemd import Notifier
from eventwriter.stream import Stream

log = logging.getLogger("eventwriter.supervisor")

RESTART_MAXIMUM = 10.0
"""Seconds between two starts of a worker that keeps failing."""
_SAYING_SO = 3.0
"""Seconds that a worker has beyond its own deadline for draining, so that it can still say what it left behind."""
TASKS, TASKS_OF_A_WORKER = 4, 6
"""Processes and threads: supervisor, and monitor, which serves and pushes; a worker with its loop, four of its pool."""

Load = Callable[[], tuple[Config, Mapping[str, Stream]]]
"""Reads the settings, and finds the streams that exist; raises ConfigurationError."""


class Run(Protocol):
    """The life of a worker process, ``worker.run``."""

    def __call__(
        self,
        config: Config,
        stream: Stream,
        *,
        supervised: bool,
        name: str,
        slot: Slot,
        turn: Turn | None,
        member: Member,
    ) -> int:
        """Runs until told to stop; returns the exit status."""


def supervise(load: Load, file: Path | None, environ: Mapping[str, str], run: Run = worker.run) -> int:
    """Runs one process per enabled stream, and the monitor, until SIGTERM or SIGINT; returns the exit status.

    The settings are read again at SIGHUP, and when ``file`` changes: only processes whose settings changed are
    restarted, and wrong settings change nothing. ``environ`` tells where systemd listens. Leaves signals blocked.
    """
    current, declared = load()
    told = "eventwriter %s, configuration %s: %s"
    log.info(told, __version__, file or "by environment and defaults", rendering.summary(current))
    watched, notifier = Watched(file, current.plugins.folders), Notifier(environ)
    processes = Processes(run)

    def tick() -> bool:
        notifier.send("WATCHDOG=1")
        processes.kill_stalled()
        return watched.changed()

    def state(told: str) -> None:
        if told == STOPPING:
            processes.children.stopping()
        notifier.send(told)

    def reload() -> list[Child] | None:
        try:
            if watched.empty:
                raise ConfigurationError(f"configuration file {file} is empty")
            config, streams = load()
            wanted = processes.wanted(config, streams)
            watched.watch(config.plugins.folders)
        except EventWriterError as error:
            log.error("the configuration is wrong, everything stays as it is: %s", error)
            processes.children.reloaded(str(error))
            return None
        except Exception as error:  # a bug, which the supervisor logs
            processes.children.reloaded(f"they cannot be read, the log tells why: {type(error).__name__}")
            raise
        processes.children.reloaded("")
        return wanted

    gc.collect()
    gc.freeze()  # the workers share these pages as long as no collection touches them
    return Supervisor(
        processes.wanted(current, declared),
        drain_timeout=drain_timeout(current),
        pace=Pace(restart_maximum=RESTART_MAXIMUM),
        on_reload=reload,
        on_tick=tick,
        tick=min(1.0, notifier.period or 1.0),
        on_state=state,
        observer=processes.children,
    ).run()


def drain_timeout(config: Config) -> float:
    """Seconds that all workers have to end; each one's own deadline comes first."""
    return max([stream.writer.drain_timeout for stream in config.streams.values()], default=25.0) + _SAYING_SO


class Processes:
    """What the processes of a service share with each other: board, turns on one durable, outages."""

    def __init__(self, run: Run = worker.run) -> None:
        self._run = run
        self._board, self._turns, self._together = Board(), Turns(), Together()
        self.children = Children(self._board.slot(SUPERVISOR))

    def wanted(self, config: Config, declared: Mapping[str, Stream]) -> list[Child]:
        """The children that these settings ask for; ConfigurationError, and nothing is changed, if that cannot be."""
        enabled = {name: stream for name, stream in config.streams.items() if stream.enabled}
        titles = [title for stream in enabled.values() for title in stream.titles]
        if not titles:
            raise ConfigurationError("no stream is enabled: set streams.<NAME>.enabled = true for at least one")
        room.check(TASKS + TASKS_OF_A_WORKER * len(titles))
        self._board.reserve([SUPERVISOR, monitor.NAME, *map(monitor.history_name, enabled), *titles])
        stall_timeouts = {monitor.NAME: monitor.HUNG}
        found = []
        for name, stream in enabled.items():
            for title in stream.titles:
                stall_timeouts[title] = stream.writer.stall_timeout
                slot = self._board.slot(title)
                turn = self._turns.of(name) if stream.processes > 1 else None
                run = partial(
                    self._run,
                    config,
                    declared[name],
                    supervised=True,
                    name=title,
                    slot=slot,
                    turn=turn,
                    member=self._together.member(title),
                )
                settings = config.nats, config.postgres, config.log, config.dead_letters, stream, declared[name].code
                passing = partial(report.passing, slot)
                found.append(Child(title, run, settings, passing=passing, drain_timeout=drain_timeout(config)))
        serve = partial(monitor.run, self._board, config, self._board.slot(monitor.NAME))
        self.children.stall_timeouts = stall_timeouts
        return [*found, Child(monitor.NAME, serve, config, essential=False)]

    def kill_stalled(self) -> None:
        """Kills the processes that were silent for too long; once a second, for it is a sign of life as well."""
        self.children.kill_stalled(self._board)
