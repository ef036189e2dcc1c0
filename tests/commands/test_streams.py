"""`streams create`: what is missing is there afterwards, what is there stays, and the line for NATS says the same."""

from __future__ import annotations

import json
import shlex
from typing import Any

from nats.js.api import StreamConfig

from fix_service import STREAMS, World, only


def flags(line: str) -> dict[str, str]:
    """Those of a line for NATS's command."""
    words = shlex.split(line)
    assert words[:3] == ["nats", "stream", "add"]
    assert words[-1] == "--defaults"
    return {"name": words[3]} | dict(word.removeprefix("--").split("=", 1) for word in words[4:-1])


def configurations(world: World) -> dict[str, Any]:
    """Every stream's, and when it was created."""

    async def ask(client: Any) -> dict[str, Any]:
        return {info.config.name: (info.created, info.config) for info in await client.jetstream().streams_info()}

    found: dict[str, Any] = world.call(ask)
    return found


async def drop(client: Any, *names: str) -> None:
    """Deletes streams."""
    for name in names:
        await client.jetstream().delete_stream(name)


def test_what_is_missing_is_created(world: World) -> None:
    """With the declared subjects, in files, within limits; and no other is touched, whatever it is like."""
    world.call(lambda client: drop(client, "LOGS", "OTEL_TRACES"))
    before = configurations(world)
    dry = world.run("streams", "create", "--dry-run").stdout
    assert configurations(world) == before
    assert dry.count("missing  ") == 2
    assert dry.count("exists   ") == len(STREAMS) - 2
    done = world.run("streams", "create", "--stream", "otel_traces").stdout
    assert "LOGS" not in done
    done = world.run("streams", "create", "--max-age", "3d", "--max-bytes", "64MiB").stdout
    after = configurations(world)
    assert {name: after[name] for name in before} == before
    assert {*after} == {*STREAMS}
    traces, logs = after["OTEL_TRACES"][1], after["LOGS"][1]
    assert (traces.subjects, traces.max_age) == (["otel.traces", "otel.traces.>"], 7 * 86_400)
    assert (logs.subjects, logs.max_age, logs.max_bytes, logs.storage) == (["logs.>"], 3 * 86_400, 2**26, "file")
    lines = [line.strip() for line in (done + dry).splitlines() if line.strip().startswith("nats ")]
    told = {"storage": "file", "retention": "limits", "discard": "old", "replicas": "1"}
    assert flags(lines[0]) == told | {"name": "LOGS", "subjects": "logs.>", "max-age": "3d", "max-bytes": f"{2**26}"}
    assert {flags(line)["subjects"] for line in lines[1:]} == {"logs.>", "otel.traces,otel.traces.>"}
    again = json.loads(world.run("streams", "create", "--output", "json").stdout)["streams"]
    assert {name: (each["exists"], each["created"]) for name, each in again.items()} == dict.fromkeys(
        STREAMS, (True, False)
    )


def test_a_stream_that_several_share(world: World) -> None:
    """Gets the subjects of all of them, also when one alone is asked for."""
    world.call(lambda client: drop(client, *STREAMS))
    shared = only("LOGS", "EVENTS", "SWEEP") | {
        f"EVENTWRITER_STREAMS__{name}__STREAM": "shared" for name in ("LOGS", "EVENTS")
    }
    shared["EVENTWRITER_STREAMS__EVENTS__SUBJECTS"] = "logs.*.processed,events.>"
    missing = world.run("worker", "--stream", "EVENTS", check=False, **shared)
    assert missing.returncode == 69
    assert "`eventwriter streams create --stream EVENTS` creates it, as does `nats stream add shared" in missing.stderr
    world.run("streams", "create", "--stream", "LOGS", check=True, **shared)
    found = {name: {*config.subjects} for name, (_, config) in configurations(world).items()}
    assert found == {"shared": {"logs.>", "events.>"}}


def test_subjects_that_another_stream_has(world: World) -> None:
    """Which one has them is told, and what to do; it keeps no other from being created."""

    async def replace(client: Any) -> None:
        await drop(client, "EVENTS", "LOGS", "SWEEP")
        await client.jetstream().add_stream(StreamConfig(name="all", subjects=["logs.>", "x.>"]))

    world.call(replace)
    done = world.run("streams", "create", check=False)
    assert done.returncode == 78
    told = "refused  stream LOGS cannot be created: its subjects, logs.>, are those of stream all: "
    assert told in done.stdout
    assert {*configurations(world)} == {*STREAMS, "all"} - {"LOGS"}, "the others are created"
    for wrong in (["--max-age", "soon"], ["--max-bytes", "-1"], ["--stream", "LOGZ"]):
        assert world.run("streams", "create", *wrong, check=False).returncode == 64
