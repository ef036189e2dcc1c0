"""Flat JSON records of logs, spans and metrics: what they have in common. What has no column is kept as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workers._json.convert import keep, merged, parsed
from workers._json.secrets import packed

_SERVICE = (
    ("service_name", "service.name"),
    ("service_version", "service.version"),
    ("service_instance", "service.instance.id"),
)


def fill_service(given: list[Any], at: Mapping[str, int]) -> Any:
    """Service name, version and instance from the resource's attributes where the record itself does not say; the
    resource."""
    resource = parsed(given[at["resource_attributes"]])
    if isinstance(resource, dict):
        for column, key in _SERVICE:
            if given[at[column]] is None:
                given[at[column]] = resource.get(key)
    return resource


def attributes_of(attributes: Any, rest: dict[str, Any], envelope: Mapping[str, Any] | None) -> bytes:
    """The attributes of a record, with what has no column, and those of the CloudEvent around it."""
    if attributes is None:
        attributes = rest
    elif rest or type(attributes) is not dict:
        attributes = merged(attributes, rest)
    if envelope is not None:
        attributes = {**attributes}
        keep(attributes, "cloudevent", envelope)
    return packed(attributes)
