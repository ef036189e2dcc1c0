"""OTLP requests (opentelemetry-proto 1.x): what logs, traces and metrics have in common.

What belongs to a resource or a scope is converted once, for all its records. Attribute lists become JSON objects in
which every kind of AnyValue keeps its type: bytes as base64, NaN and infinities as strings, an unset value as null, a
key that comes several times as the list of its values.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from eventwriter import values
from eventwriter.masking.community import masked, may_be_in
from eventwriter.stream import Row
from eventwriter.values import INT8_MAX
from workers._json.convert import keep_original, trimmed
from workers._limits import is_large

_INFINITY = float("inf")
KEPT = -1
"""``key_strindex`` of an attribute that is the original of a repaired field: no index that anybody sends."""
BACKSLASH = ord("\\")


# --- values -----------------------------------------------------------------------------------------------


def any_value(value: AnyValue) -> Any:
    """The JSON value of an AnyValue, its type kept; its strings may hold U+0000, which dump() replaces."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    plain = getattr(value, kind)
    convert = _CONVERT.get(kind)
    return plain if convert is None else convert(plain)


def number(real: float) -> float | str:
    """A float64 for JSON, which has no NaN and no infinities: those are strings, spelled as in protobuf's JSON."""
    if -_INFINITY < real < _INFINITY:
        return real
    return "NaN" if real != real else "Infinity" if real > 0 else "-Infinity"


def plain(value: Any) -> Any:
    """What a field without attributes holds, for JSON: numbers, texts, lists, messages with all their fields."""
    if isinstance(value, Message):
        return {field.name: plain(getattr(value, field.name)) for field in value.DESCRIPTOR.fields}
    if isinstance(value, float):
        return number(value)
    return value if isinstance(value, int | str) else [*map(plain, value)]


def attributes(pairs: Sequence[KeyValue]) -> dict[str, Any]:
    """A list of attributes as a JSON object."""
    found: dict[str, Any] = {}
    for pair in pairs:
        value = pair.value
        # Most values are strings with something in them: reading that is cheaper than asking for the kind.
        found[pair.key] = value.string_value or any_value(value)
    if len(found) == len(pairs):
        return found
    lists: dict[str, list[Any]] = {}
    for pair in pairs:
        lists.setdefault(pair.key, []).append(any_value(pair.value))
    return {key: given[0] if len(given) == 1 else given for key, given in lists.items()}


_CONVERT: Mapping[str, Callable[[Any], Any]] = {
    "double_value": number,
    "array_value": lambda array: [any_value(element) for element in array.values],
    "kvlist_value": lambda pairs: attributes(pairs.values),
    "bytes_value": lambda octets: b64encode(octets).decode(),
}
"""Those kinds of AnyValue that are something else in JSON."""


def dump(value: Any, repairs: list[str], *, sort: bool = False) -> bytes:
    """JSON text for a jsonb column, U+0000 replaced, masked; raises Unfit for nesting that PostgreSQL cannot read."""
    text = trimmed(values.dump_json(value, sort=sort))
    if BACKSLASH in text and b"\\u0000" in text:
        text = values.dump_json(values.scrub(value, repairs), sort=sort)
    return masked(text) if may_be_in(text) else text


def check_text(repairs: list[str], *texts: str) -> None:
    """Tells of U+0000 in a text, without which the request is read again then."""
    if any("\0" in text for text in texts):
        repairs.append("text_replaced")


def times_of(record: Message, fields: Iterable[str], attributes: dict[str, Any], repairs: list[str]) -> list[int]:
    """The times of a record, 0 for those beyond int64, which are kept as text among the attributes."""
    times = [getattr(record, field) for field in fields]
    for field, nanos in zip(fields, times, strict=True):
        if nanos > INT8_MAX:
            keep_original(attributes, field, str(nanos), repairs, "bad_time")
    return [0 if nanos > INT8_MAX else nanos for nanos in times]


# --- resources and scopes -----------------------------------------------------------------------------------


class ResourceValues(NamedTuple):
    """What the rows of one resource share."""

    service_name: str
    service_version: str | None
    service_instance: str | None
    attributes: bytes
    schema_url: str | None
    rest: dict[str, Any]
    """What has no column of its own: dropped attributes, entity references."""


class ScopeValues(NamedTuple):
    """What the rows of one instrumentation scope share."""

    name: str | None
    version: str | None
    attributes: bytes | None
    schema_url: str | None
    rest: dict[str, Any]
    """What has no column of its own, of the scope and of its resource."""
    data: bytes | None
    """The same as JSON, None if there is nothing."""


def resource_values(resource: Resource, schema_url: str, repairs: list[str]) -> ResourceValues:
    """The shared values of a resource; one that the request leaves out is an empty one."""
    found = attributes(resource.attributes)
    check_text(repairs, schema_url)
    rest: dict[str, Any] = {}
    if resource.dropped_attributes_count:
        rest["resource_dropped_attributes_count"] = resource.dropped_attributes_count
    if resource.entity_refs:
        rest["resource_entity_refs"] = plain(resource.entity_refs)
    return ResourceValues(
        text(found.get("service.name")) or "unknown",
        text(found.get("service.version")),
        text(found.get("service.instance.id")),
        dump(found, repairs),
        schema_url or None,
        rest,
    )


def scope_values(scope: InstrumentationScope, schema_url: str, rest: dict[str, Any], repairs: list[str]) -> ScopeValues:
    """The shared values of an instrumentation scope; ``rest`` is that of its resource."""
    if scope.dropped_attributes_count:
        rest = rest | {"scope_dropped_attributes_count": scope.dropped_attributes_count}
    check_text(repairs, scope.name, scope.version, schema_url)
    return ScopeValues(
        scope.name or None,
        scope.version or None,
        dump(attributes(scope.attributes), repairs) if scope.attributes else None,
        schema_url or None,
        rest,
        dump(rest, repairs) if rest else None,
    )


def apart(
    resource: ResourceValues, scope: ScopeValues, records: Any, rows: list[Row]
) -> Generator[tuple[ResourceValues, ScopeValues, Sequence[Any]], None, bool]:
    """A scope with its records. If its rest is large, the first that is in the rows when the next is asked for alone
    has that: gives whether this is so."""
    if not is_large(scope.rest, len(records)):
        yield resource, scope, records
        return False
    before = len(rows)
    for place, record in enumerate(records):
        if len(rows) > before:
            yield resource, scope._replace(rest={}, data=None), records[place:]
            break
        yield resource, scope, [record]
    return len(rows) > before


def text(value: Any) -> str | None:
    """An attribute's value for a text column: a string as it is, another value as its JSON text."""
    return value if value is None or isinstance(value, str) else dump(value, []).decode()
