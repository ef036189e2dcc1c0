"""Ranges of sequences: merged, their holes, and what is missing for which filters."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eventwriter.config.subjects import covers, matcher, subject_matches
from eventwriter.coverage import Past, Segment, beliefs, holes, merge, runs, segments, to_multirange, wanted, widest
from eventwriter.postgres.scope import Scope
from eventwriter.stream import Message

RANGES = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 8)).map(lambda r: (r[0], r[0] + r[1])), max_size=6)
PATTERNS = st.sampled_from(["a", "a.>", "*", "a.*", "b", ">", "a.b", "*.b", "a.b.>"])
SUBJECTS = ["a", "b", "c", "a.a", "a.b", "b.b", "a.b.c", "c.b.a", "a.b.c.d"]


def members(ranges: list[tuple[int, int]]) -> set[int]:
    """The sequences of ranges."""
    return {n for first, last in ranges for n in range(first, last + 1)}


def test_merge_and_multirange() -> None:
    """Touching and overlapping ranges become one; PostgreSQL gets half-open ones."""
    assert merge([(5, 6), (1, 1), (2, 3), (3, 4), (9, 9)]) == [(1, 6), (9, 9)]
    assert merge([(1, 10), (2, 3)]) == [(1, 10)]
    assert merge([]) == []
    assert to_multirange([(1, 6), (9, 9)]) == "{[1,7),[9,10)}"


def test_runs() -> None:
    """As merge, also when each continues the one before."""
    assert runs([1, 3, 4], [2, 3, 9]) == [(1, 9)]
    assert runs([1, 4], [2, 9]) == [(1, 2), (4, 9)]
    assert runs([], []) == []


@given(RANGES, st.integers(1, 50), st.integers(0, 50))
def test_holes_are_what_is_left(ranges: list[tuple[int, int]], first: int, last: int) -> None:
    """Ranges and holes together are the whole, and do not overlap."""
    assert members(holes(ranges, first, last)) == set(range(first, last + 1)) - members(ranges)


@given(PATTERNS, PATTERNS)
def test_a_pattern_covers_another_if_it_matches_all_that_the_other_does(wide: str, narrow: str) -> None:
    """Among subjects with which these patterns differ."""
    matched = all(subject_matches(wide, each) for each in SUBJECTS if subject_matches(narrow, each))
    assert covers(wide, narrow) == matched


@given(st.sets(PATTERNS, min_size=1, max_size=3), RANGES, st.lists(st.tuples(PATTERNS, RANGES), max_size=3))
def test_what_is_missing_is_missing_for_each_filter(
    filters: set[str], done: list[tuple[int, int]], past: list[tuple[str, list[tuple[int, int]]]]
) -> None:
    """A sequence is missing for a filter unless it is done, or was under filters that covered this one."""
    entries = [Past((pattern,), tuple(ranges)) for pattern, ranges in past]
    found = segments(sorted(filters), 1, 50, done, entries)
    assert all(before.last < after.first for before, after in pairwise(found))
    for pattern in filters:
        known = members(done).union(*(members(ranges) for wide, ranges in past if covers(wide, pattern)))
        missing = members([(each.first, each.last) for each in found if pattern in each.filters])
        assert missing == set(range(1, 51)) - known


def test_segments_by_example() -> None:
    """A filter that was added is missing everywhere, the others where they were before."""
    past = [Past(("logs.a",), ((1, 10),))]
    assert segments(("logs.a", "logs.b"), 1, 12, [(8, 9)], past) == [
        Segment(1, 7, ("logs.b",)),
        Segment(10, 10, ("logs.b",)),
        Segment(11, 12, ("logs.a", "logs.b")),
    ]


EPOCHS = st.lists(
    st.tuples(st.sets(PATTERNS, min_size=1, max_size=2), st.sets(PATTERNS, max_size=2), st.booleans()),
    min_size=1,
    max_size=4,
)
"""Settings of one after the other: subjects, exclude, and whether there is the time to write what is missing."""


@given(EPOCHS, st.lists(st.sampled_from(SUBJECTS), min_size=20, max_size=20))
def test_each_message_that_any_settings_wanted_is_written_once(
    epochs: list[tuple[set[str], set[str], bool]], published: list[str]
) -> None:
    """Whatever was left out, or no subject of ours, when its turn came: as the ledger keeps it, five a turn."""
    written: list[int] = []
    past: list[Past] = []
    before: tuple[str, ...] | None = None
    done: list[tuple[int, int]] = []
    for turn, (filters, exclude, last) in enumerate(epochs):
        now = beliefs(sorted(filters), sorted(exclude))
        if now != before:
            past += [Past(before, tuple(done))] if before is not None and done else []
            done = merge(each for entry in past if all(map(entry.covers, wanted(now, past))) for each in entry.done)
            before = now
        scope, excluded = Scope(now, past), matcher(exclude)
        end = 5 * (turn + 1)
        taken = [range(end - 4, end + 1)]
        if last or turn + 1 == len(epochs):
            missing = segments(scope.filters, 1, end - 5, done, past)
            taken += [range(each.first, each.last + 1) for each in missing]
            for each in missing:
                assert not any(covers(a, b) for a in widest(each.filters) for b in widest(each.filters) if a != b)
        else:
            missing = []
        for sequences in taken:
            for n in sequences:
                subject = published[n - 1]
                asked = n > end - 5 or any(
                    each.first <= n <= each.last and any(subject_matches(f, subject) for f in each.filters)
                    for each in missing
                )
                known = n in members(done) or scope.in_past(Message(subject, b"", n, 0))
                if asked and not known and scope.wants(subject) and not excluded(subject):
                    written.append(n)
        done = merge([*done, *((each.start, each.stop - 1) for each in taken if each)])
    filters, exclude, _ = epochs[-1]
    assert len(written) == len(set(written))
    ours = [n for n in range(1, 5 * len(epochs) + 1) if matcher(filters)(published[n - 1])]
    assert {n for n in ours if not matcher(exclude)(published[n - 1])} <= set(written)
