"""What the service says of itself while things go wrong: real processes, asked over HTTP and by command."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from beside import beside
from eventwriter.embedded import free_port
from eventwriter.observability.board import FATES
from fix_monitor import Endpoint, rendered
from fix_proxy import Proxied
from fix_service import STREAMS, World, wait_until
from patience import PATIENCE
from traffic import Publication

SOON = 2.0
"""Seconds within which whoever looks must see what happened."""
EXOTIC = ("ünïcødé", "日本語", "🔥", "a=b", 'q"q', "b\\s", "{x}", "%s", "a" * 200, "'", "$x", "#", "[red]", "<b>")


def children(pid: int) -> dict[str, int]:
    """The pids of the service's processes by title."""
    found = {}
    for child in psutil.Process(pid).children():
        with suppress(psutil.NoSuchProcess):
            found[" ".join(child.cmdline()).strip()] = child.pid
    return found


def pid_of(service: Any, stream: str) -> int:
    """The pid of a stream's worker."""
    found: int = wait_until(lambda: children(service.pid).get(f"eventwriter: worker {stream}"), f"worker {stream}")
    return found


def shared_memory() -> set[str]:
    """The names in /dev/shm that are not a database's, a browser's or another test's."""
    others = ("PostgreSQL.", ".org.", "eventwriter-test-")
    return {path.name for path in Path("/dev/shm").iterdir() if not path.name.startswith(others)}


@contextmanager
def traffic(world: World) -> Iterator[None]:
    """A little traffic on every stream, all the time."""

    def publish(ended: threading.Event) -> None:
        number = 0
        while not ended.wait(0.3):
            world.traffic(count=10, broken=0.05, seed=number)
            number += 1

    with beside(publish):
        yield


def in_hand(endpoint: Endpoint) -> dict[str, float]:
    """For each stream the messages taken that have no fate."""
    found = endpoint.metrics()
    return {
        name: found["messages_taken_total", (("stream", name),)]
        - sum(found[f"messages_{fate}_total", (("stream", name),)] for fate in FATES)
        for name in STREAMS
    }


def restarted(endpoint: Endpoint, stream: str, times: int) -> bool:
    """Whether a worker was started again so many times."""
    return endpoint.value("worker_restarts_total", stream=stream) == times


