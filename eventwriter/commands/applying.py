"""Runs the steps of `schema apply`: in one transaction, each table by itself, and without keeping anybody waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, NamedTuple, cast

import psycopg
from psycopg import Connection, sql

from eventwriter.errors import EventWriterError, SchemaError, listed
from eventwriter.postgres import refusals, timescale
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import classify, translated
from eventwriter.postgres.steps import Step

_LOCK = 1.0
"""Seconds to wait for a lock at a time: as long do all wait who come after us, such as the writers of the table."""
_BETWEEN = 0.5
"""Seconds in which they go on, before the next try."""
_BESIDE = 300.0
"""Seconds to wait for others' transactions where nobody waits for us: an index that is built beside the writers."""


class Unit(NamedTuple):
    """What is applied, or not, as a whole: one table, or eventwriter's own schema."""

    name: str
    steps: Callable[[Connection[Any]], Iterator[Step]]
    time_column: str = ""


class Applying:
    """One run."""

    def __init__(self, connection: Connection[Any], units: Sequence[Unit], patience: float) -> None:
        """``patience``: seconds in which locks are tried again."""
        self._connection = connection
        self._units = units
        self._patience = patience
        self._deadline = time.monotonic() + patience
        self._failures: dict[str, EventWriterError] = {}
        self._alone: list[tuple[Unit, Step]] = []

    def shown(self) -> Iterator[str]:
        """The statements that would run, in the order in which they would, and as remarks what would be told."""
        self._wait_for_locks(_LOCK)
        for unit in self._units:
            lines: list[str] = []
            try:
                with self._connection.transaction():
                    self._would(unit, lines)
            except (psycopg.Error, EventWriterError) as error:
                self._fail(unit, error)
            yield f"-- {unit.name}{'' if lines or unit.name in self._failures else ': nothing to do'}"
            yield from lines
        self._connection.rollback()
        if self._failures:
            raise self._summary("can be")

    def _would(self, unit: Unit, lines: list[str]) -> None:
        """Adds what would be done to ``lines``; raises what can be told before it is tried."""
        steps = list(unit.steps(self._connection))
        lines += [f"{step.statement};" if step.statement else f"-- {step.said}" for step in steps]
        if failing := [step.said for step in steps if step.failing]:
            raise SchemaError("; ".join(failing))
        if any(step.statement for step in steps) and (why := refusals.lacking(self._connection, unit.name)):
            raise SchemaError(why)

    def run(self) -> Iterator[str]:
        """Applies all that can be, and yields what was done; raises what could not be, of one or of several tables."""
        pending = list(self._units)
        while pending:
            pending = yield from self._round(pending)
            if pending:
                time.sleep(_BETWEEN)
        yield from self._by_themselves()
        if self._failures:
            raise self._summary()

    def _round(self, units: Sequence[Unit]) -> Generator[str, None, list[Unit]]:
        """One transaction, with a savepoint for each table; returns those whose locks others had."""
        blocked, lines = [], []
        self._begin()
        for unit in units:
            try:
                with self._connection.transaction():
                    lines += self.applied(unit)
            except psycopg.Error as error:
                if error.sqlstate in refusals.LOCKED:
                    # Who waits for what we have changed so far need not wait longer for what we do not get.
                    self._commit()
                    yield from lines
                    lines = []
                    self._begin()
                    if time.monotonic() < self._deadline:
                        blocked.append(unit)
                        continue
                self._fail(unit, error)
            except EventWriterError as error:
                self._fail(unit, error)
        self._commit()
        yield from lines
        return blocked

    def _begin(self) -> None:
        """Begins a transaction that waits for no lock for long, but for those who do the same as we."""
        self._wait_for_locks(self._patience)
        try:
            # One at a time: two of them at once would meet in the catalog (23505, "tuple concurrently updated").
            self._execute("SELECT pg_advisory_xact_lock(hashtext('eventwriter schema'))")
        except psycopg.errors.LockNotAvailable:
            raise refusals.no_lock(self._patience) from None
        except psycopg.Error as error:
            raise self._meant(error) from error
        self._wait_for_locks(_LOCK)

    def _wait_for_locks(self, seconds: float, *, session: bool = False) -> None:
        """From here on, to the end of the transaction or of the ``session``; 0 would be for ever."""
        limit = f"{max(1, int(1000 * seconds))}ms"
        with translated():
            self._connection.execute(
                # What is asked for by hand may take longer than the statements of a service.
                "SELECT set_config('lock_timeout', %s, %s), set_config('statement_timeout', '0', %s)",
                [limit, not session, not session],
            )

    def _commit(self) -> None:
        try:
            self._connection.commit()
        except psycopg.Error as error:  # what is deferred to here
            raise self._meant(error) from error

    def applied(self, unit: Unit) -> list[str]:
        """Does the steps of one of them, in the caller's transaction, and says what was done."""
        lines, alone, failing = [], [], []
        for step in unit.steps(self._connection):
            if step.alone:
                alone.append((unit, step))
            elif step.failing:
                failing.append(step.said)
            else:
                said = self._done(unit, step)
                lines += [said] if said else []
        self._alone += alone
        if failing:
            self._failures[unit.name] = SchemaError("; ".join(failing))
        left = lines and lines[0].startswith("left ")
        return lines if left else [*lines, f"applied {unit.name}"]

    def _done(self, unit: Unit, step: Step) -> str:
        """What is told of a step that is done, or that may be left out."""
        if not step.statement:
            return step.said
        try:
            with self._connection.transaction():
                self._execute(step.statement)
            return step.said
        except psycopg.Error as error:
            if self._connection.broken or error.sqlstate in refusals.LOCKED:
                raise
            if step.bare and isinstance(error, psycopg.errors.NotNullViolation | psycopg.errors.FeatureNotSupported):
                self._execute(step.bare)
                more = step.statement.removeprefix(step.bare).strip()
                return f"{step.said} without {more}: {error.diag.message_primary}"
            if not step.otherwise:
                raise
            return self._left_out(unit, step, error)

    def _left_out(self, unit: Unit, step: Step, error: psycopg.Error) -> str:
        hindrance = timescale.hindrance(self._connection, unit.name, unit.time_column, error.sqlstate)
        return ": ".join(filter(None, [step.otherwise, refusals.told(error), hindrance or self._remedy(unit, error)]))

    def _by_themselves(self) -> Iterator[str]:
        """What cannot be done within a transaction."""
        if self._alone:
            with translated():
                self._connection.autocommit = True
            self._wait_for_locks(_BESIDE, session=not _is_shared(self._connection))
        for unit, step in self._alone:
            if unit.name in self._failures:
                continue
            try:
                self._execute(step.statement)
            except psycopg.Error as error:
                self._fail(unit, error)
            else:
                yield from [step.said] if step.said else []
        if self._alone:
            with translated():  # behind a pooler the session is somebody else's next
                self._execute("RESET lock_timeout; RESET statement_timeout")

    def _execute(self, statement: str) -> None:
        self._connection.execute(sql.SQL(cast(Any, statement)))

    def _fail(self, unit: Unit, error: psycopg.Error | EventWriterError) -> None:
        """Keeps what is wrong with a table, in words for who can put it right; raises what is wrong with them all."""
        if isinstance(error, EventWriterError):
            self._failures[unit.name] = error
            return
        meant = self._meant(error)
        if self._connection.broken:
            raise meant from error
        how = self._remedy(unit, error)
        self._failures[unit.name] = type(meant)(": ".join(filter(None, [refusals.told(error), how])))

    def _meant(self, error: psycopg.Error) -> EventWriterError:
        """What it is in general; what is usually about a row is about the table here."""
        meant = classify(error, self._connection)
        return meant if isinstance(meant, EventWriterError) else SchemaError(refusals.told(error))

    def _remedy(self, unit: Unit, error: psycopg.Error) -> str:
        """Whatever becomes of looking for it, the error is told."""
        try:
            with self._connection.transaction():
                return refusals.remedy(self._connection, error, unit.name)
        except psycopg.Error:
            return ""

    def _summary(self, done: str = "are") -> EventWriterError:
        """All that is wrong, each cause once."""
        named: dict[str, list[str]] = {}
        for name, error in self._failures.items():
            named.setdefault(str(error), []).append(name)
        causes = [f"{listed(names)}: {cause}" for cause, names in named.items()]
        kind = type(max(self._failures.values(), key=lambda error: error.exit_code))
        count = len(self._units) - len(self._failures)
        others = f"{count} of {len(self._units)} {done} applied"
        if len(causes) == 1:
            return kind(f"{causes[0]}; {others}" if len(self._units) > 1 else causes[0])
        return kind("\n".join([f"{others}; could not be:", *causes]))


def _is_shared(connection: Connection[Any]) -> bool:
    """Whether its session is that of strangers as well, to whom nothing is to be left."""
    return isinstance(connection, BusyConnection) and connection.pooled
