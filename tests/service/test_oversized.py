"""A batch that is too much for PostgreSQL at once: written in parts, of a size that works, and larger ones again."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg
import pytest

from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_servers import FAST, TEMPLATE, own_postgres
from fix_service import World, new_world, only, wait_until
from patience import PATIENCE
from traffic import NUMBER

AT_ONCE = {"EVENTWRITER_WRITER__LINGER": "1s"}
"""What is published together is taken together."""
TOO_MANY = """
CREATE FUNCTION too_many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (SELECT count(*) FROM added) > {most} THEN RAISE EXCEPTION 'no more' USING ERRCODE = '{code}'; END IF;
    RETURN NULL; END $$;
CREATE TRIGGER too_many AFTER INSERT ON {table} REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION too_many();
"""


def parts(world: World) -> list[int]:
    """The sizes that came next, as the log tells."""
    return [int(size) for size in re.findall(r"are too much at once[^\"]*, (\d+) come next", world.log)]


@pytest.mark.parametrize(
    ("code", "table", "stream"),
    [("53200", "logs", "LOGS"), ("57014", "events", "EVENTS"), ("53400", "timeseries_metrics", "TELEMETRY")],
)
def test_a_batch_that_is_too_much_is_halved(world: World, code: str, table: str, stream: str) -> None:
    """By COPY and with a key: until it fits. All is written once, nothing is a dead letter, the size is remembered."""
    world.execute(TOO_MANY.format(most=90, code=code, table=table))
    world.traffic([stream], count=400, broken=0)
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(**only(stream), **AT_ONCE, EVENTWRITER_HTTP__LISTEN=endpoint.address)
    world.wait_settled()
    world.assert_exact()
    halved = parts(world)
    assert 1 < min(halved) <= 90
    assert len(halved) < 12, halved
    line = next(line for line in map(json.loads, world.log.splitlines()) if "too much at once" in line["message"])
    assert (line["level"], line["stream"]) == ("warning", stream)
    assert f"no more ({code})" in line["message"]
    assert endpoint.answers("/readyz", 200)
    assert endpoint.value("errors_total", stream=stream, **{"class": "oversized"}) == len(halved)
    messages = endpoint.status()["streams"][stream]["messages"]
    assert (messages["written"], messages["already_done"], messages["taken"]) == (400, 0, 400)
    assert world.stop(service) == 0


SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON {table} FOR EACH ROW {when} EXECUTE FUNCTION slow();
"""


def test_what_takes_too_long_at_once(world: World) -> None:
    """The time limits of PostgreSQL itself: of a statement, and of a transaction, which ends the session."""
    limit = f"{300 * PATIENCE:.0f}ms"
    world.execute(SLOW.format(seconds=0.01 * PATIENCE, table="sweep_host_states", when=""))
    service = world.start("worker", "--stream", "SWEEP", **AT_ONCE, EVENTWRITER_POSTGRES__STATEMENT_TIMEOUT=limit)
    world.traffic(["SWEEP"], count=100, broken=0)
    world.wait_settled()
    assert (
        f"statement timeout (57014): 100 messages are too much at once (postgres.statement_timeout = {limit})"
        in world.log
    )
    assert world.stop(service) == 0
    world.execute(
        f"ALTER DATABASE {psycopg.conninfo.conninfo_to_dict(world.dsn)['dbname']} SET transaction_timeout = '{limit}'"
    )
    service = world.start("worker", "--stream", "SWEEP", **AT_ONCE)
    world.traffic(["SWEEP"], count=100, broken=0)
    world.wait_settled()
    assert (
        f"transaction timeout (25P04): 100 messages are too much at once (transaction_timeout = {limit})" in world.log
    )
    assert world.stop(service) == 0
    world.assert_exact()


