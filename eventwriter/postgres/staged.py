"""Writes rows by way of a temporary table: where the target has a key, or to find the rows that it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import repeat
from time import perf_counter
from typing import Any, NamedTuple

import psycopg

from eventwriter.errors import SchemaError
from eventwriter.postgres.attempt import Attempt, record_indexes
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import DATA, FORBIDDEN, KEY_TAKEN, RowRefused, about_rows, classify
from eventwriter.postgres.fates import MISCOUNTED, bystanders, insert_each, policed
from eventwriter.postgres.plan import Plan
from eventwriter.postgres.privileges import demand
from eventwriter.postgres.staging import Question, Stage
from eventwriter.stream import Reject, Row, Stream


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
        self._stage = Stage(plan, isolate=attempt.isolate, pooled=connection.pooled)
        self._staged: list[_Entry] = []
        """Those in the temporary table: their ordinals begin with 1."""
        self._refused: list[tuple[_Entry, Reject]] = []
        """Whose row is not written, and why."""
        self._skipped: Counter[str] = Counter()

    def run(
        self, known: Collection[int], excluded: Callable[[str], bool] | None, meanwhile: Callable[[], bool]
    ) -> None:
        """Decodes, stages and inserts; messages of ``excluded`` subjects and ``known`` sequences have no rows."""
        begun = perf_counter()
        entries = self._gather(known, excluded)
        decoded = perf_counter()
        self._at("after_decode")
        outcome = self._attempt.outcome
        with about_rows(self._connection):
            self._connection.execute(self._stage.create)
            self._copy(entries)
            outcome.rows = self._insert_each() if self._attempt.isolate else self._insert(meanwhile)
        if self._refused:
            self._reject()
        outcome.skipped = {reason: count for reason, count in self._skipped.items() if count}
        outcome.seconds = {"decode": decoded - begun, "copy": perf_counter() - decoded}

    def _gather(self, known: Collection[int], excluded: Callable[[str], bool] | None) -> list[_Entry]:
        attempt = self._attempt
        entries: list[_Entry] = []
        for index, message in enumerate(attempt.batch.messages):
            if known and message.sequence in known:
                continue
            if excluded is not None and excluded(message.subject):
                attempt.outcome.excluded += 1
                continue
            decoded = attempt.note(index, self._stream.decode(message))
            entries.extend(map(_Entry, decoded.rows, repeat(index), record_indexes(decoded)))
        if self._plan.mode == "upsert":
            entries.sort(key=lambda entry: attempt.batch.messages[entry.message].sequence)
            if self._plan.apart:
                entries = self._without_rivals(entries)
            if not attempt.isolate:  # there, every row has its own chance: the latest may be refused
                latest = _latest(entries, self._plan)
                self._skipped["superseded"] += len(entries) - len(latest)
                return latest
        return entries

    def _without_rivals(self, entries: Sequence[_Entry]) -> list[_Entry]:
        """Of rows that have the same key and are told apart by something else the first remain."""
        key_of, apart_of = self._plan.key_of, self._plan.apart_of
        assert key_of is not None, "a plan to upsert has a key"
        first: dict[Any, Any] = {}
        kept: list[_Entry] = []
        for entry in entries:
            if first.setdefault(key_of(entry.row), apart_of(entry.row)) == apart_of(entry.row):
                kept.append(entry)
            else:
                self._refuse(entry, self._rivalry())
        return kept

    def _rivalry(self) -> Reject:
        key, apart = ", ".join(self._plan.keys[0]), ", ".join(self._plan.apart)
        detail = f"table {self._plan.table_name} has a row with the same key ({key}) and another {apart}"
        return Reject("conflict", detail[:500], None, "23505")

    def _copy(self, entries: Sequence[_Entry]) -> None:
        """Fills the temporary table."""
        project, isolate = self._plan.project, self._attempt.isolate
        with self._connection.cursor() as cursor, cursor.copy(self._stage.copy) as copy:
            copy.set_types(self._stage.dumpers)
            for entry in entries:
                try:
                    values = entry.row if project is None else project(entry.row)
                    copy.write_row((len(self._staged) + 1, *self._stage.held(values)))
                except (TypeError, ValueError, OverflowError, psycopg.DataError) as error:
                    if not isolate:
                        raise RowRefused(None, None, f"{type(error).__name__}: {error}") from error
                    self._refused.append((entry, Reject("refused", f"{type(error).__name__}: {error}"[:500])))
                else:
                    self._staged.append(entry)
            self._at("in_copy")

    def _insert(self, meanwhile: Callable[[], bool]) -> int:
        """Moves the rows to the target at once; how many it took. Raises RowRefused unless that is all told by keys."""
        count = len(self._staged)
        with self._connection.working(meanwhile):
            took = self._connection.execute(self._stage.insert("1", str(count))).rowcount
        left = count - took
        if not left:
            return took
        others = bystanders(self._connection, self._plan.table)
        upsert = self._plan.mode == "upsert"
        found = self._among(range(1, count + 1), self._stage.outdated if upsert else self._stage.absent)
        # What a trigger leaves out, or changes, looks like a conflict here.
        if (others.meddlers and found) or len(found) > left or (upsert and len(found) < left):
            raise RowRefused(None, None, f"table {self._plan.table_name} took {took} of {count} rows")
        self._skipped["superseded" if upsert else "identical"] += left - (0 if upsert else len(found))
        if not upsert:
            keys = ", ".join(others.keys) or "of a part of it"
            detail = f"table {self._plan.table_name} has another row with the same key: {keys}"
            for ordinal in found:
                self._refuse(self._staged[ordinal - 1], Reject("conflict", detail[:500], None, "23505"))
        return took

    def _insert_each(self) -> int:
        """Lets PostgreSQL try the rows, each by itself where it must be; how many there are now of them."""
        count, plan = len(self._staged), self._plan
        statement = self._stage.insert("$1", "$2").as_string(self._connection)
        secured = policed(self._connection, plan.table)
        took, fates = insert_each(self._connection, statement, count, policed=secured, raised=self._attempt.raised)
        others = bystanders(self._connection, plan.table) if fates else None
        meddlers = ", ".join(others.meddlers if others else ()) or "none that is known"
        if took + len(fates) != count or any(fate.took for fate in fates.values()):
            more = sum(fate.took for fate in fates.values())
            raise SchemaError(
                f"table {plan.table_name} does not add up: of {count} rows it took {took}, {len(fates)} have another "
                f"fate, and it took {more} for those: let it take each row once; what may meddle: {meddlers}"
            )
        if any(fate.code == FORBIDDEN for fate in fates.values()):
            demand(self._connection, plan)  # then a policy forbids these rows, and none forbids all
        told = (MISCOUNTED, FORBIDDEN)
        if not took and any(fate.code[:2] not in DATA and fate.code not in told for fate in fates.values()):
            self._check_another()
        keyed = [ordinal for ordinal, fate in fates.items() if fate.code in KEY_TAKEN]
        uncounted = [ordinal for ordinal, fate in fates.items() if fate.code == MISCOUNTED]
        conflicts = self._among(keyed, self._stage.absent)
        outdated = self._among(uncounted, self._stage.outdated) if plan.mode == "upsert" else set[int]()
        rivals = self._among(uncounted, self._stage.rivals) if plan.apart else ()
        for ordinal, fate in fates.items():
            if fate.code == MISCOUNTED and ordinal not in outdated:
                detail = f"table {plan.table_name} left the row out, without an error; what may do so: {meddlers}"
                refusal = self._rivalry() if ordinal in rivals else Reject("dropped", detail[:500])
                self._refuse(self._staged[ordinal - 1], refusal)
            elif fate.code in KEY_TAKEN and ordinal in conflicts:
                self._refuse(self._staged[ordinal - 1], Reject("conflict", fate.text[:500], None, fate.code))
            elif fate.code not in KEY_TAKEN and fate.code != MISCOUNTED:
                self._refused.append((self._staged[ordinal - 1], Reject("refused", fate.text[:500], None, fate.code)))
        self._skipped["identical"] += len(keyed) - len(conflicts)
        self._skipped["superseded"] += len(outdated)
        if plan.mode == "upsert":  # where a row was written that a later one replaced
            written = [entry for ordinal, entry in enumerate(self._staged, 1) if ordinal not in fates]
            self._skipped["superseded"] += took - len(_latest(written, plan))
            return len(_latest(written, plan))
        return took

    def _among(self, ordinals: Sequence[int], question: Question) -> set[int]:
        """Those that it is true of."""
        if not ordinals:
            return set()
        rows = [self._staged[ordinal - 1].row for ordinal in ordinals]
        return {ordinal for (ordinal,) in self._connection.execute(self._stage.among(question, ordinals, rows))}

    def _check_another(self) -> None:
        """Raises what stands in the way of any row: then it is not the fault of those that are refused."""
        try:
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(self._stage.another)
        except psycopg.Error as error:
            if not isinstance(classify(error, self._connection), RowRefused):
                raise

    def _refuse(self, entry: _Entry, reject: Reject) -> None:
        """A row that the table does not have, though nothing is wrong with it by itself."""
        self._skipped[reject.reason] += 1
        self._refused.append((entry, reject))

    def _reject(self) -> None:
        """Turns refused rows into rejects of their messages; the transaction waits: nothing is decoded again."""
        letters, rows_of = self._attempt.letters, self._attempt.rows_of
        for (_, message, record), reject in self._refused:
            letters.setdefault(message, []).append(reject._replace(record_index=record))
            rows_of[message] -= 1


def _latest(entries: Sequence[_Entry], plan: Plan) -> list[_Entry]:
    """One entry per key, the last: a statement may touch a key only once (21000)."""
    key_of = plan.key_of
    assert key_of is not None, "a plan to upsert has a key"
    return list({key_of(entry.row): entry for entry in entries}.values())
