"""The two ways to read an OTLP request: from what protobuf makes of it, or, on the fast path, from bytes as
otlp_lean.proto has them. The rows are made by the same code either way, record by record.

On the fast path a request becomes the same rows as by the fallback, or raises Uncommon, DecodeError or another
ValueError: then it is for the fallback, which knows every case. Bytes that stand for a submessage are parsed at least
once, where they stand: protobuf refuses a request for what is wrong, or nested too deep, in any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from struct import unpack
from typing import Any, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from eventwriter.masking.community import may_be_in
from eventwriter.stream import Row
from workers._otlp import parts
from workers._otlp.parts import ResourceValues, ScopeValues
from workers._otlp.request import inside
from workers._wire import varint, within

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
_LONG = -1
"""Kind of a value whose length takes two bytes: text, or for protobuf."""
ABSENT = (b"",)
"""A submessage that is not there, which is like an empty one; several, which protobuf merges, are a ValueError."""
_BOOLS: Mapping[bytes, bool] = {b"\0": False, b"\1": True}


class Uncommon(ValueError):
    """The request is for the fallback."""


def plain_text(value: bytes) -> str | None:
    """The text that an AnyValue is; None if it is something else, empty, or written in an unusual way."""
    size = len(value) - 2
    if 0 < size < 0x80 and value[0] == 0x0A and value[1] == size:
        return value[2:].decode()
    if 0x80 < size < _SHORT and value[0] == 0x0A and 0x80 <= value[1] == size - 1 - ((value[2] - 1) << 7):
        return value[3:].decode()
    return None


class Attributes:
    """Lists of attributes, KeyValue by KeyValue, as JSON objects.

    Most KeyValues come again and again, and are kept by their bytes; of those that start alike only so many. Those that
    are new are read by hand if they are written the usual way, and by protobuf if not: then they start with a key, the
    length of the value and its kind, which come again even where the value never does.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[str, Any]] = {}
        self._starts: dict[bytes, list[Any]] = {}

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
                if kind == 0x0A:
                    value = pair[at + 1 :].decode() if pair[at] == size - at - 1 else None
                else:
                    value = plain_text(pair[at:]) if kind == _LONG else _scalar(kind, pair[at:])
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
            if len(start) == end + 3 < 0x83 and start[0] == 0x0A and start[end] == 0x12 and size > 1:
                if size >= 0x80:  # it goes on where the kind of a short value is
                    size, kind = 1 + (size & 0x7F | kind << 7), _LONG
                found = [start[2:end].decode(), len(start) - 1 + size, kind, _ALIKE]
        if len(self._starts) >= _PAIRS:
            self._starts.clear()
        self._starts[start] = found
        return found


def _unusual(pair: bytes) -> tuple[str, Any]:
    """The same of any KeyValue, by protobuf."""
    found = _attribute_in(pair)
    if found.key_strindex == parts.KEPT:
        raise Uncommon("as only requests in JSON have them")
    return found.key, parts.any_value(found.value)


_attribute_in = within(ExportMetricsServiceRequest, 1, 2, 2, 5, 1, 7)
"""As deep as attributes of a data point are: others that protobuf takes only just are for the fallback."""


def _scalar(kind: int, octets: bytes) -> Any:
    """The value that follows its tag in an AnyValue, and nothing else; None if it is not written the usual way."""
    if kind == 0x10:
        return _BOOLS.get(octets)
    if kind != 0x18:
        return parts.number(unpack("<d", octets)[0]) if kind == 0x21 and len(octets) == 8 else None
    number, end = varint(octets, 0)
    if end != len(octets) or number >= 2**64:
        return None
    return number - 2**64 if number >= 2**63 else number


# --- resources, scopes and records ------------------------------------------------------------

Scope = tuple[ResourceValues, ScopeValues, Sequence[Any]]
"""A resource, a scope in it, and the records of that."""


CACHED_MAX = 4096
"""Bytes of a resource, of a scope, of what tells a metric: whatever is longer is not kept."""


