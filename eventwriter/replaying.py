"""Has written, at once, what a stream still holds and its ledger lacks: as any batch, without the durable.

The same comparison and the same transaction as a worker's, of a source that pulls nothing. The ledger keeps what
both write at a time to once, so it does not matter whether the service runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from time import monotonic

from eventwriter import pipeline
from eventwriter.config.failpoints import failpoint
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.config.subjects import matcher
from eventwriter.coverage import Range, beliefs
from eventwriter.errors import ConfigurationError, EventWriterError, UnavailableError
from eventwriter.jetstream.source import Source
from eventwriter.observability.report import Report
from eventwriter.postgres import looking
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.processes.backoff import Backoff
from eventwriter.processes.signals import on_stop
from eventwriter.reconcile import Reconciler
from eventwriter.stream import Batch, Stream
from eventwriter.trial import Trial
from eventwriter.writing import Writing

_PAUSE = 0.02
"""Seconds between two looks whether there is something to do."""
_TOLD = 0.5
"""Seconds between two looks at how far it is, in which the ledger is asked."""

Tell = Callable[[int, int], object]
"""Hears how many sequences are done, and of how many."""


@contextmanager
def opened(config: Config, settings: StreamConfig, stream: Stream) -> Iterator[Replay]:
    """Both ends, connected, with the ledger open; raises the error that tells why a replay cannot begin."""
    source = Source(config.nats, settings)
    sink = _sink(config, settings, stream)
    try:
        yield Replay(source, sink, settings, stream)
    finally:
        source.close(2.0)
        sink.close()


def _sink(config: Config, settings: StreamConfig, stream: Stream) -> Sink:
    excluded = matcher(settings.exclude) if settings.exclude else None
    return Sink(config.postgres, stream.leaving_out(settings.omit), settings.table, excluded, failpoint(stream.name))


class Replay:
    """One stream's. Of the main thread."""

    def __init__(self, source: Source, sink: Sink, settings: StreamConfig, stream: Stream) -> None:
        self.source = source
        self.sink = sink
        self._settings = settings
        self._stream = stream.leaving_out(settings.omit)
        self.interrupted = False
        sink.open()
        self.info = source.open(pulls=False)
        self.identity = Identity(settings.name, self.info.name, self.info.created, settings.durable)

    def begin(self, first: int) -> None:
        """Makes all from the sequence ``first`` on the ledger's business, and opens it; makes it if it is missing.

        Raises ConfigurationError where the service goes by other subjects: then it has to be told first.
        """
        consumer, settings = self.source.consumer_info(), self._settings
        believed = beliefs(settings.subjects, settings.exclude)
        with self.sink.session.connection() as connection:
            known = looking.look_up(connection, self.identity)
        if known.filters is not None and {*known.filters} != {*believed} and consumer and consumer.pulled:
            raise ConfigurationError(
                f"the service goes by other subjects of {settings.name} ({', '.join(known.filters)}) than the settings "
                f"of this command ({', '.join(believed)}): give it those of the service, or restart the service with "
                "these, which writes by itself what they add"
            )
        opening = Opening(self.identity, believed, lambda: first - 1, settings.continues, consumer is not None)
        ledger = self.sink.begin(opening)
        if ledger.begins >= first:
            with self.sink.session.connection() as connection:
                connection.execute(
                    "UPDATE eventwriter.ledger SET begins = least(begins, %s), version = version + 1 WHERE id = %s",
                    [first - 1, ledger.row],
                )
            self.sink.begin(opening)

    def run(self, ranges: Sequence[Range], tell: Tell) -> bool:
        """Has everything written that is missing; False if that was interrupted, or cannot be.

        ``ranges`` is what is missing, to tell how far it is. What was written stays so, however this ends: it goes on
        where it was when it is begun again.
        """
        report = Report(self._stream.name, self._stream.name)
        last = max(last for _, last in ranges)  # nobody may make the consumer anew meanwhile, if there is none
        reconciler = Reconciler(self.sink, self.source, self._settings, report, last)
        trial = Trial(self.sink, self._settings, report.beat, lambda: self.interrupted)
        writing = Writing(
            *(self.sink, self._stream, reconciler, report, trial, self._settings.writer),
            ahead=self.source.acknowledge_ahead,
        )
        missing = _Missing(self, reconciler, writing, ranges, tell)
        with on_stop(self._stop):
            pipeline.run(missing, writing, Backoff(0.1, 3.0), report, failpoint(self._stream.name))
        return reconciler.ended == "complete" and not self.interrupted

    def _stop(self) -> None:
        self.interrupted = True


class _Missing:
    """The source, of which only what is missing is taken, as the loop sees it."""

    def __init__(
        self, replay: Replay, reconciler: Reconciler, writing: Writing, ranges: Sequence[Range], tell: Tell
    ) -> None:
        self._source = replay.source
        self._sink = replay.sink
        self._reconciler = reconciler
        self._writing = writing
        self._ranges = ranges
        self._total = sum(last - first + 1 for first, last in ranges)
        self._tell = tell
        self._told = 0.0
        self._replay = replay

    def more(self) -> Batch | None:
        """The next of it, if it is there."""
        return None if self._replay.interrupted else self._source.more()

    def hold(self, seconds: float) -> bool:
        """Waits; False when it is time to end."""
        return not self._replay.interrupted and self._source.hold(seconds)

    def take(self) -> Batch | None:
        """What was missing and is read again; None once nothing is, or what is cannot be written."""
        while self.hold(_PAUSE):
            self._progress()
            if (batch := self.more()) is not None:
                return batch
            if self._reconciler.ended:
                return None
            try:
                self._writing.look()
            except UnavailableError:  # the look that comes next tells when that is over
                self.hold(1.0)
        return None

    def acknowledge(self, batch: Batch, set_aside: Mapping[int, float]) -> None:
        """It is committed."""
        self._source.acknowledge(batch, set_aside)

    def _progress(self) -> None:
        if monotonic() - self._told < _TOLD:
            return
        self._told = monotonic()
        with suppress(EventWriterError), self._sink.session.connection() as connection:
            left = looking.left(connection, self._sink.ledger.row, self._ranges)
            self._tell(self._total - left, self._total)
