"""CloudEvents: what is one, its envelope and its data, structured and in binary mode."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compression import gz
from eventwriter.values import Unfit
from records import json_values
from workers._json.cloudevents import data_of, envelope_in, envelope_of, is_event


def b64(octets: bytes) -> str:
    """Base64 text."""
    return base64.b64encode(octets).decode()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"specversion": "1.0", "id": "1", "source": "/a", "type": "t"}, True),
        ({"specversion": "1.0", "type": "t"}, True),
        ({"specversion": "1.0", "source": "", "type": None}, True),
        ({"specversion": 1.0, "type": "t"}, False),
        ({"specversion": "1.0"}, False),
        ({"specversion": "1.0", "id": 7}, False),
        ({"type": "t", "source": "/a", "id": "1"}, False),
        ({}, False),
    ],
)
def test_specversion_and_one_more_attribute_make_an_event(value: dict[str, Any], expected: bool) -> None:
    """As CloudEvents 1.0 requires, but lenient about which of the others is missing."""
    assert is_event(value) is expected


def test_the_envelope_is_everything_but_data() -> None:
    """Extension attributes belong to it."""
    event = {"specversion": "1.0", "id": "1", "tenant": "acme", "time": None, "data": {"a": 1}, "data_base64": None}
    assert envelope_of(event) == {"specversion": "1.0", "id": "1", "tenant": "acme", "time": None}


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (None, None),
        ({}, None),
        ({"Nats-Msg-Id": "7"}, None),
        ({"ce-id": "7"}, None),
        ({"ce-specversion": "1.0", "ce-id": "7", "x": "y"}, {"specversion": "1.0", "id": "7"}),
        (
            {"CE-SpecVersion": "1.0", "Ce-Source": "/%C3%A4%20b", "Content-Type": "application/json"},
            {"specversion": "1.0", "source": "/ä b", "datacontenttype": "application/json"},
        ),
        (
            {"ce-specversion": "1.0", "ce-datacontenttype": "text/plain", "content-type": "x"},
            {"specversion": "1.0", "datacontenttype": "text/plain"},
        ),
        ({"ce-specversion": "1.0", "ce-source": "100%"}, {"specversion": "1.0", "source": "100%"}),
    ],
)
def test_headers_are_an_envelope_in_binary_mode(
    headers: dict[str, str] | None, expected: dict[str, str] | None
) -> None:
    """Names in any case, values percent-encoded; without ce-specversion it is no event."""
    assert envelope_in(headers, []) == expected


def test_headers_are_cleaned() -> None:
    """PostgreSQL takes neither U+0000 nor lone surrogates."""
    repairs: list[str] = []
    found = envelope_in({"ce-specversion": "1.0", "ce-id": "a%00b", "ce-x\udc80": "\udc80"}, repairs)
    assert found == {"specversion": "1.0", "id": "a\N{REPLACEMENT CHARACTER}b", "x\N{REPLACEMENT CHARACTER}": "�"}
    assert repairs == ["text_replaced"] * 3


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({}, None),
        ({"data": None}, None),
        ({"data": {"a": 1}}, {"a": 1}),
        ({"data": [1]}, [1]),
        ({"data": False}, False),
        ({"data": 0, "data_base64": "IA=="}, 0),
        ({"data": "link down"}, "link down"),
        ({"data": '{"a": 1}'}, {"a": 1}),
        ({"data": "[broken"}, "[broken"),
        ({"data_base64": b64(b'{"a": 1}')}, {"a": 1}),
        ({"data": None, "data_base64": b64(b"plain")}, b"plain"),
        ({"data_base64": b64(b"\x0a\x00\xff")}, b"\x0a\x00\xff"),
        ({"data_base64": b64(gz(b"[1]"))}, [1]),
        ({"data_base64": ""}, b""),
        ({"data": "[]", "datacontenttype": "text/plain"}, "[]"),
        ({"data": "{}", "datacontenttype": "Text/Plain; charset=utf-8"}, "{}"),
        ({"data": "[]", "datacontenttype": "application/json"}, []),
        ({"data_base64": b64(b"[1]"), "datacontenttype": "text/plain"}, "[1]"),
        ({"data": b64(b'{"a": 1}'), "datacontentencoding": "base64"}, {"a": 1}),
        ({"data": b64(b"plain"), "datacontentencoding": "Base64"}, b"plain"),
        ({"data": {"a": 1}, "datacontentencoding": "base64"}, {"a": 1}),
    ],
)
def test_data_is_json_or_bytes(event: dict[str, Any], expected: object) -> None:
    """In ``data`` or ``data_base64``; JSON in a text counts as JSON."""
    assert data_of(event, []) == expected


@pytest.mark.parametrize("encoded", ["!", "YQ", 7, ["YQ=="], "ä", b64(gz(bytes(2**25)))])
def test_broken_data_is_refused(encoded: object) -> None:
    """What is not base64, and a bomb."""
    with pytest.raises(Unfit):
        data_of({"data_base64": encoded}, [])


@given(st.dictionaries(st.sampled_from(["data", "data_base64", "specversion", "id"]), json_values))
def test_any_event_is_opened_or_refused(event: dict[str, Any]) -> None:
    """Nothing but Unfit is raised."""
    is_event(event)
    envelope_of(event)
    with suppress(Unfit):
        data_of(event, [])
