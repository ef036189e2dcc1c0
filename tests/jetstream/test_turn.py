"""Turns: of the processes on one durable one pulls, and whatever becomes of it, another goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from boards import noted
from eventwriter.jetstream.turn import Turns
from eventwriter.observability.board import Board
from eventwriter.observability.report import Report
from fix_monitor import Endpoint
from fix_service import STREAMS, World, wait_until

LOGS = {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}

PROCESS = r"""
import os, sys
from eventwriter.jetstream.turn import Turn
turn = Turn(int(sys.argv[1]), int(sys.argv[2]))
say = lambda text: os.write(1, f"{text}\n".encode())  # in one piece: two threads say something
turn.ask(lambda: say("mine"))
say("asked")
for word in map(str.strip, sys.stdin):
    say(word)
    turn.ask(lambda: say("mine")) if word == "again" else getattr(turn, word)()
"""


@contextmanager
def process(file: int, place: int) -> Iterator[subprocess.Popen[str]]:
    """A process that asks for its turn, and then does what it is told."""
    command = [sys.executable, "-c", PROCESS, str(file), str(place)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=[file]
    ) as started:
        yield started
        started.kill()


def says(process: subprocess.Popen[str], *words: str) -> bool:
    """Whether the next lines of its output are these, in any order."""
    assert process.stdout is not None
    return sorted(process.stdout.readline().strip() for _ in words) == sorted(words)


def tell(process: subprocess.Popen[str], word: str) -> None:
    """What it shall do."""
    assert process.stdin is not None
    print(word, file=process.stdin, flush=True)
    assert says(process, word)


def test_one_at_a_time() -> None:
    """The turn passes on when it is given, and when its owner is killed; another durable has another."""
    turns = Turns()
    file, place = turns.of("LOGS")._file, turns.of("LOGS")._place
    with process(file, place) as first:
        assert says(first, "asked", "mine")
        with process(file, turns.of("EVENTS")._place) as other:
            assert says(other, "asked", "mine")
        with process(file, place) as second, process(file, place) as third:
            assert says(second, "asked")
            assert says(third, "asked")
            tell(third, "leave")  # it gets its turn, and does not want it any more
            tell(first, "give")
            assert says(second, "mine")
            tell(second, "leave")
            tell(second, "again")
            assert says(second, "mine")
            with process(file, place) as fourth:
                assert says(fourth, "asked")
                second.kill()
                assert says(fourth, "mine")


def owner(world: World) -> psutil.Process:
    """The process whose turn it is, as the kernel says (proc(5), /proc/locks; who waits has an arrow)."""
    workers = [worker for number in (1, 2, 3) if (worker := world.worker(f"LOGS/{number}")) is not None]
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    pids = {int(fields[4]) for fields in locks if fields[1:4] == ["POSIX", "ADVISORY", "WRITE"]}
    [found] = [worker for worker in workers if worker.pid in pids]
    return found


def waiting(world: World) -> int:
    """How many pulls wait at the consumer, once all three workers are there."""
    return int(world.consumer("LOGS").num_waiting) if world.log.count("messages waiting") >= 3 else 0


def test_whoever_dies_in_its_turn_is_followed_at_once(world: World) -> None:
    """Of three processes one waits for messages. Whenever that one is killed, another does."""
    world.start("supervise", EVENTWRITER_STREAMS__LOGS__PROCESSES="3", **LOGS)
    wait_until(lambda: waiting(world) == 1, "three workers, and one pull")
    for seed in range(3):
        world.traffic(["LOGS"], count=20, seed=seed)
        world.wait_settled()
        owner(world).kill()
        wait_until(lambda: waiting(world) == 1, "a pull of another one", 2)
        world.traffic(["LOGS"], count=20, seed=10 + seed)
        wait_until(world.settled, "rows of another one", 2)
    world.assert_exact()


def test_whoever_stops_in_its_turn_holds_up_nobody_for_long(world: World) -> None:
    """SIGSTOP: its pull goes on, and what comes goes to it. But it acknowledges nothing: so the others pull too."""
    world.start("supervise", EVENTWRITER_STREAMS__LOGS__PROCESSES="3", **LOGS)
    wait_until(lambda: waiting(world) == 1, "three workers, and one pull")
    world.traffic(["LOGS"], count=20)
    world.wait_settled()
    stopped = owner(world)
    stopped.send_signal(signal.SIGSTOP)
    try:
        world.traffic(["LOGS"], count=200, seed=1)
        wait_until(lambda: sum(world.counts("LOGS")) > 20, "rows of the others", 15)
    finally:
        stopped.send_signal(signal.SIGCONT)
    world.wait_settled()
    world.assert_exact()


def test_of_a_backlog_each_has_a_piece(world: World) -> None:
    """Four processes write it together, and the ledger stays short: each of their batches is one range."""
    world.execute("ALTER TABLE logs ADD backend integer DEFAULT pg_backend_pid()")
    world.traffic(["LOGS"], count=5000, broken=0)
    with world.connect() as connection:
        connection.execute("CREATE TABLE sizes (ranges bigint)")
        connection.execute(
            "CREATE FUNCTION size() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN "
            "INSERT INTO sizes SELECT count(*) FROM unnest(NEW.done); RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE TRIGGER size AFTER UPDATE ON eventwriter.ledger FOR EACH ROW EXECUTE FUNCTION size()"
        )
    settings = {"PROCESSES": "4", "BATCH_MESSAGES": "125"}
    world.start("supervise", **LOGS, **{f"EVENTWRITER_STREAMS__LOGS__{key}": value for key, value in settings.items()})
    world.wait_settled()
    world.assert_exact()
    assert world.query("SELECT count(DISTINCT backend) > 1 FROM logs") == [(True,)]
    (most,) = world.query("SELECT max(ranges) FROM sizes")[0]
    print(f"at most {most} ranges")
    assert most <= 16


def test_a_process_that_stands_by_is_well(world: World) -> None:
    """Of three one works; the service is ready, and all of them run."""
    service = world.start("supervise", EVENTWRITER_STREAMS__LOGS__PROCESSES="3", **LOGS)
    wait_until(lambda: waiting(world) == 1, "three workers, and one pull")
    wait_until(lambda: "serving http://" in world.log, "the monitor")
    endpoint = Endpoint(world.log.partition("serving http://")[2].partition("/")[0])
    wait_until(lambda: endpoint.answers("/readyz", 200), "readiness")
    [stream] = endpoint.status()["streams"].values()
    assert [process["state"] for process in stream["processes"]] == ["running"] * 3
    assert world.stop(service) == 0


@pytest.mark.parametrize("standby", [False, True])
def test_on_standby_nothing_waits_for_this_process(standby: bool) -> None:
    """What the consumer has to give, seen again and again, is another one's work: that is no standstill."""
    slot = Board().slot("LOGS/2")
    report = Report("LOGS/2", "LOGS", slot)
    before = time.monotonic()
    report.consumer(True, 37, 5, standby=standby)
    report.beat(force=True)
    since = noted(slot)["waiting_since"]
    assert since is None if standby else since >= before
