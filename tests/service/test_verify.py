"""`eventwriter verify` and `replay`: what is missing is told exactly, and written once, whatever else goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from typing import Any

import pytest
from nats.js.api import RetentionPolicy, StreamConfig

import go_writer
import reference
from eventwriter import registry
from fix_failover import load, wait_complete
from fix_service import World, only, wait_until
from traffic import NUMBER, Publication, Traffic

TABLE = {name: stream.table for name, stream in registry.load().items()}


def lines(first: int, count: int) -> list[Publication]:
    """Messages of LOGS with a record each, numbered like their sequences."""
    source = Traffic("LOGS", only="json", number=first - 1)
    return [source.next() for _ in range(count)]


def told(done: subprocess.CompletedProcess[str], status: int) -> Any:
    """What a command printed as JSON, if it ended so."""
    assert done.returncode == status, (done.returncode, done.stdout, done.stderr)
    return json.loads(done.stdout)


def named(path: str) -> set[str]:
    """The fields in the documented shape of a command."""
    return {*re.findall(r'"(\w+)"', reference.SHAPES[path])}


def verified(world: World, status: int, stream: str = "LOGS", *options: str) -> Any:
    """What `verify` says of a stream."""
    found = told(world.run("verify", "--stream", stream, "--output", "json", *options, check=False), status)
    assert found["ok"] == (status == 0)
    return found["streams"][stream]


def forget(world: World, first: int, last: int) -> None:
    """Takes rows of LOGS, and what the ledger knows of their messages, out of the database, as an old backup would."""
    world.execute(f"DELETE FROM logs WHERE (attributes->>'n')::bigint BETWEEN {first} AND {last}")
    world.execute(
        f"UPDATE eventwriter.ledger SET done = done - int8multirange(int8range({first}, {last + 1})) "
        "WHERE logical_stream = 'LOGS'"
    )


def written(world: World, *messages: Publication, stream: str = "LOGS") -> None:
    """Publishes, and lets a worker write it."""
    world.publish(stream, messages)
    process = world.start("worker", "--stream", stream)
    world.wait_settled()
    assert world.stop(process) == 0


def durable(world: World) -> tuple[Any, ...]:
    """What must not change of the durable."""
    info = world.consumer("LOGS")
    return info.delivered, info.ack_floor, info.num_pending, info.num_ack_pending


def test_a_thousand_that_are_missing(world: World) -> None:
    """Reported exactly, written exactly, and nothing else is; the durable does not notice."""
    written(world, *lines(1, 3000), Publication("logs.syslog", b"\xff", (), 1))
    clean = verified(world, 0)
    assert clean == {
        "checked": 3001, "done": 3000, "dead_letters": 1, "missing": 0, "waiting": 0, "before": 0, "gaps": [],
    }  # fmt: skip
    forget(world, 1001, 2000)
    before = durable(world)
    found = verified(world, 1)
    assert (found["checked"], found["done"], found["missing"], found["gaps"]) == (3001, 2000, 1000, [[1001, 2000]])
    text = world.run("verify", check=False).stdout
    assert "1000 messages, sequences 1001 to 2000, received 2" in text
    assert "eventwriter replay --stream LOGS" in text
    replayed = told(world.run("replay", "--stream", "LOGS", "--output", "json", check=False), 0)
    assert (replayed["missing"], replayed["written"], replayed["gaps"]) == (1000, 1000, [[1001, 2000]])
    assert {*replayed} == named("replay")
    assert verified(world, 0) == clean
    assert {*clean, "ok", "streams"} <= named("verify")
    world.assert_exact()
    assert durable(world) == before


@pytest.mark.parametrize("count", [3000, pytest.param(100_000, marks=pytest.mark.long)])
def test_beside_the_writer_that_shall_go(world: World, count: int) -> None:
    """Of all the rows beside those of the Go writer three are removed: which ones is told, and of which hour."""
    world.execute(go_writer.TABLES)
    otlp = Traffic("LOGS", only="otlp", records=100, clock=lambda: 1_770_000_000.0)
    world.publish("LOGS", [otlp.next() for _ in range(count // 100)])
    world.traffic(["EVENTS"], count=40, broken=0)
    service = world.start(**only("LOGS", "EVENTS"))
    for stream, rows in (("LOGS", count), ("EVENTS", 40)):
        assert world.call(lambda client: go_writer.write(client, stream.lower(), world.dsn, stream)) == rows  # noqa: B023 - at once
    world.wait_settled()
    assert world.stop(service) == 0

    def compared(stream: str, status: int, *options: str) -> Any:
        return verified(world, status, stream, "--against", f"platform.{stream.lower()}", *options)["against"]

    same = compared("LOGS", 0)
    assert {*same} <= named("verify")
    assert (same["ours"], same["theirs"], same["hours"]) == (count, count, [])
    text = world.run("verify", "--stream", "EVENTS", "--against", "platform.events", check=False).stdout
    assert "the same keys in each hour" in text, text

    world.execute("DELETE FROM logs WHERE (attributes->>'n')::bigint IN (17, 1711, 2999)")
    gone = world.query(
        "SELECT l.trace_id FROM platform.logs l LEFT JOIN logs o USING (timestamp, trace_id, span_id) WHERE o IS NULL"
    )
    found = compared("LOGS", 1)
    assert [(ours - theirs) for _, ours, theirs in found["hours"]] == [-3]
    assert (found["only_ours"], found["only_theirs"], len(found["keys"]["only_theirs"])) == (0, 3, 3)
    place = found["key"].index("trace_id")
    assert sorted(key[place] for key in found["keys"]["only_theirs"]) == sorted(each for (each,) in gone)
    text = world.run("verify", "--stream", "LOGS", "--against", "platform.logs", check=False).stdout
    assert "3 keys in theirs alone" in text
    assert f"{count // 100} messages checked" in text

    # As many of each hour, and not the same: only where there is a key is that seen.
    world.execute("UPDATE platform.events SET id = 'another' WHERE id = (SELECT min(id) FROM platform.events)")
    swapped = compared("EVENTS", 1)
    assert (swapped["ours"], swapped["theirs"], swapped["only_ours"], swapped["only_theirs"]) == (40, 40, 1, 1)
    assert compared("EVENTS", 0, "--until", "100d")["ours"] == 0
    assert compared("LOGS", 1, "--since", "2020-01-01")["theirs"] == count
    for wrong in (["--against", "platform.logs"], ["--stream", "LOGS", "--against", "nothing"], ["--since", "1h"],
                  ["--stream", "LOGS", "--against", "eventwriter.ledger"]):  # fmt: skip
        assert world.run("verify", *wrong, check=False).returncode == 64, wrong


def test_beside_the_service_under_load(world: World) -> None:
    """Whoever is first writes what is missing; nothing is twice, nothing that is under way is reported missing."""
    names = ("LOGS", "TELEMETRY", "EVENTS")
    service = world.start(**only(*names), EVENTWRITER_STREAMS__TELEMETRY__ACK="all")
    world.traffic(names, count=200)
    world.wait_settled()
    with load(world, names, rate=100):
        assert world.run("verify", *("--output", "json")).returncode == 0
        for name in names:
            lost = [number for message in world.published[name][49:120] for number in message.records]
            world.execute(f"DELETE FROM {TABLE[name]} WHERE {NUMBER[name]} = ANY('{{{','.join(map(str, lost))}}}')")
            world.execute(
                "DELETE FROM eventwriter.dead_letter_messages m USING eventwriter.ledger l WHERE m.ledger_id = l.id "
                f"AND logical_stream = '{name}' AND sequence BETWEEN 50 AND 120"
            )
            world.execute(
                "UPDATE eventwriter.ledger SET done = done - int8multirange(int8range(50, 121)) "
                f"WHERE logical_stream = '{name}'"
            )
            replayed = told(world.run("replay", "--stream", name, "--output", "json"), 0)
            assert replayed["gaps"] in ([[50, 120]], []), replayed  # the service may have been first
            assert (replayed["missing"], replayed["left"]) in ((71, 0), (0, 0))
    wait_complete(world)
    world.assert_exact()
    assert world.run("verify").returncode == 0
    assert service.poll() is None
    assert world.stop(service) == 0


def test_among_messages_of_others(world: World) -> None:
    """Every second message is somebody else's, some are gone: only ours count, a gap ends with the last of them."""
    ours = {"EVENTWRITER_STREAMS__LOGS__SUBJECTS": "logs.otel.processed,logs.never"}
    world.environment |= ours
    others = [Publication("logs.other", b"{}", ())] * 400
    world.publish("LOGS", [each for pair in zip(lines(1, 400), others, strict=True) for each in pair])
    world.published["LOGS"] = [message for message in world.published["LOGS"] if message.records]
    world.call(lambda client: client.jetstream().delete_msg("LOGS", 301))
    worker = world.start("worker", "--stream", "LOGS")
    wait_until(lambda: world.counts("LOGS")[0] == 399, world.log)
    assert world.stop(worker) == 0
    assert verified(world, 0)["checked"] == 399
    for first, last in ((3, 3), (9, 16), (201, 400)):  # as sequences; the record of sequence s is (s + 1) / 2
        world.execute(
            "UPDATE eventwriter.ledger SET done = done - "
            f"int8multirange(int8range({first}, {last + 1})) WHERE logical_stream = 'LOGS'"
        )
        world.execute(f"DELETE FROM logs WHERE {NUMBER['LOGS']} * 2 - 1 BETWEEN {first} AND {last}")
    found = verified(world, 1)
    assert (found["gaps"], found["missing"], found["done"]) == ([[3, 3], [9, 15], [201, 399]], 1 + 4 + 99, 295)

    # A second too long to be done at once: Ctrl-C ends it, what is written stays so, and it goes on there.
    world.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NEW; END'"
    )
    world.execute("CREATE TRIGGER slow AFTER INSERT ON logs FOR EACH STATEMENT EXECUTE FUNCTION slow()")
    replay = world.start("replay", "--stream", "LOGS", EVENTWRITER_WRITER__BATCH_MESSAGES="10")
    wait_until(lambda: world.query("SELECT count(*) FROM logs")[0][0] > 295, world.log)
    replay.send_signal(signal.SIGINT)
    assert replay.wait(60) == 130
    world.execute("DROP TRIGGER slow ON logs")
    left = verified(world, 1)["missing"]
    assert 0 < left < 104
    assert told(world.run("replay", "--stream", "LOGS", "--output", "json"), 0)["written"] == left
    world.published["LOGS"] = [message for message in world.published["LOGS"] if message.records != (151,)]
    world.assert_exact()

    # Without a ledger all of it is missing; what one that was made since does not know is told apart.
    world.execute("TRUNCATE eventwriter.ledger CASCADE; DELETE FROM logs")
    assert verified(world, 1)["missing"] == 399
    since = world.query("SELECT now()")[0][0].isoformat()
    assert told(world.run("replay", "--stream", "LOGS", "--since", since, "--output", "json"), 0)["missing"] == 0
    assert verified(world, 0)["before"] == 399
    assert "399 messages are from before the ledger" in world.run("verify").stdout
    assert "399 of 399 missing messages are written" in world.run("replay", "--stream", "LOGS").stdout
    world.assert_exact()
    assert verified(world, 0)["checked"] == 399


