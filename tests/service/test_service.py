"""The service as its users see it: real servers, real processes, real signals, and tables compared record by record."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventwriter.embedded import PostgresServer, free_port
from fix_service import ROOT, STREAMS, World, clean_environment, copied, only, wait_until
from patience import PATIENCE
from processes import ending


def test_all_seven_streams_arrive(world: World) -> None:
    """Published before the first start, while running and while stopped: everything arrives, exactly once."""
    world.traffic(count=60)
    service = world.start()
    world.wait_settled()
    world.traffic(count=40)
    world.wait_settled()
    assert world.stop(service) == 0
    world.traffic(count=20)
    service = world.start()
    world.wait_settled()
    world.assert_exact()
    titles = {" ".join(child.cmdline()).strip() for child in psutil.Process(service.pid).children()}
    assert {f"eventwriter: worker {name}" for name in STREAMS} <= titles
    assert world.stop(service) == 0
    for name in STREAMS:
        assert world.consumer(name).num_ack_pending == 0


def under_load(world: World, stream: str, act: Callable[[], None], rounds: int = 20, size: int = 150) -> None:
    """Publishes in a thread of its own, and acts meanwhile."""
    failures: list[Exception] = []

    def publish() -> None:
        try:
            for number in range(rounds):
                world.traffic([stream], count=size, seed=number)
        except Exception as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        act()
    finally:
        thread.join()
    assert not failures


def test_a_killed_worker_is_back_within_two_seconds_and_exact(world: World) -> None:
    """kill -9 under load: restarted, and every record is in its table exactly once."""
    world.start(**only("LOGS"))
    gone_for = []

    def kill_once(written: int) -> None:
        wait_until(lambda: world.counts("LOGS")[0] > written, "load")
        victim = wait_until(lambda: world.worker("LOGS"), "a worker")
        victim.kill()
        killed = time.monotonic()

        def back() -> bool:
            worker = world.worker("LOGS")
            return worker is not None and worker.pid != victim.pid

        wait_until(back, "a new worker", 10)
        gone_for.append(time.monotonic() - killed)

    def kill_three_times() -> None:
        for written in (150, 500, 1000):
            kill_once(written)

    under_load(world, "LOGS", kill_three_times)
    world.wait_settled()
    world.assert_exact()
    assert max(gone_for) < 2 * PATIENCE


def test_sigterm_under_load_drains_and_loses_nothing(world: World) -> None:
    """All workers end in time with status 0, nothing stays unacknowledged, and a new start completes the tables."""
    service = world.start()

    def stop() -> None:
        wait_until(lambda: world.counts("LOGS")[0] > 400, "load")
        processes = [service.pid, *(child.pid for child in psutil.Process(service.pid).children(recursive=True))]
        assert world.stop(service) == 0
        assert not [pid for pid in processes if psutil.pid_exists(pid)]
        ends = [json.loads(line) for line in world.log.splitlines() if "exited after" in line]
        assert len(ends) == len(STREAMS) + 1, "the monitor too"
        assert {end["level"] for end in ends} == {"info"}, "nobody is warned of what was asked for"

    under_load(world, "LOGS", stop)
    # What was released is delivered again at once; nothing waits for a deadline.
    written = world.counts("LOGS")
    info = world.consumer("LOGS")
    assert info.ack_floor.stream_seq == sum(written) or info.num_ack_pending <= 2 * 5000
    world.start(**only("LOGS"))
    world.wait_settled(25)  # less than ack_wait: nothing was left behind unreleased
    world.assert_exact()


def test_a_second_signal_ends_at_once(world: World) -> None:
    """SIGTERM twice does not wait for the drain."""
    service = world.start(**only("LOGS", "EVENTS"))
    wait_until(lambda: world.worker("LOGS"), "workers")
    service.send_signal(signal.SIGTERM)
    service.send_signal(signal.SIGTERM)
    assert service.wait(5 * PATIENCE) in (0, 75)


def test_one_worker_in_the_foreground(world: World) -> None:
    """`worker --stream EVENTS` serves one stream until SIGINT."""
    world.traffic(["EVENTS", "LOGS"], count=50)
    process = world.start("worker", "--stream", "EVENTS")
    wait_until(lambda: sum(world.counts("EVENTS")) == 50, "the events")
    process.send_signal(signal.SIGINT)
    assert process.wait(10 * PATIENCE) == 0
    assert world.counts("LOGS") == (0, 0)


def test_an_excluded_subject_is_acknowledged_and_not_written(world: World) -> None:
    """The raw copy of a raw/processed pair can be left out."""
    world.traffic(["LOGS"], count=60, broken=0)
    raw = [message for message in world.published["LOGS"] if message.subject == "logs.syslog"]
    process = world.start("worker", "--stream", "LOGS", EVENTWRITER_STREAMS__LOGS__EXCLUDE="logs.syslog")
    wait_until(lambda: world.counts("LOGS")[0] == 60 - len(raw), "the others")
    assert world.stop(process) == 0
    assert raw
    assert world.query("SELECT sum(messages_excluded)::int FROM eventwriter.ledger")[0][0] == len(raw)
    assert world.consumer("LOGS").num_ack_pending == 0


def test_an_outage_of_postgresql_holds_the_batch(world: World) -> None:
    """Backends that die under the workers lose nothing and make no dead letters."""
    world.start(**only("LOGS"), EVENTWRITER_WRITER__BATCH_MESSAGES="100")

    def terminate() -> None:
        for written in (100, 500, 900, 1300, 1700):
            wait_until(lambda: world.counts("LOGS")[0] > written, "load")  # noqa: B023 - called at once
            world.query(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'eventwriter %%'"
                " AND datname = current_database() AND %s",
                True,
            )

    under_load(world, "LOGS", terminate)
    world.wait_settled()
    world.assert_exact()


def test_nats_may_go_and_come_back(world: World) -> None:
    """kill -9 of the server under load: the workers stay, reconnect, and everything arrives once."""
    names = ("LOGS", "TELEMETRY", "EVENTS")
    service = world.start(**only(*names))
    world.traffic(names, count=80)
    wait_until(lambda: world.counts("LOGS")[0] > 0, "the first messages")
    world.nats.kill()
    time.sleep(0.5)
    world.nats.start()
    world.traffic(names, count=80, seed=1)
    world.wait_settled(60)
    world.assert_exact()
    assert world.stop(service) == 0


def test_a_consumer_that_is_deleted_resumes_from_the_ledger(world: World) -> None:
    """No gap, no duplicate, and what was done before is not even delivered again."""
    world.traffic(["LOGS"], count=300)
    world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    world.call(lambda client: client.jetstream().delete_consumer("LOGS", "eventwriter-logs"))
    wait_until(lambda: world.services[-1].poll() is not None, "the worker noticed", 40)
    assert world.services[-1].returncode == 69
    world.traffic(["LOGS"], count=100, seed=1)
    world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    world.assert_exact()
    assert world.consumer("LOGS").delivered.consumer_seq == 100


def test_a_stream_that_is_created_again_is_not_swallowed(world: World) -> None:
    """Sequences that begin at 1 again belong to a new ledger."""
    world.traffic(["LOGS"], count=50, broken=0)
    process = world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    assert world.stop(process) == 0
    world.call(lambda client: client.jetstream().delete_stream("LOGS"))
    world.create_streams(["LOGS"])
    world.traffic(["LOGS"], count=50, broken=0, seed=7)
    process = world.start("worker", "--stream", "LOGS")
    world.wait_settled()
    world.assert_exact()


@pytest.mark.parametrize(
    ("arguments", "environment", "status", "words"),
    [
        (["worker", "--stream", "LOGZ"], {}, 64, ["LOGZ", "LOGS"]),
        (["supervise"], {"EVENTWRITER_NATZ__URL": "x"}, 78, ["NATZ", "nats"]),
        (["supervise"], {"EVENTWRITER_STREAMS__LOGZ__ENABLED": "false"}, 78, ["LOGZ", "LOGS"]),
        (["supervise"], {"EVENTWRITER_WRITER__LINGER": "soon"}, 78, ["linger", "soon"]),
        (["worker", "--stream", "LOGS"], {"EVENTWRITER_NATS__URL": "nats://127.0.0.1:1"}, 69, ["127.0.0.1:1"]),
        (["worker", "--stream", "LOGS"], {"EVENTWRITER_POSTGRES__DSN": "host=127.0.0.1 port=1"}, 69, ["port 1"]),
        (["worker", "--stream", "LOGS"], {"EVENTWRITER_STREAMS__LOGS__TABLE": "nowhere"}, 78, ["nowhere", "create it"]),
        (["worker", "--stream", "LOGS"], {"EVENTWRITER_STREAMS__LOGS__STREAM": "NONE"}, 69, ["NONE"]),
        (["supervise"], {"EVENTWRITER_CONFIG": "/nonexistent.toml"}, 78, ["/nonexistent.toml"]),
    ],
    ids=["stream name", "key", "stream in key", "value", "nats", "postgres", "table", "jetstream stream", "file"],
)
def test_a_wrong_setting_is_one_clear_line(
    world: World, arguments: list[str], environment: dict[str, str], status: int, words: list[str]
) -> None:
    """The line names what is wrong, the exit code its kind, and there is no traceback."""
    done = world.run(*arguments, check=False, **environment)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert all(word.lower() in done.stderr.lower() for word in words), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_a_missing_table_stops_one_stream_and_the_others_go_on(world: World) -> None:
    """The stream's line names the table; the supervisor parks it."""
    world.execute("DROP TABLE logs")
    world.traffic(["LOGS", "EVENTS"], count=40)
    service = world.start(**only("LOGS", "EVENTS"))
    wait_until(lambda: sum(world.counts("EVENTS")) == 40, "the events")
    wait_until(lambda: "parked" in world.log, "the parked stream")
    assert "table logs" in world.log
    assert world.stop(service) == 0


