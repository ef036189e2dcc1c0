"""What becomes of dead letters that are replayed: which records are rows now, and which letters wait as before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from eventwriter.postgres.budget import Budget
from eventwriter.stream import Decoded, Message, Reject, Row


class Left(NamedTuple):
    """Why letters wait as before."""

    stream: str
    reason: str
    sqlstate: str | None


@dataclass(slots=True)
class Result:
    """What became of the letters: selected = replayed + left + busy once all of them were tried."""

    selected: int = 0
    replayed: int = 0
    rows: int = 0
    """Rows in the table; some may have been there already, or older than what is there under their key."""
    added: int = 0
    """New letters: records of a message that was a letter as a whole."""
    busy: int = 0
    """In the hands of another replay, or replayed or removed meanwhile."""
    left: dict[Left, list[int]] = field(default_factory=dict)
    """The numbers of those that wait as before, by reason."""
    details: dict[Left, str] = field(default_factory=dict)
    """What was said of the first of them."""
    problems: dict[str, str] = field(default_factory=dict)
    """What keeps a whole stream from being replayed."""

    def leave(self, left: Left, detail: str, numbers: Sequence[int]) -> None:
        """These letters wait as before."""
        self.left.setdefault(left, []).extend(numbers)
        self.details.setdefault(left, detail)

    def add(self, other: Result) -> None:
        """What became of more letters."""
        self.replayed += other.replayed
        self.rows += other.rows
        self.added += other.added
        self.busy += other.busy
        for left, numbers in other.left.items():
            self.leave(left, other.details[left], numbers)


class Piece:
    """A message with the letters of it that are to be replayed, and what they are now."""

    def __init__(self, message: Message, letters: Mapping[int, int | None], decoded: Decoded) -> None:
        self.message = message
        self._letters = letters
        self._rejects = {reject.record_index: reject for reject in decoded.rejects}
        self._records: dict[int, Row] = {}
        index = 0
        for row in decoded.rows:
            while index in self._rejects:
                index += 1
            self._records[index] = row
            index += 1
        self.numbers: list[int] = []
        """Those that are ours to replay."""
        self._wanted: list[int] = []
        """The records of the rows to write."""

    def choose(self, ours: set[int]) -> list[Row]:
        """The rows to write for the letters that are ``ours``."""
        self.numbers = [number for number in self._letters if number in ours]
        wanted = {self._letters[number] for number in self.numbers}
        self._wanted = [index for index in self._records if None in wanted or index in wanted]
        return [self._records[index] for index in self._wanted]

    def refused(self, refused: Sequence[Reject]) -> dict[int | None, Reject]:
        """Why records are no rows: PostgreSQL's reasons name rows that were to be written by their number."""
        return self._rejects | {
            (index := self._wanted[reject.record_index or 0]): reject._replace(record_index=index) for reject in refused
        }

    def settle(self, refused: Mapping[int | None, Reject]) -> tuple[dict[int, Reject], list[Reject]]:
        """Which letters wait as before, and why; and new letters, of records that are not in the table.

        A message that was a letter as a whole is one as before when it is still none of its records that became a row.
        """
        waiting: dict[int, Reject] = {}
        added: list[Reject] = []
        whole = refused.get(None)
        nothing = bool(refused) and not any(index not in refused for index in self._wanted)
        for number in self.numbers:
            index = self._letters[number]
            if whole is not None:
                waiting[number] = whole
            elif index is None and nothing:
                waiting[number] = next(iter(refused.values()))
            elif index is None:
                known = {*self._letters.values()}
                added = [reject for record, reject in refused.items() if record not in known]
            elif index in refused:
                waiting[number] = refused[index]
            elif index not in self._records:
                waiting[number] = Reject("missing_record", f"the message has no record {index} for the present decoder")
        return waiting, added


def gathered(
    messages: Iterable[tuple[Message, Mapping[int, int | None]]], decode: Callable[[Message], Decoded]
) -> list[Piece]:
    """The first of the messages: as many as a transaction has room for the rows of, at least one."""
    pieces, budget, rejects = list[Piece](), Budget.staged(), 0
    for message, letters in messages:
        if pieces and budget.enough(len(pieces), rejects):
            break
        decoded = decode(message)
        budget.take(decoded.rows)
        rejects += len(decoded.rejects)
        pieces.append(Piece(message, letters, decoded))
    return pieces
