"""Whatever keeps a row out of a table, known to us or not: it is in it, equal to a row there, or a dead letter."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import boards
from eventwriter import registry
from eventwriter.commands import schema_check
from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import SchemaError
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Outcome, Stream
from fix_service import STREAMS
from fix_sinks import OpenSink
from profiles import examples

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")
COLUMNS = (Column("k", "bigint"), Column("v", "text"), Column("x", "jsonb", core=False))


def decode(message: Message) -> Decoded:
    """A row for each (k, v, x) of a list; x as its JSON."""
    return Decoded([(k, v, None if x is None else json.dumps(x).encode()) for k, v, x in json.loads(message.payload)])


PLAIN = Stream("NUMBERS", (">",), "numbers", COLUMNS, decode)
KEYED = Stream("NUMBERS", (">",), "numbers", COLUMNS, decode, key=("k",))

TABLE = "CREATE TABLE numbers (k bigint, v text, x jsonb, tenant text DEFAULT 't'); "
KINDS = {
    "expression": TABLE + "CREATE UNIQUE INDEX ON numbers (lower(v))",
    "partial": TABLE + "CREATE UNIQUE INDEX ON numbers (k) WHERE v <> 'free'",
    "nulls not distinct": TABLE + "ALTER TABLE numbers ADD UNIQUE NULLS NOT DISTINCT (k, v)",
    "exclusion": TABLE + "ALTER TABLE numbers ADD EXCLUDE USING gist (int8range(k, k + 2) WITH &&)",
    "beside a column of ours": TABLE + "ALTER TABLE numbers ADD UNIQUE (k, tenant)",
    "none of our columns": TABLE + "ALTER TABLE numbers ADD UNIQUE (tenant)",
    "deferred": TABLE + "ALTER TABLE numbers ADD UNIQUE (k) DEFERRABLE INITIALLY DEFERRED",
    "deferrable": TABLE + "ALTER TABLE numbers ADD UNIQUE (k) DEFERRABLE",
    "a key and more": TABLE + "ALTER TABLE numbers ADD UNIQUE (k); CREATE UNIQUE INDEX ON numbers ((x->>'a'))",
    "of a partition": "CREATE TABLE numbers (k bigint, v text, x jsonb) PARTITION BY RANGE (k); "
    "CREATE TABLE low PARTITION OF numbers FOR VALUES FROM (-100) TO (2); CREATE UNIQUE INDEX ON low (v); "
    "CREATE TABLE high PARTITION OF numbers FOR VALUES FROM (2) TO (9); "
    "CREATE TABLE rest PARTITION OF numbers DEFAULT",
    "required": "CREATE TABLE numbers (k bigint, v text, x json, UNIQUE (k, v))",
    "a trigger that changes": TABLE + "ALTER TABLE numbers ADD UNIQUE (v); "
    "CREATE FUNCTION up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v := upper(NEW.v); RETURN NEW; END $$; "
    "CREATE TRIGGER up BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION up()",
    "a trigger that raises": TABLE
    + "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 'A' THEN "
    "RAISE unique_violation; END IF; RETURN NEW; END $$; "
    "CREATE TRIGGER no BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION no()",
    "all at once": TABLE + "ALTER TABLE numbers ADD UNIQUE (k, x); ALTER TABLE numbers ADD CHECK (k <> 3); "
    "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.v = 'A' THEN RETURN NULL; ELSIF NEW.k = 4 THEN RAISE 'frozen' USING ERRCODE = 'XX000'; END IF; "
    "NEW.v := coalesce(NEW.v, 'none'); RETURN NEW; END $$; "
    "CREATE TRIGGER no BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION no()",
}


@pytest.fixture
def open_sink(sinks: OpenSink) -> Callable[..., Sink]:
    """Opens sinks, for a table without a key unless another stream is asked for."""
    return lambda stream=PLAIN: sinks(stream, IDENTITY)


def batch(*payloads: list[Any], start: int = 1) -> Batch:
    """A message for each list of rows."""
    messages = [Message("a", json.dumps(rows).encode(), n, n * 1000) for n, rows in enumerate(payloads, start)]
    return Batch(messages, [message.sequence for message in messages])


def rows(connection: psycopg.Connection[Any], table: str = "numbers") -> list[tuple[Any, ...]]:
    """What is in the table."""
    query = f'SELECT k, v, x FROM {table} ORDER BY k NULLS FIRST, v COLLATE "C" NULLS FIRST, x::text NULLS FIRST'
    return connection.execute(query).fetchall()


def letters(connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """The dead letters in order."""
    return connection.execute(
        "SELECT sequence, record_index, reason, sqlstate FROM eventwriter.dead_letters ORDER BY 1, 2"
    ).fetchall()


def expected(connection: psycopg.Connection[Any], kind: str, story: list[list[list[Any]]]) -> tuple[Any, ...]:
    """The same rows written one by one, in a schema of their own: what is there, and what became of each."""
    connection.execute("DROP SCHEMA IF EXISTS twin CASCADE; CREATE SCHEMA twin")
    with connection.transaction():
        connection.execute("SET LOCAL search_path TO twin, public")
        connection.execute(KINDS[kind])
        fates: list[tuple[int, int, str]] = []
        identical = 0
        for sequence, message in enumerate(story, 1):
            for index, (k, v, x) in enumerate(message):
                values = [k, v, None if x is None else json.dumps(x)]
                try:
                    with connection.transaction():
                        insert = "INSERT INTO numbers (k, v, x) VALUES (%s, %s, %s)"
                        if not connection.execute(insert, values).rowcount:
                            fates.append((sequence, index, "dropped"))
                        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                except (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation):
                    (there,) = connection.execute(
                        "SELECT count(*) FROM numbers WHERE k IS NOT DISTINCT FROM %s AND x::text IS NOT DISTINCT FROM "
                        '%s::jsonb::text AND v COLLATE "C" IS NOT DISTINCT FROM %s',
                        [values[0], values[2], values[1]],
                    ).fetchone() or (0,)
                    identical += bool(there)
                    if not there:
                        fates.append((sequence, index, "conflict"))
                except (psycopg.errors.CheckViolation, psycopg.errors.InternalError_):
                    fates.append((sequence, index, "refused"))
        found = rows(connection)
    return found, fates, identical


ROWS = st.tuples(
    st.none() | st.integers(0, 4), st.sampled_from([None, "a", "A", "free"]), st.sampled_from([None, {"a": "1"}])
).map(list)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(5, 2))
@given(st.lists(st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=4))
def test_every_row_is_there_or_equal_or_a_conflict(
    connection: Any, open_sink: Any, kind: str, story: list[list[list[Any]]]
) -> None:
    """As if each was written by itself, whatever the constraint, the batches, and the ways by which they go."""
    connection.execute(
        "DROP TABLE IF EXISTS numbers; DROP FUNCTION IF EXISTS up, no; TRUNCATE eventwriter.ledger CASCADE"
    )
    connection.execute("TRUNCATE eventwriter.dead_letter_messages CASCADE")
    connection.execute(KINDS[kind])
    sink = open_sink()
    outcomes, start = [], 1
    for messages in story:
        outcomes.append(sink.write(batch(*messages, start=start)))
        start += len(messages)
    sink.close()
    found, fates, identical = expected(connection, kind, [message for messages in story for message in messages])
    assert rows(connection) == found
    assert [letter[:3] for letter in letters(connection)] == fates
    reasons = Counter(reason for _, _, reason in fates if reason != "refused")
    assert total(outcomes) == Counter(rows=len(found), identical=identical) + reasons


def total(outcomes: list[Outcome]) -> Counter[str]:
    """What became of all rows, but for those that were refused."""
    sums = Counter[str]()
    for outcome in outcomes:
        sums.update({"rows": outcome.rows, **outcome.skipped})
    return +sums


DROPS = (
    "CREATE TABLE elsewhere (k bigint); "
    "CREATE OR REPLACE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF NEW.v = 'drop' THEN INSERT INTO elsewhere VALUES (NEW.k); RETURN NULL; END IF; RETURN NEW; END $$; "
    "CREATE TRIGGER skip BEFORE INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION skip()"
)


@pytest.mark.parametrize(
    ("stream", "table", "where"),
    [
        (PLAIN, TABLE, "numbers"),
        (PLAIN, TABLE + "ALTER TABLE numbers ADD UNIQUE (k);", "numbers"),
        (PLAIN, TABLE + "CREATE UNIQUE INDEX ON numbers ((x->>'a'));", "numbers"),
        (PLAIN, "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x json) PARTITION BY RANGE (k); "
                "CREATE TABLE part PARTITION OF numbers DEFAULT;", "part"),
        (KEYED, "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb);", "numbers"),
    ],
)  # fmt: skip
def test_what_a_trigger_leaves_out_is_a_dead_letter(
    connection: Any, open_sink: Any, stream: Stream, table: str, where: str
) -> None:
    """Each row alone, with the trigger's name; what the trigger did instead is not done. Its neighbours are written."""
    connection.execute(table + DROPS.format(where))
    sink = open_sink(stream)
    first = sink.write(batch([[1, "a", None], [2, "drop", None]], [[3, "drop", None]], [[4, "b", None]]))
    assert (first.written, first.deadlettered, first.rows, first.skipped) == (2, 1, 2, {"dropped": 2})
    # By a key that is there, by a row that is there, and one that is new.
    second = sink.write(batch([[1, "drop", None]], [[4, "b", None]], [[5, "drop", None]], [[6, "c", None]], start=4))
    keyed = "(k)" in table or "PRIMARY" in table
    assert rows(connection) == sorted([(1, "a", None), (4, "b", None), (6, "c", None), *[(4, "b", None)] * (not keyed)])
    expected = [(1, 1), (2, 0), (4, 0), (6, 0)]
    assert [letter[:2] for letter in letters(connection)] == expected
    assert {letter[2:] for letter in letters(connection)} == {("dropped", None)}
    assert second.rows + sum(second.skipped.values()) == 4
    details = {row[0] for row in connection.execute("SELECT detail FROM eventwriter.dead_letters")}
    assert details == {"table numbers left the row out, without an error; what may do so: trigger skip"}
    assert connection.execute("SELECT * FROM elsewhere").fetchall() == []


