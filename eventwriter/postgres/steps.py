"""What `schema apply` does: one statement after the other, each with what is told of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One statement, or, without one, something that is only told."""

    statement: str = ""
    said: str = ""
    """What is told when it is done, or of what is not done."""
    bare: str = ""
    """Done in its place where the rows or the chunks that are there do not allow it as it is."""
    otherwise: str = ""
    """What is told if it fails, which then is no failure of the table."""
    failing: bool = False
    """Whether what is told is something that was asked for and cannot be had."""
    alone: bool = False
    """Whether it must be outside of a transaction; after it, what is built is looked at."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What `schema apply` is asked for."""

    only: tuple[str, ...] = ()
    """Streams whose tables are meant, nothing else; empty: all, and eventwriter's own."""
    ledger_only: bool = False
    dry_run: bool = False
    """Whether the steps are only shown: nothing is there that they would have made."""
    new_keys: bool = False
    indexes: bool = False
    """Whether to build indexes of tables that have rows."""
    migrate_data: bool = False
    """Whether to make hypertables of large tables, too."""
    chunk_interval: str = ""
    """Intervals as PostgreSQL reads them; empty: as it is."""
    compress_after: str = ""
    retention: str = ""

    @property
    def policies(self) -> dict[str, str]:
        """Option → interval of those that TimescaleDB is needed for."""
        named = {
            "--chunk-interval": self.chunk_interval,
            "--compress-after": self.compress_after,
            "--retention": self.retention,
        }
        return {option: interval for option, interval in named.items() if interval}


WHATEVER_LACKS = Wanted()
"""What is missing, and nothing that is not done unasked."""

_PIECE = re.compile(
    r"""--[^\n]*(?:\n|$) | /\*.*?\*/ | '(?:[^']|'')*' | "(?:[^"]|"")*" | (?P<quote>\$\w*\$).*?(?P=quote)
    | (?P<end>;) | .""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"\A(?:\s+|--[^\n]*(?:\n|\Z)|/\*.*?\*/)+", re.DOTALL)


def split(text: str) -> Iterator[str]:
    """The statements of an SQL file, without what is remarked before them."""
    begin = 0
    for piece in _PIECE.finditer(text):
        if piece["end"]:
            yield _COMMENT.sub("", text[begin : piece.start()])
            begin = piece.end()
    if rest := _COMMENT.sub("", text[begin:]).strip():
        yield rest
