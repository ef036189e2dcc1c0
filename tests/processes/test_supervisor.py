"""Supervisor: real processes, real signals. Their service is tests/support/supervised.py."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

import forkserver
from eventwriter.processes.child import Child
from eventwriter.processes.supervisor import Supervisor
from patience import PATIENCE
from processes import Process

ROOT = Path(__file__).resolve().parents[2]
SERVICE = ROOT / "tests/support/supervised.py"


# --- how tests talk to it -------------------------------------------------------------------------------------


class Service:
    """A running supervisor and everything it and its children print."""

    def __init__(self, folder: Path) -> None:
        self._config = folder / "config.json"
        self._output = folder / "output"
        self._options: dict[str, Any] = {}
        self._running: list[Process] = []
        self._family: list[psutil.Process] = []

    def configure(self, children: object) -> None:
        """Writes the children that a start or a reload sees: behaviours, or (behaviour, settings), by name."""
        if isinstance(children, dict):
            children = [(name, (what, None) if isinstance(what, str) else what) for name, what in children.items()]
        self._config.write_text(json.dumps({"options": self._options, "children": children}))

    def start(self, children: dict[str, Any], *, prefix: Sequence[str] = (), **options: object) -> None:
        """Starts the service."""
        self._options = {"drain_timeout": 5, **options}
        self.configure(children)
        command = [str(SERVICE), str(self._config)]
        with self._output.open("ab") as output:
            process: Process
            if not prefix:
                process = forkserver.started(command, os.environ, output, output)
            else:
                process = subprocess.Popen(
                    [*prefix, sys.executable, *command], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                )  # fmt: skip
        self._running.append(process)

    def passes(self) -> None:
        """What stopped the children that ``pass`` is over."""
        self._config.with_name("passed").touch()

    @property
    def process(self) -> Process:
        """The process that was started."""
        return self._running[-1]

    def output(self) -> str:
        """All it printed so far."""
        return self._output.read_text()

    def find(self, pattern: str) -> list[str]:
        """What matches in the output so far, whole lines only."""
        return re.findall(f"^{pattern}$", self.output(), re.MULTILINE)

    def expect(self, pattern: str, times: int = 1, within: float = 5.0) -> list[str]:
        """Waits until that many lines match, and returns them (or their group)."""
        deadline = time.monotonic() + within * PATIENCE
        while len(found := self.find(pattern)) < times:
            assert time.monotonic() < deadline, f"not {times} × {pattern!r} in time in:\n{self.output()}"
            time.sleep(0.01)
        return found

    def ready(self, name: str, times: int = 1) -> int:
        """Waits until the child has started that many times and works; its latest pid."""
        return int(self.expect(rf"{name} ready (\d+)", times)[-1])

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the supervisor."""
        if number == signal.SIGKILL:
            self._adopt(self.process)
        self.process.send_signal(number)

    def stop(self) -> None:
        """Stops the supervisor, as Ctrl-Z would, until ``signal(SIGCONT)``."""
        self.process.send_signal(signal.SIGSTOP)
        deadline = time.monotonic() + 10 * PATIENCE
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline

    def status(self, within: float = 5.0) -> int:
        """Waits for the end of the supervisor; its exit status."""
        try:
            return self.process.wait(within * PATIENCE)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {within * PATIENCE} s:\n{self.output()}")

    def _adopt(self, process: Process) -> None:
        """Remembers the children of a process that is about to be killed."""
        self._family += psutil.Process(process.pid).children(recursive=True)

    def close(self) -> None:
        """Leaves no process behind, whatever the test did."""
        for process in self._running:
            if process.poll() is None:
                self._adopt(process)
                process.kill()
            process.wait()
        for member in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """A service that the test starts."""
    service = Service(tmp_path)
    yield service
    service.close()


def gone(pid: int) -> bool:
    """Whether no such process is left, not even a zombie."""
    return not psutil.pid_exists(pid)


# --- restarts -------------------------------------------------------------------------------------------------


def test_killed_child_is_back_within_two_seconds(service: Service) -> None:
    """A child killed with SIGKILL is reaped and works again within 2 s; its neighbour notices nothing."""
    service.start({"LOGS": "work", "EVENTS": "work"})
    first, _ = service.ready("LOGS"), service.ready("EVENTS")
    killed = time.monotonic()
    os.kill(first, signal.SIGKILL)
    second = service.ready("LOGS", times=2)
    assert time.monotonic() - killed < 2 * PATIENCE
    assert second != first
    assert gone(first)
    service.expect(r"LOGS: exited after \d+\.\d s: signal 9 \(Killed\)")
    service.expect(rf"observed started LOGS {second}")
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert service.find("restarts (.*)") == ['{"LOGS": 1, "EVENTS": 0}']


