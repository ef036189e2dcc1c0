"""Writes rows by way of a temporary table: where the target has a key, or to find the rows that it refuses."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import psycopg

from eventwriter.postgres.attempt import Attempt, record_index, without
from eventwriter.postgres.binary import server_codec
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import RowRefused
from eventwriter.postgres.plan import Plan
from eventwriter.postgres.staging import Stage
from eventwriter.stream import Decoded, Reject, Row, Stream


class _Entry(NamedTuple):
    """A row with where it came from."""

    row: Row
    message: int
    record: int


class StagedWrite:
    """One attempt's rows on their way; what is refused of them becomes rejects of the attempt."""

    def __init__(
        self,
        connection: BusyConnection,
        stream: Stream,
        plan: Plan,
        attempt: Attempt,
        at: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._plan = plan
        self._attempt = attempt
        self._at = at or (lambda here: None)
        self._stage = Stage(plan, text_json=attempt.isolate)
        self._staged: list[_Entry] = []
        self._refused: dict[int, Reject] = {}
        """Ordinal of an entry, from 1 → why its row is not written."""

    def run(
        self, known: Collection[int], excluded: Callable[[str], bool] | None, meanwhile: Callable[[], bool]
    ) -> None:
        """Decodes, stages and inserts; messages of ``excluded`` subjects and ``known`` sequences have no rows."""
        begun = perf_counter()
        self._gather(known, excluded)
        decoded = perf_counter()
        self._at("after_decode")
        self._connection.execute(self._stage.create)
        self._copy()
        inserted = self._insert(meanwhile)
        if self._plan.mode == "insert" and (self._attempt.isolate or inserted < len(self._staged)):
            self._find_conflicts()
        if self._refused:
            self._reject()
        self._attempt.outcome.seconds = {"decode": decoded - begun, "copy": perf_counter() - decoded}

    def _gather(self, known: Collection[int], excluded: Callable[[str], bool] | None) -> None:
        attempt = self._attempt
        entries: list[_Entry] = []
        for index, message in enumerate(attempt.batch.messages):
            if known and message.sequence in known:
                continue
            if excluded is not None and excluded(message.subject):
                attempt.outcome.excluded += 1
                continue
            rows = attempt.note(index, self._stream.decode(message))
            entries.extend(_Entry(row, index, number) for number, row in enumerate(rows))
        attempt.outcome.rows = len(entries)
        self._staged = entries
        if self._plan.mode == "upsert":
            self._staged = sorted(entries, key=lambda entry: attempt.batch.messages[entry.message].sequence)
            if not attempt.isolate:  # there, every row has its own chance: the latest may be refused
                self._staged = _latest(self._staged, self._plan)

    def _copy(self) -> None:
        """Fills the temporary table."""
        project, isolate, codec = self._plan.project, self._attempt.isolate, server_codec(self._connection)
        with self._connection.cursor() as cursor, cursor.copy(self._stage.copy) as copy:
            copy.set_types(self._stage.dumpers)
            for ordinal, entry in enumerate(self._staged, 1):
                try:
                    values = entry.row if project is None else project(entry.row)
                    if isolate:
                        _check_text(values, codec)
                    copy.write_row((ordinal, *values))
                except (TypeError, ValueError, OverflowError, psycopg.DataError) as error:
                    if not isolate:
                        raise RowRefused(None, None, f"{type(error).__name__}: {error}") from error
                    self._refused[ordinal] = Reject("refused", f"{type(error).__name__}: {error}"[:500])
            self._at("in_copy")

    def _insert(self, meanwhile: Callable[[], bool]) -> int:
        """Moves the rows to the target; how many are there now, as far as that is known."""
        count = len(self._staged)
        if not self._attempt.isolate:
            with self._connection.working(meanwhile):
                return self._connection.execute(self._stage.insert("1", str(count))).rowcount
        for ordinal, code, text in self._connection.execute(
            "SELECT ordinal, code, message FROM eventwriter.insert_isolating(%s, %s)",
            [self._stage.insert("$1", "$2").as_string(self._connection), count],
        ):
            self._refused[ordinal] = Reject("refused", text[:500], None, code)
        return count

    def _find_conflicts(self) -> None:
        """Other rows with a key that is there already are refused; the same row again is not."""
        plan = self._plan
        for (ordinal,) in self._connection.execute(self._stage.conflicts):
            names = ", ".join("(" + ", ".join(key) + ")" for key in plan.keys)
            detail = f"table {plan.table_name} has another row with the same key {names}"
            self._refused.setdefault(ordinal, Reject("conflict", detail[:500], None, "23505"))

    def _reject(self) -> None:
        """Turns refused rows into rejects of their messages, with the index of their record."""
        attempt = self._attempt
        place, decoded, kept = -1, Decoded(), Decoded()
        for ordinal, reject in self._refused.items():
            entry = self._staged[ordinal - 1]
            if entry.message != place:  # the transaction waits: not once for each of a message's rows
                place = entry.message
                decoded = self._stream.decode(attempt.batch.messages[place])
                dropped = attempt.refused.get(place)
                kept = without(decoded, dropped) if dropped else decoded
            record = record_index(kept, entry.record)
            attempt.letters.setdefault(entry.message, []).append(reject._replace(record_index=record))
            left = attempt.rows_of.get(entry.message)
            if left is None:
                left = len(decoded.rows)
            attempt.rows_of[entry.message] = left - 1
            attempt.outcome.rows -= 1


def _latest(entries: Sequence[_Entry], plan: Plan) -> list[_Entry]:
    """One entry per key, the last: a statement may touch a key only once (21000)."""
    key_of = plan.key_of
    assert key_of is not None, "a plan to upsert has a key"
    return list({key_of(entry.row): entry for entry in entries}.values())


def _check_text(values: Sequence[Any], codec: str) -> None:
    """Raises ValueError for text that PostgreSQL refuses on its way to the temporary table: all the rows with it."""
    for value in values:
        if isinstance(value, str):
            if "\0" in value:
                raise ValueError("text with U+0000")
            value.encode(codec)
        elif isinstance(value, bytes):
            if b"\0" in value:
                raise ValueError("JSON with a NUL byte")
            value.decode().encode(codec)
