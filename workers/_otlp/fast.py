"""The fast path of OTLP requests in protobuf: what its three signals share. See otlp_lean.proto.

A request becomes the same rows as by the fallback, or raises Uncommon, DecodeError or another ValueError: then it is
for the fallback, which knows every case. Bytes that stand for a submessage are parsed at least once, where they
stand: protobuf refuses a request for what is wrong, or nested too deep, in any of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from struct import unpack
from types import MappingProxyType
from typing import Any

import orjson
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

from workers._json.convert import trimmed
from workers._otlp import parts
from workers._otlp.otlp_lean_pb2 import Metrics
from workers._otlp.parts import ResourceValues, ScopeValues
from workers._wire import as_varint

CACHED_MAX = 4096
"""Bytes of a resource, of a scope, of what tells a metric: whatever is longer is not kept."""
BACKSLASH = ord("\\")
"""To look for an octet takes a tenth of looking for bytes."""
_PAIR_MAX = 256
"""Bytes of an attribute that is worth keeping."""
_PAIRS = 4096
"""Attributes that are kept."""
_ALIKE = 256
"""Of these with the same key and a value of the same kind and length …"""
_NOT_KEPT = 4096
"""… before so many are not, after which others have their turn: values may come again that did not before."""
_SHORT = 2**14
"""Two bytes tell a length below this."""
_BOOLS: Mapping[bytes, bool] = MappingProxyType({b"\0": False, b"\1": True})


class Uncommon(ValueError):
    """The request is for the fallback."""


def field(tag: int, octets: bytes) -> bytes:
    """A field on the wire: a submessage or text, whose number is below 16."""
    return b"%c%b%b" % (tag, as_varint(len(octets)), octets)


def only(submessages: Any) -> bytes:
    """The bytes of a submessage; of one that is absent, and then like an empty one, none."""
    found: list[bytes] = submessages[:]
    if len(found) > 1:
        raise Uncommon("protobuf merges them")
    return found[0] if found else b""


def scopes(request: Any, _: list[str]) -> Iterator[tuple[ResourceValues, ScopeValues, Sequence[Any]]]:
    """Each (resource, scope, records) of a lean request, in its order."""
    metrics = type(request) is Metrics
    if len(UnknownFieldSet(request)):
        raise Uncommon("records may be there")
    for group in request.groups[:]:  # as a list it has its elements made at once, which is quicker
        if len(UnknownFieldSet(group)):
            raise Uncommon("records may be there")
        octets, schema_url = only(group.resource), group.schema_url
        convert = _resource if len(octets) + len(schema_url) <= CACHED_MAX else _resource.__wrapped__
        resource: ResourceValues = convert(octets, schema_url)
        for scoped in group.scopes[:]:
            octets, schema_url = only(scoped.scope), scoped.schema_url
            if resource.rest or len(octets) + len(schema_url) > CACHED_MAX:
                scope = _scope_values(octets, schema_url, resource.rest)
            else:
                scope = _scope(octets, schema_url)
            records = scoped.records
            # By those of a record parse_request() tells other messages from requests; a scope's may be records.
            # Metrics are looked at one by one.
            if len(UnknownFieldSet(scoped)) or (records and not metrics and len(UnknownFieldSet(records[0]))):
                raise Uncommon("unknown fields")
            yield resource, scope, records


@lru_cache(maxsize=1024)
def _resource(octets: bytes, schema_url: str) -> ResourceValues:
    request = ExportTraceServiceRequest.FromString(field(0x0A, field(0x0A, octets)))
    repairs: list[str] = []
    shared = parts.convert_resource(request.resource_spans[0].resource, schema_url, repairs)
    if repairs:
        raise Uncommon("repairs")
    return shared


@lru_cache(maxsize=1024)
def _scope(octets: bytes, schema_url: str) -> ScopeValues:
    return _scope_values(octets, schema_url, {})


def _scope_values(octets: bytes, schema_url: str, rest: dict[str, Any]) -> ScopeValues:
    request = ExportTraceServiceRequest.FromString(field(0x0A, field(0x12, field(0x0A, octets))))
    repairs: list[str] = []
    shared = parts.scope_values(request.resource_spans[0].scope_spans[0].scope, schema_url, rest, repairs)
    if repairs:
        raise Uncommon("repairs")
    return shared


def dumps_trimmed(value: Any) -> bytes:
    """orjson.dumps, for the rows of large requests."""
    return trimmed(orjson.dumps(value))


def plain_text(value: bytes) -> str | None:
    """The text that an AnyValue is; None if it is something else, or written in an unusual way."""
    if value[:1] != b"\x0a" or not 2 <= len(value) < _SHORT:
        return None
    size, at = value[1], 2
    if size >= 0x80:
        if len(value) == 2:
            return None
        size, at = size + ((value[2] - 1) << 7), 3
    return value[at:].decode() if at + size == len(value) else None


class Attributes:
    """Lists of attributes, KeyValue by KeyValue, as JSON objects.

    Most KeyValues come again and again, and are kept by their bytes. Those that are new are read by hand if they are
    written the usual way, and by protobuf if not. In the usual way they start with a key, the length of the value and
    its kind, which come again even where the value never does; of those that start alike only so many are kept.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[str, Any]] = {}
        self._starts: dict[bytes, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def read(self, pairs: Any) -> dict[str, Any]:
        """The object of a list of KeyValues, which is the caller's, but not the objects and lists within."""
        kept, starts = self._kept, self._starts
        if len(kept) > _PAIRS:
            self.forget()
        octets = pairs[:]
        found: dict[str, Any] = {}
        for pair in octets:
            known = kept.get(pair)
            if known is not None:
                key, value = known
                found[key] = value
                continue
            at = pair[1] + 5 if len(pair) > 5 else 0
            start = starts.get(pair[:at]) or self._start(pair[:at])
            key, size, kind, left = start
            value = None
            if size == len(pair):
                if kind != 0x0A:
                    value = _scalar(kind, pair[at:])
                elif pair[at] == size - at - 1:
                    value = pair[at + 1 :].decode()
            if value is None:
                key, value = _unusual(pair)
            found[key] = value
            start[3] = left - 1 if left > -_NOT_KEPT else _ALIKE
            if left > 0 and len(pair) <= _PAIR_MAX:
                kept[pair] = key, value
        if len(found) != len(octets):
            raise Uncommon("a key that comes twice")
        return found

    def forget(self) -> None:
        """Keeps none any more."""
        self._kept.clear()
        self._starts.clear()

    def _start(self, start: bytes) -> list[Any]:
        """[key, bytes of the whole, tag of its value, how many to keep] of KeyValues that start so; they count down."""
        found = ["", 0, 0, _ALIKE]
        if len(start) > 5:
            end = start[1] + 2
            size, kind = start[-2:]
            if len(start) == end + 3 < 0x83 and start[0] == 0x0A and start[end] == 0x12 and 1 < size < 0x80:
                found = [start[2:end].decode(), len(start) - 1 + size, kind, _ALIKE]
        if len(self._starts) >= _PAIRS:
            self._starts.clear()
        self._starts[start] = found
        return found


def _unusual(pair: bytes) -> tuple[str, Any]:
    """The same of any KeyValue, by protobuf, but for long text."""
    if 0x84 <= len(pair) < _SHORT and pair[0] == 0x0A and (end := pair[1] + 2) < 0x80 and pair[end] == 0x12:
        size = len(pair) - end - 3
        if pair[end + 1] + ((pair[end + 2] - 1) << 7) == size >= 0x80:
            text = plain_text(pair[end + 3 :])
            if text is not None:
                return pair[2:end].decode(), text
    return _by_protobuf(pair)


def _by_protobuf(pair: bytes) -> tuple[str, Any]:
    # As deep as attributes of a data point are: others that protobuf takes only just are for the fallback.
    octets = pair
    for tag in b"\x0a\x32\x12" * 2:
        octets = field(tag, octets)
    found = KeyValue.FromString(octets).value.kvlist_value.values[0].value.kvlist_value.values[0]
    if found.key_strindex == parts.KEPT:
        raise Uncommon("as only requests in JSON have them")
    return found.key, parts.any_value(found.value)


def _scalar(kind: int, octets: bytes) -> Any:
    """The value that follows its tag in an AnyValue, and nothing else; None if it is not written the usual way."""
    if kind == 0x10:
        return _BOOLS.get(octets)
    if kind == 0x21:
        return parts.number(unpack("<d", octets)[0]) if len(octets) == 8 else None
    if kind != 0x18:
        return None
    number = shift = 0
    for octet in octets:
        if octet < 0x80:
            number |= octet << shift
            if shift != 7 * len(octets) - 7 or shift > 63 or number >= 2**64:
                return None
            return number - 2**64 if number >= 2**63 else number
        number |= (octet & 0x7F) << shift
        shift += 7
    return None


_ATTRIBUTES = Attributes()
attributes = _ATTRIBUTES.read


def joined(tag: int, submessages: Iterable[bytes]) -> bytes:
    """A repeated field on the wire."""
    return b"".join([field(tag, octets) for octets in submessages])
