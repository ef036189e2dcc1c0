"""`eventwriter dlq`: what cannot become a row can be found, looked at, replayed, removed, and kept in a file."""

from __future__ import annotations

import json
import re
import signal
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from compression import gz
from eventwriter.embedded import PostgresServer
from eventwriter.postgres import deadletters
from eventwriter.postgres.binary import JsonbDumper
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening, open_ledger
from eventwriter.stream import Message, Reject
from fix_service import CRASHED, ROOT, STREAMS, World, only, wait_until
from traffic import Publication, Traffic

POINTS = ("after_decode", "in_copy", "after_copy", "after_dead_letters", "after_mark", "after_commit")
SMALL: dict[str, Any] = {"EVENTWRITER_WRITER__BATCH_MESSAGES": "10"}


def logs(*bodies: Any, subject: str = "logs.app") -> Publication:
    """A message of LOGS with a record for each body; a body that is no text makes a broken record."""
    records = [{"message": body} if isinstance(body, str) else body for body in bodies]
    return Publication(subject, json.dumps(records).encode(), ())


def bodies(world: World) -> list[str]:
    """What is in the table, sorted."""
    return sorted(row[0] for row in world.query("SELECT body FROM logs"))


def listed(world: World, *options: str) -> Any:
    """The letters, or kinds of them, as JSON tells of them."""
    return json.loads(world.run("dlq", "list", "--output", "json", *options).stdout)


