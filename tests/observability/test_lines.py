"""The log's way to standard error: nothing waits for whoever should read it."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from eventwriter.observability import lines
from eventwriter.observability.lines import Lines
from patience import PATIENCE

LINE = "x" * 300
LONG = "y" * 20_000
"""More than a pipe takes in one piece, as a traceback may be."""


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader who is behind is waited for, but not for long."""
    monkeypatch.setattr(lines, "PATIENCE", 0.01)


def pipe(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    return os.pipe()


def others_pipe(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """One that another user made may not be opened again."""
    monkeypatch.setattr(os, "open", lambda *_: (_ for _ in ()).throw(PermissionError))
    return os.pipe()


def sockets(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """What systemd gives."""
    reader, writer = socket.socketpair()
    return reader.detach(), writer.detach()


def terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """One that somebody has stopped with Ctrl-S is full in the end, too."""
    reader, writer = os.openpty()
    return reader, writer


@pytest.fixture(params=[pipe, others_pipe, sockets, terminal])
def ends(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """The end to read from, and standard error."""
    make: Callable[[pytest.MonkeyPatch], tuple[int, int]] = request.param
    found = make(monkeypatch)
    yield found
    for end in found:
        os.close(end)


@contextmanager
def logger_to(fd: int) -> Iterator[logging.Logger]:
    """A logger that writes there."""
    logger, handler = logging.Logger("test"), Lines(fd)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        handler.close()


def read(end: int) -> str:
    """All that is there."""
    os.set_blocking(end, False)
    found = b""
    try:
        while part := os.read(end, 2**16):
            found += part
    except BlockingIOError:
        return found.decode().replace("\r\n", "\n")
    return found.decode()


def test_what_nobody_reads_is_left_out_and_told(ends: tuple[int, int]) -> None:
    """Of lines that find no room none waits; the first that finds some again says how many there were."""
    reader, fd = ends
    with logger_to(fd) as log:
        begun = time.monotonic()
        for number in range(3000):
            log.error("%d %s", number, LINE)
        assert time.monotonic() - begun < 20 * PATIENCE
        early = read(reader)
        log.error("later %s", LINE)
        log.error("at last")
        *whole, told, later, last = (early + read(reader)).splitlines()
    assert whole == [f"{number} {LINE}" for number in range(len(whole))]
    assert told == f"{3000 - len(whole)} lines were left out here: nobody read standard error"
    assert (later, last) == (f"later {LINE}", "at last")
    assert os.get_blocking(fd), "what others share is as it was"
    os.fstat(fd)


def test_long_lines_are_whole(ends: tuple[int, int]) -> None:
    """What does not fit in one piece goes on where it stopped, before the next line."""
    reader, fd = ends
    found = ""
    with logger_to(fd) as log:
        for text in [*[LONG] * 10, *["end"] * 40]:
            log.error(text)
            found += read(reader)
    assert {line for line in found.splitlines() if "left out" not in line} == {LONG, "end"}


def test_a_fork_takes_no_part_of_a_line_with_it() -> None:
    """What its parent has begun is its parent's to end."""
    reader, writer = os.pipe()
    with logger_to(writer) as log:
        log.error("y" * 100_000)
        first = read(reader)
        assert not first.endswith("\n")
        pid = os.fork()
        if not pid:
            log.error("child")
            os._exit(0)
        os.waitpid(pid, 0)
        assert read(reader) == "child\n"
        log.error("parent")
        assert first + read(reader) == "y" * 100_000 + "\nparent\n"
        os.close(reader)
        log.error("nobody is there any more")
    os.close(writer)


def test_a_file_is_written_where_it_is(tmp_path: Path) -> None:
    """Not from its beginning, and a full disk changes nothing."""
    path = tmp_path / "log"
    with path.open("ab") as file:
        file.write(b"before\n")
        file.flush()
        with logger_to(file.fileno()) as log:
            log.error("after %s", "\ud800")
    assert path.read_text() == "before\nafter \\ud800\n"
    with open("/dev/full", "wb") as full, logger_to(full.fileno()) as log:
        log.error(LINE)


def test_a_mistake_in_a_call_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """As the logging module does it."""
    with open(os.devnull, "wb") as nothing, logger_to(nothing.fileno()) as log:
        log.error("%d", "no number")
    assert "Logging error" in capsys.readouterr().err
