"""What may go to a terminal. Messages hold whatever their senders like, also what a terminal would obey."""

from __future__ import annotations

import json
import os
import re
import select
from collections.abc import Iterator
from typing import Any

_OTHER = re.compile(r"[^\n\x20-\x7e]")


def one_line(text: str) -> str:
    """The text with an escape (``\\x1b``, ``\\u202e``) in place of every character that is not printable."""
    return text if text.isprintable() else "".join(map(_shown, text))


def lines(text: str) -> str:
    """The same for text of several lines: line ends and tabs stay."""
    return "\n".join("\t".join(map(one_line, line.split("\t"))) for line in text.split("\n"))


def exact(value: Any, *, indent: int | None = None) -> str:
    """JSON that says exactly what ``value`` is, as ``in_ascii``."""
    return in_ascii(json.dumps(value, indent=indent))


def in_ascii(text: str) -> str:
    """The same JSON with escapes for all that is not printable ASCII: what a terminal would obey is in its strings."""
    return _OTHER.sub(lambda match: "".join(f"\\u{unit:04x}" for unit in _units(match[0])), text)


def readable(text: str) -> str:
    """The same JSON, or text, with escapes of JSON for what is not printable alone, for people."""
    return _OTHER.sub(lambda match: match[0] if match[0].isprintable() else in_ascii(match[0]), text)


def let_go() -> bool:
    """Has standard output and error go nowhere from here on, if nobody reads them; whether that is so of the output."""
    gone = False
    for stream in (2, 1):
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        gone = any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
        if gone:
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream)
    return gone


def _units(character: str) -> Iterator[int]:
    data = character.encode("utf-16-be", "surrogatepass")
    return (data[place] << 8 | data[place + 1] for place in range(0, len(data), 2))


def _shown(character: str) -> str:
    if character.isprintable():
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
