"""GELF in a structured CloudEvent, as syslog receivers publish it, when every value has its expected type."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated

import msgspec

from eventwriter.values import INT4_MAX, INT4_MIN, time_from_seconds
from workers._json.fast import Arrivals, Columns, received
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


def columns_of(arrivals: Arrivals, records: Sequence[GelfEvent], odd: set[int]) -> Columns:
    """The columns of such events."""
    specversions, ids, gelfs, sources, types, contents, abouts = zip(*map(_members, records), strict=True)
    (versions, texts, seconds, hosts, levels, severities, remotes, *others) = zip(
        *map(_gelf_members, gelfs), strict=True
    )
    subjects, payloads, _ = arrivals
    times = [*map(time_from_seconds, seconds)]
    bad_subjects = {each for each in {*subjects} if "otel" in each or "netflow" in each or "\0" in each}
    if None in times or not all(ids) or bad_subjects or any(other.count(_ABSENT) < len(other) for other in others):
        for place, (time, name, subject, *raws) in enumerate(zip(times, ids, subjects, *others, strict=True)):
            if time is None or not name or subject in bad_subjects or any(raw is not _ABSENT for raw in raws):
                odd.add(place)
    return {
        "event_timestamp": times,
        "specversion": specversions,
        "id": ids,
        "source": sources,
        "type": types,
        "datacontenttype": contents,
        "subject": [about or subject for about, subject in zip(abouts, subjects, strict=True)],
        "remote_addr": remotes,
        "host": hosts,
        "level": levels,
        "severity": severities,
        "short_message": texts,
        "version": versions,
        "raw_data": [*map(bytes.decode, all_masked(payloads))],
        "received_at": received(arrivals),
    }


_members = attrgetter(*GelfEvent.__struct_fields__)
_gelf_members = attrgetter(*Gelf.__struct_fields__)
