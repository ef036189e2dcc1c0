"""How a batch is tried next: straight in, by way of a temporary table, or row by row from there."""

from __future__ import annotations

from bisect import bisect_right

from eventwriter.errors import RaisedError, SchemaError
from eventwriter.postgres.attempt import Attempt, record_indexes
from eventwriter.postgres.errors import KEY_TAKEN, RowRefused
from eventwriter.postgres.plan import Plan
from eventwriter.stream import Stream

_LONGEST_SPAN = 1024
"""Batches after which rows with keys are written without staging again, however often that failed."""

_TRIES = 8
"""So often what a trigger raises may pass, which takes some seconds, before it may mean its row."""


class StagingPolicy:
    """When to stage: where a key was there already, more of them will be.

    So the batches after that are staged, too; twice as many each time that writing without it failed again soon.
    """

    def __init__(self) -> None:
        self._left = 0
        self._raised: tuple[int, str] | None = None
        self._tries = 0
        """How often that error was met by the batch that begins with that sequence."""
        self._span = 1
        """Batches to stage when rows are next found whose keys are there already, but for a factor of two."""

    @property
    def due(self) -> bool:
        """Whether the next batch is to be staged."""
        return self._left > 0

    def collided(self) -> None:
        """A row was refused because its key is there."""
        self._left = self._span = min(2 * self._span, _LONGEST_SPAN)

    def following(self, error: RowRefused | RaisedError, attempt: Attempt, stream: Stream, plan: Plan) -> Attempt:
        """As the function below; what a trigger raised is raised again, to be tried again as what passes is.

        When it has not passed after some tries, it is asked whether it is about one row alone.
        """
        if isinstance(error, RowRefused):
            if collides(error, attempt):
                self.collided()
            return following(error, attempt, stream, plan)
        what = attempt.batch.messages[0].sequence, str(error)
        self._tries = self._tries + 1 if what == self._raised else 1
        self._raised = what
        if self._tries < _TRIES:
            raise error
        self._tries = 0  # what holds for all is not asked each time
        then = attempt.again()
        then.staged = then.isolate = then.raised = True
        return then

    def wrote(self, *, staged: bool) -> None:
        """A batch is committed."""
        if staged:
            self._left = max(0, self._left - 1)
        else:
            self._span = max(1, self._span // 2)


class Sizes:
    """How many messages to write at once: half of what was too much, and twice as many again after a while.

    After a longer while each time that they are too much again, and after a shorter one each time that they are not.
    """

    def __init__(self) -> None:
        self.most = 1 << 30
        """So many at most."""
        self._left = 0
        """How many times that size is to be written before twice as much is tried."""
        self._span = 1
        self._worked = self._grown = False
        """Whether a size worked since the last that did not, and whether it is one that was tried for growing."""

    def failed(self, size: int) -> None:
        """So many messages were too much."""
        if self._worked:  # else it is the same trouble: how far down it goes says nothing about how long it lasts
            self._span = min(2 * self._span, _LONGEST_SPAN)
        self._worked = self._grown = False
        self.most = max(1, size // 2)
        self._left = self._span

    def wrote(self, size: int) -> None:
        """So many are committed; fewer than ``most`` say nothing."""
        if size < self.most:
            return
        if self._grown:
            self._left = self._span = max(1, self._span // 4)
            self._grown = False
        self._worked = True
        self._left -= 1
        if self._left <= 0:
            self.most, self._left, self._grown = 2 * self.most, self._span, True


def way(attempt: Attempt, plan: Plan) -> str:
    """How the rows of an attempt go into the table, as an outcome has it."""
    if not attempt.staged:
        return "copy"
    return "row by row" if attempt.isolate else "upsert" if plan.mode == "upsert" else "staged"


def following(refusal: RowRefused, attempt: Attempt, stream: Stream, plan: Plan) -> Attempt:
    """The next attempt: without the refused row when it is the first and known, else letting PostgreSQL find it.

    A row whose key is there already is what staging is for: see ``collides``. Raises SchemaError when rows are refused
    though each was tried by itself.
    """
    then = attempt.again()
    if collides(refusal, attempt):
        then.staged = True
        return then
    if refusal.line is None or attempt.refused or attempt.staged:
        if attempt.isolate:
            stops = SchemaError(f"table {plan.table_name} refuses rows one by one: {refusal}")
            raise refusal.otherwise or stops from refusal
        then.staged = then.isolate = True
        return then
    index = bisect_right(attempt.ends, refusal.line - 1)
    start = attempt.ends[index - 1] if index else 0
    decoded = stream.decode(attempt.batch.messages[index])
    record = record_indexes(decoded)[refusal.line - 1 - start]
    then.refused = {index: {record: refusal.reject._replace(record_index=record)}}
    return then


def collides(refusal: RowRefused, attempt: Attempt) -> bool:
    """Whether a row was refused because its key is there already, for the first time; whatever is known of keys."""
    return refusal.reject.sqlstate in KEY_TAKEN and not attempt.staged