def test_an_eighth_stream_is_two_new_files(world: World, tmp_path: Path) -> None:
    """The README's example, in a copy of the project, works without touching anything else."""
    readme = (ROOT / "README.md").read_text()
    python = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    sql = re.search(r"```sql\n(.*?)```", readme, re.DOTALL)
    assert python
    assert sql
    copy = copied(tmp_path / "copy")
    (copy / "workers" / "alerts.py").write_text(python.group(1))
    (copy / "schemas" / "alerts.sql").write_text(sql.group(1))
    world.root = copy
    world.run("schema", "apply")

    async def publish(client: Any) -> None:
        from nats.js.api import StreamConfig

        await client.jetstream().add_stream(StreamConfig(name="ALERTS", subjects=["alerts.>"]))
        await client.jetstream().publish("alerts.fire", b'{"text": "smoke"}')
        await client.jetstream().publish("alerts.fire", b"smoke")

    world.call(publish)
    service = world.start(**only())
    wait_until(lambda: world.counts("ALERTS") == (1, 1), "the alerts")
    assert world.query("SELECT text FROM alerts") == [("smoke",)]
    assert world.stop(service) == 0


def test_check_says_what_each_stream_will_do(world: World) -> None:
    """Nothing is created or changed, and the JSON form says the same."""
    done = world.run("check")
    for name in STREAMS:
        assert f"✓ {name}" in done.stdout
    assert "will be created" in done.stdout
    parsed = json.loads(world.run("check", "--output", "json").stdout)
    assert parsed["ok"] is True
    with pytest.raises(Exception, match="not found"):
        world.consumer("LOGS")


