"""How much one message may hold. What is beyond is refused before anything is made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventwriter.values import dump_json

RECORDS_MAX = 100_000
"""Records of one message: a row takes half a kilobyte or more while it is made. A group without any counts as one."""
REJECTS_MAX = 10_000
"""Records of one message that may be dead letters of their own: with more of them, the message is one as a whole."""
COUNTED_FROM = 2 * RECORDS_MAX
"""Bytes beyond which a payload may hold more than that, and is looked at: a record takes two bytes at least."""
INFLATED_MAX = 16 * 2**20
"""Bytes that a compressed payload may inflate to: what is refused beyond it would cost memory, not find meaning."""
ALL_INFLATED_MAX = 4 * INFLATED_MAX
"""Bytes that all compressed parts of a message together may inflate to: parts within parts would multiply."""
PARSED_MAX = 144 * 2**20
"""Bytes of memory that what is parsed of a message may take, by the three estimates below."""
OBJECT, VALUE, SUBMESSAGE = 200, 90, 60
"""Bytes that are taken by an object of JSON beside what is in it, by any value of JSON, and by a protobuf message."""
SUBMESSAGES_FROM = 4 * 2**20
"""Bytes of protobuf beyond which it may hold more messages within it than that, and is looked at."""
SHARED_MAX = 4096
"""Bytes of JSON that every record of a message may get from what is around it; if it is more, only the first does."""

ROWS_MAX = 8 * INFLATED_MAX
"""Bytes of text and JSON that the rows of one message may have together: what they share, each of them has."""


class TooLarge(Exception):
    """The message holds too much. Unlike Unfit this is not about one of its records: it is a dead letter as a whole."""


def too_many(what: str = "records", where: str = "message") -> TooLarge:
    """What to raise for more than RECORDS_MAX records, or others that there may be as many of."""
    return TooLarge(f"more than {RECORDS_MAX} {what} in one {where}")


def too_full() -> TooLarge:
    """What to raise for more than PARSED_MAX."""
    return TooLarge(f"what it holds would take more than {PARSED_MAX >> 20} MiB of memory to parse")


def is_large(shared: Mapping[str, Any] | None, records: int) -> bool:
    """Whether the first of so many records alone gets what is around them, for it is more than SHARED_MAX. Raises
    TooLarge if each gets it, and together they would have more than ROWS_MAX."""
    size = len(dump_json(shared)) if shared else 0
    if size * records > ROWS_MAX >= SHARED_MAX >= size:
        raise TooLarge(f"what its {records} records share would be {size * records >> 20} MiB of its rows")
    return size > SHARED_MAX


class Room:
    """What the compressed parts of one message may still inflate to."""

    def __init__(self) -> None:
        self.left = ALL_INFLATED_MAX

    def use(self, size: int) -> None:
        """Raises TooLarge if it is not enough."""
        self.left -= size
        if self.left < 0:
            raise TooLarge(f"more than {ALL_INFLATED_MAX} bytes when all its compressed parts are inflated")
