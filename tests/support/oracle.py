"""What must be found of a message: each of its leaves, with its name. Shares nothing with the decoders.

A leaf of a record is a value that is neither an object nor a list, with the names that lead to it. It is found if some
column of the record's row, or some place in the JSON that a column holds, has that value under that name, or under the
one that ``ALIASES`` has for the column. A value may have another form there, as long as it can be told from it: a
number as text, a time as microseconds, text without the characters that PostgreSQL does not take.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from eventwriter.stream import Decoded, Stream

Leaf = tuple[tuple[str, ...], Any]
"""Its names, from the outermost, and its value: text, a Number, a bool or None."""


class Number(str):
    """A number as it is written in JSON, with all its digits."""

    __slots__ = ()


class _Moment(NamedTuple):
    """A timestamptz."""

    micros: int


_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_BETWEEN = 946_684_800
"""Seconds from 1970 to 2000."""
_RENAMED = re.compile(r"(?:(?:record|original|outer)\.)+")
_HEX = re.compile("[0-9a-fA-F]+")
_UNSAFE = re.compile("[\0\ud800-\udfff]")

ALIASES: Mapping[str, Mapping[str, str]] = {
    "TELEMETRY": {"pollerid": "gatewayid", "name": "metricname", "type": "metrictype"},
    "EVENTS": {},
    "SWEEP": {
        "ip": "hostip", "host": "hostip", "pollerid": "gatewayid", "network": "networkcidr",
        "lastsweep": "lastsweeptime", "portresults": "portscanresults", "available": "icmpavailable",
        "roundtrip": "icmpresponsetimens", "packetloss": "icmppacketloss",
    },
    "NETFLOW": {
        "pollerid": "gatewayid", "sourceaddress": "srcaddr", "destinationaddress": "dstaddr", "sourceport": "srcport",
        "destinationport": "dstport", "proto": "protocol", "bytes": "octets", "inif": "inputsnmp",
        "outif": "outputsnmp", "inputsnmp": "inif", "outputsnmp": "outif",
    },
    "LOGS": {
        "timeunixnano": "timestamp", "@timestamp": "timestamp", "time": "timestamp", "ts": "timestamp",
        "observedtimeunixnano": "observedtimestamp", "message": "body", "msg": "body", "summary": "body",
        "shortmessage": "body", "event": "body", "log": "body", "varbinds": "body", "service": "servicename",
        "applicationname": "servicename", "appname": "servicename", "host": "servicename",
        "serviceinstanceid": "serviceinstance", "scope": "scopename", "level": "severitytext",
        "severity": "severitytext", "resource": "resourceattributes", "traceflags": "flags",
    },
    "OTEL_TRACES": {
        "spanname": "name", "spankind": "kind", "traceflags": "flags", "resource": "resourceattributes",
        "starttimeunixnano": "timestamp", "endtimeunixnano": "timestamp", "code": "statuscode",
        "message": "statusmessage", "serviceinstanceid": "serviceinstance",
    },
    "OTEL_METRICS": {
        "name": "spanname", "metricname": "spanname", "resource": "resourceattributes",
        "serviceinstanceid": "serviceinstance", "timeunixnano": "timestamp", "starttimeunixnano": "starttimestamp",
        "asint": "valueint", "asdouble": "value", "aggregationtemporality": "temporality",
    },
}  # fmt: skip
"""Names of records → the column that they mean, both as ``_plain`` has them."""


def leaves(value: Any, names: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Each leaf of a JSON value; the elements of a list have its name."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*names, name))
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, names)
    else:
        yield names, value


def dumps(value: Any) -> str:
    """The JSON of a value, its numbers as they are written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{dumps(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dumps, value)) + "]"
    return json.dumps(value)


def lost(stream: Stream, records: Sequence[Sequence[Leaf]], shared: Sequence[Leaf], decoded: Decoded) -> list[Leaf]:
    """The leaves that are in no row, in no reject, and were not repaired either with the original kept.

    ``records`` has those of each record, in the order of the message, and ``shared`` what stands around them: that must
    be in the row of one record at least.
    """
    if any(reject.record_index is None for reject in decoded.rejects):
        return []
    assert len(records) == len(decoded.rows) + len(decoded.rejects), "a record is neither a row nor a reject"
    rejected = {reject.record_index for reject in decoded.rejects}
    rows = iter(decoded.rows)
    missing: list[Leaf] = []
    everywhere: list[Leaf] = []
    for index, record in enumerate(records):
        if index not in rejected:
            places = [*_places(stream, next(rows))]
            everywhere += places
            missing += [leaf for leaf in record if not _is_found(stream.name, leaf, places)]
    if rejected:  # whose dead letter has the whole payload
        return missing
    return missing + [leaf for leaf in shared if not _is_found(stream.name, leaf, everywhere)]


