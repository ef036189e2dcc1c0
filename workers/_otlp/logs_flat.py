"""Log records in JSON that is not OTLP: flat objects, GELF 1.1, SNMP traps, each one record.

The keys that are known fill columns, the first of a column's names that is there and not null; every other key is kept
among the attributes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from eventwriter.stream import Row
from eventwriter.values import EPOCH, INT4_MAX, INT4_MIN, INT8_MAX, Unfit, dump_json
from workers._json import flat
from workers._json.flat import Places
from workers._otlp.message import Context
from workers._otlp.severity import BANDS, SYSLOG, number_of
from workers._otlp.values import add_envelope

_PLACES = Places(
    ("timestamp", "time_unix_nano", "timeUnixNano", "time", "ts", "@timestamp"),
    ("observed_timestamp", "observed_time_unix_nano", "observedTimestamp", "observedTimeUnixNano"),
    ("trace_id", "traceId"),
    ("span_id", "spanId"),
    ("trace_flags", "traceFlags", "flags"),
    ("severity_text", "severityText"),
    ("severity_number", "severityNumber"),
    ("body", "message", "msg", "summary", "short_message", "event", "log", "varbinds"),
    ("event_name", "eventName"),
    ("service_name", "serviceName", "service", "application_name", "app_name"),
    ("service_version", "serviceVersion"),
    ("service_instance", "serviceInstance", "service_instance_id", "service.instance.id"),
    ("scope_name", "scopeName"),
    ("scope_version", "scopeVersion"),
    ("scope_attributes", "scopeAttributes", "scope.attributes"),
    ("attributes",),
    ("resource_attributes", "resourceAttributes", "resource"),
    ("scope",),
    ("source",),
    ("dropped_attributes_count", "droppedAttributesCount"),
    ("schema_url", "schemaUrl"),
    ("resource_schema_url", "resourceSchemaUrl"),
    ("level",),
    ("severity",),
    ("host",),
)
_PLACE_OF = _PLACES.place_of.get
_WIDTH = len(_PLACES.names)
_ORIGINS = ("host", "hostname", "remote_addr", "source", "ip")
_PLAIN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_FLAGS_MAX = 2**32 - 1


def flat_row(record: Mapping[str, Any], context: Context) -> Row:
    """The row of one record; raises Unfit for a time that is none, and for nesting that cannot be written."""
    subject, received, envelope, repairs = context
    source = source_of(subject)
    # What Places.sort() does, without the call: flat logs are the hottest of all paths.
    given: list[Any] = [None] * _WIDTH
    rest: dict[str, Any] = {}
    for key, value in record.items():
        place = _PLACE_OF(key)
        if place is None:
            rest[key] = value
        elif value is not None:
            if given[place] is not None:
                given, rest = _PLACES.by_precedence(record)
                break
            given[place] = value
    (time, observed, trace_id, span_id, flags, severity, number, body, event_name, service, version, instance,
     scope_name, scope_version, scope_attributes, attributes, resource, scope, origin, dropped, schema_url,
     resource_schema_url, level, severity_word, host) = given  # fmt: skip

    if observed is None:
        observed_timestamp = timestamp = received
    else:
        observed_timestamp = timestamp = _observed(record, observed, rest, received, repairs)
    if type(time) is int and 100_000_000_000_000_000 <= time <= INT8_MAX:
        timestamp = time // 1000 - EPOCH
    elif time is not None:
        name = "timestamp" if record.get("timestamp") is time else _PLACES.name_in(record, 0)
        given_time = flat.time(name, time)
        timestamp = timestamp if given_time is None else given_time

    if level is not None or severity_word is not None:
        severity, number = _severity(severity, number, level, severity_word, rest)
    if type(number) is not int or not 0 < number <= 24:
        number = _severity_number(number, severity, rest, repairs)
    if severity is None and number is not None:
        severity = BANDS.get(number)

    packed_resource = b"{}"
    if resource is None:
        origins = {name: record[name] for name in _ORIGINS if name in record}
        if origins:
            packed_resource = dump_json(origins)
    else:
        resource = flat.parsed(resource)
        if type(resource) is dict:
            if service is None:
                service = resource.get("service.name")
            if version is None:
                version = resource.get("service.version")
            if instance is None:
                instance = resource.get("service.instance.id")
        packed_resource = dump_json(resource)
    if service is None:
        service = "unknown" if host is None else host
    elif host is not None:
        rest["host"] = host

    if scope is not None:
        if type(scope) is dict:
            scope_name, scope_version, scope_attributes = _scope(
                scope, scope_name, scope_version, scope_attributes, rest
            )
        elif scope_name is None:
            scope_name = scope
        else:
            rest["scope"] = scope
    if scope_attributes is not None and type(scope_attributes) is str:
        scope_attributes = flat.parsed(scope_attributes)

    if origin is not None:
        if type(origin) is str and _PLAIN_NAME.fullmatch(origin):
            source = origin
        else:
            rest["source"] = origin
    if body is not None and type(body) is not str:
        body = _body(body)
        if "varbinds" in record:
            rest["varbinds"] = record["varbinds"]
    if flags is not None:
        flags = flat.integer("flags", flags, 0, _FLAGS_MAX, rest, repairs)
    if dropped is not None:
        dropped = flat.integer("dropped_attributes_count", dropped, 0, _FLAGS_MAX, rest, repairs)
    if type(trace_id) is not str:
        trace_id = "" if trace_id is None else flat.text("trace_id", trace_id, rest, repairs) or ""
    if type(span_id) is not str:
        span_id = "" if span_id is None else flat.text("span_id", span_id, rest, repairs) or ""
    if severity is not None and type(severity) is not str:
        severity = flat.text("severity_text", severity, rest, repairs)
    if type(service) is not str:
        service = flat.text("service_name", service, rest, repairs) or "unknown"
    if version is not None and type(version) is not str:
        version = flat.text("service_version", version, rest, repairs)
    if instance is not None and type(instance) is not str:
        instance = flat.text("service_instance", instance, rest, repairs)
    if scope_name is not None and type(scope_name) is not str:
        scope_name = flat.text("scope_name", scope_name, rest, repairs)
    if scope_version is not None and type(scope_version) is not str:
        scope_version = flat.text("scope_version", scope_version, rest, repairs)
    if event_name is not None and type(event_name) is not str:
        event_name = flat.text("event_name", event_name, rest, repairs)
    if schema_url is not None and type(schema_url) is not str:
        schema_url = flat.text("schema_url", schema_url, rest, repairs)
    if resource_schema_url is not None and type(resource_schema_url) is not str:
        resource_schema_url = flat.text("resource_schema_url", resource_schema_url, rest, repairs)

    if attributes is None:
        attributes = rest
    elif rest or type(attributes) is not dict:
        attributes = flat.merged(attributes, rest)
    if envelope is not None:
        add_envelope(attributes, envelope)
    return (
        timestamp,
        observed_timestamp,
        trace_id.lower(),
        span_id.lower(),
        None if flags is None else flags & 0xFF,
        flags,
        severity,
        number,
        body,
        event_name,
        service,
        version,
        instance,
        scope_name,
        scope_version,
        None if scope_attributes is None else dump_json(scope_attributes),
        dump_json(attributes),
        packed_resource,
        dropped,
        schema_url,
        resource_schema_url,
        source,
        None,
    )


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


def _observed(record: Mapping[str, Any], value: Any, rest: dict[str, Any], received: int, repairs: list[str]) -> int:
    try:
        observed = flat.time(_PLACES.name_in(record, 1), value)
        return received if observed is None else observed
    except Unfit:
        flat.keep_original(rest, "observed_timestamp", value, repairs, "bad_time")
        return received


def _severity(severity: Any, number: Any, level: Any, word: Any, rest: dict[str, Any]) -> tuple[Any, Any]:
    """Severity from ``level`` and ``severity`` too: a level is a name, or syslog's number, which is kept besides."""
    if type(level) is int and 0 <= level <= 7:
        rest["level"] = level
        if number is None:
            number = SYSLOG[level]
    elif isinstance(level, str) and not level.strip().isdecimal():
        if severity is None:
            severity = level
        else:
            rest["level"] = level
    elif level is not None:
        rest["level"] = level
        syslog = int(level) if isinstance(level, int) or (isinstance(level, str) and len(level) == 1) else -1
        if number is None and not isinstance(level, bool) and 0 <= syslog <= 7:
            number = SYSLOG[syslog]
    if word is not None:
        if severity is None:
            severity = word
        else:
            rest["severity"] = word
    return severity, number


