"""What happens on the JetStream side while workers run: nothing is lost, swallowed, claimed or written twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.js.api import ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.errors import APIError

from eventwriter import registry, worker
from eventwriter.config import loading
from eventwriter.embedded.nats import nats_binary
from eventwriter.jetstream.source import Source
from eventwriter.postgres.sink import Sink
from fix_service import STREAMS, World, only, wait_until
from patience import PATIENCE
from processes import Process, end
from traffic import Traffic

QUICK = {"EVENTWRITER_WRITER__ACK_WAIT": "1s"}


def ranges(world: World, stream: str = "LOGS") -> list[tuple[int, int]]:
    """The done sequences of a stream's ledgers, first and last."""
    return world.query(
        "SELECT lower(r), upper(r) - 1 FROM eventwriter.ledger, unnest(done) r "
        "WHERE logical_stream = %s ORDER BY stream_created, durable, 1",
        stream,
    )


def ended(process: Process, seconds: float = 40.0) -> int:
    """The exit status of a process that ends by itself."""
    wait_until(lambda: process.poll() is not None, "its end", seconds)
    return process.wait()


@contextlib.contextmanager
def rolled_back(world: World, what: str) -> Iterator[None]:
    """Kills the server, runs the body, and starts it again with that part of its store as it was before the body."""
    store = world.nats.folder / "store"
    part = next(store.glob(f"jetstream/*/streams/{what}"))
    copy = world.folder / "earlier"

    def copied() -> bool:
        shutil.rmtree(copy, ignore_errors=True)
        try:
            shutil.copytree(part, copy)
        except shutil.Error:  # the server replaces files by renaming others
            return False
        return True

    wait_until(copied, "a copy of what the server writes")
    yield
    world.nats.kill()
    shutil.rmtree(part)
    shutil.copytree(copy, part)
    world.nats.start()


def delete_consumer(world: World, stream: str = "LOGS") -> None:
    """Deletes the durable."""
    world.call(lambda client: client.jetstream().delete_consumer(stream, f"eventwriter-{stream.lower()}"))


def test_acks_that_the_server_forgets_are_known(world: World) -> None:
    """kill -9 with the consumer's state as it was long ago: everything comes again as if for the first time."""
    world.traffic(["LOGS"], count=200)
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    with rolled_back(world, "LOGS/obs"):
        world.traffic(["LOGS"], count=300, seed=1)
        world.wait_settled()
    world.traffic(["LOGS"], count=100, seed=2)
    world.wait_settled()
    wait_until(lambda: world.consumer("LOGS").ack_floor.stream_seq == 600, "the acks")
    world.assert_exact()
    assert world.stop(process) == 0
    assert ranges(world) == [(1, 600)]


def test_a_consumer_deleted_under_load_loses_nothing(world: World) -> None:
    """The supervisor's next worker creates it again, where the ledger says."""
    service = world.start("supervise", **QUICK, **only("LOGS"))
    for number in range(3):
        world.traffic(["LOGS"], count=200, seed=number)
        before = 200 * number
        wait_until(lambda: sum(world.counts("LOGS")) > before, "load")  # noqa: B023 - called at once
        delete_consumer(world)
    world.wait_settled()
    world.assert_exact()
    # A worker that is told to stop before it has noticed cannot say that all is acknowledged.
    wait_until(lambda: world.call(lambda client: client.jetstream().consumers_info("LOGS")), "the next consumer")
    assert world.stop(service) == 0


@pytest.mark.parametrize("start", [1, 250], ids=["from the beginning", "from further on"])
def test_a_consumer_that_somebody_creates_at_another_position(world: World, start: int) -> None:
    """What is delivered again is known; what is skipped is missing, and read again."""
    world.traffic(["LOGS"], count=100, broken=0)
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    assert world.stop(process) == 0
    delete_consumer(world)
    world.traffic(["LOGS"], count=200, broken=0, seed=1)
    loading = ConsumerConfig(
        durable_name="eventwriter-logs",
        description="eventwriter: as if a worker had begun here",
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=start,
        ack_wait=1,
        max_ack_pending=50_000,
    )
    world.call(lambda client: client.jetstream().add_consumer("LOGS", loading))
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    world.assert_exact()
    wait_until(lambda: ranges(world) == [(1, 300)], "the ledger has no gap")
    assert world.stop(process) == 0


