"""The supervised service without servers and without a command line: real processes, their work a stand-in.

Run as a script, this file is that service.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from boards import settings
from eventwriter import registry, service
from eventwriter.config import loading
from eventwriter.config.model import Config
from eventwriter.errors import ConfigurationError
from eventwriter.jetstream.turn import Turn
from eventwriter.observability.board import Slot
from eventwriter.outage import Member
from eventwriter.processes.signals import on_stop
from eventwriter.stream import Stream
from fix_monitor import Endpoint
from fix_service import ROOT, wait_until

BUG = "# what nobody thought of"
"""In a file of settings: something that cannot be read, and is no mistake."""


def work(
    config: Config,
    stream: Stream,
    *,
    supervised: bool,
    name: str,
    slot: Slot,
    turn: Turn | None,
    member: Member,
) -> int:
    """What a worker does of which only its supervisor is told: it tells that it is there, and ends when told to."""
    told: list[bool] = []
    with on_stop(lambda: told.append(True)):
        batch = config.streams[stream.name].writer.batch_messages
        os.write(1, f"{name} works with {batch}, turns: {turn is not None}, pid {os.getpid()}\n".encode())
        while not told:
            signal.sigtimedwait((), 0.01)
    return 0


def serve(file: Path) -> int:
    """The service of the settings in a file."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)
    declared = registry.load()

    def load() -> tuple[Config, Mapping[str, Stream]]:
        if BUG in file.read_text():
            raise OverflowError("password=s3cret")
        return loading.load(declared, file=file, environ={}, flags={}), declared

    return service.supervise(load, file, {}, run=work)


