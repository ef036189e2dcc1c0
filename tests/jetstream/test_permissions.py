"""What NATS must permit: exactly what is documented is enough, and what is missing is named, at once."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from consumers import ONLY_LOGS, STREAM, TOLD, edit, serving, settings, told, well
from eventwriter.config.loading import NatsConfig
from eventwriter.embedded import PostgresServer
from eventwriter.jetstream.permissions import Permissions
from fix_monitor import Endpoint
from fix_service import ROOT, World, new_world, wait_until

INBOX = "_INBOX.>"
GET = "$JS.API.STREAM.MSG.GET.LOGS"
INFO = "$JS.API.CONSUMER.INFO.LOGS.eventwriter-logs"
CREATE = "$JS.API.CONSUMER.DURABLE.CREATE.LOGS.eventwriter-logs"
PULL = "$JS.API.CONSUMER.MSG.NEXT.LOGS.eventwriter-logs"
ACKS = "$JS.ACK.LOGS.eventwriter-logs.>"


def documented() -> list[str]:
    """The subjects of docs/configuration.md, for LOGS."""
    text = (ROOT / "docs" / "configuration.md").read_text().partition("### What NATS must permit")[2]
    found = re.findall(r"^\| `([^`]+)` \|", text.partition("\n## ")[0], re.MULTILINE)
    return [each.replace("<stream>", "LOGS").replace("<durable>", "eventwriter-logs") for each in found]


def guarded(without: Sequence[str] = ()) -> str:
    """The server's configuration in which user ``writer`` may do what is documented, and everybody else all."""
    allowed = [f'"{each}"' for each in documented() if each != INBOX and each not in without]
    received = '"nothing"' if INBOX in without else f'"{INBOX}"'
    may = f"permissions: {{publish: {{allow: [{', '.join(allowed)}]}}, subscribe: {{allow: [{received}]}}}}"
    users = f"[{{user: admin, password: a}}, {{user: writer, password: w, {may}}}]"
    return f"authorization: {{users: {users}}}\nno_auth_user: admin\n"


def permit(world: World, *, without: Sequence[str] = ()) -> None:
    """Makes the server read its configuration again, with other permissions."""
    world.nats._config = guarded(without)
    (world.nats.folder / "nats.conf").write_text(world.nats._config)
    reloads = world.nats.log.read_text().count("Reloaded server configuration")
    os.kill(world.nats.pid, signal.SIGHUP)
    wait_until(lambda: world.nats.log.read_text().count("Reloaded server configuration") > reloads, "the reload")


