"""Ranges of sequences: merged, their holes, and what is missing for which filters."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from eventwriter.config.subjects import covers, subject_matches
from eventwriter.coverage import Past, Segment, holes, merge, runs, segments, to_multirange

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
