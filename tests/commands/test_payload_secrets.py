"""No command that shows what a message holds shows the community of SNMP, however the message is wrapped or broken."""

from __future__ import annotations

import base64
import gzip
import json
import re
import zlib
from typing import Any

import pytest

from eventwriter import registry, viewing
from eventwriter.commands import dlq_view, tap
from eventwriter.masking import community
from eventwriter.stream import Message

STREAMS = registry.load()
JSON = b'{"community":"hush","kept":"shown"}'
DEEP = json.dumps({"a": json.dumps({"b": JSON.decode()})}).encode()
PROTOBUF = b"\x0a\x09community\x12\x06\x0a\x04hush\x12\x05shown"
PAYLOADS = {
    "json": JSON,
    "blanks": b'{ "Community" :  "hu\\"hush" , "kept": "shown"}',
    "in a text": DEEP,
    "in a text, with a mark": json.dumps({"a": json.dumps({"b": '{"community":"a\\"hush","kept":"shown"}'})}).encode(),
    "prefix": b'{"snmp.community":"hush", "_community":"hush", "SNMP_COMMUNITY":"hush", "kept":"shown"}',
    "broken": b'{"kept":"shown", "community":"hush',
    "list": b'{"community":["a", "]hush"], "kept":"shown"}',
    "object": b'{"community":{"value":"hu}hush"}, "kept":"shown"}',
    "python": b"{'community': 'hush', 'kept': 'shown'}",
    "assigned": b"kept=shown community=hush\ncommunity: hush",
    "pair": b'{"key":"community","value":"hush","kept":"shown"}',
    "otlp": b'{"key":"community","value":{"arrayValue":{"values":[{"stringValue":"a"},'
    b'{"stringValue":"hush"}]}},"kept":"shown"}',
    "otlp, value first": b'{"value":{"stringValue":"hush"},"key":"community","kept":"shown"}',
    "protobuf": PROTOBUF,
    "protobuf, value first": b"\x12\x06\x0a\x04hush\x0a\x0esnmp_community\x12\x05shown"[:-7] + b"\x1a\x05shown",
    "protobuf, long": b"\x0a\x0esnmp-community\x12\xac\x02" + b"hush" * 75 + b"\x1a\x05shown",
    "not UTF-8": b'\xff\xfe "community":"hush" shown',
    "gzip": gzip.compress(JSON, mtime=0),
    "zlib": zlib.compress(JSON),
    "gzip of protobuf": gzip.compress(PROTOBUF, mtime=0),
    "gzip that is broken": gzip.compress(JSON * 3, 0, mtime=0)[:-20],
    "base64": b'{"kept":"shown","data_base64":"' + base64.b64encode(JSON) + b'"}',
    "base64 of gzip": b'{"kept":"shown","x":"' + base64.urlsafe_b64encode(gzip.compress(JSON, mtime=0)) + b'"}',
}
LETTER: dict[str, Any] = dict.fromkeys(
    ("id", "logical_stream", "stream", "stream_created", "durable", "sequence", "record_index", "reason", "sqlstate",
     "detail", "subject", "message_time", "created_at", "replayed_at")
)  # fmt: skip


def bare(text: str) -> str:
    """With what hexadecimal numbers and base64 say."""
    numbers = "".join(line[12:60] for line in text.split("\n") if re.match(r"  [0-9a-f]{8}  ", line))
    words = base64.b64decode(text.partition('base64": "')[2].split('"')[0]).decode("latin-1")
    return text + bytes.fromhex(numbers).decode("latin-1") + words


@pytest.mark.parametrize("name", PAYLOADS)
@pytest.mark.parametrize("stream", ["LOGS", "OTEL_TRACES", "EVENTS"])
def test_a_payload_is_shown_without_its_community(name: str, stream: str) -> None:
    """As text, as numbers, in JSON, as what it decodes to, and also where a part of it alone is shown."""
    declared = STREAMS[stream]
    letter = LETTER | {"headers": {"ce-community": "hush", "x": ["community=hush", "shown"]}}
    message = Message("logs.x", PAYLOADS[name], 1, 1, {"SNMP-Community": "hush", "y": "shown"})
    for text in (
        *(dlq_view.shown(letter, message, declared, full=full) for full in (False, True)),
        dlq_view.document(letter, message, declared),
        *(json.dumps(each, default=str) for each in tap.records(declared, message, "raw", lambda _: False)),
        *(viewing.to_line(each).decode() for each in viewing.records(declared, message) if "reject" in each),
    ):
        assert "hush" not in bare(text), text
    assert "shown" in bare(dlq_view.shown(letter, message, None, full=False))


def test_a_cut_goes_through_no_secret() -> None:
    """Neither text nor binary that is longer than what is shown."""
    for fill in (b"x", b"\x01"):
        for more in range(4):
            data = fill * (viewing.BYTES - 16 - more) + b'"community":"' + b"hush" * 3000 + b'"'
            message = Message("logs.x", data, 1, 1)
            assert "hu" not in bare("\n".join(viewing.lines(message, None, None)))


@pytest.mark.parametrize("text", ["time: {'community': 'hush'} is no time", 'not "community=hush"', '{"community":5}'])
def test_why_shows_none(text: str) -> None:
    """What a decoder or PostgreSQL says has parts of a message."""
    assert "hush" not in community.text(text)
    assert "5" not in community.text(text)
    assert "***" in community.text(text)


@pytest.mark.parametrize("data", [b"", b"community", b'{"communities":"shown","x":"community"}', b"x^ is text",
                                  b"\x0a\x0dbgp_community\x12\x01s", gzip.compress(b"shown", mtime=0),
                                  bytes(range(256))])  # fmt: skip
def test_what_has_none_is_shown_as_it_came(data: bytes) -> None:
    """Byte for byte, compressed as well."""
    assert community.payload(data) == data


def test_what_is_compressed_is_shown_inflated() -> None:
    """Which is what a person looks for."""
    text = "\n".join(viewing.payload_lines(gzip.compress(b"what is in it", mtime=0)))
    assert text.endswith("bytes of what is compressed, which holds text\n  what is in it")