ENDS = {
    "return 0": "0",
    "return 1": "1",
    "sys.exit": "3",
    "raise": "70",
    "crash": "-11",
}


def test_a_child_is_restarted_however_it_ends(service: Service) -> None:
    """Success, failure, exception, crash: a child that ends while it should run is started again."""
    service.start({what: what for what in ENDS})
    for what, status in ENDS.items():
        service.expect(rf"observed exited {what} {status}", times=2)
    assert "RuntimeError: broken raise" in service.output()
    service.signal(signal.SIGTERM)
    assert service.status() in (0, 75)


def delays(service: Service, times: int) -> list[float]:
    """The first delays before a restart."""
    return [float(delay) for delay in service.expect(r"observed restarting LOGS (.*)", times)][:times]


def test_a_crash_loop_slows_down(service: Service) -> None:
    """Each restart waits about twice as long as the one before, up to the maximum."""
    service.start({"LOGS": "return 1"}, restart_initial=0.02, restart_maximum=0.2)
    for delay, most in zip(delays(service, 6), (0.02, 0.04, 0.08, 0.16, 0.2, 0.2), strict=True):
        assert most / 2 <= delay <= most


def test_a_healthy_while_ends_the_slowness(service: Service) -> None:
    """A child that worked for stable_after starts again as after its first failure."""
    service.start({"LOGS": "return 1"}, restart_initial=0.02, stable_after=0)
    assert max(delays(service, 5)) <= 0.02


# --- parking --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["return 78", "return 77", "raise typed"])
def test_a_child_that_cannot_work_is_parked_and_the_others_go_on(service: Service, what: str) -> None:
    """Exit 78 or 77 is logged once and not tried again at once; the other child runs, and drains with status 0."""
    service.start({"LOGS": what, "EVENTS": "work"}, restart_initial=0.01)
    pid = service.ready("EVENTS")
    service.expect(r"LOGS: parked: .*")
    os.kill(pid, signal.SIGKILL)
    service.ready("EVENTS", times=2)
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find(r"LOGS: started.*")) == 1
    assert len(service.find(r"LOGS: parked: .*")) == 1
    assert len(service.find(r"observed parked LOGS 7[78]")) == 1


def test_a_parked_child_looks_again_by_itself(service: Service) -> None:
    """After growing pauses, until it works; the service stays for one of them, and no restart is counted."""
    service.start({"LOGS": "pass", "EVENTS": "return 77"}, look_initial=0.1, look_maximum=0.4)
    service.expect("observed parked LOGS 78", times=4)
    pauses = [*map(float, service.find(r"LOGS: parked: exit status 78, looking again in (\S+) s"))]
    assert len(pauses) >= 4
    assert pauses[0] <= 0.1
    assert 0.2 <= pauses[3] <= 0.4
    assert len(service.find("EVENTS: parked: exit status 77, looking again in .*")) >= 3
    service.passes()
    service.ready("LOGS")
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert not service.find("observed restarting.*")


def test_a_reload_does_not_wait_for_a_parked_child_to_look(service: Service) -> None:
    """Also one whose settings did not change: somebody has told that something did."""
    service.start({"LOGS": "pass"}, look_initial=60.0)
    service.expect("observed parked LOGS 78")
    service.passes()
    service.signal(signal.SIGHUP)
    service.ready("LOGS")
    service.signal(signal.SIGTERM)
    assert service.status() == 0


@pytest.mark.parametrize(("whats", "status"), [((78, 78), 78), ((77, 77), 77), ((77, 78), 78)])
def test_the_service_ends_when_all_are_parked(service: Service, whats: Sequence[int], status: int) -> None:
    """With nothing that works with these settings, the supervisor exits with the children's own status."""
    service.start({f"S{number}": f"return {what}" for number, what in enumerate(whats)})
    assert service.status() == status
    assert service.find("nothing can work with these settings: ending with exit status 7[78]")


def test_the_service_stays_where_it_has_worked(service: Service) -> None:
    """Whatever a child ends with then, and also when a reload makes it look."""
    service.start({"LOGS": "pass never"}, look_initial=0.1, look_maximum=0.1)
    service.expect("observed parked LOGS 77", times=2)
    service.signal(signal.SIGHUP)
    service.expect("observed parked LOGS 77", times=4)
    service.signal(signal.SIGTERM)
    assert service.status() == 0


