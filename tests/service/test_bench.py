"""scripts/bench: what it measures is all there, and servers that somebody uses are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import forkserver
from eventwriter.embedded import PostgresServer
from fix_service import ROOT, World, clean_environment

BENCH = ROOT / "scripts" / "bench.py"


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    command = [str(BENCH), *arguments]
    return forkserver.run(command, clean_environment() | environment, seconds=120)


def report(*arguments: str, **environment: str) -> Any:
    """What it prints as JSON."""
    done = bench(*arguments, "--output", "json", **environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_all_of_it_on_servers_of_its_own() -> None:
    """Rows, rates, their ratio, CPU and memory; the naive loop beside it, and all streams together."""
    few = ("--streams", "LOGS", "--payload", "json", "--messages", "200", "--rounds", "1", "--naive")
    found = report(*few, "--together", "--set", "writer.batch_messages=100")
    [line] = found["results"]
    assert (line["stream"], line["encoding"], line["messages"], line["rows"]) == ("LOGS", "json", 200, 200)
    assert line["ratio"] > 0
    assert abs(line["ratio"] - line["rows_per_s"] / line["copy_rows_per_s"]) < 0.01
    assert line["rss_mib"] > line["pss_mib"] > 0
    assert line["client_cpu_us_per_message"] > 0
    for name in ("server_cpu_us_per_row", "nats_cpu_us_per_message"):
        assert line[name] >= 0  # of processes that ended, the kernel tells hundredths of a second
    assert found["naive"]["messages_per_s"] > 0
    assert found["together"]["rows"] == 7 * 200
    assert found["together"]["ratio"] > 0
    assert found["together"]["client_cpu_us_per_row"] > 0


@pytest.mark.long
def test_postgresql_on_cores_of_its_own() -> None:
    """If there are two at least."""
    few = ("--streams", "LOGS", "--payload", "json", "--messages", "1000", "--rounds", "1", "--apart")
    cores = os.sched_getaffinity(0)
    if len(cores) > 1:
        assert report(*few)["results"][0]["rows"] == 1000
    os.sched_setaffinity(0, {min(cores)})
    try:
        command = [sys.executable, str(BENCH), *few]  # the server that forks has all cores
        done = subprocess.run(command, env=clean_environment(), capture_output=True, text=True, check=False)
    finally:
        os.sched_setaffinity(0, cores)
    assert done.returncode == 2
    assert "--apart needs two cores" in done.stderr


@pytest.mark.long
def test_all_streams_at_once() -> None:
    """Alone, without any stream by itself; the rows are those of all seven."""
    found = report("--streams", "none", "--together", "--messages", "500", "--rounds", "2")
    assert found["results"] == []
    assert found["together"]["rows"] == 7 * 500
    assert found["together"]["ratio"] > 0
    assert found["together"]["spread"] >= 0
    assert found["together"]["client_cpu_us_per_row"] > 0


@pytest.mark.long
def test_latency() -> None:
    """Over all streams, in order."""
    found = report("--latency", "--seconds", "1", "--rate", "100")["latency"]
    assert 0 < found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"] <= found["max_ms"]


def test_a_stream_that_there_is_not() -> None:
    """One line that names those there are."""
    done = bench("--streams", "LOGS,LOG")
    assert done.returncode == 2
    assert "no stream LOG; there are TELEMETRY, EVENTS" in done.stderr


def test_servers_that_are_given(postgres_server: PostgresServer, world: World) -> None:
    """Are measured if nobody uses them, or if it is told to overwrite what is there."""
    path = f"{postgres_server.binaries}{os.pathsep}{os.environ['PATH']}"
    given = ["--streams", "LOGS", "--payload", "json", "--messages", "200", "--rounds", "1"]
    given += ["--nats-url", world.nats.url, "--postgres-dsn", world.dsn]
    world.traffic(["LOGS"], count=5)
    done = bench(*given, PATH=path)
    assert done.returncode == 2
    assert "stream LOGS" in done.stderr
    assert "--overwrite" in done.stderr
    assert world.call(lambda client: client.jetstream().stream_info("LOGS")).state.messages == 5
    [line] = report(*given, "--overwrite", PATH=path)["results"]
    assert line["rows"] == 200
    assert line["server_cpu_us_per_row"] is None
