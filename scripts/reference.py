"""Writes docs/commands.md from the commands themselves: `scripts/reference`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from eventwriter.cli import cli

_FINDINGS = '`{"ok": BOOL, "findings": [{"subject": TEXT, "ok": BOOL, "warning": BOOL, "text": TEXT}]}`'
_LETTER = """"id": NUMBER, "logical_stream": TEXT, "stream": TEXT, "stream_created": TIME, "durable": TEXT,
"sequence": NUMBER, "record_index": NUMBER|null, "reason": TEXT, "sqlstate": TEXT|null, "detail": TEXT, "subject":
TEXT, "message_time": TIME, "created_at": TIME, "replayed_at": TIME|null, "bytes": NUMBER"""
_CAUSE = '"text": TEXT, "since"?: NUMBER|null'
SHAPES = {
    "check": _FINDINGS,
    "config show": """
`{"settings": {SECTION: {KEY: VALUE}}, "origins"?: {SETTING: TEXT}, "libpq"?: {VARIABLE: VALUE}}`; the latter two with
`--origin`: where each setting is from, by `SECTION.KEY`, and what is taken from libpq's own variables""",
    "dlq list": f"""
`[{{{_LETTER}}}]`; `record_index` is null for a whole message. With `--summary`: `[{{"logical_stream": TEXT,
"reason": TEXT, "sqlstate": TEXT|null, "letters": NUMBER, "messages": NUMBER, "oldest": TIME, "latest": TIME}}]`""",
    "dlq replay": """
`{"dry_run": BOOL, "selected": NUMBER, "replayed": NUMBER, "rows": NUMBER, "added": NUMBER, "busy": NUMBER, "left":
[{"stream": TEXT, "reason": TEXT, "sqlstate": TEXT|null, "letters": NUMBER, "first": NUMBER, "detail": TEXT}]}`""",
    "dlq show": f"""
`{{{_LETTER}, "headers": {{NAME: VALUE}}|null, "payload"?: TEXT, "payload_base64"?: TEXT, "decoded": [VALUE]}}`: one of
`dlq list`, with its payload as text if it is UTF-8, and what `decode` prints of it. Of a header that occurs more than
once the value is an array""",
    "ledger accept": "`[[NUMBER, NUMBER]]`: the first and last sequence of each range taken note of",
    "replay": """
`{"ok": BOOL, "stream": TEXT, "missing": NUMBER, "written": NUMBER, "left": NUMBER, "interrupted": BOOL, "gaps":
[[NUMBER, NUMBER]]}`; `missing`, `written` and `left` count messages, gaps are the first and last sequence of each""",
    "schema check": _FINDINGS,
    "schema version": """
`{"release": TEXT, "latest": NUMBER, "version": NUMBER, "applied_at": TIME|null, "applied_by": TEXT|null, "current":
BOOL}`""",
    "status": f"""
`{{"version": TEXT, "now": NUMBER, "started": NUMBER, "uptime": NUMBER|null, "beat_age": NUMBER, "ready": BOOL,
"config_error": TEXT, "problems": [{{"stream": TEXT, {_CAUSE}}}], "causes": [{{"who": TEXT, "streams": [TEXT],
{_CAUSE}}}], "streams": {{NAME: {{"state": TEXT, "reason": TEXT, "since": NUMBER|null, "stream": TEXT, "subjects":
[TEXT], "durable": TEXT, "table": TEXT, "columns_omitted": [TEXT], "processes": [{{"name": TEXT, "pid": NUMBER,
"state": TEXT, "reason": TEXT, "restarts": NUMBER, "rss_bytes": NUMBER, "uptime": NUMBER}}], "nats_connected":
BOOL|null, "postgres_connected": BOOL|null, "messages": {{FATE: NUMBER}}, "rows_written": NUMBER, "bytes_taken":
NUMBER, "reread": NUMBER, "empty": NUMBER, "batch_way": TEXT, "ledger": {{"highest"?: NUMBER, "ranges"?: NUMBER}},
"missing": NUMBER, "restarts": NUMBER, "batch_messages": NUMBER, "consumer_pending": NUMBER|null,
"consumer_ack_pending": NUMBER|null, "lag_seconds": NUMBER|null, "event_ages": {{"buckets": [NUMBER], "sum": NUMBER}},
"event_age_p50": NUMBER|null, "event_age_p99": NUMBER|null, "last_commit": NUMBER|null, "rows_skipped": {{REASON:
NUMBER}}, "rejects": {{REASON: NUMBER}}, "repairs": {{REASON: NUMBER}}, "errors": {{CLASS: NUMBER}}, "batch_seconds":
{{STAGE: NUMBER}}, "batch_durations": {{STAGE: [NUMBER]}}, "dead_letters": [{{"time": NUMBER, "reason": TEXT,
"detail": TEXT, "subject": TEXT, "sequence": NUMBER, "view": TEXT}}], "dead_letters_per_minute": NUMBER, "history":
{{"step": NUMBER, "rows_per_s": [NUMBER|null], "lag": [NUMBER|null], "dead_letters_per_s": [NUMBER|null]}}}}}}}}`: the
document of `/status`, times in seconds since 1970 ([more](observability/README.md))""",
    "streams create": """
`{"streams": {NAME: {"exists": BOOL, "created": BOOL, "subjects": [TEXT], "command": TEXT, "error"?: TEXT}}}`, by the
names in JetStream""",
    "tap": """
a line each: `{"sequence": NUMBER, "time": TIME, "subject": TEXT, "record_index"?: NUMBER, "row"?: {COLUMN: VALUE},
"reject"?: {"reason": TEXT, "detail": TEXT, "record_index": NUMBER|null}, "repairs"?: {REASON: NUMBER}, "excluded"?:
BOOL}` with one of the latter four; with `--raw` `{"sequence": NUMBER, "time": TIME, "subject": TEXT, "headers":
{NAME: TEXT}|null, "payload"?: TEXT, "payload_base64"?: TEXT}`""",
    "verify": """
`{"ok": BOOL, "streams": {NAME: {"checked"?: NUMBER, "done"?: NUMBER, "dead_letters"?: NUMBER, "missing"?: NUMBER,
"waiting"?: NUMBER, "before"?: NUMBER, "gaps"?: [[NUMBER, NUMBER]], "error"?: TEXT, "against"?: {"table": TEXT,
"ours": NUMBER, "theirs": NUMBER, "hours": [[TIME|TEXT|null, NUMBER, NUMBER]], "key": [TEXT], "only_ours": NUMBER,
"only_theirs": NUMBER, "keys": {SIDE: [[TEXT]]}}}}}`. Gaps are sequences, the first and last of each, all else counts
messages: checked = done + dead_letters + missing. A stream that could not be looked at has `error` and no counts.
`against` comes with `--against`, and counts rows: the hours that differ, by ours and theirs, the columns by which
rows were told apart, how many keys one side alone has, and up to 1000 of them""",
}
"""What ``--output json`` prints, by command. Fields may be added; these stay.

JSON with the kinds of values in capitals, ``"name"?`` for what may be absent; names that are no fixed ones, too.
"""

_HEAD = """\
# Commands

Written from the commands by `scripts/reference`; `eventwriter COMMAND --help` says the same.
Options before the command hold for all of them. [Exit codes](../README.md#exit-codes) are those of sysexits.h.

Shapes of JSON are given with kinds of values: `TEXT`, `NUMBER`, `BOOL`, `TIME` (a text, RFC 3339), `VALUE`
(anything), with `|null` where it may be that; `"name"?` may be absent, and names in capitals stand for any name,
arrays of one kind for any length. Fields may be added.
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