def test_a_trigger_that_leaves_out_everything_costs_no_round_trip_each(connection: Any, open_sink: Any) -> None:
    """All are dead letters, and none is in the table."""
    connection.execute(TABLE + DROPS.format("numbers"))
    outcome = open_sink().write(batch(*([[k, "drop", None]] for k in range(1000))))
    assert (outcome.written, outcome.deadlettered, outcome.rows) == (0, 1000, 0)
    assert (rows(connection), len(letters(connection))) == ([], 1000)


def test_rules_are_noticed_where_they_apply(connection: Any, open_sink: Any) -> None:
    """COPY passes them over. Where one takes a row's place all the same, that is a dead letter."""
    connection.execute(TABLE + "CREATE RULE off AS ON INSERT TO numbers WHERE NEW.v = 'drop' DO INSTEAD NOTHING")
    connection.execute("ALTER TABLE numbers ADD CHECK (k > 0)")
    sink = open_sink()
    sink.write(batch([[1, "drop", None]]))
    assert rows(connection) == [(1, "drop", None)]
    outcome = sink.write(batch([[0, "a", None]], [[-1, "a", None]], [[2, "drop", None]], [[3, "a", None]], start=2))
    assert rows(connection) == [(1, "drop", None), (3, "a", None)]
    assert (outcome.rows, outcome.skipped, outcome.rejects) == (1, {"dropped": 1}, {"refused": 2, "dropped": 1})
    assert connection.execute("SELECT detail FROM eventwriter.dead_letters WHERE sequence = 4").fetchone() == (
        "table numbers left the row out, without an error; what may do so: rule off",
    )


