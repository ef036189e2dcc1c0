"""What a stream packs into one column: JSON, without the communities in it."""

from __future__ import annotations

from typing import Any

from orjson import dumps

from eventwriter.masking.community import CAPITAL, LOWER, UPPER, masked
from eventwriter.values import dump_json


def packed(value: Any) -> bytes:
    """The JSON of a value as rows have it: masked."""
    try:
        text = dumps(value)
    except TypeError:  # most values of a row are made here: nothing is called that need not be
        text = dump_json(value)
    if text.find(LOWER) < 0 and (CAPITAL not in text or text.find(UPPER) < 0):
        return text
    return masked(text)
