"""Between the loop and the sink: looks at the ledger, and its comparison with the stream, between batches."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from time import monotonic

from eventwriter.config.model import WriterConfig
from eventwriter.errors import OversizedError
from eventwriter.observability.report import Report
from eventwriter.postgres.budget import TooMuchError
from eventwriter.postgres.policy import Sizes
from eventwriter.postgres.rehearsal import decode_as
from eventwriter.postgres.sink import Sink
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Batch, Outcome, Stream
from eventwriter.trial import Trial, spared

LOOK = 2.0
"""Seconds between two looks at the ledger, which also tell whether PostgreSQL is there."""
PAUSE = 10.0
"""How many times as long as it took to be too much a message stays set aside: its stream shall have the time."""
TRIES = 3
"""So many such messages are set aside at once; what holds for more may hold for all, and each has more tries."""
_REMEMBERED = 10_000
"""Such messages that are known; beyond, they are found again."""

_ANY = 1 << 30
_SHORT = 1.0
"""Seconds of a part that may be twice as large after one that was too much."""
SHARE = 8
"""What may have been too much for the worker that had it in hand is written in so many transactions, not in one."""


class Writing:
    """The sink, as the loop sees it. Of the main thread."""

    def __init__(
        self,
        sink: Sink,
        stream: Stream,
        reconciler: Reconciler,
        report: Report,
        trial: Trial,
        settings: WriterConfig,
        ahead: Callable[[Batch, int], None],
    ) -> None:
        """``ahead`` acknowledges so many messages at the head of what is left of a batch that is not done yet."""
        self._sink = sink
        self._ahead = ahead
        self._stream = stream
        self._reconciler = reconciler
        self._report = report
        self._trial = trial
        self._settings = settings
        self._next_look = 0.0
        self._failed = False
        self._sizes = Sizes()
        self._enough = _ANY
        """How many messages the next transaction may have, of what they become."""
        self._batch: Batch | None = None
        self._place = 0
        """How many messages of that batch are committed already, or set aside."""
        self._known = False
        """Whether all of them were done before: nothing of what comes again is decoded then."""
        self._set_aside: dict[int, float] = {}
        """Those of them that are set aside."""
        self._alone: set[int] = set()
        """Sequences that were too much by themselves: they are tried without their neighbours from then on."""
        self._failures = 0
        """How many others were, one after the other, since something was written."""

    def prepare(self, batch: Batch) -> bool:
        """As the sink; a batch that will not be written at once is not prepared."""
        whole = len(batch.messages) <= min(self._sizes.most, self._enough) and not self._trial.due(batch)
        return whole and self._sink.prepare(batch)

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        """Writes, after a look if it is time for one; of what is not written at once, the outcome is told before.

        What is too much for one transaction is written in several. When the batch comes again after an outage, only
        what is left of it is written.
        """
        self._failed = True
        if monotonic() >= self._next_look:
            self._look()
        if batch is not self._batch:
            self._batch, self._place, self._set_aside, self._known = batch, 0, {}, False
            decode_as(self._sink, self._stream)
        if self._trial.due(batch):
            self._try(batch)
        outcome = Outcome()
        while self._place < len(batch.messages):
            part, begun = self._part(batch), monotonic()
            try:
                outcome = self._sink.write(part, meanwhile)
            except TooMuchError as error:
                self._enough = error.messages
                continue
            except OversizedError as error:
                self._divide(error, part, monotonic() - begun)
                continue
            self._failures = 0
            self._alone -= {message.sequence for message in part.messages} if self._alone else set()
            self._sizes.wrote(len(part.messages))
            self._place += len(part.messages)
            if monotonic() - begun < _SHORT:  # else as many of the next ones would be too much again
                self._enough = min(2 * self._enough, _ANY)
            if batch.reread:
                self._reconciler.rewrote(outcome.written + outcome.deadlettered + outcome.excluded)
            if part is not batch:
                self._report.wrote_part(outcome, part.messages[-1].sequence)
                outcome = Outcome()
                if self._place < len(batch.messages) and not self._set_aside:
                    self._ahead(batch, len(part.messages))
        outcome.set_aside = self._set_aside
        self._batch, self._failed = None, False
        return outcome

    def _try(self, batch: Batch) -> None:
        """Finds out which messages that are not done yet cannot be decoded, so that they are not."""
        with self._sink.session.connection() as connection:
            done, past = self._sink.ledger.known(connection, batch.messages)
        self._known = len(done | past) == len(batch.messages)
        crashing = self._trial.crashing(batch, done | past)
        if crashing:
            decode_as(self._sink, spared(self._stream, crashing))

    def _part(self, batch: Batch) -> Batch:
        """What to write next of a batch, as much as may work."""
        most = min(self._sizes.most, self._enough, len(batch.messages))
        if batch.redelivered and not self._known:
            most = min(most, -(-len(batch.messages) // SHARE))
        if self._alone:
            ahead = islice(batch.messages, self._place, self._place + most)
            places = [place for place, message in enumerate(ahead) if message.sequence in self._alone]
            most = max(1, places[0]) if places else most
        return batch.part(self._place, most)

    def _divide(self, error: OversizedError, part: Batch, seconds: float) -> None:
        """Makes the next part smaller, or sets a message aside that is too much by itself, and says so.

        Raises the error when that happened to others as well, and nothing was written since: so it may be no matter of
        size, and is tried again some times.
        """
        count, message = len(part.messages), part.messages[0]
        value = self._sink.session.setting(error.limit)
        ours = "postgres." if error.limit == "statement_timeout" else ""
        limit = f" ({ours}{error.limit} = {value})" if value else ""
        which = f"message {message.sequence}, of {len(message.payload)} bytes, alone is" if count == 1 else ""
        told = f"{str(error).rstrip('.')}: {which or f'{count} messages are'} too much at once{limit}"
        known = message.sequence in self._alone
        if not known:
            self._sizes.failed(count)
            self._failures += count == 1
        if count > 1:
            then = f"{self._sizes.most} come next"
        elif self._settings.ack == "all" or (not known and self._failures > TRIES and self._failures % TRIES):
            # An acknowledgement of all cannot leave one out.
            raise OversizedError(told, error.limit) from error
        else:
            then = "it is set aside, and tried again later"
            self._alone = {message.sequence} | (self._alone if len(self._alone) < _REMEMBERED else set())
            self._set_aside[message.sequence] = max(self._settings.ack_wait, PAUSE * seconds)
            self._place += 1
        self._report.oversized(OversizedError(f"{told}, {then}"), alone=count == 1)

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
        self._report.ledger(glance.highest, glance.ranges, glance.lost)
        self._reconciler.noticed(glance)
        self._reconciler.step()
