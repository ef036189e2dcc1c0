"""What lies between messages and was noted as done with them, until the consumer was seen to be right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eventwriter.coverage import merge
from eventwriter.jetstream.claims import Claims
from eventwriter.stream import Batch, Message


def batch(steps: list[tuple[int, int]], *, span: bool) -> Batch:
    """Messages that follow each other: how much lies between, and is accounted for."""
    messages, firsts, last = [], [], 0
    for skipped, unknown in steps:
        first = last + unknown + 1
        last = first + skipped
        firsts.append(first)
        messages.append(Message("x", b"", last, 0))
    if span:
        return Batch(messages, None, span=(firsts[0], last))
    return Batch(messages, firsts)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), min_size=1, max_size=20), st.booleans())
def test_what_is_claimed_is_all_but_the_messages(steps: list[tuple[int, int]], span: bool) -> None:
    """And nothing that the batch does not account for."""
    made = batch([(skipped, 0 if span else unknown) for skipped, unknown in steps], span=span)
    claims = Claims()
    claims.add(made)
    found = {n for first, last in claims.ranges() for n in range(first, last + 1)}
    accounted = zip(made.each_first(), made.messages, strict=True)
    assert found == {n for first, message in accounted for n in range(first, message.sequence)}
    assert len(merge(claims.ranges())) <= len(claims.ranges())


def test_they_are_kept_until_the_consumer_was_seen_twice() -> None:
    """What it had delivered when it was seen may be in a batch only afterwards."""
    claims = Claims()
    claims.add(batch([(2, 0), (1, 0)], span=True))
    claims.seen()
    assert claims.ranges() == [(1, 2), (4, 4)]
    claims.seen()
    assert claims.ranges() == []


def test_they_are_not_many() -> None:
    """Without a look at the consumer nothing more is pulled beyond a limit, until there is one."""
    claims, full = Claims(most=6), []
    for _ in range(3):
        claims.add(batch([(1, 0), (0, 0), (2, 0)], span=True))
        full.append(claims.full)
    claims.seen()
    assert [*full, claims.full] == [False, False, True, False]
    assert len(claims.ranges()) == 6