def test_messages_that_are_too_much_by_themselves_are_set_aside(world: World) -> None:
    """All others are written, before them and after; they come again later each time, until they get through."""
    world.execute(TOO_MANY.format(most=3, code="53200", table="logs"))
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(**only("LOGS"), EVENTWRITER_HTTP__LISTEN=endpoint.address, EVENTWRITER_WRITER__ACK_WAIT="1s")
    world.traffic(["LOGS"], count=60, broken=0)
    large = [n for n, message in enumerate(world.published["LOGS"], 1) if len(message.records) > 3]
    assert 2 < len(large) < 50
    wait_until(lambda: world.counts("LOGS")[0] == 60 - len(large), "the others")
    world.traffic(["LOGS"], count=60, broken=0, seed=1)
    large += [n for n, message in enumerate(world.published["LOGS"][60:], 61) if len(message.records) > 3]
    wait_until(lambda: world.counts("LOGS")[0] == 120 - len(large), "the others after them")
    said = "alone is too much at once (max_locks_per_transaction = 64), it is set aside, and tried again later"
    wait_until(lambda: world.log.count(said) > 2 * len(large), "more tries")
    lines = [json.loads(line) for line in world.log.splitlines() if said in line]
    assert {int(re.findall(r"message (\d+), of \d+ bytes", line["message"])[0]) for line in lines} == {*large}
    assert {line["level"] for line in lines} == {"error"}
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness: the stream goes on")
    assert (endpoint.value("errors_total", stream="LOGS", **{"class": "oversized"}) or 0) > 2 * len(large)
    world.execute("DROP TRIGGER too_many ON logs")
    world.wait_settled()
    world.assert_exact()
    messages = endpoint.status()["streams"]["LOGS"]["messages"]
    assert (messages["written"], messages["already_done"], messages["deadlettered"]) == (120, 0, 0)
    assert messages["taken"] == 120 + messages["released"]
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the last ack")
    assert world.stop(service) == 0


def test_where_nothing_gets_through_it_is_told(world: World) -> None:
    """Whatever holds for every message is waited for, and /readyz says so; a consumer that is ours alone waits, too."""
    world.execute(TOO_MANY.format(most=0, code="57014", table="logs"))
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    environment = only("LOGS") | {"EVENTWRITER_HTTP__LISTEN": endpoint.address, "EVENTWRITER_WRITER__ACK_WAIT": "1s"}
    for ack in ("each", "all"):
        service = world.start(**environment, EVENTWRITER_STREAMS__LOGS__ACK=ack)
        world.traffic(["LOGS"], count=10, broken=0)
        said = "alone is too much at once (postgres.statement_timeout = 1min)"
        wait_until(partial(endpoint.answers, "/readyz", 503, "LOGS: PostgreSQL: no more (57014): message ", said), said)
        assert (", it is set aside" in world.log) is (ack == "each")
        world.execute("ALTER TABLE logs DISABLE TRIGGER too_many")
        world.wait_settled()
        world.assert_exact()
        world.execute("ALTER TABLE logs ENABLE TRIGGER too_many")
        assert world.stop(service) == 0
        (world.folder / "service.log").unlink()
        world.call(lambda client: client.jetstream().delete_consumer("LOGS", "eventwriter-logs"))


