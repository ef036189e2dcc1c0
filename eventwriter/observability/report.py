"""What a worker tells: the log for an operator, and its slot on the board for the monitor."""

from __future__ import annotations

import logging
import os
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from eventwriter import values
from eventwriter.errors import EventWriterError, SchemaError, TableError, UnavailableError, listed
from eventwriter.observability.board import AGE_BUCKETS, BATCH_BUCKETS, FATES, STAGES, Slot
from eventwriter.stream import Batch, Outcome

log = logging.getLogger("eventwriter.worker")

_EVERY = 0.25
"""Seconds between two writes of the slot: the board is for people and for scrapes."""
_LATEST = 5
_COUNTERS = ("taken", *FATES, "rows", "bytes", "redelivered", "reread")


def passing(slot: Slot) -> bool:
    """Whether the worker of this slot was ended by what may be over without a reload: a table that does not fit."""
    return bool(slot.read().get("passing"))


class Report:
    """Observes one worker. Counters go on from what the slot holds, so they survive the death of a process."""

    def __init__(self, name: str, stream: str, slot: Slot | None = None) -> None:
        self._extra = {"stream": stream}
        self._slot = slot
        self._waiting_since: float | None = None
        self._cause = ""
        self._written = 0.0
        before = slot.read() if slot else {}
        counters: dict[str, Any] = before.get("counters", {})
        self._counters = {key: int(counters.get(key, 0)) for key in _COUNTERS}
        # What the last process had in hand when it died is delivered again, and taken again.
        self._release()
        self._state: dict[str, Any] = {
            "name": name,
            "stream": stream,
            "pid": os.getpid(),
            "counters": self._counters,
            "seconds": before.get("seconds", dict.fromkeys(STAGES, 0.0)),
            "durations": before.get("durations", {stage: [0] * (len(BATCH_BUCKETS) + 1) for stage in STAGES}),
            "rejects": before.get("rejects", {}),
            "repairs": before.get("repairs", {}),
            "errors": before.get("errors", {}),
            "ages": before.get("ages", [0] * (len(AGE_BUCKETS) + 1)),
            "age_sum": before.get("age_sum", 0.0),
            "dead_letters": before.get("dead_letters", []),
            "last_commit": before.get("last_commit"),
            "batch_messages": 0,
            "started": time.time(),
            "ready": False,
            "draining": False,
            "nats": False,
            "nats_error": "",
            "trouble": "",
            "postgres": False,
            "error": before.get("error", ""),  # what ended the last one, until it is known to be over
            "passing": before.get("passing", False),
            "omitted": [],
            "consumer": None,
            "newest": None,
            "waiting_since": None,
            "missing": 0,
        }
        self.beat(force=True)

    def beat(self, *, force: bool = False) -> None:
        """A sign of life; writes the slot if that was not just done."""
        now = time.monotonic()
        if self._slot is not None and (force or now - self._written >= _EVERY):
            self._written = now
            self._state["beat"] = now
            self._slot.write(self._state)

    def ready(self) -> None:
        """Both ends are connected, and ledger and consumer agree."""
        self._state |= {"ready": True, "nats": True, "postgres": True, "error": "", "passing": False, "draining": False}
        self.beat(force=True)

    def omits(self, table: str, columns: Sequence[str]) -> None:
        """How the table is written from now on: without these columns."""
        if columns and list(columns) != self._state["omitted"]:
            log.warning(
                "table %s is written without %s: `eventwriter schema apply` adds what a table of ours lacks",
                table,
                listed(columns),
                extra=self._extra,
            )
        elif self._state["omitted"] and not columns:
            log.info("table %s is written with all columns again", table, extra=self._extra)
        self._state["omitted"] = list(columns)
        self.beat(force=True)

    def consumer(
        self,
        connected: bool,
        pending: int | None,
        ack_pending: int | None,
        nats_error: str = "",
        trouble: str = "",
        *,
        standby: bool = False,
    ) -> None:
        """What the source knows at this moment (None: unknown), why it is not connected, or why nothing flows then.

        On standby, nothing waits for this worker.
        """
        self._state |= {"nats": connected, "nats_error": nats_error[:500], "trouble": trouble[:500]}
        self._state["consumer"] = None if pending is None else [pending, ack_pending]
        if not pending or standby:
            self._state["waiting_since"] = None
        elif self._state["waiting_since"] is None:
            self._state["waiting_since"] = time.time()

    def missing(self, sequences: int) -> None:
        """So many sequences are not in the ledger and gone from the stream, and nobody took note of it."""
        self._state["missing"] = sequences

    def reread(self, messages: int) -> None:
        """So many messages that were missing were read again, and are written."""
        self._counters["reread"] += messages
        self.beat(force=True)

    def acknowledged(self, seconds: float) -> None:
        """The acks of a batch were confirmed, so long after its commit."""
        self._spent("ack", seconds)

    def took(self, batch: Batch, waited: float) -> None:
        """Every batch."""
        self._counters["taken"] += len(batch.messages)
        self._counters["bytes"] += batch.size
        self._counters["redelivered"] += batch.redelivered
        self._spent("wait", waited)
        self.beat()

    def wrote(self, batch: Batch, outcome: Outcome) -> None:
        """Every committed batch: dead letters, redeliveries, and the end of an outage."""
        counters, state = self._counters, self._state
        for fate in ("written", "deadlettered", "already_done", "excluded"):
            counters[fate] += getattr(outcome, fate)
        counters["rows"] += outcome.rows
        for stage, seconds in outcome.seconds.items():
            self._spent(stage, seconds)
        for reasons, more in ((state["rejects"], outcome.rejects), (state["repairs"], outcome.repairs)):
            for reason, count in more.items():
                reasons[reason] = reasons.get(reason, 0) + count
        now = time.time()
        count = len(batch.messages)
        state |= {"batch_messages": count, "last_commit": now, "waiting_since": None}
        if not batch.reread:
            newest, oldest = batch.messages[-1].time / 1e9, batch.messages[0].time / 1e9
            # A batch is in the order of its arrival: its first and last message tell the ages of those between.
            for age, share in ((now - oldest, count - count // 2), (now - newest, count // 2)):
                state["ages"][bisect_left(AGE_BUCKETS, max(0.0, age))] += share
                state["age_sum"] += max(0.0, age) * share
            state["newest"] = newest
        self.answered()
        if outcome.rejects:
            reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(outcome.rejects.items()))
            log.warning("%d dead letters (%s)", sum(outcome.rejects.values()), reasons, extra=self._extra)
            latest = [
                {
                    "time": now,
                    "reason": reject.reason,
                    "detail": values.clean(reject.detail[:300], []),
                    "subject": message.subject[:200],
                    "sequence": message.sequence,
                }
                for message, reject in outcome.latest
            ]
            state["dead_letters"] = [*latest, *state["dead_letters"]][:_LATEST]
        if outcome.already_done:
            log.info("%d messages were delivered again and known", outcome.already_done, extra=self._extra)
        self.beat(force=True)  # 6 µs after a commit: what is counted is not lost with the process

    def waits(self, error: UnavailableError, delay: float) -> None:
        """Once a cause, not once a try."""
        self._count(error)
        said = self._waiting_since is not None and str(error) == self._cause
        self._cause = str(error)
        self._state |= {"postgres": False, "error": self._cause[:500]}
        if self._waiting_since is None:
            self._waiting_since = time.monotonic()
        if not said:
            log.error("%s: trying again", error, extra=self._extra)
        self.beat(force=True)

    def answered(self) -> None:
        """PostgreSQL is there, perhaps again."""
        self._state |= {"postgres": True, "error": ""}
        if self._waiting_since is not None:
            log.info("PostgreSQL is back after %.1f s", time.monotonic() - self._waiting_since, extra=self._extra)
            self._waiting_since = None

    def draining(self) -> None:
        """No batch is taken any more: acks are waited for, and the rest is given back."""
        self._state["draining"] = True
        self.beat(force=True)

    def ended(self, error: EventWriterError | None) -> None:
        """The worker ends: what it still had in hand was released."""
        if error is not None:
            self._count(error)
            self._state |= {"error": str(error)[:500], "passing": isinstance(error, TableError)}
        self._release()
        self._state |= {"ready": False, "nats": False, "postgres": False, "consumer": None}
        self.beat(force=True)

    def _release(self) -> None:
        counters = self._counters
        counters["released"] += counters["taken"] - sum(counters[fate] for fate in FATES)

    def _spent(self, stage: str, seconds: float) -> None:
        self._state["seconds"][stage] += seconds
        self._state["durations"][stage][bisect_left(BATCH_BUCKETS, seconds)] += 1

    def _count(self, error: EventWriterError) -> None:
        cause = SchemaError if isinstance(error, SchemaError) else type(error)
        kind = cause.__name__.removesuffix("Error").lower()
        self._state["errors"][kind] = self._state["errors"].get(kind, 0) + 1
