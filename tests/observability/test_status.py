"""The status of a service: the document, the monitor that serves it, and the command that shows it."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import forkserver
from beside import beside
from boards import batch, noted, running, settings, trouble, write
from eventwriter.commands import status_table
from eventwriter.errors import ConfigurationError, SchemaError, UnavailableError
from eventwriter.observability import status
from eventwriter.observability.awake import Awake
from eventwriter.observability.board import AGE_BUCKETS, SUPERVISOR, Board
from eventwriter.observability.monitor import STEP, Monitor
from eventwriter.observability.report import Report, passing
from eventwriter.observability.server import Server
from eventwriter.observability.states import SupervisorState
from eventwriter.stream import Message, Outcome, Reject
from fix_monitor import Endpoint, rendered
from fix_service import ROOT, STREAMS, clean_environment, wait_until
from patience import PATIENCE
from processes import ending

HOSTILE = "\x1b[2J\x1b]0;owned\x07[bold red]\u202ebad\r\n\x9b31m[/] 日本"
"""What would clear a screen, set its title, be markup, or turn the direction of what follows."""


# --- the document -----------------------------------------------------------------------------------------------


def problems(board: Board, **environ: str) -> dict[str, str]:
    """What is wrong, by stream."""
    return {each["stream"]: each["text"] for each in status.read(board, settings(**environ))["problems"]}


def test_each_state_says_what_is_wrong() -> None:
    """Nothing when all is well; else the state, and a sentence that names the cause."""
    board = Board()
    assert set(problems(board)) == set(STREAMS)
    children, reports = running(board, settings())
    assert problems(board) == {}
    reports["LOGS"].waits(UnavailableError("PostgreSQL cannot be reached: refused"), 1.0)
    reports["EVENTS"].consumer(False, None, None)
    reports["EVENTS"].beat(force=True)
    reports["SWEEP"].ended(SchemaError("table x does not exist"))
    children.exited("SWEEP", 78)
    children.parked("SWEEP", 78)
    children.exited("NETFLOW", -9)
    children.restarting("NETFLOW", 1.0)
    children.started("TELEMETRY", 1)
    reports["OTEL_TRACES"].draining()
    document = status.read(board, settings())
    assert not document["ready"]
    assert {each["stream"]: each["text"] for each in document["problems"]} == {
        "LOGS": "PostgreSQL cannot be reached: refused",
        "EVENTS": "NATS cannot be reached: the worker is reconnecting",
        "SWEEP": "table x does not exist" + status.AGAIN,
        "NETFLOW": "the worker ended with signal 9",
        "TELEMETRY": "the worker is connecting",
        "OTEL_TRACES": "the worker was told to end, and finishes what it has in hand",
    }
    states = {name: stream["state"] for name, stream in document["streams"].items()}
    assert states == dict.fromkeys(STREAMS, "running") | {
        "LOGS": "waiting",
        "EVENTS": "disconnected",
        "SWEEP": "parked",
        "NETFLOW": "restarting",
        "TELEMETRY": "starting",
        "OTEL_TRACES": "draining",
    }
    assert document["streams"]["EVENTS"]["lag_seconds"] is None


def test_lag_is_that_of_the_batch_at_hand_too() -> None:
    """All that was published may be in the hands of a worker that cannot write it: none waits in the consumer then."""
    board = Board()
    _, reports = running(board, settings())
    report = reports["LOGS"]

    def lag() -> float | None:
        report.beat(force=True)
        found: float | None = status.read(board, settings())["streams"]["LOGS"]["lag_seconds"]
        return found

    assert lag() == 0
    report.consumer(True, 0, 20)
    first, second = batch(10, age=600.0), batch(10, age=300.0)
    report.took(first, 0.0)
    report.waits(UnavailableError("PostgreSQL: no"), 1.0)
    assert lag() == pytest.approx(600, abs=5)
    report.took(second, 0.0)  # while the first is being written
    assert lag() == pytest.approx(600, abs=5)
    report.wrote(first, Outcome(written=10))
    assert lag() == pytest.approx(300, abs=5)
    report.consumer(True, 7, 10)
    assert lag() == pytest.approx(300, abs=5), "messages behind it are no older"
    report.wrote(second, Outcome(written=10))
    assert lag() == pytest.approx(300, abs=5), "that of what was written last, while messages wait"
    report.consumer(True, 0, 10)
    assert lag() == 0
    report.took(batch(5, age=86_400.0)._replace(reread=True), 0.0)
    assert lag() == 0, "what was missing, and is read again, is no sign of lag"
    report.ended(UnavailableError("PostgreSQL: no"))
    assert lag() is None


def test_lag_is_that_of_the_process_that_is_furthest_behind() -> None:
    """The others of the stream may well write what is newer."""
    board, two = Board(), settings(STREAMS__LOGS__PROCESSES="2")
    _, reports = running(board, two)
    reports["LOGS/1"].took(batch(10, age=600.0), 0.0)
    reports["LOGS/2"].took(batch(10, age=1.0), 0.0)
    for report in reports.values():
        report.beat(force=True)
    assert status.read(board, two)["streams"]["LOGS"]["lag_seconds"] == pytest.approx(600, abs=5)


def test_a_worker_that_opens_its_ledger_again_is_ready_again() -> None:
    """The session before has drained: that says nothing of the next one, which the same process goes on with."""
    board = Board()
    _, reports = running(board, settings())
    reports["LOGS"].draining()
    reports["LOGS"].ended(UnavailableError("the ledger is another one"))
    assert "LOGS" in problems(board)
    reports["LOGS"].ready()
    reports["LOGS"].consumer(True, 0, 0)
    reports["LOGS"].beat(force=True)
    assert problems(board) == {}


def test_what_keeps_messages_from_flowing_is_told_while_there_is_a_connection() -> None:
    """An end of the connection, and an outage of PostgreSQL, come first: they explain it."""
    board = Board()
    _, reports = running(board, settings())
    for connected, away, text in (
        (True, False, "consumer x is paused"),
        (False, False, "NATS cannot be reached: the worker is reconnecting"),
        (True, True, "PostgreSQL: no"),
    ):
        reports["LOGS"].consumer(connected, 0, 0, trouble="consumer x is paused")
        if away:
            reports["LOGS"].waits(UnavailableError("PostgreSQL: no"), 1.0)
        reports["LOGS"].beat(force=True)
        assert problems(board) == {"LOGS": text}
    reports["LOGS"].answered()
    reports["LOGS"].beat(force=True)
    assert status.read(board, settings())["streams"]["LOGS"]["state"] == "disconnected"
    reports["LOGS"].consumer(True, 0, 0)
    reports["LOGS"].beat(force=True)
    assert problems(board) == {}


def test_a_worker_without_a_sign_of_life_is_stalled() -> None:
    """After 5 s; while PostgreSQL is away it may take longer, for a connection attempt does."""
    board = Board()
    running(board, settings())
    for seconds, away, state in (
        (4, False, "running"),
        (6, False, "stalled"),
        (6, True, "waiting"),
        (31, True, "stalled"),
    ):
        slot = board.slot("LOGS")
        slot.write(noted(slot) | {"beat": time.monotonic() - seconds, "postgres": not away})
        stream = status.read(board, settings())["streams"]["LOGS"]
        assert stream["state"] == state
        assert (stream["consumer_pending"] is None) == (seconds > 5)


@pytest.mark.parametrize(("silence", "waited", "state"), [(6, 0, "waiting"), (300, 1, "waiting"), (20, 6, "stalled")])
def test_who_waits_for_postgres_is_no_stalled_worker(silence: float, waited: float, state: str) -> None:
    """As long as it is seen waiting: what it knows of its consumer holds; a process that hangs itself is stalled."""
    board = Board()
    running(board, settings())
    slot, now = board.slot("LOGS"), time.monotonic()
    slot.write(noted(slot) | {"beat": now - silence, "asked": now - waited})
    stream = status.read(board, settings())["streams"]["LOGS"]
    assert stream["state"] == state
    assert ("PostgreSQL has been at work on a batch for" in stream["reason"]) == (state == "waiting")
    assert ("no sign of life" in stream["reason"]) == (state == "stalled")
    assert (stream["consumer_pending"] is None) == (state == "stalled")


def test_messages_that_wait_without_a_commit_are_a_stall() -> None:
    """A worker that is alive and connected but writes nothing for half a minute is not ready."""
    board = Board()
    _, reports = running(board, settings())
    reports["LOGS"].consumer(True, 12, 0)
    reports["LOGS"].beat(force=True)
    assert problems(board) == {}
    slot = board.slot("LOGS")
    slot.write(noted(slot) | {"waiting_since": time.monotonic() - 31})
    assert problems(board) == {"LOGS": "12 messages wait, none written for 31 s"}


@pytest.mark.parametrize("jump", [-86_400.0, 3_600.0, 1e9])
def test_a_clock_that_jumps_is_no_standstill(monkeypatch: pytest.MonkeyPatch, jump: float) -> None:
    """Somebody sets the clock, or it is put right after a suspend: durations are of a clock that nobody sets."""
    board = Board()
    _, reports = running(board, settings())
    reports["LOGS"].consumer(True, 12, 0)
    reports["LOGS"].beat(force=True)
    moment = time.time
    monkeypatch.setattr(time, "time", lambda: moment() + jump)
    document = status.read(board, settings())
    assert document["problems"] == []
    for stream in document["streams"].values():
        assert all(0 <= process["uptime"] < 60 for process in stream["processes"])
        assert stream["lag_seconds"] is None or stream["lag_seconds"] >= 0


def test_a_pause_of_the_monitor_itself_counts_for_nobody() -> None:
    """Frozen together, all of them wake at one moment: the one that answers must not take the others for dead."""
    now = 100.0
    awake = Awake(lambda: now)
    now = 101.0
    assert awake.since(90.0) == 11.0
    now = 161.0
    assert awake.since(100.5) == 0.0
    now = 163.0
    assert awake.since(100.5) == awake.since(162.0) + 1.0 == 2.0


def test_a_stream_is_as_well_as_its_worst_process() -> None:
    """One of three that waits makes the stream wait, and all of them are shown."""
    board = Board()
    more = {"STREAMS__LOGS__PROCESSES": "3"}
    _, reports = running(board, settings(**more))
    reports["LOGS/2"].waits(UnavailableError("PostgreSQL: no"), 1.0)
    stream = status.read(board, settings(**more))["streams"]["LOGS"]
    assert stream["state"] == "waiting"
    assert [process["state"] for process in stream["processes"]] == ["running", "waiting", "running"]
    assert stream["postgres_connected"] is False
    assert stream["messages"]["written"] == 30


def test_columns_that_are_left_out_are_shown_and_no_reason_not_to_be_ready() -> None:
    """Those of every process, as long as it lives; in a terminal on one line, however many there are."""
    board = Board()
    more = {"STREAMS__LOGS__PROCESSES": "2"}
    _, reports = running(board, settings(**more))
    document = status.read(board, settings(**more))
    assert all(stream["columns_omitted"] == [] for stream in document["streams"].values())
    reports["LOGS/1"].omits("logs", ("source", "data"))
    reports["LOGS/2"].omits("logs", ("data", "flags"))
    reports["EVENTS"].omits("events", [f"column_{number}" for number in range(30)])
    document = Monitor(board, settings(**more)).status()
    assert document["ready"]
    assert document["streams"]["LOGS"]["columns_omitted"] == ["source", "data", "flags"]
    assert len(document["streams"]["EVENTS"]["columns_omitted"]) == 30
    text = rendered(document, 200)
    assert "  LOGS: logs is written without source, data, flags\n" in text
    assert re.search(r"  EVENTS: events is written without column_0, .*, column_7 and 22 more\n", text)
    for name in ("LOGS/1", "LOGS/2"):
        reports[name].omits("logs", ())
    assert status.read(board, settings(**more))["streams"]["LOGS"]["columns_omitted"] == []


@pytest.mark.parametrize("code", [77, 78])
def test_a_stream_that_looks_again_is_parked_until_it_is_ready(code: int) -> None:
    """The reason stays until it is known to be over, and says that nobody has to do anything but put it right."""
    board = Board()
    children, reports = running(board, settings())
    slot = board.slot("LOGS")
    reports["LOGS"].ended(SchemaError("table logs lacks the column body"))
    children.exited("LOGS", code)
    children.parked("LOGS", code)
    children.started("LOGS", os.getpid())
    for look in (lambda: None, lambda: Report("LOGS", "LOGS", slot)):
        look()
        stream = status.read(board, settings())["streams"]["LOGS"]
        assert (stream["state"], stream["reason"]) == ("parked", "table logs lacks the column body" + status.AGAIN)
    assert stream["errors"]["schema"] == 1
    report = Report("LOGS", "LOGS", slot)
    report.ready()
    assert status.read(board, settings())["streams"]["LOGS"]["state"] == "running"


def test_a_remedy_says_what_comes_after_it() -> None:
    """A table, a secret and a file are looked at again by themselves; an environment is as it was at the start."""
    board = Board()
    children, reports = running(board, settings())
    board.slot("EVENTS").write(noted(board.slot("EVENTS")) | {"passing": False})
    before = Report("EVENTS", "EVENTS", board.slot("EVENTS"))
    for report, error in (
        (reports["LOGS"], SchemaError("table logs lacks the column body")),
        (before, ConfigurationError("postgres.dsn: there is no such file")),
    ):
        report.ended(error)
    for name in ("LOGS", "EVENTS"):
        children.exited(name, 78)
        children.parked(name, 78)
    children.reloaded("writer.batch_messages: not a number")
    told = problems(board)
    assert told["LOGS"] == "table logs lacks the column body" + status.AGAIN
    assert told["EVENTS"] == "postgres.dsn: there is no such file" + status.AGAIN + status.RESTART
    assert told["configuration"].endswith("writer.batch_messages: not a number" + status.CHANGED)


@pytest.mark.parametrize("worked", [False, True])
def test_what_keeps_a_service_waiting(worked: bool) -> None:
    """A table, and whatever comes after a worker was ready, also one that was killed; the rest is for people."""
    slot = Board().slot("LOGS")
    if worked:
        Report("LOGS", "LOGS", slot).ready()
    Report("LOGS", "LOGS", slot).ended(ConfigurationError("no such server"))
    assert passing(slot) == worked
    Report("LOGS", "LOGS", slot).ended(SchemaError("table logs lacks the column body"))
    assert passing(slot)


def test_only_the_latest_dead_letters_are_kept() -> None:
    """Five, the newest first; long texts are cut, and what no text may hold is replaced."""
    board = Board()
    _, reports = running(board, settings())
    for number in range(20):
        letter = (Message("logs.x" * 100, b"", number, 0), Reject("malformed", f"{number} \ud800" + "x" * 1000))
        write(reports["LOGS"], 1, written=0, deadlettered=1, rejects={"malformed": 1}, latest=[letter])
    letters = status.read(board, settings())["streams"]["LOGS"]["dead_letters"]
    assert [letter["sequence"] for letter in letters] == [19, 18, 17, 16, 15]
    assert all(len(letter["detail"]) <= 300 and len(letter["subject"]) <= 200 for letter in letters)
    assert letters[0]["detail"].startswith("19 \ufffdxxx")


@given(st.lists(st.integers(0, 50), min_size=len(AGE_BUCKETS) + 1, max_size=len(AGE_BUCKETS) + 1), st.floats(0.01, 1))
def test_a_quantile_lies_in_its_bucket(ages: list[int], share: float) -> None:
    """It never leaves the bucket in which the share is reached, and a larger share is never younger."""
    found = status.quantile(ages, share)
    if not sum(ages):
        assert found is None
        return
    assert found is not None
    reached, place = 0, -1
    while reached < share * sum(ages) - 1e-9:
        place += 1
        reached += ages[place]
    bounds = (0.0, *AGE_BUCKETS, AGE_BUCKETS[-1])
    assert bounds[place] - 1e-9 <= found <= bounds[place + 1] + 1e-9
    assert found <= (status.quantile(ages, 1.0) or 0)


# --- the monitor ------------------------------------------------------------------------------------------------


@contextmanager
def served(board: Board, **environ: str) -> Iterator[Endpoint]:
    """The monitor's server over a board, in a thread."""
    config = settings(**environ)
    server = Server(("127.0.0.1", 0), config.http.tls, Monitor(board, config).answer)
    server.start()
    try:
        yield Endpoint(f"127.0.0.1:{server.port}")
    finally:
        server.stop()


