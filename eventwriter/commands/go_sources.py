"""Finds what there is to import in a file: the JSON of the Go writer, alone or within YAML, and environments.

A file may be that JSON; YAML of Kubernetes or helm that holds it as text (a ConfigMap) or as YAML (values); YAML of
containers with their environments (a Deployment, a compose file); or lines of NAME=VALUE.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from eventwriter.config.naming import one_line
from eventwriter.errors import ConfigurationError

_KEYS = {"nats_url", "nats_creds_file", "stream_name", "consumer_name", "nats_security", "cnpg", "streams", "domain"}
"""Of the Go writer's configuration; two of them tell it from anything else."""
_OURS = re.compile(r"event[-_]?writer", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_OF_TAGS = ArithmeticError, AttributeError, LookupError, TypeError, ValueError
"""What the YAML library raises for text that is not what its tag says, such as !!int."""
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)")
_WHAT = "a db-event-writer configuration"
_MOST, _DEEPEST, _LONGEST = 200_000, 100, 10_000
"""Values in a document, and within each other: YAML may have a value as part of many, and of itself. Bits of numbers,
of which Python writes no more than 4,300 digits."""


@dataclass(slots=True)
class Found:
    """What is in a file."""

    config: Mapping[str, Any] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    lines: bool = False
    """Whether the environment is lines of NAME=VALUE, such as those that a compose file takes its values from."""
    notes: list[str] = field(default_factory=list)


def look(text: str) -> Found:
    """What a file holds; raises ConfigurationError, which says why, if that is nothing to import."""
    found = Found()
    text = text.removeprefix("\ufeff")  # what Windows puts before UTF-8
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line.strip() for line in text.splitlines()]
        lines = [line for line in lines if line and not line.startswith("#")]
        if lines and all(map(_ASSIGNMENT.fullmatch, lines)):
            found.environment = dict(map(_assigned, lines))
            found.lines = True
            return found
        if text.lstrip()[:1] in ("{", "[", ""):
            raise ConfigurationError(f"not {_WHAT}: {_hint(text) or error}") from None
        documents = _documents(text)
        for each in documents:
            _bounded(each)
    else:
        _bounded(document)
        if isinstance(document, dict) and _KEYS & document.keys():
            found.config = document
            return found
        documents = [document]
    _search(documents, found)
    if found.config is None and not found.environment:
        if not isinstance(documents[0] if len(documents) == 1 else None, dict) or text.lstrip()[:1] != "{":
            raise ConfigurationError(
                f"not {_WHAT}: there is none in it, as text in a ConfigMap or as values, and no environment of one"
            )
        found.config = documents[0]  # in which much is missing
    return found


def _documents(text: str) -> list[Any]:
    try:
        return [*yaml.safe_load_all(text)]
    except (yaml.YAMLError, *_OF_TAGS, RecursionError) as error:
        place = getattr(error, "problem_mark", None)
        where = f", line {place.line + 1}" if place is not None else ""
        why = _hint(text) or getattr(error, "problem", None) or type(error).__name__
        raise ConfigurationError(f"not {_WHAT}, nor YAML that holds one{where}: {one_line(str(why))}") from None


def _hint(text: str) -> str:
    return "it is a template: print what it becomes with `helm template`, and import that" if "{{" in text else ""


def _bounded(value: Any) -> None:
    """Raises ConfigurationError for what no person wrote, and who looks at all of it would not come to an end."""
    count = 0
    within: list[tuple[Any, int]] = [(value, 0)]
    while within:
        value, depth = within.pop()
        count += 1
        digits = isinstance(value, int) and value.bit_length() > _LONGEST
        if depth > _DEEPEST or count > _MOST or digits:
            raise ConfigurationError(f"not {_WHAT}: it has too many values, too long ones, or too many in each other")
        if isinstance(value, dict | list):
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            within += [(each, depth + 1) for each in parts]


def _place(path: str) -> str:
    return one_line(path) or "the top of the file"


def _search(documents: list[Any], found: Found) -> None:
    configs = [each for document in documents for each in _configs(document, "")]
    named = [each for each in configs if _OURS.search(each[0])]
    chosen = named if len(configs) > 1 and named else configs
    if len(chosen) > 1:
        raise ConfigurationError(
            f"the file holds {len(chosen)} configurations, {', '.join(_place(path) for path, _ in chosen)}: put the "
            "one to import into a file of its own"
        )
    if chosen:
        path, found.config = chosen[0]
        found.notes.append(f"read from {_place(path)}")
    blocks = [each for document in documents for each in _environments(document, "")]
    ours = [each for each in blocks if _OURS.search(each[0]) or any(_OURS.search(name) for name in each[1])]
    for path, values in ours or (blocks if len(blocks) == 1 else []):
        found.notes.append(f"the environment is that of {_place(path)}")
        for name, value in values.items():
            if value is None:
                found.notes.append(
                    f"{one_line(name)} comes from a secret or another object: its value is not known here"
                )
            else:
                found.environment[name] = value


def _configs(value: Any, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every configuration in a document, with its place."""
    if isinstance(value, str) and value.lstrip()[:1] == "{":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            if len(_KEYS & set(re.findall(r'"(\w+)"', value))) >= 2:
                raise ConfigurationError(f"{_place(path)} is not JSON: {_hint(value) or error}") from None
            return
        _bounded(value)
    if isinstance(value, dict):
        if len(_KEYS & value.keys()) >= 2:
            yield path, value
            return
        for key, each in value.items():
            yield from _configs(each, f"{path}.{_name(key, each)}".lstrip("."))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _configs(each, f"{path}[{_name(number, each)}]")


def _environments(value: Any, path: str) -> Iterator[tuple[str, dict[str, str | None]]]:
    """Every environment of a container in a document, with its place; None for values that stand elsewhere.

    The data of a ConfigMap are one, too, if their names are those of variables: for envFrom.
    """
    if isinstance(value, dict):
        for key, each in value.items():
            named = key == "data" and isinstance(each, dict) and all(map(_VARIABLE.fullmatch, map(str, each)))
            block = _environment(each) if named or key in ("env", "environment") else None
            if block:
                yield path, block
            else:
                yield from _environments(each, f"{path}.{_name(key, each)}".lstrip("."))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from _environments(each, f"{path}[{_name(number, each)}]")


def _environment(value: Any) -> dict[str, str | None]:
    """As compose has it, a mapping or a list of NAME=VALUE, or as Kubernetes: a list of name and value."""
    if isinstance(value, dict):
        return {str(name): _text(each) for name, each in value.items()}
    block: dict[str, str | None] = {}
    for each in value if isinstance(value, list) else ():
        if isinstance(each, str):
            name, found, rest = each.partition("=")
            block[name] = rest if found else None
        elif isinstance(each, dict) and isinstance(each.get("name"), str):
            block[each["name"]] = _text(each.get("value")) if "value" in each or "valueFrom" not in each else None
    return block


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return ""
    return str(value) if isinstance(value, str | int | float) else None


def _name(key: object, value: object) -> str:
    """Of a member, for its path: of a list the name that it has."""
    if isinstance(key, int) and isinstance(value, dict):
        metadata = value.get("metadata")
        named = value.get("name") or (metadata.get("name") if isinstance(metadata, dict) else None)
        return str(named) if isinstance(named, str) else str(key)
    return str(key)


def _assigned(line: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(line)
    assert match is not None
    name, value = match.groups()
    if value[:1] in ("'", '"'):
        try:
            return name, "".join(shlex.split(value, comments=True))
        except ValueError:
            return name, value
    return name, value.partition(" #")[0].strip()
