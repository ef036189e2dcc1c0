"""The loop: one transaction at a time, in order, and work ahead only while there is something to wait for."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from eventwriter import pipeline
from eventwriter.errors import UnavailableError
from eventwriter.stream import Batch, Message, Outcome


def batch(number: int) -> Batch:
    """A batch of one message."""
    return Batch([Message("a", b"", number, 0)], [number])


class Source:
    """Gives batches; which of them are there early is for the test to say."""

    def __init__(self, story: list[str], count: int, early: set[int], patience: int = 99) -> None:
        self.story, self.early, self.patience = story, early, patience
        self.waiting = [batch(number) for number in range(1, count + 1)]

    def take(self) -> Batch | None:
        return self.waiting.pop(0) if self.waiting else None

    def more(self) -> Batch | None:
        if self.waiting and self.waiting[0].each_first()[0] in self.early:
            return self.waiting.pop(0)
        return None

    def acknowledge(self, batch: Batch, set_aside: Mapping[int, float]) -> None:
        assert set_aside == ({3: 1.0} if batch.messages[0].sequence == 3 else {})
        self.story.append(f"ack {batch.each_first()[0]}")

    def hold(self, seconds: float) -> bool:
        self.story.append("hold")
        self.patience -= 1
        return self.patience > 0


class Sink:
    """Writes after as much other work as it is given; ``failures`` of them fail first."""

    def __init__(self, story: list[str], failures: int = 0) -> None:
        self.story, self.failures = story, failures
        self.steps: dict[int, int] = {}

    def prepare(self, batch: Batch) -> bool:
        number = batch.each_first()[0]
        self.steps[number] = self.steps.get(number, 0) + 1
        if self.steps[number] == 1:
            self.story.append(f"prepare {number}")
        return self.steps[number] < 3

    def write(self, batch: Batch, meanwhile: Callable[[], bool]) -> Outcome:
        self.story.append(f"send {batch.each_first()[0]}")
        while meanwhile():
            pass
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")
        self.story.append(f"commit {batch.each_first()[0]}")
        return Outcome(written=1, set_aside={3: 1.0} if batch.messages[0].sequence == 3 else {})


class Rest:
    """Delays and observer that note what is told."""

    def __init__(self, story: list[str]) -> None:
        self.story = story

    def failed(self, now: float) -> float:
        return 0.0

    def succeeded(self, now: float) -> None: ...
    def took(self, batch: Batch, waited: float) -> None:
        self.story.append(f"took {batch.each_first()[0]}")

    def wrote(self, batch: Batch, outcome: Outcome) -> None: ...
    def waits(self, error: UnavailableError, delay: float) -> None: ...


def run(count: int, early: set[int], failures: int = 0, patience: int = 99) -> list[str]:
    """What happens, in order."""
    story: list[str] = []
    rest = Rest(story)
    pipeline.run(Source(story, count, early, patience), Sink(story, failures), rest, rest)
    return story


def test_the_next_batch_is_prepared_between_sending_and_committing() -> None:
    """If it is there; and then it is written next, after the commit and the ack of the first."""
    assert run(3, {2}) == [
        *("took 1", "send 1", "took 2", "prepare 2", "commit 1", "ack 1"),
        *("send 2", "commit 2", "ack 2"),
        *("took 3", "send 3", "commit 3", "ack 3"),
    ]


@pytest.mark.parametrize("early", [set(), {2}, {2, 3}], ids=str)
def test_an_outage_changes_neither_order_nor_number(early: set[int]) -> None:
    """What was prepared waits with what could not be written; each is taken, committed and acknowledged once."""
    story = run(3, early, failures=4)
    for what in ("took", "commit", "ack"):
        assert [line for line in story if line.startswith(what)] == [f"{what} {number}" for number in (1, 2, 3)]
    assert story.count("hold") == 4


def test_what_is_in_flight_when_the_service_ends_in_an_outage_is_not_acknowledged() -> None:
    """Neither the batch nor the one that was prepared."""
    assert run(3, {2}, failures=99, patience=2) == ["took 1", "send 1", "took 2", "prepare 2", "hold", "send 1", "hold"]
