"""What commands print of what they found, without a server."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import pytest

from boards import settings
from eventwriter import registry
from eventwriter.commands import bookkeeping, decode, findings, options, running
from eventwriter.commands.bookkeeping import Loss
from eventwriter.commands.findings import Finding
from eventwriter.commands.settings import Settings
from eventwriter.errors import BAD_DATA, CONFIGURATION, OK, UNAVAILABLE, UsageError


def test_findings_are_a_line_each_or_one_document() -> None:
    """The worst of them is what the command ends with."""
    found = [
        Finding("postgres", "PostgreSQL 16.1"),
        Finding("LOGS", "no key", warning=True),
        Finding("EVENTS", "no table", CONFIGURATION),
        Finding("SWEEP", "no stream", UNAVAILABLE),
    ]
    assert findings.shown(found, as_json=False).splitlines() == [
        "✓ postgres      PostgreSQL 16.1",
        "! LOGS          no key",
        "✗ EVENTS        no table",
        "✗ SWEEP         no stream",
    ]
    document = json.loads(findings.shown(found, as_json=True))
    assert document["ok"] is False
    assert document["findings"][1] == {"subject": "LOGS", "ok": True, "warning": True, "text": "no key"}
    assert findings.exit_code(found) == CONFIGURATION
    assert findings.exit_code(found[:2]) == findings.exit_code([]) == OK
    assert json.loads(findings.shown([], as_json=True)) == {"ok": True, "findings": []}


def test_nothing_that_is_printed_is_obeyed_by_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Names of tables, columns and streams are what others make of them; JSON says the same."""
    found = [Finding("\x1b[2J", "column \x9b31m\u202e of table 雪 \x7f", warning=True)]
    options.say(findings.shown(found, as_json=False))
    options.say(findings.shown(found, as_json=True))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(map(str.isprintable, lines))
    assert "雪" in lines[0]
    assert json.loads(lines[1])["findings"][0]["text"] == found[0].text


def test_losses_are_a_line_each_or_pairs() -> None:
    """For people with the times between which they were published."""
    losses = [Loss(3, 5, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), None), Loss(9, 9, None, None)]
    assert bookkeeping.accepted(losses, as_json=False).splitlines() == [
        "accepted: sequences 3 to 5, published after 2026-01-02 03:04:05+0000",
        "accepted: sequences 9 to 9",
    ]
    assert json.loads(bookkeeping.accepted(losses, as_json=True)) == [[3, 5], [9, 9]]


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:9465", "http://127.0.0.1:9465"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:80", "http://[::1]:80"),
        ("[fe80::1]:80", "http://[fe80::1]:80"),
        ("metrics.example:80", "http://metrics.example:80"),
    ],
)
def test_a_service_is_asked_where_it_listens(listen: str, url: str) -> None:
    """On every address: on the local one."""
    assert running.address(settings(HTTP__LISTEN=listen, HTTP__PUBLIC="true").http) == url


def test_decode_says_a_line_a_record_and_ends_with_65_if_one_was_rejected() -> None:
    """The payloads of all files, one after the other."""
    said: list[bytes] = []
    stream = registry.load()["LOGS"]
    files = [io.BytesIO(b'{"message": "one"}\n{"message": "two"}\n')]
    assert decode.run(stream, files, said.append, form="lines", received="2026-01-01T00:00:00Z") == OK
    assert [json.loads(line)["row"]["body"] for line in said] == ["one", "two"]
    assert decode.run(registry.load()["SWEEP"], [io.BytesIO(b"no JSON {")], said.append) == BAD_DATA
    assert json.loads(said[-1])["reject"]["reason"] == "malformed"
    with pytest.raises(UsageError, match="--time"):
        decode.run(stream, [], said.append, received="yesterday")


def test_settings_name_their_streams() -> None:
    """In whatever case; a wrong name is told with the right ones."""
    loaded = Settings(None, {}).load()
    assert loaded.stream("logs").name == "LOGS"
    with pytest.raises(UsageError, match=r"there is no stream LOG; the streams are EVENTS, LOGS, "):
        loaded.stream("LOG")
