"""What one transaction promises: rows, dead letters and ledger together, whatever PostgreSQL thinks of the rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psutil
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import conninfo

from eventwriter import registry
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import SchemaError
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Row, Stream
from fix_service import wait_until
from fix_sinks import OpenSink
from patience import PATIENCE
from profiles import examples

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")


def decode(message: Message) -> Decoded:
    """One row for each element of a JSON list; the text "bad" is rejected."""
    rows, rejects = [], []
    for index, value in enumerate(json.loads(message.payload)):
        if value == "bad":
            rejects.append(Reject("malformed", "it says so", index))
        else:
            rows.append((value["k"], value["v"], message.time // 1000))
    return Decoded(rows, rejects)


COLUMNS = (Column("k", "bigint"), Column("v", "text"), Column("received_at", "timestamptz", core=False))
PLAIN = Stream("NUMBERS", ("numbers.>",), "numbers", COLUMNS, decode)
KEYED = Stream("NUMBERS", ("numbers.>",), "numbers", COLUMNS, decode, key=("k",))


def batch(*payloads: list[Any], start: int = 1) -> Batch:
    """A batch with one message per payload, sequences from ``start``."""
    messages = [
        Message("numbers.x", json.dumps(payload).encode(), sequence, sequence * 1_000_000)
        for sequence, payload in enumerate(payloads, start)
    ]
    return Batch(messages, [message.sequence for message in messages])


def record(k: int, v: str = "") -> dict[str, Any]:
    """One element that becomes a row."""
    return {"k": k, "v": v}


@pytest.fixture
def open_sink(sinks: OpenSink) -> Callable[..., Sink]:
    """Opens sinks, for a table without a key unless another stream is asked for."""
    return lambda stream=PLAIN: sinks(stream, IDENTITY)


def rows(connection: psycopg.Connection[Any]) -> list[tuple[int, str]]:
    """The table's rows in order."""
    return connection.execute("SELECT k, v FROM numbers ORDER BY k, v").fetchall()


