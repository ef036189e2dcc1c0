"""Between the loop and the sink: looks at the ledger, and its comparison with the stream, between batches."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from eventwriter.errors import OversizedError
from eventwriter.observability.report import Report
from eventwriter.postgres.policy import Sizes
from eventwriter.postgres.rehearsal import decode_as
from eventwriter.postgres.sink import Sink
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Batch, Outcome, Stream
from eventwriter.trial import Trial, spared

LOOK = 2.0
"""Seconds between two looks at the ledger, which also tell whether PostgreSQL is there."""

SHARE = 8
"""What may have been too much for the worker that had it in hand is written in so many transactions, not in one."""


class Writing:
    """The sink, as the loop sees it. Of the main thread."""

    def __init__(self, sink: Sink, stream: Stream, reconciler: Reconciler, report: Report, trial: Trial) -> None:
        self._sink = sink
        self._stream = stream
        self._reconciler = reconciler
        self._report = report
        self._trial = trial
        self._next_look = 0.0
        self._failed = False
        self._sizes = Sizes()
        self._batch: Batch | None = None
        self._place = 0
        """How many messages of that batch are committed already."""

    def prepare(self, batch: Batch) -> bool:
        """As the sink; a batch that will not be written at once is not prepared."""
        whole = len(batch.messages) <= self._sizes.most and not self._trial.due(batch)
        return whole and self._sink.prepare(batch)

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        """Writes, after a look if it is time for one; what became of the last part of the batch.

        What is too much for one transaction is written in several. When the batch comes again after an outage, only
        what is left of it is written.
        """
        self._failed = True
        if monotonic() >= self._next_look:
            self._look()
        if batch is not self._batch:
            self._batch, self._place = batch, 0
            decode_as(self._sink, self._stream)
        if self._trial.due(batch):
            self._try(batch)
        share = -(-len(batch.messages) // SHARE) if batch.redelivered else len(batch.messages)
        while True:
            part = batch.part(self._place, min(self._sizes.most, share))
            try:
                outcome = self._sink.write(part, meanwhile)
            except OversizedError as error:
                self._shrink(error, part)
                continue
            self._sizes.wrote(len(part.messages))
            self._place += len(part.messages)
            if batch.reread:
                self._reconciler.rewrote(outcome.written + outcome.deadlettered + outcome.excluded)
            if self._place >= len(batch.messages):
                self._batch, self._failed = None, False
                return outcome
            self._report.wrote_part(outcome)

    def _try(self, batch: Batch) -> None:
        """Finds out which messages that are not done yet cannot be decoded, so that they are not."""
        with self._sink.session.connection() as connection:
            done, past = self._sink.ledger.known(connection, batch.messages)
        crashing = self._trial.crashing(batch, done | past)
        if crashing:
            decode_as(self._sink, spared(self._stream, crashing))

    def _shrink(self, error: OversizedError, part: Batch) -> None:
        """Makes the next part smaller, and says so; raises the error if it is a message by itself."""
        count = len(part.messages)
        self._sizes.failed(count)
        value = self._sink.session.setting(error.limit)
        ours = "postgres." if error.limit == "statement_timeout" else ""
        limit = f" ({ours}{error.limit} = {value})" if value else ""
        if count == 1:
            message = part.messages[0]
            which = f"message {message.sequence}, of {len(message.payload)} bytes, alone"
            raise OversizedError(f"{error}: {which} is too much at once{limit}", error.limit) from error
        self._report.shrinks(
            OversizedError(f"{error}: {count} messages are too much at once{limit}, {self._sizes.most} come next")
        )

    def idle(self) -> bool:
        """Whether it is time to look, and no batch waits for another try, which tells all there is to know."""
        return not self._failed

    def look(self) -> None:
        """Looks whether database, table and ledger are as they were; raises the error that writing would meet."""
        if monotonic() >= self._next_look:
            self._look()
        else:
            self._reconciler.step()

    def _look(self) -> None:
        glance = self._sink.look()
        self._next_look = monotonic() + LOOK  # after one that failed at once: nothing else tells that it is over
        self._report.missing(glance.lost)
        self._reconciler.noticed(glance)
        self._reconciler.step()
