"""Messages that end the process that decodes them: dead letters, with all their neighbours in the tables."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from eventwriter import registry
from fix_service import STREAMS, World, copied, only, wait_until
from traffic import Publication, Traffic

QUICK = {
    "EVENTWRITER_WRITER__ACK_WAIT": "1s",
    "EVENTWRITER_WRITER__STALL_TIMEOUT": "3s",
    "EVENTWRITER_POSTGRES__STATEMENT_TIMEOUT": "2s",
}
HOSTILE = '''
"""Decoders that end their process on certain payloads."""
import dataclasses, os, pathlib, resource, signal, time

def grow():
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**28, -1))
    kept = []
    while True:
        kept.append(bytearray(2**24))

def loop():
    while True:
        time.sleep(0.01)

def twice():
    path = pathlib.Path(__file__).with_name("deaths")
    count = len(path.read_text()) if path.exists() else 0
    if count < 2:
        path.write_text("x" * (count + 1))
        os.abort()

def slowly():
    while not pathlib.Path(__file__).with_name("go").exists():
        time.sleep(0.05)

ACTS = {
    b"with a signal": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    b"with status 0": lambda: os._exit(0),
    b"with an exception": lambda: exec("raise SystemExit(3)"),
    b"without memory": grow,
    b"with one allocation": lambda: bytearray(2**50),
    b"never": loop,
    b"only twice": twice,
    b"slowly": slowly,
}

def hostile(stream):
    def act(message):
        for payload, do in ACTS.items():
            if b"ends " + payload in message.payload:
                do()

    def decode(message):
        act(message)
        return stream.decode(message)

    def fast(messages):
        for message in messages:
            act(message)
        return stream.fast(messages)

    return dataclasses.replace(stream, decode=decode, fast=fast if stream.fast else None)
'''
WAYS = ("with a signal", "with status 0", "with an exception", "without memory", "with one allocation", "never")


@pytest.fixture
def hostile(world: World, tmp_path: Path) -> World:
    """A world whose decoders end their process on certain payloads."""
    copy = copied(tmp_path / "copy")
    (copy / "workers" / "_hostile.py").write_text(HOSTILE)
    for name in STREAMS:
        with (copy / "workers" / f"{name.lower()}.py").open("a") as file:
            file.write("\n\nfrom workers._hostile import hostile\n\nSTREAM = hostile(STREAM)\n")
    world.root = copy
    return world


def ends(stream: str, way: str) -> Publication:
    """A message that ends the process that decodes it."""
    subject = registry.load()[stream].subjects[-1].replace(">", "hostile")
    return Publication(subject, b'{"body": "ends %b"}' % way.encode(), (), 1)


def letters(world: World) -> list[tuple[str, str, bytes, int | None]]:
    """The dead letters, in order."""
    return world.query(
        "SELECT logical_stream, reason, payload, record_index FROM eventwriter.dead_letters ORDER BY 1, sequence"
    )


@pytest.mark.parametrize("names", [("EVENTS", "LOGS"), pytest.param(STREAMS, marks=pytest.mark.long)], ids=len)
def test_what_ends_its_process_is_a_dead_letter(hostile: World, names: tuple[str, ...]) -> None:
    """In every way, on every stream, between good messages, whose rows are all there."""
    for number, name in enumerate(names):
        source = Traffic(name, records=3)
        bad = [ends(name, way) for way in (WAYS if name == "LOGS" else (WAYS[number % 5], WAYS[(number + 1) % 5]))]
        hostile.publish(name, [each for one in bad for each in (source.next(), one, source.next())])
    service = hostile.start(**QUICK, **only(*names))
    hostile.wait_settled()
    hostile.assert_exact()
    found = letters(hostile)
    assert {(reason, index) for _, reason, _, index in found} == {("crashes", None)}
    for name, messages in hostile.published.items():
        assert [each[2] for each in found if each[0] == name] == [each.payload for each in messages if each.rejects]
    hostile.traffic(names, count=5)
    hostile.wait_settled()
    assert hostile.stop(service) == 0


def test_two_deaths_prove_nothing(hostile: World) -> None:
    """The third process that decodes it lives, and the message is a row."""
    hostile.publish("LOGS", [Traffic("LOGS").next(), ends("LOGS", "only twice")])
    service = hostile.start(**QUICK, **only("LOGS"))
    hostile.wait_settled()
    assert hostile.counts("LOGS") == (2, 0)
    assert hostile.stop(service) == 0


def waits(world: World) -> bool:
    """Whether the worker has something in hand, and waits for a lock."""
    return bool(
        world.query(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'eventwriter LOGS' "
            "AND wait_event_type = 'Lock'"
        )
    )


def test_what_may_be_the_doing_of_others_proves_nothing(hostile: World) -> None:
    """A worker alone is killed again and again with a message in hand: while it tries it, and while it waits.

    So are the processes in which it tries.
    """
    hostile.publish("LOGS", [ends("LOGS", "slowly")])
    command = "worker", "--stream", "LOGS"

    def in_hand() -> bool:
        return "consumer eventwriter-logs created" in hostile.log and hostile.consumer("LOGS").num_ack_pending == 1

    for first in (True, False, False):
        worker = hostile.start(*command, EVENTWRITER_WRITER__ACK_WAIT="1s")
        family = psutil.Process(worker.pid)
        if not first:
            for _ in range(4):
                with suppress(psutil.NoSuchProcess):  # the one before
                    wait_until(family.children, "it is tried")[0].kill()
            wait_until(lambda: "was ended: signal 9" in hostile.log, "it is told")
        else:
            wait_until(in_hand, "it is in hand")
        worker.kill()
        worker.wait()
    (hostile.root / "workers" / "go").touch()
    with psycopg.connect(hostile.dsn) as lock:
        lock.execute("LOCK TABLE logs")
        for _ in range(4):
            worker = hostile.start(*command, EVENTWRITER_WRITER__ACK_WAIT="1s")
            wait_until(lambda: waits(hostile), "it waits for the table")
            worker.kill()
            worker.wait()
            wait_until(lambda: not waits(hostile), "PostgreSQL has noticed")
    worker = hostile.start(*command)
    hostile.wait_settled()
    assert hostile.counts("LOGS") == (1, 0)
    assert hostile.stop(worker) == 0
