"""One worker process: puts source, pipeline and sink of a stream together, and ends them in order."""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic, sleep

from eventwriter import pipeline, viewing
from eventwriter.config.failpoints import failpoint
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.config.subjects import matcher
from eventwriter.coverage import Range, beliefs
from eventwriter.errors import (
    DRAIN_DEADLINE,
    OK,
    ConsumerEditedError,
    EventWriterError,
    LedgerChangedError,
    UnavailableError,
)
from eventwriter.jetstream.durable import begins_anew
from eventwriter.jetstream.source import Source
from eventwriter.jetstream.turn import Turn
from eventwriter.observability.board import Slot
from eventwriter.observability.report import Report
from eventwriter.outage import Member
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.retention import Retention
from eventwriter.postgres.sink import Sink
from eventwriter.postgres.succession import predecessors
from eventwriter.processes.backoff import Backoff
from eventwriter.processes.signals import on_stop
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Stream
from eventwriter.trial import Trial
from eventwriter.writing import LOOK, Writing

log = logging.getLogger("eventwriter.worker")

LONGEST_PAUSE = 3.0
"""Seconds between two tries to write a batch during an outage."""


def run(
    config: Config,
    stream: Stream,
    *,
    supervised: bool = False,
    name: str | None = None,
    slot: Slot | None = None,
    turn: Turn | None = None,
    member: Member | None = None,
) -> int:
    """Runs the worker of one stream until it is told to stop; the exit status. With others on its durable it has turns.

    SIGTERM or SIGINT: no more pulls, the batch in flight is finished and acknowledged, the rest released. A second one
    ends at once, unless a supervisor sets the deadline: a service manager that signals a whole group makes two of one.
    A ledger that turns out to be another one than was opened is opened again, and all else with it.
    """
    report = Report(name or stream.name, stream.name, slot, partial(viewing.of_letter, stream), member)
    reopening = Backoff(0.25, 10.0, reset_after=60.0)
    before: _Session | None = None
    while True:
        session = _Session(config, stream, report, turn)
        try:
            with on_stop(session.stop, second_ends=not supervised):
                clean = session.run(before)
        except LedgerChangedError as error:
            log.warning("%s: opening the ledger again", error, extra={"stream": stream.name})
            report.ended(error)
            sleep(reopening.failed(monotonic()))
            before = session
        except EventWriterError as error:
            report.failed(error)
            # Told to end meanwhile: whether anything is left in flight is what matters to who told it.
            return error.exit_code if session.released is None else OK if session.released else DRAIN_DEADLINE
        else:
            report.ended(None)
            return OK if clean else DRAIN_DEADLINE


