"""What is fuzzed: each target is given any bytes, and raises if what it tries does not hold for them."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from nats.errors import ProtocolError

from both_paths import agree_on_all
from checks import decode_checked
from eventwriter import registry
from eventwriter.config import dsn, loading
from eventwriter.errors import ConfigurationError
from eventwriter.jetstream import deliveries
from eventwriter.jetstream.wire import BulkParser, Delivery, headers_of
from eventwriter.stream import Message, Stream
from strategies_secrets import DSN_TEMPLATES, ODD, TOKENS, URL_TEMPLATES, seen

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples"
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
STREAMS = registry.load()
_HEADERS = re.compile(rb"NATS/1\.0\r\n(?:.*\r\n)*?\r\n")


class Target(NamedTuple):
    """Something that takes bytes of strangers."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]


# ---- decoders


def decode(stream: Stream, data: bytes) -> None:
    """A message, after its headers if it has some: never an exception, and rows that fit, the same on both paths."""
    block = _HEADERS.match(data)
    headers = headers_of(block[0]) if block else None
    payload = data[block.end() :] if block else data
    message = Message(stream.subjects[0].replace(">", "x"), payload, 1, 1_765_535_400_123_456_789, headers)
    decode_checked(stream, message)
    if stream.fast is not None and headers is None:
        agree_on_all(stream, [message])


def samples(stream: Stream) -> Iterable[bytes]:
    """Its messages among the samples, those with headers behind them."""
    yield from (line.encode() for line in (SAMPLES / f"{stream.name.lower()}.jsonl").read_text().splitlines())
    for name, form, text in map(str.split, (SAMPLES / "protobuf.txt").read_text().splitlines()):
        if name == stream.name:
            yield bytes.fromhex(text) if form == "hex" else base64.b64decode(text)
    for case in json.loads((SAMPLES / "cases" / "cases.json").read_text()):
        if case["stream"] == stream.name:
            payload = (SAMPLES / "cases" / case["file"]).read_bytes()
            if len(payload) < 4096:
                yield headers_block(case.get("headers", {})) + payload


