"""Which records of a message are written for its dead letters, and which letters wait as before: against a model."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from eventwriter.commands.dlq_fates import Left, Piece, Result
from eventwriter.stream import Decoded, Message, Reject

MESSAGE = Message("a", b"", 1, 0)
RECORDS = st.lists(st.booleans(), max_size=8)
"""Of each record of a message whether it is a row."""
INDICES = st.dictionaries(st.integers(1, 20), st.none() | st.integers(0, 9), min_size=1, max_size=6)
"""The letters of the message by their numbers: which record each is about."""


@given(RECORDS, INDICES, st.sets(st.integers(1, 20)), st.sets(st.integers(0, 8)), st.booleans())
@example([True, False, True], {1: None}, {1}, {2}, False)
@example([False, False], {1: None, 2: 1}, {1, 2}, set(), False)
def test_records_and_letters(
    records: list[bool], letters: dict[int, int | None], ours: set[int], bad: set[int], whole: bool
) -> None:
    """Each record that is wanted is written once; a letter waits unless its record is a row then."""
    if whole:
        records = []
    rejects = [Reject("decoder", "no", None if whole else index) for index in range(len(records)) if not records[index]]
    rejects += [Reject("decoder", "no")] if whole else []
    rows = [(index,) for index, good in enumerate(records) if good]
    piece = Piece(MESSAGE, letters, Decoded(rows, rejects))

    chosen = piece.choose(ours)
    mine = {number: index for number, index in letters.items() if number in ours}
    wanted = {index for (index,) in rows if None in mine.values() or index in mine.values()}
    assert sorted(index for (index,) in chosen) == sorted(wanted)
    assert piece.numbers == [*mine]

    # PostgreSQL names rows by their place among those that were sent.
    refused = [Reject("refused", "no", place) for place, (index,) in enumerate(chosen) if index in bad]
    why = piece.refused(refused)
    waiting, added = piece.settle(why)
    written = wanted - bad
    lost = {index for index in range(len(records)) if not records[index]} | (wanted & bad)
    for number, index in mine.items():
        if whole:
            done = False
        elif index is None:
            done = bool(written) or not lost
        else:
            done = index in written
        assert (number not in waiting) is done, (number, index)
        if not done and index in lost:
            assert waiting[number].record_index == index
    # What is lost of a message that was a letter as a whole is a letter by itself, unless it waits as a whole.
    fresh = None in mine.values() and not whole and (bool(written) or not lost)
    assert {reject.record_index for reject in added} == (lost - {*letters.values()} if fresh else set())


def test_results_add_up() -> None:
    """Of each reason all numbers, and what was said of the first."""
    one, two, left = Result(), Result(replayed=2, rows=3, added=1, busy=1), Left("LOGS", "refused", "22003")
    one.leave(left, "first", [1])
    two.leave(left, "second", [2, 3])
    one.add(two)
    assert (one.replayed, one.rows, one.added, one.busy) == (2, 3, 1, 1)
    assert (one.left[left], one.details[left]) == ([1, 2, 3], "first")
