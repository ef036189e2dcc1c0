"""How commands end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eventwriter import cli, registry, service, worker
from eventwriter.errors import INTERNAL
from eventwriter.processes import process
from fix_service import ROOT, clean_environment
from patience import PATIENCE


def broken(*_: object, **__: object) -> None:
    raise RuntimeError("password=s3cret is no good")


@pytest.mark.parametrize(
    ("command", "where", "what"),
    [
        ("config show", registry, "load"),
        ("supervise", service, "supervise"),
        ("worker --stream LOGS", worker, "run"),
    ],
)
def test_a_bug_ends_with_70(
    command: str, where: object, what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Says where it is, and no secret."""
    monkeypatch.setattr(process, "settle", lambda: None)
    monkeypatch.setattr(where, what, broken)
    monkeypatch.setattr(sys, "argv", ["eventwriter", *command.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == INTERNAL
    told = capsys.readouterr().err
    assert "eventwriter: internal error\nTraceback" in told
    assert told.endswith("RuntimeError: password=*** is no good\n")


def test_so_does_one_of_the_servers_for_development() -> None:
    """Here a folder that cannot be made."""
    command = [sys.executable, "-m", "eventwriter.embedded", "nats", "--port", "1", "--folder", "/dev/null/none"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=30 * PATIENCE,
        check=False,
    )
    assert done.returncode == INTERNAL
