"""The roles that `schema sql --roles` prints: each can do what it is for, and nothing else."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

import boards
from eventwriter import registry
from eventwriter.cli import cli
from eventwriter.commands import schema_apply, schema_check, schema_roles
from eventwriter.config.loading import Config
from eventwriter.embedded import PostgresServer
from eventwriter.errors import BAD_DATA, CONFIGURATION, EventWriterError
from eventwriter.postgres.ledger import Done, Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.retention import Retention
from eventwriter.postgres.session import Session
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Message
from fix_servers import ONE_LETTER, login, new_database
from fix_service import STREAMS
from traffic import Traffic

DECLARED = registry.load()
SPECIAL = (
    "CREATE SEQUENCE numbering; CREATE FUNCTION fits(text) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT true'; "
    "ALTER TABLE logs ADD number bigint DEFAULT nextval('numbering'), ADD CHECK (fits(body)); "
    "CREATE UNIQUE INDEX once ON otel_traces (span_id); CREATE TABLE elsewhere (a text)"
)
"""What an operator may have added."""


class Place(NamedTuple):
    """A database with all tables and roles, and what connects to it."""

    connection: psycopg.Connection[Any]
    """Of the superuser."""
    writer: Config
    reader: Config
    operator: Config


def settings(dsn: str) -> Config:
    """Those of somebody who connects so."""
    return boards.settings(POSTGRES__DSN=dsn, DEAD_LETTERS__KEEP="60s")


@pytest.fixture(scope="module")
def place(postgres_server: PostgresServer) -> Iterator[Place]:
    """As an operator makes it, who takes from everybody what nobody else needs: the owner applies the schema, and the
    script is run before it and after it."""
    with new_database(postgres_server) as database, psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"REVOKE TEMPORARY ON DATABASE {connection.info.dbname} FROM PUBLIC")

        def run() -> None:
            connection.execute("\n".join(schema_roles.roles(settings(database), DECLARED)))

        run()
        owner = settings(login(database, "an_owner", "eventwriter_owner"))
        for _ in range(2):
            assert "applied logs" in list(schema_apply.apply(owner, DECLARED))
            connection.execute("ALTER TABLE logs DROP COLUMN IF EXISTS source")
        assert "added column source to logs" in list(schema_apply.apply(owner, DECLARED))
        connection.execute(SPECIAL)
        run()
        roles = [
            settings(login(database, f"a_{role}", f"eventwriter_{role}")) for role in ("writer", "reader", "operator")
        ]
        yield Place(connection, *roles)


def messages(stream: str, count: int = 40) -> list[Message]:
    """Mixed traffic with broken messages, and all of it once more."""
    traffic = Traffic(stream, records=3, broken=0.1)
    published = [traffic.next() for _ in range(count)]
    return [
        Message(each.subject, each.payload, number, 1_765_535_400_000_000_000 + number)
        for number, each in enumerate([*published, *published], 1)
    ]


@pytest.mark.parametrize("stream", STREAMS)
def test_the_writer_can_do_its_work(place: Place, stream: str) -> None:
    """Rows, repeated keys, refused rows, dead letters, and all that a worker does with its ledger."""
    table = DECLARED[stream].table
    place.connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT no CHECK (hashtext({table}::text) % 10 < 4)")
    sink = Sink(place.writer.postgres, DECLARED[stream], table)
    try:
        sink.open()
        identity = Identity(stream, stream, datetime(2026, 1, 1, tzinfo=UTC), "w")
        sink.begin(Opening(identity, (">",)))
        sink.begin(Opening(identity, DECLARED[stream].subjects))
        sink.begin(Opening(replace(identity, durable="w2"), (">",), continues="w"))
        every = messages(stream)
        outcomes = [sink.write(Batch(part, [m.sequence for m in part])) for part in (every[:40], every[40:])]
        assert sum(each.written + each.deadlettered for each in outcomes) == 80
        assert sum((Counter(each.rejects) for each in outcomes), Counter[str]())["refused"] > 0
        with sink.session.connection() as connection:
            sink.ledger.close(connection, [(100, 110)])
            sink.ledger.forget(connection, [(105, 110)], everybody=False)
            sink.ledger.lose(connection, (120, 130), None)
            sink.ledger.lose(connection, (120, 131), None)
            sink.ledger.missing(connection, 1, 200)
            assert sink.ledger.record(connection, [(140, 140)], Done())
            assert sink.ledger.claim(connection, uuid4(), 1.0)
        assert sink.look().lost == 12
    finally:
        sink.close()
        place.connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT no")
    session = Session(place.writer.postgres, stream)
    session.open()
    try:
        place.connection.execute("UPDATE eventwriter.dead_letter_messages SET created_at = '2026-01-01'")
        Retention(session, stream, 60.0).step()
    finally:
        session.close()
    left = "SELECT count(*) FROM eventwriter.dead_letters WHERE logical_stream = %s"
    assert place.connection.execute(left, [stream]).fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT body FROM logs", "SELECT 1 FROM netflow_metrics", "SELECT payload FROM eventwriter.dead_letters",
        "DROP TABLE logs", "DROP SCHEMA eventwriter CASCADE", "TRUNCATE events", "DELETE FROM events",
        "DELETE FROM eventwriter.ledger", "TRUNCATE eventwriter.ledger", "UPDATE logs SET body = ''",
        "ALTER TABLE events ADD a text", "CREATE TABLE mine (a text)", "CREATE SCHEMA mine",
        "CREATE TABLE eventwriter.mine (a text)", "INSERT INTO elsewhere VALUES ('a')", "SELECT * FROM elsewhere",
        "CREATE TRIGGER t BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "DELETE FROM eventwriter.dead_letter_records", "COPY logs TO STDOUT",
    ],
)  # fmt: skip
def test_the_writer_can_do_nothing_else(place: Place, statement: str) -> None:
    """Neither read what it need not, nor drop, nor write elsewhere."""
    with (
        psycopg.connect(str(place.writer.postgres.dsn), autocommit=True) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement)


def test_each_grant_that_is_lacking_is_named(place: Place) -> None:
    """With all of them there is nothing to tell; with any one less `schema check` names it, and exits with 78."""
    assert [found for found in schema_check.check(place.writer, DECLARED) if not found.ok] == []
    script = "\n".join(schema_roles.roles(place.writer, DECLARED))
    grants = re.findall(r"^GRANT (.*) ON (\w+) (.*) TO eventwriter_writer;$", script, re.MULTILINE)
    assert {kind for _, kind, _ in grants} == {"DATABASE", "LANGUAGE", "SCHEMA", "TABLE", "SEQUENCE", "FUNCTION"}
    single = [(privilege, kind, target) for each, kind, target in grants for privilege in each.split(", ")]
    assert len(single) > 30
    try:
        for privilege, kind, target in single:
            if privilege == "CONNECT":  # without it there is nobody to ask: below
                continue
            what = f"{privilege} ON {kind} {target}"
            place.connection.execute(f"REVOKE {what} FROM PUBLIC; REVOKE {what} FROM eventwriter_writer")
            # Those whose table it is; of what all need, one with a key and one without tell.
            mine = [name for name, each in DECLARED.items() if target.endswith(each.table)] or ["EVENTS", "LOGS"]
            asked = replace(place.writer, streams={name: place.writer.streams[name] for name in mine})
            lacks = [found for found in schema_check.check(asked, DECLARED) if not found.ok]
            assert lacks, what
            assert all(found.exit_code == CONFIGURATION for found in lacks)
            shown = target.removeprefix("public.") if kind == "TABLE" else target
            named = f"role a_writer lacks {privilege} on {kind.lower()} {shown}: GRANT {what} TO a_writer"
            assert all(found.text.startswith(named) for found in lacks), (what, lacks)
            place.connection.execute(f"GRANT {what} TO eventwriter_writer")
            if kind in ("DATABASE", "LANGUAGE", "FUNCTION") or target == "public":
                place.connection.execute(f"GRANT {what} TO PUBLIC")
    finally:
        place.connection.execute(script)
    assert [found for found in schema_check.check(place.writer, DECLARED) if not found.ok] == []


@pytest.mark.parametrize(
    "privilege", ["CONNECT ON DATABASE {}", "INSERT ON TABLE public.logs", "TEMPORARY ON DATABASE {}"]
)
def test_what_is_lacking_exits_with_78(place: Place, privilege: str) -> None:
    """From outside; and JSON says the same."""
    what = privilege.format(place.connection.info.dbname)
    place.connection.execute(f"REVOKE {what} FROM PUBLIC; REVOKE {what} FROM eventwriter_writer")
    try:
        for options in ((), ("--output", "json")):
            status, said = command(place.writer, "schema", "check", *options)
            assert (status, f"GRANT {what.partition(' ')[0]} ON" in said) == (CONFIGURATION, True), said
    finally:
        place.connection.execute(f"GRANT {what} TO eventwriter_writer")
    status, said = command(place.writer, "schema", "check", "--output", "json")
    assert (status, json.loads(said)["ok"]) == (0, True)


def test_columns_are_enough(place: Place) -> None:
    """Who may insert into those columns alone that are written lacks nothing; into one less, that one's table."""
    columns = [column.name for column in DECLARED["NETFLOW"].columns]
    netflow = place.writer.streams["NETFLOW"]
    with psycopg.connect(str(place.writer.postgres.dsn), autocommit=True) as connection:
        try:
            place.connection.execute("REVOKE INSERT ON netflow_metrics FROM eventwriter_writer")
            place.connection.execute(f"GRANT INSERT ({', '.join(columns)}) ON netflow_metrics TO eventwriter_writer")
            assert all(found.ok for found in schema_check.check_table(connection, netflow, DECLARED["NETFLOW"]))
            place.connection.execute(f"REVOKE INSERT ({columns[-1]}) ON netflow_metrics FROM eventwriter_writer")
            found = schema_check.check_table(connection, netflow, DECLARED["NETFLOW"])
            assert "lacks INSERT on table netflow_metrics" in found[-1].text
        finally:
            place.connection.execute("GRANT INSERT ON netflow_metrics TO eventwriter_writer")