def test_a_stream_deleted_and_created_again_under_a_running_worker(world: World) -> None:
    """The new stream's sequences begin at 1 again: none of them is taken for one that is done."""
    service = world.start("supervise", **QUICK, **only("LOGS"))
    world.traffic(["LOGS"], count=300, broken=0)
    world.wait_settled()
    for number in (1, 2):
        world.call(lambda client: client.jetstream().delete_stream("LOGS"))
        world.create_streams(["LOGS"])
        world.traffic(["LOGS"], count=100, broken=0, seed=number)
        world.wait_settled()
    world.assert_exact()
    assert world.query("SELECT count(*) FROM eventwriter.ledger WHERE logical_stream = 'LOGS'") == [(3,)]
    assert world.stop(service) == 0


def test_another_worker_is_ahead_on_a_new_stream(world: World) -> None:
    """A worker that was away while the stream was created again, and another one went on, does not trust its ledger."""
    world.traffic(["LOGS"], count=400, broken=0)
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    process.send_signal(signal.SIGSTOP)
    world.call(lambda client: client.jetstream().delete_stream("LOGS"))
    world.create_streams(["LOGS"])
    world.traffic(["LOGS"], count=300, broken=0, seed=1)
    other = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    assert world.stop(other) == 0
    process.send_signal(signal.SIGCONT)
    world.traffic(["LOGS"], count=50, broken=0, seed=2)
    assert ended(process) == 69
    world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    world.assert_exact()


@pytest.mark.parametrize("unseen", [0, 150], ids=["shorter", "filled up"])
@pytest.mark.parametrize("running", [False, True], ids=["stopped", "running"])
def test_a_stream_restored_to_an_earlier_state_is_refused(world: World, running: bool, unseen: int) -> None:
    """Its next messages get sequences that are done: the worker says so and exits 78, writing none of them; so does
    every other one, and whoever wants to read again, also when the sequences are given out again, and more."""
    world.traffic(["LOGS"], count=100, broken=0)
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    with rolled_back(world, "LOGS"):
        world.traffic(["LOGS"], count=100, broken=0, seed=1)
        world.wait_settled()
        if running:
            process.send_signal(signal.SIGSTOP)
        else:
            assert world.stop(process) == 0
    before = world.counts("LOGS")
    publish_unseen(world, unseen)
    if running:
        process.send_signal(signal.SIGCONT)
    else:
        process = world.start("worker", "--stream", "LOGS", **QUICK)
    assert ended(process) == 78
    assert ended(world.start("worker", "--stream", "LOGS", **QUICK)) == 78
    assert world.log.count("was restored to an earlier state") == 2
    for command in ("replay", "verify"):
        told = world.run(command, "--stream", "LOGS", check=False)
        assert (told.returncode, "was restored to an earlier state" in told.stdout + told.stderr) == (78, True)
    assert world.counts("LOGS") == before


def test_a_worker_that_begins_while_another_is_at_work_suspects_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """What the other one writes and acknowledges between two looks is neither ahead of the stream nor lost."""
    world.start("worker", "--stream", "LOGS", **QUICK)
    world.traffic(["LOGS"], count=50, broken=0)
    world.wait_settled()
    declared = registry.load()
    found = loading.load(declared, file=None, environ=world.environment, flags={})
    settings = found.streams["LOGS"]
    source, sink = Source(found.nats, settings), Sink(found.postgres, declared["LOGS"], settings.table)
    passed: list[str] = []

    def meanwhile(here: str) -> None:
        passed.append(here)
        world.traffic(["LOGS"], count=50, broken=0, seed=len(passed))
        done = len(world.published["LOGS"])
        wait_until(lambda: world.consumer("LOGS").ack_floor.stream_seq == done, "the acks")

    try:
        worker._prepare(source, sink, settings, meanwhile)
    finally:
        source.close(5.0)
        sink.close()
    assert passed == ["at_start", "at_consumer"]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert world.query("SELECT begins FROM eventwriter.ledger") == [(0,)]


