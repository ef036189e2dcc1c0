"""The loop that the product is: take a batch, write it in one transaction, acknowledge it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import Protocol

from eventwriter.errors import UnavailableError
from eventwriter.stream import Batch, Outcome


class Source(Protocol):
    """Where batches come from."""

    def take(self) -> Batch | None:
        """The next batch; None when it is time to end."""

    def more(self) -> Batch | None:
        """The next batch if it is there already, and full."""

    def acknowledge(self, batch: Batch, set_aside: Mapping[int, float]) -> None:
        """The batch is committed, but for the sequences that are to come again after so many seconds."""

    def hold(self, seconds: float) -> bool:
        """Keeps what is in flight alive while waiting; False when it is time to end."""


class Sink(Protocol):
    """Where batches go."""

    def prepare(self, batch: Batch) -> bool:
        """One small step towards writing a batch; False when there is nothing more to do."""

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        """Decodes and writes a batch in one transaction, exactly once; calls ``meanwhile`` rather than wait idly."""


class Delays(Protocol):
    """How long to wait between tries."""

    def failed(self, now: float) -> float:
        """Seconds until the next try."""

    def succeeded(self, now: float) -> None:
        """It worked."""


class Observer(Protocol):
    """Who is told what happened."""

    def took(self, batch: Batch, waited: float) -> None:
        """A batch was taken, after this many seconds of waiting."""

    def wrote(self, batch: Batch, outcome: Outcome) -> None:
        """A batch was committed."""

    def waits(self, error: UnavailableError, delay: float) -> None:
        """A batch could not be written; it is tried again after ``delay`` seconds."""


def run(
    source: Source,
    sink: Sink,
    delays: Delays,
    observer: Observer,
    at: Callable[[str], None] | None = None,
    clock: Callable[[], float] = monotonic,
) -> None:
    """Moves batches until the source ends. A batch is acknowledged only after its commit, however long that takes.

    While PostgreSQL is at work on a batch, the next one is prepared, if there is a full one: one transaction at a time,
    but neither side waits for the other. What is in flight when the source ends during an outage is not acknowledged:
    the source releases it.
    """
    following: Batch | None = None
    written: Batch | None = None

    def meanwhile() -> bool:
        nonlocal following, written
        written = None  # to free thousands of messages takes milliseconds, too: not between two transactions
        if following is None:
            following = source.more()
            if following is None:
                return False
            observer.took(following, 0.0)
        return sink.prepare(following)

    while True:
        batch, following = following, None
        if batch is None:
            written = None
            begun = clock()
            batch = source.take()
            if batch is None:
                return
            observer.took(batch, clock() - begun)
        while True:
            try:
                outcome = sink.write(batch, meanwhile)
                break
            except UnavailableError as error:
                delay = delays.failed(clock())
                observer.waits(error, delay)
                if not source.hold(delay):
                    return
        delays.succeeded(clock())
        if at:
            at("after_commit")
        written = batch
        source.acknowledge(batch, outcome.set_aside)
        observer.wrote(batch, outcome)
