"""Writes docs/commands.md from the commands themselves: `scripts/reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from eventwriter.cli import cli

SHAPES = {
    "check": '`{"ok", "findings": [{"subject", "ok", "warning", "text"}]}`',
    "config show": """
`{"settings": {SECTION: {KEY: VALUE}}}`, with `--origin` also `"origins": {"SECTION.KEY": TEXT}`, and
`"libpq": {VARIABLE: VALUE}` for what is taken from libpq's own variables""",
    "dlq list": """
`[{"id", "logical_stream", "stream", "stream_created", "durable", "sequence", "record_index", "reason", "sqlstate",
"detail", "subject", "message_time", "created_at", "replayed_at", "bytes"}]`; `record_index` is null for a whole
message. With `--summary`: `[{"logical_stream", "reason", "sqlstate", "letters", "messages", "oldest", "latest"}]`""",
    "dlq replay": """
`{"dry_run", "selected", "replayed", "rows", "added", "busy", "left": [{"stream", "reason", "sqlstate", "letters",
"first", "detail"}]}`""",
    "dlq show": """
one of `dlq list`, with `"headers"`, `"payload"` (text) or `"payload_base64"`, and `"decoded"`: what `decode` prints of
it, a list""",
    "ledger accept": "`[[FIRST, LAST], …]`: the sequences taken note of",
    "replay": """
`{"ok", "stream", "missing", "written", "left", "interrupted", "gaps": [[FIRST, LAST], …]}`; `missing`, `written` and
`left` count messages""",
    "schema check": "as `check`",
    "schema version": '`{"release", "latest", "version", "applied_at", "applied_by", "current"}`',
    "status": "the document of `/status`: [docs/observability](observability/README.md)",
    "streams create": '`{"streams": {JETSTREAM_NAME: {"exists", "created", "subjects", "command"}}}`',
    "tap": """
a line each: `{"sequence", "time", "subject"}` with `"row": {COLUMN: VALUE}` and `"record_index"`, with
`"reject": {"reason", "detail", "record_index"}`, `"repairs": {REASON: COUNT}` or `"excluded": true`; with `--raw` with
`"headers"` and `"payload"` (text) or `"payload_base64"`""",
    "verify": """
`{"ok", "streams": {NAME: {"checked", "done", "dead_letters", "missing", "waiting", "before", "gaps": [[FIRST, LAST],
…]}}}`. Gaps are sequences, all else counts messages: checked = done + dead_letters + missing. A stream that could not
be looked at has `"error"`. With `--against` a stream also has `"against": {"table", "ours", "theirs", "hours": [[HOUR,
OURS, THEIRS], …], "key", "only_ours", "only_theirs", "keys"}`: rows, the hours that differ, the columns by which rows
were told apart, how many keys one side alone has, and up to 1000 of them""",
}
"""What ``--output json`` prints, by command. Fields may be added; these stay."""

_HEAD = """\
# Commands

Written from the commands by `scripts/reference`; `eventwriter COMMAND --help` says the same.
Options before the command hold for all of them. [Exit codes](../README.md#exit-codes) are those of sysexits.h.
"""


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its full name, in alphabetical order."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def document() -> str:
    """The page."""
    parts = [_HEAD, "## Options of all commands\n", _options(cli, "eventwriter")]
    for path, command in commands(cli):
        usage = " ".join(["eventwriter", path, *command.collect_usage_pieces(click.Context(command))])
        parts += [f"## {path}\n", f"```text\n{usage}\n```\n", _text(command.help), _options(command, path)]
        parts.append(_text(command.epilog))
        if path in SHAPES:
            parts.append(f"`--output json` prints {SHAPES[path].strip()}.\n")
    return "\n".join(part for part in parts if part)


def _text(text: str | None) -> str:
    """Help as Markdown: what click shall leave as it is are commands."""
    found = []
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        if paragraph.startswith("\b\n"):
            found.append(f"```sh\n{inspect.cleandoc(paragraph[2:])}\n```\n")
        elif paragraph:
            found.append(f"{paragraph}\n")
    return "\n".join(found)


def _options(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path, max_content_width=10_000)
    records = (param.get_help_record(context) for param in command.params)
    # What is to be chosen from without the bar that would end a cell.
    rows = ["| `{}` | {} |".format(name.replace("|", ", "), text) for name, text in (each for each in records if each)]
    return "\n".join(["| option | |", "|---|---|", *rows, ""]) if rows else ""


if __name__ == "__main__":
    click.echo(document(), nl=False)