def test_what_arrives_while_the_stream_is_asked_is_not_ahead_of_it(world: World) -> None:
    """After an interruption an earlier pull may go on: its messages are newer than the stream's answer."""
    world.traffic(["LOGS"], count=50, broken=0)
    found = loading.load(registry.load(), file=None, environ=world.environment, flags={})
    source = Source(found.nats, found.streams["LOGS"])
    binding = source.link.binding
    ask = binding._request

    async def slow(subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = await ask(subject, body)
        source._handover.newest = (51, 0)  # as the main thread does when it takes a batch
        return answer

    try:
        source.open()
        source.bind(1)
        binding._request = slow
        assert source.loop.call(binding.changed(), 10) is None
        assert "ends at 50" in str(source.loop.call(binding.changed(), 10)), "what was known before it is asked"
    finally:
        source.close(5.0)


def publish_unseen(world: World, count: int) -> None:
    """Publishes messages that nothing is expected of."""

    async def publish(client: Any) -> None:
        for _ in range(count):
            await client.jetstream().publish("logs.syslog", b"{}")

    world.call(publish)


def test_purged_and_deleted_messages_are_passed_over(world: World) -> None:
    """Messages that leave the stream before they are delivered leave no trace, and hold nothing up."""
    world.traffic(["LOGS"], count=100, broken=0)
    world.call(lambda client: client.jetstream().purge_stream("LOGS", keep=40))
    world.published["LOGS"][:60] = []

    async def delete_some(client: Any) -> None:
        for sequence in (61, 70, 71, 100):
            await client.jetstream().delete_msg("LOGS", sequence)

    world.call(delete_some)
    kept = [m for n, m in enumerate(world.published["LOGS"], 61) if n not in (61, 70, 71, 100)]
    world.published["LOGS"] = kept
    process = world.start("worker", "--stream", "LOGS", **QUICK)
    world.wait_settled()
    world.call(lambda client: client.jetstream().purge_stream("LOGS"))
    world.traffic(["LOGS"], count=50, broken=0, seed=1)
    world.wait_settled()
    world.assert_exact()
    assert world.stop(process) == 0
    assert len(ranges(world)) <= 2


def test_two_supervisors_with_three_processes_share_a_durable(world: World) -> None:
    """Six workers of one stream, one of them killed: each message is written by one of them."""
    environment = QUICK | {
        "EVENTWRITER_STREAMS__LOGS__PROCESSES": "3",
        "EVENTWRITER_STREAMS__LOGS__BATCH_MESSAGES": "20",
    }
    environment |= {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}
    services = [world.start("supervise", **environment) for _ in range(2)]
    wait_until(lambda: world.log.count("messages waiting") >= 6, "six workers")
    for number in range(4):
        world.traffic(["LOGS"], count=400, seed=number)
        if number == 1:
            wait_until(lambda: world.worker("LOGS/2"), "a worker").kill()
    world.wait_settled()
    world.assert_exact()
    assert [world.stop(service) for service in services] == [0, 0]


def test_seven_logical_streams_on_one_jetstream_stream(world: World) -> None:
    """With filters on a shared stream every other message is somebody else's: the ledgers stay short all the same."""
    declared = registry.load()

    async def create(client: Any) -> None:
        stream = client.jetstream()
        for name in STREAMS:
            await stream.delete_stream(name)
        subjects = [subject for name in STREAMS for subject in declared[name].subjects]
        await stream.add_stream(StreamConfig(name="events", subjects=subjects))
        sources = {name: Traffic(name, seed=5, broken=0.01, records=3) for name in STREAMS}
        for number in range(2500):
            name = STREAMS[number % len(STREAMS) if number % 3 else 0]
            message = sources[name].next()
            world.published.setdefault(name, []).append(message)
            await client.publish(message.subject, message.payload, headers=message.headers)
        await client.flush()

    world.call(create)
    environment = QUICK | {f"EVENTWRITER_STREAMS__{name}__STREAM": "events" for name in STREAMS}
    environment |= {"EVENTWRITER_STREAMS__LOGS__PROCESSES": "2", "EVENTWRITER_WRITER__BATCH_MESSAGES": "40"}
    service = world.start("supervise", **environment)
    world.wait_settled()
    world.assert_exact()
    counts = {name: len(ranges(world, name)) for name in STREAMS}
    print(f"ranges in the ledgers: {counts}")
    assert all(count <= 5 for name, count in counts.items() if name != "LOGS"), counts
    assert counts["LOGS"] <= 100, counts
    assert world.stop(service) == 0


def test_a_server_in_lame_duck_mode_and_its_successor(world: World) -> None:
    """The server asks its clients to leave before it ends; they come back when it does."""
    names = ("LOGS", "TELEMETRY", "EVENTS")
    service = world.start("supervise", **QUICK, **only(*names))
    world.traffic(names, count=50)
    wait_until(lambda: world.counts("LOGS")[0] > 0, "load")
    os.kill(world.nats.pid, signal.SIGUSR2)
    time.sleep(0.5)
    world.nats.kill()
    world.nats.start()
    world.traffic(names, count=50, seed=1)
    world.wait_settled()
    world.assert_exact()
    assert world.stop(service) == 0


def cluster_config(folder: Path, name: str, port: int, routes: list[int]) -> Path:
    """The configuration of one node: its own route port is the first."""
    others = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes[1:])
    loading = folder / f"{name}.conf"
    loading.write_text(
        f'server_name: {name}\nlisten: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / name}" }}\n'
        f'cluster {{ name: "c", listen: "127.0.0.1:{routes[0]}", routes: [{others}] }}\n'
    )
    return loading


