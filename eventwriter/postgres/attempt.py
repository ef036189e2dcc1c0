"""One try at writing a batch: what has become of its records, and their rows in the binary form of COPY."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import compress, count, filterfalse, islice
from time import perf_counter
from typing import cast

import psycopg
from psycopg._copy_base import format_row_binary  # what Copy.write_row calls, which needs a COPY under way
from psycopg.abc import Transformer

from eventwriter.coverage import Range, runs
from eventwriter.postgres.budget import Budget, TooMuchError
from eventwriter.postgres.errors import RowRefused
from eventwriter.postgres.plan import Plan
from eventwriter.stream import Batch, Decoded, Message, Outcome, Reject, Row, Stream

_MESSAGES, _ROWS = 32, 128
"""A step ends after so many messages or rows: its own cost does not count, and it takes a millisecond or less."""
_BLOCK, _PIECE = 64 * 1024, 16
"""Bytes from which on what is encoded is worth sending, and rows between two looks at that."""
_FEW, _AHEAD = 16, 16 * 2**20
"""Blocks that may wait whatever their size, and bytes of more of them: then nothing more is encoded for the moment."""
_SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"


@dataclass(slots=True)
class Attempt:
    """What is known about a batch from the attempts before, and gathered in this one."""

    batch: Batch
    check_ledger: bool = False
    staged: bool = False
    """By way of a temporary table, for rows whose key is there already."""
    isolate: bool = False
    """Row by row from that table, to find what is refused."""
    raised: bool = False  # by a trigger: it is about its row then, whatever its SQLSTATE means elsewhere
    refused: dict[int, dict[int, Reject]] = field(default_factory=dict)
    """Message index → record index → why its row is not written."""
    outcome: Outcome = field(default_factory=Outcome)
    letters: dict[int, list[Reject]] = field(default_factory=dict)
    ends: list[int] = field(default_factory=list)
    """Rows written up to and including each message: tells a COPY line's message."""
    rows_of: dict[int, int] = field(default_factory=dict)
    """Rows of each message that has rejects, or may have some yet: tells whether anything of it was written."""
    rejected: int = 0
    _stage: Budget | None = None
    _ranges: list[Range] | None = None

    def again(self) -> Attempt:
        """The next one, with what this one has found out."""
        return Attempt(self.batch, self.check_ledger, self.staged, self.isolate, self.raised, self.refused)

    def ranges(self, known: Collection[int] = ()) -> list[Range]:
        """The sequences that this attempt does, but for the ``known`` ones."""
        batch = self.batch
        if self._ranges is None and batch.span is not None and not known:
            self._ranges = [batch.span]
        elif self._ranges is None:
            firsts, sequences = batch.each_first(), [message.sequence for message in batch.messages]
            if known:
                fresh = [sequence not in known for sequence in sequences]
                firsts, sequences = [*compress(firsts, fresh)], [*compress(sequences, fresh)]
            self._ranges = runs(firsts, sequences)
        return self._ranges

    def fresh(self, known: Collection[int]) -> list[Range]:
        """The sequences of the messages alone that are not ``known``: what lies between them may be done, and is."""
        sequences = [message.sequence for message in self.batch.messages if message.sequence not in known]
        return runs(sequences, sequences)

    def note(self, index: int, decoded: Decoded) -> Decoded:
        """What is to be written of a message; its rejects and repairs are noted."""
        if index in self.refused:
            decoded = without(decoded, self.refused[index])
        if self.staged:
            self._stage = self._stage or Budget.staged()
            if index and (enough := self._stage.enough(index, self.rejected)):
                raise TooMuchError(enough)
            self._stage.take(decoded.rows)
            self.rows_of[index] = len(decoded.rows)
        if decoded.rejects:
            self.rejected += len(decoded.rejects)
            self.letters[index] = list(decoded.rejects)
            self.rows_of[index] = len(decoded.rows)
        repairs = self.outcome.repairs
        for reason in decoded.repairs:
            repairs[reason] = repairs.get(reason, 0) + 1
        return decoded

    def settle(self) -> None:
        """Counts messages and gathers rejects, once every record's fate is known."""
        outcome = self.outcome
        for index, rejects in self.letters.items():
            if len(outcome.latest) < 5 and rejects:
                outcome.latest.append((self.batch.messages[index], rejects[0]))
            for reject in rejects:
                outcome.rejects[reject.reason] = outcome.rejects.get(reject.reason, 0) + 1
            if not self.rows_of.get(index):
                outcome.deadlettered += 1
        others = outcome.deadlettered + outcome.already_done + outcome.excluded
        outcome.written = len(self.batch.messages) - others


