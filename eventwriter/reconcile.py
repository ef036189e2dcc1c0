"""Compares the ledger with the stream, and has written what is missing.

What the stream still holds, matches the filters, and is not in the ledger, is missing. Up to the consumer's ack floor
nobody else will bring it: it was acknowledged, so it was written once, into a database that went back in time since; or
its subject was not among the filters then; or somebody else acknowledged it. It is read again, beside the live
messages, and written by the ordinary transaction. What the stream does not hold any more is lost (``losses``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import Literal, Protocol
from uuid import uuid4

from eventwriter import losses
from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import Range, Segment
from eventwriter.errors import ConfigurationError, ForbiddenError, UnavailableError
from eventwriter.jetstream import holdings
from eventwriter.jetstream.source import Source
from eventwriter.postgres.ledger import Glance
from eventwriter.postgres.sink import Sink

log = logging.getLogger("eventwriter.reconcile")

PERIOD = 60.0
"""Seconds between two comparisons when nothing is suspected; one of a clean ledger takes a few milliseconds."""
SOON = 1.0
"""Seconds until the next one when something is not acknowledged yet, or could not be asked."""
FRAGMENTED = 50
"""Ranges of the ledger from which on it is compared more often, to close the gaps: an update costs more with each."""
OFTEN = 10.0
_TURN = 6.0
"""Seconds for which a worker keeps the others from comparing the same ledger; one that dies meanwhile delays them."""


class _StreamAway(Exception):
    """JetStream does not answer, or not what was asked."""


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except (UnavailableError, ConfigurationError) as error:
        raise _StreamAway(str(error)) from error


class Told(Protocol):
    """Who is told what was found."""

    def reread(self, messages: int) -> None:
        """So many messages that were missing are written."""


class Reconciler:
    """One worker's comparisons; ``step`` is called between batches, and never waits for more than a few answers."""

    def __init__(self, sink: Sink, source: Source, config: StreamConfig, told: Told, last: int = 0) -> None:
        """Without a consumer it goes up to ``last``; if that is 0, it waits until there is one again."""
        self._sink = sink
        self._source = source
        self._config = config
        self._told = told
        self._last = last
        self._extra = {"stream": config.name}
        self._who = uuid4()
        self._next = 0.0
        self._claimed = 0.0
        self._doubt = "the worker starts"
        self._target = 0
        self._connections = (sink.session.connections, source.reconnects)
        self._asked: tuple[list[Segment], Future[list[Segment]]] | None = None
        self._read: Future[None] | None = None
        self._passed = 0
        self._said = ""
        self._failed = self._asked_for = False
        self._count = self._ranges = 0
        self._begins = sink.ledger.begins
        self.ended: Literal["", "complete", "in vain"] = ""
        """How the latest comparison ended: nothing is missing up to where it looked, or what is cannot be written."""

    def noticed(self, glance: Glance) -> None:
        """What a look at the ledger told."""
        self._ranges = glance.ranges
        if glance.begins < self._begins:
            self._doubted("somebody asked for a replay")
            self._asked_for = True
        self._begins = glance.begins

    def rewrote(self, messages: int) -> None:
        """A batch that was read again is committed."""
        self._count += messages
        self._told.reread(messages)

    def step(self) -> None:
        """Goes on with a comparison, or begins one that is due. What JetStream cannot tell now is asked again soon.

        Raises UnavailableError while PostgreSQL is away, LedgerChangedError.
        """
        now = monotonic()
        self._suspect()
        pending = self._asked or self._read
        if now < self._next and pending is None:
            return
        try:
            if pending is not None and now - self._claimed > _TURN / 3:
                self._claim()
            if self._read is not None:
                self._written(self._read)
            elif self._asked is not None:
                self._answered(*self._asked)
            elif self._source.connected:
                self._compare()
        except _StreamAway as error:
            self._postpone()
            told = (
                isinstance(error.__cause__, ForbiddenError) or self._source.link.trouble or not self._source.connected
            )
            if self._failed and str(error) != self._said and not told:  # already, or as the beginning of an outage
                self._said = str(error)
                log.warning("the ledger cannot be compared with the stream now: %s", error, extra=self._extra)
            self._failed = True
        except UnavailableError:  # PostgreSQL: as for any batch
            self._postpone()
            raise

    def _postpone(self) -> None:
        for under_way in (self._asked and self._asked[1], self._read):
            if under_way is not None:
                under_way.cancel()
        self._asked = self._read = None
        self._next = monotonic() + SOON

    def _suspect(self) -> None:
        connections = (self._sink.session.connections, self._source.reconnects)
        if self._sink.rewound:
            self._sink.rewound = False
            self._doubted("the database went back in time")
            log.warning(
                "stream %s: the database went back in time: comparing the ledger with the stream",
                self._config.stream,
                extra=self._extra,
            )
        elif connections != self._connections:
            self._doubted("a connection was lost")
        elif self._ranges > FRAGMENTED:
            self._next = min(self._next, self._claimed + OFTEN)
        self._connections = connections

    def _doubted(self, why: str) -> None:
        """What was asked before may be about another ledger: its answer would end the doubt."""
        if self._asked is not None:
            self._asked[1].cancel()
            self._asked = None
        self._doubt = why
        self._target = 0
        self._next = 0.0

    def _claim(self, seconds: float = _TURN) -> bool:
        with self._sink.session.connection() as connection:
            ours = self._sink.ledger.claim(connection, self._who, seconds)
        if ours:
            self._claimed = monotonic()
        return ours

    def _compare(self) -> None:
        """Finds what the ledger lacks below the consumer's position; most often nothing."""
        if not self._claim():
            self._next = monotonic() + (SOON if self._doubt else PERIOD)
            return
        # The stream before the consumer, both before the ledger: what is behind is asked first.
        with _asking():
            stream = self._source.stream_info()
            consumer = self._source.consumer_info()
        if consumer is None and not self._last:
            self._next = monotonic() + SOON
            return
        passed = holdings.passed(stream, consumer) if consumer else self._last
        self._target = self._target or (consumer.delivered if consumer else passed)
        with self._sink.session.connection() as connection:
            missing = self._sink.ledger.missing(connection, 1, passed)
        kept = losses.note(self._sink, self._config, missing, stream, asked_for=self._asked_for)
        if kept:
            self._asked = kept, self._source.held(kept)
        else:
            self._finished(passed)
        self._passed = passed

    def _answered(self, asked: list[Segment], future: Future[list[Segment]]) -> None:
        """Closes the gaps in which there is nothing of ours, and has the others read."""
        if not future.done():
            return
        self._asked = None
        with _asking():
            held = future.result()
        begins = {segment.last: segment.first for segment in held}
        empty = [(s.first, begins.get(s.last, s.last + 1) - 1) for s in asked]
        self._close([(first, last) for first, last in empty if first <= last])
        if not held:
            self._finished(self._passed)
            return
        log.warning(
            "stream %s: messages between sequences %d and %d are not in the ledger, and nobody will deliver them: "
            "reading them again (%s)",
            *(self._config.stream, held[0].first, held[-1].last, self._doubt or "found in passing"),
            extra=self._extra,
        )
        self._read = self._source.reread(held)

    def _written(self, future: Future[None]) -> None:
        """Once all that was read is committed, looks again: nothing is closed that was not seen to be empty."""
        if not future.done():
            return
        with _asking():
            future.result()
        if self._source.rereads.idle:
            self._read = None
            # What was looked for and not found: not at once again, whatever the reason.
            self._next = monotonic() + (0.0 if self._count else OFTEN)
            self.ended = "" if self._count else "in vain"
            log.log(
                logging.WARNING if self._count else logging.INFO,
                "%d messages were read again and written",
                self._count,
                extra=self._extra,
            )
            self._count = 0

    def _close(self, ranges: Sequence[Range]) -> None:
        if ranges:
            with self._sink.session.connection() as connection:
                self._sink.ledger.close(connection, ranges)

    def _finished(self, passed: int) -> None:
        """What was delivered and is not acknowledged yet is looked at again soon, if there is doubt."""
        self.ended = "complete"
        if self._doubt and passed < self._target:
            self._next = monotonic() + SOON
            return
        self._doubt = self._said = ""
        self._failed = self._asked_for = False
        self._target = 0
        self._next = monotonic() + PERIOD
        self._claim(0.0)  # a worker that begins, perhaps with other filters, need not wait for our turn to end
