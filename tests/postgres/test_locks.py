"""Locks: taken late, held briefly, and not held by the dead."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import conninfo, sql

from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import NatsServer
from eventwriter.errors import ExclusiveError, UnavailableError
from eventwriter.postgres import connection as connecting
from eventwriter.postgres import session
from eventwriter.postgres.ledger import Done, Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.session import Session
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Stream
from fix_hosts import second_host
from fix_proxy import Proxied
from fix_servers import FAST, TEMPLATE, own_postgres
from fix_service import ROOT, World, clean_environment, wait_until
from hosts import Host, settings_for
from patience import PATIENCE
from proxy import Proxy

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")
COLUMNS = (Column("n", "bigint"), Column("text", "text"))
SETTINGS = (
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
    "client_connection_check_interval",
    "idle_in_transaction_session_timeout",
)


def decode(message: Message) -> Decoded:
    """A row with the message's number."""
    return Decoded([(int(message.payload), "")])


def stream(decode: Callable[[Message], Decoded] = decode, key: tuple[str, ...] = ()) -> Stream:
    """Numbers into the table of numbers."""
    return Stream("NUMBERS", ("numbers.>",), "numbers", COLUMNS, decode, key=key)


def batch(*sequences: int, firsts: list[int] | None = None) -> Batch:
    """Messages whose numbers are their sequences."""
    messages = [Message("numbers.x", str(n).encode(), n, n) for n in sequences]
    return Batch(messages, firsts or [*sequences])


@pytest.fixture
def connection(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A connection to a fresh database with eventwriter's own tables and a table of numbers."""
    connection.execute("CREATE TABLE numbers (n bigint, text text)")
    return connection


def open_sink(dsn: str, declared: Stream, at: Callable[[str], None] | None = None) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn), declared, "numbers", at=at)
    sink.open()
    sink.begin(Opening(IDENTITY, declared.subjects))
    return sink


def numbers(connection: psycopg.Connection[Any]) -> list[int]:
    """What is in the table."""
    return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


# --- late and briefly ---------------------------------------------------------------------------------------------


def test_another_worker_is_quicker_again_and_again(connection: Any, database: str) -> None:
    """Until its last statement a write keeps nobody from the ledger, and there it learns what others have done."""
    quicker = [[2, 3], [3, 5], [6]]

    def at(point: str) -> None:
        if point == "after_copy" and quicker:
            for number in quicker.pop(0):
                connection.execute(
                    "UPDATE eventwriter.ledger SET done = done + int8multirange(int8range(%s, %s))",
                    [number, number + 1],
                )

    connection.execute("SET statement_timeout = '5s'")
    sink = open_sink(database, stream(), at)
    outcome = sink.write(batch(1, 2, 3, 4, 5, 6, 7))
    sink.close()
    assert not quicker
    assert (outcome.written, outcome.already_done) == (3, 4)
    assert numbers(connection) == [1, 4, 7]
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[1,8)}",)


def test_a_worker_begins_while_another_has_the_ledger_locked(connection: Any, database: str) -> None:
    """It reads, and has nothing to change."""
    open_sink(database, stream()).close()
    with psycopg.connect(database) as other:
        other.execute("UPDATE eventwriter.ledger SET updated_at = now()")
        open_sink(conninfo.make_conninfo(database, options="-c lock_timeout=1s"), stream()).close()


def test_what_lies_between_messages_may_be_done(connection: Any, database: str) -> None:
    """A gap that was closed meanwhile, and belongs to a message that is not done, keeps nobody from writing that."""
    sink = open_sink(database, stream())
    sink.ledger.record(connection, [(1, 5)], Done())
    outcome = sink.write(batch(7, 9, firsts=[3, 8]))
    sink.close()
    assert (outcome.written, outcome.already_done) == (2, 0)
    assert numbers(connection) == [7, 9]
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[1,10)}",)


def test_a_transaction_never_waits_for_our_decoding(connection: Any, database: str) -> None:
    """However long that takes, and whatever was asked before: PostgreSQL would end the session."""

    def slowly(message: Message) -> Decoded:
        time.sleep(0.2 * PATIENCE)
        return decode(message)

    connection.execute("ALTER TABLE numbers ADD PRIMARY KEY (n)")
    options = conninfo.make_conninfo(database, options=f"-c idle_in_transaction_session_timeout={100 * PATIENCE:.0f}ms")
    sink = open_sink(options, stream(slowly, key=("n",)))
    sink.write(batch(1))
    sink._doubt = True
    outcome = sink.write(batch(1, 2))  # by COPY, by staging, and then without what the ledger knows
    sink.close()
    assert (outcome.written, outcome.already_done) == (1, 1)
    assert numbers(connection) == [1, 2]