class Encoder:
    """Decodes the messages of an attempt and encodes their rows, some messages at a time."""

    def __init__(
        self,
        attempt: Attempt,
        stream: Stream,
        plan: Plan,
        transformer: Transformer,
        excluded: Callable[[str], bool] | None = None,
        known: Collection[int] = (),
        at: Callable[[str], None] | None = None,
    ) -> None:
        """Messages of ``excluded`` subjects and ``known`` sequences have no rows."""
        self.attempt = attempt
        self.refusal: RowRefused | TooMuchError | None = None
        """Why a row has no binary form, or that it is enough, if that is so: nothing is encoded any more."""
        self._stream = stream
        self._project = plan.project
        self._transformer = transformer
        self._excluded = excluded
        self._known = known
        self._plain = excluded is None and not known and not attempt.refused
        self._at = at
        self._place, self._messages, self._line = 0, _MESSAGES, 0
        self._rows: Iterator[Row] | None = None  # decoded, and not all encoded yet
        self._budget, self._ended = Budget(), False
        self._block = bytearray(_SIGNATURE)
        self.blocks: deque[bytearray] = deque()
        """What is encoded and not yet taken from here."""
        attempt.outcome.seconds = {"decode": 0.0}

    def step(self) -> bool:
        """Decodes and encodes some messages; False when there is nothing more to do, or enough waits to be sent."""
        if self._ended or (len(self.blocks) > _FEW and sum(map(len, self.blocks)) > _AHEAD):
            return False
        attempt = self.attempt
        begun = perf_counter()
        rows = self._rows or iter(self._take())
        self._rows = None if self._encode(rows) else rows
        if self._rows is None and self._place == len(attempt.batch.messages) and self.refusal is None:
            self._ended = True
            self._block += _TRAILER
            attempt.outcome.rows = self._line
            if not self._known:
                attempt.ranges()  # before anybody waits for them
        if self._ended or len(self._block) > _BLOCK:
            self._budget.size -= len(self._block)
            self.blocks.append(self._block)
            self._block = bytearray()
        if self._rows is None and not self._ended and (enough := self._budget.enough(self._place, attempt.rejected)):
            self._refuse(TooMuchError(enough))
        attempt.outcome.seconds["decode"] += perf_counter() - begun
        return not self._ended

    def _take(self) -> Sequence[Row]:
        """Decodes some messages."""
        attempt, messages = self.attempt, self.attempt.batch.messages
        chunk = messages[self._place : self._place + self._messages]
        fast = fast_rows(self._stream, chunk)
        if self._plain and all(fast):  # one row of each
            rows = cast("Sequence[Row]", fast)
            attempt.ends += range(self._line + 1, self._line + len(chunk) + 1)
        else:
            rows = self._decode(chunk, fast)
        taken = len(attempt.ends) - self._place
        self._place += taken
        self._messages = min(2 * taken, _MESSAGES)  # no more than fit a step: what is left over is looked at again
        if self._at:
            self._at("after_decode")
        return rows

    def _decode(self, chunk: Sequence[Message], fast: Sequence[Row | None]) -> list[Row]:
        """The rows of the first messages, one by one; ``fast`` has those that are known already."""
        attempt, known, excluded, decode = self.attempt, self._known, self._excluded, self._stream.decode
        ends, refused = attempt.ends, attempt.refused
        rows: list[Row] = []
        for index, message, row in zip(count(self._place), chunk, fast, strict=False):
            if known and message.sequence in known:
                pass
            elif excluded is not None and excluded(message.subject):
                attempt.outcome.excluded += 1
            elif row is not None and index not in refused:
                rows.append(row)
            else:
                decoded = decode(message)
                found, rejects, repairs = decoded
                if not found and not rejects:
                    attempt.outcome.empty += 1
                rows += attempt.note(index, decoded).rows if rejects or repairs or refused else found
            ends.append(self._line + len(rows))
            if len(rows) > _ROWS:
                break
        return rows

    def _refuse(self, refusal: RowRefused | TooMuchError) -> None:
        """Whoever raises it makes a cycle, and what is encoded would be kept with it."""
        self.refusal, self._ended = refusal, True
        self.blocks.clear()

    def _encode(self, rows: Iterator[Row]) -> bool:
        """As many as make a block; whether these were all."""
        project, transformer, block, line = self._project, self._transformer, self._block, self._line
        try:
            while len(block) <= _BLOCK:
                before = line
                for row in islice(rows, _PIECE):
                    line += 1
                    format_row_binary(row if project is None else project(row), transformer, block)
                if line < before + _PIECE:
                    return True
        except (TypeError, ValueError, OverflowError, psycopg.DataError) as error:
            self._refuse(RowRefused(line, None, f"{type(error).__name__}: {error}"))
        finally:
            self._line = line
        return False


def fast_rows(stream: Stream, messages: Sequence[Message]) -> Sequence[Row | None]:
    """The only row of each message that has no more than that and is common; None for those that take ``decode``."""
    if stream.fast is not None:
        with suppress(Exception):  # a mistake of ours, on which ``decode`` has no part
            rows = stream.fast(messages)
            if len(rows) == len(messages):
                return rows
    return [None] * len(messages)


def record_indexes(decoded: Decoded) -> Sequence[int]:
    """That of each row: rejected records have none."""
    if not decoded.rejects:
        return range(len(decoded.rows))
    gone = {reject.record_index for reject in decoded.rejects}
    return [*islice(filterfalse(gone.__contains__, count()), len(decoded.rows))]


def without(decoded: Decoded, refused: dict[int, Reject]) -> Decoded:
    """The message without the rows of these records."""
    rows = [row for row, index in zip(decoded.rows, record_indexes(decoded), strict=True) if index not in refused]
    return Decoded(rows, [*decoded.rejects, *refused.values()], decoded.repairs)