def letters(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The dead letters in order."""
    return connection.execute(
        "SELECT sequence, record_index, reason, sqlstate FROM eventwriter.dead_letters ORDER BY 1, 2"
    ).fetchall()


def done(connection: psycopg.Connection[Any]) -> str:
    """The ledger's sequences."""
    row = connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone()
    assert row is not None
    return str(row[0])


PLAIN_TABLE = "CREATE TABLE numbers (k bigint, v text, received_at timestamptz, created_at timestamptz DEFAULT now())"
KEYED_TABLE = "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, received_at timestamptz)"


def test_rows_dead_letters_and_ledger_are_written_together(connection: Any, open_sink: Any) -> None:
    """A batch leaves its rows, its rejects with their index, and its sequences."""
    connection.execute(PLAIN_TABLE)
    outcome = open_sink().write(batch([record(1)], [record(2), "bad", record(3)], ["bad"], []))
    assert rows(connection) == [(1, ""), (2, ""), (3, "")]
    assert letters(connection) == [(2, 1, "malformed", None), (3, 0, "malformed", None)]
    assert done(connection) == "{[1,5)}"
    assert (outcome.written, outcome.deadlettered, outcome.rows, outcome.empty) == (3, 1, 3, 1)


def test_redelivered_messages_are_known(connection: Any, open_sink: Any) -> None:
    """What the ledger knows is not written again, and the rest of the batch is."""
    connection.execute(PLAIN_TABLE)
    sink = open_sink()
    sink.write(batch([record(1)], [record(2)]))
    outcome = sink.write(batch([record(2)], [record(3)], start=2))
    assert rows(connection) == [(1, ""), (2, ""), (3, "")]
    assert (outcome.written, outcome.already_done) == (1, 1)


def test_a_wholly_known_batch_changes_nothing(connection: Any, open_sink: Any) -> None:
    """The second delivery of a batch is only acknowledged."""
    connection.execute(PLAIN_TABLE)
    sink = open_sink()
    sink.write(batch([record(1)], ["bad"]))
    outcome = sink.write(batch([record(1)], ["bad"]))
    assert rows(connection) == [(1, "")]
    assert len(letters(connection)) == 1
    assert outcome.already_done == 2


def test_one_refused_row_leaves_its_neighbours(connection: Any, open_sink: Any) -> None:
    """The row that a constraint refuses is a dead letter with SQLSTATE and its record's index."""
    connection.execute(PLAIN_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (k <> 13)")
    outcome = open_sink().write(batch([record(1)], ["bad", record(12), record(13), record(14)], [record(15)]))
    assert [k for k, _ in rows(connection)] == [1, 12, 14, 15]
    assert letters(connection) == [(2, 0, "malformed", None), (2, 2, "refused", "23514")]
    assert (outcome.written, outcome.rows, outcome.rejects) == (3, 4, {"malformed": 1, "refused": 1})


@pytest.mark.parametrize("stream", [pytest.param(PLAIN, marks=pytest.mark.long), KEYED], ids=["copy", "upsert"])
def test_many_refused_rows_cost_a_bounded_number_of_statements(connection: Any, open_sink: Any, stream: Stream) -> None:
    """500 bad rows of 5,000 become 500 dead letters without a round trip each."""
    connection.execute(PLAIN_TABLE if stream is PLAIN else KEYED_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (k % 10 <> 3)")
    begun = time.monotonic()
    outcome = open_sink(stream).write(batch(*([record(number)] for number in range(5000))))
    assert time.monotonic() - begun < 20 * PATIENCE
    assert (outcome.written, outcome.deadlettered, outcome.rows) == (4500, 500, 4500)
    assert len(rows(connection)) == 4500
    assert {row[1:] for row in letters(connection)} == {(0, "refused", "23514")}


def test_what_a_trigger_raises_is_a_dead_letter(connection: Any, open_sink: Any) -> None:
    """P0001 is about the row, not about the server."""
    connection.execute(PLAIN_TABLE)
    connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.k = 2 THEN RAISE EXCEPTION 'no twos'; END IF; RETURN NEW; END $$"
    )
    connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION refuse()")
    open_sink().write(batch([record(1)], [record(2)], [record(3)]))
    assert [k for k, _ in rows(connection)] == [1, 3]
    assert letters(connection) == [(2, 0, "refused", "P0001")]


def test_text_that_postgresql_cannot_hold_is_a_dead_letter(connection: Any, open_sink: Any) -> None:
    """Should a decoder let a NUL or a lone surrogate through, its row alone is refused."""
    connection.execute(PLAIN_TABLE)
    open_sink().write(batch([record(1, "a\0b")], [record(2, "\ud800")], [record(3)], [record(4, "\0")]))
    assert [k for k, _ in rows(connection)] == [3]
    assert [row[0] for row in letters(connection)] == [1, 2, 4]


def test_the_latest_message_of_a_key_wins(connection: Any, open_sink: Any) -> None:
    """Within a batch and across batches all columns are replaced; an older redelivery replaces nothing."""
    connection.execute(KEYED_TABLE)
    sink = open_sink(KEYED)
    outcome = sink.write(batch([record(1, "a")], [record(1, "b")], [record(2, "c")], start=10))
    assert rows(connection) == [(1, "b"), (2, "c")]
    assert outcome.written == 3
    sink.write(batch([record(1, "older")], start=5))
    assert rows(connection) == [(1, "b"), (2, "c")]
    sink.write(batch([record(1, "newer")], start=20))
    assert rows(connection) == [(1, "newer"), (2, "c")]


def test_another_row_with_the_same_key_is_a_conflict(connection: Any, open_sink: Any) -> None:
    """In a table with a key of its own a different row is a dead letter, an equal one is already there."""
    connection.execute("CREATE TABLE numbers (k bigint PRIMARY KEY, v text)")
    sink = open_sink(PLAIN)
    sink.write(batch([record(1, "a")], [record(2, "b")]))
    outcome = sink.write(batch([record(1, "a")], [record(2, "other"), record(3, "c")], start=3))
    assert rows(connection) == [(1, "a"), (2, "b"), (3, "c")]
    assert letters(connection) == [(4, 0, "conflict", "23505")]
    assert outcome.written == 2


def test_many_conflicts_cost_little_each(connection: psycopg.Connection[Any], open_sink: Any) -> None:
    """None decodes its message again while the transaction waits, and PostgreSQL does not look through all of them."""
    connection.execute(KEYED_TABLE)
    decoded: list[int] = []

    def counting(message: Message) -> Decoded:
        decoded.append(message.sequence)
        return decode(message)

    sink = open_sink(replace(PLAIN, decode=counting))
    sink.write(batch([record(1, "there")]))
    message = ["bad"] + [record(1, "other")] * 20_000
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    working = [psutil.Process(), *(psutil.Process(pid) for (pid,) in connection.execute(sessions))]
    before = sum(sum(process.cpu_times()[:2]) for process in working)
    outcome = sink.write(batch(message, ["bad", record(1, "other")], message, start=2))
    assert sum(sum(process.cpu_times()[:2]) for process in working) - before < 5
    assert decoded == [1, 2, 3, 4, 2, 3, 4]  # straight in, and by way of a temporary table
    assert (outcome.deadlettered, outcome.rows) == (3, 0)
    assert outcome.rejects == {"malformed": 3, "conflict": 40_001}
    assert letters(connection) == [
        (2, 0, "malformed", None), *((2, index, "conflict", "23505") for index in range(1, 20_001)),
        (3, 0, "malformed", None), (3, 1, "conflict", "23505"),
        (4, 0, "malformed", None), *((4, index, "conflict", "23505") for index in range(1, 20_001)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (None, ["table numbers", "does not exist", "schema apply"]),
        ("CREATE TABLE numbers (k bigint, v bytea)", ["column v", "bytea", "text"]),
        ("CREATE TABLE numbers (k bigint, v text, other int NOT NULL)", ["column other", "NOT NULL"]),
        ("CREATE TABLE numbers (nothing int)", ["none of the columns"]),
    ],
)
def test_a_table_that_does_not_fit_is_named(
    connection: Any, open_sink: Any, table: str | None, words: list[str]
) -> None:
    """The error names table, column and remedy."""
    if table:
        connection.execute(table)
    with pytest.raises(SchemaError) as caught:
        open_sink()
    assert all(word in str(caught.value) for word in words)


def test_tables_of_other_people_get_what_they_have(connection: Any, open_sink: Any) -> None:
    """Columns they lack are left out, narrower integers are checked, not wrapped."""
    connection.execute("CREATE TABLE numbers (v varchar, k integer)")
    open_sink().write(batch([record(1, "a")], [record(2**31, "too large")]))
    assert rows(connection) == [(1, "a")]
    assert letters(connection) == [(2, 0, "refused", None)]


def prepared(sink: Sink, batch: Batch) -> int:
    """Prepares all that can be; the number of steps."""
    steps = 1
    while sink.prepare(batch):
        steps += 1
    return steps


@pytest.mark.parametrize("steps", [0, 1, 99])
def test_what_was_prepared_is_written_as_if_it_were_not(
    connection: psycopg.Connection[Any], open_sink: Any, steps: int
) -> None:
    """However far that got before the batch before it was committed: rows, dead letters, counts, ledger."""
    connection.execute(PLAIN_TABLE)
    sink = open_sink()
    first = batch([record(1)])
    second = batch(*([record(k), "bad"] for k in range(2, 100)), ["bad"], start=2)
    left = [steps]

    def meanwhile() -> bool:
        left[0] -= 1
        return left[0] >= 0 and sink.prepare(second)

    assert sink.write(first, meanwhile).written == 1
    outcome = sink.write(second)
    assert (outcome.written, outcome.deadlettered, outcome.rows) == (98, 1, 98)
    assert rows(connection) == [(k, "") for k in range(1, 100)]
    assert len(letters(connection)) == 99
    assert done(connection) == "{[1,101)}"


def test_prepared_batches_may_be_known_refused_or_repeated(connection: psycopg.Connection[Any], open_sink: Any) -> None:
    """The ledger's knowledge, PostgreSQL's refusal, a value without binary form, a message twice: all as without."""
    connection.execute(PLAIN_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (v <> 'no')")
    sink = open_sink()
    again = batch([record(1)], [record(2)])
    sink.write(batch([record(1)]))
    assert prepared(sink, again)
    outcome = sink.write(again)
    assert (outcome.written, outcome.already_done) == (1, 1)

    refused = batch([record(3)], [record(4, "no")], [record(5)], start=3)
    assert prepared(sink, refused)
    assert sink.write(refused).deadlettered == 1

    unfit = batch([record(6)], [record(2**70)], [record(7)], start=6)
    assert prepared(sink, unfit)
    assert sink.write(unfit).deadlettered == 1

    once = batch([record(8)], start=9)
    twice = Batch([*once.messages, *once.messages], [9, 9])
    assert prepared(sink, twice)
    outcome = sink.write(twice)
    assert (outcome.written, outcome.already_done) == (1, 1)
    assert [k for k, _ in rows(connection)] == [1, 2, 3, 5, 6, 7, 8]
    assert done(connection) == "{[1,10)}"


def test_a_prepared_batch_waits_for_one_that_has_to_be_tried_again(
    connection: psycopg.Connection[Any], open_sink: Any
) -> None:
    """Rows of the second are not lost when the first is refused, known or retried meanwhile."""
    connection.execute(PLAIN_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (v <> 'no')")
    sink = open_sink()
    first, second = batch([record(1, "no")], [record(2)]), batch([record(3)], start=3)
    sink.write(first, lambda: sink.prepare(second))
    sink.write(first, lambda: sink.prepare(second))
    sink.write(second)
    assert [k for k, _ in rows(connection)] == [2, 3]
    assert done(connection) == "{[1,4)}"


def test_the_quick_way(connection: Any, open_sink: Any) -> None:
    """Rows that it knows are written, about the others the decoder is asked; about all of them if it is wrong."""

    def fast(messages: Sequence[Message]) -> list[Row | None]:
        if messages[0].sequence == 5:
            raise RuntimeError("a mistake")
        if messages[0].sequence == 7:
            return [(0, "too few", 0)]
        return [(message.sequence, "fast", 0) if message.sequence % 2 else None for message in messages]

    connection.execute(PLAIN_TABLE)
    sink = open_sink(replace(PLAIN, fast=fast))
    sink.write(batch([record(1)], [record(2), "bad"], [record(3)], [record(4)]))
    sink.write(batch([record(5, "decoded")], [record(6)], start=5))
    sink.write(batch([record(7, "decoded")], [record(8)], start=7))
    assert [k for k, _ in rows(connection)] == [*range(1, 9)]
    assert [v for _, v in rows(connection)] == ["fast", "", "fast", "", "decoded", "", "decoded", ""]
    assert letters(connection) == [(2, 1, "malformed", None)]


def test_the_quick_way_knows_nothing_of_redeliveries_and_refusals(connection: Any, open_sink: Any) -> None:
    """Its rows too are left out when the ledger knows them, or the table refuses them."""

    def fast(messages: Sequence[Message]) -> list[Row | None]:
        return [(message.sequence, "fast", 0) for message in messages]

    connection.execute(PLAIN_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (k <> 13)")
    sink = open_sink(replace(PLAIN, fast=fast))
    sink.write(batch(*([record(k)] for k in range(1, 4))))
    sink.write(batch(*([record(k)] for k in range(1, 81))))
    assert [k for k, _ in rows(connection)] == [k for k in range(1, 81) if k != 13]
    assert letters(connection) == [(13, 0, "refused", "23514")]


def test_rows_with_keys_are_staged_only_where_keys_come_twice(connection: Any, open_sink: Any) -> None:
    """Without that a key costs nothing; and where it is usual, few rows are written in vain."""
    connection.execute(KEYED_TABLE)
    sink = open_sink(KEYED)
    for number in range(100):
        fresh = [[record(10 * number + k)] for k in range(1, 10)]
        sink.write(batch(*fresh, [record(0, str(number))], start=10 * number + 1))
    assert rows(connection) == sorted([(0, "99"), *((n, "") for n in range(1, 1000) if n % 10)])
    sink.close()
    # Its statistics come when the server process of the connection ends, which closing does not wait for.
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    wait_until(lambda: connection.execute(others).fetchone() == (0,), "the end of the sink's connection")
    (inserted,) = connection.execute("SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = 'numbers'").fetchone()
    assert 901 <= inserted < 1000, "rows and what was written in vain before the first key that was there"
    assert letters(connection) == []


def test_a_batch_prepared_before_its_keys_came_twice(connection: Any, open_sink: Any) -> None:
    """What was encoded to be written without staging is staged after all."""
    connection.execute(KEYED_TABLE)
    sink = open_sink(KEYED)
    sink.write(batch([record(1, "a")]))
    second, third = batch([record(1, "b")], ["bad"], start=2), batch([record(1, "c"), record(2, "d"), "bad"], start=4)

    def meanwhile() -> bool:
        return bool(sink.prepare(third))

    while sink.prepare(third):
        pass
    assert sink.write(second, meanwhile).rows == 1
    assert sink.write(third).rows == 2
    assert rows(connection) == [(1, "c"), (2, "d")]
    assert letters(connection) == [(3, 0, "malformed", None), (4, 2, "malformed", None)]
    assert done(connection) == "{[1,5)}"


@settings(max_examples=examples(30))
@given(st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=12))
def test_the_latest_row_of_a_key_stays(connection: Any, open_sink: Any, story: list[list[int]]) -> None:
    """Whatever the way by which a batch went; 12 is refused by the table."""
    connection.execute("DROP TABLE IF EXISTS numbers; TRUNCATE eventwriter.ledger CASCADE")
    connection.execute(KEYED_TABLE)
    connection.execute("ALTER TABLE numbers ADD CHECK (k <> 12)")
    sink = open_sink(KEYED)
    sequence, expected, refused = 0, {}, 0
    for keys in story:
        payloads = []
        for key in keys:
            sequence += 1
            payloads.append([record(key, str(sequence))])
            refused += key == 12
            if key != 12:
                expected[key] = str(sequence)
        sink.write(batch(*payloads, start=sequence - len(keys) + 1))
    sink.close()
    assert rows(connection) == sorted(expected.items())
    assert len(letters(connection)) == refused
    assert done(connection) == f"{{[1,{sequence + 1})}}"


TEXTS = ["Zoë", "雪", "plain", "\U0001f600", "雪2", "¢", "¢2", "Ċ", "€", "refused", "Ċ2"]
"""Among them such as Python's codec for an encoding has and PostgreSQL has not."""


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "EUC_JP", "EUC_TW", "SQL_ASCII"])
def test_text_arrives_whatever_the_encoding_of_the_database(connection: Any, database: str, encoding: str) -> None:
    """And whatever encoding clients are told to use; what the database cannot hold is a dead letter, one or many."""
    name = f"{connection.info.dbname}_{encoding.lower()}"
    connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'")
    dsn = conninfo.make_conninfo(database, dbname=name)
    stream = replace(PLAIN, name="TEXTS", key=("v",))
    with psycopg.connect(dsn, autocommit=True, client_encoding="UTF8") as other:
        other.execute(registry.table_sql("eventwriter"))
        other.execute(PLAIN_TABLE.replace("numbers", "plain"))
        other.execute(PLAIN_TABLE.replace("numbers", "keyed"))
        other.execute("ALTER TABLE plain ADD CHECK (v <> 'refused'); ALTER TABLE keyed ADD CHECK (v <> 'refused')")
        other.execute("ALTER TABLE keyed ADD PRIMARY KEY (v)")
        fits = {text: holds(other, text) for text in TEXTS}
        assert fits["plain"]
        for table, declared in (("plain", PLAIN), ("keyed", stream)):
            sink = Sink(PostgresConfig(dsn=f"{dsn} client_encoding=LATIN1"), declared, table)
            sink.open()
            sink.begin(Opening(replace(IDENTITY, logical_stream=table, durable=table), (">",)))
            start = 1
            for sent in (["Zoë"], ["雪"], TEXTS):
                outcome = sink.write(batch(*([record(start + n, text)] for n, text in enumerate(sent)), start=start))
                fitting = [(start + n, text) for n, text in enumerate(sent) if fits[text] and text != "refused"]
                query = f"SELECT k, v FROM {table} WHERE k >= %s ORDER BY k"
                assert other.execute(query, [start]).fetchall() == fitting, table
                assert outcome.deadlettered == len(sent) - len(fitting)
                start += len(sent)
            sink.close()


def holds(connection: psycopg.Connection[Any], text: str) -> bool:
    """Whether the database can hold a text, as it says itself."""
    try:
        return connection.execute("SELECT %s::text", [text]).fetchone() == (text,)
    except psycopg.Error:
        return False
