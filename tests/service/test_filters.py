"""Subjects that are added and removed: each message of those that are configured is written once, however old it is."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eventwriter.embedded import free_port
from fix_failover import TOLD_WITHIN, Fallible, How, load, missing, wait_complete
from fix_monitor import Endpoint
from fix_service import World, only, wait_until
from processes import Process

RAW, OTEL, PROCESSED = "logs.syslog", "logs.otel", "logs.otel.processed"


class Configured:
    """A service with a configuration file that says which subjects LOGS takes."""

    def __init__(self, world: World, subjects: Sequence[str], processes: int = 1) -> None:
        self.world = world
        self.file = world.folder / "eventwriter.toml"
        self.endpoint = Endpoint(f"127.0.0.1:{free_port()}")
        self.processes = processes
        self._write(subjects)
        self.service = self.start()

    def _write(self, subjects: Sequence[str]) -> None:
        fresh = self.file.with_suffix(".new")
        fresh.write_text(f"[streams.LOGS]\nsubjects = {json.dumps(list(subjects))}\nprocesses = {self.processes}\n")
        fresh.rename(self.file)

    def start(self) -> Process:
        """Another service with this file; it goes on with SWEEP when LOGS cannot work."""
        environment = only("LOGS", "SWEEP") | {"EVENTWRITER_HTTP__LISTEN": self.endpoint.address}
        service = self.world.start("--config", str(self.file), "supervise", **environment)
        wait_until(lambda: self.endpoint.answers("/livez", 200), "a service that takes signals")
        return service

    def subjects(self, *subjects: str) -> None:
        """Changes the subjects, and has the service read its file again."""
        before = self.world.log.count("LOGS → logs: consumer")
        self._write(subjects)
        self.service.send_signal(signal.SIGHUP)
        wait_until(
            lambda: self.world.log.count("LOGS → logs: consumer") >= before + self.processes,
            f"the workers begin again\n{self.world.log[-4000:]}",
        )

    @property
    def reread(self) -> float:
        """Messages read again, according to the metrics."""
        return self.endpoint.value("messages_reread_total", stream="LOGS") or 0.0


def numbers(world: World, *subjects: str) -> set[int]:
    """The records that were published on these subjects so far."""
    return {n for m in world.published["LOGS"][:] if m.subject in subjects for n in m.records}


def wait_for(world: World, *subjects: str) -> None:
    """Waits until what was published on these subjects so far is written."""
    wanted = numbers(world, *subjects)
    wait_until(lambda: not wanted & missing(world).get("LOGS", set()), lambda: f"{subjects}\n{world.log[-4000:]}")


@contextlib.contextmanager
def busy(world: World, wanted: bool) -> Iterator[None]:
    """With live traffic or without."""
    with load(world, ["LOGS"]) if wanted else contextlib.nullcontext():
        yield


@pytest.mark.parametrize(
    ("loaded", "processes"),
    [
        (False, 3),
        (True, 1),
        pytest.param(False, 1, marks=pytest.mark.long),
        pytest.param(True, 3, marks=pytest.mark.long),
    ],
)
def test_a_subject_that_is_added_brings_its_history(world: World, loaded: bool, processes: int) -> None:
    """Its older messages, which were never delivered, are written; those of the others not a second time."""
    service = Configured(world, [OTEL, PROCESSED], processes)
    world.traffic(["LOGS"], count=300)
    wait_for(world, OTEL, PROCESSED)
    assert missing(world)["LOGS"] == numbers(world, RAW)
    with busy(world, loaded):
        if loaded:
            wait_until(lambda: world.counts("LOGS")[0] > 600, "load")
        history = numbers(world, RAW)
        service.subjects(OTEL, PROCESSED, RAW)
        wait_until(lambda: not history & missing(world).get("LOGS", set()), world.log[-4000:], TOLD_WITHIN)
        wait_until(lambda: service.reread >= 50, "it says so")
    wait_complete(world)
    world.assert_exact()
    assert world.stop(service.service) == 0


@pytest.mark.parametrize("loaded", [False, pytest.param(True, marks=pytest.mark.long)], ids=["idle", "under load"])
def test_a_subject_that_is_removed_and_added_again(world: World, loaded: bool) -> None:
    """What was written before it was removed is not written again; what came meanwhile is, when it is back."""
    service = Configured(world, [OTEL, PROCESSED, RAW])
    with busy(world, loaded):
        for _ in range(2):
            world.traffic(["LOGS"], count=100)
            wait_for(world, OTEL, PROCESSED, RAW)
            written = numbers(world, RAW)
            service.subjects(OTEL, PROCESSED)
            world.traffic(["LOGS"], count=100)
            wait_for(world, OTEL, PROCESSED)
            if not loaded:
                assert missing(world)["LOGS"] == numbers(world, RAW) - written
            service.subjects(OTEL, PROCESSED, RAW)
    wait_complete(world)
    world.assert_exact()
    assert world.stop(service.service) == 0


def test_filters_that_overlap_and_widen(world: World) -> None:
    """A wildcard that covers what was configured by name changes nothing of what is done."""
    service = Configured(world, [OTEL])
    wanted = [[OTEL], [OTEL, "logs.otel.>"], [OTEL, "logs.*.processed"], ["logs.otel.>", RAW], ["logs.>"]]
    for subjects, covered in zip(
        wanted, [(OTEL,), (OTEL, PROCESSED), (OTEL, PROCESSED), (PROCESSED, RAW), (OTEL, PROCESSED, RAW)], strict=True
    ):
        if subjects != [OTEL]:
            service.subjects(*subjects)
        world.traffic(["LOGS"], count=40)
        wait_for(world, *covered)
    wait_complete(world)
    world.assert_exact()


def test_a_subject_that_is_added_while_the_service_is_stopped(world: World, tmp_path: Path) -> None:
    """At the start the ledger says for which subjects it is believed."""
    first = Configured(world, [OTEL, PROCESSED])
    world.traffic(["LOGS"], count=300)
    wait_for(world, OTEL, PROCESSED)
    assert world.stop(first.service) == 0
    world.traffic(["LOGS"], count=100)
    second = Configured(world, ["logs.>"])
    wait_complete(world)
    world.assert_exact()
    assert second.reread >= 50
    assert world.stop(second.service) == 0


def test_two_hosts_whose_configuration_changes_one_after_the_other(world: World) -> None:
    """For a while they want different subjects of one durable: nothing is lost or doubled by that."""
    first = Configured(world, [OTEL, PROCESSED])
    other = Configured.__new__(Configured)
    other.__dict__ |= first.__dict__ | {"file": world.folder / "other.toml"}
    other._write([OTEL, PROCESSED])
    other.endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    other.service = other.start()
    with load(world, ["LOGS"], rate=100):
        wait_until(lambda: world.counts("LOGS")[0] > 100, "load")
        first.subjects("logs.>")
        before = world.counts("LOGS")[0]
        wait_until(lambda: world.counts("LOGS")[0] > before + 150, "more load")
        other.subjects("logs.>")
    wait_complete(world)
    world.assert_exact()


def test_a_subject_of_which_the_beginning_aged_out(world: World) -> None:
    """What the stream dropped before anybody asked for it is no loss of ours."""
    service = Configured(world, [OTEL, PROCESSED])
    world.traffic(["LOGS"], count=300)
    wait_for(world, OTEL, PROCESSED)
    world.call(lambda client: client.jetstream().purge_stream("LOGS", keep=100))
    gone = world.published["LOGS"][:200]
    service.subjects("logs.>")
    world.published["LOGS"] = [m for m in world.published["LOGS"] if m.subject != RAW or m not in gone]
    wait_complete(world)
    world.assert_exact()
    assert not service.endpoint.value("messages_missing", stream="LOGS")


def widen_consumer(world: World) -> None:
    """Somebody, or another host that begins with other settings, lets the durable deliver all subjects."""

    async def edit(client: Any) -> None:
        name = "LOGS.eventwriter-logs"
        found = json.loads((await client.request(f"$JS.API.CONSUMER.INFO.{name}", b"")).data)["config"]
        del found["filter_subjects"]
        wanted = {"stream_name": "LOGS", "config": found | {"filter_subject": "logs.>"}}
        answer = await client.request(f"$JS.API.CONSUMER.DURABLE.CREATE.{name}", json.dumps(wanted).encode())
        assert b"error" not in answer.data, answer.data

    world.call(edit)


def test_deliveries_of_subjects_that_are_not_configured(world: World) -> None:
    """They are not written: when their subject is configured later, nobody would know that they were."""
    service = Configured(world, [OTEL, PROCESSED])
    world.traffic(["LOGS"], count=50)
    wait_for(world, OTEL, PROCESSED)
    widen_consumer(world)
    world.traffic(["LOGS"], count=50)
    wait_for(world, OTEL, PROCESSED)
    assert missing(world)["LOGS"] == numbers(world, RAW)
    service.subjects("logs.>")
    wait_complete(world)
    world.assert_exact()
    assert '"0 messages were read again' not in world.log


@pytest.mark.parametrize("how", ["restored", pytest.param("promoted", marks=pytest.mark.long)])
def test_a_database_of_before_the_subject_was_added(fallible: Fallible, how: How) -> None:
    """It says that other subjects are configured, as another host would: but nobody wants those any more."""
    world = fallible.world
    service = Configured(world, [OTEL, PROCESSED], processes=2)
    world.traffic(["LOGS"], count=100)
    wait_for(world, OTEL, PROCESSED)
    fallible.mark(how)
    world.traffic(["LOGS"], count=100)
    service.subjects("logs.>")
    world.traffic(["LOGS"], count=100)
    wait_complete(world)
    fallible.go_back(how)
    world.traffic(["LOGS"], count=100)
    wait_complete(world)
    world.assert_exact()
    assert "parked" not in world.log
