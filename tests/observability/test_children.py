"""The watchdog: who is silent is killed; who could not be heard is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from boards import noted
from eventwriter.observability.board import SLOTS, SUPERVISOR, Board
from eventwriter.observability.children import Children
from eventwriter.observability.report import Report
from patience import PATIENCE
from processes import ending

TIMEOUT = 5.0


class Service:
    """A supervisor's view of one worker, which is a real process, and a clock that the test moves."""

    def __init__(self, board: Board, process: subprocess.Popen[bytes]) -> None:
        self.now = 1000.0
        self.process = process
        self._board = board
        self._report: Report | None = None
        self._children = Children(board.slot(SUPERVISOR), clock=lambda: self.now)
        self._children.stall_timeouts = {"LOGS": TIMEOUT}
        self._children.started("LOGS", process.pid)

    def beat(self) -> None:
        """The worker gives a sign of life."""
        self._report = self._report or Report("LOGS", "LOGS", self._board.slot("LOGS"))
        self._report.beat(force=True)

    def look(self, *, after: float = 1.0) -> None:
        """The watchdog looks, that many seconds after the last time."""
        self.now += after
        self._children.kill_stalled(self._board)

    @property
    def why(self) -> str:
        """What the board says of the worker's end."""
        why: str = noted(self._board.slot(SUPERVISOR))["children"]["LOGS"]["why"]
        return why


@contextmanager
def working() -> Iterator[Service]:
    """A worker that was started just now."""
    with ending(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)) as process:
        yield Service(Board(), process)


def test_a_worker_that_beats_lives_and_a_silent_one_is_killed_once() -> None:
    """After its stall_timeout, counted from its last sign of life; its successor has the whole of it again."""
    with working() as service:
        for _ in range(20):
            service.beat()
            service.look()
        for _ in range(5):
            service.look()
        assert service.process.poll() is None
        service.look()
        assert service.process.wait(10 * PATIENCE) == -9
        assert service.why == "stalled: no sign of life for 6 s, killed"


def test_a_worker_that_never_beat_is_killed() -> None:
    """One that hangs before its first sign of life."""
    with working() as service:
        for _ in range(6):
            service.look()
        assert service.process.wait(10 * PATIENCE) == -9


def test_a_pause_of_everybody_is_no_stall() -> None:
    """Frozen together for hours, many times: before its next sign of life the worker is not late."""
    with working() as service:
        for _ in range(50):
            service.beat()
            service.look()
            service.look(after=3600)
            service.look()
            assert service.process.poll() is None
            assert service.why == ""


def test_a_pause_saves_no_worker_that_hangs() -> None:
    """The silence goes on where it was; and a machine on which every look is late kills it, too."""
    for late in (1.0, 30.0):
        with working() as service:
            for _ in range(3):
                service.look()
            service.look(after=3600)
            for _ in range(2):
                service.look(after=late)
            assert service.process.wait(10 * PATIENCE) == -9


@pytest.mark.parametrize(("name", "known"), [("OTEL_METRICS", True), ("OTEL_METRICS" * 20, False)])
def test_the_supervisor_beats_however_much_there_is_to_tell(name: str, known: bool) -> None:
    """What is known of hundreds of processes that were killed may be more than fits: the oldest causes go first."""
    names = [f"{name}/{number}" for number in range(SLOTS - 10)]
    now, board = 1000.0, Board()
    children = Children(board.slot(SUPERVISOR), clock=lambda: now)
    children.stall_timeouts = dict.fromkeys(names, TIMEOUT)
    with ending(subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)) as process:
        for each in names:
            now += 0.001
            children.started(each, process.pid)
        for _ in range(10):
            now += 1.0
            children.kill_stalled(board)
        assert process.wait(10 * PATIENCE) == -9
    state = noted(board.slot(SUPERVISOR))
    assert state["beat"] == now
    if known:
        assert [*state["children"]] == names
        whys = [child["why"] for child in state["children"].values()]
        assert whys == sorted(whys)
        assert whys[0] == ""
        assert whys[-1].endswith("killed")


def test_the_supervisor_beats_however_long_an_error_is() -> None:
    """Of settings that are wrong, the beginning is told; also of a name that is no text."""
    now, board = 1000.0, Board()
    children = Children(board.slot(SUPERVISOR), clock=lambda: now)
    for error in ("wrong" * 50_000, "no such file: \udcff"):
        now += 1.0
        children.reloaded(error)
        state = noted(board.slot(SUPERVISOR))
        assert state["beat"] == now
        assert state["config_error"].startswith(error[:10])
        assert len(state["config_error"]) <= 500
