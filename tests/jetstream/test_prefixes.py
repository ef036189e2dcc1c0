"""JetStream somewhere else: in another domain behind a leaf node, or another account's; and inboxes of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from test_permissions import documented

from eventwriter import registry
from eventwriter.config import loading
from eventwriter.config.loading import NatsConfig
from eventwriter.embedded import NatsServer, PostgresServer, free_port
from eventwriter.errors import ConfigurationError
from fix_service import STREAMS, World, new_world, only, wait_until

HUB = """
jetstream: {domain: hub}
leafnodes: {listen: "127.0.0.1:%d"}
accounts: {
  JS: {
    jetstream: enabled
    users: [{user: admin, password: a}]
    exports: [{service: "$JS.API.>", response_type: stream}, {service: "$JS.ACK.>"}]
  }
  APP: {
    users: [{user: app, password: w, permissions: {%s}}]
    imports: [
      {service: {account: JS, subject: "$JS.API.>"}, to: "JS.hub.API.>"}
      {service: {account: JS, subject: "$JS.ACK.>"}}
    ]
  }
}
no_auth_user: admin
"""
LEAF = """
jetstream: {domain: leaf}
leafnodes: {remotes: [{url: "nats-leaf://admin:a@127.0.0.1:%d"}]}
authorization: {users: [{user: admin, password: a}, {user: writer, password: w, permissions: {%s}}]}
no_auth_user: admin
"""
INBOX = "_mine.writer"


def permitted(api: str, stream: str = "LOGS") -> str:
    """What the documentation asks for, with this prefix of the API and an inbox of one's own; and what reads again."""
    found = [*documented(), "$JS.API.CONSUMER.CREATE.LOGS", "$JS.API.CONSUMER.MSG.NEXT.LOGS.*"]
    allowed = [each.replace("$JS.API", api).replace("LOGS", stream).replace("-logs", f"-{stream.lower()}")
               for each in found if each != "_INBOX.>"]  # fmt: skip
    subjects = ", ".join(f'"{each}"' for each in allowed)
    return f'publish: {{allow: [{subjects}]}}, subscribe: {{allow: ["{INBOX}.>"]}}'


def environment(url: str, user: str, **settings: str) -> dict[str, str]:
    """What connects there."""
    login = {"URL": url, "USER": user, "PASSWORD": "w", "INBOX_PREFIX": INBOX}
    return {f"EVENTWRITER_NATS__{key}": value for key, value in (login | settings).items()}


@pytest.fixture(scope="module")
def leaf(tmp_path_factory: pytest.TempPathFactory) -> NatsServer:
    """A leaf node, not started."""
    return NatsServer(tmp_path_factory.mktemp("leaf"))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str, leaf: NatsServer
) -> Iterator[World]:
    """A hub with the streams, which an account imports as well, and a leaf node with a JetStream of its own, empty."""
    port = free_port()
    hub = HUB % (port, permitted("JS.hub.API", "EVENTS"))
    leaf._config = LEAF % (port, permitted("$JS.hub.API"))
    with new_world(tmp_path_factory.mktemp("hub"), postgres_server, template, hub) as world, leaf:
        wait_until(lambda: "Leafnode connection created" in leaf.log.read_text(), "the leaf node")
        yield world


def test_streams_of_another_domain(world: World, leaf: NatsServer) -> None:
    """Behind a leaf node: found, pulled, acknowledged, looked at and read again, with nothing more permitted."""
    there = environment(leaf.url, "writer", DOMAIN="hub")
    done = world.run("check", check=False, **only("LOGS", "EVENTS"), **there)
    assert done.returncode == 77
    assert "✓ LOGS          stream LOGS holds 0 messages" in done.stdout
    assert (
        "✗ EVENTS        NATS forbids to publish to $JS.ACK.EVENTS.eventwriter-events.>, to publish to $JS.hub.API."
        in (done.stdout)
    )
    refused = [server.log.read_text().count("Violation") for server in (world.nats, leaf)]
    world.traffic(["LOGS"], count=200, broken=0.0)
    worker = world.start("worker", "--stream", "LOGS", **there)
    world.wait_settled()
    wait_until(lambda: world.consumer("LOGS").num_ack_pending == 0, "the acks")
    assert world.stop(worker) == 0
    world.execute("DELETE FROM logs; DELETE FROM eventwriter.ledger")
    worker = world.start("worker", "--stream", "LOGS", **there)
    wait_until(lambda: world.query("SELECT FROM eventwriter.ledger WHERE logical_stream = 'LOGS'"), "a new ledger")
    world.run("replay", "--stream", "LOGS")
    world.wait_settled()
    world.assert_exact()
    assert "one by one" not in world.log
    assert "200 messages checked: 200 done" in world.run("verify", "--stream", "LOGS", check=True, **there).stdout
    assert '"row"' in world.run("tap", "--stream", "LOGS", "--since", "1h", "--limit", "1", check=True, **there).stdout
    assert world.stop(worker) == 0
    assert [server.log.read_text().count("Violation") for server in (world.nats, leaf)] == refused