# --- stopping -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_drain_at_the_same_time(service: Service, number: signal.Signals) -> None:
    """The last of three children begins before the first has ended, and the service exits 0."""
    service.start(dict.fromkeys("ABC", "drain slowly"))
    for name in "ABC":
        service.ready(name)
    service.signal(number)
    assert service.status() == 0
    assert [words.split()[1] for words in service.find("[ABC] (?:drains|drained)")] == ["drains"] * 3 + ["drained"] * 3


def test_ctrl_c_is_one_signal_to_each_child(service: Service) -> None:
    """SIGINT to the whole foreground group drains: no child takes it and the forwarded SIGTERM for two."""
    service.start({"LOGS": "drain slowly"})
    service.ready("LOGS")
    os.killpg(service.process.pid, signal.SIGINT)
    assert service.status() == 0
    assert service.find("LOGS drained")


def test_a_child_that_does_not_drain_is_killed_at_the_deadline(service: Service) -> None:
    """After drain_timeout what is left gets SIGKILL, and the exit status says so: 75."""
    service.start({"LOGS": "ignore", "EVENTS": "work"}, drain_timeout=0.5)
    pid, _ = service.ready("LOGS"), service.ready("EVENTS")
    told = time.monotonic()
    service.signal(signal.SIGTERM)
    assert service.status() == 75
    assert 0.5 <= time.monotonic() - told < 1.5 * PATIENCE
    assert gone(pid)
    assert service.find("EVENTS drained")
    assert len(service.find(rf"LOGS: killed: .* pid {pid}")) == 1


def test_the_second_signal_stops_at_once(service: Service) -> None:
    """A second SIGTERM does not wait for the deadline."""
    service.start({"LOGS": "ignore", "EVENTS": "ignore"}, drain_timeout=60)
    pids = service.ready("LOGS"), service.ready("EVENTS")
    service.signal(signal.SIGTERM)
    service.expect("EVENTS: draining.*")
    service.signal(signal.SIGINT)
    assert service.status() == 75
    assert all(map(gone, pids))


@pytest.mark.parametrize(
    ("what", "status"),
    [
        ("drain, then fail", 75),
        ("drain too late", 75),
        ("end before a handler", 0),
        ("end by itself meanwhile", 0),
        ("give up meanwhile", 0),
    ],
)
def test_how_a_child_ends_while_draining_decides_the_status(service: Service, what: str, status: int) -> None:
    """A child that fails while draining had messages in hand; one without a handler yet, or parked anyway, had none."""
    service.start({"LOGS": what, "EVENTS": "work"})
    service.ready("LOGS")
    service.ready("EVENTS")
    service.signal(signal.SIGTERM)
    assert service.status() == status
    assert service.find("EVENTS drained")
    assert not service.find("LOGS: restarting.*")


def test_a_child_waiting_for_its_restart_does_not_delay_the_stop(service: Service) -> None:
    """A stop drops children that are not running, and what they did before does not count."""
    service.start({"LOGS": "return 1"}, restart_initial=30)
    service.expect("LOGS: restarting.*")
    service.signal(signal.SIGTERM)
    assert service.status(within=1) == 0
    assert len(service.find("LOGS: started.*")) == 1


def test_children_drain_when_the_supervisor_is_killed(service: Service) -> None:
    """SIGKILL of the supervisor leaves no orphan: its children get SIGTERM and drain."""
    service.start({"LOGS": "work", "EVENTS": "drain slowly"})
    pids = service.ready("LOGS"), service.ready("EVENTS")
    service.signal(signal.SIGKILL)
    service.expect("(LOGS|EVENTS) drained", times=2)
    deadline = time.monotonic() + 2 * PATIENCE
    while not all(gone(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- reload ---------------------------------------------------------------------------------------------------


def test_reload_touches_only_what_changed(service: Service) -> None:
    """SIGHUP drains and restarts changed children, drains removed ones, starts added ones; the others run on."""
    service.start({"SAME": ("work", 1), "CHANGED": ("work", 1), "REMOVED": ("work", 1)})
    before = [service.ready(name) for name in ("SAME", "CHANGED", "REMOVED")]
    service.configure({"SAME": ("work", 1), "CHANGED": ("work", 2), "ADDED": ("work", 1)})
    service.signal(signal.SIGHUP)
    changed = service.ready("CHANGED", times=2)
    service.ready("ADDED")
    service.expect("REMOVED: exited.*")
    assert gone(before[2])
    assert len(service.find("(?:CHANGED|REMOVED) drained")) == 2
    assert changed != before[1]
    assert psutil.pid_exists(before[0])
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find("SAME: started.*")) == 1
    assert len(service.find("REMOVED: started.*")) == 1
    assert not service.find("observed restarting.*")


def test_reload_tries_parked_children_again(service: Service) -> None:
    """Also one whose settings did not change: what it lacked may be there by now. If not, it is parked again."""
    service.start({"LOGS": ("return 78", 1), "EVENTS": ("return 78", 1), "SWEEP": "work"})
    service.ready("SWEEP")
    service.expect("(LOGS|EVENTS): parked.*", times=2)
    service.configure({"LOGS": ("work", 2), "EVENTS": ("return 78", 1), "SWEEP": "work"})
    service.signal(signal.SIGHUP)
    service.ready("LOGS")
    service.expect("EVENTS: parked.*", times=2)
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find("SWEEP: started.*")) == 1


