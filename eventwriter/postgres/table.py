"""The live table of a stream, as it was when it was last read, and whether it still is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import Connection
from psycopg.abc import Transformer

from eventwriter.postgres.binary import row_transformer
from eventwriter.postgres.catalog import read_plan, read_shape
from eventwriter.postgres.plan import Plan
from eventwriter.postgres.privileges import demand, see
from eventwriter.stream import Stream


class Table:
    """The plan for writing a stream into its table. It exists once ``read`` was called."""

    plan: Plan
    transformer: Transformer
    """Turns rows into the binary form that the plan asks for."""

    def __init__(self, stream: Stream, name: str, planned: Callable[[Plan], None] = lambda plan: None) -> None:
        """``planned`` is told of each new plan."""
        self.name = name
        self._stream = stream
        self._planned = planned

    def read(self, connection: Connection[Any]) -> None:
        """Reads the catalog and plans anew; raises TableError when rows could not be written as they should."""
        see(connection, self.name)
        plan = read_plan(connection, self._stream, self.name)
        demand(connection, plan)
        self.plan = plan
        self.transformer = row_transformer(self.plan.dumpers, connection)
        self._planned(self.plan)

    def changed(self, connection: Connection[Any]) -> bool:
        """Whether it is another table than the plan was made for."""
        return read_shape(connection, self.name) != self.plan.shape
