"""Writes docs/columns.md: what fills each column of the seven streams, as their declarations and decoders have it.

Declared are names and types. The rest is asked of the decoders: which columns a record with one field more fills, and
what becomes of one with a value that does not fit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any

import probes
from eventwriter import registry
from eventwriter.stream import Decoded, Message, Stream
from probes import Probe, dumped
from workers._flow.json_form import TABLE as FLOWS
from workers._flow.json_form import TIMES
from workers._json.table import Table
from workers._otlp.logs_flat import TABLE as LOGS

_SECOND = {"NETFLOW": "FlowMessage", "EVENTS": "CloudEvent", "LOGS": "OTLP", "OTEL_METRICS": "OTLP",
           "OTEL_TRACES": "OTLP"}  # fmt: skip
_MINIMAL: Mapping[str, dict[str, Any]] = {
    "TELEMETRY": {"value": 1.5},
    "SWEEP": {"host_ip": "10.0.0.1"},
    "NETFLOW": {"octets": 1},
    "OTEL_METRICS": {"span_name": "s", "metric_type": "span"},
    "OTEL_TRACES": {"name": "s"},
    "LOGS": {"k": 1},
    "EVENTS": {"k": 1},
}
"""A record with as little as there must be, and something that has no column."""
_INSTEAD: Mapping[str, dict[str, Any]] = {
    "NETFLOW": {"src_port": 1},
    "OTEL_METRICS": {"value": 1.5},
    "OTEL_TRACES": {"trace_id": "0a" * 16},
}
"""Another one, for the columns of the first."""
_MISSING = {
    ("EVENTS", "id"): "sequence, time and place",
    ("EVENTS", "subject"): "that of the message",
    ("EVENTS", "raw_data"): "the whole record",
    ("LOGS", "source"): "from the subject",
    ("OTEL_METRICS", "series_key"): "tells series apart",
}
"""Instead of the value, which is another one for each record."""
_ABOUT = {
    "EVENTS": "GELF is flat JSON. SNMP traps, state changes, device lifecycles and OCSF have severity, host and message"
    " in keys of their own, which are known as well.",
    "LOGS": "GELF is flat JSON; of an SNMP trap the body is the first text of its varbinds.",
    "OTEL_METRICS": "`metric_type` of OTLP is the kind of the metric, whose name may be empty. Durations are filled"
    " from values in a unit of time.",
    "SWEEP": "A summary with `hosts` is a record for each of them, with what it says of all.",
}

_HEAD = """\
# Columns

What fills each column of the seven streams: written by `scripts/reference` from the declarations in `workers/`, and
from what the decoders make of records with one field more. Of several names the first that is there and not null wins,
and a column's own name may be in lowerCamelCase. A record may be a CloudEvent's data.

In OTLP, `resource.`, `scope.` and `point.` are the resource, the scope and the data point; what stands alone is a field
of the log record, the span or the metric.

- *Missing*: what the column holds without a value; an empty cell is NULL.
- *Does not fit*: what becomes of a value of another type or beyond the range. It is counted by its reason in
  `values_repaired_total` and kept as it came where all else is kept; or the record is a [dead letter](dead-letters.md).
