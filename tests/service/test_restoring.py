"""While TimescaleDB restores a database, what is written goes where nobody sees it: workers wait, and say so."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import psycopg
import pytest

from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_service import World, only, wait_until

HEAP = """
CREATE TABLE unseen (LIKE logs);
CREATE FUNCTION unseen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF current_setting('timescaledb.restoring', true) ~* '^(on|true|1)$' THEN
        INSERT INTO unseen SELECT NEW.*; RETURN NULL; END IF;
    RETURN NEW; END $$;
CREATE TRIGGER unseen BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION unseen();
"""
"""A stand-in for a hypertable: a session that restores writes beside it."""
SESSIONS = "FROM pg_stat_activity WHERE application_name = 'eventwriter LOGS' AND datname = current_database()"
RESTORES = "LOGS: TimescaleDB restores this database (timescaledb.restoring is on)"


@pytest.fixture
def restoring(world: World) -> Callable[[str], None]:
    """Says what pre_restore and post_restore say to a database: for sessions to come, and for none that are there."""
    world.execute(HEAP)
    name = psycopg.conninfo.conninfo_to_dict(world.dsn)["dbname"]
    return lambda value: world.execute(f"ALTER DATABASE {name} SET timescaledb.restoring = {value}")


@pytest.mark.parametrize(
    ("value", "ack"), [("on", "each"), ("'TRUE'", "all"), pytest.param("1", "each", marks=pytest.mark.long)]
)
def test_a_worker_that_runs_waits_until_it_is_over(
    world: World, restoring: Callable[[str], None], value: str, ack: str
) -> None:
    """Idle and with messages, in sessions from before and since: none is acknowledged, and afterwards all are there."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    environment = only("LOGS") | {"EVENTWRITER_STREAMS__LOGS__ACK": ack, "EVENTWRITER_HTTP__LISTEN": endpoint.address}
    service = world.start(**environment)
    world.traffic(["LOGS"], count=50)
    world.wait_settled()
    worker = world.worker("LOGS")
    restoring(value)
    wait_until(partial(endpoint.answers, "/readyz", 503, RESTORES), "an idle worker sees it", 5)
    written, now = world.counts("LOGS"), world.query("SELECT now()")[0][0]
    world.traffic(["LOGS"], count=50, seed=1)
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 50, "messages in hand")
    assert RESTORES.partition(" ")[2] in world.run("check", check=False).stdout
    assert world.counts("LOGS") == written
    assert world.query(f"SELECT count(*) {SESSIONS} AND backend_start < %s", now) != [(0,)], "sessions are kept"
    world.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
    wait_until(lambda: world.query(f"SELECT count(*) {SESSIONS}") != [(0,)], "a session since then")
    restoring("off")
    world.wait_settled(20)
    world.assert_exact()
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness")
    assert world.query("SELECT count(*) FROM unseen") == [(0,)]
    assert world.worker("LOGS") == worker, "nobody started it again"
    assert world.stop(service) == 0


def more_often(world: World, told: int) -> int:
    """How often the log tells of it, if that is more often than before."""
    now = world.log.count("TimescaleDB restores")
    return now if now > told else 0


def test_a_restore_under_load(world: World, restoring: Callable[[str], None]) -> None:
    """From one batch to the next, with a connection lost meanwhile: the new one would write beside the table."""
    service = world.start(**only("LOGS"), EVENTWRITER_WRITER__BATCH_MESSAGES="20")
    told = 0
    for seed in range(3):
        done = sum(world.counts("LOGS"))
        world.traffic(["LOGS"], count=300, seed=seed)
        wait_until(lambda: sum(world.counts("LOGS")) > done, "the first of them")  # noqa: B023 - called at once
        restoring("on")
        world.execute(f"SELECT pg_terminate_backend(pid) {SESSIONS}")
        told = wait_until(partial(more_often, world, told), "it is told")
        restoring("DEFAULT")
    world.wait_settled()
    world.assert_exact()
    assert world.query("SELECT count(*) FROM unseen") == [(0,)]
    assert world.stop(service) == 0


def test_a_worker_that_starts_waits_too(world: World, restoring: Callable[[str], None]) -> None:
    """It is started again and again, with the reason; nothing is to be told to it when it is over."""
    restoring("on")
    world.traffic(["LOGS"], count=50)
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(**only("LOGS"), EVENTWRITER_HTTP__LISTEN=endpoint.address)
    wait_until(partial(endpoint.answers, "/readyz", 503, RESTORES), "the reason")
    assert world.run("check", check=False).returncode == 69
    restoring("off")
    world.wait_settled()
    world.assert_exact()
    assert world.stop(service) == 0