def test_where_no_second_consumer_may_be(world: World) -> None:
    """A work-queue stream: what waits is counted one by one, and what is not written is no gap."""
    stream = StreamConfig(name="SWEEP", subjects=["sweep.>"], retention=RetentionPolicy.WORK_QUEUE)

    async def anew(client: Any) -> None:
        await client.jetstream().delete_stream("SWEEP")
        await client.jetstream().add_stream(stream)

    world.call(anew)
    assert verified(world, 0, "SWEEP") == {
        "checked": 0, "done": 0, "dead_letters": 0, "missing": 0, "waiting": 0, "before": 0, "gaps": [],
    }  # fmt: skip
    world.traffic(["SWEEP"], count=70, broken=0)
    worker = world.start("worker", "--stream", "SWEEP")
    world.wait_settled()
    assert world.stop(worker) == 0
    world.traffic(["SWEEP"], count=60, broken=0)
    assert verified(world, 0, "SWEEP")["waiting"] == 60
    tapped = world.run("tap", "--stream", "SWEEP", "--limit", "1", check=False)
    assert tapped.returncode == 78
    assert "work-queue" in tapped.stderr
    assert world.run("verify", "--stream", "NOTHING", check=False).returncode == 64


def test_a_subject_that_was_excluded_by_mistake(world: World) -> None:
    """Its messages are missing as soon as the settings want them, and are written, once."""
    apps = [Publication(f"logs.app{n % 3}", b'{"body":"x","attributes":{"n":%d}}' % n, (n,)) for n in range(1, 301)]
    world.environment["EVENTWRITER_WRITER__BATCH_MESSAGES"] = "40"

    through = "SELECT coalesce(sum(messages_written + messages_excluded), 0)::int FROM eventwriter.ledger"

    def served(*messages: Publication, **environment: str) -> None:
        world.publish("LOGS", messages)
        before = world.query(through)[0][0]
        process = world.start("worker", "--stream", "LOGS", **environment)
        wait_until(lambda: world.query(through)[0][0] >= before + len(messages), world.log)
        assert world.stop(process) == 0

    exclude = {"EVENTWRITER_STREAMS__LOGS__EXCLUDE": "logs.app1,other.>"}
    served(*apps[:100])
    world.environment |= exclude
    served(*apps[100:200])
    assert world.query("SELECT count(*) FROM logs") == [(100 + 67,)]
    assert verified(world, 0)["checked"] == 200
    for name in exclude:
        del world.environment[name]
    found = verified(world, 1)
    assert (found["missing"], found["done"]) == (33, 167)
    assert told(world.run("replay", "--stream", "LOGS", "--output", "json"), 0)["written"] == 33
    assert verified(world, 0)["checked"] == 200
    assert told(world.run("replay", "--stream", "LOGS", "--output", "json"), 0)["missing"] == 0
    world.assert_exact()

    # Or the worker that starts with these settings writes it by itself; also when it was left out twice.
    served(*apps[200:230], **exclude)
    served(*apps[230:260])
    served(*apps[260:280], EVENTWRITER_STREAMS__LOGS__EXCLUDE="logs.*")
    service = world.start("worker", "--stream", "LOGS")
    world.publish("LOGS", apps[280:])
    wait_until(lambda: world.query("SELECT count(*) FROM logs") == [(300,)], world.log)
    world.assert_exact()
    refused = world.run("replay", "--stream", "LOGS", check=False, **exclude)
    assert refused.returncode == 78
    assert "not logs.app1" in refused.stderr
    assert world.stop(service) == 0
    world.assert_exact()


