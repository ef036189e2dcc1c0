"""What `check` says of a service that runs with these settings: how long its batches took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from eventwriter.commands import running
from eventwriter.commands.findings import Finding
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.config.units import format_duration
from eventwriter.errors import EventWriterError
from eventwriter.observability.board import BATCH_BUCKETS

_PATIENCE = 2.0


def look(settings: Config, findings: list[Finding]) -> None:
    """Adds what it finds; nothing if no service runs."""
    try:
        service = replace(running.Service.of(settings.http, None), patience=_PATIENCE)
        document = running.fetch(service)
    except EventWriterError:
        return
    for name, each in document["streams"].items():
        stream = settings.streams.get(name)
        if stream is not None and stream.enabled:
            findings.extend(written(stream, each.get("batch_durations") or {}))


def written(stream: StreamConfig, durations: Mapping[str, Sequence[int]]) -> Iterator[Finding]:
    """What to tell if batches of a stream took as long as ``ack_wait``, by the histogram of each stage."""
    longest = max((_longest(durations.get(stage) or ()) for stage in ("decode", "copy", "commit")), default=0.0)
    wait = stream.writer.ack_wait
    if longest >= wait:
        text = f"batches of the running service took more than {format_duration(longest)} to write, and ack_wait is "
        remedy = f"raise streams.{stream.name}.ack_wait, or lower streams.{stream.name}.batch_messages"
        why = "while nobody could extend it, JetStream delivered them again"
        yield Finding(stream.name, f"{text}{format_duration(wait)}: {why}; {remedy}", warning=True)


def _longest(counts: Sequence[int]) -> float:
    """A time that some batch took at least."""
    reached = [bound for bound, count in zip((0.0, *BATCH_BUCKETS), counts, strict=False) if count]
    return max(reached, default=0.0)