def test_the_service_is_alive_as_long_as_its_supervisor_is() -> None:
    """/livez asks for nothing else; without a sign of life for more than 10 s it says so."""
    board = Board()
    slot = board.slot(SUPERVISOR)
    with served(board) as endpoint:
        for age, code in ((0.0, 200), (9.0, 200), (11.0, 503)):
            slot.write(SupervisorState(name=SUPERVISOR, started=0.0, beat=time.monotonic() - age))
            assert endpoint.get("/livez")[0] == code
        assert "no sign of life from the supervisor for 11 s" in endpoint.get("/livez")[1]
        assert endpoint.get("/readyz")[0] == 503


def test_every_address_answers() -> None:
    """GET and HEAD, a query string is ignored, other paths are told where to go, other methods are refused."""
    board = Board()
    running(board, settings())
    with served(board) as endpoint:
        for path in ("/", "/page.css", "/page.js", "/status", "/metrics", "/livez", "/readyz", "/readyz?verbose"):
            assert endpoint.get(path)[0] == 200, path
            assert endpoint.get(path, "HEAD") == (200, "")
        assert endpoint.get("/nothing") == (404, "there are /, /status, /metrics, /readyz and /livez\n")
        assert endpoint.get("/status", "POST")[0] == 405
        connection = http.client.HTTPConnection(endpoint.address)
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert answer.headers["Cache-Control"] == "no-store"
        answer.read()
        connection.close()