def test_a_replay_from_beyond_the_end_of_the_stream(world: World) -> None:
    """A slip of the hand: told, with the last sequence there is, and no ledger is made that leaves all else out."""
    world.publish("LOGS", lines(1, 20))
    for beyond in (21, 10_000, 2**63, 2**70):
        refused = world.run("replay", "--stream", "LOGS", "--from-seq", str(beyond), check=False)
        assert refused.returncode == 64, (beyond, refused.stderr)
        assert f"--from-seq {beyond}: the last sequence of stream LOGS is 20" in refused.stderr
    late = world.run("replay", "--stream", "LOGS", "--since", "2099-01-01T00:00:00Z", check=False)
    assert (late.returncode, "no message is as late: the last sequence of stream LOGS is 20" in late.stderr) == (
        64,
        True,
    )
    assert world.query("SELECT count(*) FROM eventwriter.ledger") == [(0,)]
    worker = world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    assert world.stop(worker) == 0
    world.assert_exact()
    for name, sequence in (("LOGS", 20), ("EVENTS", 1)):  # the last one, and the first of a stream without any
        assert world.run("replay", "--stream", name, "--from-seq", str(sequence)).returncode == 0
    assert "nothing is missing" in world.run("replay", "--stream", "LOGS", "--from-seq", str(2**70)).stdout


