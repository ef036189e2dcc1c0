"""What is counted and told by reason, however many there are."""

from __future__ import annotations

import msgspec
import pytest

from eventwriter.observability.board import LARGEST
from eventwriter.observability.tally import OTHER, REASONS, Letters, count


def test_the_first_are_told_at_once_and_those_that_follow_together(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand batches with dead letters in a minute are two lines of the log, and none is left out."""
    now = 10.0
    letters = Letters("LOGS", lambda: now)
    for _ in range(1000):
        letters.add({"malformed": 1, "too_large": 2})
        now += 0.059
    letters.tell()
    assert [record.getMessage() for record in caplog.records] == ["3 dead letters (malformed 1, too_large 2)"]
    now += 2
    letters.tell()
    letters.tell()
    assert caplog.records[-1].getMessage() == "2997 dead letters (malformed 999, too_large 1998)"
    letters.add({"malformed": 1})
    letters.tell(now=True)
    assert [record.getMessage() for record in caplog.records[2:]] == ["1 dead letter (malformed 1)"]


@pytest.mark.parametrize("name", ["reason {}", "r" * 200 + "{}", "{}"])
def test_reasons_are_few(name: str) -> None:
    """A decoder that makes reasons of what messages hold fills neither the metrics nor the board; none is uncounted."""
    counts: dict[str, int] = {}
    for number in range(1000):
        count(counts, {name.format(number): 2})
    assert len(counts) <= REASONS + 1
    assert all(len(reason) <= REASONS for reason in counts)
    assert sum(counts.values()) == 2000
    assert counts[OTHER] >= 2 * (1000 - REASONS)


@pytest.mark.parametrize("letter", ["r", "\x01", "\N{GRINNING FACE}"])
def test_reasons_are_short_where_they_are_written(letter: str) -> None:
    """In JSON, where a character may take six bytes: rejects and repairs together leave room for the rest of a slot."""
    counts: dict[str, int] = {}
    for number in range(1000):
        count(counts, {f"{number}{letter * 97}": 10**9})
    assert 2 * len(msgspec.json.encode(counts)) < LARGEST / 2
    assert sum(counts.values()) == 1000 * 10**9
