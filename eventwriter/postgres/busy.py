"""A connection that lets other work be done while it waits for the server, and that gets along with poolers."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

from psycopg import Connection, abc, pq, sql
from psycopg.waiting import Ready, Wait

from eventwriter.postgres import greeting

_EVENTS = {Wait.R: select.POLLIN, Wait.W: select.POLLOUT, Wait.RW: select.POLLIN | select.POLLOUT}
_LOOK = 0.005
"""Seconds between two looks for work when there was none and the server does not answer."""


class BusyConnection(Connection[Any]):
    """A connection that lets other work be done while it waits for the server."""

    pooled = False
    """Whether each transaction may be in another session of PostgreSQL, which others use as well: nothing that lives
    longer than a transaction may be left there, and nothing of an earlier one is there."""
    waits: Callable[[], None] | None = None
    """Called several times a second while the server has not answered."""
    _meanwhile: Callable[[], bool] | None = None
    _settings: Mapping[str, str] = {}
    _begin: bytes | None = None

    @classmethod
    def _connect_gen(cls, conninfo: str = "") -> abc.PQGenConn[Self]:
        """The driver's, with SQLSTATEs in what it raises."""
        return cls((yield from greeting.connect(conninfo)))

    def pool(self, settings: Mapping[str, str]) -> None:
        """From now on it is ``pooled``: no statement is prepared, and each transaction is given these settings, too."""
        self.pooled = True
        self.prepare_threshold = None
        self._settings = {**self._settings, **settings}
        pairs = (sql.SQL("set_config({}, {}, true)").format(*pair) for pair in self._settings.items())
        self._begin = sql.SQL("SELECT {}").format(sql.SQL(", ").join(pairs)).as_bytes(self)

    def _start_query(self) -> abc.PQGen[None]:
        """The driver's: begins a transaction where there is none."""
        begins = self._begin and not self.autocommit and self.pgconn.transaction_status == pq.TransactionStatus.IDLE
        yield from super()._start_query()
        if begins and self._begin:
            yield from self._exec_command(self._begin)

    @contextmanager
    def working(self, meanwhile: Callable[[], bool]) -> Iterator[None]:
        """Whenever it waits in this context it calls ``meanwhile``, again and again while that returns True.

        The server may have to wait for the end of a call, so it should have enough to do before the first.
        """
        self._meanwhile = meanwhile
        try:
            yield
        finally:
            self._meanwhile = None

    def wait(self, gen: abc.PQGen[abc.RV], *args: Any, **kwargs: Any) -> abc.RV:
        """Brings a generator of the driver to its end: everything that it does with the server passes here."""
        if self.waits is not None:
            gen = _told(gen, self.waits)
        if self._meanwhile is None:
            return super().wait(gen, *args, **kwargs)
        if not args:
            kwargs.setdefault("interval", _LOOK)
        return super().wait(self._worked(gen, self._meanwhile), *args, **kwargs)

    def _worked(self, gen: abc.PQGen[abc.RV], meanwhile: Callable[[], bool]) -> abc.PQGen[abc.RV]:
        """A generator that works before it lets its caller wait."""
        poll = select.poll()
        try:
            awaited = next(gen)
            while True:
                poll.register(self.pgconn.socket, _EVENTS[awaited])
                while not (ready := poll.poll(0)) and meanwhile():
                    pass
                if not ready:
                    awaited = gen.send((yield awaited))
                elif ready[0][1] == select.POLLIN:
                    awaited = gen.send(Ready.R)
                elif ready[0][1] == select.POLLOUT:
                    awaited = gen.send(Ready.W)
                else:  # both, or an error for libpq to find
                    awaited = gen.send(Ready(awaited))
        except StopIteration as end:
            result: abc.RV = end.value
            return result


def _told(gen: abc.PQGen[abc.RV], waits: Callable[[], None]) -> abc.PQGen[abc.RV]:
    """The generator, which tells of each time that its caller waited for nothing."""
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            if not ready:
                waits()
            awaited = gen.send(ready)
    except StopIteration as end:
        result: abc.RV = end.value
        return result
