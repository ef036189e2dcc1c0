"""A short run of scripts/chaos: faults of many kinds under load lose nothing and write nothing twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import forkserver
from fix_service import ROOT, clean_environment

LASTING = ("postgres_promote", "postgres_restore", "consumer_edit", "subject_edit", "host_cut")


def chaos(folder: Path, *arguments: str) -> dict[str, Any]:
    """Runs it; what it printed."""
    command = [str(ROOT / "scripts" / "chaos.py"), *arguments]
    command += ["--seed", "4", "--output", "json", "--keep", str(folder)]
    done = forkserver.run(command, clean_environment(), seconds=115)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, (result, done.stderr, [log.read_text()[-5000:] for log in folder.iterdir()])
    assert result["ok"] is True
    assert (result["lost"], result["duplicated"]) == (0, 0)
    return result


QUICK = ("worker_kill", "commit_answer_lost", "nats_kill", "postgres_kill", "table_refuses", "message_hostile")


def test_some_faults_lose_nothing(tmp_path: Path) -> None:
    """One of each of these, and a restored backup; the result has the shape that others parse."""
    kinds = (*QUICK, "postgres_restore")
    result = chaos(tmp_path, "--seconds", "4", "--faults", str(len(kinds)), "--rate", "60", "--kinds", ",".join(kinds))
    assert result["faults"] == dict.fromkeys(sorted(kinds), 1)
    assert result["messages"] > 100
    assert result["dead_lettered"] > 0
    assert {"seed", "seconds", "longest_recovery_s"} <= set(result)


@pytest.mark.long
def test_faults_under_load_lose_nothing(tmp_path: Path) -> None:
    """Ten faults within ten seconds; the result has the shape that others parse."""
    result = chaos(tmp_path, "--seconds", "10", "--faults", "10", "--rate", "200", "--without", ",".join(LASTING))
    assert result["messages"] > 1000
    assert result["dead_lettered"] > 0
    assert sum(result["faults"].values()) == 10
    assert {"seed", "seconds", "longest_recovery_s"} <= set(result)


@pytest.mark.long
def test_databases_and_consumers_of_another_time_lose_nothing(tmp_path: Path) -> None:
    """A standby that lagged, a restored backup, edited consumers and subjects, a host that is cut off: one of each."""
    result = chaos(tmp_path, "--seconds", "10", "--faults", "5", "--rate", "100", "--kinds", ",".join(LASTING))
    assert result["faults"] == dict.fromkeys(sorted(LASTING), 1)
