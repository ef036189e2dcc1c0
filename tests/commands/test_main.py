"""How commands end."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import forkserver
from eventwriter import cli, registry, service, worker
from eventwriter.commands import by_task
from eventwriter.errors import INTERNAL, UNAVAILABLE
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


@pytest.mark.parametrize("command", ["--version", "schema sql", "config show --output json", "check --offline"])
def test_what_standard_output_does_not_take_is_one_line(command: str, tmp_path: Path) -> None:
    """A full disk is no bug."""
    said = tmp_path / "said"
    with Path("/dev/full").open("wb") as full, said.open("wb") as stderr:
        ended = forkserver.started(command.split(), clean_environment(), full, stderr).wait(30 * PATIENCE)
    assert ended == UNAVAILABLE
    assert said.read_text() == "eventwriter: standard output cannot be written: No space left on device\n"


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


def test_help_shows_every_command_once_below_its_task() -> None:
    """What is added gets a task."""
    named = [name for names in by_task.TASKS.values() for name in names]
    assert sorted(named) == sorted(cli.cli.commands)
    shown = CliRunner().invoke(cli.cli, ["--help"]).stdout
    assert [line.removesuffix(":") for line in shown.splitlines() if line.removesuffix(":") in by_task.TASKS] == [
        *by_task.TASKS
    ]
    assert re.findall(r"^  ([a-z]+)  ", shown.partition("Set up:")[2], re.MULTILINE) == named


@pytest.mark.parametrize(
    ("words", "completed"),
    [("eventwriter che", "check"), ("eventwriter dlq re", "replay"), ("eventwriter verify --str", "--stream")],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete(words: str, completed: str, shell: str) -> None:
    """As the README has them do, by what is asked of the command then."""
    variables = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    if shell == "fish":
        variables["COMP_CWORD"] = words.rpartition(" ")[2]
    variables["_EVENTWRITER_COMPLETE"] = f"{shell}_complete"
    answer = CliRunner().invoke(cli.cli, prog_name="eventwriter", env=variables).stdout
    assert completed in re.split(r"[\s,]", answer)
    assert f"{shell}_source" in (ROOT / "README.md").read_text()
