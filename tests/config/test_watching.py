"""A configuration file that changes: when that is noticed, and what it changes."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

from eventwriter.config.watching import Watched
from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_service import World, wait_until
from patience import PATIENCE


def test_a_file_that_is_replaced_has_changed(tmp_path: Path) -> None:
    """Edited, replaced, or a link that leads elsewhere; once each, when it is still, and not while it is missing."""
    file = tmp_path / "a.toml"
    file.write_text("a")
    watched = Watched(file)
    assert [watched.changed() for _ in range(2)] == [False, False]
    for text in ("", "ab", "abc"):  # truncated, and written in pieces
        file.write_text(text)
        assert watched.empty == (not text)
        assert not watched.changed()
    assert [watched.changed() for _ in range(2)] == [True, False]
    file.unlink()
    assert [watched.changed() for _ in range(2)] == [False, False]
    other = tmp_path / "b.toml"
    other.write_text("ab")
    file.symlink_to(other)
    assert [watched.changed() for _ in range(3)] == [False, True, False]


def test_folders_of_plugins_are_watched(tmp_path: Path) -> None:
    """Files of streams that come, change and go, with or without a configuration file; from now on, other folders."""
    folder, other = tmp_path / "streams", tmp_path / "others"
    other.mkdir()
    (other / "x.py").write_text("x")
    for file in (None, tmp_path / "a.toml"):
        if file:
            file.write_text("a")
        watched = Watched(file, [str(folder)])  # which is not there yet
        folder.mkdir(exist_ok=True)
        (folder / "README").write_text("nothing")
        assert [watched.changed() for _ in range(2)] == [False, False]
        for name, text in (("alerts.py", "a"), ("alerts.py", ""), ("alerts.sql", "b")):
            (folder / name).write_text(text)
            assert [watched.changed() for _ in range(3)] == [False, True, False]
        (folder / "alerts.py").unlink()
        assert [watched.changed() for _ in range(3)] == [False, True, False]
        (folder / "alerts.sql").unlink()
        watched.watch([str(other)])
        assert [watched.changed() for _ in range(2)] == [False, False]
        (other / "x.py").write_text(f"{file}")
        assert [watched.changed() for _ in range(3)] == [False, True, False]


def pids(world: World) -> dict[str, int]:
    """The pid of each stream's latest worker, by the log."""
    return {
        stream: int(pid)
        for stream, pid in re.findall(r'"stream": "([A-Z_]+)", "pid": \d+, "message": "started, pid (\d+)"', world.log)
    }


def test_a_changed_file_restarts_only_the_worker_it_changes(world: World, tmp_path: Path) -> None:
    """Within 5 s, and nothing is lost; a broken file changes nothing and is told once; a removed stream drains."""
    file = tmp_path / "eventwriter.toml"
    file.write_text("[streams.LOGS]\nbatch_messages = 1000\n")
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start("--config", str(file), "supervise", EVENTWRITER_HTTP__LISTEN=endpoint.address)
    wait_until(lambda: len(pids(world)) == 7, "seven workers")
    world.traffic(count=50)
    before = pids(world)
    begun = (
        f"configuration {file}: streams EVENTS, LOGS, NETFLOW, OTEL_METRICS, OTEL_TRACES, SWEEP, TELEMETRY; NATS nats:"
    )
    assert begun in json.loads(world.log.splitlines()[0])["message"]
    file.write_text("[streams.LOGS]\nbatch_messages = 500\n")
    changed = time.monotonic()
    wait_until(lambda: pids(world)["LOGS"] != before["LOGS"], "a new worker", 5)
    assert time.monotonic() - changed < 5 * PATIENCE
    after = pids(world)
    assert {name: pid for name, pid in after.items() if name != "LOGS"} == {
        name: pid for name, pid in before.items() if name != "LOGS"
    }

    file.write_text("[streams.LOGS]\nbatch_mesages = 1\n")
    wait_until(lambda: "the configuration is wrong" in world.log, "the complaint", 5)
    world.traffic(count=20, seed=1)
    world.wait_settled()
    assert world.log.count("the configuration is wrong") == 1
    assert '"reloaded"' not in world.log.partition("the configuration is wrong")[2]
    assert endpoint.value("config_last_reload_successful") == 0
    (problem,) = endpoint.status()["problems"]
    assert problem["stream"] == "configuration"
    assert "batch_mesages" in problem["text"]
    assert endpoint.answers("/readyz", 200)
    file.write_text("")
    wait_until(lambda: f"configuration file {file} is empty" in world.log, "the complaint", 5)
    assert "Traceback" not in world.log
    assert pids(world) == after

    file.write_text("[streams.LOGS]\nbatch_messages = 500\n[streams.SWEEP]\nenabled = false\n")
    wait_until(lambda: world.worker("SWEEP") is None, "the drained stream", 5)
    assert pids(world) == after
    wait_until(lambda: endpoint.value("config_last_reload_successful") == 1, "what is in force")

    file.write_text('[log]\nformat = "text"\n[streams.LOGS]\nbatch_messages = 500\n[streams.SWEEP]\nenabled = false\n')
    wait_until(lambda: re.search(r"^\S+ EVENTS +draining, pid", world.log, re.M), "lines for people", 5)
    world.assert_exact()
    assert world.stop(service) == 0
