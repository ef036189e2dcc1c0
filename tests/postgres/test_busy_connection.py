"""A connection that waits lets other work be done, and nothing of it gets lost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from eventwriter.postgres.busy import BusyConnection
from patience import PATIENCE


@pytest.fixture
def busy(database: str) -> Iterator[BusyConnection]:
    """A connection to a fresh database."""
    with BusyConnection.connect(database, autocommit=True) as connection:
        yield connection


def test_work_is_done_while_it_waits(busy: BusyConnection) -> None:
    """As long as there is some, and it is asked for again later."""
    calls: list[float] = []

    def meanwhile() -> bool:
        calls.append(time.monotonic())
        return len(calls) % 3 != 0

    with busy.working(meanwhile):
        assert busy.execute("SELECT pg_sleep(0.2), 7").fetchone() == ("", 7)
    assert len(calls) > 6
    assert calls[-1] - calls[0] > 0.1
    done = len(calls)
    busy.execute("SELECT pg_sleep(0.05)")
    assert len(calls) == done, "the context has ended"


def test_the_server_is_not_kept_waiting_by_work_without_end(busy: BusyConnection) -> None:
    """Its answer is taken after the call during which it came."""
    with busy.working(lambda: True):
        begun = time.monotonic()
        for number in range(20):
            assert busy.execute("SELECT %s::int", [number]).fetchone() == (number,)
        assert time.monotonic() - begun < 5 * PATIENCE


def test_more_than_the_buffers_hold(busy: BusyConnection) -> None:
    """COPY of 20 MB in pieces, with something to do whenever the server is slower than we are."""
    busy.execute("CREATE TEMP TABLE pieces (v text)")
    calls = 0

    def meanwhile() -> bool:
        nonlocal calls
        calls += 1
        return calls % 2 == 0

    line = b"x" * 999 + b"\n"
    with busy.working(meanwhile), busy.cursor() as cursor, cursor.copy("COPY pieces FROM STDIN") as copy:
        for _ in range(200):
            copy.write(line * 100)
    assert busy.execute("SELECT count(*), sum(length(v)) FROM pieces").fetchone() == (20_000, 19_980_000)
    assert calls


def test_errors_come_through(busy: BusyConnection) -> None:
    """Of the server, of the work, and of a connection that breaks meanwhile; it is usable after the first."""
    with busy.working(lambda: False), pytest.raises(psycopg.errors.DivisionByZero):
        busy.execute("SELECT 1 / 0")
    assert busy.execute("SELECT 1").fetchone() == (1,)
    with busy.working(lambda: False), pytest.raises(psycopg.OperationalError):
        busy.execute("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)")


def test_an_exception_of_the_work_comes_through(busy: BusyConnection) -> None:
    """It is a bug, and must not be lost."""

    def meanwhile() -> bool:
        raise RuntimeError("a bug")

    with busy.working(meanwhile), pytest.raises(RuntimeError, match="a bug"):
        busy.execute("SELECT pg_sleep(0.1)")
    busy.close()  # in the middle of a statement
