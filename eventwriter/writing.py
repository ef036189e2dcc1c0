"""Between the loop and the sink: looks at the ledger, and its comparison with the stream, between batches."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from eventwriter.observability.report import Report
from eventwriter.postgres.sink import Sink
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Batch, Outcome

LOOK = 2.0
"""Seconds between two looks at the ledger, which also tell whether PostgreSQL is there."""


class Writing:
    """The sink, as the loop sees it. Of the main thread."""

    def __init__(self, sink: Sink, reconciler: Reconciler, report: Report) -> None:
        self._sink = sink
        self._reconciler = reconciler
        self._report = report
        self._next_look = 0.0
        self._failed = False

    def prepare(self, batch: Batch) -> bool:
        """As the sink."""
        return self._sink.prepare(batch)

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        """Writes, after a look if it is time for one."""
        self._failed = True
        if monotonic() >= self._next_look:
            self._look()
        outcome = self._sink.write(batch, meanwhile)
        self._failed = False
        if batch.reread:
            self._reconciler.rewrote(outcome.written + outcome.deadlettered + outcome.excluded)
        return outcome

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
        self._next_look = monotonic() + LOOK
        glance = self._sink.look()
        self._report.missing(glance.lost)
        self._reconciler.noticed(glance)
        self._reconciler.step()
