"""What a stream packs into one column: JSON, without the communities in it."""

from __future__ import annotations

from typing import Any

import orjson

from eventwriter.masking.community import masked, may_be_in
from eventwriter.values import dump_json


def packed(value: Any) -> bytes:
    """The JSON of a value as rows have it: masked."""
    try:
        text = orjson.dumps(value)
    except TypeError:
        text = dump_json(value)
    return masked(text) if may_be_in(text) else text
