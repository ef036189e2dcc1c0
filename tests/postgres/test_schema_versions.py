"""Our own schema has a version, which is recorded; a database of any release gets the latest."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from eventwriter import __version__, cli, registry
from eventwriter.errors import EventWriterError
from tables import ALL, apply, catalog

SAMPLES = Path(__file__).resolve().parents[1] / "support" / "samples"
RELEASES = sorted(SAMPLES.glob("release_*.sql"))
"""What `schema sql` of each released version printed."""
LATER = "ALTER TABLE eventwriter.ledger ADD COLUMN IF NOT EXISTS later integer NOT NULL DEFAULT 7;"


@pytest.fixture
def db(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty database."""
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def version(connection: psycopg.Connection[Any], *options: str) -> Result:
    """`eventwriter schema version`."""
    return CliRunner().invoke(cli.cli, ["--postgres-dsn", connection.info.dsn, "schema", "version", *options])


def record(connection: psycopg.Connection[Any]) -> Sequence[tuple[Any, ...]]:
    """What was applied."""
    return connection.execute("SELECT version, release FROM eventwriter.schema_versions ORDER BY 1").fetchall()


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_every_release_is_migrated(db: psycopg.Connection[Any], release: Path) -> None:
    """With what is in the tables, to what a new database has; a second time nothing is done."""
    apply(db)
    fresh = catalog(db)
    db.execute("DROP SCHEMA eventwriter CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    db.execute(release.read_text())
    db.execute("INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable, done) "
               "VALUES ('LOGS', 'LOGS', now(), 'd', '{[1,5)}')")  # fmt: skip
    db.execute("INSERT INTO logs (timestamp) VALUES (now())")
    told = version(db)
    assert told.exit_code == 78
    assert "version 1, of a release that kept no record; `eventwriter schema apply` brings it" in told.stdout
    assert apply(db) == ["schema eventwriter is version 1", *ALL]
    assert catalog(db) == fresh
    assert db.execute("SELECT done::text FROM eventwriter.ledger, logs").fetchall() == [("{[1,5)}",)]
    assert apply(db) == ALL
    assert record(db) == [(1, __version__)]


def test_a_later_version(db: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Is applied to a database of an earlier one; an earlier release touches nothing then."""
    assert version(db).stdout == "schema eventwriter: not there; `eventwriter schema apply` brings it to version 1\n"
    apply(db)
    assert version(db).exit_code == 0
    db.execute("INSERT INTO eventwriter.ledger (logical_stream, stream, stream_created, durable) "
               "VALUES ('LOGS', 'LOGS', now(), 'd')")  # fmt: skip
    texts = registry.own_versions()
    with monkeypatch.context() as patch:
        patch.setattr(registry, "own_versions", lambda: [*texts, LATER])
        assert "`eventwriter schema apply` brings it to version 2" in version(db).stdout
        assert apply(db)[0] == "schema eventwriter is version 2"
        assert record(db) == [(1, __version__), (2, __version__)]
        assert apply(db) == ALL
        assert version(db).exit_code == 0
    assert db.execute("SELECT later FROM eventwriter.ledger").fetchall() == [(7,)]
    told = version(db, "--output", "json")
    assert told.exit_code == 78
    found = json.loads(told.stdout)
    assert (found["version"], found["latest"], found["current"]) == (2, 1, False)
    before = catalog(db)
    with pytest.raises(EventWriterError) as caught:
        apply(db)
    assert "schema eventwriter is version 2, made by release" in str(caught.value)
    assert "7 of 8 are applied" in str(caught.value)
    assert catalog(db) == before


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE eventwriter.ledger CASCADE",
        "ALTER TABLE eventwriter.ledger DROP COLUMN newest_time",
        "DROP INDEX eventwriter.ledger_past_ledger; DROP VIEW eventwriter.dead_letters",
        "DROP TABLE eventwriter.schema_versions",
        "TRUNCATE eventwriter.schema_versions",
    ],
)
def test_the_record_is_not_believed_blindly(db: psycopg.Connection[Any], damage: str) -> None:
    """What somebody dropped is missing, and comes back."""
    apply(db)
    whole = catalog(db)
    db.execute(damage)
    assert version(db).exit_code == 78
    assert apply(db)[0] == "schema eventwriter is version 1"
    assert {row[:4] for row in catalog(db)} >= {row[:4] for row in whole}
    assert version(db).exit_code == 0
    assert apply(db) == ALL
