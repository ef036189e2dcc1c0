"""Dead letters as a person reads them, and as a program does."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from typing import Any

from eventwriter import terminal
from eventwriter.commands import decode
from eventwriter.commands.dlq_fates import Result
from eventwriter.commands.dlq_letters import Letter
from eventwriter.stream import Message, Stream

_BYTES = 4096
"""Of a payload, unless all of it is asked for."""
_RECORDS = 20
"""Of a message, unless all of them are asked for."""


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
    told["headers"] = letter.get("headers")
    try:
        told["payload"] = message.payload.decode()
    except UnicodeDecodeError:
        told["payload_base64"] = base64.b64encode(message.payload).decode()
    # As the decoder wrote them: to read numbers here could change them.
    records = [] if stream is None else [decode.to_line(record).decode() for record in decode.decode(stream, message)]
    return f'{terminal.exact(told)[:-1]}, "decoded": [{", ".join(map(terminal.in_ascii, records))}]}}'


def shown(letter: Letter, message: Message, stream: Stream | None, *, full: bool) -> str:
    """One letter for a person."""
    index = letter["record_index"]
    what = "the whole of" if index is None else f"record {index} of"
    head = f"dead letter {letter['id']}: {what} message {letter['sequence']} of {letter['stream']}"
    facts = {
        "stream": f"{letter['logical_stream']} (durable {letter['durable']}, created {letter['stream_created']})",
        "why": f"{_why(letter)}: {letter['detail']}",
        "subject": letter["subject"],
        "received": letter["message_time"],
        "kept": letter["created_at"],
        "replayed": letter["replayed_at"] or "never",
    }
    lines = [head, *(f"  {name:<9} {value}" for name, value in facts.items())]
    lines += [f"  {'header':<9} {name}: {_value(value)}" for name, value in (letter.get("headers") or {}).items()]
    lines = [*map(terminal.one_line, lines), "", *_payload(message.payload, full=full)]
    if stream is not None:
        lines += ["", *_decoded(stream, message, index, full=full)]
    return "\n".join(lines)


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _payload(payload: bytes, *, full: bool) -> Iterator[str]:
    part = payload if full else payload[:_BYTES]
    more = f", the first {len(part)} of them" if len(part) < len(payload) else ""
    try:
        # A character that the cut went through is left out.
        text = part.decode() if not more else payload.decode().encode()[: len(part)].decode(errors="ignore")
        binary = "\0" in text
    except UnicodeDecodeError:
        binary = True
    yield f"payload: {len(payload)} bytes of {'binary' if binary else 'text'}{more}"
    if binary:
        yield from _dump(part)
    else:
        yield from (f"  {line}" for line in terminal.lines(text).split("\n"))


def _dump(data: bytes) -> Iterator[str]:
    """Sixteen bytes a line, as hexadecimal numbers and as characters of ASCII."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"  {start:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {text}"


def _decoded(stream: Stream, message: Message, index: int | None, *, full: bool) -> Iterator[str]:
    """What the present decoder makes of it: of the one record that the letter is about, or of all."""
    records = [*decode.decode(stream, message)]
    about = [each for each in records if index is None or (_index(each) in (None, index) and "repairs" not in each)]
    yield f"decodes now to {len([each for each in records if 'row' in each])} rows" + (
        "" if index is None else f", record {index} to"
    )
    if not about:
        yield "  nothing: there is no such record"
    for record in about if full else about[:_RECORDS]:
        yield f"  {terminal.one_line(decode.to_line(record).decode())}"
    if not full and len(about) > _RECORDS:
        yield f"  … and {len(about) - _RECORDS} more: --full shows all"


def _index(record: dict[str, Any]) -> int | None:
    index = record["record_index"] if "row" in record else record.get("reject", {}).get("record_index")
    return index if isinstance(index, int) else None


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
