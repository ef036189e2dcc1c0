"""Dead letters as a person reads them, and as a program does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from eventwriter import terminal, viewing
from eventwriter.commands.dlq_fates import Result
from eventwriter.commands.dlq_letters import Letter
from eventwriter.stream import Message, Stream


def listed(letters: Sequence[Letter], *, as_json: bool) -> str:
    """One a line, or for a program."""
    return terminal.exact(letters) if as_json else "\n".join(map(_line, letters))


def _line(letter: Letter) -> str:
    index = "" if letter["record_index"] is None else f"[{letter['record_index']}]"
    place = f"{letter['logical_stream']} {letter['sequence']}{index}"
    text = f"{place:<24} {_why(letter)}: {letter['detail']}  ({letter['subject']})"
    return f"{letter['id']:>8}  {_time(letter['created_at'])}  {terminal.one_line(text)}"


def _why(letter: Letter) -> str:
    return f"{letter['reason']} {letter['sqlstate']}" if letter["sqlstate"] else f"{letter['reason']}"


def _time(text: str | None) -> str:
    """To the second, which is fine enough for people; all times are UTC."""
    return "never" if text is None else f"{text[:19]}Z"


def summed(groups: Sequence[Letter], *, as_json: bool) -> str:
    """How many there are of each kind: one kind a line, or for a program."""
    if as_json:
        return terminal.exact(groups)
    return "\n".join(
        f"{group['letters']:>8}  {terminal.one_line(group['logical_stream'] + '  ' + _why(group))}  "
        f"(of {group['messages']} messages, kept from {_time(group['oldest'])} to {_time(group['latest'])})"
        for group in groups
    )


def document(letter: Letter, message: Message, stream: Stream | None) -> str:
    """One letter for a program: its payload as text if it is UTF-8, else in base64, and what it decodes to now."""
    told: dict[str, Any] = dict(letter)
    told["headers"] = viewing.headers(letter.get("headers")) or None
    told |= viewing.payload(message.payload)
    # As the decoder wrote them: to read numbers here could change them.
    records = [] if stream is None else [viewing.to_line(each).decode() for each in viewing.records(stream, message)]
    return f'{terminal.exact(told)[:-1]}, "decoded": [{", ".join(map(terminal.in_ascii, records))}]}}'


def shown(letter: Letter, message: Message, stream: Stream | None, *, full: bool) -> str:
    """One letter for a person."""
    index = letter["record_index"]
    head = f"dead letter {letter['id']}: {viewing.which(index, letter['sequence'])} of {letter['stream']}"
    facts = {
        "stream": f"{letter['logical_stream']} (durable {letter['durable']}, created {letter['stream_created']})",
        "why": f"{_why(letter)}: {letter['detail']}",
        "subject": letter["subject"],
        "received": letter["message_time"],
        "kept": letter["created_at"],
        "replayed": letter["replayed_at"] or "never",
    }
    lines = [head, *(f"  {name:<9} {value}" for name, value in facts.items())]
    lines += viewing.header_lines(letter.get("headers"))
    return "\n".join([*map(terminal.one_line, lines), "", *viewing.lines(message, index, stream, full=full)])


def replayed(result: Result, *, dry_run: bool, as_json: bool) -> str:
    """What became of a replay."""
    if as_json:
        left = [
            {**kind._asdict(), "letters": len(numbers), "first": numbers[0], "detail": result.details[kind]}
            for kind, numbers in result.left.items()
        ]
        counts = {name: getattr(result, name) for name in ("selected", "replayed", "rows", "added", "busy")}
        return terminal.exact({"dry_run": dry_run, **counts, "left": left})
    would = "would be " if dry_run else ""
    lines = [f"{result.replayed} of {result.selected} dead letters {would}replayed: {result.rows} rows"]
    if result.added:
        lines.append(f"{result.added} records of them {would}dead letters by themselves")
    if result.busy:
        lines.append(f"{result.busy} were replayed or removed by somebody else meanwhile")
    for kind, numbers in result.left.items():
        code = f" {kind.sqlstate}" if kind.sqlstate else ""
        why = f"{kind.stream} {kind.reason}{code}: {result.details[kind]}"
        lines.append(terminal.one_line(f"{len(numbers)} wait as before, such as {numbers[0]}: {why}"))
    return "\n".join(lines)
