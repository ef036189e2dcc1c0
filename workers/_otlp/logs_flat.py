"""Log records in JSON that is not OTLP: flat objects, GELF 1.1, SNMP traps, each one record.

The keys that are known fill columns, the first of a column's names that is there and not null; every other key is kept
among the attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from typing import Annotated, Any

import msgspec

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT8_MAX, Unfit, parse_json
from workers._json.convert import fitting, moment, packed, spread
from workers._json.fast import Arrivals, Columns, members_of, nested_json, received
from workers._json.records import Origin
from workers._json.table import Field, Table, prefer
from workers._otlp.json_values import SERVICE, attributes_of, fill_ids, fill_service, unusual
from workers._otlp.severity import BANDS, says_nothing, severity_number, severity_of

_UINT32 = (0, 2**32 - 1)
TABLE = Table(
    Field("timestamp", "timestamptz", ("time_unix_nano", "timeUnixNano", "time", "ts", "@timestamp"), own=True),
    Field("observed_timestamp", "timestamptz", ("observed_time_unix_nano", "observedTimeUnixNano"), own=True,
          core=False),
    Field("trace_id", "text", default=""),
    Field("span_id", "text", default=""),
    Field("trace_flags", "integer", own=True, core=False),
    Field("flags", "bigint", limits=_UINT32, core=False),
    Field("severity_text", "text"),
    Field("severity_number", "integer", own=True),
    Field("body", "text", ("message", "msg", "summary", "short_message", "event", "log", "varbinds"), own=True),
    Field("event_name", "text", core=False),
    Field("service_name", "text", ("service.name", "service"), default="unknown"),
    Field("service_version", "text", ("service.version",)),
    Field("service_instance", "text", ("service_instance_id", "service.instance.id")),
    Field("scope_name", "text"),
    Field("scope_version", "text"),
    Field("scope_attributes", "jsonb", ("scope.attributes",), core=False),
    Field("attributes", "jsonb", own=True),
    Field("resource_attributes", "jsonb", ("resource",), own=True),
    Field("dropped_attributes_count", "bigint", limits=_UINT32, core=False),
    Field("schema_url", "text", core=False),
    Field("resource_schema_url", "text", core=False),
    Field("source", "text", own=True, core=False),
    Field("data", "jsonb", given=False, core=False),
    others=[("scope",), ("level",), ("severity",), ("application_name", "app_name"), ("host",)],
)  # fmt: skip
_PLACES, _AT = TABLE.places, TABLE.at
(_TIME, _OBSERVED, _TRACE, _SPAN, _TRACE_FLAGS, _FLAGS, _SEVERITY, _NUMBER, _BODY, _, _SERVICE, _, _, _SCOPE, _, _,
 _ATTRIBUTES, _RESOURCE, _, _, _, _SOURCE, _DATA) = range(len(TABLE.columns))  # fmt: skip
_APPLICATION = _DATA + 4
_SCOPED = [*zip(("name", "version", "attributes"), range(_SCOPE, len(TABLE.columns)), strict=False)]
_ORIGINS = ("host", "hostname", "remote_addr", "source", "ip")
_OTHER_ORIGINS = frozenset(_ORIGINS[1:])
_HOST_MAX = 256
"""Characters of a host that is worth keeping."""
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_TYPES = "(OCTET )?STRING|OBJECT IDENTIFIER|IP ADDRESS|INTEGER|TIMETICKS|(COUNTER|UNSIGNED|GAUGE)32|COUNTER64|OPAQUE"
_typed = re.compile(rf"\A\s*({_TYPES}):")
"""The type before a value of SNMP."""
_PRINTABLE = frozenset((9, 10, 13, *range(32, 127)))
_NANOSECONDS = 100_000_000_000_000_000
"""From here on a bare number is a time in nanoseconds."""


def flat_row(record: Mapping[str, Any], origin: Origin) -> Row:
    """The row of one record; raises Unfit for a time that is none, and for nesting that cannot be written."""
    message, _, received_at, envelope, repairs = origin
    if not record:
        raise Unfit("missing_field", "an empty object")
    row, rest = _PLACES.sort(record)
    (time, observed, _, _, trace_flags, _, severity, number, body, _, _, _, _, _, _, _, attributes, resource, _,
     _, _, source, _, scope, level, word, application, host) = row  # fmt: skip
    del row[_DATA + 1 :]
    if observed is not None:  # it stands for a missing other one, and the time of receipt for a missing observed one
        convert = partial(moment, name=_PLACES.name_in(record, _OBSERVED) or "", repairs=repairs)
        known = fitting(convert, "observed_timestamp", observed, rest, repairs)
        received_at = received_at if known is None else known
    row[_TIME] = row[_OBSERVED] = received_at
    if type(time) is int and _NANOSECONDS <= time <= INT8_MAX:
        row[_TIME] = time // 1000 - EPOCH
    elif time is not None:
        name = "timestamp" if record.get("timestamp") is time else _PLACES.name_in(record, _TIME)
        given = moment(time, name or "", repairs)
        row[_TIME] = received_at if given is None else given
    if level is not None or word is not None or says_nothing(severity):
        severity, number = severity_of(severity, number, level, word, rest)
    if type(number) is not int or not 0 < number <= 24:
        number = severity_number(number, severity, rest, repairs)
    row[_SEVERITY] = BANDS.get(number) if severity is None and number is not None else severity
    row[_NUMBER] = number
    row[_RESOURCE] = packed(fill_service(row, _AT)) if resource is not None else _origin_of(record, host)
    if application is not None and row[_SERVICE] is None:
        row[_SERVICE] = application
    elif application is not None:
        rest[_PLACES.name_in(record, _APPLICATION) or ""] = application
    if row[_SERVICE] is None:
        row[_SERVICE] = host
    elif host is not None:
        rest["host"] = host
    if scope is not None:
        spread(row, _SCOPED, "scope", scope if type(scope) is dict else {"name": scope}, rest)
    row[_SOURCE] = source_of(message.subject)
    if source is not None:
        if type(source) is str and _PLAIN_NAME.fullmatch(source):
            row[_SOURCE] = source
        else:
            rest["source"] = source
    if body is not None and type(body) is not str:
        row[_BODY] = _body(body) if body is not record.get("varbinds") else _trap_body(body)
    if "varbinds" in record:
        rest["varbinds"] = record["varbinds"]
    if trace_flags is not None:
        prefer(row, rest, _FLAGS, "flags", trace_flags)
    TABLE.fill(row, rest, repairs)
    if row[_TRACE] != "" or row[_SPAN] != "":
        fill_ids(row, _AT, ("trace_id", "span_id"), repairs)
    if row[_SERVICE] is None:
        row[_SERVICE] = "unknown"
    if row[_FLAGS] is not None or trace_flags is not None:
        row[_TRACE_FLAGS] = None if row[_FLAGS] is None else row[_FLAGS] & 0xFF
    row[_ATTRIBUTES] = packed(rest) if attributes is envelope is None else attributes_of(attributes, rest, envelope)
    return tuple(row)


@lru_cache(maxsize=1024)
def source_of(subject: str) -> str | None:
    """Where a record came in, by its subject: ``logs.syslog.processed`` → syslog, ``events.otel.logs`` → otel."""
    tokens = subject.split(".")
    if len(tokens) < 2:
        return None
    if tokens[0] not in ("logs", "events") and "logs" in tokens[1:]:
        place = tokens.index("logs", 1)
        after = tokens[place + 1 : place + 2]
        return after[0] if after and after[0] != "processed" else tokens[place - 1]
    return tokens[1]


def _origin_of(record: Mapping[str, Any], host: Any) -> bytes:
    """What a record without a resource says of where it is from."""
    if type(host) is str and len(host) <= _HOST_MAX and record.keys().isdisjoint(_OTHER_ORIGINS):
        return _only_host(host)
    return packed({name: record[name] for name in _ORIGINS if name in record})


@lru_cache(maxsize=1024)
def _only_host(host: str) -> bytes:
    """The same if that is its host alone: they come again and again."""
    return packed({"host": host})


def _body(body: Any) -> str:
    """A body that is no text, as its JSON text; a list of character codes is the text of an Erlang string."""
    if isinstance(body, list) and body and all(type(code) is int and code in _PRINTABLE for code in body):
        return "".join(map(chr, body))
    return packed(body).decode()


def _trap_body(varbinds: Any) -> str:
    """The first value of a trap that is text, without its type (``OCTET STRING: eth0``); else all of them as JSON."""
    for bound in varbinds if isinstance(varbinds, list) else ():
        value = bound.get("value") if type(bound) is dict else None
        if type(value) is str and value.strip():
            return _typed.sub("", value).strip() or value.strip()
    return _body(varbinds)


# --- the fast path: as rule engines republish them, when every value has its expected type -------------------


class FlatLog(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The keys of such a record."""

    timestamp: Annotated[int, msgspec.Meta(ge=_NANOSECONDS, le=INT8_MAX)]
    body: str
    attributes: msgspec.Raw
    resource: msgspec.Raw
    severity_text: str
    severity_number: Annotated[int, msgspec.Meta(ge=1, le=24)]
    scope: str | None = None
    trace_id: str = ""
    span_id: str = ""


