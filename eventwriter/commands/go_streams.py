"""[streams] from a db-event-writer configuration: which of its subjects go to which stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

from eventwriter.commands import go_json
from eventwriter.config import kinds, subjects
from eventwriter.config.rendering import toml

TABLES = {
    "timeseries_metrics": "TELEMETRY",
    "events": "EVENTS",
    "sweep_host_states": "SWEEP",
    "netflow_metrics": "NETFLOW",
    "otel_metrics": "OTEL_METRICS",
    "otel_traces": "OTEL_TRACES",
    "logs": "LOGS",
}
"""The stream that writes each table the Go writer may name."""

# What later Go writers make of these subjects by themselves.
_WIDENED = {
    **dict.fromkeys(("otel.traces", "otel.traces.raw"), ("otel.traces", "otel.traces.raw")),
    **dict.fromkeys(("otel.metrics", "otel.metrics.raw"), ("otel.metrics", "otel.metrics.>")),
}


def streams(source: Mapping[str, Any], notes: list[str]) -> list[str]:
    """The lines of every [streams.NAME]; appends to ``notes`` what a person has to look at."""
    taken, left = _subjects_by_stream(source, notes)
    stream, consumer = go_json.text(source, "stream_name"), go_json.text(source, "consumer_name")
    if not go_json.valid(kinds.NAME, stream):
        notes.append("stream_name is missing or no JetStream name: set stream in each [streams.…]")
        stream = ""
    if not go_json.valid(kinds.NAME, consumer):
        notes.append("consumer_name is missing or no JetStream name: consumers get the names eventwriter gives them")
        consumer = ""
    lines = []
    for name in sorted(TABLES.values()):
        lines.append(f"[streams.{name}]")
        if name in taken:
            table, patterns = taken[name]
            lines += [f"stream = {toml(stream)}"] if stream else []
            lines += [f"durable = {toml(f'{consumer}-{name.lower()}')}"] if consumer else []
            lines += [f"subjects = {toml(patterns)}", f"table = {toml(table)}"]
            lines += [f"exclude = {toml(left[name])}"] if name in left else []
        else:
            lines.append("enabled = false")
        lines.append("")
    if taken:
        notes.append(
            f"each stream gets a durable consumer of its own; the old consumer {toml(consumer) if consumer else ''} is "
            "neither used nor deleted. A new consumer begins with the oldest message that JetStream still holds, so "
            "what the Go writer has written and the stream still holds is written once more: stop the Go writer when "
            "it is up to date, and purge the stream or expect those rows twice. Delete the old consumer yourself when "
            "nothing needs it"
        )
    else:
        notes.append("no subject goes to a table that eventwriter writes: all streams are disabled")
    return lines[:-1]


def _subjects_by_stream(
    source: Mapping[str, Any], notes: list[str]
) -> tuple[dict[str, tuple[str, list[str]]], dict[str, list[str]]]:
    """Table and subjects of each stream that the file mentions, and the subjects that a stream leaves to others."""
    taken: dict[str, tuple[str, list[str]]] = {}
    given: dict[str, str] = {}
    for subject, table in _pairs(source, notes):
        name = TABLES.get(table.rpartition(".")[2])
        reason = subjects.invalid(subject)
        if name is None or not go_json.valid(kinds.TABLE, table):
            notes.append(f"subject {toml(subject)} is left out: no stream of eventwriter writes a table {toml(table)}")
            continue
        if reason:
            notes.append(f"subject {toml(subject)} of table {toml(table)} is left out: {reason}")
            continue
        target, patterns = taken.setdefault(name, (table, []))
        if target != table:
            notes.append(f"subject {toml(subject)} goes to {toml(target)}, not {toml(table)}: one stream has one table")
        for pattern in _WIDENED.get(subject, (subject,)):
            clash = _add(patterns, pattern)
            if clash is not None:
                notes.append(f"subject {toml(pattern)} is left out: it overlaps {toml(clash)} of the same stream")
        given.setdefault(subject, name)
    for name, (_, patterns) in taken.items():
        more = [pattern for pattern in patterns if pattern not in given]
        if more:
            notes.append(f"streams.{name}.subjects has {toml(more)} as well, which later Go writers take by themselves")
    excluded = _leave(given, taken)
    notes += [
        f"streams.{name} leaves {toml(patterns)} to the stream with whose entry they begin, as the Go writer does"
        for name, patterns in excluded.items()
    ]
    for (one, (_, left)), (other, (_, right)) in combinations(taken.items(), 2):
        notes += [
            f"{toml(a)} of {one} and {toml(b)} of {other} have subjects in common: both streams write those messages"
            for a, b in product(left, right)
            if subjects.overlap(a, b) and a not in excluded.get(other, ()) and b not in excluded.get(one, ())
        ]
    return taken, excluded


def _leave(given: Mapping[str, str], taken: Mapping[str, tuple[str, list[str]]]) -> dict[str, list[str]]:
    """Lets streams leave to others what their wildcards take of it: of the entries of its file the Go writer takes the
    one that a message's subject is, or begins with, before it asks which wildcard it came by."""
    excluded: dict[str, list[str]] = {}
    for (wide, name), (subject, owner) in product(given.items(), given.items()):
        below = f"{subject}.>"
        if name != owner and {"*", ">"}.isdisjoint(subject.split(".")) and not {"*", ">"}.isdisjoint(wide.split(".")):
            own = any(other == name and subjects.covers(below, each) for each, other in given.items())
            if subjects.overlap(wide, below) and _add(taken[owner][1], below) is None and not own:
                excluded.setdefault(name, []).append(below)
            if subjects.overlap(wide, subject):
                excluded.setdefault(name, []).append(subject)
    return {name: [*dict.fromkeys(patterns)] for name, patterns in excluded.items()}


def _add(patterns: list[str], pattern: str) -> str | None:
    """Adds a filter, which takes the place of what it covers; the one with which it cannot be in one consumer."""
    if any(subjects.covers(each, pattern) for each in patterns):
        return None
    others = [each for each in patterns if not subjects.covers(pattern, each)]
    clash = next((each for each in others if subjects.overlap(each, pattern)), None)
    if clash is None:
        patterns[:] = [*others, pattern]
    return clash


def _pairs(source: Mapping[str, Any], notes: list[str]) -> Iterator[tuple[str, str]]:
    listed = source.get("streams")
    if not isinstance(listed, list) or not listed:
        listed = [source] if go_json.text(source, "subject") else []
    for number, item in enumerate(listed, start=1):
        if isinstance(item, dict) and go_json.text(item, "subject") and go_json.text(item, "table"):
            yield go_json.text(item, "subject"), go_json.text(item, "table")
        else:
            notes.append(f"entry {number} of streams is left out: it lacks a subject or a table")
