"""What people see of a message: its payload, and what it decodes to now. No secret, and nothing that a terminal obeys.

``dlq show`` and the page show the same; `decode` and `tap` print the same records.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import orjson

from eventwriter import terminal
from eventwriter.masking import community
from eventwriter.stream import Message, Reject, Stream
from eventwriter.values import time_to_text

BYTES = 4096
"""Of a payload, unless all of it is asked for."""
_RECORDS = 20
"""Of a message, unless all of them are asked for."""
_EVERYTHING = 2**26
_in_no_text = re.compile("[\0-\x08\x0e-\x1a\x1c-\x1f]").search
"""A character that text has not; protobuf has some, and is often valid UTF-8. Logs in colours have ESC."""
_SMALL = 2**14
"""Bytes of a payload, inflated, that a worker decodes once more to have it shown."""
UNTRIED = ("crashes", "internal")
"""Reasons of messages that no decoder is given without being asked to."""


def which(record_index: int | None, sequence: int) -> str:
    """What of a message a dead letter is about."""
    return f"{'the whole' if record_index is None else f'record {record_index}'} of message {sequence}"


def headers(found: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of a message, as a letter has them: of a name that occurs more than once a list of its values."""
    shown: dict[str, Any] = {}
    for name, value in (found or {}).items():
        several = isinstance(value, list)
        shown[name] = [community.header(name, each) for each in value] if several else community.header(name, value)
    return shown


def header_lines(found: Mapping[str, Any] | None) -> Iterator[str]:
    """The same for a person."""
    for name, value in headers(found).items():
        yield f"  {'header':<9} {name}: {', '.join(map(str, value)) if isinstance(value, list) else value}"


def lines(message: Message, index: int | None, stream: Stream | None, *, full: bool = False) -> Iterator[str]:
    """The payload, and with a ``stream`` what it decodes to: of the record that a letter is about, or all of it."""
    most = _EVERYTHING if full else BYTES
    yield from payload_lines(message.payload, text=most, binary=most)
    if stream is not None:
        yield ""
        yield from _decoded(stream, message, index, full=full)


def payload(data: bytes) -> dict[str, str]:
    """A payload for a program: text if it is UTF-8, else in base64."""
    data = community.payload(data)
    try:
        return {"payload": data.decode()}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(data).decode()}


def of_letter(stream: Stream, message: Message, reject: Reject) -> str:
    """What a worker tells people of a dead letter: little, for it has other things to do, and goes on doing them."""
    tried = reject.reason not in UNTRIED and len(community.inflated(message.payload, _SMALL)) < _SMALL
    found = [
        which(reject.record_index, message.sequence),
        *map(terminal.one_line, islice(header_lines(message.headers), _RECORDS)),
        "",
        *payload_lines(message.payload, text=BYTES // 2, binary=BYTES // 8),
    ]
    if tried:
        found += ["", *_decoded(stream, message, reject.record_index, full=False)]
    data = "\n".join(found).encode()
    return data.decode() if len(data) <= BYTES else data[: BYTES - 3].decode(errors="ignore") + "…"


def payload_lines(given: bytes, *, text: int = BYTES, binary: int = BYTES) -> Iterator[str]:
    """A payload for a person, inflated if it is compressed; so many bytes of it at most."""
    most = max(text, binary)
    data = community.inflated(given, 2 * most)  # more than is shown: a value that the end cuts off is hidden, too
    about = f"payload: {len(given)} bytes of " + ("" if data is given else "what is compressed, which holds ")
    part = community.hidden(data[: 2 * most])
    shown = _text_of(data, part[:text] if len(data) > text else part, cut=data is not given)
    most, kind = (text, "text") if shown is not None else (binary, "binary")
    more = ""
    if len(data) > most:
        part, more = part[:most], f", the first {most} of them" if data is given else f", the first {most} bytes"
    yield f"{about}{kind}{more}"
    if shown is None:
        yield from _dump(part)
    else:
        yield from (f"  {line}" for line in terminal.lines(shown).split("\n"))


def _text_of(data: bytes, part: bytes, *, cut: bool) -> str | None:
    """The text of a part of what is text, without a character that its end went through; None: it is binary."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if not cut or error.reason != "unexpected end of data":
            return None
    found = part.decode(errors="ignore")
    return None if _in_no_text(found) else found


def _dump(data: bytes) -> Iterator[str]:
    """Sixteen bytes a line, as hexadecimal numbers and as characters of ASCII."""
    for start in range(0, len(data), 16):
        row = data[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"  {start:08x}  {row[:8].hex(' '):<23}  {row[8:].hex(' '):<23}  {text}"


def _decoded(stream: Stream, message: Message, index: int | None, *, full: bool) -> Iterator[str]:
    """What the present decoder makes of it: of the one record that the letter is about, or of all."""
    found = [*records(stream, message)]
    about = [each for each in found if index is None or (_index(each) in (None, index) and "repairs" not in each)]
    yield f"decodes now to {len([each for each in found if 'row' in each])} rows" + (
        "" if index is None else f", record {index} to"
    )
    if not about:
        yield "  nothing: there is no such record"
    for record in about if full else about[:_RECORDS]:
        yield f"  {terminal.one_line(to_line(record).decode())}"
    if not full and len(about) > _RECORDS:
        yield f"  … and {len(about) - _RECORDS} more: --full shows all"


def _index(record: dict[str, Any]) -> int | None:
    index = record["record_index"] if "row" in record else record.get("reject", {}).get("record_index")
    return index if isinstance(index, int) else None


def records(stream: Stream, message: Message) -> Iterator[dict[str, Any]]:
    """One object a record: ``{"row": {column: value}}`` or ``{"reject": {"reason", "detail", "record_index", …}}``."""
    decoded = stream.decode(message)
    rejected = {reject.record_index: reject for reject in decoded.rejects}
    index = 0
    for row in decoded.rows:
        while index in rejected:
            yield _reject(rejected.pop(index)._asdict())
            index += 1
        shown = {column.name: _shown(value, column.type) for column, value in zip(stream.columns, row, strict=True)}
        yield {"row": shown, "record_index": index}
        index += 1
    for reject in decoded.rejects:
        if reject.record_index in rejected:
            yield _reject(reject._asdict())
    if decoded.repairs:
        counts: dict[str, int] = {}
        for reason in decoded.repairs:
            counts[reason] = counts.get(reason, 0) + 1
        yield {"repairs": counts}


def _reject(fields: Mapping[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in fields.items() if name != "sqlstate"}
    return {"reject": shown | {"detail": community.text(shown["detail"])}}


def _shown(value: Any, type_: str) -> Any:
    if value is None:
        return None
    if type_ == "timestamptz":
        return time_to_text(value)
    if type_ == "jsonb":
        return orjson.Fragment(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def to_line(record: Mapping[str, Any]) -> bytes:
    """JSON of one record, without secrets, of which a terminal obeys nothing."""
    return terminal.readable(community.hidden(orjson.dumps(record, default=str)).decode()).encode()
