"""Events and links of spans: each list is one JSON column."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workers._otlp import values

NO_PARENT = bytes(8)
"""How some exporters write that a span has no parent."""


def events_json(events: Any, attributes: Callable[[Any], dict[str, Any]], repairs: list[str]) -> bytes:
    """The events of a span for its jsonb column; ``attributes`` makes an object of a list of attributes."""
    found = [
        {
            "time_unix_nano": event.time_unix_nano,
            "name": event.name,
            "attributes": attributes(event.attributes),
            "dropped_attributes_count": event.dropped_attributes_count,
        }
        for event in events
    ]
    return values.dump(found, repairs)


def links_json(links: Any, attributes: Callable[[Any], dict[str, Any]], repairs: list[str]) -> bytes:
    """The links of a span for its jsonb column."""
    found = [
        {
            "trace_id": link.trace_id.hex(),
            "span_id": link.span_id.hex(),
            "trace_state": link.trace_state,
            "attributes": attributes(link.attributes),
            "dropped_attributes_count": link.dropped_attributes_count,
            "flags": link.flags,
        }
        for link in links
    ]
    return values.dump(found, repairs)
