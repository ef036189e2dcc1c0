"""An outage under load is a handful of lines in the log: what is missing, why, and for how long it was."""

from __future__ import annotations

import json
import logging
import random
import time
from typing import Any

import pytest

from eventwriter.errors import UNAVAILABLE, ConfigurationError, UnavailableError
from eventwriter.observability.board import Board
from eventwriter.observability.report import Report
from eventwriter.outage import CAUSES, SUMMARY, Outage
from eventwriter.processes.child import Child
from eventwriter.processes.slot import Nobody, Pace, Slot
from fix_failover import load
from fix_proxy import Proxied
from fix_service import STREAMS, wait_until


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


def test_an_outage_of_each_server_under_load(proxied: Proxied) -> None:
    """At most 30 lines for seven streams: for each one that it began, why, and that it is over."""
    world = proxied.world
    world.start("supervise")
    world.traffic(count=20, broken=0)
    world.wait_settled()
    with load(world, STREAMS, broken=0, rate=100):
        for server, name in ((proxied.postgres, "PostgreSQL"), (proxied.nats, "NATS")):
            before = len(world.log.splitlines())
            server.stop()
            time.sleep(8)
            server.start()

            def new(begins: int = before) -> list[dict[str, Any]]:
                return [json.loads(line) for line in world.log.splitlines()[begins:]]

            back = f"{name} is back after"
            for stream in STREAMS:
                over = lambda stream=stream, new=new, back=back: [  # noqa: E731
                    line for line in new() if line.get("stream") == stream and back in line["message"]
                ]
                wait_until(over, f"{stream}: {back}")
            assert len(new()) <= 30, "\n".join(map(str, new()))
            assert all(line["stream"] in STREAMS for line in new())
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
