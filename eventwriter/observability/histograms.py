"""What batches took and how old messages were: counted in buckets, each with the latest batch that fell into it."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

from eventwriter.observability import tally
from eventwriter.observability.board import AGE_BUCKETS, BATCH_BUCKETS, STAGES
from eventwriter.observability.states import Exemplar, Kept, WorkerState
from eventwriter.stream import Batch

AGE = "age"
"""The name of the exemplars of event ages, beside those of STAGES."""


def spent(state: Kept, stage: str, seconds: float, sequence: int | None = None) -> None:
    """A stage of a batch, with the sequence of its last message if that is known."""
    durations, place = state.durations[stage], bisect_left(BATCH_BUCKETS, seconds)
    state.seconds[stage] += seconds
    durations[place] += 1
    if sequence is not None:
        _latest(state, stage, durations)[place] = Exemplar(seconds, sequence, time.time())


def aged(state: Kept, batch: Batch, now: float) -> None:
    """The ages of its messages, at their commit. They are in the order of their arrival: first and last tell of all."""
    count = len(batch.messages)
    for message, share in ((batch.messages[0], count - count // 2), (batch.messages[-1], count // 2)):
        age = max(0.0, now - message.time / 1e9)
        place = bisect_left(AGE_BUCKETS, age)
        state.ages[place] += share
        state.age_sum += age * share
        if share:
            _latest(state, AGE, state.ages)[place] = Exemplar(age, message.sequence, now)


def added(workers: Sequence[WorkerState]) -> dict[str, Any]:
    """Those of a stream, for the status document."""
    return {
        "event_ages": {"buckets": tally.columns(w.ages for w in workers), "sum": sum(w.age_sum for w in workers)},
        "batch_seconds": dict.fromkeys(STAGES, 0.0) | tally.added(w.seconds for w in workers),
        "batch_durations": {stage: tally.columns(w.durations[stage] for w in workers) for stage in STAGES},
        "exemplars": {
            name: _newest(w.exemplars[name] for w in workers if name in w.exemplars) for name in (*STAGES, AGE)
        },
    }


def _latest(state: Kept, name: str, counts: Sequence[int]) -> list[Exemplar | None]:
    return state.exemplars.setdefault(name, [None] * len(counts))


def _newest(lists: Iterable[Sequence[Exemplar | None]]) -> list[list[float] | None]:
    """Of several histograms, bucket by bucket: seconds, sequence and time of the latest batch, if there is one."""
    found: list[list[float] | None] = []
    for column in zip(*lists, strict=True):
        newest = max((each for each in column if each), key=lambda each: each.time, default=None)
        found.append([newest.seconds, newest.sequence, newest.time] if newest else None)
    return found
