"""GELF in a structured CloudEvent, as syslog receivers publish it, when every value has its expected type."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from eventwriter.values import INT4_MAX, INT4_MIN, time_from_seconds
from workers._json.fast import Arrivals, Columns, members_of, received
from workers._json.secrets import all_masked

_ABSENT = msgspec.Raw(b"")


class Gelf(msgspec.Struct, gc=False):
    """The fields that fill columns, and those that would compete with one; ``raw_data`` has all others."""

    version: str
    short_message: str
    timestamp: float
    host: str | None = None
    level: Annotated[int, msgspec.Meta(ge=INT4_MIN, le=INT4_MAX)] | None = None
    severity: str | None = None
    remote: str | None = msgspec.field(name="_remote_addr", default=None)
    remote_addr: msgspec.Raw = _ABSENT
    camel_remote_addr: msgspec.Raw = msgspec.field(name="remoteAddr", default=_ABSENT)


class GelfEvent(msgspec.Struct, gc=False):
    """The envelope."""

    specversion: str
    id: str
    data: Gelf
    source: str = ""
    type: str | None = None
    datacontenttype: str | None = None
    subject: str | None = None


_members, _gelf_members = members_of(GelfEvent), members_of(Gelf)


def columns_of(arrivals: Arrivals, records: Sequence[GelfEvent], odd: set[int]) -> Columns:
    """The columns of such events."""
    event = _members(records)
    gelf = _gelf_members(event["data"])
    subjects, payloads, _ = arrivals
    times = [*map(time_from_seconds, gelf["timestamp"])]
    ids, others = event["id"], (gelf["remote_addr"], gelf["camel_remote_addr"])
    bad_subjects = {each for each in {*subjects} if "otel" in each or "netflow" in each or "\0" in each}
    if None in times or not all(ids) or bad_subjects or any(other.count(_ABSENT) < len(other) for other in others):
        for place, (time, name, subject, *raws) in enumerate(zip(times, ids, subjects, *others, strict=True)):
            if time is None or not name or subject in bad_subjects or any(raw is not _ABSENT for raw in raws):
                odd.add(place)
    return {
        **event,
        **gelf,
        "event_timestamp": times,
        "subject": [about or subject for about, subject in zip(event["subject"], subjects, strict=True)],
        "remote_addr": gelf["remote"],
        "raw_data": [*map(bytes.decode, all_masked(payloads))],
        "received_at": received(arrivals),
    }
