"""Tables that somebody else made, as hostile as they come: each row is there, equal, replaced or a dead letter.

And `schema check` had said which before a row was written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from test_constraints import IDENTITY, KEYED, PLAIN, TABLE, batch

import boards
from eventwriter import registry
from eventwriter.commands import schema_check
from eventwriter.commands.findings import Finding
from eventwriter.config.loading import StreamConfig
from eventwriter.config.model import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.errors import CONFIGURATION, TableError
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Stream
from fix_servers import login, new_database

NUMBERS = "CREATE TABLE numbers (k bigint, v text, x jsonb); "
KEY = "CREATE TABLE numbers (k bigint PRIMARY KEY, v text, x jsonb); "
BASE = "CREATE TABLE base (k bigint, v text, x jsonb); CREATE VIEW numbers AS SELECT * FROM base; "
ALSO = "CREATE TABLE log (k bigint); CREATE RULE also AS ON INSERT TO numbers DO ALSO INSERT INTO log VALUES (NEW.k)"
PARTS = "CREATE TABLE numbers (k bigint, v text, x jsonb) PARTITION BY RANGE (k); "
LOW = "CREATE TABLE low PARTITION OF numbers FOR VALUES FROM (0) TO (4); "
SECURED = "; ALTER TABLE numbers ENABLE ROW LEVEL SECURITY; "
LETTER = "becomes a dead letter, unless that is equal in all columns: then it is done"
STORY: tuple[list[list[list[Any]]], ...] = (
    [[[1, "a", None], [2, "b", {"a": "1"}]], [[3, "A", {}], [None, "d", {}]], [[70000, "long text", {}]]],
    [[[1, "a", None]], [[2, "B", None], [5, "drop", {}]], [[4, None, {"a": "1"}], [6, "f", None]]],
)
"""Two batches of messages of rows."""


def trigger(body: str, when: str = "BEFORE INSERT", level: str = "ROW", name: str = "t") -> str:
    """A trigger on the table with this body."""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$; "
        f"CREATE TRIGGER {name} {when} ON numbers FOR EACH {level} EXECUTE FUNCTION {name}(); "
    )


@dataclass
class Hostile:
    """A table, and what `schema check` says of it."""

    table: str
    said: str
    mark: str = "✓"
    gone: int = 0
    """Rows that are neither in the table nor a dead letter: equal to one that is, or replaced by a newer one."""
    stream: Stream = PLAIN
    dead: int = 0


TABLES = {
    "no key": Hostile(TABLE, "numbers: 3 columns, COPY, for it has no unique key", dead=0),
    "column defaults": Hostile(
        "CREATE TABLE numbers (id serial, k bigint, v text, x jsonb, at timestamptz DEFAULT now(), gone text)",
        "not filled by the stream, but with what is in brackets: "
        "id (nextval('numbers_id_seq'::regclass)), at (now()), gone (NULL)",
    ),
    "alias": Hostile(
        "CREATE TABLE numbers (number bigint, v text, x jsonb)", "writes k to number, v, x",
        stream=replace(PLAIN, columns=(replace(PLAIN.columns[0], aliases=("number",)), *PLAIN.columns[1:])),
    ),
    "missing column": Hostile("CREATE TABLE numbers (k bigint, v text)", "written without x: `eventwriter schema", "!"),
    "generated column": Hostile(
        "CREATE TABLE numbers (k bigint, v text, x jsonb GENERATED ALWAYS AS ('{}') STORED)",
        "written without x (generated), whose values are PostgreSQL's: streams.NUMBERS.omit names what is not", "!",
    ),
    "identity of its own": Hostile(
        "CREATE TABLE numbers (k bigint GENERATED ALWAYS AS IDENTITY, v text, x jsonb)",
        "written without k (an identity of its own), whose values", "!",
    ),
    "narrow text": Hostile(
        "CREATE TABLE numbers (k bigint, v varchar(5), x json)",
        "other types than the stream's: v is character varying(5) for text: longer is a dead letter; "
        "x is json for jsonb: takes every value", dead=1,
    ),
    "narrow number": Hostile(
        "CREATE TABLE numbers (k smallint, v text, x text)",
        "k is smallint for integer: beyond 16 bits is a dead letter; x is text for jsonb: takes every value", dead=1,
        stream=replace(PLAIN, columns=(replace(PLAIN.columns[0], type="integer"), *PLAIN.columns[1:])),
    ),
    "not null": Hostile(
        "CREATE TABLE numbers (k bigint NOT NULL, v text NOT NULL, x jsonb)",
        "a row without k, v (NOT NULL) becomes a dead letter", dead=2,
    ),
    "check": Hostile(
        NUMBERS + "ALTER TABLE numbers ADD CONSTRAINT small CHECK (k < 100)",
        "what check small refuses becomes a dead letter", dead=1,
    ),
    "foreign key": Hostile(
        "CREATE TABLE known (k bigint PRIMARY KEY); INSERT INTO known SELECT generate_series(1, 5); "
        "CREATE TABLE numbers (k bigint CONSTRAINT fk REFERENCES known, v text, x jsonb)",
        "what foreign key fk refuses becomes a dead letter", dead=2,
    ),
    "unique": Hostile(
        NUMBERS + "CREATE UNIQUE INDEX once ON numbers (k)", f"a row that meets another one by once (k) {LETTER}",
        gone=1, dead=1,
    ),
    "partial": Hostile(
        NUMBERS + "CREATE UNIQUE INDEX once ON numbers (k) WHERE v <> 'B'",
        f"a row that meets another one by once (k where (v <> 'B'::text)) {LETTER}", gone=1,
    ),
    "expression": Hostile(
        NUMBERS + "CREATE UNIQUE INDEX once ON numbers (lower(v))",
        f"a row that meets another one by once (lower(v)) {LETTER}", gone=1, dead=2,
    ),
    "exclusion": Hostile(
        NUMBERS + "ALTER TABLE numbers ADD CONSTRAINT apart EXCLUDE USING gist (int8range(k, k, '[]') WITH &&)",
        f"a row that meets another row that excludes it by apart (int8range(k, k, '[]'::text)) {LETTER}",
        gone=1, dead=2,
    ),
    "exclusion of a part": Hostile(
        NUMBERS + "ALTER TABLE numbers ADD CONSTRAINT apart EXCLUDE USING hash (v WITH =) WHERE (k > 0)",
        f"a row that meets another row that excludes it by apart (v where (k > 0)) {LETTER}", gone=1,
    ),
    "deferrable": Hostile(
        NUMBERS + "ALTER TABLE numbers ADD CONSTRAINT late UNIQUE (k) DEFERRABLE INITIALLY DEFERRED",
        "no row replaces another, though the latest of (k) should: late is deferrable, which", "!",
        stream=KEYED, gone=1, dead=1,
    ),
    "replaced": Hostile(
        KEY, "numbers: 3 columns, by way of a temporary table, for the latest row of a key replaces",
        stream=KEYED, gone=2, dead=1,
    ),
    "two keys": Hostile(
        KEY + "CREATE UNIQUE INDEX also ON numbers (v)",
        "that takes (k) as the only key of whole columns, and it has numbers_pkey (k), also (v)", "!",
        stream=KEYED, gone=1, dead=2,
    ),
    "second key of an expression": Hostile(
        KEY + "CREATE UNIQUE INDEX also ON numbers (lower(v))",
        f"a row that meets another one by also (lower(v)) {LETTER}", stream=KEYED, gone=2, dead=2,
    ),
    "key of a partition": Hostile(
        PARTS + LOW + "CREATE UNIQUE INDEX once ON low (v); CREATE TABLE rest PARTITION OF numbers DEFAULT",
        f"a row that meets another one by once (v) of partition low {LETTER}", gone=1,
    ),
    "trigger that leaves out": Hostile(
        NUMBERS + trigger("IF NEW.v = 'drop' THEN RETURN NULL; END IF; RETURN NEW;"),
        "trigger t of each row: may change a row; one that it leaves out or refuses becomes a dead letter", dead=1,
    ),
    "trigger that raises": Hostile(
        NUMBERS + trigger("IF NEW.v = 'drop' THEN RAISE unique_violation; END IF; RETURN NULL;", "AFTER INSERT"),
        "trigger t of each row: a row that it refuses becomes a dead letter; it has the rights of role some", dead=1,
    ),
    "trigger of statements": Hostile(
        NUMBERS + trigger("IF EXISTS (SELECT FROM n WHERE v = 'drop') THEN RAISE 'no'; END IF; RETURN NULL;",
                          "AFTER INSERT", "STATEMENT").replace("FOR EACH", "REFERENCING NEW TABLE AS n FOR EACH"),
        "trigger t of each statement: a row that it refuses becomes a dead letter", dead=1,
    ),
    "trigger on update": Hostile(
        KEY + trigger("IF NEW.v = 'B' THEN RETURN NULL; END IF; RETURN NEW;", "BEFORE UPDATE"),
        "trigger t of each row: may change a row; one that it leaves out", stream=KEYED, gone=1, dead=2,
    ),
    "rule": Hostile(
        NUMBERS + "CREATE RULE off AS ON INSERT TO numbers WHERE NEW.v = 'drop' DO INSTEAD NOTHING",
        "rule off: COPY passes it over; where rows are tried one by one, what it leaves out becomes a dead letter", "!",
    ),
    "rule and check": Hostile(
        NUMBERS + "CREATE RULE off AS ON INSERT TO numbers WHERE NEW.v = 'drop' DO INSTEAD NOTHING; "
        "ALTER TABLE numbers ADD CHECK (k <> 6), ADD CHECK (k <> 2)", "rule off: COPY passes it over", "!", dead=4,
    ),
    "rule where rows replace": Hostile(KEY + ALSO, "replace these by triggers: also", "✗", stream=KEYED),
    "row security": Hostile(
        NUMBERS + SECURED + "CREATE POLICY small ON numbers FOR INSERT WITH CHECK (k < 100)",
        "what its policies keep out (small) becomes a dead letter; ALTER ROLE somebody BYPASSRLS", "!", dead=2,
    ),
    "row security without a policy": Hostile(
        NUMBERS + SECURED, "has no policy by which role somebody may insert: create one, or ALTER ROLE somebody", "✗",
    ),
    "row security for others": Hostile(
        KEY + SECURED + "CREATE POLICY a ON numbers TO pg_monitor; CREATE POLICY b ON numbers AS RESTRICTIVE; "
        "CREATE POLICY c ON numbers FOR UPDATE USING (true)", "has no policy by which role somebody may insert", "✗",
        stream=KEYED,
    ),
    "row security of one tenant": Hostile(
        "CREATE TABLE numbers (k bigint, v text DEFAULT 'none', x jsonb)" + SECURED
        + "CREATE POLICY mine ON numbers FOR INSERT WITH CHECK (v IN ('a', 'b'))",
        "what its policies keep out (mine) becomes a dead letter", "!", dead=7,
    ),
    "no default partition": Hostile(
        PARTS + LOW, "numbers has no default partition: a row that no partition takes becomes a", "!", dead=5,
    ),
    "no partition": Hostile(PARTS, "numbers has no default partition: a row that no partition takes", "!", dead=10),
    "view": Hostile(BASE, "numbers is a view, into which COPY takes an INSTEAD OF INSERT trigger", "✗"),
    "view with a trigger": Hostile(
        BASE + trigger("INSERT INTO base VALUES (NEW.k, NEW.v, NEW.x); RETURN NEW;", "INSTEAD OF INSERT"),
        "trigger t of each row: may change a row",
    ),
    "unlogged": Hostile("CREATE UNLOGGED TABLE numbers (k bigint, v text, x jsonb)", "UNLOGGED: a crash of", "!"),
    "published": Hostile(
        "CREATE TABLE numbers (k bigint, v text, x jsonb); CREATE UNIQUE INDEX ON numbers (k); "
        "CREATE PUBLICATION pub FOR TABLE numbers",
        "no row can be updated while it is published (pub): add a primary key, or ALTER TABLE numbers REPLICA", "✗",
        stream=KEYED,
    ),
    "other type": Hostile("CREATE TABLE numbers (k date, v text, x jsonb)", "k of table numbers is date", "✗"),
    "none of ours": Hostile("CREATE TABLE numbers (a date, b text)", "has none of the columns of stream NUMBERS", "✗"),
    "required by others": Hostile(
        "CREATE TABLE numbers (k bigint, v text, x jsonb, tenant text NOT NULL)",
        "column tenant text of table numbers is NOT NULL without a default", "✗",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(postgres_server: PostgresServer) -> Iterator[tuple[psycopg.Connection[Any], str]]:
    """A connection to a database with our own tables, and the connection string of a role there that owns nothing."""
    with new_database(postgres_server) as database, psycopg.connect(database, autocommit=True) as connection:
        dsn = login(database, "somebody")
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO somebody")
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO somebody")
        connection.execute(registry.table_sql("eventwriter"))
        connection.execute("GRANT USAGE ON SCHEMA eventwriter TO somebody")
        yield connection, dsn


CONFIGURED: StreamConfig = replace(boards.settings().streams["LOGS"], name="NUMBERS", table="numbers")


def told(dsn: str, stream: Stream) -> list[Finding]:
    """What `schema check` says."""
    with psycopg.connect(dsn) as connection:
        return schema_check.check_table(connection, CONFIGURED, stream)


def write(dsn: str, stream: Stream) -> Iterator[Any]:
    """Writes the story."""
    sink = Sink(PostgresConfig(dsn=dsn), stream, "numbers")
    try:
        sink.open()
        sink.begin(Opening(IDENTITY, (">",)))
        start = 1
        for messages in STORY:
            yield sink.write(batch(*messages, start=start))
            start += len(messages)
    finally:
        sink.close()


@pytest.mark.parametrize("kind", TABLES)
def test_what_becomes_of_rows_was_said(shared: tuple[psycopg.Connection[Any], str], kind: str) -> None:
    """Published = rows in the table + dead letters + those that are equal or were replaced; or the stream stops."""
    hostile, (connection, role) = TABLES[kind], shared
    connection.execute("DROP PUBLICATION IF EXISTS pub; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    connection.execute("GRANT USAGE ON SCHEMA public TO somebody")
    connection.execute("TRUNCATE eventwriter.ledger, eventwriter.dead_letter_messages CASCADE")
    connection.execute(hostile.table)
    findings = told(role, hostile.stream)
    assert any(found.mark == hostile.mark and hostile.said in found.text for found in findings), findings
    stops = [found for found in findings if not found.ok]
    assert bool(stops) == (hostile.mark == "✗")
    if stops:
        assert {found.exit_code for found in stops} == {CONFIGURATION}
        with pytest.raises(TableError) as caught:
            list(write(role, hostile.stream))
        assert str(caught.value) == stops[0].text
        return
    outcomes = list(write(role, hostile.stream))
    ((rows,),) = connection.execute("SELECT count(*) FROM numbers").fetchall()
    ((letters,),) = connection.execute("SELECT count(*) FROM eventwriter.dead_letters").fetchall()
    published = sum(len(message) for messages in STORY for message in messages)
    assert (rows, letters, hostile.gone) == (published - hostile.dead - hostile.gone, hostile.dead, hostile.gone)
    done = sum((Counter(each.skipped) for each in outcomes), Counter(rows=sum(each.rows for each in outcomes)))
    assert done["rows"] + done["identical"] + done["superseded"] == published - letters


def test_a_hypertable_is_told(shared: tuple[psycopg.Connection[Any], str]) -> None:
    """Its chunks are not looked at one by one. (Made of what TimescaleDB shows of itself, which is not here.)"""
    connection, role = shared
    connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO somebody")
    connection.execute(
        "CREATE TABLE numbers (k bigint UNIQUE, v text, x jsonb); CREATE SCHEMA _timescaledb_internal; "
        "CREATE TABLE _timescaledb_internal.chunk (UNIQUE (k), CHECK (k < 9)) INHERITS (numbers); "
        "CREATE SCHEMA timescaledb_information; GRANT USAGE ON SCHEMA timescaledb_information TO somebody; "
        "CREATE VIEW timescaledb_information.hypertables AS SELECT 'public'::name AS hypertable_schema, "
        "'numbers'::name AS hypertable_name, 12::bigint AS num_chunks, true AS compression_enabled; "
        "CREATE VIEW timescaledb_information.dimensions AS SELECT 'public'::name AS hypertable_schema, "
        "'numbers'::name AS hypertable_name, 1::bigint AS dimension_number, 'at'::name AS column_name, "
        "interval '7 days' AS time_interval, NULL::bigint AS integer_interval, NULL::smallint AS num_partitions"
    )
    try:
        texts = [found.text for found in told(role, PLAIN)]
    finally:
        connection.execute("DROP SCHEMA _timescaledb_internal, timescaledb_information CASCADE")
    assert "hypertable of 12 chunks by 7 days of at; a late row of a compressed chunk costs more" in texts
    assert not any("chunk_" in text or "check " in text for text in texts), texts
