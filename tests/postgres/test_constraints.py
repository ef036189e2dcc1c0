"""Whatever keeps a row out of a table, known to us or not: it is in it, equal to a row there, or a dead letter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from eventwriter import registry
from eventwriter.config.loading import PostgresConfig
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Outcome, Stream

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
}


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A database with eventwriter's own tables."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        yield connection


@pytest.fixture
def open_sink(database: str) -> Iterator[Callable[..., Sink]]:
    """Opens sinks and closes them at the end."""
    opened = []

    def open_one(stream: Stream = PLAIN) -> Sink:
        sink = Sink(PostgresConfig(dsn=database), stream, stream.table)
        opened.append(sink)
        sink.open()
        sink.begin(Opening(IDENTITY, (">",)))
        return sink

    yield open_one
    for sink in opened:
        sink.close()


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
        conflicts, identical = [], 0
        for sequence, message in enumerate(story, 1):
            for index, (k, v, x) in enumerate(message):
                values = [k, v, None if x is None else json.dumps(x)]
                try:
                    with connection.transaction():
                        connection.execute("INSERT INTO numbers (k, v, x) VALUES (%s, %s, %s)", values)
                        connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                except (psycopg.errors.UniqueViolation, psycopg.errors.ExclusionViolation):
                    (there,) = connection.execute(
                        "SELECT count(*) FROM numbers WHERE k IS NOT DISTINCT FROM %s AND x::text IS NOT DISTINCT FROM "
                        '%s::jsonb::text AND v COLLATE "C" IS NOT DISTINCT FROM %s',
                        [values[0], values[2], values[1]],
                    ).fetchone() or (0,)
                    identical += bool(there)
                    if not there:
                        conflicts.append((sequence, index))
        found = rows(connection)
    return found, conflicts, identical


ROWS = st.tuples(
    st.none() | st.integers(0, 4), st.sampled_from([None, "a", "A", "free"]), st.sampled_from([None, {"a": "1"}])
).map(list)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8)
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
    found, conflicts, identical = expected(connection, kind, [message for messages in story for message in messages])
    assert rows(connection) == found
    assert [letter[:3] for letter in letters(connection)] == [(*where, "conflict") for where in conflicts]
    assert total(outcomes) == {"rows": len(found), "identical": identical, "conflict": len(conflicts)}


def total(outcomes: list[Outcome]) -> dict[str, int]:
    """What became of all rows."""
    sums = {"rows": 0, "identical": 0, "conflict": 0}
    for outcome in outcomes:
        for reason, count in (("rows", outcome.rows), *outcome.skipped.items()):
            sums[reason] = sums.get(reason, 0) + count
    return sums