def test_a_replay_without_a_consumer(world: World) -> None:
    """Its service is stopped, and its durable deleted: what `verify` names is written, and no durable is made."""
    written(world, *lines(1, 100))
    forget(world, 41, 60)
    world.call(lambda client: client.jetstream().delete_consumer("LOGS", "eventwriter-logs"))
    world.publish("LOGS", lines(101, 10))
    found = verified(world, 1)
    assert (found["gaps"], found["missing"], found["waiting"]) == ([[41, 60]], 20, 10)
    replay = world.start("replay", "--stream", "LOGS")
    assert replay.wait(60) == 0, world.log
    assert "20 of 20 missing messages are written" in world.log
    assert (verified(world, 0)["done"], verified(world, 0)["waiting"]) == (100, 10)
    consumers = world.call(lambda client: client.jetstream().consumers_info("LOGS"))
    assert not any(each.config.durable_name for each in consumers)
    worker = world.start("worker", "--stream", "LOGS")
    wait_until(lambda: world.query("SELECT count(*) FROM logs") == [(110,)], lambda: world.log)
    assert world.stop(worker) == 0
    world.assert_exact()


def test_a_replay_takes_the_role_of_the_writer(world: World) -> None:
    """Which may not read dead letters: the first ledger is made, and what one lacks is written."""
    world.publish("LOGS", [*lines(1, 9), Publication("logs.syslog", b"\xff", (), 1)])

    def replay() -> Any:
        arguments = ("replay", "--stream", "LOGS", "--output", "json")
        return told(world.run(*arguments, check=False, EVENTWRITER_POSTGRES__DSN=world.writer), 0)

    assert replay()["missing"] == 0
    written(world)
    forget(world, 3, 5)
    assert replay()["written"] == 3
    world.assert_exact()


