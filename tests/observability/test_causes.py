"""One cause is told once, however many streams it stops, and since when it does."""

from __future__ import annotations

import sys
import threading
import time
from typing import Any

import pytest

from boards import noted, running, settings
from eventwriter.errors import UnavailableError
from eventwriter.observability import causes, status
from eventwriter.observability.board import Board
from eventwriter.observability.monitor import NAME, Monitor
from eventwriter.observability.states import MonitorState
from fix_service import STREAMS

AWAY = 'PostgreSQL cannot be reached: connection to server at "10.0.0.7", port 5432 failed: Connection refused'


def document(**reasons: str) -> dict[str, Any]:
    """A status document in which these streams are in trouble, each in its own words."""
    streams = {
        name: {"stream": name, "durable": f"eventwriter-{name.lower()}", "state": "x" if name in reasons else "running"}
        for name in STREAMS
    }
    problems = [{"stream": name, "text": text, "since": 1000.0 + len(name)} for name, text in reasons.items()]
    return {"streams": streams, "problems": problems, "now": 2000.0, "ready": not problems}


@pytest.mark.parametrize(
    ("say", "told"),
    [
        (lambda name, number: AWAY, AWAY),
        (
            lambda name, number: f"no sign of life from the worker for {number + 6} s",
            "no sign of life from the worker for … s",
        ),
        (
            lambda name, number: f"{number * 1000:,} messages wait, none written for {31 + number} s",
            "… messages wait, none written for … s",
        ),
        (
            lambda name, number: f"consumer eventwriter-{name.lower()} of stream {name} is paused",
            "consumer … of stream … is paused",
        ),
        (
            lambda name, number: f"the worker is stopped (SIGSTOP): SIGCONT to pid {4000 + number} lets it go on",
            "the worker is stopped (SIGSTOP): SIGCONT to pid … lets it go on",
        ),
    ],
    ids=["postgres", "silence", "waiting", "names", "pids"],
)
@pytest.mark.parametrize("count", [1, 3, len(STREAMS)])
def test_streams_with_one_cause_are_one(say: Any, told: str, count: int) -> None:
    """Whatever in their words is of each stream alone; one stream keeps its own words."""
    names = list(STREAMS)[:count]
    found = document(**{name: say(name, number) for number, name in enumerate(names)})
    (cause,) = causes.grouped(found)
    assert cause["streams"] == names
    assert cause["text"] == (say(names[0], 0) if count == 1 else told)
    assert cause["who"] == ("all 7 streams" if count == 7 else ", ".join(names))
    assert cause["since"] == 1000.0 + min(map(len, names))
    ((who, line),) = causes.lines(found)
    assert line == f"{cause['text']}, since {causes.clock(cause['since'], found['now'])}"
    assert [*causes.lines(found, alone=False)] == [(who, line if count > 1 else cause["text"])]


def test_two_causes_are_two() -> None:
    """Other words, another state, another table: told apart; so is a wrong configuration."""
    found = document(
        LOGS="table logs lacks the column body",
        EVENTS="table events lacks the column body",
        SWEEP=AWAY,
        NETFLOW=AWAY,
        TELEMETRY=AWAY,
    )
    found["streams"]["TELEMETRY"]["state"] = "parked"
    found["problems"].append({"stream": "configuration", "text": "the changed settings are wrong"})
    assert [(cause["who"], cause["streams"]) for cause in causes.grouped(found)] == [
        ("LOGS", ["LOGS"]),
        ("EVENTS", ["EVENTS"]),
        ("SWEEP, NETFLOW", ["SWEEP", "NETFLOW"]),
        ("TELEMETRY", ["TELEMETRY"]),
        ("configuration", []),
    ]
    assert [*causes.lines(found)][-1] == ("configuration", "the changed settings are wrong")


def test_one_cause_is_one_while_each_stream_tries_again_in_its_own_time() -> None:
    """Whatever each does about it at this moment."""
    found = document(**dict.fromkeys(STREAMS, AWAY))
    for stream, state in zip(STREAMS, ("starting", "restarting", "waiting", "draining") * 2, strict=False):
        found["streams"][stream]["state"] = state
    assert [cause["who"] for cause in causes.grouped(found)] == ["all 7 streams"]


def test_threads_may_follow_at_once() -> None:
    """As those of the monitor do that sample, answer and push: each knows since when what it found is so."""
    began: causes.Began = {}
    wrong: list[Exception] = []
    ill, well = ({name: {"reason": reason} for name in map(str, range(50))} for reason in ("away", ""))

    def follow() -> None:
        try:
            for _ in range(200):
                found = causes.follow(began, ill)
                assert found.keys() == ill.keys()
                causes.follow(began, well)
        except Exception as error:  # noqa: BLE001 - whatever it is
            wrong.append(error)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=follow) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_since_when_is_remembered_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever becomes of the trouble, by a clock that nobody sets, also by the next monitor; then it begins anew."""
    board = Board()
    _, reports = running(board, settings())
    monitor = Monitor(board, settings())
    reports["LOGS"].waits(UnavailableError(AWAY), 1.0)
    began = time.time()
    since = monitor.status()["streams"]["LOGS"]["since"]
    assert began - 1 <= since <= time.time()
    reports["LOGS"].waits(UnavailableError("PostgreSQL: the database system is starting up"), 1.0)
    board.slot(NAME).write(MonitorState(name=NAME, beat=0.0, began=monitor.began))
    moment = time.time
    monkeypatch.setattr(time, "time", lambda: moment() + 3600)
    later = Monitor(board, settings()).status()
    assert later["causes"][0]["since"] == pytest.approx(since + 3600, abs=0.5)
    assert 0 <= later["uptime"] < 60
    monkeypatch.undo()
    assert noted(board.slot(NAME))["began"].keys() == {"LOGS"}
    reports["LOGS"].answered()
    reports["LOGS"].beat(force=True)
    monitor.look()
    assert monitor.began == {}
    assert status.read(board, settings())["streams"]["LOGS"]["since"] is None