@pytest.fixture
def six_ports() -> Iterator[list[int]]:
    """Ports for a cluster of three: nobody is given one who asks for any, and its servers get those they ask for."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(6)]
        for probe in probes:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", 0))
        yield [probe.getsockname()[1] for probe in probes]


def test_a_cluster_loses_the_leader_of_stream_and_consumer(world: World, tmp_path: Path, six_ports: list[int]) -> None:
    """Three nodes, three replicas, the leader killed with -9 under load: the workers go on with the new one."""
    ports, routes = six_ports[:3], six_ports[3:]
    nodes = {
        f"n{i}": [
            str(nats_binary()),
            "-c",
            str(cluster_config(tmp_path, f"n{i}", ports[i], [routes[i], *routes[:i], *routes[i + 1 :]])),
        ]
        for i in range(3)
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    urls = [f"nats://127.0.0.1:{port}" for port in ports]
    messages = Traffic("LOGS", seed=9, records=3)

    async def publish(count: int) -> str:
        client = await nats.connect(urls, max_reconnect_attempts=-1, reconnect_time_wait=0.2, error_cb=ignore)
        try:
            return await published(client.jetstream(), count)
        finally:
            await client.close()

    async def published(stream: Any, count: int) -> str:
        loading = StreamConfig(name="LOGS", subjects=list(registry.load()["LOGS"].subjects), num_replicas=3)
        deadline = time.monotonic() + 40 * PATIENCE
        while True:
            try:
                await stream.add_stream(loading)
                break
            except (nats.errors.Error, APIError):
                assert time.monotonic() < deadline, "no leader"
                await asyncio.sleep(0.2)
        for _ in range(count):
            message = messages.next()
            world.published.setdefault("LOGS", []).append(message)
            headers = {"Nats-Msg-Id": str(len(world.published["LOGS"]))}
            while True:
                try:
                    await stream.publish(message.subject, message.payload, headers=headers, timeout=2)
                    break
                except (nats.errors.Error, APIError):
                    assert time.monotonic() < deadline, "not published"
                    await asyncio.sleep(0.1)
        leader = (await stream.stream_info("LOGS")).cluster
        return str(leader.leader if leader else "")

    async def ignore(error: Exception) -> None:
        """Nodes are killed."""

    try:
        for name, command in nodes.items():
            with (tmp_path / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(command, stdout=log, stderr=log)
        leader = asyncio.run(publish(150))
        environment = QUICK | {"EVENTWRITER_NATS__URL": ",".join(urls), "EVENTWRITER_STREAMS__LOGS__PROCESSES": "2"}
        environment |= {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}
        service = world.start("supervise", **environment)
        wait_until(lambda: world.counts("LOGS")[0] > 0, "load")
        running[leader].kill()
        running[leader].wait()
        asyncio.run(publish(150))
        world.wait_settled(60)
        world.assert_exact()
        assert world.stop(service) == 0
    finally:
        for process in running.values():
            end(process)