def test_who_hangs_up_is_no_error(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Clients that leave in the middle, or talk something else, leave no trace, and others are served."""
    board = Board()
    running(board, settings())
    with served(board) as endpoint:
        host, _, port = endpoint.address.partition(":")
        for said in (b"", b"GET /status HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x00nonsense\r\n\r\n"):
            for _ in range(5):
                with socket.create_connection((host, int(port))) as client:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # RST, not FIN
                    client.sendall(said)
        assert endpoint.get("/livez")[0] == 200
    captured = capfd.readouterr()
    assert captured.err == ""
    assert caplog.text == ""


def test_the_history_goes_on_after_a_gap() -> None:
    """In another monitor, or after a pause: rates and lags as they were; what was missed is unknown, not zero."""
    board = Board()
    _, reports = running(board, settings())
    first = Monitor(board, settings())
    first.sample()
    write(reports["LOGS"], 100)
    reports["LOGS"].consumer(True, 7, 0)
    reports["LOGS"].beat(force=True)
    time.sleep(0.01)
    first.sample()
    rates = first.status()["streams"]["LOGS"]["history"]["rows_per_s"]
    assert rates[0] is None
    assert rates[1] > 0
    assert first.status()["streams"]["LOGS"]["history"]["lag"] == [0, pytest.approx(0.03, abs=0.5)]
    slot = board.slot("history LOGS")
    kept = noted(slot)
    kept["last"][0] -= 10 * STEP
    slot.write(kept)
    second = Monitor(board, settings())
    assert second.status()["streams"]["LOGS"]["history"]["rows_per_s"] == rates
    write(reports["LOGS"], 500)
    second.sample()
    *before, latest = second.status()["streams"]["LOGS"]["history"]["rows_per_s"]
    assert before == [*rates, *[None] * 9]
    assert latest == pytest.approx(500 / (10 * STEP), rel=0.1)


def test_dead_letters_have_a_rate() -> None:
    """So many in the last minute, on the page and in a terminal; what was there before the monitor is not new."""
    board = Board()
    _, reports = running(board, settings())
    write(reports["LOGS"], 5, written=0, deadlettered=5, rejects={"malformed": 5})
    monitor = Monitor(board, settings())
    assert monitor.status()["streams"]["LOGS"]["dead_letters_per_minute"] == 0
    monitor.sample()
    write(reports["LOGS"], 321, written=0, deadlettered=321, rejects={"malformed": 321})
    monitor.sample()
    document = monitor.status()
    assert document["streams"]["LOGS"]["dead_letters_per_minute"] == 321
    assert document["streams"]["EVENTS"]["dead_letters_per_minute"] == 0
    assert document["streams"]["LOGS"]["history"]["dead_letters_per_s"][-1] > 0
    table = rendered(document, 200).splitlines()
    (line,) = (line for line in table if line.split()[:1] == ["LOGS"])
    assert "dead/min" in table[2]
    assert "321" in line
    for _ in range(12):
        monitor.sample()
    assert monitor.status()["streams"]["LOGS"]["dead_letters_per_minute"] == 0


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([10.0] * 11 + [1000.0], "▇▇▇▇▇▇▇▇▇▇▇▲"),
        ([10.0, 20.0, 30.0] * 4, "▃▆█" * 4),
        ([0.0] * 11 + [5.0], "▁" * 11 + "█"),
        ([None] * 6 + [2.0] * 5 + [900.0], " " * 6 + "▇▇▇▇▇▲"),
    ],
    ids=["spike", "usual", "rare", "young"],
)
def test_a_spike_in_a_terminal_is_marked(values: list[float | None], line: str) -> None:
    """It does not make all others look like nothing."""
    assert status_table.sparkline(values) == line


def test_the_event_age_is_that_of_the_last_minute() -> None:
    """What was slow before does not count for ever."""
    board = Board()
    _, reports = running(board, settings())
    monitor = Monitor(board, settings())
    for _ in range(1000):
        slow = batch(1, age=20)
        reports["LOGS"].took(slow, 0.0)
        write(reports["LOGS"], 1)
    monitor.sample()
    assert monitor.status()["streams"]["LOGS"]["event_age_p50"] is None
    write(reports["LOGS"], 50)
    stream = monitor.status()["streams"]["LOGS"]
    assert 0.02 < stream["event_age_p50"] <= stream["event_age_p99"] <= 5


# --- the command ------------------------------------------------------------------------------------------------


def command(endpoint: Endpoint | str, *arguments: str, columns: int = 80) -> subprocess.CompletedProcess[str]:
    """`eventwriter status` to its end."""
    address = endpoint if isinstance(endpoint, str) else f"http://{endpoint.address}"
    environment = clean_environment() | {"COLUMNS": str(columns), "http_proxy": "http://127.0.0.1:9"}
    return forkserver.run(["status", "--url", address, *arguments], environment, seconds=20)


@contextmanager
def beating(reports: dict[str, Report]) -> Iterator[None]:
    """The workers give signs of life: on a busy machine a command takes longer than silence may last."""

    def beat(ended: threading.Event) -> None:
        while not ended.wait(0.5):
            for report in reports.values():
                report.beat(force=True)

    with beside(beat):
        yield


def test_the_command_shows_the_document() -> None:
    """Exit 0 when every stream is written, 69 when not; as JSON what /status says."""
    board = Board()
    _, reports = running(board, settings())
    with served(board) as endpoint, beating(reports):
        done = command(endpoint)
        assert (done.returncode, done.stderr) == (0, "")
        assert "ready: all 7 streams are being written" in done.stdout
        assert all(name in done.stdout for name in STREAMS)
        trouble(reports["LOGS"])
        reports["LOGS"].waits(UnavailableError("PostgreSQL cannot be reached"), 1.0)
        done = command(endpoint)
        assert done.returncode == 69
        assert "LOGS: PostgreSQL cannot be reached" in done.stdout
        done = command(endpoint, "--output", "json")
        assert done.returncode == 69
        assert json.loads(done.stdout)["streams"]["LOGS"]["state"] == "waiting"


@pytest.mark.parametrize("answer", [b"", b"INFO {}\r\n", b"HTTP/1.1 200 OK\r\n\r\n[]", b"HTTP/1.1 404 No\r\n\r\n{}"])
def test_no_service_is_one_clear_line(answer: bytes) -> None:
    """Whatever listens there, or nothing: exit 69, and what to look at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        if answer:
            listener.listen()

        def once() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=once)
        if answer:
            thread.start()
        done = command(f"http://{address}")
        if answer:
            thread.join()
    assert done.returncode == 69
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert address in done.stderr
    assert "http.listen" in done.stderr