def documented(command: str) -> set[str]:
    """The names in the shape that the documentation has for a command."""
    text = (ROOT / "docs" / "dead-letters.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith(f"| `{command}` |"))
    return set(re.findall(r'"(\w+)"', row))


def written(world: World, *messages: Publication, stream: str = "LOGS") -> None:
    """Publishes, and lets a worker write it."""
    world.publish(stream, messages)
    process = world.start("worker", "--stream", stream)
    world.wait_settled()
    assert world.stop(process) == 0


def test_dead_letters_from_the_command_line(world: World) -> None:
    """List, show, purge, export and import, by stream, reason and age."""
    world.traffic(["LOGS"], count=50, broken=0.2)
    world.traffic(["EVENTS"], count=50, broken=0.2)
    service = world.start(**only("LOGS", "EVENTS"))
    world.wait_settled()
    assert world.stop(service) == 0
    broken = sum(message.rejects for message in world.published["LOGS"])

    letters = listed(world, "--stream", "logs")
    assert len(letters) == broken
    assert documented("dlq list") == set(letters[0])
    assert documented("dlq list --summary") == set(listed(world, "--summary")[0])
    assert {letter["logical_stream"] for letter in letters} == {"LOGS"}
    text = world.run("dlq", "list").stdout
    assert "LOGS" in text
    assert "EVENTS" in text
    assert sum(kind["letters"] for kind in listed(world, "--summary", "--stream", "LOGS")) == broken
    assert "LOGS" in world.run("dlq", "list", "--summary").stdout
    assert len(listed(world, "--since", "1h", "--limit", "3")) == 3
    assert listed(world, "--older-than", "1h") == listed(world, "--sqlstate", "22003") == []
    assert listed(world, "--stream", "LOGS", "--reason", letters[0]["reason"])
    for wrong in (["--limit", "0"], ["--limit", "-1"], ["--limit", "many"], ["--since", "soon"], ["--stream", "LOG"]):
        assert world.run("dlq", "list", *wrong, check=False).returncode == 64, wrong

    shown = json.loads(world.run("dlq", "show", str(letters[0]["id"]), "--output", "json").stdout)
    assert shown["subject"].startswith("logs.")
    assert {*letters[0], "headers", "decoded"} <= set(shown)
    assert shown.get("payload") or shown.get("payload_base64")
    assert any("reject" in record for record in shown["decoded"])
    assert "bytes of" in world.run("dlq", "show", str(letters[0]["id"])).stdout
    assert world.run("dlq", "show", "999999", check=False).returncode == 64

    file = world.folder / "letters.jsonl"
    file.write_text(world.run("dlq", "export").stdout)
    assert "imported 0 dead letters" in world.run("dlq", "import", str(file)).stdout
    asked = world.run("dlq", "purge", check=False)
    assert asked.returncode == 64
    assert "--all" in asked.stderr
    assert world.run("dlq", "purge", "--stream", "LOGS", check=False).returncode == 130  # nobody says yes
    assert "removed 0" in world.run("dlq", "purge", "--older-than", "1h", "--yes").stdout
    assert f"removed {broken}" in world.run("dlq", "purge", "--stream", "LOGS", "--yes").stdout
    rest = world.query("SELECT DISTINCT logical_stream FROM eventwriter.dead_letters")
    assert rest == [("EVENTS",)]
    assert f"imported {broken} dead letters" in world.run("dlq", "import", str(file)).stdout
    assert world.run("dlq", "export").stdout == file.read_text()
    assert world.run("dlq", "purge", "--all", "--yes").returncode == 0
    assert world.query("SELECT count(*) FROM eventwriter.dead_letter_messages") == [(0,)]


def test_what_a_table_refused_is_written_once_the_table_takes_it(world: World) -> None:
    """After ALTER TABLE: every record is a row once, whatever else its message holds, and no letter is left."""
    world.execute("ALTER TABLE logs ADD CONSTRAINT short CHECK (length(body) < 10)")
    messages = [logs("short", "much too long", "tiny"), logs("also much too long"), logs("fine"), logs("x", 3, "y")]
    written(world, *messages)
    assert bodies(world) == sorted(["short", "tiny", "fine", "x", "y"])
    kinds = {(kind["reason"], kind["sqlstate"]): kind["letters"] for kind in listed(world, "--summary")}
    assert kinds.pop(("refused", "23514")) == 2
    assert sum(kinds.values()) == 1

    again = world.run("dlq", "replay", check=False)
    assert again.returncode == 65
    assert "0 of 3 dead letters replayed" in again.stdout
    assert "2 wait as before" in again.stdout
    world.execute("ALTER TABLE logs DROP CONSTRAINT short")
    tried = json.loads(world.run("dlq", "replay", "--dry-run", "--output", "json", check=False).stdout)
    assert (tried["replayed"], tried["rows"], tried["dry_run"]) == (2, 2, True)
    assert documented("dlq replay") == {*tried, *tried["left"][0]}
    assert len(listed(world)) == 3
    assert len(bodies(world)) == 5
    assert "2 of 2 dead letters replayed: 2 rows" in world.run("dlq", "replay", "--sqlstate", "23514").stdout
    expected = sorted(["short", "much too long", "tiny", "also much too long", "fine", "x", "y"])
    assert bodies(world) == expected
    assert len(listed(world)) == 1
    assert len(listed(world, "--replayed")) == 2
    assert world.run("dlq", "replay", check=False).returncode == 65
    world.run("dlq", "replay", *(str(letter["id"]) for letter in listed(world, "--replayed")))
    assert bodies(world) == expected
    assert "removed 2" in world.run("dlq", "purge", "--replayed", "--all", "--yes").stdout


UNKNOWN = Reject("malformed", "an earlier decoder did not know this form")


def kept(world: World, stream: str, messages: Sequence[Publication], first: int = 1000, why: Reject = UNKNOWN) -> None:
    """Makes messages dead letters, each for this reason, with the sequences from ``first`` on."""
    with psycopg.connect(world.dsn) as connection:
        connection.adapters.register_dumper(None, JsonbDumper)
        created = datetime(2026, 1, 1, tzinfo=UTC)
        found = connection.execute("SELECT id FROM eventwriter.ledger WHERE logical_stream = %s", [stream]).fetchone()
        opening = Opening(Identity(stream, stream, created, "w"), (">",))
        ledger = found[0] if found else open_ledger(connection, opening).row
        given = [
            (Message(each.subject, each.payload, sequence, time.time_ns(), each.headers), [why])
            for sequence, each in enumerate(messages, first)
        ]
        deadletters.write(connection, ledger, given)


@pytest.fixture
def letters(world: World) -> World:
    """40 letters of messages that an earlier decoder could not read at all, beside a row of another message."""
    written(world, logs("there"))
    kept(world, "LOGS", [logs(f"a{number:02}", f"b{number:02}") for number in range(40)])
    return world


EXPECTED = sorted(["there", *(f"{letter}{number:02}" for number in range(40) for letter in "ab")])


@pytest.mark.parametrize("number", [1, pytest.param(3, marks=pytest.mark.long)], ids=["first batch", "third batch"])
def test_a_crash_at_any_point_of_a_replay(letters: World, number: int) -> None:
    """What was committed is there, what was not waits; a last replay writes the rest, and nothing twice."""
    if number > 1:  # two of the batches are through by then
        first = [str(letter["id"]) for letter in listed(letters, "--limit", "20")]
        letters.run("dlq", "replay", *first, **SMALL)
    waiting = len(listed(letters))
    for point in POINTS:
        before = waiting
        died = letters.run("dlq", "replay", check=False, EVENTWRITER_CRASH_AT=f"LOGS:{point}", **SMALL)
        assert died.returncode == CRASHED, point
        waiting = len(listed(letters))
        assert waiting == before - (10 if point == "after_commit" else 0), point
        assert len(bodies(letters)) == 1 + 2 * (40 - waiting), point
    letters.run("dlq", "replay", **SMALL)
    assert bodies(letters) == EXPECTED
    assert listed(letters) == []


def test_a_crash_at_any_point_of_a_replay_of_any_stream(world: World) -> None:
    """Every encoding, tables with a key and without: each record is a row once, and each broken one a letter."""
    for number, name in enumerate(STREAMS):
        source = Traffic(name, seed=number, broken=0.1, records=5)
        world.published[name] = [source.next() for _ in range(30)]
        kept(world, name, world.published[name])
        twice = name in ("EVENTS", "LOGS")  # a table with a key, and one without
        for point in (POINTS[number % len(POINTS)], POINTS[-1])[: 1 + twice]:
            died = world.run("dlq", "replay", check=False, EVENTWRITER_CRASH_AT=f"{name}:{point}", **SMALL)
            assert died.returncode == CRASHED, (name, point)
    assert world.run("dlq", "replay", check=False).returncode == 65
    world.run("dlq", "purge", "--replayed", "--all", "--yes")
    world.assert_exact()


def test_an_interrupted_replay_goes_on_later_and_two_at_once_share(letters: World) -> None:
    """Ctrl-C ends it between or within transactions; what another replay has in hand is left to that."""
    with psycopg.connect(letters.dsn) as connection:
        connection.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        process = letters.start("dlq", "replay", **SMALL)
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: letters.query(waits), "the replay waits for the table")
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert len(listed(letters)) == 40
        both = [letters.start("dlq", "replay", **SMALL) for _ in range(2)]
        wait_until(lambda: len(letters.query(waits)) == 2, "both wait")
        connection.rollback()
    for each in both:
        assert each.wait(30) in (0, 65), letters.log
    letters.run("dlq", "replay")
    assert bodies(letters) == EXPECTED