class _Session:
    """Both ends and what goes on between them, for as long as one ledger is the right one."""

    def __init__(self, config: Config, stream: Stream, report: Report, turn: Turn | None) -> None:
        self._settings = settings = config.streams[stream.name]
        self._report = report
        self._at = at = failpoint(stream.name)
        self._source = Source(config.nats, settings, at, self._tell, turn, report.member)
        self._source.loop.beat = self._alive
        excluded = matcher(settings.exclude) if settings.exclude else None

        def here(point: str) -> None:
            report.beat()  # a batch may take longer than a worker may be silent
            if at:
                at(point)

        self._stream = stream = stream.leaving_out(settings.omit)
        self._sink = Sink(
            *(config.postgres, stream, settings.table, excluded, here),
            exclusive=settings.writer.ack == "all",
            planned=lambda plan: report.omits(settings.table, plan.omitted),
        )
        self._sink.session.waits = self._waits
        self._retention = Retention(self._sink.session, stream.name, config.dead_letters.keep)
        self._writing: Writing | None = None
        self._stopped = self._clean = False

    @property
    def released(self) -> bool | None:
        """Whether everything in flight was acknowledged or released when it was told to end; None: it was not told."""
        return self._clean if self._stopped else None

    def stop(self) -> None:
        """Ends it in order; in a signal handler."""
        if self._writing is None:
            os._exit(OK)  # nothing is in flight yet, and an exception could come up anywhere in a library
        self._stopped = True
        self._source.stop()

    def run(self, before: _Session | None) -> bool:
        """Runs until it is told to stop; whether everything was acknowledged or released.

        ``before`` is the one that ended because its ledger had changed: perhaps since somebody edited the consumer.
        """
        try:
            seen = before._sink.ledger.version if before and before._writing else None  # if it was open
            _prepare(self._source, self._sink, self._settings, self._at, seen=seen)
            if before is not None:
                self._forget(before._source.claims.ranges())
            reconciler = Reconciler(self._sink, self._source, self._settings, self._report)
            self._report.ready()
            trial = Trial(self._sink, self._settings, self._tell, lambda: self._stopped)
            self._writing = Writing(
                *(self._sink, self._stream, reconciler, self._report, trial, self._settings.writer),
                ahead=self._source.acknowledge_ahead,
            )
            if before is None:
                # What exists now lives as long as the process: collections need not look at it again.
                gc.collect()
                gc.freeze()
                # Rows and messages form no cycles, so looking for some after every 700 of them only costs (6 %).
                gc.set_threshold(100_000, 50, 1000)
            self._source.start()
            pipeline.run(self._source, self._writing, Backoff(0.1, LONGEST_PAUSE), self._report, self._at)
        except ConsumerEditedError:
            self._forget(self._source.claims.ranges(), everybody=True)
            raise
        finally:
            self._report.draining()
            self._clean = self._source.close(self._settings.writer.drain_timeout)
            self._sink.close()
        return self._clean

    def _forget(self, ranges: Sequence[Range], *, everybody: bool = False) -> None:
        """What the consumer passed over lately may have been ours: it is compared with the stream again."""
        if not ranges and not everybody:
            return
        try:
            with self._sink.session.connection() as connection:
                self._sink.ledger.forget(connection, ranges, everybody=everybody)
        except UnavailableError as error:
            told = "what the consumer passed over while it was edited counts as done (%d ranges): %s"
            log.error(told, len(ranges), error, extra={"stream": self._settings.name})

    def _tell(self) -> None:
        """The main loop is alive: once a second at least, and whenever it waits."""
        link, report = self._source.link, self._report
        if self._writing is not None and self._writing.idle():
            try:
                self._writing.look()
                self._retention.step()
            except UnavailableError as error:
                report.waits(error, LOOK)
            else:
                report.answered()
        while link.acknowledger.seconds:
            report.acknowledged(link.acknowledger.seconds.popleft())
        self._alive()

    def _alive(self) -> None:
        """Also while an answer of NATS is waited for."""
        self._report.consumer(*self._source.link.told(), standby=self._source.link.puller.standby)
        self._report.beat()

    def _waits(self) -> None:
        """PostgreSQL is at work on what it was given: what NATS tells meanwhile is news all the same."""
        self._report.consumer(*self._source.link.told(), standby=self._source.link.puller.standby)
        self._report.waiting()


def _prepare(
    source: Source, sink: Sink, settings: StreamConfig, at: Callable[[str], None] | None, *, seen: int | None = None
) -> None:
    """Connects both ends and lets ledger and consumer agree on where to begin."""
    sink.open()
    stream = source.open()
    if at:
        at("at_start")
    before = source.consumer_info()
    delivered = 0

    def begins() -> int:
        """What a consumer delivered while there was no ledger is not the business of a new one."""
        nonlocal delivered
        now = source.consumer_info()
        delivered = now.delivered if now else 0
        return max(stream.first_sequence - 1, delivered, 0)

    identity = Identity(settings.name, stream.name, stream.created, settings.durable)
    used = before is not None
    believed = beliefs(settings.subjects, settings.exclude)
    ledger = sink.begin(Opening(identity, believed, begins, settings.continues, used, seen))
    known = sink.look()
    # Other workers of this consumer may be at work: what is behind is asked first, what is ahead of it second.
    source.check_continues(known.highest, known.newest)
    if at:
        at("at_consumer")
    with sink.session.connection() as connection:
        first = ledger.resume(connection, stream.first_sequence)
    consumer = source.bind(first)
    ledger.scope.delivered = consumer.delivered
    for warning in consumer.warnings:
        log.warning("%s", warning, extra={"stream": settings.name})
    if ledger.new and settings.continues is None:
        with sink.session.connection() as connection:
            others = predecessors(connection, settings.name, stream.name, settings.durable)
        for old in others[:1]:
            log.warning("%s", begins_anew(settings, old), extra={"stream": settings.name})
    if ledger.new and delivered:
        log.warning(
            "the ledger of consumer %s is new (a restored database?), but the consumer delivered messages up to "
            "sequence %d before: what was acknowledged of them is not read again on a guess; if they are missing from "
            "%s, `eventwriter replay --stream %s` writes what the stream still holds of them",
            *(settings.durable, delivered, settings.table, settings.name),
            extra={"stream": settings.name},
        )
    log.info(
        "%s → %s: consumer %s %s, %d messages waiting",
        *(stream.name, settings.table, settings.durable, "created" if consumer.created else "bound"),
        consumer.pending + consumer.ack_pending,
        extra={"stream": settings.name},
    )