def large() -> dict[str, Any]:
    """A document with the widest values there are."""
    board = Board()
    _, reports = running(board, settings())
    monitor = Monitor(board, settings())
    for report in reports.values():
        trouble(report)
        report.waits(UnavailableError("PostgreSQL cannot be reached"), 1.0)
    for _ in range(20):
        monitor.sample()
    document = monitor.status()
    for stream in document["streams"].values():
        stream["history"]["rows_per_s"] = [123456.0 * n for n in range(180)]
        stream |= {"rows_written": 12_345_678_901, "consumer_pending": 1_234_567, "lag_seconds": 86400.0 * 30}
        stream |= {"last_commit": document["now"] - 5, "batch_messages": 5000, "restarts": 123, "state": "disconnected"}
        stream["messages"]["deadlettered"] = 1_234_567
    return document


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("values", ["usual", "large"])
def test_columns_are_left_out_rather_than_cut(width: int, values: str) -> None:
    """No name, number or heading is shortened, and no line is wider than the terminal."""
    board = Board()
    running(board, settings())
    document = Monitor(board, settings()).status() if values == "usual" else large()
    text = rendered(document, width)
    table = text.partition("\n\n")[2].partition("\n\n")[0]
    assert "…" not in table
    assert all(len(line) <= width for line in text.splitlines())
    lines = table.splitlines()
    assert len(lines) == 1 + len(STREAMS)
    for name, line in zip(STREAMS, lines[1:], strict=True):
        assert line.split()[0] == name
    headings = lines[0]
    assert all(word in headings for word in ("stream", "state", "rows/s"))
    if values == "usual":
        assert all(word in headings for word in ("lag", "age p99", "dead", "restarts"))
    if width == 200:
        assert all(column.title in headings for column in status_table.COLUMNS)


