"""`eventwriter verify` and `replay`: what is missing is told exactly, and written once, whatever else goes on."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import go_writer
from fix_service import World, only
from traffic import Publication, Traffic


def lines(first: int, count: int) -> list[Publication]:
    """Messages of LOGS with a record each, numbered like their sequences."""
    source = Traffic("LOGS", only="json", number=first - 1)
    return [source.next() for _ in range(count)]


def told(done: subprocess.CompletedProcess[str], status: int) -> Any:
    """What a command printed as JSON, if it ended so."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def verified(world: World, status: int, stream: str = "LOGS", *options: str) -> Any:
    """What `verify` says of a stream."""
    found = told(world.run("verify", "--stream", stream, "--output", "json", *options, check=False), status)
    assert found["ok"] == (status == 0)
    return found["streams"][stream]


def forget(world: World, first: int, last: int) -> None:
    """Takes rows of LOGS, and what the ledger knows of their messages, out of the database, as an old backup would."""
    world.execute(f"DELETE FROM logs WHERE (attributes->>'n')::bigint BETWEEN {first} AND {last}")
    world.execute(
        f"UPDATE eventwriter.ledger SET done = done - int8multirange(int8range({first}, {last + 1})) "
        "WHERE logical_stream = 'LOGS'"
    )


def written(world: World, *messages: Publication, stream: str = "LOGS") -> None:
    """Publishes, and lets a worker write it."""
    world.publish(stream, messages)
    process = world.start("worker", "--stream", stream)
    world.wait_settled()
    assert world.stop(process) == 0


def durable(world: World) -> tuple[Any, ...]:
    """What must not change of the durable."""
    info = world.consumer("LOGS")
    return info.delivered, info.ack_floor, info.num_pending, info.num_ack_pending


def test_a_thousand_that_are_missing(world: World) -> None:
    """Reported exactly, written exactly, and nothing else is; the durable does not notice."""
    written(world, *lines(1, 3000), Publication("logs.syslog", b"\xff", (), 1))
    clean = verified(world, 0)
    assert clean == {
        "checked": 3001, "done": 3000, "dead_letters": 1, "missing": 0, "waiting": 0, "before": 0, "gaps": [],
    }  # fmt: skip
    forget(world, 1001, 2000)
    before = durable(world)
    found = verified(world, 1)
    assert (found["checked"], found["done"], found["missing"], found["gaps"]) == (3001, 2000, 1000, [[1001, 2000]])
    text = world.run("verify", check=False).stdout
    assert "1000 messages, sequences 1001 to 2000, received 2" in text
    assert "eventwriter replay --stream LOGS" in text
    replayed = told(world.run("replay", "--stream", "LOGS", "--output", "json", check=False), 0)
    assert (replayed["missing"], replayed["written"], replayed["gaps"]) == (1000, 1000, [[1001, 2000]])
    assert verified(world, 0) == clean
    world.assert_exact()
    assert durable(world) == before


def test_beside_the_writer_that_shall_go(world: World) -> None:
    """Of 100,000 rows beside those of the Go writer three are removed: which ones is told, and of which hour."""
    world.execute(go_writer.TABLES)
    otlp = Traffic("LOGS", only="otlp", records=100, clock=lambda: 1_770_000_000.0)
    world.publish("LOGS", [otlp.next() for _ in range(1000)])
    world.traffic(["EVENTS"], count=40, broken=0)
    service = world.start(**only("LOGS", "EVENTS"))
    for stream, rows in (("LOGS", 100_000), ("EVENTS", 40)):
        assert world.call(lambda client: go_writer.write(client, stream, world.dsn)) == rows  # noqa: B023 - at once
    world.wait_settled()
    assert world.stop(service) == 0

    def compared(stream: str, status: int, *options: str) -> Any:
        return verified(world, status, stream, "--against", f"old.{stream.lower()}", *options)["against"]

    same = compared("LOGS", 0)
    assert (same["ours"], same["theirs"], same["hours"]) == (100_000, 100_000, [])
    text = world.run("verify", "--stream", "EVENTS", "--against", "old.events", check=False).stdout
    assert "the same keys in each hour" in text, text

    world.execute("DELETE FROM logs WHERE (attributes->>'n')::bigint IN (17, 4711, 99999)")
    gone = world.query(
        "SELECT l.trace_id FROM old.logs l LEFT JOIN logs o USING (timestamp, trace_id, span_id) WHERE o IS NULL"
    )
    found = compared("LOGS", 1)
    assert [(ours - theirs) for _, ours, theirs in found["hours"]] == [-3]
    assert (found["only_ours"], found["only_theirs"], len(found["keys"]["only_theirs"])) == (0, 3, 3)
    place = found["key"].index("trace_id")
    assert sorted(key[place] for key in found["keys"]["only_theirs"]) == sorted(each for (each,) in gone)
    text = world.run("verify", "--stream", "LOGS", "--against", "old.logs", check=False).stdout
    assert "3 keys in theirs alone" in text
    assert "1000 messages checked" in text

    # As many of each hour, and not the same: only where there is a key is that seen.
    world.execute("UPDATE old.events SET id = 'another' WHERE id = (SELECT min(id) FROM old.events)")
    swapped = compared("EVENTS", 1)
    assert (swapped["ours"], swapped["theirs"], swapped["only_ours"], swapped["only_theirs"]) == (40, 40, 1, 1)
    assert compared("EVENTS", 0, "--until", "100d")["ours"] == 0
    assert compared("LOGS", 1, "--since", "2020-01-01")["theirs"] == 100_000
    for wrong in (["--against", "old.logs"], ["--stream", "LOGS", "--against", "nothing"], ["--since", "1h"],
                  ["--stream", "LOGS", "--against", "eventwriter.ledger"]):  # fmt: skip
        assert world.run("verify", *wrong, check=False).returncode == 64, wrong