def test_what_is_too_much_at_once_is_replayed_in_parts(letters: World) -> None:
    """And what is too much alone waits; what only shows at the commit is found before it, in a dry run, too."""
    letters.execute(
        "CREATE FUNCTION many() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF (SELECT count(*) FROM added) > 5 THEN "
        "RAISE EXCEPTION 'no more' USING ERRCODE = '53200'; END IF; RETURN NULL; END $$;"
        "CREATE TRIGGER many AFTER INSERT ON logs REFERENCING NEW TABLE AS added FOR EACH STATEMENT "
        "EXECUTE FUNCTION many();"
        "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.body IN ('b07', 'b08') THEN "
        "RAISE EXCEPTION 'not this' USING ERRCODE = CASE NEW.body WHEN 'b07' THEN '22023' ELSE '40001' END; "
        "END IF; RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW "
        "EXECUTE FUNCTION late()"
    )
    kept(letters, "LOGS", [logs(*"abcdef")], 2000)
    for options in (["--dry-run"], []):
        done = json.loads(letters.run("dlq", "replay", "--output", "json", *options, check=False).stdout)
        assert (done["replayed"], done["rows"], done["added"]) == (40, 78, 2)
        assert [(each["reason"], each["letters"]) for each in done["left"]] == [("oversized", 1)]
    assert bodies(letters) == sorted(set(EXPECTED) - {"b07", "b08"})
    left = {(1007, 1), (1008, 1), (2000, None)}
    assert {(each["sequence"], each["record_index"]) for each in listed(letters)} == left


