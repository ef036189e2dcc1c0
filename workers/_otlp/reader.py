"""The two ways to read an OTLP request: from the messages that protobuf makes of it, or, on the fast path, from bytes.

The rows are made by the same code either way, record by record; a reader gives it the parts. That of the fast path
raises Uncommon where something must be repaired: then the request is for the fallback, whose reader repairs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import orjson

from eventwriter.masking.community import masked, may_be_in
from eventwriter.values import clean
from workers._otlp import fast, parts
from workers._otlp.fast import Uncommon, dumps_trimmed
from workers._otlp.parts import ResourceValues, ScopeValues
from workers._otlp.request import path

Scope = tuple[ResourceValues, ScopeValues, Sequence[Any]]
"""A resource, a scope in it, and the records of that."""


class Reader(NamedTuple):
    """What all signals ask of a request."""

    scopes: Callable[[Any, list[str]], Iterator[Scope]]
    """The scopes of a request, in its order."""
    attributes: Callable[[Any], dict[str, Any]]
    """A list of attributes as a JSON object, which is the caller's."""
    dumps: Callable[[Any], bytes]
    """Its JSON, which may hold U+0000; TypeError if it cannot be written so."""
    dump: Callable[..., bytes]
    """The same with U+0000 replaced (value, repairs), or Uncommon."""
    clean: Callable[[str, list[str]], str]
    """Text with U+0000 replaced, or Uncommon."""
    keep_times: Callable[..., None]
    """Keeps times beyond int64 among the attributes (record, names, attributes, repairs), or Uncommon."""


def _scopes(request: Any, repairs: list[str]) -> Iterator[Scope]:
    groups, scopes, records = path(request.DESCRIPTOR)
    for group in getattr(request, groups):
        resource = parts.resource_values(group.resource, group.schema_url, repairs)
        for scoped in getattr(group, scopes):
            scope = parts.scope_values(scoped.scope, scoped.schema_url, resource.rest, repairs)
            yield resource, scope, getattr(scoped, records)


def _uncommon(*_: Any) -> NoReturn:
    raise Uncommon("to be repaired")


def _masked(value: Any) -> bytes:
    text = dumps_trimmed(value)
    return masked(text) if may_be_in(text) else text


FALLBACK = Reader(_scopes, parts.attributes, _masked, parts.dump, clean, parts.keep_times)
"""Reads any request, and repairs it."""
FAST = Reader(fast.scopes, fast.attributes, orjson.dumps, _uncommon, _uncommon, _uncommon)
"""Reads requests of otlp_lean.proto."""
FAST_MANY = FAST._replace(dumps=dumps_trimmed)
"""The same for requests with so many records that what each of them takes too much of memory counts."""
_MANY_BYTES = 2**16
"""A request of so many bytes may have them."""


def fast_reader(payload: bytes) -> Reader:
    """The reader of the fast path for a request of this size; Uncommon if the request may have a community to mask."""
    if may_be_in(payload):
        raise Uncommon("a community is masked")
    return FAST if len(payload) < _MANY_BYTES else FAST_MANY
