"""Names of settings: as variables of the environment, and the nearest valid one to a name that does not exist."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping

from eventwriter.config.kind import Kind
from eventwriter.errors import ConfigurationError

PREFIX = "EVENTWRITER_"
"""Of every variable of ours in the environment."""


def variable_of(key: str) -> str:
    """``EVENTWRITER_NATS__TLS__CA`` for ``nats.tls.ca``."""
    return PREFIX + key.upper().replace(".", "__")


def one_line(text: str) -> str:
    """The text, quoted and escaped if it would break a line or hide something."""
    return text if text.isprintable() else json.dumps(text)


def known(key: str, origin: str, kinds: Mapping[str, Kind], streams: Iterable[str]) -> Kind:
    """The kind of a setting; raises ConfigurationError if there is no such setting."""
    if key in kinds:
        return kinds[key]
    raise unknown(key, origin, kinds, streams)


def unknown(name: str, origin: str, kinds: Mapping[str, Kind], streams: Iterable[str]) -> ConfigurationError:
    """The error that tells the nearest valid name, for a dotted key or a variable that does not exist."""
    is_variable = name.startswith(PREFIX)
    key = _key_of(name) if is_variable else name
    names = list(kinds)
    if is_variable:
        names += [f"{other}_file" for other, kind in kinds.items() if kind.from_file]
        origin = "environment"
    levels = key.split(".")
    if levels[0] == "streams" and len(levels) > 1 and levels[1] not in streams:
        near = _nearest(levels[1], streams)
        hint = f"did you mean {near}? " if near else ""
        text = f"unknown stream {one_line(levels[1])} in {one_line(name)} ({origin}): {hint}"
        return ConfigurationError(f"{text}The streams are {', '.join(sorted(streams))}")
    not_secret = key.removesuffix("_file")  # only a secret may be in a file
    near = not_secret if not_secret in kinds else _without_levels(key, names) or _suggestion(levels, names)
    if near is not None:
        hint = f"did you mean {variable_of(near) if is_variable else near}?"
    else:
        depth, siblings = _siblings(levels, names)
        prefix = variable_of(".".join([*levels[:depth], ""])) if is_variable else ""
        hint = f"there are {', '.join(siblings)}"
        if is_variable:
            hint = f"after {prefix} there are {', '.join(other.upper() for other in siblings)}"
    return ConfigurationError(f"unknown setting {one_line(name)} ({origin}): {hint}")


def _key_of(variable: str) -> str:
    levels = variable.removeprefix(PREFIX).split("__")
    is_stream = levels[0].lower() == "streams"
    return ".".join(level if is_stream and i == 1 else level.lower() for i, level in enumerate(levels))


def _without_levels(key: str, names: Iterable[str]) -> str | None:
    """The key that is the same but for what separates its levels, as in EVENTWRITER_NATS_URL."""
    return next((name for name in names if name.replace(".", "_").lower() == key.replace(".", "_").lower()), None)


def _suggestion(levels: list[str], names: list[str]) -> str | None:
    """The key that differs on the first level that does not exist, or has the right name in another table."""
    depth, siblings = _siblings(levels, names)
    near = _nearest(levels[depth], siblings) if depth < len(levels) else None
    if near is None or depth == len(levels) - 1:
        elsewhere = next((key for key in names if key.rpartition(".")[2] == levels[-1].lower()), None)
        if near is None or elsewhere is not None:
            return elsewhere
    corrected = ".".join([*levels[:depth], near, *levels[depth + 1 :]])
    return corrected if corrected in names else None


def _siblings(levels: list[str], names: Iterable[str]) -> tuple[int, list[str]]:
    """The first level on which a key is wrong, and what exists there."""
    paths = [key.split(".") for key in names]
    depth = 0
    while depth < len(levels) and any(path[: depth + 1] == levels[: depth + 1] and path[depth + 1 :] for path in paths):
        depth += 1
    return depth, list(dict.fromkeys(path[depth] for path in paths if path[:depth] == levels[:depth]))


def _nearest(name: str, names: Iterable[str]) -> str | None:
    folded = {other.lower(): other for other in names}
    near = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return folded[near[0]] if near else None