def test_what_does_not_add_up_stops_the_stream(connection: Any, open_sink: Any) -> None:
    """A rule that writes two rows for one: nothing is committed, and the error says what is known."""
    connection.execute(
        "CREATE TABLE numbers (k bigint CHECK (k > 0), v text, x jsonb); CREATE TABLE twice AS SELECT * FROM numbers; "
        "CREATE RULE two AS ON INSERT TO numbers DO INSTEAD INSERT INTO twice SELECT NEW.* FROM generate_series(1, 2)"
    )
    sink = open_sink()
    # The first that is refused is left out; after the second each is tried.
    with pytest.raises(SchemaError, match=r"numbers does not add up: of 2 rows it took 0, .* took 4 .*: rule two"):
        sink.write(batch([[0, "a", None]], [[-1, "b", None], [3, "c", None]]))
    assert connection.execute("SELECT count(*) FROM twice").fetchone() == (0,)
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{}",)


def test_a_row_without_a_partition_is_a_dead_letter(connection: Any, open_sink: Any) -> None:
    """Which says what it is that no partition takes; its neighbours are written."""
    connection.execute(
        "CREATE TABLE numbers (k bigint, v text, x jsonb, PRIMARY KEY (k)) PARTITION BY RANGE (k); "
        "CREATE TABLE low PARTITION OF numbers FOR VALUES FROM (0) TO (10)"
    )
    sink = open_sink()
    for start in (1, 4):  # straight in; then where the others are there already
        outcome = sink.write(batch([[1, "a", None]], [[start + 10, "b", None]], [[2, "c", None]], start=start))
        assert (outcome.written, outcome.deadlettered) == (2, 1)
    assert rows(connection) == [(1, "a", None), (2, "c", None)]
    assert [(letter[0], *letter[2:]) for letter in letters(connection)] == [
        (2, "refused", "23514"),
        (5, "refused", "23514"),
    ]
    (detail,) = connection.execute("SELECT detail FROM eventwriter.dead_letters ORDER BY sequence LIMIT 1").fetchone()
    assert detail == (
        'no partition of relation "numbers" found for row: Partition key of the failing row contains (k) = (11)'
    )


