"""scripts/demo: servers, traffic, the service, and accounts that add up."""

from __future__ import annotations

import json
import socket
import sys

import pytest

import demo
import forkserver
from eventwriter.errors import USAGE
from fix_service import ROOT, STREAMS, clean_environment


def test_the_demo_adds_up() -> None:
    """It ends by itself with status 0 and says so for each stream."""
    command = [str(ROOT / "scripts" / "demo.py"), "--seconds", "2", "--output", "json", "--listen", "127.0.0.1:0"]
    done = forkserver.run(command, clean_environment(), seconds=90)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert set(report["streams"]) == set(STREAMS)
    for line in report["streams"].values():
        assert line["published"] == line["written"] + line["dead_letters"]
        assert line["missing"] == 0
        assert line["rows"] > 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--broken 5", "'5' is no share of all"),
        ("--broken nan", "'nan' is no share of all"),
        ("--rate 0", "'0' is not a number above 0, up to 1,000,000"),
        ("--rate fast", "'fast' is not a number"),
        ("--seconds -1", "'-1' is not a number above 0"),
        ("--listen nonsense", "'nonsense' is not an address and a port, such as 127.0.0.1:9465"),
        ("--listen 127.0.0.1:x", "is not an address and a port"),
        ("--listen 127.0.0.1:{taken}", "Address already in use: --listen 127.0.0.1:0 takes a free port"),
        ("--sec 3", "there is no option --sec 3 (did you mean --seconds?)"),
        ("--brok 1", "(did you mean --broken?)"),
        ("extra", "there is no option extra; --help shows all"),
        ("--output xml", "invalid choice: 'xml'"),
    ],
)
def test_what_cannot_be_meant_is_one_line(
    arguments: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is started; so is a port that somebody has."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        given = arguments.format(taken=server.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["demo", "--listen", "127.0.0.1:0", *given.split()])
        with pytest.raises(SystemExit) as ended:
            demo.read_arguments()
    assert ended.value.code == USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("scripts/demo: ")
    assert told in line


@pytest.mark.parametrize(
    ("change", "status", "error", "told"),
    [
        ({}, 0, None, ""),
        ({"dead_letters": 9, "broken": 9, "rows": 0, "written": 0}, 0, None, ""),
        ({"published": 0, "written": 0, "dead_letters": 0, "broken": 0, "rows": 0}, 0, None, ""),
        ({"missing": 1}, 0, None, "IT DOES NOT ADD UP"),
        ({"rows_duplicated": 1}, 0, None, "IT DOES NOT ADD UP"),
        ({}, 75, None, "every message is accounted for, and the service ended with exit status 75"),
        ({"missing": 1}, 0, OSError("gone"), "the publisher failed, and nobody knows what it has published: gone"),
    ],
)
def test_it_does_not_add_up_only_when_it_does_not(
    change: dict[str, int], status: int, error: Exception | None, told: str
) -> None:
    """All broken, or nothing published, adds up as well."""
    line = {"published": 9, "written": 9, "dead_letters": 0, "broken": 0, "missing": 0, "rows": 9}
    line |= {"rows_missing": 0, "rows_duplicated": 0}
    assert demo.verdict({"LOGS": line | change}, status, error) == told