@pytest.fixture
def world(tmp_path: Path, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A world whose services may do what is documented and nothing else, and write LOGS alone."""
    with new_world(tmp_path, postgres_server, template, guarded()) as world:
        world.environment |= ONLY_LOGS
        world.environment |= {"EVENTWRITER_NATS__USER": "writer", "EVENTWRITER_NATS__PASSWORD": "w"}
        yield world


def test_what_is_documented_is_enough(world: World) -> None:
    """To create a consumer, to put it right, to begin it again, to outlive a server; and nobody is refused anything."""
    endpoint = serving(world)
    world.traffic(["LOGS"], count=100)
    world.wait_settled()
    edit(world, headers_only=True)
    wait_until(lambda: "headers_only" not in settings(world), "the repair", TOLD)
    world.traffic(["LOGS"], count=100, seed=1)
    world.wait_settled()
    world.call(lambda client: client.jetstream().delete_consumer("LOGS", "eventwriter-logs"))
    world.traffic(["LOGS"], count=100, seed=2)
    world.wait_settled()
    world.nats.kill()
    world.nats.start()
    world.traffic(["LOGS"], count=100, seed=3)
    world.wait_settled()
    world.assert_exact()
    well(endpoint)
    assert "✓ LOGS" in world.run("check").stdout
    assert world.stop(world.services[0]) == 0
    assert "Violation" not in world.nats.log.read_text()


@pytest.mark.parametrize("subject", [GET, PULL, ACKS, INFO, "$JS.API.STREAM.INFO.LOGS", INBOX])
def test_a_missing_permission_ends_the_start(world: World, subject: str) -> None:
    """With 77 and the subject, also when it is one that is needed only later. Nothing is taken before."""
    world.traffic(["LOGS"], count=10)
    permit(world, without=[subject])
    verb = "subscribe" if subject == INBOX else "publish"
    done = world.run("worker", "--stream", "LOGS", check=False)
    assert done.returncode == 77
    assert f"NATS forbids to {verb} to {subject}: add it to the permissions of the user" in done.stderr
    if subject == GET:
        done = world.run("check", check=False)
        assert done.returncode == 77
        assert f"NATS forbids to publish to {subject}: " in done.stdout


def test_all_that_is_missing_is_named_together(world: World) -> None:
    """Nobody wants to learn of it one by one."""
    permit(world, without=[GET, ACKS, PULL])
    done = world.run("worker", "--stream", "LOGS", check=False)
    assert f"NATS forbids to publish to {ACKS}, to publish to {PULL}, to publish to {GET}: " in done.stderr


def test_a_consumer_that_need_not_be_changed_needs_no_permission_for_that(world: World) -> None:
    """To create it is refused with the subject; once it is there, all is well without."""
    permit(world, without=[CREATE])
    for command in (["worker", "--stream", "LOGS"], ["check"]):
        done = world.run(*command, check=False)
        assert done.returncode == 77
        assert f"NATS forbids to publish to {CREATE}" in done.stdout + done.stderr
    permit(world)
    world.start("worker", "--stream", "LOGS")
    wait_until(lambda: "consumer eventwriter-logs created" in world.log, "the consumer")
    assert world.stop(world.services[0]) == 0
    permit(world, without=[CREATE])
    world.traffic(["LOGS"], count=10)
    serving(world)
    world.wait_settled()


@pytest.mark.parametrize(
    "subject", [GET, ACKS, INBOX, *(pytest.param(s, marks=pytest.mark.long) for s in (PULL, INFO))]
)
def test_a_permission_that_is_taken_away(world: World, subject: str) -> None:
    """/readyz names it within seconds, under traffic; the log does once. Once it is back, so is everything, once."""
    # Small batches, for a pull that was taken goes on.
    endpoint = serving(world, EVENTWRITER_WRITER__ACK_WAIT="1s", EVENTWRITER_WRITER__BATCH_MESSAGES="200")
    world.traffic(["LOGS"], count=500)
    world.wait_settled()
    permit(world, without=[subject])
    if subject == GET:  # which is needed when a server comes back, or when nothing was pulled for a while
        world.nats.kill()
        world.nats.start()
    for number in range(5):
        world.traffic(["LOGS"], count=500, seed=number)
    told(endpoint, f"NATS forbids to {'subscribe' if subject == INBOX else 'publish'} to {subject}")
    worker = wait_until(lambda: world.worker("LOGS"), "the worker")
    assert stays(endpoint, 4.0 if subject in (ACKS, INBOX) else 0.5), "not ready all the time"
    assert world.worker("LOGS") == worker, "it was not restarted"
    assert world.log.count('"message": "NATS forbids') == 1, world.log
    assert world.nats.log.read_text().count("Violation") < 500, "what is refused is not done again and again"
    permit(world)
    well(endpoint)
    world.wait_settled()
    world.assert_exact()
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    assert world.log.count("\n") < 40, world.log


def test_acks_of_the_second_version(world: World) -> None:
    """They have domain and account before the stream, so they need another permission, which is named."""
    second = "$JS.ACK.*.*.LOGS.eventwriter-logs.>"
    world.nats.stop()
    permit_at_start = f"feature_flags: {{js_ack_fc_v2: true}}\n{guarded(without=[second])}"
    world.nats._config = permit_at_start
    world.nats.start()
    endpoint = serving(world, EVENTWRITER_WRITER__ACK_WAIT="1s")
    world.traffic(["LOGS"], count=500)
    told(endpoint, f"NATS forbids to publish to {second}: add it")
    assert stays(endpoint, 4.0), "not ready all the time"
    assert world.log.count('"message": "NATS forbids') == 1, world.log
    world.nats._config = f"feature_flags: {{js_ack_fc_v2: true}}\n{guarded(without=[ACKS])}"
    (world.nats.folder / "nats.conf").write_text(world.nats._config)
    os.kill(world.nats.pid, signal.SIGHUP)
    well(endpoint)
    world.wait_settled()
    world.assert_exact()
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")


def stays(endpoint: Endpoint, seconds: float) -> bool:
    """Whether the service is not ready, for so long."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > until or endpoint.answers("/readyz", 200), "the end of it", 2 * seconds)
    return time.monotonic() > until


def test_violations_are_told_from_other_errors() -> None:
    """The client gives them in lower case; what is not ours is left to others."""
    permissions = Permissions(NatsConfig(), STREAM)
    assert permissions.complete
    assert not permissions.note("nats: slow consumer")
    assert not permissions.note('nats: permissions violation for publish to "something.else"')
    assert permissions.complete
    for number in range(1000):
        ack = f"$js.ack.logs.eventwriter-logs.1.{number}.{number}.1.1"
        assert permissions.note(f'nats: permissions violation for publish to "{ack}"')
    assert not permissions.may_acknowledge
    assert not permissions.may_pull
    assert f"publish to {ACKS}: " in permissions.trouble


def test_an_answer_ends_a_refusal() -> None:
    """What was refused once and is answered now, is permitted again."""
    permissions = Permissions(NatsConfig(), STREAM)

    async def answer() -> str:
        return "yes"

    async def ask() -> Any:
        permissions.note(f'nats: permissions violation for publish to "{GET.lower()}"')
        assert GET in permissions.trouble
        return await permissions.asked(GET, answer())

    assert asyncio.run(ask()) == "yes"
    assert permissions.complete
    assert permissions.trouble == ""
