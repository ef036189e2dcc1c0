"""Paths into JSON, as settings name them."""

from __future__ import annotations

from eventwriter.values.unfit import Unfit

SOURCES = ("$time", "$subject", "$sequence")
"""What a message has beside its payload."""


def parse_path(text: str) -> tuple[str, ...]:
    """The keys, one within the other, of a path: ``message.text``, or ``/message/text`` (RFC 6901) where keys have dots
    in them. Raises Unfit for anything else."""
    if text.startswith("$"):
        if text not in SOURCES:
            raise Unfit("bad_path", f"{text!r} is none of {', '.join(SOURCES)}")
        return (text,)
    if text.startswith("/"):
        return tuple(key.replace("~1", "/").replace("~0", "~") for key in text[1:].split("/"))
    keys = tuple(text.split("."))
    if not all(keys):
        raise Unfit("bad_path", f"{text!r} has a key without a name")
    return keys
