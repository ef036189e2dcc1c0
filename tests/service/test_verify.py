"""`eventwriter verify` and `replay`: what is missing is told exactly, and written once, whatever else goes on."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from fix_service import World
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
