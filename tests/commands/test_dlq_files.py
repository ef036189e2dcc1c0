"""Dead letters that are exported and imported are what they were, whatever their messages held."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventwriter import registry
from eventwriter.commands.dlq_files import BadFileError, Imported, exported, load, purge
from eventwriter.commands.dlq_selection import Selection
from eventwriter.config.model import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.postgres import deadletters
from eventwriter.postgres.binary import JsonbDumper
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening, open_ledger
from eventwriter.stream import Headers, Message, Reject

HOSTILE = ["\0", "\ud800", "\x1b[31m", "\x9b", "\u2028", "雪", "C:\\u0000dir \\x00", '"\\', "\ufffe", "\x7f", ""]
ANY = st.text(st.characters(exclude_categories=[]), max_size=12) | st.sampled_from(HOSTILE)
HEADERS = st.none() | st.dictionaries(ANY, ANY, max_size=3) | st.lists(st.tuples(ANY, ANY), max_size=4).map(Headers)
REJECTS = st.dictionaries(
    st.none() | st.integers(0, 2**31 - 1),
    st.tuples(ANY, ANY, st.sampled_from([None, "22003", "23505"]), st.booleans()),
    min_size=1,
    max_size=4,
)
LETTERS = st.dictionaries(
    st.integers(1, 2**63 - 2),
    st.tuples(ANY, st.binary(max_size=60), st.integers(0, 2**63 - 1), HEADERS, REJECTS),
    min_size=1,
    max_size=4,
)
WHOLE = {7: ("a", b"\xff\0", 0, Headers([("a", "1"), ("a", "2")]), {None: ("malformed", "\x1b", None, False)})}
OPEN, REPLAYED = Selection(), Selection(replayed=True)

Database = tuple[psycopg.Connection[Any], PostgresConfig, int]


@pytest.fixture(scope="module")
def databases(postgres_server: PostgresServer) -> Iterator[list[Database]]:
    """Two with a ledger in which every message is done, of different encodings, and two without any."""
    opened = []
    for number, encoding in enumerate(("UTF8", "LATIN1", "UTF8", "EUC_JP")):
        name = f"letter_files_{number}"
        with psycopg.connect(postgres_server.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
        dsn = postgres_server.dsn(name)
        connection = psycopg.connect(dsn, autocommit=True, client_encoding="utf8")
        connection.adapters.register_dumper(None, JsonbDumper)
        connection.execute(registry.table_sql("eventwriter"))
        row = 0
        if number < 2:
            identity = Identity("LOGS", "logs", datetime(2026, 1, 1, tzinfo=UTC), "w")
            row = open_ledger(connection, Opening(identity, (">",))).row
            connection.execute("UPDATE eventwriter.ledger SET done = '{[0,9223372036854775807)}'")
        opened.append((connection, PostgresConfig(dsn=dsn), row))
    yield opened
    for connection, *_ in opened:
        connection.close()


def emptied(database: Database) -> None:
    """Without any letters."""
    database[0].execute("DELETE FROM eventwriter.dead_letter_messages")


def lines(database: Database) -> list[str]:
    """All that is exported, of those that wait and of those that were replayed."""
    return [line for selection in (OPEN, REPLAYED) for line, _ in exported(database[1], selection)]


def encoded(found: Sequence[str]) -> list[bytes]:
    """As they are in a file."""
    return [line.encode() + b"\n" for line in found]


@pytest.mark.parametrize("place", [0, 1], ids=["UTF8", "LATIN1"])
@settings(max_examples=6)
@given(LETTERS)
@example(WHOLE)
def test_what_is_exported_and_imported_is_as_it_was(databases: list[Database], place: int, letters: Any) -> None:
    """In the same database, and in another that has no ledger of it; a second time nothing is added."""
    database, other = databases[place], databases[place + 2]
    emptied(database)
    emptied(other)
    count = sum(len(rejects) for *_, rejects in letters.values())
    for sequence, (subject, payload, time, headers, rejects) in letters.items():
        found = [Reject(reason, detail, index, code) for index, (reason, detail, code, _) in rejects.items()]
        deadletters.write(database[0], database[2], [(Message(subject, payload, sequence, time, headers), found)])
        replayed = [index for index, (*_, replayed) in rejects.items() if replayed]
        database[0].execute(
            "UPDATE eventwriter.dead_letter_records SET replayed_at = now() WHERE sequence = %s "
            "AND (record_index = ANY(%s) OR record_index IS NULL AND %s)",
            [sequence, [index for index in replayed if index is not None], None in replayed],
        )
    before = lines(database)
    assert all(line.isascii() and line.isprintable() for line in before)
    assert purge(database[1], OPEN) + purge(database[1], REPLAYED) == count
    assert load(database[1], encoded(before)) == Imported(imported=count)
    assert lines(database) == before
    assert load(database[1], encoded(before)) == Imported(known=count)
    assert lines(database) == before

    assert load(other[1], encoded(before)) == Imported(imported=count)
    assert load(other[1], encoded(before)) == Imported(known=count)
    if place == 0 and letters is WHOLE:
        assert [json.loads(line)["durable"] for line in lines(other)] == ["w (imported)"]
    if place == 0:  # in a database of another encoding, what is not ASCII is written as an escape
        texts = {line.replace("w (imported)", "w") for line in lines(other)}
        assert {each for each in texts if "\\u" not in each} == {each for each in before if "\\u" not in each}


def test_a_message_that_is_not_done_here_is_left_out(databases: list[Database]) -> None:
    """The service will get it again; a dead letter of it that is there by then would be in the way."""
    database = databases[0]
    emptied(database)
    deadletters.write(database[0], database[2], [(Message("a", b"x", 5, 0), [Reject("malformed", "no")])])
    before = lines(database)
    purge(database[1], OPEN)
    database[0].execute("UPDATE eventwriter.ledger SET done = '{[6,10)}'")
    assert load(database[1], encoded(before)) == Imported(undone=1)
    database[0].execute("INSERT INTO eventwriter.ledger_past (ledger_id, filters, done) "
                        "SELECT id, '{>}', '{[1,6)}' FROM eventwriter.ledger")  # fmt: skip
    assert load(database[1], encoded(before)) == Imported(imported=1)
    database[0].execute("UPDATE eventwriter.ledger SET done = '{[0,9223372036854775807)}'")


GOOD = {
    "logical_stream": "LOGS", "stream": "logs", "stream_created": "2026-01-01T00:00:00Z", "durable": "w",
    "sequence": 1, "subject": "a", "headers": None, "message_time": "2026-01-01T00:00:00Z",
    "created_at": "2026-01-01T00:00:00Z", "payload_base64": "eA==",
    "records": [{"record_index": None, "reason": "r", "detail": "d", "sqlstate": None, "replayed_at": None}],
}  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        b"nonsense", b"{}", b"[]", b"\xff", b'{"a": "\xff"}', json.dumps(GOOD).encode()[:-1],
        *(json.dumps(GOOD | {key: value}).encode() for key, value in [
            ("sequence", -1), ("sequence", 2**63), ("sequence", "1"), ("payload_base64", "no base64!"), ("more", 1),
            ("created_at", "2026-01-01T00:00:00"), ("created_at", "now"), ("headers", {"a": 1}), ("records", [{}]),
            ("records", [GOOD["records"][0] | {"record_index": 2**31}]),  # type: ignore[index]
            *((name, "a\0b") for name in ("logical_stream", "stream", "durable")),
            ("records", [GOOD["records"][0] | {"sqlstate": "\0"}]),  # type: ignore[index]
        ]),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_named_and_nothing_is_imported(databases: list[Database], wrong: bytes) -> None:
    """Also not what stood before it."""
    database = databases[2]
    emptied(database)
    with pytest.raises(BadFileError, match="line 3 is no dead letter"):
        load(database[1], [json.dumps(GOOD).encode(), b"\n", wrong])
    assert lines(database) == []
    assert load(database[1], [json.dumps(GOOD).encode(), b"\n"]) == Imported(imported=1)
    assert json.loads(lines(database)[0])["payload_base64"] == "eA=="


def test_a_name_that_the_database_lacks_the_letters_for_is_the_line_s_fault(databases: list[Database]) -> None:
    """It is kept as it is, unlike what messages hold; nothing is imported, as with any other such line."""
    database = databases[3]
    emptied(database)
    for name in ("logical_stream", "stream", "durable"):
        with pytest.raises(BadFileError, match=r"line 2 is no dead letter for this database: .*no equivalent"):
            load(database[1], [json.dumps(each).encode() for each in (GOOD, GOOD | {name: "\U0001f4a9"})])
    assert lines(database) == []
