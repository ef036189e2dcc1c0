"""The `decode` command: what would become of payloads, without NATS and without PostgreSQL."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson

from eventwriter.errors import UsageError
from eventwriter.stream import Message, Stream
from eventwriter.values import time_to_text

Form = Literal["raw", "base64", "hex", "lines"]


def payloads(data: bytes, form: Form) -> Iterator[bytes]:
    """The messages in a file: the whole of it, or one in each line that is not empty.

    ``raw``: the bytes as they are; ``base64``, ``hex``: white space ignored; ``lines``: one payload a line.
    """
    if form == "raw":
        yield data
    elif form == "lines":
        yield from (line for line in data.splitlines() if line.strip())
    else:
        text = b"".join(data.split())
        try:
            yield base64.b64decode(text, validate=True) if form == "base64" else binascii.unhexlify(text)
        except (binascii.Error, ValueError) as error:
            raise UsageError(f"the input is not {form}: {error}") from None


def header(text: str) -> tuple[str, str]:
    """``name=value`` or ``name: value`` as name and value."""
    for separator in ("=", ":"):
        name, found, value = text.partition(separator)
        if found and name.strip():
            return name.strip(), value.strip()
    raise UsageError(f"header {text!r} is not name=value")


def default_subject(stream: Stream) -> str:
    """A subject that the stream's first filter matches."""
    return stream.subjects[0].replace("*", "x").replace(">", "example")


def decode(stream: Stream, message: Message) -> Iterator[dict[str, Any]]:
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
    return {"reject": {name: value for name, value in fields.items() if name != "sqlstate"}}


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
    """JSON of one record."""
    return orjson.dumps(record, default=str)