def test_schema_apply_twice_changes_nothing(world: World) -> None:
    """The SQL is idempotent, and what it prints is what it runs."""
    before = world.query("SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY 1, 2, 3")
    world.run("schema", "apply")
    after = world.query("SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY 1, 2, 3")
    assert before == after
    printed = world.run("schema", "sql").stdout
    assert "CREATE TABLE IF NOT EXISTS eventwriter.ledger" in printed
    assert world.run("schema", "check").returncode == 0


def test_the_procfile_runs_servers_and_service(open_folder: Path, prepared: Path) -> None:
    """`honcho start` brings up everything, and ends it on SIGINT."""
    copy = open_folder / "copy"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "*.pyc.*", "tests", "docs"))
    cluster = copy / ".data" / "postgres"  # of a server that was started before
    cluster.mkdir(parents=True)
    PostgresServer(cluster).restore(prepared)
    honcho = Path(sys.executable).with_name("honcho")
    if not honcho.exists():
        pytest.skip("honcho is not installed")
    environment = clean_environment() | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "NATS_PORT": str(free_port()),
        "POSTGRES_PORT": str(free_port()),
    }
    output = open_folder / "honcho.log"
    with (
        output.open("wb") as log,
        ending(subprocess.Popen([str(honcho), "start"], cwd=copy, env=environment, stdout=log, stderr=log)) as process,
    ):
        try:
            created = [f"consumer eventwriter-{name.lower()} created" for name in STREAMS]
            wait_until(lambda: all(each in output.read_text() for each in created), "the service", 60)
        except BaseException:
            print(output.read_text())
            raise
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30 * PATIENCE)


def test_ack_all_needs_the_consumer_alone(world: World) -> None:
    """A second worker with ack = "all" says what is wrong, writes nothing, and may take over afterwards."""
    environment = {"EVENTWRITER_WRITER__ACK": "all"}
    world.traffic(["LOGS"], count=100)
    first = world.start("worker", "--stream", "LOGS", **environment)
    world.wait_settled()
    second = world.run("worker", "--stream", "LOGS", check=False, **environment)
    assert second.returncode == 69
    assert "another worker serves this consumer" in second.stderr
    assert world.stop(first) == 0
    world.traffic(["LOGS"], count=100, seed=1)
    third = world.start("worker", "--stream", "LOGS", **environment)
    world.wait_settled()
    world.assert_exact()
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    assert world.stop(third) == 0
