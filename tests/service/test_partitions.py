"""Subject partitions, as docs/scaling.md shows them: one kind of message over several streams, into one table."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from eventwriter.embedded import PostgresServer
from fix_service import ROOT, STREAMS, new_world, wait_until

TEXT = (ROOT / "docs" / "scaling.md").read_text()
(MAPPINGS,) = re.findall(r"```text\n(mappings.*?)```", TEXT, re.DOTALL)
(CODE,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_partitions_of_a_stream(tmp_path: Path, postgres_server: PostgresServer, template: str) -> None:
    """What is published under the old subjects goes to both parts, each host to one of them, and is written once; what
    the old stream holds is written too; by weight as well."""
    folder = tmp_path / "streams"
    folder.mkdir()
    for number in "01":
        logs = CODE.replace("LOGS_0", f"LOGS_{number}").replace("p.0", f"p.{number}")
        traces = logs.replace(f"LOGS_{number}", f"TRACES_{number}").replace("workers.logs", "workers.otel_traces")
        (folder / f"logs_{number}.py").write_text(logs)
        (folder / f"traces_{number}.py").write_text(traces.replace(".logs.>", ".otel.traces"))
    settings: dict[str, Any] = {"EVENTWRITER_PLUGINS__FOLDERS": str(folder)}
    settings |= {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}
    with new_world(tmp_path, postgres_server, template, MAPPINGS) as world:
        world.run("streams", "create", **settings)

        async def publish(client: Any) -> None:
            send = client.jetstream().publish
            for number in range(40):
                await send(f"logs.host{number % 8}", b'{"body": "%d"}' % number)
                await send("otel.traces", b'{"name": "%d"}' % number)
            await send("logs.before.mapped", b'{"body": "40"}')  # no mapping has it: into the stream of before

        world.call(publish)
        world.start(**settings)
        wait_until(
            lambda: world.query("SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM otel_traces)") == [(81,)],
            world.log,
        )
        assert world.query("SELECT body::int FROM logs ORDER BY 1") == [(number,) for number in range(41)]
        assert world.query("SELECT name::int FROM otel_traces ORDER BY 1") == [(number,) for number in range(40)]
        assert world.query("SELECT DISTINCT source FROM logs WHERE body <> '40' ORDER BY 1") == [
            (f"host{n}",) for n in range(8)
        ]
        found = {line.split()[1]: int(line.split()[2]) for line in world.run("verify", **settings).stdout.splitlines()}
        assert found["LOGS"] == 1
        assert min(found["LOGS_0"], found["LOGS_1"]) >= 5
        assert found["LOGS_0"] + found["LOGS_1"] == found["TRACES_0"] + found["TRACES_1"] == 40
