"""Each command prints as JSON what docs/commands.md says, field by field, on real servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import reference
from eventwriter.embedded import free_port
from fix_service import World, only, wait_until
from processes import Process
from shapes import differences, shapes
from traffic import Publication

COMMANDS: Sequence[tuple[str, int, Sequence[str], int]] = (
    ("status", 0, (), 0), ("check", 0, (), 0), ("check", 0, ("--offline",), 0), ("schema check", 0, (), 0),
    ("schema version", 0, (), 0),
    ("config show", 0, (), 0), ("config show", 0, ("--origin",), 0),
    ("tap", 0, ("--stream", "LOGS", "--since", "1h", "--limit", "7"), 0),
    ("tap", 1, ("--stream", "LOGS", "--since", "1h", "--limit", "4", "--raw"), 0),
    ("dlq list", 0, (), 0), ("dlq list", 1, ("--summary",), 0), ("dlq show", 0, ("1",), 0), ("dlq show", 0, ("2",), 0),
    ("dlq replay", 0, ("--dry-run",), 65), ("dlq replay", 0, (), 65), ("dlq list", 0, ("--replayed",), 0),
    ("verify", 0, ("--stream", "LOGS"), 1),
    ("verify", 0, ("--stream", "EVENTS", "--against", "older"), 1),
    ("replay", 0, ("--stream", "LOGS"), 0), ("replay", 0, ("--stream", "LOGS"), 0),
    ("ledger accept", 0, ("--stream", "LOGS"), 0), ("verify", 0, (), 69),
    ("streams create", 0, ("--dry-run",), 0), ("streams create", 0, (), 0),
)  # fmt: skip
"""Command, which of its shapes, how it is called, and how it ends, in this order in one world."""


def prepared(world: World) -> Process:
    """The service that has written two streams, with dead letters of both kinds."""
    world.environment |= only("LOGS", "EVENTS") | {"EVENTWRITER_STREAMS__LOGS__EXCLUDE": "logs.none"}
    world.environment |= {"EVENTWRITER_HTTP__LISTEN": f"127.0.0.1:{free_port()}", "PGAPPNAME": "shapes"}
    world.execute("CREATE TABLE older (LIKE events)")
    world.execute("ALTER TABLE logs ADD CONSTRAINT short CHECK (body <> 'long')")
    records = b'[{"message":"long"},{"message":"good","timestamp":"never"},{"message":"good \\u0000"}]'
    payloads = [(records, {"a": "b"}), (b"\xff", None), (b'{"message":"gone"}', None), (b'{"message":"missing"}', None)]
    world.publish("LOGS", [Publication("logs.x", payload, (), headers=headers) for payload, headers in payloads])
    world.publish("LOGS", [Publication("logs.none", b"{}", ())])
    world.traffic(["EVENTS"], count=5, broken=0)
    service = world.start()
    wait_until(lambda: (world.counts("LOGS"), world.counts("EVENTS")) == ((3, 1), (5, 0)), "all is written")
    return service


def test_json_is_what_is_documented(world: World) -> None:
    """Nothing is absent, nothing is of another kind, and nothing is there that nobody is told of."""
    service, tried, found = prepared(world), set(), []
    for path, number, options, status in COMMANDS:
        done = world.run(*path.split(), *options, "--output", "json", check=False)
        if done.returncode != status:
            found.append(f"{path} {' '.join(options)} exited {done.returncode}: {done.stdout}{done.stderr}")
        documents = [json.loads(line) for line in done.stdout.splitlines()]
        assert documents, path
        found += [f"{path} {' '.join(options)}: {each}" for document in documents
                  for each in differences(document, shapes(path)[number])]  # fmt: skip
        tried.add((path, number))
        if path == "status":  # the others want no service, which would write what is missing by itself
            assert world.stop(service) == 0
            world.execute("UPDATE eventwriter.ledger SET done = done - '{[3,5)}' WHERE stream = 'LOGS'")
            world.call(lambda client: client.jetstream().delete_msg("LOGS", 3))
        if path == "ledger accept":
            world.call(lambda client: client.jetstream().delete_stream("EVENTS"))
    assert not found
    assert tried == {(path, number) for path in reference.SHAPES for number in range(len(shapes(path)))}


def test_what_is_not_as_documented_is_told() -> None:
    """A name that is absent or unknown, a value of another kind, too few of them."""
    (shape,) = shapes("replay")
    right = {"ok": True, "stream": "x", "missing": 1, "written": 1, "left": 0, "interrupted": False, "gaps": [[1, 2]]}
    assert not [*differences(right, shape)]
    others: list[dict[str, Any]] = [{"more": 1}, {"ok": 1}, {"missing": True}, {"left": None}, {"gaps": [[1]]}]
    for wrong in [*others, {"gaps": {}}]:
        assert [*differences(right | wrong, shape)], wrong
    assert [*differences({"ok": True}, shape)]
