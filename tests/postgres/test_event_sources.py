"""Events of two sources with one id are two events: in our table both are there, in an older one the second is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from boards import settings
from eventwriter import registry
from eventwriter.commands import schema_apply
from eventwriter.config.loading import PostgresConfig
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.postgres.steps import Wanted
from eventwriter.stream import Batch, Message, Outcome
from fix_service import STREAMS

EVENTS = registry.load()["EVENTS"]
TIME = "2026-01-02T00:00:00Z"


@pytest.fixture
def old(database: str) -> str:
    """A database with a table of ours as earlier releases made it."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        connection.execute(sql.SQL(registry.table_sql("events")))
        connection.execute("ALTER TABLE events DROP CONSTRAINT events_pkey, ALTER source DROP NOT NULL, "
                           "ALTER source DROP DEFAULT, ADD PRIMARY KEY (event_timestamp, id)")  # fmt: skip
        connection.execute("CREATE UNIQUE INDEX events_again ON events (id, event_timestamp)")
    return database


def event(source: str | None, message: str) -> dict[str, Any]:
    """A CloudEvent with this source, or a flat event without one, with one id and time."""
    if source is None:
        return {"id": "1", "time": TIME, "message": message}
    return {"specversion": "1.0", "id": "1", "type": "t", "source": source, "time": TIME, "data": {"msg": message}}


class Writer:
    """Writes batches with sequences of their own."""

    def __init__(self, dsn: str) -> None:
        self.sink = Sink(PostgresConfig(dsn=dsn), EVENTS, "events")
        self.sink.open()
        self.sink.begin(Opening(Identity("E", "e", datetime(2026, 1, 1, tzinfo=UTC), "w"), (">",)))
        self.sequence = 0

    def __call__(self, *events: dict[str, Any], earlier: bool = False) -> Outcome:
        """One message each; ``earlier`` than all that was written before."""
        messages = []
        for each in events:
            self.sequence += 1
            taken = 1_765_535_400_000_000_000 + (-1 if earlier else 1) * self.sequence * 1_000_000
            messages.append(Message("events.x", json.dumps(each).encode(), self.sequence, taken))
        return self.sink.write(Batch(messages, [message.sequence for message in messages]))


def found(dsn: str) -> tuple[Sequence[tuple[Any, ...]], Sequence[tuple[Any, ...]]]:
    """The events, and the dead letters."""
    with psycopg.connect(dsn) as connection:
        return (
            connection.execute("SELECT source, short_message FROM events ORDER BY 1, 2").fetchall(),
            connection.execute("SELECT sequence, reason FROM eventwriter.dead_letters ORDER BY 1").fetchall(),
        )


def test_sources_have_events_of_their_own(database: str) -> None:
    """In one batch and in several; the latest of a source replaces, one without a source is another."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL(registry.table_sql("eventwriter")))
        connection.execute(sql.SQL(registry.table_sql("events")))
    write = Writer(database)
    write(event("/a", "1"), event("/b", "2"), event(None, "3"))
    write(event("/a", "4"))
    outcome = write(event("/b", "5"), event("/c", "6"), event(None, "7"))
    assert (outcome.rows, outcome.rejects) == (3, {})
    assert found(database) == ([("", "7"), ("/a", "4"), ("/b", "5"), ("/c", "6")], [])


def test_in_an_older_table_another_source_is_a_conflict(old: str) -> None:
    """With the first of a batch or with a row that is there; what is late, or has the same source, is as ever."""
    write = Writer(old)
    outcome = write(event("/a", "1"), event("/b", "2"), event("/a", "3"))
    assert (outcome.rows, outcome.rejects) == (1, {"conflict": 1})
    outcome = write(event("/b", "4"), {**event("/b", "5"), "id": "2"})
    assert (outcome.rows, outcome.rejects, outcome.written, outcome.deadlettered) == (1, {"conflict": 1}, 1, 1)
    outcome = write(event("/a", "6"), event("/a", "7"))
    assert not outcome.rejects
    assert write(event("/b", "8"), earlier=True).rejects == {"conflict": 1}
    assert not write(event("/a", "9"), earlier=True).rejects
    assert found(old) == ([("/a", "7"), ("/b", "5")], [(2, "conflict"), (4, "conflict"), (8, "conflict")])


def test_no_source_in_an_older_table_is_an_empty_one(old: str) -> None:
    """Rows of earlier releases have NULL there; the events that they are of replace them."""
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("INSERT INTO events (event_timestamp, id) VALUES (%s, '1')", [TIME])
    assert not Writer(old)(event(None, "1")).rejects
    assert found(old) == ([("", "1")], [])


def test_an_older_table_gets_the_present_key_on_request(old: str) -> None:
    """What would be done is told before; a sink that is at work goes on, and the rows that are there stay."""
    write = Writer(old)
    write(event("/a", "1"), {**event(None, "2"), "id": "2"})
    with psycopg.connect(old, autocommit=True) as connection:
        connection.execute("UPDATE events SET source = NULL WHERE source = ''")
    others = {f"STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "EVENTS"}
    configured = settings(POSTGRES__DSN=old, **others)
    told, would = [line for line in schema_apply.apply(configured, {"EVENTS": EVENTS}) if "key" in line]
    assert "has the key (event_timestamp, id)" in told
    assert would.startswith("`eventwriter schema apply --new-keys` would do: ALTER TABLE events DROP CONSTRAINT")
    assert would.endswith("; ALTER TABLE events ADD PRIMARY KEY (event_timestamp, id, source)")
    assert write(event("/b", "3")).rejects == {"conflict": 1}
    done = [*schema_apply.apply(configured, {"EVENTS": EVENTS}, Wanted(new_keys=True))]
    assert "events has the key (event_timestamp, id, source) now, not (event_timestamp, id)" in done
    assert not [
        line for line in schema_apply.apply(configured, {"EVENTS": EVENTS}, Wanted(new_keys=True)) if "key" in line
    ]
    assert not write(event("/b", "4")).rejects
    assert found(old)[0] == [("", "2"), ("/a", "1"), ("/b", "4")]
