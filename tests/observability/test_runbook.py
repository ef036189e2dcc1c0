"""The runbook, followed on a real service: what each alert looks at is seen, and what its paragraph says ends it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_observability import alerts, paragraphs

from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_proxy import Proxied, last_words
from fix_service import World, only, wait_until
from traffic import Publication

NAMES = ("LOGS", "EVENTS", "SWEEP", "NETFLOW")
RULES = {rule["alert"]: rule["expr"] for rule in alerts()}
DISK_FULL = "could not write to file: No space left on device"


class OnCall:
    """Who is called at night: a service, and the runbook in the hand."""

    def __init__(self, proxied: Proxied, settings: Path) -> None:
        self.proxied = proxied
        self.world: World = proxied.world
        self.endpoint = Endpoint(f"127.0.0.1:{free_port()}")
        self.settings = settings
        self.environment = only(*NAMES) | {"EVENTWRITER_HTTP__LISTEN": self.endpoint.address}
        self.service = self.start()

    def start(self) -> Any:
        """The service, ready."""
        service = self.world.start(
            "--config", str(self.settings), "supervise", **self.environment, EVENTWRITER_POSTGRES__DSN=self.world.writer
        )
        self.ready()
        return service

    def ready(self) -> None:
        """All streams are being written; there are no problems any more."""
        wait_until(
            lambda: self.endpoint.answers("/readyz", 200) and self.told() == "ok\n", lambda: self.world.log[-3000:]
        )

    def told(self) -> str:
        """What /readyz says."""
        return self.endpoint.get("/readyz")[1]

    def fires(
        self, alert: str, *words: str, stream: str | None = "LOGS", holds: Callable[[float], bool] = bool
    ) -> None:
        """The metric by which the alert is raised says so, and the paragraph has these words, with what to do."""
        for word in words:
            assert word in re.sub(r"\s+", " ", paragraphs()[alert]), alert
        names = re.findall(r"\beventwriter_(\w+)", RULES[alert])
        labels = dict(re.findall(r'(class)="(\w+)"', RULES[alert])) | ({"stream": stream} if stream else {})
        seen = lambda: (value := self.endpoint.value(names[0], **labels)) is not None and holds(value)  # noqa: E731
        wait_until(seen, lambda: f"{alert}: {names[0]} {labels} is {self.endpoint.value(names[0], **labels)}")

    def run(self, *arguments: str, check: bool = True) -> str:
        """A command with the settings of the service; its output."""
        return self.world.run(*arguments, check=check, **self.environment).stdout

    def publish(self, stream: str, count: int = 20) -> None:
        """Messages that are well."""
        self.world.traffic([stream], count=count, broken=0)


@pytest.fixture
def on_call(proxied: Proxied, tmp_path: Path) -> OnCall:
    """A service for four streams."""
    settings = tmp_path / "eventwriter.toml"
    settings.write_text("[writer]\nbatch_messages = 500\n")
    return OnCall(proxied, settings)


def postgres_away(on_call: OnCall) -> None:
    """Nothing needs to be done once it is back."""
    on_call.proxied.postgres.stop()
    on_call.publish("LOGS")
    on_call.fires("EventwriterPostgresUnavailable", "Nothing needs to be done here once it is back")
    wait_until(lambda: "all 4 streams: PostgreSQL cannot be reached" in on_call.told(), "one cause")
    on_call.proxied.postgres.start()
    on_call.ready()


def disk_full(on_call: OnCall) -> None:
    """The server ends with what it says of its disk, and the batch waits until there is room."""
    before = on_call.endpoint.value("errors_total", **{"class": "unavailable"}, stream="LOGS") or 0
    on_call.proxied.postgres.lose(b"COPY", "before", last_words("PANIC", "53100", DISK_FULL))
    on_call.publish("LOGS")
    on_call.fires("EventwriterPostgresUnavailable", "a full disk", holds=lambda value: value > before)
    assert DISK_FULL in on_call.world.log
    on_call.ready()


def a_lock_on_the_table(on_call: OnCall) -> None:
    """PostgreSQL is told to be at work, never a sign of life to be missing; who holds the lock is found as it says."""
    told: list[str] = []

    def slow() -> bool:
        told.append(on_call.told())
        return "LOGS: PostgreSQL has been at work on a batch" in told[-1]

    with closing(on_call.world.connect()) as holder:
        holder.execute("BEGIN; LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        on_call.publish("LOGS")
        on_call.fires("EventwriterStreamNotProgressing", "`pg_locks`", "`pg_stat_activity`", holds=lambda value: True)
        wait_until(slow, "the reason")
        assert not any("no sign of life" in text for text in told)
        assert on_call.endpoint.value("worker_up", stream="LOGS") == 1
        assert on_call.endpoint.value("lag_seconds", stream="LOGS") is not None, "it is not NATS that is away"
        ((blocking,),) = on_call.world.query(
            "SELECT DISTINCT unnest(pg_blocking_pids(pid)) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        )
        assert blocking == holder.info.backend_pid
        on_call.world.query("SELECT pg_terminate_backend(%s)", blocking)
    on_call.ready()


def nats_away(on_call: OnCall) -> None:
    """The worker reconnects by itself."""
    on_call.proxied.nats.stop()
    lag = partial(on_call.endpoint.value, "lag_seconds", stream="LOGS")
    wait_until(lambda: lag() is None, "an unknown lag")
    on_call.fires("EventwriterNatsUnavailable", "`eventwriter check`", "The worker reconnects by itself, for ever")
    wait_until(lambda: "all 4 streams: NATS cannot be reached" in on_call.told(), "one cause")
    assert "NATS" in on_call.run("check", check=False)
    on_call.proxied.nats.start()
    on_call.ready()


def table_missing(on_call: OnCall) -> None:
    """The stream is parked and says what to do; it goes on by itself, or at once after SIGHUP."""
    on_call.world.execute("DROP TABLE events")
    on_call.publish("EVENTS")
    parked = lambda value: value == 0  # noqa: E731
    on_call.fires("EventwriterWorkerDown", "`eventwriter schema apply`", "SIGHUP", stream="EVENTS", holds=parked)
    assert "schema apply" in on_call.told()
    assert "events" in on_call.run("schema", "check", check=False)
    on_call.run("schema", "apply")
    on_call.service.send_signal(signal.SIGHUP)
    on_call.ready()
    on_call.world.published["EVENTS"] = on_call.world.published["EVENTS"][-20:]  # what was dropped is gone


def stream_missing(on_call: OnCall) -> None:
    """As is who deleted the stream: it is created again, and is a new one."""
    on_call.world.call(lambda client: client.jetstream().delete_stream("SWEEP"))
    wait_until(lambda: "SWEEP: " in on_call.told(), "the reason")
    wait_until(lambda: "streams create" in on_call.told(), f"the remedy in {on_call.told()}")
    assert "`eventwriter streams create`" in paragraphs()["EventwriterNatsUnavailable"]
    on_call.run("streams", "create")
    on_call.ready()


def column_missing(on_call: OnCall) -> None:
    """The table gets it again."""
    on_call.world.execute("ALTER TABLE logs DROP COLUMN source")
    on_call.fires("EventwriterColumnsOmitted", "`eventwriter schema apply`")
    on_call.run("schema", "apply")
    wait_until(lambda: on_call.endpoint.value("columns_omitted", stream="LOGS") == 0, "all columns")


def dead_letters(on_call: OnCall) -> None:
    """They are looked at and purged."""
    on_call.world.publish("NETFLOW", [Publication("netflow.raw", b"\xff\xff", (), 1)])
    on_call.fires("EventwriterDeadLetters", "`eventwriter dlq list --stream NAME`", stream="NETFLOW")
    listed = on_call.run("dlq", "list", "--stream", "NETFLOW")
    number = listed.split()[0]
    assert "NETFLOW" in on_call.run("dlq", "show", number)


def a_wrong_file(on_call: OnCall) -> None:
    """Put right, it is read again by itself."""
    right = on_call.settings.read_text()
    on_call.settings.write_text("[writer]\nbatch_messages = 'many'\n")
    wrong = lambda value: value == 0  # noqa: E731
    on_call.fires("EventwriterConfigurationWrong", "`eventwriter config show`", stream=None, holds=wrong)
    assert "configuration: " in on_call.told()
    on_call.settings.write_text(right)
    on_call.ready()


def a_worker_that_dies(on_call: OnCall) -> None:
    """It is started again."""
    before = on_call.endpoint.value("worker_restarts_total", stream="LOGS") or 0
    worker = on_call.world.worker("LOGS")
    assert worker is not None
    worker.send_signal(signal.SIGKILL)
    on_call.fires("EventwriterWorkerRestarting", "Signal 9", holds=lambda value: value > before)
    on_call.ready()


def lag_grows(on_call: OnCall) -> None:
    """After an outage it falls by itself."""
    on_call.proxied.postgres.delay = 0.3
    on_call.publish("LOGS", 3000)
    on_call.fires("EventwriterLagGrowing", "lag falls by itself", holds=lambda value: value > 0.5)
    on_call.proxied.postgres.delay = 0.0
    wait_until(lambda: on_call.endpoint.value("lag_seconds", stream="LOGS") == 0, "the end of the backlog")


def the_service_ends(on_call: OnCall) -> None:
    """Nobody answers; whoever starts it again loses nothing."""
    assert on_call.world.stop(on_call.service) == 0
    with pytest.raises(ConnectionRefusedError):
        on_call.endpoint.get("/metrics")
    on_call.service = on_call.start()


def test_each_paragraph_that_says_what_to_do_works(on_call: OnCall) -> None:
    """One night with everything that goes wrong; in the morning every message is there once."""
    for name in NAMES:
        on_call.publish(name)
    on_call.world.wait_settled()
    for trouble in (
        *(postgres_away, disk_full, a_lock_on_the_table, nats_away, table_missing, stream_missing, column_missing),
        *(dead_letters, a_wrong_file, a_worker_that_dies, lag_grows, the_service_ends),
    ):
        trouble(on_call)
    for name in NAMES:
        on_call.publish(name)
    on_call.world.wait_settled()

    def logs() -> dict[str, Any]:
        stream: dict[str, Any] = on_call.endpoint.status()["streams"]["LOGS"]
        return stream

    last = len(on_call.world.published["LOGS"])
    wait_until(lambda: logs()["ledger"].get("highest") == last, lambda: f"{last} in the ledger: {logs()}")
    assert logs()["batch_way"] == "copy"
    del on_call.world.published["EVENTS"], on_call.world.published["SWEEP"]
    on_call.world.assert_exact()