def headers_block(headers: Mapping[str, str]) -> bytes:
    """Headers as they are on the wire; nothing if there are none."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"NATS/1.0\r\n{lines}\r\n".encode() if headers else b""


# ---- what comes from NATS


class _Client:
    """What a parser tells its client."""

    def __init__(self) -> None:
        self.told = 0

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.told += len(data)

    async def _process_ping(self) -> None:
        self.told += 1

    async def _process_pong(self) -> None:
        self.told += 1

    async def _process_err(self, message: str) -> None:
        self.told += 1

    async def _process_info(self, info: object) -> None:
        self.told += 1


def parse(data: bytes) -> None:
    """The first byte is the size of the pieces in which the rest arrives: a protocol error, or what was there."""
    step = data[0] or len(data) if data else 1
    client, found = _Client(), list[Delivery]()
    parser = BulkParser(client, lambda some, size: found.extend(some))  # type: ignore[arg-type]
    parser.sid = b"7"

    async def feed() -> None:
        for start in range(1, len(data), step):
            await parser.parse(data[start : start + step])

    coroutine = feed()
    with suppress(ProtocolError):
        try:
            coroutine.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("the parser waits for something")
    given = sum(len(payload) for _, payload, _, _ in found) + client.told
    assert given <= len(data), "more was delivered than was sent"
    if found:
        with suppress(ValueError):
            deliveries.read(found, given)


def wire_seeds() -> Iterable[bytes]:
    """Messages with and without headers, and what the server says beside them."""
    reply = b"$JS.ACK.LOGS.eventwriter-logs.1.5.5.1765535400000000000.3"
    second = b"$JS.ACK.hub.acc.LOGS.eventwriter-logs.1.5.5.1765535400000000000.3.rnd"
    block = headers_block({"ce-id": "1", "Nats-Msg-Size": "4"})
    plain = b"MSG logs.x 7 %b 5\r\nhello\r\n" % reply
    whole = b"HMSG logs.x 7 %b %d %d\r\n%bhello\r\n" % (second, len(block), len(block) + 5, block)
    others = b"PING\r\nPONG\r\n+OK\r\n-ERR 'slow'\r\nINFO {\"a\": 1}\r\nMSG _INBOX.a.1 3 0\r\n\r\n"
    heartbeat = b"HMSG _INBOX.a.1 7 31 31\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n\r\n"
    for step in (b"\x00", b"\x07", b"\x40"):
        yield from (step + each for each in (plain, whole, others, heartbeat, plain + whole + others + heartbeat))


def read_headers(data: bytes) -> None:
    """Any block is headers: text in text, however they are read, and what PostgreSQL takes once NUL is out of it."""
    headers = headers_of(data)
    assert len(headers) == len([*headers])
    for name in headers:
        f"{name}{headers[name]}".encode()


def header_seeds() -> Iterable[bytes]:
    """Those of the samples, of JetStream itself, repeated, many and long ones."""
    for case in json.loads((SAMPLES / "cases" / "cases.json").read_text()):
        if "headers" in case:
            yield headers_block(case["headers"])
    yield b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 5\r\n\r\n"
    yield b"NATS/1.0\r\na: 1\r\na: 2\r\nno colon\r\n: \r\n\r\n"
    yield headers_block({f"h{number}": "x" for number in range(40)})
    yield headers_block({"long": "x" * 2100})


# ---- settings


def configure(data: bytes) -> None:
    """A file of settings: refused in one line, or loaded and shown."""
    file = _file()
    os.ftruncate(file, 0)
    os.pwrite(file, data, 0)
    with suppress(ConfigurationError):
        _shown(loading.load(STREAMS, file=Path(f"/proc/self/fd/{file}"), environ={}, flags={}))


def environment(data: bytes) -> None:
    """Variables, a line each; files that they name are not ours to read."""
    text = data.decode("utf-8", "surrogateescape").replace("\0", "")
    pairs = dict(line.split("=", 1) for line in text.split("\n") if "=" in line)
    given = {name: value for name, value in pairs.items() if not (name.endswith("_FILE") and value[:1] in "/.")}
    with suppress(ConfigurationError):
        _shown(loading.load(STREAMS, file=None, environ=given, flags={}))


def hide(data: bytes) -> None:
    """The first byte chooses where in a mistaken connection string or URL the secret stands that the rest makes."""
    templates = DSN_TEMPLATES + URL_TEMPLATES
    place = data[0] % len(templates) if data else 0
    key = "postgres.dsn" if place < len(DSN_TEMPLATES) else "nats.url"
    odd = ODD if key == "postgres.dsn" else ODD.replace(":", "")  # a colon ends a user's name, which is shown
    parts = data[1:].split(b"\xff")[:4]
    secret = "".join(
        TOKENS[number % len(TOKENS)] + "".join(odd[byte % len(odd)] for byte in part[:8])
        for number, part in enumerate(parts)
    )
    text = templates[place].replace("{}", secret)
    try:
        told = _shown(loading.load({}, file=None, environ={}, flags={key: text}))
    except ConfigurationError as error:
        told = str(error)
    if key == "postgres.dsn":
        told += dsn.show(text)
    assert not seen(told), (text, told)


def _shown(config: loading.Config) -> str:
    return loading.render(config) + json.dumps(loading.as_dict(config)) + repr(config)


@cache
def _file() -> int:
    return os.memfd_create("settings")  # of which nothing stays, however a search ends


def file_seeds() -> Iterable[bytes]:
    """What the documentation shows, and a section with all that it may have."""
    text = DOCUMENT.read_text(encoding="utf-8")
    yield from (block.encode() for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL))
    yield loading.render(loading.load(STREAMS, file=None, environ={}, flags={})).encode()


def variable_seeds() -> Iterable[bytes]:
    """Settings by their variables, right and wrong."""
    yield b"EVENTWRITER_NATS__URL=nats://a:4222,nats://b\nEVENTWRITER_POSTGRES__DSN=host=h user=u sslmode=verify-full"
    yield b"NATS_URL=nats://u:p@h\nEVENTWRITER_LOG_LEVEL=debug\nEVENTWRITER_HTTP__LISTEN=0.0.0.0:9465"
    yield b"EVENTWRITER_WRITER__LINGER=20ms\nEVENTWRITER_STREAMS__LOGS__SUBJECTS=logs.>,a.*.b"
    yield b"EVENTWRITER_WRITER__BATCH_BYTES=4MiB\nEVENTWRITER_STREAMS__LOGS__ENABLED=false\nEVENTWRITER_X=1"


def secret_seeds() -> Iterable[bytes]:
    """Each place, with one part and with two."""
    for place in range(len(DSN_TEMPLATES) + len(URL_TEMPLATES)):
        yield bytes((place,))
        yield bytes((place, 0, 5, 255, 7))


TARGETS: dict[str, Target] = {
    **{
        name.lower(): Target(partial(decode, stream), partial(samples, stream))
        for name, stream in sorted(STREAMS.items())
    },
    "wire": Target(parse, wire_seeds),
    "headers": Target(read_headers, header_seeds),
    "configuration": Target(configure, file_seeds),
    "environment": Target(environment, variable_seeds),
    "secrets": Target(hide, secret_seeds),
}