def test_what_becomes_more_rows_than_a_transaction_may_have(world: World) -> None:
    """Few bytes may be many rows, or large ones: as many messages as there is room for come first, the rest then."""
    written(world, logs("there"))
    kept(world, "LOGS", [logs(*(f"{number}-{record}" for record in range(1000))) for number in range(120)])
    died = world.run("dlq", "replay", check=False, EVENTWRITER_CRASH_AT="LOGS:after_commit")
    assert died.returncode == CRASHED
    assert (len(listed(world)), world.query("SELECT count(*) FROM logs")) == (20, [(1 + 100_000,)])
    done = json.loads(world.run("dlq", "replay", "--output", "json").stdout)
    assert (done["selected"], done["replayed"], done["rows"], done["left"]) == (20, 20, 20_000, [])
    assert world.query("SELECT count(*), count(DISTINCT body) FROM logs") == [(1 + 120_000,) * 2]

    # Messages are taken for as large as their first records are; of these only the second is to be a row.
    large = [logs("x", f"{number:02}" + "y" * 2**20) for number in range(40)]
    packed = [Publication(each.subject, gz(each.payload), ()) for each in large]
    kept(world, "LOGS", packed, 2000, Reject("refused", "too large for an earlier table", 1))
    done = json.loads(world.run("dlq", "replay", "--output", "json").stdout)
    assert (done["selected"], done["replayed"], done["rows"], done["left"]) == (40, 40, 40, [])
    assert world.query("SELECT count(DISTINCT body) FROM logs WHERE length(body) > 1000000") == [(40,)]
    assert listed(world) == []


def test_what_is_being_replayed_is_not_removed(letters: World) -> None:
    """Neither by a person nor by its stream's worker: both would remove what has become a row."""
    with psycopg.connect(letters.dsn) as connection:
        connection.execute("SELECT FROM eventwriter.dead_letter_messages FOR UPDATE")
        connection.execute("UPDATE eventwriter.dead_letter_records SET replayed_at = now() WHERE sequence < 1010")
        process = letters.start("dlq", "purge", "--stream", "LOGS", "--yes")
        waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        wait_until(lambda: letters.query(waits), "the purge waits")
        connection.commit()
    assert process.wait(20) == 0
    assert "removed 30 dead letters" in letters.log
    assert len(listed(letters, "--replayed")) == 10


def test_records_that_a_better_decoder_rejects_are_letters_by_themselves(world: World) -> None:
    """Of a message that was one as a whole; its other records become rows."""
    written(world, logs("there"))
    message = logs("good", 3, "fine")
    kept(world, "LOGS", [message])
    kept(world, "LOGS", [message], 1001, Reject("refused", "of an earlier decoder", 7, "22003"))
    done = json.loads(world.run("dlq", "replay", "--output", "json", check=False).stdout)
    assert (done["selected"], done["replayed"], done["rows"], done["added"]) == (2, 1, 2, 1)
    assert [each["reason"] for each in done["left"]] == ["missing_record"]
    assert bodies(world) == ["fine", "good", "there"]
    found = {(each["sequence"], each["record_index"]) for each in listed(world)}
    assert found == {(1000, 1), (1001, 7)}


def test_what_no_worker_survived_is_tried_only_when_it_is_asked_for(letters: World) -> None:
    """A replay might not survive it either, and all that comes after it would wait."""
    kept(letters, "LOGS", [logs("deadly")], 999, Reject("crashes", "three workers died of it"))
    done = letters.run("dlq", "replay", check=False)
    assert done.returncode == 65
    assert "40 of 41 dead letters replayed" in done.stdout
    assert "LOGS crashes: no worker survived it" in done.stdout
    assert bodies(letters) == EXPECTED
    letters.run("dlq", "replay", str(listed(letters)[0]["id"]))
    assert bodies(letters) == sorted([*EXPECTED, "deadly"])


def test_a_replay_obeys_the_key_of_its_table(world: World) -> None:
    """An older message changes nothing where a newer one of its key was written since."""
    world.execute("ALTER TABLE events ADD CONSTRAINT short CHECK (length(type) < 10)")

    def event(number: int, kind: str) -> Publication:
        payload = {"specversion": "1.0", "id": str(number), "type": kind, "source": "s", "time": "2026-01-01T00:00:00Z"}
        return Publication("events.a", json.dumps(payload).encode(), ())

    written(world, event(1, "much too long"), event(2, "much too long"), stream="EVENTS")
    written(world, event(1, "newer"), stream="EVENTS")
    world.execute("ALTER TABLE events DROP CONSTRAINT short")
    world.run("dlq", "replay", "--stream", "events")
    assert world.query("SELECT id, type FROM events ORDER BY id") == [("1", "newer"), ("2", "much too long")]
    assert listed(world) == []


