"""Subjects match as the NATS server matches them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventwriter.config import subjects

TOKENS = st.sampled_from(["a", "b", "a+", "processed", "$x"])
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda head, tail: ".".join(head + tail),
    st.lists(TOKENS | st.just("*"), min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
)


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("logs.>", "logs.syslog", True), ("logs.>", "logs.a.b.c", True), ("logs.>", "logs", False),
        ("logs.*", "logs.syslog", True), ("logs.*", "logs.a.b", False), ("logs.*", "logs", False),
        ("*.processed", "a.processed", True), ("*.*.processed", "a.processed", False), (">", "a", True),
        ("otel.traces", "otel.traces", True), ("otel.traces", "otel.traces.raw", False), ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True), ("a+", "aa", False), ("a.b", "axb", False),
    ],
)  # fmt: skip
def test_wildcards(pattern: str, subject: str, expected: bool) -> None:
    """A star is exactly one token, a greater-than sign one or more; both functions agree."""
    assert subjects.subject_matches(pattern, subject) is expected
    assert subjects.matcher([pattern])(subject) is expected


@given(st.lists(PATTERNS, max_size=4), SUBJECTS)
def test_the_compiled_form_says_the_same(patterns: list[str], subject: str) -> None:
    """A matcher of many patterns matches exactly what one of them matches."""
    expected = any(subjects.subject_matches(pattern, subject) for pattern in patterns)
    assert subjects.matcher(patterns)(subject) is expected


@given(st.lists(st.text("ab.*>", max_size=6), max_size=3), st.text("ab.*>", max_size=6))
def test_the_forms_agree_on_anything(patterns: list[str], subject: str) -> None:
    """Even ill-formed patterns and subjects get one answer, not two."""
    assert subjects.matcher(patterns)(subject) is any(subjects.subject_matches(p, subject) for p in patterns)


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_what_two_patterns_match_is_an_overlap(one: str, other: str, subject: str) -> None:
    """Overlap is symmetric and never misses a subject that both match."""
    assert subjects.overlap(one, other) is subjects.overlap(other, one)
    if subjects.subject_matches(one, subject) and subjects.subject_matches(other, subject):
        assert subjects.overlap(one, other)


@given(PATTERNS, PATTERNS)
def test_an_overlap_has_a_subject(one: str, other: str) -> None:
    """Overlapping patterns have a subject in common: it can be built from them."""
    if subjects.overlap(one, other):
        left, right = ([*p.split("."), *["*"] * 9] if p.endswith(">") else p.split(".") for p in (one, other))
        length = min(len(p) for p in (left, right))
        pairs = zip(left[:length], right[:length], strict=True)
        common = ".".join(next((t for t in pair if t not in ("*", ">")), "x") for pair in pairs)
        assert subjects.subject_matches(one, common)
        assert subjects.subject_matches(other, common)


@given(PATTERNS, PATTERNS, SUBJECTS)
def test_what_covers_matches_all_of_it(wide: str, narrow: str, subject: str) -> None:
    """A pattern that covers another matches each of its subjects; one that does not lacks at least one."""
    if subjects.covers(wide, narrow):
        assert subjects.overlap(wide, narrow)
        assert not subjects.subject_matches(narrow, subject) or subjects.subject_matches(wide, subject)
    else:
        rest = ["x", "x.x.x.x.x"] if narrow.endswith(">") else [""]
        examples = [narrow.replace("*", "x").replace(">", tail) for tail in rest]
        assert not all(subjects.subject_matches(wide, example) for example in examples)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("otel.metrics.>", "otel.metrics.raw", True), ("otel.metrics.>", "otel.metrics", False), (">", "*.>", True),
        ("*.>", ">", False), ("a.*", "a.b", True), ("a.b", "a.*", False), ("a.*", "a.>", False), ("a.>", "a.*", True),
        ("a.>", "a.*.>", True), ("a.*.>", "a.>", False), ("a.b", "a.b", True), ("a.*", "*.b", False),
    ],
)  # fmt: skip
def test_covers(wide: str, narrow: str, expected: bool) -> None:
    """What a filter makes superfluous."""
    assert subjects.covers(wide, narrow) is expected


@given(st.lists(PATTERNS, max_size=5), SUBJECTS)
def test_patterns_that_are_set_apart(patterns: list[str], subject: str) -> None:
    """Match all that they matched before, and no two of them the same subject."""
    apart = subjects.apart(patterns)
    assert not any(subjects.overlap(a, b) for a, b in itertools.combinations(apart, 2))
    assert all(any(subjects.covers(each, pattern) for each in apart) for pattern in patterns)
    if any(subjects.subject_matches(pattern, subject) for pattern in patterns):
        assert any(subjects.subject_matches(each, subject) for each in apart)


@given(PATTERNS)
def test_well_formed_patterns_are_accepted(pattern: str) -> None:
    """What NATS takes as a filter is no mistake."""
    assert subjects.invalid(pattern) is None


@pytest.mark.parametrize(
    "pattern", ["", ".", "a.", ".a", "a..b", "a b", "a.>.b", "a*", "a.b>", "a\n", "a\tb", "\ud800"]
)
def test_ill_formed_patterns_are_refused(pattern: str) -> None:
    """Empty tokens, white space and wildcards that are not whole tokens are mistakes."""
    assert subjects.invalid(pattern)