class Reader(NamedTuple):
    """What all signals ask of a request."""

    scopes: Callable[[Any, list[str], list[Row]], Iterator[Scope]]
    """The scopes of a request, in its order, each when the records before are in the rows: the first row of a resource
    alone gets what is large of what its rows share and has no column, so a scope may come in parts."""
    attributes: Callable[[Any], dict[str, Any]]
    """A list of attributes as a JSON object, which is the caller's."""
    dump: Callable[[Any, list[str]], bytes] | None
    """Its JSON, repaired and masked; None if that is what orjson makes of it, but where U+0000 is: there is nothing
    to mask, and there are so few records that what each takes too much of memory does not count."""


def _scopes(request: Any, repairs: list[str], rows: list[Row]) -> Iterator[Scope]:
    for group in inside(request):
        resource = parts.resource_values(group.resource, group.schema_url, repairs)
        rest = resource.rest
        for scoped in inside(group):
            scope = parts.scope_values(scoped.scope, scoped.schema_url, rest, repairs)
            if not scope.rest:
                yield resource, scope, inside(scoped)
            elif (yield from parts.apart(resource, scope, inside(scoped), rows)):
                rest = {}


_group_fields = attrgetter("resource", "schema_url", "scopes")
_scope_fields = attrgetter("scope", "schema_url", "records")


def _fast_scopes(request: Any, repairs: list[str], rows: list[Row]) -> Iterator[Scope]:
    """Each (resource, scope, records) of a lean request, in its order."""
    if UnknownFieldSet(request):
        raise Uncommon("records may be there")
    for group in request.groups[:]:  # as a list it has its elements made at once, which is quicker
        if UnknownFieldSet(group):
            raise Uncommon("records may be there")
        resources, schema_url, scopes = _group_fields(group)
        (octets,) = resources[:] or ABSENT
        resource = _resource_of(octets, schema_url, repairs)
        rest = resource.rest
        for scoped in scopes[:]:
            own, schema_url, records = _scope_fields(scoped)
            (octets,) = own[:] or ABSENT
            if rest or len(octets) + len(schema_url) > CACHED_MAX:
                scope = parts.scope_values(_scope_in(octets), schema_url, rest, repairs)
            else:
                scope, noted = _scope(octets, schema_url)
                repairs += noted
            # By those of a record parse_request() tells other messages from requests; a scope's may be records.
            if UnknownFieldSet(scoped) or (records and UnknownFieldSet(records[0])):
                raise Uncommon("unknown fields")
            if not scope.rest:
                yield resource, scope, records
            elif (yield from parts.apart(resource, scope, records, rows)):
                rest = {}


def _resource_of(octets: bytes, schema_url: str, repairs: list[str]) -> ResourceValues:
    """The shared values of a resource, which the caller does not change; DecodeError if protobuf refuses its bytes."""
    convert = _resource if len(octets) + len(schema_url) <= CACHED_MAX else _resource.__wrapped__
    shared, noted = convert(octets, schema_url)
    repairs += noted
    return shared


# The same few resources and scopes come with message after message.
@lru_cache(maxsize=1024)
def _resource(octets: bytes, schema_url: str) -> tuple[ResourceValues, list[str]]:
    repairs: list[str] = []
    return parts.resource_values(_resource_in(octets), schema_url, repairs), repairs


@lru_cache(maxsize=1024)
def _scope(octets: bytes, schema_url: str) -> tuple[ScopeValues, list[str]]:
    repairs: list[str] = []
    return parts.scope_values(_scope_in(octets), schema_url, {}, repairs), repairs


_resource_in = within(ExportMetricsServiceRequest, 1, 1)
_scope_in = within(ExportMetricsServiceRequest, 1, 2, 1)


_ATTRIBUTES = Attributes()
FALLBACK = Reader(_scopes, parts.attributes, parts.dump)
"""Reads any request."""
FAST = Reader(_fast_scopes, _ATTRIBUTES.read, parts.dump)
"""Reads requests of otlp_lean.proto."""
FAST_FEW = FAST._replace(dump=None)
_FEW_BYTES = 2**16


def fast_reader(payload: bytes) -> Reader:
    """The reader of the fast path for a request."""
    return FAST_FEW if len(payload) < _FEW_BYTES and not may_be_in(payload) else FAST