def test_reload_starts_a_waiting_child_at_once_with_new_settings(service: Service) -> None:
    """A child in backoff whose settings changed does not wait any longer; one that was removed never returns."""
    service.start({"LOGS": ("return 1", 1), "EVENTS": "return 1", "SWEEP": "work"}, restart_initial=30)
    service.ready("SWEEP")
    service.expect("(LOGS|EVENTS): restarting.*", times=2)
    service.configure({"LOGS": ("work", 2), "SWEEP": "work"})
    service.signal(signal.SIGHUP)
    service.ready("LOGS")
    service.signal(signal.SIGTERM)
    assert service.status(within=2) == 0


def test_reload_kills_a_child_that_does_not_drain_and_starts_its_successor(service: Service) -> None:
    """The drain deadline holds for a reload as well; the killed process does not spoil the later exit status."""
    service.start({"LOGS": ("ignore", 1), "EVENTS": "work"}, drain_timeout=0.2)
    service.ready("LOGS")
    service.ready("EVENTS")
    service.configure({"LOGS": ("work", 2), "EVENTS": "work"})
    service.signal(signal.SIGHUP)
    service.ready("LOGS", times=2)
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find("LOGS: killed.*")) == 1


def test_a_stop_during_a_reload_sends_no_second_signal(service: Service) -> None:
    """A child that already drains for a reload is waited for, not told again; nothing new is started."""
    service.start({"LOGS": ("drain slowly", 1), "EVENTS": "work"})
    service.ready("LOGS")
    service.ready("EVENTS")
    service.configure({"LOGS": ("work", 2), "EVENTS": "work"})
    service.signal(signal.SIGHUP)
    service.expect("LOGS drains")
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert service.find("LOGS drained")
    assert len(service.find("LOGS: started.*")) == 1


@pytest.mark.parametrize(
    ("children", "line"),
    [
        ("not a list of children", "reload failed.*"),
        ([], "reload failed.*"),
        ({"LOGS": "work"}, "reloaded"),
    ],
)
def test_a_reload_that_fails_changes_nothing(service: Service, children: object, line: str) -> None:
    """If the hook raises, or returns no children or the same, every child runs on."""
    service.start({"LOGS": "work"})
    pid = service.ready("LOGS")
    service.configure(children)
    service.signal(signal.SIGHUP)
    service.expect(line)
    assert psutil.pid_exists(pid)
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find("LOGS: started.*")) == 1


def test_without_a_hook_sighup_is_ignored(service: Service) -> None:
    """SIGHUP does not end a supervisor that cannot reload."""
    service.start({"LOGS": "work"}, no_reload=True)
    service.ready("LOGS")
    service.signal(signal.SIGHUP)
    service.expect("SIGHUP ignored.*")
    service.signal(signal.SIGTERM)
    assert service.status() == 0


# --- pauses ---------------------------------------------------------------------------------------------------


def test_a_pause_changes_nothing(service: Service) -> None:
    """Stopped and continued, also for longer than between two ticks: nothing restarts, nothing drains."""
    service.start({"LOGS": "work", "EVENTS": "return 78"}, tick=0.05)
    service.expect("EVENTS: parked.*")
    pid = service.ready("LOGS")
    before = service.output()
    for _ in range(10):
        service.stop()
        time.sleep(0.1)
        service.signal(signal.SIGCONT)
    service.stop()
    time.sleep(2.5)
    service.signal(signal.SIGCONT)
    service.signal(signal.SIGHUP)
    service.expect("EVENTS: parked.*", times=2)
    assert service.output().startswith(before)
    assert psutil.pid_exists(pid)
    service.signal(signal.SIGTERM)
    assert service.status() == 0
    assert len(service.find("LOGS: started.*")) == 1
    assert service.find("restarts (.*)") == ['{"LOGS": 0, "EVENTS": 0}']