# --- what a session asks of its server ------------------------------------------------------------------------------


def shown(connection: psycopg.Connection[Any]) -> list[str]:
    """The settings of a session."""
    return [connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchall()[0][0] for name in SETTINGS]


def test_sessions_ask_for_limits_unless_the_dsn_sets_them(database: str) -> None:
    """Those of the pool all of them; commands may let a transaction wait. Explicit options are the user's."""
    limits = ["5", "2", "3", "10000", "2s", "12s"]
    with connecting.connect(PostgresConfig(dsn=database), "test") as connection:
        assert shown(connection) == [*limits[:-1], "0"]
    pool = connecting.open_pool(PostgresConfig(dsn=database), "test", 1)
    with pool.connection() as connection:
        assert shown(connection) == limits
    pool.close()
    options = "-c idle_in_transaction_session_timeout=0 -c tcp_user_timeout=60s"
    pool = connecting.open_pool(PostgresConfig(dsn=conninfo.make_conninfo(database, options=options)), "test", 1)
    with pool.connection() as connection:
        assert shown(connection) == [*limits[:3], "60000", "2s", "0"]
    pool.close()


def test_unix_sockets_need_no_keepalives(open_folder: Path, prepared: Path) -> None:
    """There the server ignores them, and takes the others."""
    sockets = open_folder / "sockets"
    sockets.mkdir()
    sockets.chmod(0o777)
    with own_postgres(prepared, FAST | {"unix_socket_directories": str(sockets)}) as server:
        dsn = conninfo.make_conninfo(server.dsn(), host=str(sockets))
        pool = connecting.open_pool(PostgresConfig(dsn=dsn), "test", 1)
        with pool.connection() as connection:
            assert shown(connection) == ["0", "0", "0", "0", "2s", "12s"]
        pool.close()


# --- the dead ---------------------------------------------------------------------------------------------------------


def test_a_worker_that_falls_silent_gives_the_ledger_free(proxied: Proxied) -> None:
    """Its host answers for it, so only the limit for a waiting transaction ends it: the other worker goes on."""
    world = proxied.world
    world.start("worker", "--stream", "LOGS")
    world.traffic(["LOGS"], count=20, broken=0)
    world.wait_settled()
    proxied.postgres.hold(b"messages_written = messages_written")
    world.traffic(["LOGS"], count=50, broken=0, seed=1)
    assert proxied.postgres.lost(10)
    begun = time.monotonic()
    direct = {"EVENTWRITER_POSTGRES__DSN": world.dsn, "EVENTWRITER_NATS__URL": world.nats.url}
    world.start("worker", "--stream", "LOGS", **direct)
    wait_until(lambda: world.consumer("LOGS").num_waiting == 2, "the other worker")
    world.traffic(["LOGS"], count=100, broken=0, seed=2)
    wait_until(lambda: world.counts("LOGS")[0] > 20, "the other one", begun + 15 - time.monotonic())
    print(f"written again after {time.monotonic() - begun:.1f} s")
    proxied.postgres.resume()
    world.wait_settled()
    world.assert_exact()
    assert world.query("SELECT count(*) FROM eventwriter.dead_letters") == [(0,)]
    assert all(service.poll() is None for service in world.services), world.log


def alone(dsn: str) -> Session:
    """That of a worker with ``ack = "all"``."""
    opened = Session(PostgresConfig(dsn=dsn), "NUMBERS")
    opened.open(alone=True)
    opened.lock("the consumer of NUMBERS")
    return opened


def silence(opened: Session) -> str:
    """For how long this one may be silent."""
    with opened.connection() as connection:
        return str(connection.execute("SHOW idle_session_timeout").fetchall()[0][0])


