"""scripts/fuzz: finds what the suite's own examples miss, shows the smallest input, and finds it again by its seed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fix_service import ROOT
from patience import PATIENCE

PROPERTY = """
from hypothesis import given, strategies as st

@given(st.integers(0, 10**6))
def test_a_rare_one(number: int) -> None:
    assert number < {limit}
"""


def fuzz(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the script on one file of tests."""
    return subprocess.run(
        [sys.executable, "scripts/fuzz.py", "--minutes", "0", "--processes", "0", *options, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60 * PATIENCE,
        check=False,
    )


def test_what_is_found_is_shown_and_found_again(tmp_path: Path) -> None:
    """Exit status 1, the seed, the test and the smallest number for which it fails."""
    path = tmp_path / "test_rare.py"
    path.write_text(PROPERTY.format(limit=400_000))
    found = fuzz(path)
    assert found.returncode == 1, found.stdout + found.stderr
    assert "test_a_rare_one" in found.stdout
    assert re.search(r"test_a_rare_one\(\s*number=400000", found.stdout)
    seed = re.search(r"--seed (\d+)", found.stdout)
    assert seed
    again = fuzz(path, "--seed", seed[1])
    assert again.returncode == 1
    assert f"seed {seed[1]}:" in again.stdout


def test_nothing_found_is_said(tmp_path: Path) -> None:
    """Exit status 0, and how many properties there were."""
    path = tmp_path / "test_rare.py"
    path.write_text(PROPERTY.format(limit=10**6 + 1))
    found = fuzz(path, "--seed", "7")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "round 1, seed 7: 1 passed" in found.stdout


@pytest.mark.parametrize("wrong", [pytest.param("missing.py", marks=pytest.mark.long), "empty.py"])
def test_tests_that_cannot_run_are_an_error(tmp_path: Path, wrong: str) -> None:
    """Nothing found is only said of properties that ran."""
    (tmp_path / "empty.py").write_text("")
    found = fuzz(tmp_path / wrong)
    assert found.returncode == 2
    assert found.stderr.strip()
