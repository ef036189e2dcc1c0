"""The two ways to read an OTLP request: from the messages that protobuf makes of it, or, on the fast path, from bytes.

The rows are made by the same code either way, record by record; a reader gives it the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from eventwriter.masking.community import may_be_in
from workers._otlp import parts
from workers._otlp.fast import ABSENT, Uncommon, attributes, within
from workers._otlp.parts import ResourceValues, ScopeValues
from workers._otlp.request import inside

Scope = tuple[ResourceValues, ScopeValues, Sequence[Any]]
"""A resource, a scope in it, and the records of that."""


CACHED_MAX = 4096
"""Bytes of a resource, of a scope, of what tells a metric: whatever is longer is not kept."""


class Reader(NamedTuple):
    """What all signals ask of a request."""

    scopes: Callable[[Any, list[str]], Iterator[Scope]]
    """The scopes of a request, in its order."""
    attributes: Callable[[Any], dict[str, Any]]
    """A list of attributes as a JSON object, which is the caller's."""
    dump: Callable[[Any, list[str]], bytes] | None
    """Its JSON, repaired and masked; None if that is what orjson makes of it, but where U+0000 is: there is nothing
    to mask, and there are so few records that what each takes too much of memory does not count."""


def _scopes(request: Any, repairs: list[str]) -> Iterator[Scope]:
    for group in inside(request):
        resource = parts.resource_values(group.resource, group.schema_url, repairs)
        for scoped in inside(group):
            scope = parts.scope_values(scoped.scope, scoped.schema_url, resource.rest, repairs)
            yield resource, scope, inside(scoped)


_group_fields = attrgetter("resource", "schema_url", "scopes")
_scope_fields = attrgetter("scope", "schema_url", "records")


def _fast_scopes(request: Any, repairs: list[str]) -> Iterator[Scope]:
    """Each (resource, scope, records) of a lean request, in its order."""
    if UnknownFieldSet(request):
        raise Uncommon("records may be there")
    for group in request.groups[:]:  # as a list it has its elements made at once, which is quicker
        if UnknownFieldSet(group):
            raise Uncommon("records may be there")
        resources, schema_url, scopes = _group_fields(group)
        (octets,) = resources[:] or ABSENT
        resource = _resource_of(octets, schema_url, repairs)
        for scoped in scopes[:]:
            own, schema_url, records = _scope_fields(scoped)
            (octets,) = own[:] or ABSENT
            if resource.rest or len(octets) + len(schema_url) > CACHED_MAX:
                scope = parts.scope_values(_scope_in(octets), schema_url, resource.rest, repairs)
            else:
                scope, noted = _scope(octets, schema_url)
                repairs += noted
            # By those of a record parse_request() tells other messages from requests; a scope's may be records.
            if UnknownFieldSet(scoped) or (records and UnknownFieldSet(records[0])):
                raise Uncommon("unknown fields")
            yield resource, scope, records


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


_resource_in = within(ExportTraceServiceRequest, 1, 1)
_scope_in = within(ExportTraceServiceRequest, 1, 2, 1)


FALLBACK = Reader(_scopes, parts.attributes, parts.dump)
"""Reads any request."""
FAST = Reader(_fast_scopes, attributes, parts.dump)
"""Reads requests of otlp_lean.proto."""
FAST_FEW = FAST._replace(dump=None)
_FEW_BYTES = 2**16


def fast_reader(payload: bytes) -> Reader:
    """The reader of the fast path for a request."""
    return FAST_FEW if len(payload) < _FEW_BYTES and not may_be_in(payload) else FAST