def test_a_stream_that_cannot_be_written_keeps_its_letters_and_no_other_waits_for_it(letters: World) -> None:
    """Its table is gone, or its subject is excluded by now."""
    kept = letters.run("dlq", "replay", check=False, EVENTWRITER_STREAMS__LOGS__EXCLUDE="logs.app")
    assert "40 wait as before" in kept.stdout
    assert "LOGS excluded" in kept.stdout
    letters.traffic(["EVENTS"], count=20, broken=0.3)
    process = letters.start("worker", "--stream", "EVENTS")
    wait_until(lambda: sum(letters.counts("EVENTS")) >= 20, "the events")
    letters.stop(process)
    letters.execute("DROP TABLE events")
    ended = letters.run("dlq", "replay", check=False)
    assert ended.returncode == 78
    assert "EVENTS no_table" in ended.stdout
    assert bodies(letters) == EXPECTED
    assert Counter(each["logical_stream"] for each in listed(letters)).keys() == {"EVENTS"}


def test_letters_go_to_a_database_without_their_ledger(
    letters: World, postgres_server: PostgresServer, template: str, tmp_path: Path
) -> None:
    """For trying a decoder there; the service never goes on with the ledger that they get, and nothing is lost."""
    file = tmp_path / "letters.jsonl"
    file.write_text(letters.run("dlq", "export").stdout)
    name = f"{letters.dsn.rpartition('=')[2]}_other"
    other = World(
        letters.nats, postgres_server.create_database(name, template), tmp_path,
        letters.environment | {"EVENTWRITER_POSTGRES__DSN": ""},
    )  # fmt: skip
    other.environment["EVENTWRITER_POSTGRES__DSN"] = other.dsn
    assert "imported 40 dead letters" in other.run("dlq", "import", str(file)).stdout
    assert "imported 0 dead letters, 40 were there" in other.run("dlq", "import", str(file)).stdout
    brought = [json.loads(line) for line in other.run("dlq", "export").stdout.splitlines()]
    assert {each.pop("durable") for each in brought} == {"eventwriter-logs (imported)"}
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert [{k: v for k, v in each.items() if k != "durable"} for each in kept] == brought
    other.run("dlq", "replay")
    assert len(bodies(other)) == 80
    # Here is the ledger of the letters: it knows only one of these messages.
    letters.run("dlq", "purge", "--all", "--yes")
    left_out = letters.run("dlq", "import", str(file))
    assert "imported 0" in left_out.stdout
    assert "40 are left out" in left_out.stderr
    bad = tmp_path / "bad.jsonl"
    bad.write_text(file.read_text() + '{"no": "letter"}\n')
    wrong = letters.run("dlq", "import", str(bad), check=False)
    assert wrong.returncode == 65
    assert "line 41" in wrong.stderr


def test_letters_that_were_kept_for_long_enough_are_removed(letters: World) -> None:
    """By the worker of their stream, if it is set; one that may not says so, and goes on writing."""
    letters.execute("UPDATE eventwriter.dead_letter_messages SET created_at = now() - interval '3 days' "
                    "WHERE sequence < 1030")  # fmt: skip
    letters.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not these'; END $$;"
        "CREATE TRIGGER no BEFORE DELETE ON eventwriter.dead_letter_messages EXECUTE FUNCTION no()"
    )
    keep = {"EVENTWRITER_DEAD_LETTERS__KEEP": "2d"}
    letters.grant(**keep)
    process = letters.start("worker", "--stream", "LOGS", **keep)
    wait_until(lambda: "dead letters cannot be removed" in letters.log, "it is told")
    letters.publish("LOGS", [logs("later")])
    letters.wait_settled()
    assert letters.stop(process) == 0
    assert len(listed(letters)) == 40
    letters.execute("DROP TRIGGER no ON eventwriter.dead_letter_messages")
    process = letters.start("worker", "--stream", "LOGS", **keep)
    wait_until(lambda: len(listed(letters)) == 10, "the old ones are gone")
    assert letters.stop(process) == 0
    assert letters.query("SELECT count(*) FROM eventwriter.dead_letter_messages") == [(10,)]
    assert "removed the dead letters of 30 messages" in letters.log
