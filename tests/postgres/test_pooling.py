"""Behind PgBouncer, which gives each transaction the session that is free: everything arrives, and nothing is left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.postgres.connection import connect
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream
from fix_pgbouncer import PgBouncer
from fix_service import wait_until


def decode(message: Message) -> Decoded:
    """A row of the message's number; below 0 the record is refused."""
    number = int(message.payload)
    return Decoded([(number, "雪")]) if number >= 0 else Decoded(rejects=[Reject("malformed", "below 0")])


COLUMNS = (Column("k", "bigint"), Column("v", "text"))
STREAMS = (
    Stream("PLAIN", (">",), "plain", COLUMNS, decode),  # COPY
    Stream("KEYED", (">",), "keyed", COLUMNS, decode, key=("k",)),  # upsert
    Stream("CHECKED", (">",), "checked", COLUMNS, decode),  # row by row, once it has refused some
)
TABLES = (
    "CREATE TABLE plain (k bigint, v text); CREATE TABLE keyed (k bigint PRIMARY KEY, v text); "
    "CREATE TABLE checked (k bigint CHECK (k % 7 <> 3), v text, UNIQUE (k))"
)


@pytest.fixture
def pooled(connection: Any, database: str, pgbouncer: PgBouncer) -> Iterator[str]:
    """The connection string of a database with these tables, by way of PgBouncer."""
    connection.execute(TABLES)
    yield pgbouncer.dsn(database)
    pgbouncer.forget()


def batch(first: int, *numbers: int) -> Batch:
    """A message of each number, sequences from ``first``."""
    messages = [Message("a", str(n).encode(), sequence, sequence * 1000) for sequence, n in enumerate(numbers, first)]
    return Batch(messages, [message.sequence for message in messages])


def opened(dsn: str, stream: Stream, *, exclusive: bool = False) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn, statement_timeout=7.0), stream, stream.table, exclusive=exclusive)
    sink.open()
    sink.begin(Opening(Identity(stream.name, stream.name, datetime(2026, 1, 1, tzinfo=UTC), "writer"), (">",)))
    return sink


SESSION = """
SELECT current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout'),
       current_setting('tcp_keepalives_idle'), (SELECT count(*) FROM pg_prepared_statements),
       (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),
       (SELECT count(*) FROM pg_proc WHERE proname LIKE 'eventwriter%%'),
       (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


def sessions(dsn: str) -> set[tuple[Any, ...]]:
    """What is to be seen in the sessions that PgBouncer has, of which the next transaction may get any."""
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        return {connection.execute(SESSION).fetchone() or () for _ in range(4)}


def test_everything_arrives_and_nothing_is_left(connection: Any, database: str, pooled: str) -> None:
    """Two workers of each of three streams take turns in two sessions: by COPY, by key, and row by row."""
    untouched = sessions(pooled)
    with ExitStack() as stack:
        sinks = [stack.enter_context(closing(opened(pooled, stream))) for stream in STREAMS for _ in range(2)]
        for turn in range(8):
            for place, sink in enumerate(sinks):
                first = 1 + (2 * turn + place % 2) * 10
                sink.write(batch(first, *range(first, first + 8), 5 + turn, -1))
                sink.look()
        assert sinks[0].session.setting("statement_timeout") == "7s"
        assert sinks[0].session.setting("idle_in_transaction_session_timeout") == "12s"
        assert sessions(pooled) == untouched
    sent = [number for turn in range(16) for number in (*range(turn * 10 + 1, turn * 10 + 9), 5 + turn // 2)]
    for table, expected in (
        ("plain", sorted(sent)),
        ("keyed", sorted({*sent})),
        ("checked", sorted({number for number in sent if number % 7 != 3})),
    ):
        assert [row[0] for row in connection.execute(f"SELECT k FROM {table} ORDER BY k")] == expected
    letters = dict(
        connection.execute(
            "SELECT logical_stream || ' ' || reason, count(*) FROM eventwriter.dead_letters GROUP BY 1"
        ).fetchall()
    )
    refused = sum(number % 7 == 3 for number in sent)
    assert letters == {
        **{f"{stream.name} malformed": 16 for stream in STREAMS},
        "CHECKED refused": refused,
    }


def test_a_pooler_that_goes_away_is_waited_for(connection: Any, pooled: str, pgbouncer: PgBouncer) -> None:
    """And what it has lost meanwhile: the same sink goes on, and nothing is written twice."""
    with closing(opened(pooled, STREAMS[1])) as sink:
        assert sink.write(batch(1, *range(20))).written == 20
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        wait_until(lambda: wrote(sink, batch(21, *range(20, 40))), "a new session behind the pooler")
        pgbouncer.stop()
        with pytest.raises(UnavailableError):
            sink.write(batch(41, *range(40, 60)))
        pgbouncer.start()
        wait_until(lambda: wrote(sink, batch(41, *range(40, 60))), "the pooler")
    assert [row[0] for row in connection.execute("SELECT k FROM keyed ORDER BY k")] == [*range(60)]


def wrote(sink: Sink, work: Batch) -> bool:
    """Whether all of it is written now."""
    try:
        return sink.write(work).written == len(work.messages)
    except UnavailableError:
        return False


def test_a_lock_that_strangers_would_hold_is_refused(pooled: str) -> None:
    """With ``ack = "all"`` a worker must be alone, which a pooler cannot tell; what to do is said."""
    with pytest.raises(ConfigurationError, match=r'PLAIN: ack = "all" .* behind a pooler .* set ack = "each"'):
        opened(pooled, STREAMS[0], exclusive=True)
    assert {locks for *_, locks in sessions(pooled)} == {0}


def test_what_commands_set_is_left_to_nobody(pooled: str, database: str) -> None:
    """Nor do they prepare statements; with a session of their own they do."""
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {owner.info.dbname} SET DateStyle = 'German'")
    untouched = sessions(pooled)
    with connect(PostgresConfig(dsn=pooled), "test") as connection:
        for _ in range(20):
            assert connection.execute("SHOW tcp_keepalives_idle").fetchone() == ("5",)
        connection.rollback()
        connection.pool({"lock_timeout": "3s"})
        for name, value in (("lock_timeout", "3s"), ("tcp_keepalives_idle", "5"), ("DateStyle", "ISO, DMY")):
            assert connection.execute(f"SHOW {name}").fetchone() == (value,)
        assert connection.pooled
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchone() == (0,)
    assert sessions(pooled) == untouched
    with connect(PostgresConfig(dsn=database), "test") as connection:
        assert not connection.pooled
        assert connection.execute("SHOW tcp_keepalives_idle").fetchone() == ("5",)


@pytest.mark.parametrize("options", ["options='-c search_path=public'", "options=--work_mem=1MB", "options='-c x.y=1'"])
def test_what_a_pooler_does_not_take_is_a_mistake(pooled: str, options: str) -> None:
    """No outage that passes: what it is, and what to do."""
    with pytest.raises(ConfigurationError, match=r"postgres.dsn.*: unsupported startup parameter: options.*PgBouncer"):
        connect(PostgresConfig(dsn=f"{pooled} {options}"), "test")
