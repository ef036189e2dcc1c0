"""How much one message may hold. What is beyond is refused before anything is made of it: a few bytes of gzip could be
millions of records.
"""

from __future__ import annotations

RECORDS_MAX = 250_000
"""Records of one message: each may become a dead letter of its own, which takes some hundred bytes. Where records are
in groups, a group without any counts as one."""
COUNTED_FROM = 2 * RECORDS_MAX
"""Bytes beyond which a payload may hold more than that, and is looked at: a record takes two bytes at least."""
INFLATED_MAX = 16 * 2**20
"""Bytes that a compressed payload may inflate to: what is refused beyond it would cost memory, not find meaning."""
ALL_INFLATED_MAX = 4 * INFLATED_MAX
"""Bytes that all compressed parts of a message together may inflate to: parts within parts would multiply."""

ROWS_MAX = 8 * INFLATED_MAX
"""Bytes of text and JSON that the rows of one message may have together. What records share, such as the resource of an
OTLP request, stands in the row of each: a kilobyte of gzip could be gigabytes of rows."""


class TooLarge(Exception):
    """The message holds too much. Unlike Unfit this is not about one of its records: it is a dead letter as a whole."""


def too_many() -> TooLarge:
    """What to raise for more than RECORDS_MAX records."""
    return TooLarge(f"more than {RECORDS_MAX} records in one message")


class Room:
    """What the compressed parts of one message may still inflate to."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = ALL_INFLATED_MAX