def test_more_partitions_than_there_are_locks(prepared: Path, tmp_path: Path) -> None:
    """The real thing: each partition of a batch takes locks until its transaction ends."""
    few = {"max_locks_per_transaction": "10", "max_connections": "25", "shared_buffers": "16MB"}
    with own_postgres(prepared, FAST | few) as postgres, new_world(tmp_path, postgres, TEMPLATE) as world:
        world.execute(
            "ALTER TABLE logs RENAME TO plain; CREATE TABLE logs (LIKE plain INCLUDING DEFAULTS) "
            "PARTITION BY HASH ((attributes->>'n'))"
        )
        world.execute(
            "DO $$ BEGIN FOR i IN 0..1499 LOOP EXECUTE format('CREATE TABLE logs_%1$s PARTITION OF logs "
            "FOR VALUES WITH (modulus 1500, remainder %1$s)', i); COMMIT; END LOOP; END $$"
        )
        world.traffic(["LOGS"], count=1000, broken=0)
        service = world.start("worker", "--stream", "LOGS", **AT_ONCE)

        def settled() -> bool:
            with suppress(psycopg.errors.OutOfMemory):  # while the worker has all locks, there is none for us
                return world.settled()
            return False

        wait_until(settled, lambda: f"all of them\n{world.log[-5000:]}", 60)
        assert "out of shared memory (53200), hint: You might need to increase" in world.log
        assert "messages are too much at once (max_locks_per_transaction = 10), " in world.log
        assert world.stop(service) == 0
        with world.connect() as connection:  # one at a time: to read all of them takes as many locks
            numbers = [
                number
                for partition in range(1500)
                for (number,) in connection.execute(f"SELECT {NUMBER['LOGS']} FROM logs_{partition}")
            ]
        assert sorted(numbers) == sorted(n for message in world.published["LOGS"] for n in message.records)


def test_a_limit_of_temporary_files(world: World) -> None:
    """Rows with a key are sorted on their way, once one was there: 53400 by PostgreSQL itself."""
    name = psycopg.conninfo.conninfo_to_dict(world.dsn)["dbname"]
    world.execute(f"ALTER DATABASE {name} SET temp_file_limit = '100kB'; ALTER DATABASE {name} SET work_mem = '64kB'")
    service = world.start("worker", "--stream", "EVENTS")
    world.traffic(["EVENTS"], count=500, broken=0)
    world.publish("EVENTS", [replace(message, records=()) for message in world.published["EVENTS"]])
    world.wait_settled()
    world.assert_exact()
    assert "temporary file size exceeds" in world.log
    assert world.stop(service) == 0


@pytest.mark.parametrize("code", ["53200", "57014"])
def test_rows_that_are_refused_are_found_in_the_parts(world: World, code: str) -> None:
    """Where rows go one by one to find them, too much is too much as well, and no fault of a row."""
    world.execute(TOO_MANY.format(most=40, code=code, table="logs"))
    world.execute(f"ALTER TABLE logs ADD CHECK ({NUMBER['LOGS']} % 25 <> 7)")
    world.traffic(["LOGS"], count=200)
    service = world.start("worker", "--stream", "LOGS", **AT_ONCE)
    world.wait_settled()
    numbers = [number for message in world.published["LOGS"] for number in message.records]
    found = world.query(f"SELECT {NUMBER['LOGS']} FROM logs ORDER BY 1")
    assert [number for (number,) in found] == [number for number in sorted(numbers) if number % 25 != 7]
    letters = dict(world.query("SELECT coalesce(sqlstate, ''), count(*) FROM eventwriter.dead_letters GROUP BY 1"))
    broken = sum(message.rejects for message in world.published["LOGS"])
    assert letters == {"": broken, "23514": len(numbers) - len(found)}
    assert world.stop(service) == 0


def test_a_worker_that_is_killed_between_two_parts(world: World) -> None:
    """What it had committed is known to the next one; nothing is lost, nothing twice."""
    world.execute(TOO_MANY.format(most=40, code="53200", table="logs"))
    world.execute(SLOW.format(seconds=0.003, table="logs", when=""))
    world.traffic(["LOGS"], count=300, broken=0)
    worker = world.start("worker", "--stream", "LOGS", **AT_ONCE)
    wait_until(lambda: world.counts("LOGS")[0], "some parts")
    worker.kill()
    worker.wait()
    assert world.counts("LOGS")[0] < 300
    world.execute("DROP TRIGGER slow ON logs")
    service = world.start("worker", "--stream", "LOGS", **AT_ONCE)
    world.wait_settled()
    world.assert_exact()
    assert world.stop(service) == 0