- ○: a table of others may [lack it](guarantees.md#the-table-is-what-the-worker-takes-it-for).

Times are ISO 8601, or numbers since 1970 in seconds to nanoseconds, told apart by their size unless the name has the
unit; columns keep microseconds. Numbers may be texts and texts numbers, `true` is a 1 and `false` a 0; JSON may be a
text that holds it.
"""


def document() -> str:
    """The page."""
    return "\n".join([_HEAD, *(_Page(stream).section() for stream in registry.load().values())])


class _Page:
    """What is to be told of a stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.table = _table(stream)
        self.minimal = _MINIMAL[stream.name]
        self.instead = _INSTEAD.get(stream.name, {})
        self.rest = next(name for name in ("raw_data", "metadata", "attributes") if name in self.table.at)

    def section(self) -> str:
        """Heading and table."""
        stream = self.stream
        plain, second = self.filled(self.flat()), self.filled(self.second())
        heads = ["column", "type", "JSON", *filter(None, [_SECOND.get(stream.name)]), "missing", "does not fit"]
        subjects = ", ".join(f"`{subject}`" for subject in stream.subjects)
        about = f"{subjects} into `{stream.table}`, all else into `{self.rest}`. {_ABOUT.get(stream.name, '')}".strip()
        if rejects := self.decoded(b"{}").rejects:
            about += f" An empty record is a dead letter: {rejects[0].detail}."
        lines = [f"## {stream.name}\n", f"{about}\n", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for place, column in enumerate(stream.columns):
            name, names = column.name, plain[column.name]
            cells = [f"`{name}`{'' if column.core else ' ○'}", column.type, _code(names)]
            if stream.name in _SECOND:
                cells.append(_code(second[name]))
            taken = next((each for each in names if each == name), next(iter(names), None))
            misfit = self.misfit(place, taken) if taken is not None and name != self.rest else ""
            lines.append(f"| {' | '.join([*cells, self.missing(place), misfit])} |")
        return "\n".join([*lines, ""])

    def flat(self) -> Iterator[Probe]:
        """Probes in JSON."""
        if self.stream.name == "EVENTS":
            return probes.events(self.minimal)
        return probes.flat(self.table, self.minimal, TIMES if self.table is FLOWS else ())

    def second(self) -> Iterator[Probe]:
        """Probes in the other encoding."""
        name = self.stream.name
        if name == "EVENTS":
            return probes.wrapped()
        if name == "NETFLOW":
            return probes.flows()
        return probes.requests(name) if name in _SECOND else iter(())

    def decoded(self, payload: bytes) -> Decoded:
        """What a payload becomes."""
        subject = self.stream.subjects[0].removesuffix(".>") + ".sent"
        return self.stream.decode(Message(subject, payload, 4711, probes.RECEIVED))

    def filled(self, given: Iterable[Probe]) -> dict[str, list[str]]:
        """The fields that fill each column."""
        found: dict[str, list[str]] = {column.name: [] for column in self.stream.columns}
        for name, without, payload in given:
            whole = name.partition(":")[0]
            (base,) = self.decoded(without).rows
            for row in self.decoded(payload).rows:
                for column, before, now in zip(found, base, row, strict=True):
                    is_other = column in (self.rest, "series_key") and whole not in (column, f"point.{column}")
                    if before != now and not is_other and not {name, whole} & {*found[column]}:
                        found[column].append(name)
        return found

    def missing(self, place: int) -> str:
        """What a record without a value for the column has there."""
        column = self.stream.columns[place]
        if told := _MISSING.get((self.stream.name, column.name)):
            return told
        if column.name == self.rest:
            return "all else"
        decoded = self.decoded(dumped(self.base(place)))
        if decoded.rejects:
            return f"dead letter `{decoded.rejects[0].reason}`"
        value = decoded.rows[0][place]
        if value is None:
            return ""
        if column.type == "timestamptz":
            return "when JetStream received it"
        text = value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else json.dumps(value)
        return f"`{text}`" if text else "empty"

    def misfit(self, place: int, name: str) -> str:
        """What becomes of values that are not the column's."""
        kind = self.stream.columns[place].type
        if kind == "jsonb":
            return ""
        other = self.outcome(place, name, [{"z": 1}] if kind == "text" else "zz")
        beyond = self.outcome(place, name, 2**70) if kind in ("integer", "bigint") else other
        return other if beyond == other else f"{other}; beyond the range {beyond}"

    def outcome(self, place: int, name: str, value: Any) -> str:
        """What becomes of one value."""
        base = self.base(place)
        decoded = self.decoded(dumped({**base, name: value}))
        if decoded.rejects:
            return f"dead letter `{decoded.rejects[0].reason}`"
        without, found = self.decoded(dumped(base)), decoded.rows[0][place]
        reason = "".join(f", `{each}`" for each in decoded.repairs[:1])
        if self.stream.columns[place].name == "series_key" or (without.rows and found == without.rows[0][place]):
            return f"{'NULL' if found is None else 'as if missing'}{reason}"
        return f"NULL{reason}" if found is None else f"`{found}`{reason}" if reason else "as JSON"

    def base(self, place: int) -> dict[str, Any]:
        """A record without a value for the column."""
        names = {*self.table.fields[place].names, self.table.fields[place].name}
        return self.instead if names & {*self.minimal} else self.minimal


def _table(stream: Stream) -> Table:
    found = {"LOGS": LOGS, "NETFLOW": FLOWS}.get(stream.name)
    if found is None:
        found = import_module(f"workers.{stream.name.lower()}").TABLE
    assert isinstance(found, Table)
    return found


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


if __name__ == "__main__":
    print(document(), end="")
