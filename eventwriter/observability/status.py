"""What the board says, as one document: /status serves it, the page and ``eventwriter status`` show it.

Times are seconds since 1970, ages and durations seconds; None means unknown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec.structs import asdict, replace

from eventwriter import __version__
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.observability import causes, histograms, tally
from eventwriter.observability.board import AGE_BUCKETS, FATES, SUPERVISOR, Board
from eventwriter.observability.states import ChildState, State, SupervisorState, WorkerState, slow
from eventwriter.processes.process import look
from eventwriter.processes.supervisor import PARKING

SILENT = 5.0
"""Seconds without a sign of life after which a worker counts as stalled; it is killed much later."""
PATIENT = 30.0
"""The same while PostgreSQL is away: a connection attempt takes its time."""
STUCK = 30.0
"""Seconds that messages wait without any commit, after which a worker counts as stalled."""

STATES = ("parked", "restarting", "stalled", "starting", "disconnected", "waiting", "draining", "running")
"""States, the worst first: that of a stream is the worst of its processes."""

AGAIN = "; once that is put right the stream goes on by itself, within a minute"
"""Follows the reason of a stream that is parked."""
RESTART = " (after a change of the environment, once the service is restarted)"
"""Follows that where a setting may be the reason."""

CHANGED = "; the file is read again as soon as it is put right"
"""Follows what is wrong with the settings."""

Since = Callable[[float], float]
"""Seconds since a moment of the monotonic clock."""


def read(
    board: Board,
    config: Config,
    since: Since = lambda moment: time.monotonic() - moment,
    began: causes.Began | None = None,
) -> dict[str, Any]:
    """The document; histories, age quantiles and since when a stream is in trouble are what the monitor keeps."""
    now, moment = time.time(), time.monotonic()
    states: list[State] = list(board.read(State))
    workers = {state.name: state for state in states if isinstance(state, WorkerState)}
    unknown = SupervisorState(name=SUPERVISOR, started=now, beat=0.0)
    supervisor = next((state for state in states if isinstance(state, SupervisorState)), unknown)
    streams = {
        name: _stream(stream, workers, supervisor.children, now, since)
        for name, stream in config.streams.items()
        if stream.enabled
    }
    trouble = causes.follow({} if began is None else began, streams)
    for name, each in streams.items():
        each["since"] = now - (moment - trouble[name]) if name in trouble else None
    problems = [
        {"stream": name, "text": each["reason"], "since": each["since"]}
        for name, each in streams.items()
        if each["reason"]
    ]
    ready = not problems
    if supervisor.config_error:
        text = f"the changed settings are wrong, those before stay in force: {supervisor.config_error}{CHANGED}"
        problems.append({"stream": "configuration", "text": text})
    document = {
        "version": __version__,
        "now": now,
        "started": supervisor.started,
        "uptime": moment - supervisor.since if supervisor.since is not None else None,
        "beat_age": since(supervisor.beat),
        "ready": ready,
        "config_error": supervisor.config_error,
        "problems": problems,
        "streams": streams,
    }
    return document | {"causes": causes.grouped(document)}


def _stream(
    stream: StreamConfig,
    workers: Mapping[str, WorkerState],
    children: Mapping[str, ChildState],
    now: float,
    since: Since,
) -> dict[str, Any]:
    names = stream.titles
    processes = [_process(name, workers.get(name), children.get(name, ChildState()), since) for name in names]
    worst = min(processes, key=lambda process: STATES.index(process["state"]))
    current = [workers[name] for name in names if name in workers]
    alive = [worker for worker in current if look(worker.pid)[0] not in ("", "Z")]
    # What a process that says nothing more knew of its consumer is not true any more.
    fresh = [w for w in alive if w.pending is not None and min(since(w.beat), since(w.asked)) <= SILENT]
    # Also what processes have counted that are not wanted any more: a counter never goes back.
    every = [worker for worker in workers.values() if worker.stream == stream.name]
    counters = tally.added(map(_counters, every))
    pending, ack_pending = (fresh[0].pending, fresh[0].ack_pending) if fresh else (None, None)
    writing = [worker.batches[0] for worker in fresh if any(worker.batches[:1])]
    newest = min(writing, default=tally.latest(worker.newest for worker in every))
    lag: float | None = None
    if pending is not None:
        lag = 0.0 if not (pending or writing) else None if newest is None else max(0.0, now - newest)
    return {
        "state": worst["state"],
        "reason": worst["reason"],
        "stream": stream.stream,
        "subjects": list(stream.subjects),
        "durable": stream.durable,
        "table": stream.table,
        "columns_omitted": list(dict.fromkeys(column for worker in alive for column in worker.omitted)),
        "processes": processes,
        "nats_connected": all(worker.nats for worker in alive) if alive else None,
        "postgres_connected": all(worker.postgres for worker in alive) if alive else None,
        "messages": {key: counters.get(key, 0) for key in ("taken", *FATES, "redelivered")},
        "rows_written": counters.get("rows", 0),
        "bytes_taken": counters.get("bytes", 0),
        "reread": counters.get("reread", 0),
        "empty": counters.get("empty", 0),
        **_writing(current),
        "restarts": sum(child.restarts for name, child in children.items() if name.partition("/")[0] == stream.name),
        "batch_messages": max((worker.batch_messages for worker in current), default=0),
        "consumer_pending": pending,
        "consumer_ack_pending": ack_pending,
        "lag_seconds": lag,
        **histograms.added(every),
        "last_commit": tally.latest(worker.last_commit for worker in every),
        "rows_skipped": tally.added(worker.skipped for worker in every),
        "rejects": tally.added(worker.rejects for worker in every),
        "repairs": tally.added(worker.repairs for worker in every),
        "errors": tally.added(worker.errors for worker in every),
        "dead_letters": [
            asdict(letter)
            for letter in sorted(
                (letter for worker in every for letter in worker.dead_letters), key=lambda letter: -letter.time
            )[:5]
        ],
    }


def _writing(workers: Sequence[WorkerState]) -> dict[str, Any]:
    """How rows are written, and what is noted of that."""
    return {
        "batch_way": ", ".join(sorted({worker.way for worker in workers if worker.way})),
        "ledger": dict(zip(("highest", "ranges"), max((w.ledger for w in workers), default=[]), strict=False)),
        "missing": max((worker.missing for worker in workers), default=0),
    }


def _counters(worker: WorkerState) -> dict[str, int]:
    """The counters of a process. What it had in hand when it died was given back to JetStream by that."""
    counters = worker.counters
    if look(worker.pid)[0] in ("", "Z"):
        counters = replace(counters, released=counters.released + counters.in_hand)
    return asdict(counters)


def _process(name: str, worker: WorkerState | None, child: ChildState, since: Since) -> dict[str, Any]:
    letter, rss = look(child.pid)
    state, reason = _state(worker, child, letter, since)
    return {
        "name": name,
        "pid": child.pid,
        "state": state,
        "reason": reason,
        "restarts": child.restarts,
        "rss_bytes": rss,
        "uptime": time.monotonic() - child.since if child.pid and child.since is not None else 0.0,
    }


def _state(worker: WorkerState | None, child: ChildState, letter: str, since: Since) -> tuple[str, str]:
    """The state and, unless all is well, the reason."""
    said = worker.error if worker else ""
    if child.state in ("parked", "restarting"):
        reason = child.why or said or f"the worker ended with {_how(child.status)}"
        return child.state, f"{reason}{_then(worker)}" if child.state == "parked" else reason
    if letter in ("T", "t"):
        return "stalled", f"the worker is stopped (SIGSTOP): SIGCONT to pid {child.pid} lets it go on"
    if worker is None or worker.pid != child.pid or not worker.ready:
        if child.status in PARKING:  # one that looks whether that is over is parked as long as it does not know
            return "parked", f"{said or 'the worker is connecting'}{_then(worker)}"
        return "starting", said or "the worker is connecting"
    if worker.draining:
        return "draining", "the worker was told to end, and finishes what it has in hand"
    silence = since(worker.beat)
    if silence > (SILENT if worker.postgres else PATIENT):
        if since(worker.asked) <= SILENT:
            return "waiting", slow(silence)
        return "stalled", f"no sign of life from the worker for {silence:.0f} s"
    if not worker.postgres:
        reason = said or "PostgreSQL cannot be reached"
        return "waiting", reason if worker.nats else f"{reason}; NATS cannot be reached either"
    if not worker.nats:
        why = f" ({worker.nats_error})" if worker.nats_error else ""
        return "disconnected", f"NATS cannot be reached{why}: the worker is reconnecting"
    if worker.trouble:
        return "disconnected", worker.trouble
    if worker.waiting_since and (waited := since(worker.waiting_since)) > STUCK:
        pending = "some" if worker.pending is None else worker.pending
        return "stalled", f"{pending} messages wait, none written for {waited:.0f} s"
    return "running", ""


def _then(worker: WorkerState | None) -> str:
    """What comes after it is put right."""
    return AGAIN if worker is not None and worker.passing else AGAIN + RESTART


def _how(status: int | None) -> str:
    if status is None:
        return "an unknown status"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def quantile(ages: Sequence[int], share: float) -> float | None:
    """The age, in seconds, that this share of all ages does not exceed; evenly spread inside a bucket, as a guess."""
    rank = sum(ages) * share
    if not rank:
        return None
    lower = 0.0
    for bound, count in zip(AGE_BUCKETS, ages, strict=False):
        if rank <= count:
            return lower + (bound - lower) * rank / count
        rank -= count
        lower = bound
    return lower