def test_rows_replaced_and_outdated_are_not_counted_as_written(connection: Any, open_sink: Any) -> None:
    """Of a key that comes twice the table gets one row, and none where a newer one is there."""
    columns = (Column("k", "bigint"), Column("v", "text"), Column("received_at", "timestamptz"))
    stream = Stream(
        "NUMBERS", (">",), "numbers", columns, lambda m: Decoded([(*json.loads(m.payload), m.time // 1000)])
    )
    stream = replace(stream, key=("k",))
    connection.execute(
        "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, received_at timestamptz, CHECK (v <> 'no'))"
    )
    sink = open_sink(stream)
    assert sink.write(batch([1, "a"], [2, "b"], start=10)).rows == 2
    for start, second, rejects in ((20, "e", {}), (30, "no", {"refused": 1})):
        outcome = sink.write(batch([1, "c"], [1, "d"], [2, second], [3, "f"], start=start))
        assert (outcome.rows, outcome.skipped, outcome.rejects) == (3 - len(rejects), {"superseded": 1}, rejects)
        outcome = sink.write(batch([1, "older"], [4 + start, "new"], [5, second], start=start - 18))
        assert (outcome.rows, outcome.skipped, outcome.rejects) == (2 - len(rejects), {"superseded": 1}, rejects)


def test_a_second_key_beside_the_one_that_replaces(connection: Any, open_sink: Any) -> None:
    """The latest row of a key replaces; one that meets another row by another key is a conflict."""
    connection.execute(
        "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb); CREATE UNIQUE INDEX ON numbers (lower(v))"
    )
    sink = open_sink(KEYED)
    sink.write(batch([[1, "a", None]], [[2, "b", None]]))
    outcome = sink.write(batch([[1, "c", None]], [[1, "B", None]], [[3, "A", None]], [[4, "c", None]], start=3))
    assert rows(connection) == [(1, "c", None), (2, "b", None), (3, "A", None)]
    assert [letter[::2] for letter in letters(connection)] == [(4, "conflict"), (6, "conflict")]
    assert (outcome.rows, outcome.skipped) == (2, {"conflict": 2})


@pytest.mark.parametrize("stream", [PLAIN, KEYED], ids=["plain", "keyed"])
@pytest.mark.parametrize(
    "code", ["P0001", "0A000", *(pytest.param(each, marks=pytest.mark.long) for each in ("XX000", "23505"))]
)
def test_what_is_said_only_at_the_commit(connection: Any, open_sink: Any, stream: Stream, code: str) -> None:
    """A deferred trigger, of a row alone and of one among others: that row is a dead letter."""
    connection.execute(
        "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb); "
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 'no' THEN "
        f"RAISE EXCEPTION 'late' USING ERRCODE = '{code}'; END IF; RETURN NULL; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON numbers DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION late()"
    )
    sink = open_sink(stream)
    assert sink.write(batch([[1, "no", None]])).deadlettered == 1
    assert sink.write(batch([[1, "a", None]], [[2, "no", None]], [[3, "b", None]], start=2)).written == 2
    assert sink.write(batch([[4, "c", None]], [[1, "no", None]], start=5)).written == 1
    assert rows(connection) == [(1, "a", None), (3, "b", None), (4, "c", None)]
    assert [letter[0] for letter in letters(connection)] == [1, 3, 6]


def test_check_names_what_may_keep_rows_out(connection: Any, database: str) -> None:
    """Keys of every kind, triggers and rules; harmless ones alone are nothing to tell."""
    for name in ("LOGS", "SWEEP"):
        connection.execute(registry.table_sql(registry.load()[name].table))
    only = {f"STREAMS__{name}__ENABLED": "false" for name in STREAMS if name not in ("LOGS", "SWEEP")}
    configured = boards.settings(POSTGRES__DSN=database, **only)
    for finding in schema_check.check(configured, registry.load()):
        assert "dead letter" not in finding.text or "(NOT NULL)" in finding.text
    connection.execute(
        "CREATE UNIQUE INDEX once ON logs (lower(body)); CREATE RULE off AS ON INSERT TO logs DO INSTEAD NOTHING; "
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$; "
        "CREATE TRIGGER before_each BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION f(); "
        "CREATE TRIGGER after_each AFTER INSERT ON logs FOR EACH ROW EXECUTE FUNCTION f(); "
        "ALTER TABLE sweep_host_states ADD CONSTRAINT apart EXCLUDE USING hash (host_ip WITH =)"
    )
    texts = {f"{finding.subject}: {finding.text}" for finding in schema_check.check(configured, registry.load())}
    equal = "becomes a dead letter, unless that is equal in all columns: then it is done"
    assert f"LOGS: a row that meets another one by once (lower(body)) {equal}" in texts
    assert f"SWEEP: a row that meets another row that excludes it by apart (host_ip) {equal}" in texts
    may = "may change a row; one that it leaves out or refuses becomes a dead letter"
    assert any(text.startswith(f"LOGS: trigger before_each of each row: {may}") for text in texts)
    assert any(text.startswith("LOGS: rule off: COPY passes it over") for text in texts)


@settings(max_examples=examples(6, 3))
@given(st.lists(st.lists(st.lists(ROWS, min_size=1, max_size=4), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_latest_that_is_taken_stays(connection: Any, open_sink: Any, story: list[list[list[Any]]]) -> None:
    """Of each key, whatever the table makes of the others; and each row of each batch has one fate."""
    connection.execute("DROP TABLE IF EXISTS numbers; DROP FUNCTION IF EXISTS no; TRUNCATE eventwriter.ledger CASCADE")
    connection.execute(
        "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb, CHECK (k <> 3 OR v <> 'free')); "
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.v = 'A' THEN RETURN NULL; "
        "ELSIF NEW.v = 'a' AND NEW.k > 2 THEN RAISE 'no' USING ERRCODE = '0A000'; END IF; RETURN NEW; END $$; "
        "CREATE TRIGGER no BEFORE INSERT OR UPDATE ON numbers FOR EACH ROW EXECUTE FUNCTION no()"
    )
    sink = open_sink(KEYED)
    latest: dict[int, tuple[Any, ...]] = {}
    start = 1
    for messages in story:
        outcome = sink.write(batch(*messages, start=start))
        start += len(messages)
        sent = [(k, v, x) for message in messages for k, v, x in message]
        assert outcome.rows + sum(outcome.skipped.values()) + outcome.rejects.get("refused", 0) == len(sent)
        latest |= {row[0]: row for row in sent if taken(*row)}
    sink.close()
    assert rows(connection) == sorted(latest.values(), key=lambda row: row[0])


def taken(k: int | None, v: str | None, x: Any) -> bool:
    """Whether that table takes the row."""
    return k is not None and v != "A" and (k, v) != (3, "free") and not (k > 2 and v == "a")


@pytest.mark.parametrize("table", ["dead_letter_messages", "dead_letter_records"])
def test_a_dead_letter_that_is_left_out_stops_the_stream(connection: Any, open_sink: Any, table: str) -> None:
    """A trigger on our own tables loses nothing either: nothing is committed, and the table is named."""
    connection.execute(TABLE + "ALTER TABLE numbers ADD CHECK (k <> 3)")
    connection.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; "
        f"CREATE TRIGGER no BEFORE INSERT ON eventwriter.{table} FOR EACH ROW EXECUTE FUNCTION no()"
    )
    sink = open_sink()
    with pytest.raises(SchemaError, match=f"eventwriter.{table} took 0 of 1 rows"):
        sink.write(batch([[1, "a", None]], [[3, "b", None]]))
    assert rows(connection) == []
    connection.execute(f"DROP TRIGGER no ON eventwriter.{table}")
    assert sink.write(batch([[1, "a", None]], [[3, "b", None]])).deadlettered == 1


@pytest.mark.parametrize("key", [(), ("t", "v")], ids=["plain", "keyed"])
def test_few_parts_of_a_table_are_looked_into(connection: Any, database: str, key: tuple[str, ...]) -> None:
    """Those of the times in the batch: each of the others would take locks, of which there may not be enough."""
    connection.execute(
        "CREATE TABLE numbers (t timestamptz, v text, received_at timestamptz, PRIMARY KEY (t, v)) "
        "PARTITION BY RANGE (t); "
        "DO $$ BEGIN FOR i IN 0..99 LOOP EXECUTE format('CREATE TABLE part_%s PARTITION OF numbers FOR VALUES FROM "
        "(%L) TO (%L)', i, timestamptz '2000-01-01Z' + i * interval '1 day', timestamptz '2000-01-02Z' + i * "
        "interval '1 day'); END LOOP; END $$"
    )
    columns = (Column("t", "timestamptz"), Column("v", "text"), Column("received_at", "timestamptz"))
    locks: list[int] = []

    def at(point: str) -> None:
        if point == "after_copy":
            query = "SELECT count(DISTINCT relation) FROM pg_locks WHERE relation::regclass::text LIKE 'part_%'"
            locks.append((connection.execute(query).fetchone() or (0,))[0])

    stream = Stream(
        "NUMBERS", (">",), "numbers", columns, lambda m: Decoded([(*json.loads(m.payload), m.time)]), key=key
    )
    sink = Sink(PostgresConfig(dsn=database), stream, "numbers", at=at)
    try:
        sink.open()
        sink.begin(Opening(IDENTITY, (">",)))
        day = 86_400_000_000
        sink.write(batch(*([day * n, "a"] for n in range(100)), start=1000))
        for start in (1, 11, 2000):  # older, and newer: where rows are replaced, that makes the difference
            outcome = sink.write(batch([day * 50, "a"], [day * 51, "a"], [day * 51 + start, "b"], start=start))
            assert outcome.rows + sum(outcome.skipped.values()) == 3
            assert outcome.rows == (3 if key and start == 2000 else 1)
    finally:
        sink.close()
    assert locks[0] >= 100
    assert all(0 < count <= 4 for count in locks[1:]), locks
