"""Streams an attempt's rows straight into the table: COPY, each block as soon as it is encoded."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from psycopg import sql

from eventwriter.postgres.attempt import Encoder
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.errors import RowRefused, about_rows
from eventwriter.postgres.plan import Plan


def copy_rows(
    connection: BusyConnection,
    plan: Plan,
    encoder: Encoder,
    meanwhile: Callable[[], bool],
    at: Callable[[str], None] | None = None,
) -> None:
    """Encodes what is left to encode, and sends all; calls ``meanwhile`` when nothing is left but to wait.

    Raises RowRefused for a row without a binary form, or if the table took less than all, and what PostgreSQL says of
    the others. Notes the seconds.
    """
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(plan.table, plan.columns)
    seconds = encoder.attempt.outcome.seconds
    begun, decoded, elsewhere = perf_counter(), seconds["decode"], 0.0
    started = False

    def work() -> bool:
        """What is to be sent comes first, and nothing before PostgreSQL has something to do."""
        nonlocal elsewhere
        if not started or encoder.step():
            return started
        left = perf_counter()
        busy = meanwhile()
        elsewhere += perf_counter() - left
        return busy

    with about_rows(connection), connection.working(work), connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            started = True
            while encoder.step() or encoder.blocks:
                if encoder.blocks:
                    copy.write(encoder.blocks.popleft())
                    if at:
                        at("in_copy")
            if encoder.refusal is not None:
                raise encoder.refusal
        took = cursor.rowcount
    if took != encoder.attempt.outcome.rows:
        raise RowRefused(None, None, f"table {plan.table_name} took {took} of {encoder.attempt.outcome.rows} rows")
    seconds["copy"] = perf_counter() - begun - (seconds["decode"] - decoded) - elsewhere
