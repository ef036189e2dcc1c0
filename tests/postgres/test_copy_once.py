"""What a table has beside its columns costs PostgreSQL work, and us no second statement."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg

from eventwriter import registry
from eventwriter.postgres.ledger import Identity
from eventwriter.stream import Batch, Message
from fix_sinks import OpenSink
from traffic import Traffic

STREAM = registry.load()["LOGS"]
IDENTITY = Identity("LOGS", "LOGS", datetime(2026, 1, 1, tzinfo=UTC), "writer")
INDEXED = (
    "(timestamp DESC)", "(trace_id)", "(span_id)", "(severity_number)", "(service_name, timestamp DESC)",
    "(lower(severity_text))", "(body) WHERE severity_number >= 17", "USING gin (attributes)", "USING brin (timestamp)",
)  # fmt: skip
BESIDE = """
CREATE TABLE services (name text PRIMARY KEY);
ALTER TABLE logs ADD FOREIGN KEY (service_name) REFERENCES services (name);
CREATE TABLE statements (text text, rows bigint);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN NEW.created_at := now(); RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO statements SELECT left(current_query(), 4), count(*) FROM added; RETURN NULL; END $$;
CREATE TRIGGER note AFTER INSERT ON logs REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION note();
"""


def test_one_copy_a_batch(connection: psycopg.Connection[Any], sinks: OpenSink) -> None:
    """With nine indexes beside its own, a foreign key, and triggers for rows and statements, which tell of each."""
    connection.execute(registry.table_sql("logs"))
    for columns in INDEXED:
        connection.execute(f"CREATE INDEX ON logs {columns}")
    connection.execute(BESIDE)
    sink = sinks(STREAM, IDENTITY)
    traffic = Traffic("LOGS", records=5)
    published = [traffic.next() for _ in range(400)]
    messages = [Message(p.subject, p.payload, n, 10**18 + n) for n, p in enumerate(published, 1)]
    place = [column.name for column in STREAM.columns].index("service_name")
    names = {row[place] for message in messages for row in STREAM.decode(message).rows} - {None}
    connection.execute("INSERT INTO services SELECT unnest(%s::text[])", [[*names]])
    batches = [Batch(messages[at : at + 100], range(at + 1, at + 101)) for at in range(0, 400, 100)]
    expected = [("COPY", sink.write(batch).rows) for batch in batches]
    assert sum(rows for _, rows in expected) == traffic.number
    assert connection.execute("SELECT text, rows FROM statements").fetchall() == expected
