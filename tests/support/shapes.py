"""Compares JSON with the shapes that docs/commands.md has: every field by its name and the kind of its value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

import reference

KINDS: Mapping[str, Any] = {"TEXT": str, "NUMBER": (int, float), "BOOL": bool, "null": type(None)}
_TOKEN = re.compile(r'"\w+"\??|[A-Z]+|null|[{}\[\]:,|]')


def shapes(path: str) -> list[Any]:
    """Those of a command, in the order in which its documentation has them."""
    return [_parsed(text) for text in re.findall(r"`([{\[][^`]*)`", reference.SHAPES[path])]


def _parsed(text: str) -> Any:
    """As JSON: a kind is a text, alternatives are {"|": […]}, a name that may be absent ends in a question mark."""
    assert not _TOKEN.sub("", text).strip(), text
    tokens = _TOKEN.findall(text)

    def value() -> Any:
        found = alternative()
        while tokens and tokens[0] == "|":
            tokens.pop(0)
            found = {"|": [found, alternative()]}
        return found

    def alternative() -> Any:
        token = tokens.pop(0)
        if token == "[":
            return [*several("]", value)]
        if token == "{":
            return dict(several("}", member))
        return token

    def member() -> tuple[str, Any]:
        name = tokens.pop(0).replace('"', "")
        assert tokens.pop(0) == ":"
        return name, value()

    def several(end: str, one: Any) -> Iterator[Any]:
        while tokens[0] != end:
            yield one()
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)

    found = value()
    assert not tokens, text
    return found


def differences(value: Any, shape: Any, place: str = "") -> Iterator[str]:
    """What is not as it is documented; a field that the documentation lacks is that, too."""
    if isinstance(shape, str):
        if shape == "TIME":
            fits = isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
        else:
            told = isinstance(value, bool) == (shape == "BOOL")  # which Python takes for a number
            fits = shape == "VALUE" or (told and isinstance(value, KINDS[shape]))
        if not fits:
            yield f"{place}: {json.dumps(value)[:80]} is no {shape}"
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield f"{place}: no array"
            return
        kinds = shape * len(value) if len(shape) == 1 else shape
        if len(kinds) != len(value):
            yield f"{place}: {len(value)} values"
        for number, (each, kind) in enumerate(zip(value, kinds, strict=False)):
            yield from differences(each, kind, f"{place}[{number}]")
    elif "|" in shape:
        found = [[*differences(value, each, place)] for each in shape["|"]]
        if all(found):
            yield from found[0]
    elif not isinstance(value, dict):
        yield f"{place}: no object"
    else:
        fixed = {name.rstrip("?"): kind for name, kind in shape.items() if not name.isupper()}
        other = next((kind for name, kind in shape.items() if name.isupper()), None)
        needed = [name for name in shape if name[0].islower() and name[-1] != "?"]
        yield from (f"{place}.{name} is absent" for name in needed if name not in value)
        for name, each in value.items():
            if (kind := fixed.get(name, other)) is None:
                yield f"{place}.{name} is not documented"
            else:
                yield from differences(each, kind, f"{place}.{name}")
