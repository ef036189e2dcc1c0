"""NATS subjects: which patterns are well formed, what they match, and how two of them relate.

Tokens are separated by dots; ``*`` stands for one token, ``>`` at the end for one or more
(https://docs.nats.io/nats-concepts/subjects).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def invalid(pattern: str) -> str | None:
    """Why ``pattern`` cannot filter subjects; None if it can."""
    tokens = pattern.split(".")
    if not pattern:
        return "it is empty"
    if not pattern.isprintable() or " " in pattern:
        return "it contains white space or control characters"
    if "" in tokens:
        return "it has an empty token"
    if ">" in tokens[:-1]:
        return "'>' may only be the last token"
    # The server takes "a*" literally; whoever writes it means something else.
    if any(len(token) > 1 and ("*" in token or ">" in token) for token in tokens):
        return "'*' and '>' must be whole tokens"
    return None


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether ``pattern`` matches the literal ``subject``."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        wanted = wanted[:-1]
        if len(tokens) <= len(wanted):
            return False
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in ("*", token) for w, token in zip(wanted, tokens, strict=True))


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A function that says whether any of ``patterns`` matches a subject; made once, cheap per call."""
    given = set(patterns)
    wild = sorted(pattern for pattern in given if {"*", ">"} & set(pattern.split(".")))
    literal = frozenset(given.difference(wild))
    if not wild:
        return literal.__contains__
    found = re.compile("|".join(map(_expression, wild)), re.DOTALL).fullmatch
    return lambda subject: subject in literal or found(subject) is not None


def _expression(pattern: str) -> str:
    wild = {"*": r"[^.]*", ">": r".*"}
    tokens = pattern.split(".")
    last = len(tokens) - 1
    return r"\.".join(
        re.escape(token) if token == ">" and i < last else wild.get(token) or re.escape(token)
        for i, token in enumerate(tokens)
    )


def overlap(one: str, other: str) -> bool:
    """Whether some subject matches both patterns; a consumer's filters must not overlap."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)


def apart(patterns: Iterable[str]) -> tuple[str, ...]:
    """Patterns that match all that these match, and do not overlap, as a stream's subjects must not.

    What is covered by another is left out, and two that overlap otherwise are replaced by one that covers both.
    """
    found: list[str] = []
    for pattern in patterns:
        whole = pattern
        while clash := next((each for each in found if overlap(each, whole)), None):
            found.remove(clash)
            whole = _both(clash, whole)
        found.append(whole)
    return tuple(found)


def _both(one: str, other: str) -> str:
    """The narrowest pattern that covers two which overlap."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    tokens = [a if a == b else ">" if ">" in (a, b) else "*" for a, b in pairs]
    return ".".join(tokens[: tokens.index(">") + 1] if ">" in tokens else tokens)


def covers(wide: str, narrow: str) -> bool:
    """Whether ``wide`` matches every subject that ``narrow`` matches."""
    left, right = wide.split("."), narrow.split(".")
    for a, b in zip(left, right, strict=False):
        if a == ">":
            return True
        if b == ">" or a not in ("*", b):
            return False
    return len(left) == len(right)