def test_what_happens_during_a_pause_is_seen_after_it(service: Service) -> None:
    """A child that died is reaped and restarted, a changed file is read, a stop drains."""
    service.start({"LOGS": "work", "EVENTS": "work"}, tick=0.05)
    first, other = service.ready("LOGS"), service.ready("EVENTS")
    service.stop()
    os.kill(first, signal.SIGKILL)
    service.configure({"LOGS": "work", "EVENTS": "work", "SWEEP": "work"})
    service.signal(signal.SIGHUP)
    service.signal(signal.SIGCONT)
    service.ready("LOGS", times=2)
    service.ready("SWEEP")
    assert gone(first)
    assert psutil.pid_exists(other)
    service.stop()
    service.signal(signal.SIGTERM)
    service.signal(signal.SIGCONT)
    assert service.status() == 0
    assert len(service.find("(LOGS|EVENTS|SWEEP) drained")) == 3
    assert service.find("restarts (.*)") == ['{"LOGS": 1, "EVENTS": 0, "SWEEP": 0}']


# --- the process itself ---------------------------------------------------------------------------------------


def test_a_child_inherits_nothing_but_standard_streams(service: Service) -> None:
    """No descriptor of the supervisor, no wake-up descriptor, no blocked signal, no handler; its own session, title."""
    service.start({"LOGS": "inspect"}, wakeup=True)
    (facts,) = service.expect("LOGS facts (.*)")
    assert json.loads(facts) == {
        # 3 and 4: the wake-up pipe that the script around the supervisor opened; the supervisor itself opens none.
        "descriptors": [0, 1, 2, 3, 4],
        "wakeup": -1,
        "blocked": [],
        "handled": [],
        "leads_session": True,
        "title": "eventwriter: worker LOGS",
        "parent_title": "eventwriter: supervisor",
    }


def test_an_idle_supervisor_sleeps(service: Service) -> None:
    """With nothing to do it does not wake up at all."""
    service.start({"LOGS": "work"})
    service.ready("LOGS")
    process = psutil.Process(service.process.pid)
    deadline = time.monotonic() + 2 * PATIENCE
    while process.status() != psutil.STATUS_SLEEPING:
        assert time.monotonic() < deadline
    before = sum(process.num_ctx_switches())
    time.sleep(0.5)
    assert sum(process.num_ctx_switches()) == before


def test_a_fork_that_fails_is_tried_again(service: Service) -> None:
    """At the limit of processes the supervisor stays, and tries again after the backoff."""
    service.start({"LOGS": "work"}, restart_initial=0.01, no_processes=True)
    service.expect("LOGS: cannot fork.*", times=3)
    service.expect("observed restarting LOGS .*", times=3)
    service.signal(signal.SIGTERM)
    assert service.status() == 0


def test_works_as_pid_1(service: Service) -> None:
    """As the first process of a container it reaps orphans, restarts children and obeys SIGTERM."""
    service.start({"LOGS": "orphan"}, prefix=as_pid_1(), tick=0.05)
    service.ready("LOGS")
    (orphan,) = service.expect(r"LOGS orphan (\d+)")
    service.expect(rf"reaped process {orphan}, not one of ours: exit status 5")
    (first,) = psutil.Process(service.process.pid).children()
    first.children()[0].kill()
    service.ready("LOGS", times=2)
    first.send_signal(signal.SIGTERM)
    assert service.status() == 0
    assert service.find("LOGS drained")


def test_any_command_ends_at_sigterm_as_pid_1() -> None:
    """As soon as it is loaded: a pod that is stopped while it starts does not wait for SIGKILL."""
    command = [*as_pid_1(), sys.executable, "-m", "eventwriter", "decode", "--stream", "LOGS", "-"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as outside:
        try:
            deadline = time.monotonic() + 30 * PATIENCE
            while outside.poll() is None:  # it cannot be told when it has begun
                assert time.monotonic() < deadline, "SIGTERM changes nothing"
                for first in psutil.Process(outside.pid).children():
                    first.send_signal(signal.SIGTERM)
                time.sleep(0.05)
        finally:
            outside.kill()
    assert outside.returncode == 128 + signal.SIGTERM


def as_pid_1() -> list[str]:
    """What a command begins with that is to be the first process of a namespace; skips where none can be made."""
    unshare = shutil.which("unshare")
    prefix = [unshare or "", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if not unshare or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no new process namespace possible here")
    return prefix


@pytest.mark.parametrize("names", [[], ["LOGS", "LOGS"]])
def test_children_need_names_of_their_own(names: list[str]) -> None:
    """Without children, or with two of one name, there is no supervisor."""
    with pytest.raises(ValueError, match="unique names"):
        Supervisor([Child(name, lambda: 0) for name in names], drain_timeout=1)
