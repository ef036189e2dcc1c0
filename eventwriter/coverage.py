"""Which sequences are done: ranges, what is missing between them, and for which subjects they are believed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from eventwriter.config import subjects

Range = tuple[int, int]
"""First and last sequence, both included."""


_NOT = "not "
"""Before a subject that was left out: no filter begins so, for none has a blank."""


def beliefs(filters: Iterable[str], excluded: Iterable[str]) -> tuple[str, ...]:
    """For which subjects what is done counts as written: those that match the filters, without those left out."""
    return (*filters, *(_NOT + pattern for pattern in excluded))


def believed(patterns: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The filters, and what was left out, of such beliefs."""
    found = [*patterns]
    left_out = tuple(each.removeprefix(_NOT) for each in found if each.startswith(_NOT))
    return tuple(each for each in found if not each.startswith(_NOT)), left_out


@dataclass(frozen=True, slots=True)
class Past:
    """What was done under earlier filters: a range says nothing of subjects that did not match them."""

    filters: tuple[str, ...]
    """As ``beliefs``."""
    done: tuple[Range, ...]

    def covers(self, pattern: str) -> bool:
        """Whether its ranges are believed for every subject that ``pattern`` matches, but for what was left out.

        What was left out and is not any more is a pattern of its own, see ``wanted``.
        """
        filters, left_out = believed(self.filters)
        if any(subjects.covers(each, pattern) for each in left_out):
            return False
        return any(subjects.covers(each, pattern) for each in filters)


def wanted(patterns: Iterable[str], past: Iterable[Past]) -> tuple[str, ...]:
    """The subjects to look for: the filters of these beliefs, and what was left out earlier and is not any more."""
    filters, excluded = believed(patterns)
    earlier = dict.fromkeys(each for entry in past for each in believed(entry.filters)[1])
    again = (each for each in earlier if not any(subjects.covers(wide, each) for wide in excluded))
    return tuple(
        dict.fromkeys((*filters, *(each for each in again if any(subjects.overlap(each, f) for f in filters))))
    )


def widest(patterns: Sequence[str]) -> tuple[str, ...]:
    """Those of different patterns that no other of them covers: a consumer's filters must not overlap."""
    return tuple(p for p in patterns if not any(other != p and subjects.covers(other, p) for other in patterns))


@dataclass(frozen=True, slots=True)
class Segment:
    """Sequences of which nothing is known for these filters, and everything for the others."""

    first: int
    last: int
    filters: tuple[str, ...]


def merge(ranges: Iterable[Range]) -> list[Range]:
    """The same sequences as few sorted ranges."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged


def runs(firsts: Sequence[int], lasts: Sequence[int]) -> list[Range]:
    """The ranges firsts[k] … lasts[k] as few sorted ones; quick when each continues the one before, as is usual."""
    if firsts and [*firsts[1:]] == [last + 1 for last in lasts[:-1]] and firsts[0] <= lasts[0]:
        return [(firsts[0], lasts[-1])]
    return merge(zip(firsts, lasts, strict=True))


def holes(ranges: Iterable[Range], first: int, last: int) -> list[Range]:
    """What ``ranges`` leave out between ``first`` and ``last``."""
    found = []
    for lower, upper in merge(ranges):
        if lower > last:
            break
        if lower > first:
            found.append((first, lower - 1))
        first = max(first, upper + 1)
    if first <= last:
        found.append((first, last))
    return found


def segments(
    filters: Sequence[str], first: int, last: int, done: Sequence[Range], past: Sequence[Past] = ()
) -> list[Segment]:
    """What is not known to be done between ``first`` and ``last``, in order; each with the filters it is missing for.

    ``done`` is believed for all of ``filters``, a Past for those that its own filters cover.
    """
    turns: defaultdict[int, set[str]] = defaultdict(set)
    for pattern in filters:
        known = [*done, *(each for entry in past if entry.covers(pattern) for each in entry.done)]
        for lower, upper in holes(known, first, last):
            turns[lower] ^= {pattern}
            turns[upper + 1] ^= {pattern}
    found = []
    missing: set[str] = set()
    for edge, following in pairwise(sorted(turns)):
        missing ^= turns[edge]
        if missing:
            found.append(Segment(edge, following - 1, tuple(f for f in filters if f in missing)))
    return found


def to_multirange(ranges: Iterable[Range]) -> str:
    """PostgreSQL's text of an int8multirange."""
    return "{" + ",".join(f"[{first},{last + 1})" for first, last in ranges) + "}"
