"""scripts/demo: servers, traffic, the service, and accounts that add up."""

from __future__ import annotations

import json
import subprocess
import sys

from fix_service import ROOT, STREAMS, clean_environment
from patience import PATIENCE


def test_the_demo_adds_up() -> None:
    """It ends by itself with status 0 and says so for each stream."""
    done = subprocess.run(
        [
            sys.executable,
            str(ROOT / "scripts" / "demo.py"),
            "--seconds",
            "4",
            "--output",
            "json",
            "--listen",
            "127.0.0.1:0",
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=90 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert set(report["streams"]) == set(STREAMS)
    for line in report["streams"].values():
        assert line["published"] == line["written"] + line["dead_letters"]
        assert line["missing"] == 0
        assert line["rows"] > 0