class Running:
    """The service, and what it prints."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "eventwriter.toml"
        self._output = folder / "output"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it."""
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(self.file)],
                cwd=ROOT,
                env=os.environ
                | {"PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "scripts", ROOT / "tests/support")))},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        return self.process

    @property
    def output(self) -> str:
        """All it printed so far."""
        return self._output.read_text()

    def pids(self, name: str, batch: int) -> list[int]:
        """Those of the workers of this name that were started with that setting."""
        return [int(pid) for pid in re.findall(rf"^{name} works with {batch}, .*pid (\d+)$", self.output, re.M)]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A service that is not started yet."""
    found = Running(tmp_path)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.process.kill()
        found.process.wait()


ENABLED = """
[http]
listen = "127.0.0.1:0"
[streams]
EVENTS.enabled = false
NETFLOW.enabled = false
OTEL_METRICS.enabled = false
OTEL_TRACES.enabled = false
TELEMETRY.enabled = false
[streams.SWEEP]
processes = 2
[streams.LOGS]
"""


def test_a_changed_file_replaces_what_it_changes_and_sigterm_ends_all(running: Running) -> None:
    """One process per enabled stream, two that take turns where it is set so; a wrong file changes nothing."""
    running.file.write_text(ENABLED + "batch_messages = 100")
    process = running.start()
    for name, batch in (("LOGS", 100), ("SWEEP/1", 10_000), ("SWEEP/2", 10_000)):
        wait_until(lambda name=name, batch=batch: len(running.pids(name, batch)) == 1, name)  # type: ignore[misc]
    running.file.write_text(ENABLED + "batch_mesages = 10")
    wait_until(lambda: "the configuration is wrong, everything stays as it is" in running.output, "the complaint")
    running.file.write_text(ENABLED + "batch_messages = 10")
    wait_until(lambda: len(running.pids("LOGS", 10)) == 1, "the replaced worker")
    process.terminate()
    assert process.wait(20) == 0
    assert len(running.pids("SWEEP/1", 10_000)) == 1
    assert set(re.findall(r"^(\S+) works .* turns: (\w+)", running.output, re.M)) == {
        ("LOGS", "False"),
        ("SWEEP/1", "True"),
        ("SWEEP/2", "True"),
    }
    assert "Traceback" not in running.output


def test_a_process_has_the_deadline_that_it_was_started_with(running: Running) -> None:
    """A service that was told to be more patient does not kill what still drains."""
    running.file.write_text(ENABLED + 'batch_messages = 100\ndrain_timeout = "1s"')
    process = running.start()
    wait_until(lambda: running.pids("LOGS", 100) and running.pids("SWEEP/1", 10_000), "the workers")
    running.file.write_text(ENABLED + 'batch_messages = 10\ndrain_timeout = "60s"')
    wait_until(lambda: running.pids("LOGS", 10), "the replaced worker")
    process.terminate()
    assert process.wait(20) == 0
    left = dict(re.findall(r"draining, pid (\d+), (\S+) s left", running.output))
    pids = [running.pids("LOGS", 100), running.pids("LOGS", 10), running.pids("SWEEP/1", 10_000)]
    assert [left[str(pid)] for (pid,) in pids] == ["28", "63", "28"]


def test_a_reload_that_fails_by_a_bug_has_failed(running: Running) -> None:
    """Its traceback is in the log, and metric and status tell that the settings are not those of the file."""
    running.file.write_text(ENABLED)
    process = running.start()
    wait_until(lambda: "serving http" in running.output, "the monitor")
    endpoint = Endpoint(running.output.partition("serving http://")[2].partition("/")[0])
    wait_until(lambda: endpoint.value("config_last_reload_successful") == 1, "the settings in force")
    running.file.write_text(ENABLED + BUG)
    wait_until(lambda: endpoint.value("config_last_reload_successful") == 0, "the failure")
    (told,) = (each["text"] for each in endpoint.status()["problems"] if each["stream"] == "configuration")
    assert "OverflowError" in told
    assert "s3cret" not in told
    wait_until(lambda: "Traceback" in running.output, "the traceback")
    running.file.write_text(ENABLED)
    wait_until(lambda: endpoint.value("config_last_reload_successful") == 1, "the settings of the file")
    process.terminate()
    assert process.wait(20) == 0


def test_the_processes_are_those_that_the_settings_ask_for() -> None:
    """One or several per stream, and the monitor, without which the service is still one; each with its patience."""
    current = settings(
        STREAMS__LOGS__ENABLED="false", STREAMS__SWEEP__PROCESSES="2", STREAMS__EVENTS__STALL_TIMEOUT="90s"
    )
    processes = service.Processes()
    children = {child.name: child for child in processes.wanted(current, registry.load())}
    assert [*children] == [
        *("EVENTS", "NETFLOW", "OTEL_METRICS", "OTEL_TRACES", "SWEEP/1", "SWEEP/2", "TELEMETRY", "monitor")
    ]
    assert [name for name, child in children.items() if not child.essential] == ["monitor"]
    assert processes.children.stall_timeouts == dict.fromkeys(children, 120.0) | {"EVENTS": 90.0, "monitor": 30.0}
    again = {child.name: child.settings for child in processes.wanted(current, registry.load())}
    assert again == {name: child.settings for name, child in children.items()}
    other = {child.name: child.settings for child in processes.wanted(settings(), registry.load())}
    assert other["NETFLOW"] == again["NETFLOW"]
    assert other["EVENTS"] != again["EVENTS"]


def test_settings_that_are_refused_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what comes after them there is as much as before; for what was in force before, a restart makes room."""
    monkeypatch.setattr(service, "TASKS_OF_A_WORKER", 0)
    processes, declared = service.Processes(), registry.load()

    def wanted(**count: int) -> int:
        named = {f"STREAMS__{name}__PROCESSES": str(number) for name, number in count.items()}
        return len(processes.wanted(settings(**named), declared))

    assert wanted(LOGS=250) == 257
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"there is room for 512 of them$"):
            wanted(LOGS=256, EVENTS=256)
    assert wanted(LOGS=250, EVENTS=20) == 276
    assert wanted(SWEEP=20) == 27
    with pytest.raises(ConfigurationError, match=r"291 keep .* a restart of the service"):
        wanted(NETFLOW=256)


def test_nothing_to_write_is_a_mistake() -> None:
    """And changes nothing of what is watched."""
    processes = service.Processes()
    none = {f"STREAMS__{name}__ENABLED": "false" for name in registry.load()}
    with pytest.raises(ConfigurationError, match="no stream is enabled"):
        processes.wanted(settings(**none), registry.load())
    assert processes.children.stall_timeouts == {}


def test_workers_may_tell_what_they_left_before_the_service_ends_them() -> None:
    """The service waits three seconds longer than the most patient of them."""
    assert service.drain_timeout(settings()) == 28.0
    assert service.drain_timeout(settings(STREAMS__LOGS__DRAIN_TIMEOUT="60s")) == 63.0


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))
