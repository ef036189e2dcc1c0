"""Why a service is not well: each cause once, however many streams it stops, and since when."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eventwriter.errors import listed
from eventwriter.outage import general

_DAY = 20 * 3600.0
"""Seconds after which the time of the day alone does not tell when something began."""

Began = dict[str, float]
"""Of each stream that is not being written: since when, by the monotonic clock."""


def follow(began: Began, streams: Mapping[str, Mapping[str, Any]]) -> Began:
    """Notes which streams are in trouble now, and tells them: since when, whatever becomes of it until it is over.

    Threads may share ``began``: whatever takes more than one step of the interpreter may meet a change of another's.
    """
    for name in list(began):
        if not streams.get(name, {}).get("reason"):
            began.pop(name, None)
    return {name: began.setdefault(name, time.monotonic()) for name, stream in streams.items() if stream["reason"]}


def grouped(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The problems of a status document, those of one cause as one: which streams, what, and since when."""
    streams = document["streams"]
    groups: dict[tuple[bool, str], list[Mapping[str, Any]]] = {}
    for problem in document["problems"]:
        stream = streams.get(problem["stream"], {})
        own = (problem["stream"], stream.get("stream"), stream.get("durable"))
        text = general(problem["text"], map(str, filter(None, own)))
        # Of those that one cause stops, some are waiting at this moment and others about to try again.
        groups.setdefault((stream.get("state") == "parked", text), []).append(problem)
    return [_cause(text, problems, streams) for (_, text), problems in groups.items()]


def lines(document: Mapping[str, Any], *, alone: bool = True) -> Iterator[tuple[str, str]]:
    """Whom each cause stops, and what a person reads of it; without ``alone`` that of one stream is the bare reason."""
    causes: Sequence[Mapping[str, Any]] = document["causes"] if "causes" in document else grouped(document)
    for cause in causes:
        since, text = cause["since"], cause["text"]
        dated = since and (alone or len(cause["streams"]) > 1)
        yield cause["who"], f"{text}, since {clock(since, document['now'])}" if dated else text


def clock(moment: float, now: float) -> str:
    """The time of the day on this machine, as the log has it; with the day if that was another one."""
    return time.strftime("%H:%M:%S" if now - moment < _DAY else "%Y-%m-%d %H:%M:%S", time.localtime(moment))


def _cause(shared: str, problems: Sequence[Mapping[str, Any]], streams: Mapping[str, Any]) -> dict[str, Any]:
    names = [problem["stream"] for problem in problems]
    texts = {problem["text"] for problem in problems}
    everybody = 1 < len(streams) == len(names)
    return {
        "who": f"all {len(streams)} streams" if everybody else listed(names),
        "streams": [name for name in names if name in streams],
        "text": texts.pop() if len(texts) == 1 else shared,
        "since": min((problem["since"] for problem in problems if problem.get("since")), default=None),
    }
