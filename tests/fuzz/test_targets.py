"""The fuzzer's targets hold for what they begin with, for that when it is damaged, and for a short guided search."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

import fuzz
from targets import TARGETS


def damaged(seed: bytes) -> list[bytes]:
    """A message cut off, doubled, and with bytes changed in many places."""
    step = max(1, len(seed) // 8)
    some = [seed, seed[: len(seed) // 2], seed + seed]
    for place in range(0, len(seed), step):
        some += [seed[:place] + bytes((byte,)) + seed[place + 1 :] for byte in (0, 45, 255)]
    return some


@pytest.mark.parametrize("name", TARGETS)
def test_what_it_begins_with(name: str) -> None:
    """There is something, and nothing of it is a find; nor is nothing at all."""
    seeds = [*TARGETS[name].seeds()]
    assert seeds
    for each in (b"", *(each for seed in seeds for each in damaged(seed)[: 8 if len(seeds) > 99 else None])):
        TARGETS[name].run(each)


needs_atheris = pytest.mark.skipif(find_spec("atheris") is None, reason="the extra fuzz is not installed")


@needs_atheris
def test_a_short_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All targets by turns, with the same inputs in every run."""
    found = not fuzz.guided("all", 0, 1, "-runs=1500", kept=tmp_path)
    told = capsys.readouterr().out
    assert not found, told
    number = re.search(r"([\d,]+) inputs", told)
    assert number, told
    assert int(number[1].replace(",", "")) >= 1500  # it may try one twice


@needs_atheris
def test_what_is_found_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error and how to see it again; a target that does not exist is an error."""
    script = tmp_path / "tests" / "fuzz" / "guided.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import sys, atheris\natheris.Setup([sys.argv[0], *sys.argv[3:]], lambda data: 1 / len(data))\natheris.Fuzz()"
    )
    monkeypatch.setattr(fuzz, "ROOT", tmp_path)
    assert not fuzz.guided("x", 5, 1, kept=tmp_path)
    told = capsys.readouterr().out
    assert "ZeroDivisionError" in told
    assert "again, for what was found is kept: scripts/fuzz --guided --minutes 0 x\n" in told
    monkeypatch.undo()
    assert fuzz.main(["--guided", "--minutes", "0", "nothing"]) == 2
    assert "there are events, logs" in capsys.readouterr().err
