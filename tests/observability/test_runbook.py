"""The runbook, followed on a real service: each alert is raised, by its PromQL, and what its paragraph says ends it.

A second is a minute here (``timelapse``). The causes are real: servers that are away, locks, a table that is slow.
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from test_observability import alerts, paragraphs

from fix_proxy import Proxied, last_words
from fix_service import wait_until
from on_call import OnCall
from patience import PATIENCE
from timelapse import HOUR
from traffic import NUMBER, Publication

NAMES = ("LOGS", "EVENTS", "SWEEP", "NETFLOW")
RULES = {rule["alert"]: rule["expr"] for rule in alerts()}
DISK_FULL = "could not write to file: No space left on device"
SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
CREATE TRIGGER slow BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION slow();
"""


@pytest.fixture
def on_call(proxied: Proxied, tmp_path: Path) -> OnCall:
    """A service for four streams."""
    del proxied.world.environment["EVENTWRITER_WRITER__ACK_WAIT"]  # the file has it, so that it may change
    return OnCall(proxied, tmp_path, NAMES, RULES, paragraphs())


@contextmanager
def locked(on_call: OnCall, table: str = "logs") -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Somebody holds a lock on the table."""
    with closing(on_call.world.connect()) as holder:
        holder.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield holder


def postgres_away(on_call: OnCall) -> None:
    """Nothing needs to be done once it is back."""
    on_call.proxied.postgres.stop()
    on_call.publish("LOGS")
    on_call.fires("EventwriterPostgresUnavailable", "Nothing needs to be done here once it is back")
    wait_until(lambda: "all 4 streams: PostgreSQL cannot be reached" in on_call.told(), "one cause")
    on_call.proxied.postgres.start()
    on_call.ends("EventwriterPostgresUnavailable")


def disk_full(on_call: OnCall) -> None:
    """The server ends with what it says of its disk, and the batch waits until there is room."""
    on_call.proxied.postgres.lose(b"COPY", "before", last_words("PANIC", "53100", DISK_FULL))
    on_call.publish("LOGS")
    on_call.fires("EventwriterPostgresUnavailable", "a full disk")
    assert DISK_FULL in on_call.world.log
    on_call.ends("EventwriterPostgresUnavailable")


def a_lock_on_the_table(on_call: OnCall) -> None:
    """PostgreSQL is told to be at work, never a sign of life to be missing; who holds the lock is found as it says."""
    told: list[str] = []

    def slow() -> bool:
        told.append(on_call.told())
        return "LOGS: PostgreSQL has been at work on a batch" in told[-1]

    with locked(on_call) as holder:
        on_call.publish("LOGS")
        on_call.fires("EventwriterStreamNotProgressing", "`pg_locks`", "`pg_stat_activity`")
        wait_until(slow, "the reason")
        assert not any("no sign of life" in text for text in told)
        assert on_call.value("worker_up", "LOGS") == 1
        assert on_call.value("lag_seconds", "LOGS") > 1, "what waits is in hand, and it is not NATS that is away"
        ((blocking,),) = on_call.world.query(
            "SELECT DISTINCT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        assert blocking == holder.info.backend_pid
        on_call.world.query("SELECT pg_terminate_backend(%s)", blocking)
    on_call.ends("EventwriterStreamNotProgressing")


def nats_away(on_call: OnCall) -> None:
    """The worker reconnects by itself."""
    on_call.proxied.nats.stop()
    on_call.fires("EventwriterNatsUnavailable", "`eventwriter check`", "The worker reconnects by itself, for ever")
    wait_until(lambda: "all 4 streams: NATS cannot be reached" in on_call.told(), "one cause")
    assert "NATS" in on_call.run("check", check=False)
    on_call.proxied.nats.start()
    on_call.ends("EventwriterNatsUnavailable")


def stream_missing(on_call: OnCall) -> None:
    """As is who deleted the stream: it is created again, and is a new one."""
    on_call.world.call(lambda client: client.jetstream().delete_stream("SWEEP"))
    on_call.fires("EventwriterNatsUnavailable", "`eventwriter streams create`", stream="SWEEP")
    wait_until(lambda: "streams create" in on_call.told(), lambda: f"the remedy in {on_call.told()}")
    on_call.run("streams", "create")
    on_call.ends("EventwriterNatsUnavailable", stream="SWEEP")


def table_missing(on_call: OnCall) -> None:
    """The stream is parked and says what to do; it goes on by itself, or at once after SIGHUP."""
    on_call.world.execute("DROP TABLE events")
    on_call.publish("EVENTS")
    on_call.fires("EventwriterWorkerDown", "`eventwriter schema apply`", "SIGHUP", stream="EVENTS")
    assert "schema apply" in on_call.told()
    assert "events" in on_call.run("schema", "check", check=False)
    on_call.run("schema", "apply")
    on_call.service.send_signal(signal.SIGHUP)
    wait_until(lambda: "GRANT" in on_call.told(), lambda: f"what is lacking in {on_call.told()}")
    on_call.world.execute(re.findall(r"GRANT [^;]*", on_call.told())[0])  # the new table is not the writer's
    on_call.service.send_signal(signal.SIGHUP)
    on_call.ends("EventwriterWorkerDown", stream="EVENTS")


def column_missing(on_call: OnCall) -> None:
    """The table gets it again, or the settings say that it is not wanted."""
    on_call.world.execute("ALTER TABLE logs DROP COLUMN source")
    on_call.fires("EventwriterColumnsOmitted", "`eventwriter schema apply`", "`streams.NAME.omit`")
    assert "source" in on_call.run("check", check=False)
    on_call.run("schema", "apply")
    on_call.ends("EventwriterColumnsOmitted")


def credentials_refused(on_call: OnCall) -> None:
    """A password is changed in PostgreSQL first, and then in the file that the settings name."""
    world = on_call.world
    role, name = (psycopg.conninfo.conninfo_to_dict(world.writer)[key] for key in ("user", "dbname"))
    ((path,),) = world.query("SHOW hba_file")
    before = Path(path).read_text()
    try:
        Path(path).write_text(f"host {name} {role} all scram-sha-256\n{before}")
        world.execute(f"ALTER ROLE {role} PASSWORD 'new'; SELECT pg_reload_conf()")
        world.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", role)
        on_call.fires("EventwriterCredentialsRefused", "`eventwriter config show --origin`", "a file is read again")
        assert "# environment EVENTWRITER_POSTGRES__PASSWORD_FILE" in on_call.run("config", "show", "--origin")
        on_call.password.write_text("new")
        on_call.ends("EventwriterCredentialsRefused")
    finally:
        Path(path).write_text(before)
        world.execute(f"ALTER ROLE {role} PASSWORD NULL; SELECT pg_reload_conf()")


def dead_letters(on_call: OnCall) -> None:
    """They are looked at; of what subject they are, and that this is not of the stream, is put into the settings."""
    strange = Publication("netflow.strange", b"\xff\xff", (), 1)
    on_call.world.publish("NETFLOW", [strange] * 20)
    on_call.fires("EventwriterDeadLetters", "`eventwriter dlq list --stream NAME`", stream="NETFLOW")
    on_call.fires("EventwriterDeadLetterShare", "`streams.NAME.exclude`", stream="NETFLOW")
    listed = on_call.run("dlq", "list", "--stream", "NETFLOW")
    assert listed.count("netflow.strange") == 20
    assert "NETFLOW" in on_call.run("dlq", "show", listed.split()[0])
    on_call.kept["NETFLOW"] = 'exclude = ["netflow.strange"]\n'
    on_call.reload(stream="NETFLOW")
    on_call.world.call(lambda client: client.jetstream().publish(strange.subject, strange.payload))
    on_call.ends("EventwriterDeadLetters", "EventwriterDeadLetterShare", stream="NETFLOW")


def a_wrong_file(on_call: OnCall) -> None:
    """Put right, it is read again by itself."""
    right = on_call.settings.read_text()
    on_call.settings.write_text("[writer]\nbatch_messages = 'many'\n")
    on_call.fires("EventwriterConfigurationWrong", "`eventwriter config show`")
    assert "configuration: " in on_call.told()
    on_call.settings.write_text(right)
    wait_until(lambda: not on_call.lapse.firing(RULES["EventwriterConfigurationWrong"]), "the right file")


def the_database_goes_back(on_call: OnCall) -> None:
    """To before 20 messages were written, of which the stream has 10: those are written again, the others are named."""
    world = on_call.world
    again = [number for message in world.published["LOGS"][10:20] for number in message.records]
    world.call(lambda client: client.jetstream().purge_stream("LOGS", seq=11))
    world.execute(f"DELETE FROM logs WHERE {NUMBER['LOGS']} = ANY('{{{','.join(map(str, again))}}}')")
    world.execute(
        "UPDATE eventwriter.ledger SET done = done - '{[1,21)}'::int8multirange, version = version - 1 "
        "WHERE logical_stream = 'LOGS'"
    )
    on_call.lapse.scrape()
    a_wrong_file(on_call)  # meanwhile, for it takes seconds until either is seen
    on_call.fires("EventwriterMessagesReread", "`eventwriter verify --stream NAME`")
    on_call.fires("EventwriterMessagesMissing", "`eventwriter check`", "`eventwriter ledger accept --stream NAME`")
    assert " 0 missing" in on_call.run("verify", "--stream", "LOGS")
    assert "1 to 10" in on_call.run("check", check=False)
    on_call.run("ledger", "accept", "--stream", "LOGS")
    on_call.ends("EventwriterMessagesReread", "EventwriterMessagesMissing")


def too_much_at_once(on_call: OnCall) -> None:
    """A table that has become slow, and a limit of statements: it is raised."""
    seconds = 0.003 * PATIENCE
    on_call.world.execute(SLOW.format(seconds=seconds))
    on_call.reload(f'[postgres]\nstatement_timeout = "{int(40_000 * seconds)}ms"\n', linger='"300ms"')
    on_call.publish("LOGS", 40)
    on_call.fires("EventwriterOversized", "`postgres.statement_timeout`", "`writer.batch_messages`")
    assert "are too much at once (postgres.statement_timeout = " in on_call.world.log
    on_call.kept["EVENTS"] = "processes = 4\n"  # for workers_that_die
    on_call.reload('[postgres]\nstatement_timeout = "1m"\n')
    on_call.ends("EventwriterOversized")
    on_call.world.execute("DROP TRIGGER slow ON logs")


def repairs(on_call: OnCall) -> None:
    """Of a kind that was never seen before; such a message is tried, and whoever sends it is told."""
    world = on_call.world

    def nul(first: int, count: int) -> Publication:
        numbers = tuple(range(first, first + count))
        records = [{"body": "a\0b", "attributes": {"n": number}} for number in numbers]
        return Publication("logs.app", json.dumps(records).encode(), numbers)

    world.publish("LOGS", [nul(2_000_000, 1)])
    wait_until(
        lambda: (on_call.endpoint.value("values_repaired_total", stream="LOGS", reason="text_replaced") or 0) > 0, "one"
    )
    on_call.lapse.scrape()
    world.publish("LOGS", [nul(2_000_001, 1500)])
    on_call.fires("EventwriterRepairsSpiking", "`eventwriter decode --stream NAME`")
    on_call.ends("EventwriterRepairsSpiking")


def workers_that_die(on_call: OnCall) -> None:
    """They are started again; the log says how they ended."""
    for pid in on_call.pids("EVENTS"):
        os.kill(pid, signal.SIGKILL)
    on_call.fires("EventwriterWorkerRestarting", "Signal 9", stream="EVENTS")
    assert "signal 9" in on_call.world.log.lower() or "SIGKILL" in on_call.world.log
    del on_call.kept["EVENTS"]
    on_call.reload(stream="EVENTS")
    on_call.ends("EventwriterWorkerRestarting", stream="EVENTS")


def memory(on_call: OnCall) -> None:
    """Large messages: less of them is taken at once."""
    on_call.reload(batch_bytes='"64MiB"')
    rss = on_call.value("worker_rss_bytes", "LOGS")
    on_call.lapse.bytes = 2**30 / (rss + 35 * 2**20)
    body = "x" * 900_000
    large = [
        Publication("logs.app", json.dumps({"body": body, "attributes": {"n": number}}).encode(), (number,))
        for number in range(3_000_000, 3_000_060)
    ]
    with locked(on_call):
        on_call.world.publish("LOGS", large)
        on_call.fires("EventwriterMemoryHigh", "Lower `batch_bytes` for this stream")
    wait_until(on_call.world.settled, "what was held")
    on_call.reload(batch_bytes='"1MiB"')
    on_call.ends("EventwriterMemoryHigh")
    on_call.lapse.bytes = 1.0


def a_worker_that_stands_still(on_call: OnCall) -> None:
    """For longer than ``ack_wait``, with messages in hand: they come again, and late; with a longer one they do not."""

    def still(seconds: float) -> None:
        (pid,) = on_call.pids("LOGS")
        with locked(on_call):
            os.kill(pid, signal.SIGSTOP)  # or it took the first few of them for a batch
            on_call.publish("LOGS", 1000)
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: on_call.world.consumer("LOGS").num_ack_pending >= 500, "most of them in hand")
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)  # that is what stands still
        os.kill(pid, signal.SIGCONT)

    still(1.5)
    on_call.fires("EventwriterRedeliveries", "Raise `writer.ack_wait`")
    on_call.fires("EventwriterEventAgeHigh", "redeliveries", "`nats stream get STREAM SEQUENCE`")
    on_call.reload(ack_wait='"30s"')
    on_call.ends("EventwriterEventAgeHigh", "EventwriterRedeliveries")
    still(1.5)
    on_call.ready()
    assert not on_call.lapse.firing(RULES["EventwriterRedeliveries"])


def lag_grows(on_call: OnCall) -> None:
    """After an outage it falls by itself."""
    on_call.proxied.postgres.delay = 0.3
    on_call.publish("LOGS", 2000)
    on_call.fires("EventwriterLagGrowing", "lag falls by itself")
    on_call.proxied.postgres.delay = 0.0
    wait_until(lambda: on_call.value("lag_seconds", "LOGS") == 0, "the end of the backlog")
    on_call.ends("EventwriterLagGrowing")


def the_service_ends(on_call: OnCall) -> None:
    """Nobody answers; whoever starts it again loses nothing."""
    assert on_call.world.stop(on_call.service) == 0
    on_call.fires("EventwriterDown", "a restart without a change does not help")
    on_call.service = on_call.start()
    on_call.ends("EventwriterDown")


TROUBLES: tuple[Callable[[OnCall], None], ...] = (
    *(postgres_away, disk_full, a_lock_on_the_table, nats_away, table_missing, stream_missing, column_missing),
    *(credentials_refused, dead_letters, the_database_goes_back, too_much_at_once, repairs),
    *(workers_that_die, memory, a_worker_that_stands_still, lag_grows, the_service_ends),
)


def test_each_paragraph_that_says_what_to_do_works(on_call: OnCall) -> None:
    """One night with everything that goes wrong; in the morning every message is there once, and no alert is raised."""
    world = on_call.world
    for name in NAMES:
        on_call.publish(name)
    world.wait_settled()
    for trouble in TROUBLES:
        on_call.lapse.scrape()
        trouble(on_call)
    assert {*on_call.followed} == {*RULES}, "an alert without a case"
    raised: dict[str, Any] = {}

    def calm() -> bool:
        """Whether an hour later messages are written as they should be, also on a machine that is busy now and then."""
        on_call.lapse.leap(HOUR)
        for name in NAMES:
            on_call.lapse.scrape()
            on_call.written(name)
        raised.clear()
        raised.update({alert: found for alert, text in RULES.items() if (found := on_call.lapse.firing(text))})
        return not raised

    wait_until(calm, lambda: f"no alert: {raised}")
    last = len(world.published["LOGS"])

    def logs() -> dict[str, Any]:
        stream: dict[str, Any] = on_call.endpoint.status()["streams"]["LOGS"]
        return stream

    wait_until(lambda: logs()["ledger"].get("highest") == last, lambda: f"{last} in the ledger: {logs()}")
    assert logs()["batch_way"] == "copy"
    del world.published["EVENTS"], world.published["SWEEP"]
    world.assert_exact()