_members = members_of(FlatLog)


def columns_of(arrivals: Arrivals, records: Sequence[FlatLog], odd: set[int]) -> Columns:
    """The columns of such records."""
    log = _members(records)
    services, versions, instances, resources = zip(*map(_fast_resource, map(bytes, log["resource"])), strict=True)
    attributes = nested_json(log["attributes"], odd, b"{")
    for column in (resources, attributes):
        if None in column:
            odd.update(place for place, text in enumerate(column) if text is None)
    if silent := {*filter(says_nothing, {*log["severity_text"]})}:
        odd.update(place for place, text in enumerate(log["severity_text"]) if text in silent)
    traces, spans = [*map(str.lower, log["trace_id"])], [*map(str.lower, log["span_id"])]
    odd.update(unusual(traces), unusual(spans))
    return {
        **log,
        "timestamp": [time // 1000 - EPOCH for time in log["timestamp"]],
        "observed_timestamp": received(arrivals),
        "trace_id": traces,
        "span_id": spans,
        "service_name": services,
        "service_version": versions,
        "service_instance": instances,
        "scope_name": log["scope"],
        "attributes": attributes,
        "resource_attributes": resources,
        "source": [*map(source_of, arrivals[0])],
    }


_ODD = (None, None, None, None)


@lru_cache(maxsize=1024)
def _fast_resource(text: bytes) -> tuple[str | None, str | None, str | None, bytes | None]:
    """(service name, version, instance, JSON) of a resource; the same one comes with many records."""
    repairs: list[str] = []
    try:
        resource = parse_json(text, repairs)
    except Unfit:
        return _ODD
    if type(resource) is not dict or len(text) > 4096 or repairs:
        return _ODD
    service, version, instance = found = [resource.get(key) for key in SERVICE.values()]
    if any(value is not None and type(value) is not str for value in found):
        return _ODD
    return "unknown" if service is None else service, version, instance, packed(resource)