def test_workers_that_die_or_stall_are_seen_and_the_accounts_stay_exact(world: World, tmp_path: Path) -> None:
    """kill -9, SIGSTOP, a reload and a killed monitor under traffic: seen at once, the others undisturbed.

    No counter ever goes back, and at rest messages taken are exactly the sum of their fates.
    """
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    file = tmp_path / "eventwriter.toml"
    file.write_text(
        f'[http]\nlisten = "{endpoint.address}"\n[writer]\nstall_timeout = "6s"\n[postgres]\nstatement_timeout = "2s"\n'
    )
    del world.environment["EVENTWRITER_HTTP__LISTEN"]
    shared = shared_memory()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    service = world.start("--config", str(file), "supervise", TMPDIR=str(temporary))
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness", 15)
    assert endpoint.answers("/livez", 200, "ok")
    before = children(service.pid)
    with endpoint.watching(), traffic(world):
        # kill -9; the more often, the longer until the next start, so that no look can miss it
        told: list[float] = []
        deaths = 0
        while not told and deaths < 5:
            began, deaths = time.monotonic(), deaths + 1
            os.kill(pid_of(service, "LOGS"), signal.SIGKILL)
            wait_until(partial(restarted, endpoint, "LOGS", deaths), "the restart", SOON)
            wait_until(partial(endpoint.answers, "/readyz", 200), "readiness again", 10)
            told = [at - began for at, code, text in endpoint.seen if at > began and code == 503 and "LOGS: " in text]
        assert told, "nobody saw that LOGS was away"
        assert min(told) < SOON * PATIENCE
        status = json.loads(
            world.run("status", "--url", f"http://{endpoint.address}", "--output", "json", check=False).stdout
        )
        assert status["streams"]["LOGS"]["restarts"] == deaths

        # stopped
        victim = pid_of(service, "EVENTS")
        os.kill(victim, signal.SIGSTOP)
        wait_until(partial(endpoint.answers, "/readyz", 503, "EVENTS: ", f"pid {victim}"), "the stalled worker", SOON)
        assert endpoint.value("worker_up", stream="EVENTS") == 0
        assert endpoint.value("worker_up", stream="LOGS") == 1
        assert "stalled" in rendered(endpoint.status(), 160)  # a command may start too late
        others = {name: sum(world.counts(name)) for name in STREAMS if name != "EVENTS"}
        wait_until(lambda: endpoint.value("worker_restarts_total", stream="EVENTS") == 1, "its end", 9)
        wait_until(partial(endpoint.answers, "/readyz", 200), "readiness after the stall", 10)
        wait_until(lambda: all(sum(world.counts(name)) > count for name, count in others.items()), "more of the others")
        assert pid_of(service, "EVENTS") != victim

        # the monitor dies: the page goes on where it was
        def history() -> list[float | None]:
            points: list[float | None] = endpoint.status()["streams"]["SWEEP"]["history"]["rows_per_s"]
            return points

        wait_until(lambda: len(history()) >= 2, "two points", 7)
        points = history()
        monitor = children(service.pid)["eventwriter: monitor"]
        os.kill(monitor, signal.SIGKILL)
        wait_until(lambda: children(service.pid).get("eventwriter: monitor", monitor) != monitor, "a new monitor", 5)
        wait_until(partial(endpoint.answers, "/readyz", 200), "its first answer", 5)
        assert history()[: len(points)] == points

        # another setting for one stream
        reloaded = pid_of(service, "NETFLOW")
        file.write_text(file.read_text() + "[streams.NETFLOW]\nbatch_messages = 77\n")
        wait_until(lambda: children(service.pid).get("eventwriter: worker NETFLOW", reloaded) != reloaded, "reload", 5)
        wait_until(partial(endpoint.answers, "/readyz", 200), "readiness after the reload", 10)
        assert service.poll() is None
        after = children(service.pid)
        changed = {"LOGS", "EVENTS", "NETFLOW"}
        for name in set(STREAMS) - changed:
            assert after[f"eventwriter: worker {name}"] == before[f"eventwriter: worker {name}"], name

        # thousands of subjects
        known = len(endpoint.metrics())
        subjects = [f"logs.{EXOTIC[number % len(EXOTIC)]}.{number}" for number in range(4000)]
        world.publish("LOGS", [Publication(subject, b"{]", (), 1) for subject in subjects])
    world.wait_settled()
    assert endpoint.decreased == []
    assert len(endpoint.metrics()) < known + 60
    assert "🔥" not in endpoint.get("/metrics")[1]
    wait_until(lambda: not any(in_hand(endpoint).values()), f"rest: {in_hand(endpoint)}", 5)
    for name in STREAMS:
        written, letters = world.counts(name)
        assert 0 < (endpoint.value("messages_written_total", stream=name) or 0) <= written
        if name not in changed:  # of those that nobody killed, no count is missing
            assert endpoint.value("messages_written_total", stream=name) == written
            assert endpoint.value("messages_deadlettered_total", stream=name) == letters
    world.assert_exact()

    # kill -9 for all of them leaves nothing lying about
    processes = [*children(service.pid).values(), service.pid]
    service.kill()
    service.wait()
    wait_until(lambda: not any(map(psutil.pid_exists, processes)), "the end of all", 10)
    assert shared_memory() <= shared
    assert list(temporary.iterdir()) == []


