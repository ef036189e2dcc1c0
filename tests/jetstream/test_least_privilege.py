"""Each command as a user of NATS who may do exactly what docs/security.md says, and as users who may do less."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator, Sequence

import pytest
from test_permissions import documented

from eventwriter.embedded import PostgresServer, free_port
from eventwriter.errors import AUTHENTICATION
from fix_service import ROOT, World, new_world, only, wait_until

INBOX = "_INBOX.>"
COMMANDS: dict[str, tuple[str, ...]] = {
    "check": ("check", "--output", "json"),
    "replay": ("replay", "--stream", "LOGS", "--output", "json"),
    "verify": ("verify", "--stream", "LOGS", "--output", "json"),
    "tap": ("tap", "--stream", "LOGS", "--since", "1h", "--limit", "3"),
    "streams create": ("streams", "create", "--stream", "EVENTS"),
}


def table() -> dict[str, dict[str, str]]:
    """Subject → column → mark, as docs/security.md has it."""
    text = (ROOT / "docs" / "security.md").read_text().partition("## Who may do what in NATS")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    names = [cell.replace("`", "") for cell in rows[0][1:]]
    return {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows[2:]}


def allowed(command: str, marks: str = "✓○`--since`") -> list[str]:
    """The subjects that a command is documented to need, for the streams that it is tried with."""
    stream = "NEW" if command == "streams create" else "LOGS"
    return [
        subject.replace("<stream>", stream).replace("<durable>", "eventwriter-logs")
        for subject, columns in table().items()
        for names, mark in columns.items()
        if command in re.split(", ", names) and mark and mark in marks
    ]


NEEDED = [(command, subject) for command in COMMANDS for subject in allowed(command, "✓`--since`")]
LESS = [(command, subject) for command, subject in NEEDED if command != "check"]
"""The service's are taken away one by one in test_permissions.py; `check` asks for them at once."""


def user(name: str, subjects: Sequence[str], inbox: str = INBOX) -> str:
    """One of a server's configuration."""
    quoted = ", ".join(f'"{each}"' for each in subjects)
    may = f'publish: {{allow: [{quoted}]}}, subscribe: {{allow: ["{inbox}"]}}'
    return f'{{user: "{name}", password: w, permissions: {{{may}}}}}'


def guarded() -> str:
    """A server's users: for each command one with all, one with what is needed, and some with less than that."""
    users = ["{user: admin, password: a}"]
    for command in COMMANDS:
        needed = allowed(command, "✓`--since`")
        users += [user(f"{command}-all", allowed(command)), user(f"{command}-needed", needed)]
        users += [user(f"{command}-without-{i}", [*needed[:i], *needed[i + 1 :]]) for i in range(len(needed))]
        users.append(user(f"{command}-deaf", needed, "nothing"))
    users.append(user("replay-half", [*allowed("replay", "✓"), "$JS.API.CONSUMER.CREATE.LOGS"]))
    return f"authorization: {{users: [{', '.join(users)}]}}\nno_auth_user: admin\n"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """LOGS with rows written, and some more that are missing in its ledger."""
    with new_world(tmp_path_factory.mktemp("least"), postgres_server, template, guarded()) as world:
        world.environment |= only("LOGS")
        world.traffic(["LOGS"], count=100, broken=0)
        worker = world.start("worker", "--stream", "LOGS")
        world.wait_settled()
        wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
        assert world.stop(worker) == 0
        yield world


def run(world: World, command: str, who: str) -> subprocess.CompletedProcess[str]:
    """As this user; what is created is there no more afterwards."""
    login = {"EVENTWRITER_NATS__USER": f"{command}-{who}", "EVENTWRITER_NATS__PASSWORD": "w"}
    new = {"EVENTWRITER_STREAMS__EVENTS__STREAM": "NEW", "EVENTWRITER_STREAMS__EVENTS__SUBJECTS": "new.>"}
    if command == "streams create":
        new["EVENTWRITER_STREAMS__EVENTS__ENABLED"] = "true"
        login |= new
    if command == "replay":
        world.execute("UPDATE eventwriter.ledger SET done = done - '{[1,81)}'::int8multirange, version = version + 1")
        world.execute("DELETE FROM logs")
    return world.run(*COMMANDS[command], check=False, **login)


def result(command: str, done: subprocess.CompletedProcess[str]) -> object:
    """What tells that it did all of its work."""
    assert done.returncode == 0, done.stdout + done.stderr
    if command == "check":
        return json.loads(done.stdout)["ok"]
    if command == "replay":
        return json.loads(done.stdout)["written"] == 80
    if command == "verify":
        return json.loads(done.stdout)["streams"]
    return done.stdout.count("\n") == 3 if command == "tap" else "NEW" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_documented_is_enough(world: World, command: str) -> None:
    """With ○ nothing is refused; without, what is refused is that, and the result is the same."""
    for who in ("all", "needed"):
        before = world.nats.log.read_text().count("Violation")
        done = run(world, command, who)
        assert result(command, done)
        if who == "all":
            assert world.nats.log.read_text().count("Violation") == before
        if command == "streams create":
            world.call(lambda client: client.jetstream().delete_stream("NEW"))


@pytest.mark.parametrize(("command", "subject"), LESS)
def test_what_is_missing_is_named_at_once(world: World, command: str, subject: str) -> None:
    """With 77."""
    number = allowed(command, "✓`--since`").index(subject)
    done = run(world, command, f"without-{number}")
    assert done.returncode == AUTHENTICATION, done.stdout + done.stderr
    assert f"NATS forbids to publish to {subject}: " in done.stdout + done.stderr


def test_who_may_create_a_consumer_and_not_read_from_it_reads_one_by_one(world: World) -> None:
    """A pull that is refused has no answer; nobody waits for it."""
    done = run(world, "replay", "half")
    assert result("replay", done)
    assert "reading one by one: NATS forbids to publish to $JS.API.CONSUMER.MSG.NEXT.LOGS.*: " in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_so_is_a_subscription(world: World, command: str) -> None:
    """Without which no answer comes."""
    done = run(world, command, "deaf")
    assert done.returncode == AUTHENTICATION, done.stdout + done.stderr
    assert f"NATS forbids to subscribe to {INBOX}" in done.stdout + done.stderr


def test_other_commands_ask_nats_nothing(world: World) -> None:
    """They work where there is none."""
    nowhere = {"EVENTWRITER_NATS__URL": f"nats://127.0.0.1:{free_port()}"}
    for command in (("dlq", "list"), ("dlq", "replay", "--stream", "LOGS"), ("ledger", "accept", "--stream", "LOGS")):
        assert world.run(*command, check=False, **nowhere).returncode == 0


def test_both_pages_say_the_same() -> None:
    """Of the service."""
    assert {*documented()} - {INBOX, "$JS.ACK.*.*.LOGS.eventwriter-logs.>"} == {*allowed("check", "✓")}
