"""Measures decoding alone: microseconds per message and per record, by stream and encoding, without any server.

The messages are those of the demo and of the other benchmark. The figure is the best of several rounds: other
processes only ever make a round slower.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter

from rich.console import Console
from rich.table import Table

from eventwriter import registry
from eventwriter.postgres.attempt import fast_rows
from eventwriter.stream import Message, Stream
from traffic import ENCODINGS, Traffic

NOW = 1_765_535_400_987_654_321
CHUNK = 32
"""Messages that a worker decodes in one go."""
MANY = 100
"""Records of the larger OTLP messages."""


@dataclass
class Result:
    """One stream and encoding."""

    stream: str
    encoding: str
    bytes_per_message: float
    records_per_message: float
    us_per_message: float
    us_per_record: float


def messages(stream: str, encoding: str, records: int, count: int) -> list[Message]:
    """Messages of one encoding, the same in every run."""
    traffic = Traffic(stream, only=encoding, records=records, clock=lambda: NOW / 1e9)
    made = (traffic.next() for _ in range(count))
    return [Message(p.subject, p.payload, number, NOW, p.headers) for number, p in enumerate(made, 1)]


def decode(stream: Stream, batch: Sequence[Message]) -> tuple[int, int]:
    """(rows, rejects) of messages decoded as a worker does it: some at a time, and none is kept for long."""
    rows = rejects = 0
    for start in range(0, len(batch), CHUNK):
        chunk = batch[start : start + CHUNK]
        for message, row in zip(chunk, fast_rows(stream, chunk), strict=True):
            if row is not None:
                rows += 1
                continue
            decoded = stream.decode(message)
            rows += len(decoded.rows)
            rejects += len(decoded.rejects)
    return rows, rejects


def measure(stream: Stream, encoding: str, batch: Sequence[Message], rounds: int) -> Result:
    """Decodes all messages in each round; raises SystemExit if one is rejected."""
    best = float("inf")
    rows = 0
    for _ in range(rounds):
        begun = perf_counter()
        rows, rejects = decode(stream, batch)
        best = min(best, perf_counter() - begun)
        if rejects:
            sys.exit(f"{stream.name} {encoding}: rejected a message of the benchmark")
    return Result(
        stream=stream.name,
        encoding=encoding,
        bytes_per_message=round(sum(len(message.payload) for message in batch) / len(batch), 1),
        records_per_message=round(rows / len(batch), 2),
        us_per_message=round(best / len(batch) * 1e6, 2),
        us_per_record=round(best / rows * 1e6, 2),
    )


def main() -> None:
    """Runs from the command line."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument(
        "--stream", action="append", choices=sorted(ENCODINGS), help="only this stream; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=7, help="the best of so many counts (default 7)")
    parser.add_argument("--messages", type=int, default=1000, help="messages in a round (default 1000)")
    parser.add_argument("--output", choices=["table", "json"], default="table")
    options = parser.parse_args()

    streams = registry.load()
    results = []
    for name, encodings in ENCODINGS.items():
        if name not in streams or (options.stream and name not in options.stream):
            continue
        for encoding in encodings:
            results.append(
                measure(streams[name], encoding, messages(name, encoding, 1, options.messages), options.rounds)
            )
            if encoding == "otlp":
                many = messages(name, encoding, MANY, max(1, options.messages // MANY))
                results.append(measure(streams[name], f"{encoding} × {MANY}", many, options.rounds))
    if options.output == "json":
        print(json.dumps({"results": [asdict(result) for result in results]}))
        return
    table = Table("stream", "encoding", "bytes", "records", "µs/message", "µs/record")
    for result in results:
        table.add_row(*(str(value) for value in asdict(result).values()))
    Console().print(table)


if __name__ == "__main__":
    main()
