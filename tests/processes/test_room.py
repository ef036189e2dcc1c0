"""Limits of processes and threads: found where they are, and told as what they are."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from eventwriter import registry, service
from eventwriter.config import loading
from eventwriter.errors import ConfigurationError
from eventwriter.processes import room

V1 = "8:pids:/docker/abc\n2:cpu:/docker/abc\n0::/docker/abc\n"
V2 = "0::/system.slice/eventwriter.service\n"


@pytest.mark.parametrize(
    ("groups", "files", "most"),
    [
        (V2, {"system.slice/eventwriter.service": "max", "system.slice": "100", "cpu": "1"}, 100),
        (V2, {"system.slice/eventwriter.service": "50", "system.slice": "100"}, 50),
        ("0::/\n", {"": "20"}, 20),
        (V1, {"pids/docker/abc": "30", "pids/docker": "max"}, 30),
        (V1, {"pids": "10"}, 10),  # in the container, where the path is that of the host
        (V1, {"pids/docker/abc": "max", "cpu/docker/abc": "1"}, None),
        ("", {}, None),
    ],
)
def test_the_least_limit_of_all_groups_above(
    groups: str, files: dict[str, str], most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of either version of control groups."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "cgroup").write_text(groups)
    for folder, value in files.items():
        (tmp_path / "sys" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys" / folder / "pids.max").write_text(f"{value}\n")
    found = room.least(tmp_path, tmp_path / "sys")
    assert (found and found.most) == most


@pytest.mark.parametrize(("most", "fits"), [(10, False), (45, False), (46, True)])
def test_a_service_that_has_no_room_does_not_begin(most: int, fits: bool) -> None:
    """Seven workers with six threads each, the monitor's three, and the supervisor."""
    declared = registry.load()
    settings = loading.load(declared, file=None, environ={}, flags={})
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)  # the limit does not hold for root
            resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
            service.Processes().wanted(settings, declared)
            told = "fits"
        except ConfigurationError as error:
            told = str(error)
        except Exception as error:  # noqa: BLE001 - the parent judges
            told = repr(error)
        os.write(writer, told.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    told = os.read(reader, 4096).decode()
    os.close(reader)
    os.close(writer)
    if fits:
        assert told == "fits"
    else:
        assert told.startswith(f"{most} processes and threads are too few, 46 are needed: raise ulimit -u")


@pytest.mark.parametrize(
    ("error", "meant"),
    [
        (RuntimeError("can't start new thread"), True),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), True),
        (RuntimeError("dictionary changed size during iteration"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
    ],
)
def test_what_is_told_of_an_error(error: Exception, meant: bool) -> None:
    """Others mean something else."""
    assert room.explained(error).startswith("there is no room for one more process or thread") == meant
