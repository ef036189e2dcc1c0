"""docs/commands.md says what the commands say, and each of them has an example, and a shape where it prints JSON;
docs/columns.md says what fills the columns."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

import columns
import reference
from eventwriter.cli import cli
from eventwriter.commands import findings
from fix_service import ROOT

EVERY = dict(reference.commands(cli))


def test_the_page_is_that_of_the_commands() -> None:
    """Whoever changes a command writes the page anew."""
    assert (ROOT / "docs" / "commands.md").read_text() == reference.document(), "run scripts/reference"


def test_the_page_of_columns_is_that_of_the_streams() -> None:
    """Whoever changes a declaration, or what a decoder makes of a field, writes the page anew."""
    page = (ROOT / "docs" / "columns.md").read_text()
    assert page == columns.document(), "run scripts/reference"
    for row in (
        "| `host_ip` | text | `host_ip`, `ip` | dead letter `missing_field` | dead letter `bad_value` |",
        "| `trace_state` ○ | text | `trace_state` | `trace_state` |  | NULL, `bad_value` |",
        "| `src_port` | integer | `src_port`, `sourcePort`, `SrcPort` | `src_port` |  | NULL, `bad_value`;",
        "| `http_method` | text | `http_method` | `point.attributes: http.request.method`, ",
    ):
        assert row in page


@pytest.mark.parametrize("path", EVERY)
def test_a_command_has_an_example(path: str) -> None:
    """In its help, as one would type it, with options that it has."""
    command = EVERY[path]
    shown = f"{command.help}\n{command.epilog}".replace("\\\n", "")
    examples = re.findall(rf"^ *(eventwriter (?:.*)?\b{path}\b.*)$", shown, re.MULTILINE)
    assert examples, path
    known = {name for each in (command, cli) for param in each.params for name in (*param.opts, *param.secondary_opts)}
    for example in examples:
        assert {*re.findall(r"(?<= )--[a-z0-9-]+", example.partition(" | ")[0])} <= known, example


def test_what_prints_json_has_a_shape() -> None:
    """Each command with --output, and no other."""
    printing = {path for path, command in EVERY.items() if any("--output" in param.opts for param in command.params)}
    assert printing == {*reference.SHAPES}


def named(path: str) -> set[str]:
    """The fields in the shape of a command."""
    return {*re.findall(r'"(\w+)"', reference.SHAPES[path])}


def test_what_needs_no_server_prints_that_shape() -> None:
    """The shapes of the other commands are held where these are tried."""
    shown = json.loads(CliRunner().invoke(cli, ["config", "show", "--origin", "--output", "json"]).stdout)
    assert {*shown} == {"settings", "origins", "libpq"} <= named("config show")
    found = json.loads(findings.shown([findings.Finding("LOGS", "fine")], as_json=True))
    assert {*found, *found["findings"][0]} == named("check")
