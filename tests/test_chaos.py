"""A short run of scripts/chaos: faults of many kinds under load lose nothing and write nothing twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fix_service import ROOT, clean_environment
from patience import PATIENCE


def test_faults_under_load_lose_nothing(tmp_path: Path) -> None:
    """Ten kinds of faults within ten seconds; the result has the shape that others parse."""
    done = subprocess.run(
        [sys.executable, "scripts/chaos.py", "--seconds", "10", "--faults", "10", "--rate", "500", "--seed", "4",
         "--output", "json", "--keep", str(tmp_path)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=110 * PATIENCE, check=False,
    )  # fmt: skip
    result = json.loads(done.stdout)
    assert done.returncode == 0, (result, done.stderr, [log.read_text()[-5000:] for log in tmp_path.iterdir()])
    assert result["ok"] is True
    assert (result["lost"], result["duplicated"]) == (0, 0)
    assert result["messages"] > 1000
    assert result["dead_lettered"] > 0
    assert sum(result["faults"].values()) == 10
    assert {"seed", "seconds", "longest_recovery_s"} <= set(result)
