"""The loop that the product is: take a batch, write it in one transaction, acknowledge it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Protocol

from eventwriter.errors import UnavailableError
from eventwriter.stream import Batch, Outcome


class Source(Protocol):
    """Where batches come from."""

    def take(self) -> Batch | None:
        """The next batch; None when it is time to end."""

    def acknowledge(self, batch: Batch) -> None:
        """The batch is committed."""

    def hold(self, seconds: float) -> bool:
        """Keeps the batch in hand alive while waiting; False when it is time to end."""


class Sink(Protocol):
    """Where batches go."""

    def write(self, batch: Batch) -> Outcome:
        """Decodes and writes a batch in one transaction, exactly once."""


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

    What is in hand when the source ends during an outage is not acknowledged: the source releases it.
    """
    while True:
        begun = clock()
        batch = source.take()
        if batch is None:
            return
        observer.took(batch, clock() - begun)
        while True:
            try:
                outcome = sink.write(batch)
                break
            except UnavailableError as error:
                delay = delays.failed(clock())
                observer.waits(error, delay)
                if not source.hold(delay):
                    return
        delays.succeeded(clock())
        if at:
            at("after_commit")
        source.acknowledge(batch)
        observer.wrote(batch, outcome)
