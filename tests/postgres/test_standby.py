"""Servers that take no writes: they are told and waited for, and of several hosts the one that does is used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

import failover
from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.postgres.connection import check_writable, connect
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Stream
from fix_servers import FAST, TEMPLATE, own_postgres
from fix_service import wait_until

SETTINGS = FAST | {"synchronous_commit": "on"}  # so that the standby hears at once of a commit
STREAM = Stream("N", (">",), "n", (Column("k", "bigint"),), lambda message: Decoded([(message.sequence,)]))
CAUGHT_UP = "SELECT replay_lsn >= pg_current_wal_insert_lsn() FROM pg_stat_replication"
OPENING = Opening(Identity("N", "N", datetime(2026, 1, 1, tzinfo=UTC), "writer"), (">",))


@dataclass
class Pair:
    """A server and its standby."""

    primary: PostgresServer
    standby: PostgresServer

    def dsn(self, *servers: PostgresServer, more: str = "") -> str:
        """A connection string with these hosts, in this order; the standby first if none is named."""
        ports = ",".join(str(server.port) for server in servers or (self.standby, self.primary))
        hosts = ",".join(["127.0.0.1"] * (ports.count(",") + 1))
        return f"host={hosts} port={ports} user=postgres dbname={TEMPLATE} {more}"


@pytest.fixture(scope="module")
def pair(prepared: Path) -> Iterator[Pair]:
    """Both, with a table for ``STREAM``."""
    with own_postgres(prepared, SETTINGS) as primary:
        with psycopg.connect(primary.dsn(TEMPLATE), autocommit=True) as connection:
            connection.execute("CREATE TABLE n (k bigint)")
        standby = failover.follow(primary, primary.folder.parent / "standby", SETTINGS)
        try:
            yield Pair(primary, standby)
        finally:
            standby.stop(immediate=True)


def sink(dsn: str) -> Sink:
    """A worker's sink, begun."""
    found = Sink(PostgresConfig(dsn=dsn, pool_size=1), STREAM, "n")
    found.open()
    found.begin(OPENING)
    return found


def batch(*sequences: int) -> Batch:
    """Messages with these sequences."""
    return Batch([Message("a", b"", sequence, sequence) for sequence in sequences], list(sequences))


def refusal(dsn: str, kind: type[Exception]) -> str:
    """What is said of a server of which writing is asked."""
    with pytest.raises(kind) as caught, connect(PostgresConfig(dsn=dsn), "test") as connection:
        check_writable(connection)
    return str(caught.value)


@pytest.mark.parametrize("wanted", ["standby", "read-only", "prefer-standby"])
def test_who_asks_for_a_standby_is_told(pair: Pair, wanted: str) -> None:
    """It will never be written to; whether the connection can be made or not."""
    for servers in ((pair.standby,), (pair.primary,), ()):
        if servers == (pair.primary,) and wanted == "prefer-standby":
            continue
        told = refusal(pair.dsn(*servers, more=f"target_session_attrs={wanted}"), ConfigurationError)
        assert told.startswith("postgres.dsn")
        assert "read-write finds the one that does" in told


def test_a_standby_is_waited_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be promoted; of several hosts it is not the one that is used, unless that is asked for."""
    assert "is a standby, which takes no writes" in refusal(pair.dsn(pair.standby), UnavailableError)
    assert "is a standby" in refusal(pair.dsn(more="target_session_attrs=any"), UnavailableError)
    with pytest.raises(UnavailableError, match=r"read-only transaction .25006.: a standby, or"):
        sink(pair.dsn(pair.standby))
    monkeypatch.setenv("PGHOST", "127.0.0.1,127.0.0.1")
    monkeypatch.setenv("PGPORT", f"{pair.standby.port},{pair.primary.port}")
    for dsn in (pair.dsn(), f"user=postgres dbname={TEMPLATE}", pair.dsn(more="target_session_attrs=primary")):
        with connect(PostgresConfig(dsn=dsn), "test") as connection:
            check_writable(connection)
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "any")
    assert "is a standby" in refusal(f"user=postgres dbname={TEMPLATE}", UnavailableError)


def test_a_session_that_may_only_read(pair: Pair) -> None:
    """As a role or a database may be set: idle or writing it is told, and over once that is put right."""
    with closing(sink(pair.dsn(pair.primary))) as found, psycopg.connect(pair.primary.dsn(TEMPLATE)) as owner:
        owner.autocommit = True
        assert found.write(batch(1)).written == 1
        owner.execute(f"ALTER DATABASE {TEMPLATE} SET default_transaction_read_only = on")
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'eventwriter%'"
        )
        for _ in range(3):  # the first may meet the session that ended
            with pytest.raises(UnavailableError) as writing:
                found.write(batch(2))
            with pytest.raises(UnavailableError) as looking:
                found.look()
        assert "(25006)" in str(writing.value)
        assert "takes no writes here: default_transaction_read_only is on" in str(looking.value)
        owner.execute("SET default_transaction_read_only = off")
        owner.execute(f"ALTER DATABASE {TEMPLATE} RESET default_transaction_read_only")
        wait_until(lambda: wrote(found, 2), "the session that may write")


def wrote(found: Sink, sequence: int) -> bool:
    """Whether it is written now."""
    try:
        return found.write(batch(sequence)).written == 1
    except UnavailableError:
        time.sleep(0.05)
        return False


def test_a_failover_between_hosts(pair: Pair) -> None:
    """The primary dies, the standby takes over: the same worker goes on there, without a restart."""
    with closing(sink(pair.dsn())) as found, psycopg.connect(pair.primary.dsn(TEMPLATE), autocommit=True) as owner:
        assert found.write(batch(*range(10, 20))).written == 10
        wait_until(
            lambda: owner.execute(CAUGHT_UP).fetchone() == (True,),
            "the standby has it",
        )
        failover.crash(pair.primary)
        with pytest.raises(UnavailableError):
            found.write(batch(20, 21))
        pair.standby.promote()
        wait_until(lambda: wrote(found, 20), "the new primary is found")
        found.look()
    with psycopg.connect(conninfo.make_conninfo(pair.standby.dsn(TEMPLATE))) as after:
        rows = [row[0] for row in after.execute("SELECT k FROM n WHERE k >= 10 ORDER BY k")]
    assert rows == [*range(10, 21)]
