"""What a worker tells: the log for an operator, and its slot on the board for the monitor."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence

from eventwriter.errors import (
    EventWriterError,
    OversizedError,
    SchemaError,
    UnavailableError,
    kind,
    listed,
    remedy_for_omitted,
)
from eventwriter.observability import histograms, tally
from eventwriter.observability.board import Slot
from eventwriter.observability.letters import LATEST, Letters, View, letter
from eventwriter.observability.states import Kept, WorkerState, slow
from eventwriter.outage import SUMMARY, Member, Outage
from eventwriter.stream import Batch, Outcome

log = logging.getLogger("eventwriter.worker")

_SLOW = 10.0
"""Seconds without an answer of PostgreSQL after which the log is told."""
_EVERY = 0.25
"""Seconds between two writes of the slot: the board is for people and for scrapes."""


def passing(slot: Slot) -> bool:
    """Whether what ended the worker of this slot may be over though its settings stay."""
    state = slot.read(WorkerState)
    return state is not None and state.passing


class Report:
    """Observes one worker. Counters go on from what the slot holds, so they survive the death of a process."""

    def __init__(
        self, name: str, stream: str, slot: Slot | None = None, view: View | None = None, member: Member | None = None
    ) -> None:
        self._extra = {"stream": stream}
        self._letters, self._known = tally.Letters(stream), tally.Known(stream)
        self._latest = Letters(stream, view, slot) if slot and view else None
        self._slot, self.member = slot, member
        self._outage = Outage(log, "PostgreSQL", self._extra, member=member)
        self._written = 0.0
        before = slot.read(WorkerState) if slot else None
        kept = {name: getattr(before, name) for name in Kept.__struct_fields__} if before else {}
        self._state = WorkerState(name=name, stream=stream, pid=os.getpid(), started=time.time(), **kept)
        self._before = before.error if before else ""
        # What the last process had in hand when it died is delivered again, and taken again.
        self._release()
        self.beat(force=True)

    def beat(self, *, force: bool = False) -> None:
        """A sign of life; writes the slot if that was not just done."""
        self._letters.tell()
        self._known.tell()
        if self._latest is not None:
            self._latest.tell()
        now = time.monotonic()
        if self._slot is not None and (force or now - self._written >= _EVERY):
            self._written = now
            self._state.beat = now
            self._slot.write(self._state)

    def waiting(self) -> None:
        """PostgreSQL is at work on what it was given. No sign of life: whoever waits for ever is to be killed."""
        now = time.monotonic()
        if self._slot is not None and now - self._written >= _EVERY:
            self._written = self._state.asked = now
            self._slot.write(self._state)
            if (silence := now - self._state.beat) > _SLOW:
                self._outage.failed(slow(silence), "waiting for its answer", tried=False, began=self._state.beat)

    def ready(self) -> None:
        """Both ends are connected, and ledger and consumer agree."""
        state = self._state
        state.ready = state.nats = state.postgres = state.passing = True
        state.draining, state.error = False, ""
        self.beat(force=True)

    def omits(self, table: str, columns: Sequence[str]) -> None:
        """How the table is written from now on: without these columns."""
        if columns and list(columns) != self._state.omitted:
            told = "table %s is written without %s: %s"
            log.warning(told, table, listed(columns), remedy_for_omitted(self._state.stream), extra=self._extra)
        elif self._state.omitted and not columns:
            log.info("table %s is written with all columns again", table, extra=self._extra)
        self._state.omitted = list(columns)
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
        state = self._state
        state.nats, state.nats_error, state.trouble = connected, nats_error[:500], trouble[:500]
        state.pending, state.ack_pending = pending, ack_pending
        if not pending or standby:
            state.waiting_since = None
        elif state.waiting_since is None:
            state.waiting_since = time.monotonic()

    def ledger(self, highest: int, ranges: int, missing: int) -> None:
        """What it says: up to where messages are done, in how many ranges, and how many nobody will bring any more."""
        self._state.ledger, self._state.missing = [highest, ranges], missing

    def reread(self, messages: int) -> None:
        """So many messages that were missing were read again, and are written."""
        self._state.counters.reread += messages
        self.beat(force=True)

    def acknowledged(self, seconds: float) -> None:
        """The acks of a batch were confirmed, so long after its commit."""
        histograms.spent(self._state, "ack", seconds)

    def took(self, batch: Batch, waited: float) -> None:
        """Every batch."""
        counters = self._state.counters
        counters.taken += len(batch.messages)
        counters.bytes += batch.size
        counters.redelivered += batch.redelivered
        histograms.spent(self._state, "wait", waited, batch.messages[-1].sequence)
        self._state.batches.append(0.0 if batch.reread else batch.messages[-1].time / 1e9)
        self.beat()

    def wrote(self, batch: Batch, outcome: Outcome) -> None:
        """Every committed batch; ``outcome`` is what its parts have not told if it was not written at once."""
        received = self._state.batches.pop(0)
        if not batch.reread:
            histograms.aged(self._state, batch, time.time())
            self._state.newest = received
        self.wrote_part(outcome, batch.messages[-1].sequence)

    def wrote_part(self, outcome: Outcome, sequence: int) -> None:
        """Every commit, up to this sequence: dead letters, redeliveries, and the end of an outage."""
        state, counters = self._state, self._state.counters
        counters.written += outcome.written
        counters.deadlettered += outcome.deadlettered
        counters.already_done += outcome.already_done
        counters.excluded += outcome.excluded
        counters.released += len(outcome.set_aside)
        counters.rows += outcome.rows
        counters.empty += outcome.empty
        for stage, seconds in outcome.seconds.items():
            histograms.spent(self._state, stage, seconds, sequence)
        found = ((state.skipped, outcome.skipped), (state.rejects, outcome.rejects), (state.repairs, outcome.repairs))
        for reasons, more in found:
            tally.count(reasons, more)
        now = time.time()
        if messages := outcome.written + outcome.deadlettered + outcome.already_done + outcome.excluded:
            state.batch_messages, state.last_commit, state.waiting_since = messages, now, None
            state.way = outcome.way or state.way
            self.answered()
        if left_out := outcome.skipped.get("dropped"):
            told = "the table left out %d rows without an error, as a trigger or a rule may: their dead letters name it"
            log.warning(told, left_out, extra=self._extra)
        if outcome.rejects:
            self._letters.add(outcome.rejects)
            latest = [(letter(now, message, reject), message, reject) for message, reject in outcome.latest]
            state.dead_letters = [*(letter for letter, *_ in latest), *state.dead_letters][:LATEST]
            if self._latest is not None:
                self._latest.add(latest)
        if outcome.already_done:
            self._known.add({"": outcome.already_done})
        self.beat(force=True)  # 6 µs after a commit: what is counted is not lost with the process

    def waits(self, error: UnavailableError, delay: float) -> None:
        """A batch waits for PostgreSQL."""
        self._count(error)
        self._state.postgres, self._state.error = False, str(error)[:500]
        self._outage.failed(str(error))
        self.beat(force=True)

    def oversized(self, error: OversizedError, *, alone: bool) -> None:
        """A batch, or a message, was too much at once: another part comes next. If that is, too, nothing is written."""
        self._count(error)
        self._state.postgres, self._state.error = not self._state.error, str(error)[:500]
        log.log(logging.ERROR if alone else logging.WARNING, "%s", error, extra=self._extra)
        self.beat(force=True)

    def answered(self) -> None:
        """PostgreSQL is there, perhaps again."""
        self._state.postgres, self._state.error = True, ""
        self._outage.over()

    def draining(self) -> None:
        """No batch is taken any more: acks are waited for, and the rest is given back."""
        self._state.draining = True
        self.beat(force=True)

    def failed(self, error: EventWriterError) -> None:
        """The worker ends for this. What its last process ended for as well is told as any outage, once a minute."""
        state, now = self._state, time.monotonic()
        known = isinstance(error, UnavailableError) and str(error)[:500] == self._before and now - state.told < SUMMARY
        log.log(logging.DEBUG if known else logging.ERROR, "%s", error, extra=self._extra)
        state.told = state.told if known else now
        self.ended(error)

    def ended(self, error: EventWriterError | None) -> None:
        """The worker ends: what it still had in hand was released."""
        self._letters.tell(now=True)
        self._known.tell(now=True)
        if self._latest is not None:
            self._latest.tell(now=True)
        state = self._state
        if error is not None:
            self._count(error)
            state.error = str(error)[:500]
            state.passing |= isinstance(error, SchemaError)
        self._release()
        state.ready = state.nats = state.postgres = False
        state.pending, state.ack_pending, state.batches = None, None, []
        self.beat(force=True)

    def _release(self) -> None:
        counters = self._state.counters
        counters.released += counters.in_hand

    def _count(self, error: EventWriterError) -> None:
        name = kind(type(error))
        self._state.errors[name] = self._state.errors.get(name, 0) + 1
