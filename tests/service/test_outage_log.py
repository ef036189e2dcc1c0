"""An outage under load is a handful of lines in the log: what is missing, why, and for how long it was."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import LOCK_EX, lockf
from functools import partial

import pytest

from eventwriter.embedded import free_port
from eventwriter.errors import UNAVAILABLE, ConfigurationError, UnavailableError, listed
from eventwriter.observability.board import Board
from eventwriter.observability.report import Report
from eventwriter.outage import CAUSES, JOINING, SUMMARY, Outage, Together
from eventwriter.processes.child import Child
from eventwriter.processes.slot import Nobody, Pace, Slot
from fix_failover import load
from fix_monitor import Endpoint
from fix_proxy import Proxied
from fix_service import STREAMS, World, wait_until
from proxy import Proxy


def test_one_line_a_cause_then_one_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """However many tries there are and however often their causes change."""
    caplog.set_level(logging.INFO)
    now = 0.0
    outage = Outage(logging.getLogger("x"), "PostgreSQL", {"stream": "LOGS"}, lambda: now)
    outage.over()
    assert not caplog.records
    for now in range(600):
        outage.failed(f"cause {now % 7}")
    outage.over()
    outage.over()
    lines = [record.getMessage() for record in caplog.records]
    assert lines[:CAUSES] == [f"cause {number}: trying again" for number in range(CAUSES)]
    assert lines[CAUSES] == f"no PostgreSQL for {SUMMARY:.0f} s, 61 tries: cause 4"
    assert lines[-1] == "PostgreSQL is back after 599.0 s"
    assert len(lines) == CAUSES + 600 // SUMMARY
    outage.failed("cause 0")  # another outage
    assert caplog.records[-1].getMessage() == "cause 0: trying again"
    assert all(record.stream == "LOGS" for record in caplog.records)  # type: ignore[attr-defined]


Told = Callable[[], list[tuple[str, str]]]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Told:
    """What the log was told since it was asked last, with the stream of each line."""
    caplog.set_level(logging.INFO)

    def new() -> list[tuple[str, str]]:
        found = [(getattr(record, "stream", ""), record.getMessage()) for record in caplog.records]
        caplog.clear()
        return found

    return new


class Crowd:
    """Processes of a service, and the time."""

    def __init__(self, *names: str) -> None:
        self.now = 100.0
        self.together = Together()
        self.outages = {name: self.join(name) for name in names}

    def join(self, name: str) -> Outage:
        """One of them, perhaps started again."""
        stream = name.partition("/")[0]
        own = [f"eventwriter-{stream.lower()}"]
        member, log = self.together.member(name), logging.getLogger("x")
        return Outage(log, "messages", {"stream": stream}, lambda: self.now, member, own=own)

    def fail(self, cause: str, *names: str) -> None:
        """So fail these, or all."""
        for name in names or self.outages:
            self.outages[name].failed(cause.format(name.partition("/")[0].lower()))


def test_of_all_that_are_in_it_one_tells(told: Told) -> None:
    """Each cause at once, soon whom it concerns, how long it lasts each minute, its end when the last is out of it."""
    crowd = Crowd("LOGS", "EVENTS", "SWEEP/1", "SWEEP/2")
    crowd.fail("eventwriter-{} is silent for 3 s")
    crowd.now += 1
    crowd.fail("eventwriter-{} is silent for 4 s")
    assert told() == [("LOGS", "eventwriter-logs is silent for 3 s: trying again")]
    crowd.now += JOINING
    crowd.fail("eventwriter-{} is silent for 9 s")
    whole, whose = "messages do not flow for", "(EVENTS, LOGS, SWEEP)"
    assert told() == [("", f"{whole} 6 s {whose}, 9 tries: … is silent for 9 s")]
    crowd.fail("refused", "SWEEP/1", "LOGS")
    assert told() == [("SWEEP", "refused: trying again")]
    for _ in range(60):
        crowd.now += 1
        crowd.fail("refused")
    assert [line.partition(", ")[0] for _, line in told()] == [f"{whole} 66 s (EVENTS"]
    crowd.outages["EVENTS"].over()
    crowd.now += SUMMARY
    crowd.fail("refused", "LOGS", "SWEEP/1", "SWEEP/2")
    assert told() == [("", f"{whole} 126 s (LOGS, SWEEP), 255 tries: refused")]
    for name in ("SWEEP/2", "LOGS", "LOGS", "EVENTS"):
        crowd.outages[name].over()
    assert told() == []
    crowd.outages["SWEEP/1"].over()
    assert told() == [("", f"messages flow again after 126.0 s {whose}")]


def test_whoever_dies_in_it_keeps_nobody_in_it(told: Told) -> None:
    """Its next process is out of it when it works; of what is not started again nobody hears for long."""
    crowd = Crowd("LOGS", "EVENTS")
    crowd.join("SWEEP").over()
    crowd.fail("refused")
    crowd.join("LOGS").over()
    assert told() == [("LOGS", "refused: trying again")]
    crowd.now += 3 * SUMMARY
    crowd.fail("refused", "LOGS")
    assert told() == [("LOGS", "refused: trying again")], "EVENTS is gone, and with it that outage"
    crowd.join("LOGS").over()
    assert told() == [("LOGS", "messages flow again after 0.0 s")]


def test_nobody_waits_for_one_that_was_stopped(told: Told) -> None:
    """Who cannot note it tells of it alone; what somebody left half written is nothing."""
    crowd = Crowd("LOGS", "EVENTS")
    file = crowd.together._files["messages"]
    begun, ready = os.pipe()
    pid = os.fork()
    if not pid:
        lockf(file, LOCK_EX)
        os.write(ready, b"!")
        signal.pause()
    try:
        os.read(begun, 1)
        crowd.fail("refused")
        crowd.fail("refused")
        for outage in crowd.outages.values():
            outage.over()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(begun)
        os.close(ready)
    over = "messages flow again after 0.0 s"
    assert told() == [
        *(("LOGS", "refused: trying again"), ("EVENTS", "refused: trying again")),
        *(("LOGS", over), ("EVENTS", over)),
    ]
    os.pwrite(file, b'{"waiting": {"LO', 0)
    crowd.fail("refused", "LOGS")
    assert told() == [("LOGS", "refused: trying again")]


@dataclass(frozen=True)
class Kind:
    """An outage: who is away, how it begins and ends, what the log says at least, and all other places."""

    name: str
    begins: Callable[[Proxy], None]
    ends: Callable[[Proxy], None]
    lines: tuple[str, ...]
    said: str


POSTGRES, NATS = ("no PostgreSQL for", "PostgreSQL is back after"), ("no NATS for", "NATS is back after")
FLOW = "messages do not flow for", "messages flow again"
KINDS = (
    Kind("postgres", Proxy.stop, Proxy.start, POSTGRES, "PostgreSQL cannot"),
    Kind("postgres", Proxy.stall, Proxy.resume, POSTGRES, "at work on a batch"),
    Kind("nats", Proxy.stop, Proxy.start, NATS, "NATS cannot be reached"),
    Kind("nats", Proxy.stall, Proxy.resume, FLOW, "JetStream tells nothing"),
)


def messages(world: World, begins: int) -> list[str]:
    """Those of the log, from a line on."""
    return [json.loads(line)["message"] for line in world.log.splitlines()[begins:]]


def tells(world: World, begins: int, text: str) -> bool:
    """Whether one line of the log says so of all streams."""
    return any(line.startswith(text) and f"({listed(sorted(STREAMS))})" in line for line in messages(world, begins))


def test_an_outage_of_each_kind_under_load(proxied: Proxied) -> None:
    """A dozen lines at most for seven streams: why, whom it concerns, that it is over. All places tell one cause."""
    world, address = proxied.world, f"127.0.0.1:{free_port()}"
    world.start("supervise", EVENTWRITER_HTTP__LISTEN=address)
    endpoint = Endpoint(address)
    world.traffic(count=20, broken=0)
    world.wait_settled()
    with load(world, STREAMS, broken=0, rate=25):
        for kind in KINDS:
            wait_until(partial(endpoint.answers, "/readyz", 200), "ready")
            server, before = getattr(proxied, kind.name), len(world.log.splitlines())
            kind.begins(server)
            wait_until(partial(tells, world, before, kind.lines[0]), lambda: world.log[-8000:])
            status, ready = endpoint.get("/readyz")
            assert (status, ready.count("\n")) == (503, 1), ready
            assert ready.startswith("all 7 streams: ")
            assert kind.said in ready
            kind.ends(server)
            wait_until(partial(tells, world, before, kind.lines[1]), lambda: world.log[-8000:])
            assert len(messages(world, before)) <= 12, "\n".join(messages(world, before))
    world.wait_settled()
    world.assert_exact()


def test_a_start_while_a_server_is_away_is_as_few(caplog: pytest.LogCaptureFixture) -> None:
    """However often a worker is started until it is there: its cause and its end are told once; others each time."""
    caplog.set_level(logging.INFO)
    board = Board()
    child = Child("LOGS", lambda: UNAVAILABLE)
    slot = Slot(child, Pace(), Nobody(), random.Random(1), 0.0)
    errors = [*[UnavailableError("away")] * 5, UnavailableError("starting up"), *[ConfigurationError("wrong")] * 2]
    for error in errors:
        Report("LOGS", "LOGS", board.slot("LOGS")).failed(error)
        slot.exited(error.exit_code, 1.0)
        slot.retry(1.0)
    told = [record.getMessage() for record in caplog.records]
    assert [message for message in told if message in ("away", "starting up", "wrong")] == [
        *("away", "starting up"),
        *("wrong", "wrong"),
    ]
    assert sum("exit status 69" in message for message in told) == 1
    assert sum("exit status 78" in message for message in told) == 2
    assert sum("restarting" in message for message in told) == 3