def test_streams_that_cannot_work_are_named_and_the_others_run(world: World) -> None:
    """A missing table, a worker that always crashes, and a port that is taken: five streams are written all the same.

    Whoever asks learns which two are not and why, as soon as the port is free.
    """
    world.execute("DROP TABLE logs")
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        endpoint = Endpoint(address)
        environment = {"EVENTWRITER_HTTP__LISTEN": address, "EVENTWRITER_CRASH_AT": "SWEEP:at_start"}
        service = world.start(**environment)
        world.traffic(count=40)
        well = sorted(set(STREAMS) - {"LOGS", "SWEEP"})
        wait_until(lambda: all(sum(world.counts(name)) == 40 for name in well), f"five streams\n{world.log}")
        wait_until(lambda: "Address already in use" in world.log, "the complaint", 5)
        time.sleep(2.5)  # it tries again meanwhile
        assert world.log.count("Address already in use") == 1
        lines = [json.loads(line) for line in world.log.splitlines()]
        assert [line["message"] for line in lines if "Address already in use" in line["message"]] == [
            f"http.listen {address}: Address already in use; trying again, the writers go on"
        ]
    wait_until(partial(endpoint.answers, "/livez", 200), "an answer", SOON)
    code, text = endpoint.get("/readyz")
    assert code == 503
    told = dict(line.split(": ", 1) for line in text.splitlines())
    assert set(told) == {"LOGS", "SWEEP"}
    assert "table logs" in told["LOGS"]
    assert "eventwriter schema apply" in told["LOGS"]
    assert told["SWEEP"] in ("the worker ended with exit status 86", "the worker is connecting")
    up = {name: endpoint.value("worker_up", stream=name) for name in STREAMS}
    assert up["LOGS"] == 0
    assert {up[name] for name in well} == {1}
    status = endpoint.status()
    assert status["streams"]["LOGS"]["state"] == "parked"
    assert status["streams"]["SWEEP"]["state"] in ("restarting", "starting")
    assert {status["streams"][name]["state"] for name in well} == {"running"}
    delays = [
        float(line["message"].split()[2])
        for line in map(json.loads, world.log.splitlines())
        if line.get("stream") == "SWEEP" and line["message"].startswith("restarting in")
    ]
    assert len(delays) >= 3
    assert delays[-1] > 2 * delays[0], delays
    assert (endpoint.value("worker_restarts_total", stream="SWEEP") or 0) >= len(delays)

    shown = world.run("status", "--url", f"http://{address}", check=False, COLUMNS="80")
    assert shown.returncode == 69
    assert "not ready: 2 of 7 streams" in shown.stdout
    assert "parked" in shown.stdout
    assert "eventwriter schema apply" in " ".join(shown.stdout.split())
    crashes = world.log.count("restarting in")
    wait_until(lambda: world.log.count("restarting in") > crashes, "a crash: none happens while the service ends", 60)
    assert world.stop(service) == 0
    away = world.run("status", "--url", f"http://{address}", check=False)
    assert away.returncode == 69
    assert len(away.stderr.splitlines()) == 1
    assert address in away.stderr


def test_an_outage_is_named_until_it_is_over(proxied: Proxied) -> None:
    """PostgreSQL away, NATS away: alive, not ready, by name; within seconds after the end ready again.

    Also for streams without traffic, whose workers would not notice by writing.
    """
    world = proxied.world
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(EVENTWRITER_HTTP__LISTEN=endpoint.address)
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness", 15)
    pids = children(service.pid)
    everyone = f"all {len(STREAMS)} streams: "

    def one_cause(server: str) -> None:
        """One line for all streams with the time at which it began, in all three places."""
        (line,) = endpoint.get("/readyz")[1].splitlines()
        began = re.fullmatch(rf"{everyone}{server}.*, since (\d\d:\d\d:\d\d)", line)
        assert began, line
        (cause,) = endpoint.status()["causes"]
        assert sorted(cause["streams"]) == sorted(STREAMS)
        assert 0 <= time.time() - cause["since"] < 60 * PATIENCE
        shown = world.run("status", "--url", f"http://{endpoint.address}", check=False, COLUMNS="300").stdout
        assert shown.count(server) == 1
        assert f"since {began[1]}" in shown

    proxied.postgres.stop()
    world.traffic(["LOGS"], count=50, broken=0, seed=1)
    wait_until(partial(endpoint.answers, "/readyz", 503, ": PostgreSQL"), "the outage of PostgreSQL", SOON)
    wait_until(partial(endpoint.answers, "/readyz", 503, everyone), "the outage on idle streams", 5)
    assert endpoint.answers("/livez", 200)
    assert {stream["state"] for stream in endpoint.status()["streams"].values()} == {"waiting"}
    time.sleep(7)
    one_cause("PostgreSQL cannot be reached: ")
    proxied.postgres.start()
    wait_until(partial(endpoint.answers, "/readyz", 200), "the end of the outage", 5)
    world.wait_settled()

    proxied.nats.stop()
    wait_until(partial(endpoint.answers, "/readyz", 503, everyone), "the outage of NATS", SOON)
    one_cause("NATS cannot be reached ")
    assert endpoint.answers("/livez", 200)
    assert {stream["state"] for stream in endpoint.status()["streams"].values()} == {"disconnected"}
    proxied.nats.start()
    wait_until(partial(endpoint.answers, "/readyz", 200), "the end of that, too", 5)
    world.traffic(["LOGS"], count=50, broken=0, seed=2)
    world.wait_settled()
    world.assert_exact()
    assert children(service.pid) == pids
    assert world.stop(service) == 0