def test_a_session_that_fell_silent_gives_the_consumer_free(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as one whose worker lost its connection, while something between keeps the server's end. If its worker is
    there all the same, as after a pause, it goes on with another one, which is not ended again and again for it."""
    first = alone(database)
    assert silence(first) == "1min"
    first.close()
    monkeypatch.setattr(session, "_ALONE", {"idle_session_timeout": "3s"})
    first, second = alone(database), alone(database)
    assert silence(first) == "3s"
    with pytest.raises(ExclusiveError, match="its own session from before a lost connection is still open"):
        silence(second)

    def taken(by: Session) -> bool:
        try:
            return bool(silence(by))
        except (ExclusiveError, UnavailableError):
            return False

    wait_until(lambda: taken(second), "the end of the first")
    with pytest.raises(UnavailableError, match="idle-session timeout"):
        silence(first)
    second.close()
    wait_until(lambda: taken(first), "its next try")
    assert silence(first) == "0"
    first.close()
    other = Session(PostgresConfig(dsn=database), "NUMBERS")
    other.open()
    assert silence(other) == "0"
    other.close()


def test_a_batch_that_takes_longer_than_silence_may_last(
    connection: psycopg.Connection[Any], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its decoder is not begun again for ever, also where rows are gathered before PostgreSQL hears of them."""
    monkeypatch.setattr(session, "_ALONE", {"idle_session_timeout": "1s"})
    connection.execute("ALTER TABLE numbers ADD PRIMARY KEY (n)")
    connection.execute("INSERT INTO numbers VALUES (1, 'there before')")

    def slow(message: Message) -> Decoded:
        time.sleep(1.5)
        return decode(message)

    sink = Sink(PostgresConfig(dsn=database), stream(slow, key=("n",)), "numbers", exclusive=True)
    sink.open()
    sink.begin(Opening(IDENTITY, ("numbers.>",)))
    with pytest.raises(UnavailableError, match="idle-session timeout"):
        sink.write(batch(1))

    def written() -> bool:
        try:
            return bool(sink.write(batch(1)).written)
        except UnavailableError:
            return False

    wait_until(written, "the batch")
    sink.close()


STOPPING = """
import sys, time
from eventwriter import cli, worker

def stops(stream):
    def at(here):
        if here == sys.argv[1]:
            print("stopped", flush=True)
            while True:
                time.sleep(0.01)
    return at

worker.failpoint = stops
cli.cli(sys.argv[2:])
"""


@pytest.fixture
def host() -> Iterator[Host]:
    """A second host."""
    with second_host() as found:
        yield found


@pytest.fixture
def shared(open_folder: Path, prepared: Path, host: Host) -> Iterator[World]:
    """A world of its own, whose PostgreSQL can be reached from the second host too."""
    folder = open_folder
    settings = FAST | settings_for(host, folder)
    with own_postgres(prepared, settings) as server, NatsServer(folder / "nats") as nats:
        environment = clean_environment() | {
            "EVENTWRITER_NATS__URL": nats.url,
            "EVENTWRITER_POSTGRES__DSN": server.create_database("shared", TEMPLATE),
            "EVENTWRITER_WRITER__ACK_WAIT": "3s",
            "EVENTWRITER_HTTP__LISTEN": "127.0.0.1:0",
        }
        world = World(nats, environment["EVENTWRITER_POSTGRES__DSN"], folder, environment)
        world.create_streams()
        yield world
        for service in world.services:
            service.kill()
            service.wait()


def test_a_host_that_vanished_frees_its_locks(shared: World, host: Host) -> None:
    """Cut off with its transactions open, one of them with the ledger's row, one in COPY, and one session idle."""
    world = shared
    streams = {"LOGS": "after_ledger", "EVENTS": "in_copy", "SWEEP": "never"}
    with Proxy(world.nats.port, host.here) as to_nats:
        there = world.environment | {
            "EVENTWRITER_NATS__URL": f"nats://{host.here}:{to_nats.port}",
            "EVENTWRITER_POSTGRES__DSN": conninfo.make_conninfo(world.dsn, host=host.here),
        }
        with (world.folder / "there.log").open("ab") as log:
            for stream, point in streams.items():
                command = host.command(sys.executable, "-c", STOPPING, point, "worker", "--stream", stream)
                world.services.append(subprocess.Popen(command, cwd=ROOT, env=there, stdout=log, stderr=log))
        said = world.folder / "there.log"
        wait_until(lambda: said.read_text().count("messages waiting") == 3, "the workers of the other host")
        world.traffic(["LOGS", "EVENTS"], count=100)
        wait_until(lambda: said.read_text().count("stopped") == 2, "two transactions that stand still")
        # The idle one looks at its table now and then, in a transaction.
        wait_until(lambda: sessions(world, host) == ["active", "idle", "idle in transaction"], "their sessions")
        host.cut()
        cut = time.monotonic()
        for stream in streams:
            world.start("worker", "--stream", stream)
        world.traffic(["LOGS", "EVENTS"], count=100, seed=1)
        wait_until(lambda: sum(world.counts("LOGS")) > 0, "logs", 15)
        wait_until(lambda: sum(world.counts("EVENTS")) > 0, "events", cut + 15 - time.monotonic())
        print(f"written again after {time.monotonic() - cut:.1f} s")
        wait_until(lambda: not sessions(world, host), "the end of the sessions", cut + 15 - time.monotonic())
        print(f"the sessions ended after {time.monotonic() - cut:.1f} s")
    world.wait_settled()
    world.assert_exact()


def sessions(world: World, host: Host) -> list[str]:
    """The states of the sessions that PostgreSQL has with the other host."""
    found = world.query("SELECT state FROM pg_stat_activity WHERE client_addr = %s ORDER BY 1", host.there)
    return [row[0] for row in found]
