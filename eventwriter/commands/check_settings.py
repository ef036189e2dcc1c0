"""What `check` says of the settings alone: nothing is asked of anybody."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path

from eventwriter.commands.findings import Finding, tables
from eventwriter.config import subjects
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import CONFIGURATION
from eventwriter.stream import Stream


def look(settings: Config, declared: Mapping[str, Stream], file: Path | None) -> Iterator[Finding]:
    """What is enabled, and what loads but contradicts itself."""
    streams = [stream for stream, _ in tables(settings, declared)]
    where = f"{file}" if file is not None else "no file"
    if not streams:
        remedy = "set streams.NAME.enabled = true for those that shall be written"
        yield Finding("settings", f"{where}: no stream is enabled, so nothing is written: {remedy}", warning=True)
        return
    processes = sum(stream.processes for stream in streams)
    yield Finding("settings", f"{where}: {len(streams)} streams enabled, {processes} worker processes")
    for stream in streams:
        yield from _exclusions(stream)
    yield from _shared(streams)


def _exclusions(stream: StreamConfig) -> Iterator[Finding]:
    key = f"streams.{stream.name}.exclude"
    if all(any(subjects.covers(left, pattern) for left in stream.exclude) for pattern in stream.subjects):
        text = f"{key} covers all of streams.{stream.name}.subjects, so everything is acknowledged and nothing written"
        yield Finding(stream.name, f"{text}: narrow it, or set streams.{stream.name}.enabled = false", CONFIGURATION)
        return
    for left in stream.exclude:
        if not any(subjects.overlap(left, pattern) for pattern in stream.subjects):
            what = ", ".join(stream.subjects)
            text = f"{key} has {left}, which none of the subjects ({what}) matches: correct it, or remove it"
            yield Finding(stream.name, text, warning=True)


def _shared(streams: Sequence[StreamConfig]) -> Iterator[Finding]:
    for one, other in combinations(streams, 2):
        if one.stream == other.stream and (both := twice(one, other)):
            text = f"{both} of stream {one.stream} is written by streams.{one.name} and by streams.{other.name}"
            yield Finding(other.name, f"{text}: exclude it in one of them, or expect its rows in both", warning=True)
        if one.table == other.table and one.stream == other.stream and one.subjects == other.subjects:
            text = f"streams.{one.name} and streams.{other.name} write the same messages into {one.table}"
            yield Finding(other.name, f"{text}: disable one of them", CONFIGURATION)


def twice(one: StreamConfig, other: StreamConfig) -> str:
    """What both want to write, such as ``logs.> and logs.*``; empty if no message is wanted by both."""
    for a, b in product(one.subjects, other.subjects):
        excluded = any(subjects.covers(each, a) or subjects.covers(each, b) for each in (*one.exclude, *other.exclude))
        if subjects.overlap(a, b) and not excluded:
            return a if a == b else f"what both {a} and {b} match"
    return ""