def test_what_comes_from_messages_cannot_touch_the_terminal() -> None:
    """Escapes, controls, markup and direction marks are shown as harmless characters, on their own line."""
    document = large()
    document["problems"] = [{"stream": f"LOGS{HOSTILE}", "text": HOSTILE}]
    letter = {"time": document["now"], "reason": HOSTILE, "detail": HOSTILE, "subject": HOSTILE, "sequence": 1}
    document["streams"]["LOGS"] |= {"dead_letters": [letter], "table": HOSTILE, "columns_omitted": [HOSTILE]}
    text = rendered(document, 140)
    assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert "[bold red]" in text
    assert "日本" in text


def read_until(descriptor: int, *words: str) -> str:
    """What a program writes to its terminal until all words were in it."""
    text = b""

    def found() -> bool:
        nonlocal text
        while select.select([descriptor], [], [], 0)[0]:
            text += os.read(descriptor, 65536)
        return all(word.encode() in text for word in words)

    wait_until(found, f"{words} in {text!r}", 15)
    return text.decode()


def test_watching_in_a_terminal() -> None:
    """Again every second, on a screen of its own, also while the service is away; Ctrl-C ends it with 0."""
    board = Board()
    _, reports = running(board, settings())
    descriptor, terminal_side = pty.openpty()
    termios.tcsetwinsize(terminal_side, (40, 100))
    with ExitStack() as stack:
        stack.callback(os.close, descriptor)
        with served(board) as endpoint, beating(reports):
            process = subprocess.Popen(
                [sys.executable, "-m", "eventwriter", "status", "--watch", "--url", f"http://{endpoint.address}"],
                cwd=ROOT,
                env={k: v for k, v in clean_environment().items() if k != "COLUMNS"} | {"TERM": "xterm-256color"},
                stdin=terminal_side,
                stdout=terminal_side,
                stderr=terminal_side,
            )
            stack.enter_context(ending(process))
            os.close(terminal_side)
            text = read_until(descriptor, "ready: all 7 streams are being written", *STREAMS)
            assert "\x1b[?1049h" in text, "a screen of its own"
            assert "trend" in text, "there is room for it in 100 columns"
            reports["LOGS"].waits(UnavailableError("PostgreSQL cannot be reached"), 1.0)
            read_until(descriptor, "not ready: 1 of 7", "LOGS")
        read_until(descriptor, "no service answers", "Trying again")
        process.send_signal(signal.SIGINT)
        read_until(descriptor, "\x1b[?1049l")
        assert process.wait(10 * PATIENCE) == 0


def test_watching_without_a_terminal() -> None:
    """A document a second, one a line as JSON, until the service is away."""
    board = Board()
    running(board, settings())
    with ExitStack() as stack:
        with served(board) as endpoint:
            command = [sys.executable, "-m", "eventwriter", "status", "--watch", "--output=json"]
            process = subprocess.Popen(
                [*command, f"--url=http://{endpoint.address}"],
                cwd=ROOT,
                env=clean_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            stack.enter_context(ending(process))
            assert process.stdout is not None
            assert set(json.loads(process.stdout.readline())["streams"]) == set(STREAMS)
            assert set(json.loads(process.stdout.readline())["streams"]) == set(STREAMS)
        _, errors = process.communicate(timeout=10 * PATIENCE)
        assert process.returncode == 69
        assert len(errors.splitlines()) == 1