def _places(stream: Stream, row: tuple[Any, ...]) -> Iterator[Leaf]:
    """All that a row holds: the values of its columns, and those in the JSON of these, in text as well."""
    for column, value in zip(stream.columns, row, strict=True):
        if value is None:
            continue
        if column.type == "timestamptz":
            yield (column.name,), _Moment(value)
        elif column.type == "jsonb":
            yield from _opened(leaves(_parsed(value.decode()), (column.name,)))
        else:
            number = isinstance(value, int | float) and not isinstance(value, bool)
            text = repr(value).replace("inf", "Infinity").replace("nan", "NaN")
            yield from _opened([((column.name,), Number(text) if number else value)])


def _opened(found: Iterable[Leaf]) -> Iterator[Leaf]:
    """Leaves, and what is in the texts among them that are JSON."""
    for names, value in found:
        yield names, value
        if isinstance(value, str):
            text = value
            if names[-1] == "data_base64":
                octets = base64.b64decode(value)
                text = (zlib.decompress(octets, 47) if octets[:1] in b"\x1fx" else octets).decode()
            if text.lstrip("\ufeff \t\r\n")[:1] in ("{", "["):
                yield from _opened(leaves(_parsed(text), names))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text.removeprefix("\ufeff"), parse_int=Number, parse_float=Number)
    except ValueError:
        return None


def _is_found(stream: str, leaf: Leaf, places: Sequence[Leaf]) -> bool:
    names, value = leaf
    if value is None or value == "":  # there was nothing
        return True
    if (
        any(word in names[-1].lower() for word in ("time", "severity"))
        and _decimal(str(value).replace("False", "0")) == 0
    ):  # unspecified
        return True
    wanted = {_plain(names[-1])} if names else {""}
    wanted |= {ALIASES[stream].get(name, name) for name in wanted}
    if any(_is_same(value, found) and _plain(path[-1]) in wanted for path, found in places):
        return True
    if isinstance(value, str) and value[:1] in ("{", "[") and (inner := _parsed(value)) is not None:
        return all(_is_found(stream, each, places) for each in leaves(inner, names))
    return False


def _plain(name: str) -> str:
    """A name without what differs from dialect to dialect."""
    name = _RENAMED.sub("", name)
    return re.sub(r"[._\s-]", "", _UNSAFE.sub("\ufffd", name)).lower() or name


def _is_same(given: Any, found: Any) -> bool:
    """Whether a value is still there in what was found."""
    if isinstance(found, _Moment):
        return found.micros in _moments(given)
    if isinstance(given, bool):
        return found is given or str(found).lower() in (str(given).lower(), str(int(given)), f"{int(given)}.0")
    if isinstance(found, bool):
        return str(given).strip().lower() in (str(found).lower(), str(int(found)), f"{int(found)}.0")
    if found is None:
        return False
    text = str(given)
    if text == found or _UNSAFE.sub("\ufffd", text) == found or (text.lower() == found and _HEX.fullmatch(text)):
        return True
    if isinstance(given, Number) and found.count(":") == 5:  # a MAC address
        return text.isdigit() and f"{int(text):012x}" == found.replace(":", "")
    numbers = _decimal(text), _decimal(found)
    return None not in numbers and numbers[0] == numbers[1]


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text.strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _moments(given: Any) -> Iterator[int]:
    """What a value may mean as a time, in microseconds since 2000."""
    number = _decimal(str(given))
    if number is not None and not isinstance(given, bool) and abs(number) < 10**30:
        for unit in (1_000_000, 1000, 1, Decimal("0.001")):
            yield int((number * unit).to_integral_value("ROUND_FLOOR")) - _BETWEEN * 1_000_000
    elif isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given.strip().upper().replace(":60", ":59"))
        except ValueError:
            return
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        yield (moment - _EPOCH) // timedelta(microseconds=1) + 1_000_000 * (":60" in given)
