"""CloudEvents 1.0: structured objects, batches of them, and binary mode, where NATS headers are the envelope.

An envelope is taken as it comes: events with a missing or empty required attribute exist, and are worth keeping.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from eventwriter import values
from eventwriter.values import Unfit, shown
from workers._json.convert import from_base64
from workers._json.payload import parse, read_json
from workers._limits import Room

_TEXT = re.compile(r"\s*(?:text/(?!json)|application/(?:[\w.-]+\+)?xml\b)", re.IGNORECASE)
"""Content types of text that is no JSON, whatever it looks like."""


def is_event(value: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a CloudEvent: ``specversion`` and one of type, source and id are strings."""
    return type(value.get("specversion")) is str and (
        type(value.get("type")) is str or type(value.get("source")) is str or type(value.get("id")) is str
    )


def envelope_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """The context attributes of a structured event; of data in both its forms the one that is not taken."""
    both = event.get("data") is not None and event.get("data_base64") is not None
    return {name: value for name, value in event.items() if name != "data" and (both or name != "data_base64")}


def envelope_in(headers: Mapping[str, str] | None, repairs: list[str]) -> dict[str, str] | None:
    """The context attributes of an event in binary mode (``ce-id`` … in any case, and ``content-type``),
    percent-encoded as in the HTTP binding; None if the headers are not an envelope."""
    given = {header.lower(): value for header, value in (headers or {}).items()}
    if "ce-specversion" not in given:
        return None
    found = {
        values.clean(name[3:], repairs): values.clean(unquote(value), repairs)
        for name, value in given.items()
        if name.startswith("ce-")
    }
    if "content-type" in given:
        found.setdefault("datacontenttype", values.clean(given["content-type"], repairs))
    return found


def is_text(event: Mapping[str, Any]) -> bool:
    """Whether the data of an event is said to be text."""
    kind = event.get("datacontenttype")
    return type(kind) is str and _TEXT.match(kind) is not None


def data_of(event: Mapping[str, Any], repairs: list[str], room: Room | None = None) -> Any:
    """The data of a structured event: a JSON value, also from JSON text; bytes if it is not JSON; None if absent.

    That of a type of text is text, whatever it looks like. Raises Unfit for what is not base64, else as read_json does.
    """
    data, coding = event.get("data"), event.get("datacontentencoding")
    is_encoded = type(coding) is str and coding.lower() == "base64" and type(data) is str  # as version 0.3 says it
    encoded = event.get("data_base64") if data is None else data if is_encoded else None
    if encoded is not None:
        octets = from_base64(encoded)
        if octets is None:
            raise Unfit("malformed", f"the data is {shown(encoded)}, not base64")
        try:
            if is_text(event):
                return values.clean(octets.decode(), repairs)
            return read_json(octets, repairs, room)[1]
        except UnicodeDecodeError:
            return octets
        except Unfit as error:
            if error.reason == "too_large":
                raise
            return octets
    if type(data) is str and data[:1] in ("{", "[") and not is_text(event):
        try:
            return parse(data.encode(), repairs)
        except Unfit:
            return data
    return data