def _severity_number(number: Any, severity: Any, rest: dict[str, Any], repairs: list[str]) -> int | None:
    """The number as given; else from the name, which may be unknown."""
    if number is not None:
        known = flat.integer("severity_number", number, INT4_MIN, INT4_MAX, rest, repairs)
        if known:
            return known
    return number_of(severity) if isinstance(severity, str) else None


def _scope(scope: dict[str, Any], name: Any, version: Any, attributes: Any, rest: dict[str, Any]) -> tuple[Any, ...]:
    left = {key: value for key, value in scope.items() if key not in ("name", "version", "attributes")}
    if name is None:
        name = scope.get("name")
    elif "name" in scope:
        left["name"] = scope["name"]
    if version is None:
        version = scope.get("version")
    elif "version" in scope:
        left["version"] = scope["version"]
    if attributes is None:
        attributes = scope.get("attributes")
    elif "attributes" in scope:
        left["attributes"] = scope["attributes"]
    if left:
        rest["scope"] = left
    return name, version, attributes


def _body(body: Any) -> str:
    """A body that is no text, as its JSON text; a list of character codes is the text of an Erlang string."""
    if isinstance(body, list) and body and all(type(code) is int and _is_text(code) for code in body):
        return "".join(map(chr, body))
    return dump_json(body).decode()


def _is_text(code: int) -> bool:
    return code in (9, 10, 13) or (32 <= code <= 0x10FFFF and chr(code).isprintable())
