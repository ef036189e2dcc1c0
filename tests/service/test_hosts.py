"""Two hosts on one durable: when one dies or its network is cut, the other goes on, and nothing is written twice."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest

import hosts
from fix_failover import SETTINGS, load
from fix_hosts import second_host
from fix_servers import TEMPLATE, own_postgres
from fix_service import World, new_world, only, wait_until
from patience import PATIENCE

FREE_WITHIN = 15.0
"""Seconds after which a host that vanished holds no lock any more."""
SLOW_WHEN_FAR = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(2); RETURN NULL; END';
CREATE TRIGGER slow AFTER UPDATE ON eventwriter.ledger
    FOR EACH ROW WHEN (current_setting('far.host', true) = 'yes') EXECUTE FUNCTION slow();
"""
"""Makes the moment long in which a transaction holds the ledger's row."""


@dataclass
class Two:
    """A world with a service here, and its like on another host."""

    here: World
    far: World
    cut: Callable[[], None]
    join: Callable[[], None]


@pytest.fixture(params=["namespace", pytest.param("proxy", marks=pytest.mark.long)])
def two(request: pytest.FixtureRequest, tmp_path: Path, open_folder: Path, prepared: Path) -> Iterator[Two]:
    """Another host in a network of its own where we may make one, and behind proxies anywhere."""
    with (
        second_host() if request.param == "namespace" else nullcontext() as host,
        own_postgres(prepared, SETTINGS | hosts.settings_for(host, open_folder)) as server,
        new_world(tmp_path, server, TEMPLATE) as here,
        hosts.joined(host, here.nats.port, server.port) as far,
    ):
        environment = here.environment | {
            "EVENTWRITER_NATS__URL": f"nats://{far.address}:{far.nats}",
            "EVENTWRITER_POSTGRES__DSN": psycopg.conninfo.make_conninfo(
                here.dsn, host=far.address, port=far.postgres, options="-c far.host=yes"
            ),
        }
        folder = tmp_path / "far"
        folder.mkdir()
        # The list of services is shared: who ends those of one ends all.
        there = dataclasses.replace(here, folder=folder, environment=environment, prefix=far.prefix)
        yield Two(here, there, far.cut, far.join)


def both_at_work(two: Two) -> bool:
    """Whether the workers on both hosts are connected to their consumer."""
    return all("messages waiting" in world.log for world in (two.here, two.far))


def test_a_host_is_cut_off_in_the_middle_of_a_transaction(two: Two) -> None:
    """Its session keeps the ledger's row locked until the server learns that nobody is there, which is soon."""
    services = [world.start(**only("LOGS")) for world in (two.here, two.far)]
    wait_until(lambda: both_at_work(two), "both")
    two.here.execute(SLOW_WHEN_FAR)
    with load(two.here, ["LOGS"], rate=60):
        in_transaction = "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        wait_until(lambda: two.here.query(in_transaction), lambda: f"a transaction there\n{two.far.log}")
        two.cut()
        cut = time.monotonic()
        before = two.here.counts("LOGS")[0]
        wait_until(lambda: two.here.counts("LOGS")[0] > before + 120, lambda: f"the other goes on\n{two.here.log}", 60)
        took = time.monotonic() - cut
    two.here.execute("DROP TRIGGER slow ON eventwriter.ledger")
    two.join()
    two.here.wait_settled()
    two.here.assert_exact()
    assert took < FREE_WITHIN * PATIENCE
    two.here.traffic(["LOGS"], count=200)
    two.here.wait_settled()
    two.here.assert_exact()
    assert [service.poll() for service in services] == [None, None]


def test_a_host_dies(two: Two) -> None:
    """A power cut: none of its processes says good-bye. What it had in hand is written by the other."""
    two.here.start(**only("LOGS"))
    victim = two.far.start(**only("LOGS"))
    wait_until(lambda: both_at_work(two), "both")
    with load(two.here, ["LOGS"], rate=60):
        wait_until(lambda: two.here.counts("LOGS")[0] > 60, "load")
        two.cut()
        for process in [*psutil.Process(victim.pid).children(recursive=True), psutil.Process(victim.pid)]:
            process.kill()
        before = two.here.counts("LOGS")[0]
        wait_until(lambda: two.here.counts("LOGS")[0] > before + 60, "the other goes on", FREE_WITHIN)
    two.here.wait_settled()
    two.here.assert_exact()
