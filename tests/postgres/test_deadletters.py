"""Dead letters: whatever a message holds, it can be kept, and nothing of it parks its stream."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventwriter import registry
from eventwriter.jetstream.wire import parse_headers
from eventwriter.postgres import deadletters
from eventwriter.postgres.binary import JsonbDumper
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening, open_ledger
from eventwriter.stream import Headers, Message, Reject
from fix_service import World, only, wait_until
from profiles import examples

Pairs = Sequence[tuple[str, str]]

ENCODINGS = ["UTF8", "LATIN1", "EUC_JP", "SQL_ASCII"]
LOOKS_ESCAPED = r"C:\u0000dir \ud800 \\u0000 \x00 " + '" \\'
ANY = st.text(st.characters(exclude_categories=[]), max_size=12) | st.sampled_from(
    [LOOKS_ESCAPED, "\0", "a\0b", "\ud800", "\udc00\ud800", "\\", '"', "", "雪", "\x1b[31m", "\ufffe\uffff"]
)
NAME = ANY | st.sampled_from(["a", "A", "X-Path"])


@pytest.fixture(scope="module")
def databases(postgres_server: Any) -> Iterator[dict[str, tuple[psycopg.Connection[Any], int]]]:
    """For each encoding a connection as the sink has it, and the number of a ledger."""
    opened = {}
    with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
        for encoding in ENCODINGS:
            name = f"letters_{encoding.lower()}"
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
            dsn = psycopg.conninfo.make_conninfo(postgres_server.dsn(name), client_encoding="UTF8")
            other = psycopg.connect(dsn, autocommit=True)
            other.adapters.register_dumper(None, JsonbDumper)
            other.execute(registry.table_sql("eventwriter"))
            ledger = open_ledger(other, Opening(Identity("X", "x", datetime(2026, 1, 1, tzinfo=UTC), "w"), (">",)))
            opened[encoding] = other, ledger.row
    yield opened
    for connection, _ in opened.values():
        connection.close()


def kept(database: tuple[psycopg.Connection[Any], int], message: Message, *rejects: Reject) -> list[dict[str, Any]]:
    """The letters of a message as they are read back."""
    connection, ledger = database
    with connection.transaction(force_rollback=True):
        deadletters.write(connection, ledger, [(message, rejects)])
        with connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute("SELECT * FROM eventwriter.dead_letters ORDER BY id").fetchall()


def fit(text: str, encoding: str = "UTF8") -> str:
    """What becomes of a text."""
    text = re.sub("[\0\ud800-\udfff]", "\ufffd", text)
    return text if encoding == "UTF8" else text.encode("ascii", "backslashreplace").decode()


def grouped(pairs: Pairs) -> dict[str, Any]:
    """The values of each name: one, or all."""
    found: dict[str, Any] = {}
    for name, _ in pairs:
        each = [value for other, value in pairs if other == name]
        found[name] = each if len(each) > 1 else each[0]
    return found


def test_a_header_that_looks_like_an_escape_stays_as_it_is(databases: Any) -> None:
    """Six characters are no NUL; a real one, and half a surrogate pair, become U+FFFD."""
    headers = {"X-Path": LOOKS_ESCAPED, LOOKS_ESCAPED: "x", "nul": "a\0b", "half": "a\ud800b"}
    (letter,) = kept(databases["UTF8"], Message("a", b"", 1, 0, headers), Reject("malformed", "no"))
    assert letter["headers"] == headers | {"nul": "a\ufffdb", "half": "a\ufffdb"}


@pytest.mark.parametrize("encoding", ENCODINGS)
@settings(max_examples=examples(60))
@given(
    st.dictionaries(NAME, ANY, max_size=5) | st.lists(st.tuples(NAME, ANY), min_size=1, max_size=6).map(Headers),
    ANY, ANY, ANY, st.sampled_from([None, "22P02"]),
)  # fmt: skip
def test_whatever_a_message_holds_is_kept(
    databases: Any, encoding: str, headers: Mapping[str, str], subject: str, reason: str, detail: str, code: str | None
) -> None:
    """Names, values, subject, reason and detail are read back, in a database of any encoding, with each header."""
    rejects = Reject(reason, detail, None, code), Reject(reason, "", 7, code)
    letters = kept(databases[encoding], Message(subject, b"\0\xff", 1, 0, headers), *rejects)
    pairs = headers.pairs if isinstance(headers, Headers) else [*headers.items()]
    expected = grouped([(fit(name, encoding), fit(value, encoding)) for name, value in pairs]) or None
    assert [letter["headers"] for letter in letters] == [expected] * 2
    assert [letter["subject"] for letter in letters] == [fit(subject, encoding)] * 2
    assert [letter["reason"] for letter in letters] == [fit(reason, encoding)] * 2
    assert [letter["detail"] for letter in letters] == [fit(detail, encoding), ""]
    assert [(letter["record_index"], letter["sqlstate"]) for letter in letters] == [(None, code), (7, code)]
    assert letters[0]["payload"] == b"\0\xff"


def block(*lines: bytes) -> bytes:
    """Headers as they are on the wire."""
    return b"NATS/1.0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


BLOCKS = {
    "escape": block(rb"X-Path: C:\u0000dir", rb"\u0000: \ud800", rb"q: " + b'"\\'),
    "nul": block(b"a\0b: c\0d"),
    "invalid": block(b"a\xff\xc3: b\xed\xa0\x80c", b"a\xfe\xc3: other"),
    "repeated": block(b"a: 1", b"A: 2", b"a: 3", b"a:", b"b: 4"),
    "thousand": block(*(b"Name-%d: value %d" % (number, number) for number in range(1000))),
    "large": block(b"Large: " + b"\\" * 60_000),
    "empty": block(),
    "no colon": block(b"nothing", b": no name", b"a: b"),
}
"""Blocks of headers that a producer may send."""


def send(world: World, messages: Sequence[tuple[bytes, bytes | None, bytes]]) -> None:
    """Publishes (subject, headers, payload) as they are: no client would send all of it."""
    with socket.create_connection(("127.0.0.1", world.nats.port), 10.0) as connection:
        reader = connection.makefile("rb")
        assert reader.readline().startswith(b"INFO")
        connection.sendall(b'CONNECT {"verbose": false, "headers": true}\r\n')
        for subject, headers, payload in messages:
            if headers is None:
                connection.sendall(b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload))
            else:
                sizes = len(headers), len(headers) + len(payload)
                connection.sendall(b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, *sizes, headers, payload))
        connection.sendall(b"PING\r\n")
        assert reader.readline() == b"PONG\r\n"


def event(number: int) -> bytes:
    """A message that becomes a row."""
    return json.dumps({"specversion": "1.0", "id": f"good-{number}", "type": "x", "source": "y"}).encode()


def test_no_header_and_no_subject_parks_a_stream(world: World) -> None:
    """Beside each dead letter the good messages are written; the letter has its headers; nothing ends."""
    headers = {f"events.{name.replace(' ', '_')}".encode(): value for name, value in BLOCKS.items()}
    subjects = [b"events." + b"s" * 3900, b"events.\xff\xfe", b"events.a\0b", rb"events.\u0000", "events.雪".encode()]
    bad: list[tuple[bytes, bytes | None, bytes]] = [
        *((subject, value, b"not json") for subject, value in headers.items()),
        *((subject, None, b"not json") for subject in subjects),
        *((subject, block(b"a: b"), b"not json") for subject in subjects),
    ]
    service = world.start(**only("EVENTS"))
    messages: list[tuple[bytes, bytes | None, bytes]] = []
    for number, message in enumerate(bad):
        messages += [(b"events.good", None, event(number)), message]
    send(world, messages)
    wait_until(lambda: sum(world.counts("EVENTS")) >= len(messages), lambda: f"all of it\n{world.log}")
    assert world.counts("EVENTS") == (len(bad), len(bad))
    assert world.query("SELECT count(*) FROM events WHERE id LIKE 'good-%'") == [(len(bad),)]
    assert world.stop(service) == 0
    assert "parked" not in world.log

    letters = dict(world.query("SELECT subject, headers FROM eventwriter.dead_letters"))
    for subject, value in headers.items():
        found = letters.pop(subject.decode())
        assert found == expected_headers(value), subject
    assert set(letters) == {fit(subject.decode("utf-8", "replace")) for subject in subjects}
    assert len(json.loads(world.run("dlq", "list", "--output", "json").stdout)) == min(50, len(bad))
    number = world.query("SELECT id FROM eventwriter.dead_letters WHERE subject = 'events.escape'")[0][0]
    assert (
        json.loads(world.run("dlq", "show", str(number), "--output", "json").stdout)["headers"]["X-Path"]
        == r"C:\u0000dir"
    )


def expected_headers(value: bytes) -> Any:
    """What a letter has of a block, read here in another way than there."""
    pairs = [
        (fit(name.decode("utf-8", "replace")), fit(rest.decode("utf-8", "replace").strip()))
        for name, separator, rest in (line.partition(b":") for line in value.split(b"\r\n")[1:])
        if separator
    ]
    return grouped(pairs) or None


def test_a_decoder_sees_the_last_of_a_repeated_header() -> None:
    """For the dead letter all of them are there, in their order; a block without repetition is a plain mapping."""
    headers = parse_headers(BLOCKS["repeated"])
    assert headers == {"a": "", "A": "2", "b": "4"}
    assert isinstance(headers, Headers)
    assert [*headers.pairs] == [("a", "1"), ("A", "2"), ("a", "3"), ("a", ""), ("b", "4")]
    for name in ("escape", "thousand", "empty", "no colon"):
        assert type(parse_headers(BLOCKS[name])) is dict, name