def test_times_that_another_writer_may_have(world: World) -> None:
    """None at all, infinite ones, and such as no datetime can be: each is an hour of its own, also with the keys."""
    world.execute("CREATE TABLE other AS SELECT * FROM logs; CREATE TABLE plain (timestamp timestamp, body text)")
    times = ("NULL", "'infinity'", "'-infinity'", "'20000-01-01 10:30'", "'2026-01-01 10:30+00'")
    world.execute("ALTER TABLE other ALTER timestamp DROP NOT NULL, ADD UNIQUE (timestamp, body)")
    for table in ("other", "plain"):
        world.execute(
            f"INSERT INTO {table} (timestamp, body) VALUES {', '.join(f'({each}, {each})' for each in times)}"
        )
        found = verified(world, 1, "LOGS", "--against", table)["against"]
        assert found["theirs"] == 5
        assert sorted(found["hours"], key=str) == sorted(
            (
                [hour, 0, 1]
                for hour in (None, "infinity", "-infinity", "20000-01-01T10:00:00+00:00", "2026-01-01T10:00:00+00:00")
            ),
            key=str,
        )
        assert found["only_theirs"] == (5 if table == "other" else 0)
    text = world.run("verify", "--stream", "LOGS", "--against", "other", check=False).stdout
    for hour in ("without a time", "infinity", "20000-01-01 10:00Z", "2026-01-01 10:00Z"):
        assert f"    {hour}  ours 0, theirs 1 (-1)" in text, text
    world.execute("CREATE VIEW failing AS SELECT now() - '1h'::interval / (n - n) AS timestamp, 'a' AS body "
                  "FROM generate_series(1, 2) n")  # fmt: skip
    failing = world.run("verify", "--stream", "LOGS", "--against", "failing", check=False)
    assert (failing.returncode, failing.stderr) == (78, ""), failing
    assert "0 messages checked" in failing.stdout
    assert "PostgreSQL: division by zero" in failing.stdout