def test_streams_of_another_account(world: World) -> None:
    """Whose API is imported under another name."""
    there = environment(world.nats.url, "app", API_PREFIX="JS.hub.API")
    assert "stream EVENTS holds 0 messages" in world.run("check", check=True, **only("EVENTS"), **there).stdout
    world.traffic(["EVENTS"], count=200)
    worker = world.start("worker", "--stream", "EVENTS", **there)
    world.wait_settled()
    wait_until(lambda: world.consumer("EVENTS").num_ack_pending == 0, "the acks")
    world.assert_exact()
    assert world.stop(worker) == 0
    assert "Violation" not in world.nats.log.read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"DOMAIN": "elsewhere"}, "nobody answers at $JS.elsewhere.API: check nats.domain and nats.api_prefix"),
        ({"API_PREFIX": "JS.other.API"}, "nobody answers at JS.other.API: check nats.domain and nats.api_prefix"),
        ({}, "or nats.domain to the JetStream domain that it is in"),
        ({"DOMAIN": "hub", "INBOX_PREFIX": "_INBOX"}, "NATS forbids to subscribe to _INBOX.>"),
    ],
    ids=["no such domain", "no such import", "none", "another inbox"],
)
def test_what_is_wrong_with_them_is_told(world: World, leaf: NatsServer, settings: dict[str, str], told: str) -> None:
    """A worker does not begin; a stream that is missing here may be there."""
    user = "writer" if "INBOX_PREFIX" in settings else "admin"
    there = environment(leaf.url, user, **settings) | {"EVENTWRITER_NATS__PASSWORD": "w" if user == "writer" else "a"}
    done = world.run("worker", "--stream", "SWEEP" if user == "admin" else "LOGS", check=False, **there)
    assert done.returncode == (77 if user == "writer" else 69)
    assert told in done.stderr
    found = world.run("check", check=False, **there).stdout.splitlines()
    broken = [line for line in found if line.startswith("✗")]
    if settings:  # one cause is told once
        assert len(broken) == 1 or user == "writer"
        assert any(told in line for line in broken)
    else:
        assert len(broken) == len(STREAMS)
        assert all(
            f"JetStream at {leaf.url} ($JS.API, in a server of domain leaf) has no stream" in line for line in broken
        )


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"nats.domain": "hub", "nats.api_prefix": "JS.hub.API"}, "both nats.domain and nats.api_prefix are set"),
        ({"nats.domain": "a.b"}, "a JetStream name"),
        ({"nats.api_prefix": "JS.*.API"}, "no wildcard"),
        ({"nats.api_prefix": "JS.hub.API."}, "no dot at the end"),
        ({"nats.inbox_prefix": "_INBOX.>"}, "no wildcard"),
        ({"nats.inbox_prefix": ""}, "the beginning of subjects"),
    ],
    ids=str,
)
def test_prefixes_that_cannot_be(settings: dict[str, Any], told: str) -> None:
    """Are refused with what is expected."""
    with pytest.raises(ConfigurationError, match=told):
        loading.load(registry.load(), file=None, environ={}, flags=settings)


def test_what_the_prefix_is() -> None:
    """As NATS writes domains."""
    assert NatsConfig().api == "$JS.API"
    assert NatsConfig(domain="hub").api == "$JS.hub.API"
    assert NatsConfig(api_prefix="JS.hub.API").api == "JS.hub.API"
