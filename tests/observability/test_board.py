"""The board: whoever reads sees a whole state, whoever dies loses none, and nothing is left of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import batch, noted, settings, write
from eventwriter.errors import ConfigurationError
from eventwriter.observability.board import FATES, LARGEST, SLOTS, Board
from eventwriter.observability.report import Report
from eventwriter.stream import Outcome
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
states = st.dictionaries(
    st.text(max_size=20).filter(lambda text: text.isprintable()),
    st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=50).filter(str.isprintable), st.none(), st.booleans()),
    min_size=1,
    max_size=20,
)


@given(st.lists(st.tuples(st.integers(0, 3), states), max_size=20))
def test_each_slot_holds_what_was_written_last(writes: list[tuple[int, dict[str, Any]]]) -> None:
    """Whatever is written in whatever order, no slot touches another."""
    board = Board()
    expected: dict[str, dict[str, Any]] = {}
    for number, state in writes:
        board.slot(str(number)).write(state)
        expected[str(number)] = state
    for name, state in expected.items():
        assert noted(board.slot(name)) == state
    assert sorted(map(str, board.read(dict))) == sorted(map(str, expected.values()))


def test_a_reader_never_meets_half_a_state() -> None:
    """While another process writes states of every size as fast as it can, each that is read is whole, and none is
    older than the one before."""
    board = Board()
    slot = board.slot("x")
    slot.write({"number": 0, "filling": []})
    pid = os.fork()
    if not pid:
        sizes = random.Random(1)
        number = 0
        while True:
            number += 1
            slot.write({"number": number, "filling": [number] * sizes.choice((0, 1, 10, 500, 5000))})
    try:
        before = 0
        seen: set[int] = set()
        deadline = time.monotonic() + 30 * PATIENCE
        while len(seen) <= 300 and time.monotonic() < deadline:
            state = noted(board.slot("x"))
            assert state["filling"] == [state["number"]] * len(state["filling"])
            assert state["number"] >= before
            before = state["number"]
            seen.add(before)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(seen) > 100  # a busy machine gives two processes that few turns


def test_a_writer_may_be_killed_at_any_moment() -> None:
    """The state before, or the new one, is there; and the next process goes on from it."""
    board = Board()
    slot = board.slot("x")
    slot.write({"number": 0, "filling": [0] * 5000})
    moments = random.Random(2)
    for _ in range(25):
        begun = noted(board.slot("x"))["number"]
        pid = os.fork()
        if not pid:
            mine = board.slot("x")
            number = begun
            while True:
                number += 1
                mine.write({"number": number, "filling": [number] * 5000})
        time.sleep(moments.uniform(0.001, 0.02))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        state = noted(board.slot("x"))
        assert state["number"] >= begun
        assert state["filling"] == [state["number"]] * 5000
    assert noted(board.slot("x"))["number"] > 0


@given(st.binary(min_size=1, max_size=40), st.integers(0, 40))
def test_a_half_that_is_torn_leaves_the_one_before(garbage: bytes, place: int) -> None:
    """Whatever bytes a dying writer leaves in its half, the other counts; the next writer goes on from that."""
    board = Board()
    slot = board.slot("x")
    slot.write({"number": 1})
    slot.write({"number": 2})
    whole = board._memory[:28]  # header and data of the second write, which went to the first half
    board._memory[place : place + len(garbage)] = garbage
    assert noted(board.slot("x")) == {"number": 2 if board._memory[:28] == whole else 1}
    board.slot("x").write({"number": 3})
    assert noted(board.slot("x")) == {"number": 3}


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    """The largest fits; one byte more leaves what was there, and the slot beside it is never touched."""
    board = Board()
    slot, beside = board.slot("x"), board.slot("y")
    beside.write({"a": 1})
    fitting = {"text": "x" * (LARGEST - len(b'{"text":""}'))}
    for _ in range(3):
        slot.write(fitting)
        assert noted(slot) == fitting
    slot.write({"text": fitting["text"] + "x"})
    assert noted(slot) == fitting
    assert noted(beside) == {"a": 1}


def test_there_is_room_for_many_and_the_end_of_it_is_said() -> None:
    """One more slot than there are is refused, again and again, and the others stay readable."""
    board = Board()
    for number in range(SLOTS):
        board.slot(str(number)).write({"name": number})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="512"):
            board.slot("one more")
    assert len(list(board.read(dict))) == SLOTS
    assert noted(board.slot("0")) == {"name": 0}


def test_counters_survive_a_process() -> None:
    """The next process of the name goes on; what the dead one had in hand counts as given back."""
    board = Board()
    assert "LOGS" in settings().streams
    pid = os.fork()
    if not pid:
        report = Report("LOGS", "LOGS", board.slot("LOGS"))
        write(report, 30, written=25, deadlettered=5, rejects={"malformed": 5})
        report.took(batch(7), 0.0)
        report.beat(force=True)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)
    report = Report("LOGS", "LOGS", board.slot("LOGS"))
    write(report, 10)
    state = noted(board.slot("LOGS"))
    counters = state["counters"]
    assert counters["taken"] == 47
    assert counters["written"] == 35
    assert counters["released"] == 7
    assert counters["taken"] == sum(counters[fate] for fate in FATES)
    assert state["rejects"] == {"malformed": 5}
    assert state["pid"] == os.getpid()
    assert sum(state["ages"]) == 40


def test_what_is_counted_after_a_commit_is_on_the_board_at_once() -> None:
    """A process that is killed right after a batch takes no count with it."""
    board = Board()
    report = Report("LOGS", "LOGS", board.slot("LOGS"))
    for number in range(1, 50):
        report.took(batch(1), 0.0)
        report.wrote(batch(1), Outcome(written=1))
        assert noted(board.slot("LOGS"))["counters"]["written"] == number


def test_several_threads_may_be_the_first_to_read_a_kind() -> None:
    """Such as a monitor's when it starts: in a process of its own, which did not survive it."""
    code = """
import sys, threading, msgspec
from eventwriter.observability.board import Board
sys.setswitchinterval(1e-6)
board = Board()
board.slot("a").write({})
for _ in range(100):
    inner = [msgspec.defstruct("Inner", [("x", int, 0)]) for _ in range(10)]
    kind = msgspec.defstruct("Kind", [(f"f{number}", each, None) for number, each in enumerate(inner)])
    begin = threading.Barrier(4)
    threads = [threading.Thread(target=lambda: (begin.wait(), [*board.read(kind)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60 * PATIENCE)
