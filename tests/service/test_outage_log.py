"""An outage under load is a handful of lines in the log: what is missing, why, and for how long it was."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import pytest

from eventwriter.embedded import free_port
from eventwriter.outage import CAUSES, SUMMARY, Outage
from fix_failover import load
from fix_monitor import Endpoint
from fix_proxy import Proxied
from fix_service import STREAMS, only, wait_until


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


@pytest.mark.parametrize("away", ["postgres", "nats"])
def test_a_start_while_a_server_is_away_is_as_few(proxied: Proxied, away: str) -> None:
    """However often each worker is started until it is there: its end and the cause are told once."""
    world, endpoint = proxied.world, Endpoint(f"127.0.0.1:{free_port()}")
    names = ("LOGS", "EVENTS")
    server = getattr(proxied, away)
    server.stop()
    world.start(**only(*names), EVENTWRITER_HTTP__LISTEN=endpoint.address)

    def restarts() -> list[float]:
        return [endpoint.value("worker_restarts_total", stream=name) or 0 for name in names]

    wait_until(lambda: min(restarts()) >= 4, lambda: f"four starts: {restarts()}\n{world.log}")
    for name in names:
        told = [line["message"] for line in map(json.loads, world.log.splitlines()) if line.get("stream") == name]
        assert [message.split()[0] for message in told if "cannot" not in message] == [
            "started,",
            "exited",
            "restarting",
        ]
        assert len(told) == 4
    server.start()
    wait_until(lambda: endpoint.answers("/readyz", 200), lambda: world.log)
