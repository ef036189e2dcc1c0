"""One worker process: puts source, pipeline and sink of a stream together, and ends them in order."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from time import monotonic

from eventwriter import pipeline
from eventwriter.backoff import Backoff
from eventwriter.config import Config, StreamConfig
from eventwriter.consumer import restored
from eventwriter.errors import DRAIN_DEADLINE, OK, EventWriterError, UnavailableError
from eventwriter.ledger import Identity
from eventwriter.metrics import Slot
from eventwriter.report import Report
from eventwriter.signals import on_stop
from eventwriter.sink import Sink
from eventwriter.source import Source
from eventwriter.stream import Batch, Outcome, Stream
from eventwriter.subjects import matcher

log = logging.getLogger("eventwriter.worker")

LONGEST_PAUSE = 3.0
"""Seconds between two tries to write a batch during an outage."""
LOOK = 2.0
"""Seconds without a batch after which PostgreSQL is asked whether it is there."""

CRASH_VARIABLE = "EVENTWRITER_CRASH_AT"
"""For tests of exactly once: ``LOGS:after_commit`` kills that worker, without any clean-up, at that point."""


def run(
    config: Config, stream: Stream, *, supervised: bool = False, name: str | None = None, slot: Slot | None = None
) -> int:
    """Runs the worker of one stream until it is told to stop; the exit status.

    SIGTERM or SIGINT: no more pulls, the batch in hand is finished and acknowledged, the rest released. A second one
    ends at once, unless a supervisor sets the deadline: a service manager that signals a whole group makes two of one.
    """
    settings = config.streams[stream.name]
    at = _crash_point(stream.name)
    report = Report(name or stream.name, stream.name, slot)
    source = Source(config.nats, settings, at, lambda: _tell(report, source, writing))
    excluded = matcher(settings.exclude) if settings.exclude else None
    exclusive = settings.writer.ack == "all"
    sink = Sink(config.postgres, stream, settings.table, excluded, at, exclusive=exclusive)
    writing = _Writing(sink, source)
    started = False

    def stop() -> None:
        if not started:
            os._exit(OK)  # nothing is in hand yet, and an exception could come up anywhere in a library
        source.stop()

    try:
        with on_stop(stop, second_ends=not supervised):
            try:
                _prepare(source, sink, settings, at)
                report.ready()
                started = True
                # What exists now lives as long as the process: collections need not look at it again.
                gc.collect()
                gc.freeze()
                # Rows and messages form no cycles, so looking for some after every 700 of them only costs (6 %).
                gc.set_threshold(100_000, 50, 1000)
                source.start()
                pipeline.run(source, writing, Backoff(0.1, LONGEST_PAUSE), report, at)
            finally:
                report.draining()
                clean = source.close(settings.writer.drain_timeout)
                sink.close()
    except EventWriterError as error:
        log.error("%s", error, extra={"stream": stream.name})
        report.ended(error)
        return error.exit_code
    report.ended(None)
    return OK if clean else DRAIN_DEADLINE


def _tell(report: Report, source: Source, writing: _Writing) -> None:
    """The main loop is alive: once a second at least, and whenever it waits."""
    if writing.idle():
        try:
            writing.look()
        except UnavailableError as error:
            report.waits(error, LOOK)
        else:
            report.answered()
    facts = source.latest
    pending, ack_pending = (facts.pending, facts.ack_pending) if facts else (None, None)
    report.consumer(source.connected, pending, ack_pending)
    while source.acknowledged:
        report.acknowledged(source.acknowledged.popleft())
    report.beat()


def _crash_point(stream: str) -> Callable[[str], None] | None:
    name, _, point = os.environ.get(CRASH_VARIABLE, "").partition(":")
    if name != stream:
        return None

    def at(here: str) -> None:
        if here == point:
            os._exit(86)

    return at


def _prepare(source: Source, sink: Sink, settings: StreamConfig, at: Callable[[str], None] | None) -> None:
    """Connects both ends and lets ledger and consumer agree on where to begin."""
    sink.open()
    facts = source.open()
    if at:
        at("at_start")
    identity = Identity(settings.name, facts.name, facts.created, settings.durable)
    highest, _ = sink.begin(identity)
    # Other workers of this consumer may be at work: what is behind is asked first, what is ahead of it second.
    if highest > facts.last_sequence and highest > (last := source.last_sequence()):
        raise restored(settings, last, highest)
    if at:
        at("at_consumer")
    consumer = source.bind(sink.resume(facts.first_sequence))
    for warning in consumer.warnings:
        log.warning("%s", warning, extra={"stream": settings.name})
    if consumer.start > 1:
        # What lies below was skipped, not acknowledged: its absence from the ledger must stay visible.
        sink.distrust(consumer.start - 1)
    if consumer.ack_floor > highest and consumer.ack_floor > (highest := sink.highest()):
        _compare(source, sink, settings, highest, consumer.ack_floor)
    log.info(
        "%s → %s: consumer %s %s, %d messages waiting",
        facts.name,
        settings.table,
        settings.durable,
        "created" if consumer.created else "bound",
        consumer.pending + consumer.ack_pending,
        extra={"stream": settings.name},
    )


def _compare(source: Source, sink: Sink, settings: StreamConfig, highest: int, ack_floor: int) -> None:
    """Acks follow our commits: is something acknowledged that the ledger lacks and the stream still holds?"""
    following = source.next_sequence(highest)
    if following is None or following > ack_floor:
        return
    sink.distrust(ack_floor)
    log.warning(
        "stream %s: messages %d to %d were acknowledged but are not in the ledger: another program used consumer %s, "
        "or the database was restored from a backup; what they held is not written again",
        settings.stream,
        following,
        ack_floor,
        settings.durable,
        extra={"stream": settings.name},
    )


class _Writing:
    """The sink, whose ledger is kept short between batches, and whose database is looked at while there are none."""

    def __init__(self, sink: Sink, source: Source) -> None:
        self._sink = sink
        self._source = source
        self._next_fold = 0.0
        self._next_look = 0.0
        self._failed = False

    def prepare(self, batch: Batch) -> bool:
        """As the sink."""
        return self._sink.prepare(batch)

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        """Writes, after closing the ledger's gaps if they have become many."""
        if self._sink.fragmented and monotonic() >= self._next_fold:
            self._next_fold = monotonic() + 10.0
            try:
                facts = self._source.facts()
                if facts is not None and facts.complete and facts.ack_floor:
                    self._sink.fold(facts.ack_floor)
            except UnavailableError as error:
                log.info("the ledger stays as it is: %s", error)
        self._failed = True
        outcome = self._sink.write(batch, meanwhile)
        self._failed = False
        self._next_look = monotonic() + LOOK
        return outcome

    def idle(self) -> bool:
        """Whether nothing was written for a while, nor waits for another try, which tells all there is to know."""
        return not self._failed and monotonic() >= self._next_look

    def look(self) -> None:
        """Asks the database for something small; raises the error that writing would meet."""
        try:
            self._sink.resume(0)
        finally:
            self._next_look = monotonic() + LOOK