def command(config: Config, *arguments: str) -> tuple[int, str]:
    """The exit status of a command that this role runs, and what it says."""
    environment = {"EVENTWRITER_POSTGRES__DSN": str(config.postgres.dsn)}
    done = CliRunner(env=environment).invoke(cli, arguments)
    if isinstance(done.exception, EventWriterError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    return done.exit_code, done.stdout


def test_dead_letters_have_readers_and_operators(place: Place, tmp_path: Path) -> None:
    """A reader looks and exports; an operator replays, imports and removes, too, and accepts what is lost."""
    place.connection.execute("TRUNCATE eventwriter.ledger, eventwriter.dead_letter_messages, events CASCADE")
    place.connection.execute("ALTER TABLE events ADD CONSTRAINT no CHECK (hashtext(events::text) % 2 = 0)")
    sink = Sink(place.writer.postgres, DECLARED["EVENTS"], "events")
    try:
        sink.open()
        identity = Identity("EVENTS", "EVENTS", datetime(2026, 1, 1, tzinfo=UTC), "eventwriter-events")
        sink.begin(Opening(identity, (">",)))
        sink.write(Batch(messages("EVENTS"), range(1, 81)))
    finally:
        sink.close()
        place.connection.execute("ALTER TABLE events DROP CONSTRAINT no")
    file = tmp_path / "letters"
    number = place.connection.execute("SELECT max(id) FROM eventwriter.dead_letter_records").fetchone()
    assert number is not None
    for who in (place.reader, place.operator):
        for arguments in (["list"], ["list", "--summary"], ["show", str(number[0])]):
            status, said = command(who, "dlq", *arguments)
            assert (status, "refused" in said or "malformed" in said) == (0, True), said
    assert command(place.reader, "schema", "version")[0] == 0
    status, exported = command(place.reader, "dlq", "export", "--stream", "EVENTS")
    assert status == 0
    file.write_text(exported)
    changes = (["replay", "--stream", "EVENTS"], ["purge", "--all", "--yes"], ["import", str(file)])
    for arguments in changes:
        status, said = command(place.reader, "dlq", *arguments)
        assert status == CONFIGURATION
        assert "permission denied" in said or "GRANT" in said, (arguments, said)
    for arguments in changes:
        status, said = command(place.operator, "dlq", *arguments)
        assert status in (0, BAD_DATA), (arguments, said)  # what is malformed is so again
    other = ["--from", "eventwriter-events", "--to", "w2"]
    for arguments in (["ledger", "accept"], ["ledger", "copy", *other]):
        status, said = command(place.writer, *arguments, "--stream", "EVENTS")
        assert status == 0, (arguments, said)


@pytest.mark.parametrize(
    ("who", "arguments", "needed"),
    [
        ("writer", ["dlq", "list", "--summary"], "reader"),
        ("writer", ["dlq", "show", "1"], "reader"),
        ("writer", ["dlq", "export"], "reader"),
        ("writer", ["dlq", "purge", "--all", "--yes"], "operator"),
        ("writer", ["dlq", "replay"], "operator"),
        ("reader", ["dlq", "purge", "--all", "--yes"], "operator"),
        ("reader", ["dlq", "import"], "operator"),
        ("reader", ["ledger", "accept", "--stream", "LOGS"], "writer"),
        ("reader", ["ledger", "copy", "--stream", "LOGS", "--from", "a", "--to", "b"], "writer"),
        ("stranger", ["dlq", "list"], "reader"),
        ("stranger", ["schema", "version"], "reader"),
    ],
)
def test_who_lacks_a_role_is_told_which(
    place: Place, tmp_path: Path, who: str, arguments: list[str], needed: str
) -> None:
    """Of a command for people: `schema check` looks at what the service needs, and would find nothing."""
    place.connection.execute("TRUNCATE eventwriter.ledger, eventwriter.dead_letter_messages CASCADE")
    place.connection.execute(ONE_LETTER)
    (tmp_path / "letters").write_text(command(place.reader, "dlq", "export")[1])
    if arguments[-1] == "import":
        arguments = [*arguments, str(tmp_path / "letters")]
    stranger = settings(login(str(place.reader.postgres.dsn).replace("a_reader", "postgres"), "a_stranger"))
    place.connection.execute(f"GRANT CONNECT ON DATABASE {place.connection.info.dbname} TO PUBLIC")
    status, said = command(stranger if who == "stranger" else getattr(place, who), *arguments)
    assert (status, "42501" in said) == (CONFIGURATION, True), said
    assert f"this takes the role eventwriter_{needed} of `eventwriter schema sql --roles`" in said
    assert "schema check" not in said
