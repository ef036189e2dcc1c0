"""What the board says, as one document: /status serves it, the page and ``eventwriter status`` show it.

Times are seconds since 1970, ages and durations seconds; None means unknown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eventwriter import __version__
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.observability.board import AGE_BUCKETS, FATES, STAGES, SUPERVISOR, Board

SILENT = 5.0
"""Seconds without a sign of life after which a worker counts as stalled; it is killed much later."""
PATIENT = 30.0
"""The same while PostgreSQL is away: a connection attempt takes its time."""
STUCK = 30.0
"""Seconds that messages wait without any commit, after which a worker counts as stalled."""

STATES = ("parked", "restarting", "stalled", "starting", "disconnected", "waiting", "draining", "running")
"""States, the worst first: that of a stream is the worst of its processes."""

State = dict[str, Any]


def read(board: Board, config: Config) -> dict[str, Any]:
    """The document; the histories and the age quantiles are what the monitor keeps."""
    now = time.time()
    slots = {state["name"]: state for state in board.read()}
    supervisor = slots.pop(SUPERVISOR, {})
    children = supervisor.get("children", {})
    streams = {name: _stream(stream, slots, children, now) for name, stream in config.streams.items() if stream.enabled}
    problems = [{"stream": name, "text": each["reason"]} for name, each in streams.items() if each["reason"]]
    return {
        "version": __version__,
        "now": now,
        "started": supervisor.get("started", now),
        "beat_age": time.monotonic() - supervisor.get("beat", 0.0),
        "ready": not problems,
        "problems": problems,
        "streams": streams,
    }


def _stream(
    stream: StreamConfig, slots: Mapping[str, State], children: Mapping[str, State], now: float
) -> dict[str, Any]:
    count = stream.processes
    names = [stream.name] if count == 1 else [f"{stream.name}/{number}" for number in range(1, count + 1)]
    processes = [_process(name, slots.get(name, {}), children.get(name, {}), now) for name in names]
    worst = min(processes, key=lambda process: STATES.index(process["state"]))
    current = [slots[name] for name in names if name in slots]
    alive = [slot for slot in current if _look(slot["pid"])[0] not in ("", "Z")]
    # What a process that says nothing more knew of its consumer is not true any more.
    fresh = [slot["consumer"] for slot in alive if slot["consumer"] and time.monotonic() - slot["beat"] <= SILENT]
    # Also what processes have counted that are not wanted any more: a counter never goes back.
    every = [slot for slot in slots.values() if slot.get("stream") == stream.name]
    counters = _added(map(_counters, every))
    pending, ack_pending = fresh[0] if fresh else (None, None)
    newest = _latest(every, "newest")
    lag: float | None = None
    if pending is not None:
        lag = 0.0 if not pending else None if newest is None else max(0.0, now - newest)
    return {
        "state": worst["state"],
        "reason": worst["reason"],
        "stream": stream.stream,
        "subjects": list(stream.subjects),
        "durable": stream.durable,
        "table": stream.table,
        "columns_omitted": list(dict.fromkeys(column for slot in alive for column in slot.get("omitted", ()))),
        "processes": processes,
        "nats_connected": all(slot["nats"] for slot in alive) if alive else None,
        "postgres_connected": all(slot["postgres"] for slot in alive) if alive else None,
        "messages": {key: counters.get(key, 0) for key in ("taken", *FATES, "redelivered")},
        "rows_written": counters.get("rows", 0),
        "bytes_taken": counters.get("bytes", 0),
        "reread": counters.get("reread", 0),
        "missing": max((slot["missing"] for slot in current), default=0),
        "restarts": sum(
            child.get("restarts", 0) for name, child in children.items() if name.partition("/")[0] == stream.name
        ),
        "batch_messages": max((slot["batch_messages"] for slot in current), default=0),
        "consumer_pending": pending,
        "consumer_ack_pending": ack_pending,
        "lag_seconds": lag,
        "event_ages": {"buckets": _columns(slot["ages"] for slot in every), "sum": sum(s["age_sum"] for s in every)},
        "last_commit": _latest(every, "last_commit"),
        "rejects": _added(slot["rejects"] for slot in every),
        "repairs": _added(slot["repairs"] for slot in every),
        "errors": _added(slot["errors"] for slot in every),
        "batch_seconds": dict.fromkeys(STAGES, 0.0) | _added(slot["seconds"] for slot in every),
        "batch_durations": {stage: _columns(slot["durations"][stage] for slot in every) for stage in STAGES},
        "dead_letters": sorted(
            (letter for slot in every for letter in slot["dead_letters"]), key=lambda letter: -letter["time"]
        )[:5],
    }


def _counters(slot: State) -> dict[str, int]:
    """The counters of a process. What it had in hand when it died was given back to JetStream by that."""
    counters: dict[str, int] = slot["counters"]
    if _look(slot["pid"])[0] in ("", "Z"):
        in_hand = counters["taken"] - sum(counters[fate] for fate in FATES)
        return {**counters, "released": counters["released"] + in_hand}
    return counters


def _process(name: str, slot: State, child: State, now: float) -> dict[str, Any]:
    pid = int(child.get("pid", 0))
    letter, rss = _look(pid)
    state, reason = _state(slot, child, letter, now)
    return {
        "name": name,
        "pid": pid,
        "state": state,
        "reason": reason,
        "restarts": int(child.get("restarts", 0)),
        "rss_bytes": rss,
        "uptime": now - child["since"] if pid and "since" in child else 0.0,
    }


def _state(slot: State, child: State, letter: str, now: float) -> tuple[str, str]:
    """The state and, unless all is well, the reason."""
    said = str(slot.get("error", ""))
    if child.get("state") in ("parked", "restarting"):
        return child["state"], child.get("why") or said or f"the worker ended with {_how(child.get('status'))}"
    if letter in ("T", "t"):
        return "stalled", f"the worker is stopped (SIGSTOP): SIGCONT to pid {child['pid']} lets it go on"
    if not slot or slot["pid"] != child.get("pid") or not slot["ready"]:
        # One that looks whether its table fits now is parked as long as that is not known.
        return "parked" if slot.get("passing") else "starting", said or "the worker is connecting"
    if slot["draining"]:
        return "draining", "the worker was told to end, and finishes what it has in hand"
    silence = time.monotonic() - slot["beat"]
    if silence > (SILENT if slot["postgres"] else PATIENT):
        return "stalled", f"no sign of life from the worker for {silence:.0f} s"
    if not slot["postgres"]:
        reason = said or "PostgreSQL cannot be reached"
        return "waiting", reason if slot["nats"] else f"{reason}; NATS cannot be reached either"
    if not slot["nats"]:
        why = f" ({slot['nats_error']})" if slot["nats_error"] else ""
        return "disconnected", f"NATS cannot be reached{why}: the worker is reconnecting"
    if slot["trouble"]:
        return "disconnected", slot["trouble"]
    if slot["waiting_since"] and now - slot["waiting_since"] > STUCK:
        waited = now - slot["waiting_since"]
        return (
            "stalled",
            f"{slot['consumer'][0] if slot['consumer'] else 'some'} messages wait, none written for {waited:.0f} s",
        )
    return "running", ""


def _how(status: int | None) -> str:
    if status is None:
        return "an unknown status"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"


def _look(pid: int) -> tuple[str, int]:
    """The state letter and the resident bytes of a process, as /proc tells them."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return fields[0], int(fields[21]) * 4096
    except (OSError, IndexError, ValueError):
        return "", 0


def _latest(slots: Iterable[State], key: str) -> float | None:
    return max((slot[key] for slot in slots if slot[key]), default=None)


def _added(maps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for each in maps:
        for key, value in each.items():
            total[key] = total.get(key, 0) + value
    return total


def _columns(lists: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*lists, strict=True)]


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
