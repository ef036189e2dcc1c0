"""The fast paths of EVENTS: GELF in a CloudEvent, as syslog receivers publish it, and data of any other shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from orjson import dumps

from eventwriter.masking.community import all_masked
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, REPLACEMENT, Unfit, time_from_seconds, usual_times
from workers._json.event_shapes import FACTS, facts_of, level_of, timestamp_of
from workers._json.fast import Arrivals, Columns, members_of, received


class Envelope(msgspec.Struct, gc=False, kw_only=True):
    """The context attributes that have columns."""

    specversion: str
    id: str
    source: str = ""
    type: str | None = None
    datacontenttype: str | None = None
    subject: str | None = None


class _Gelf(msgspec.Struct, gc=False):
    """The fields that fill columns; ``raw_data`` has all others."""

    version: str
    short_message: str
    timestamp: msgspec.Raw
    host: str | None = None
    level: Annotated[int, msgspec.Meta(ge=INT4_MIN, le=INT4_MAX)] | None = None
    severity: str | None = None
    remote_addr: str | None = msgspec.field(name="_remote_addr", default=None)
    other_addr: str | None = msgspec.field(name="remote_addr", default=None)
    camel_addr: str | None = msgspec.field(name="remoteAddr", default=None)


class GelfEvent(Envelope, gc=False, kw_only=True):
    """A CloudEvent with GELF."""

    data: _Gelf


class AnyEvent(Envelope, gc=False, kw_only=True):
    """A CloudEvent with any object."""

    data: dict[str, Any]
    time: str | None = None


_MICROSECONDS = len("1765535400.123456")
"""A time of so many characters, or fewer, is all in a float64."""
_reals = msgspec.json.Decoder(list[float]).decode
_gelf_event, _any_event = members_of(GelfEvent), members_of(AnyEvent)
_GELF_NAMES = (*GelfEvent.__struct_fields__, *_Gelf.__struct_fields__)


def gelf_columns(arrivals: Arrivals, records: Sequence[GelfEvent], odd: set[int]) -> Columns:
    """The columns of events with GELF."""
    gelf: dict[str, Sequence[Any]] = dict(zip(_GELF_NAMES, _gelf_event(records).values(), strict=True))
    gelf["event_timestamp"] = _times(gelf["timestamp"])
    for other in (gelf["other_addr"], gelf["camel_addr"]):
        if other.count(None) < len(other):
            gelf["remote_addr"] = [b if a is None else a for a, b in zip(gelf["remote_addr"], other, strict=True)]
    return _columns(arrivals, gelf, odd)


def _times(raws: Sequence[msgspec.Raw]) -> list[int | None]:
    """Seconds since 1970 as timestamptz; None for what takes the fallback, such as more digits than float64 has."""
    joined = b",".join(raws)
    try:
        seconds = _reals(b"[%b]" % joined)  # in a tenth of the time that float takes
    except msgspec.ValidationError:
        seconds = [float(text) if text[-1:].isdigit() else 0.0 for text in map(bytes, raws)]
    times = [*map(time_from_seconds, seconds)]
    shortest = dumps(seconds)[1:-1]
    if joined != shortest:
        times = [
            time if len(text) <= _MICROSECONDS or text == short else None
            for time, text, short in zip(times, map(bytes, raws), shortest.split(b","), strict=True)
        ]
    return times


def any_columns(arrivals: Arrivals, records: Sequence[AnyEvent], odd: set[int]) -> Columns:
    """The columns of events with data of other shapes."""
    event = _any_event(records)
    facts = dict(zip(FACTS, zip(*map(_facts_or_not, event["data"]), strict=True), strict=True))
    own, outer, levels = facts.pop("time"), event["time"], [*facts.pop("level")]
    times = usual_times([outer[place] if time is None else time for place, time in enumerate(own)])
    for place, (time, level) in enumerate(zip(times, levels, strict=True)):
        repairs: list[str] = []
        if level is not None:
            levels[place] = level_of(level, repairs)
        if time is None:
            times[place] = timestamp_of(own[place], outer[place], arrivals[2][place] // 1000 - EPOCH, True, repairs)
        if repairs:
            odd.add(place)
    texts = {str, type(None)}
    for column in facts.values():
        if not texts.issuperset(map(type, column)):
            odd.update(place for place, value in enumerate(column) if type(value) not in texts)
    return _columns(arrivals, {**event, **facts, "level": levels, "event_timestamp": times}, odd)


def _facts_or_not(data: dict[str, Any]) -> tuple[Any, ...]:
    try:
        return facts_of(data, wrapped=True)
    except Unfit as error:
        return (error,) * len(FACTS)  # which is no text


def _columns(arrivals: Arrivals, columns: dict[str, Sequence[Any]], odd: set[int]) -> Columns:
    """All columns, from those that the event itself has."""
    subjects, payloads, _ = arrivals
    times, ids = columns["event_timestamp"], columns["id"]
    if None in times or not all(ids):
        odd.update(place for place, found in enumerate(zip(times, ids, strict=True)) if None in found or not found[1])
    for column in (ids, columns["source"]):
        if REPLACEMENT in "".join(column):
            odd.update(place for place, text in enumerate(column) if REPLACEMENT in text)
    if bad := {each for each in {*subjects} if "otel" in each or "netflow" in each or "\0" in each}:
        odd.update(place for place, subject in enumerate(subjects) if subject in bad)
    return {
        **columns,
        "subject": [about or subject for about, subject in zip(columns["subject"], subjects, strict=True)],
        "raw_data": [*map(bytes.decode, all_masked(payloads))],
        "received_at": received(arrivals),
    }
