"""Values that have no meaning where they stand, and how messages quote them."""

from __future__ import annotations

import reprlib


class Unfit(ValueError):
    """A value that has no meaning in its column; ``reason`` is a bounded word for counting."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def shown(value: object, limit: int = 80) -> str:
    """The value as an error message quotes it: its repr, cut to ``limit`` characters."""
    if isinstance(value, str):
        value = value[: limit + 1]
    elif isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    # Of a list or an object its beginning: repr() of all of it may be megabytes, or fail for its depth.
    text = reprlib.repr(value) if isinstance(value, list | dict) else repr(value)
    return text if len(text) <= limit else text[:limit] + "…"
