"""The connection to NATS: nothing in clear for who asked for TLS, on any connection, with any credentials."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nats
import nkeys  # type: ignore[import-untyped]
import psutil
import pytest
from nats.js.api import StreamConfig

from beside import beside
from clients import Silent, attempt, refusal
from eventwriter.config.loading import NatsConfig, TlsConfig
from eventwriter.embedded import NatsServer, free_port
from eventwriter.errors import (
    UNAVAILABLE,
    AuthenticationError,
    ConfigurationError,
)
from eventwriter.jetstream.connection import Client, connect
from eventwriter.jetstream.visit import Visit
from fix_monitor import Endpoint
from fix_service import STREAMS, World, wait_until
from fix_tls import Certificates
from proxy import Proxy

USER, PASSWORD = "writer", "pass-w0rd"
TOKEN = "t0ken-s3cret"
SEED = b"SUAMK2FG4MI6UE3ACF3FK3OIQBCEIEZV7NSWFFEW63UXMRLFM2XLAXK4GY"
"""Of a user's key, from the documentation of NATS."""
PUBLIC = nkeys.from_seed(bytearray(SEED)).public_key.decode()
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.c2lnbmF0dXJl"
LOGIN = f"authorization {{ users: [{{user: {USER}, password: '{PASSWORD}'}}, {{nkey: {PUBLIC}}}] }}"
"""With a key among the users the server sends a nonce to sign."""


def introduction(server: NatsServer) -> dict[str, Any]:
    """What a server says of itself to whoever connects."""
    with socket.create_connection(("127.0.0.1", server.port)) as connection, connection.makefile("rb") as lines:
        told: dict[str, Any] = json.loads(lines.readline().removeprefix(b"INFO "))
        return told


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """A recording proxy before a server with logins and without TLS."""
    with NatsServer(tmp_path_factory.mktemp("clear"), config=LOGIN) as server, Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def credentials(tmp_path: Path) -> str:
    """The path of a credentials file."""
    path = tmp_path / "user.creds"
    path.write_text(
        f"-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{SEED.decode()}\n------END USER NKEY SEED------\n"
    )
    return str(path)


def login(settings: NatsConfig, kind: str, credentials: str) -> NatsConfig:
    """The settings with credentials of this kind."""
    in_urls = {"url_password": f"{USER}:{PASSWORD}@", "url_token": f"{TOKEN}@"}.get(kind, "")
    settings = replace(settings, url=tuple(url.replace("://", f"://{in_urls}") for url in settings.url))
    if kind == "password":
        return replace(settings, user=USER, password=PASSWORD)
    if kind == "token":
        return replace(settings, token=TOKEN)
    if kind == "nkey":
        return replace(settings, nkey=SEED.decode())
    return replace(settings, credentials=credentials) if kind == "credentials" else settings


LOGINS = ("none", "password", "token", "credentials", "nkey", "url_password", "url_token")


def asking(way: str, port: int, certificates: Certificates) -> NatsConfig:
    """Settings that ask for TLS in this way."""
    url, ca = f"nats://127.0.0.1:{port}", str(certificates.ca)
    client = str(certificates.client)
    return {
        "scheme": NatsConfig((f"tls://127.0.0.1:{port}",)),
        "first": NatsConfig((f"tls://127.0.0.1:{port}", "nats://127.0.0.1:1")),
        "last": NatsConfig((url, "tls://127.0.0.1:1")),
        "ca": NatsConfig((url,), tls=TlsConfig(ca=ca)),
        "cert": NatsConfig((url,), tls=TlsConfig(cert=client, key=client)),
        "hostname": NatsConfig((url,), tls=TlsConfig(hostname="localhost")),
        "no scheme": NatsConfig((f"127.0.0.1:{port}",), tls=TlsConfig(ca=ca)),
    }[way]


WAYS = ("first", "last", "ca", "cert", "hostname", "no scheme")
COMBINATIONS = [("scheme", kind) for kind in LOGINS] + [(way, "password") for way in WAYS]


@pytest.mark.parametrize(("way", "kind"), COMBINATIONS)
def test_nothing_is_sent_without_tls(
    clear: Proxy, certificates: Certificates, credentials: str, way: str, kind: str
) -> None:
    """However TLS is asked for and whatever the credentials: not a byte reaches a server that offers none."""
    clear.heard = bytearray()
    message = refusal(login(asking(way, clear.port, certificates), kind, credentials))
    assert not clear.heard
    assert f"127.0.0.1:{clear.port} offers no TLS, and " in message
    assert not any(secret in message for secret in (PASSWORD, TOKEN, JWT, PUBLIC, SEED.decode()))


@pytest.mark.parametrize("kind", LOGINS)
def test_the_same_goes_in_clear_where_tls_is_not_asked_for(clear: Proxy, credentials: str, kind: str) -> None:
    """What the test above looks for is there to be seen."""
    clear.heard = bytearray()
    settings = login(NatsConfig((f"nats://127.0.0.1:{clear.port}",)), kind, credentials)
    if "password" in kind or kind == "nkey":
        assert attempt(settings) == "clear"
    else:
        refusal(settings, AuthenticationError)
    expected = {"none": "CONNECT", "credentials": JWT, "nkey": PUBLIC}.get(kind, TOKEN if "token" in kind else PASSWORD)
    assert expected in clear.heard.decode()
    assert ('"sig"' in clear.heard.decode()) == (kind in ("credentials", "nkey"))


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        ((), "JWT"),
        (("-----BEGIN NATS USER JWT-----", ""), "JWT"),
        (("\0\1\2\3ÿ" * 99,), "JWT"),
        (("-----BEGIN NATS USER JWT-----", JWT[:20]), "JWT"),
        (("-----BEGIN NATS USER JWT-----", JWT, "-----BEGIN USER NKEY SEED-----", SEED.decode()[:30]), "NKEY seed"),
        (("-----BEGIN USER NKEY SEED-----", SEED.decode(), "------END USER NKEY SEED------"), "JWT"),
        (("-----BEGIN NATS USER JWT-----", JWT, "------END NATS USER JWT------"), "NKEY seed"),
        (("-----BEGIN USER NKEY SEED-----", "SUAXYZ", "-----BEGIN NATS USER JWT-----", JWT), "NKEY seed"),
    ],
)
def test_credentials_that_lack_a_part(clear: Proxy, tmp_path: Path, lines: Sequence[str], part: str) -> None:
    """An empty file, one that is half written, only a key, only a JWT, a seed that is none: told at once."""
    path = tmp_path / "user.creds"
    path.write_text("\n".join(lines))
    clear.heard = bytearray()
    settings = NatsConfig((f"nats://127.0.0.1:{clear.port}",), credentials=str(path))
    message = refusal(settings, ConfigurationError)
    assert f"{path} holds no {part} of a user" in message
    assert SEED.decode() not in message
    assert not clear.heard
    for spoil in (path.unlink, path.mkdir):
        spoil()
        assert f"nats.credentials: cannot read the file {path}: " in refusal(settings, ConfigurationError)


def test_a_reason_that_was_lost_is_asked_for_again() -> None:
    """A server that refuses hangs up, perhaps while we still write: then its reason cannot be read."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse(ended: threading.Event) -> None:
            for hasty in (True, True, True, False):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(b'INFO {"version":"2.11.0","max_payload":1048576,"auth_required":true}\r\n')
                    if hasty:  # a reset
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    else:
                        connection.recv(4096)
                        connection.sendall(b"-ERR 'Authorization Violation'\r\n")

        with beside(refuse):
            assert "nats.user" in refusal(
                NatsConfig((f"nats://127.0.0.1:{server.getsockname()[1]}",)), AuthenticationError
            )


def test_tls_before_anything_else(clear: Proxy, certificates: Certificates) -> None:
    """With handshake_first the client begins, and what it meets is no TLS."""
    clear.heard = bytearray()
    settings = NatsConfig((f"nats://127.0.0.1:{clear.port}",), user=USER, password=PASSWORD)
    message = refusal(replace(settings, tls=TlsConfig(ca=str(certificates.ca), handshake_first=True)))
    assert "cannot connect" in message
    assert b"CONNECT" not in clear.heard
    assert PASSWORD.encode() not in clear.heard


@pytest.mark.parametrize(
    ("server", "tls"),
    [
        ("tls {{ {} }}", TlsConfig()),
        ("tls {{ {} }}", TlsConfig(hostname="localhost")),
        ("tls {{ {}, handshake_first: true }}", TlsConfig(handshake_first=True)),
        ("tls {{ {} }}, allow_non_tls: true", TlsConfig()),
    ],
)
@pytest.mark.parametrize("kind", ["password", "url_password"])
def test_servers_with_tls(tmp_path: Path, certificates: Certificates, server: str, tls: TlsConfig, kind: str) -> None:
    """TLS that is demanded, that comes first, or that is left to the client's choice: it is used."""
    config = f"{LOGIN}\n{server.format(certificates.tls)}"
    with NatsServer(tmp_path / "nats", config=config) as nats_server, Proxy(nats_server.port) as proxy:
        proxy.heard = bytearray()
        settings = NatsConfig((f"tls://127.0.0.1:{proxy.port}",), tls=replace(tls, ca=str(certificates.ca)))
        assert attempt(login(settings, kind, "")) == "tls"
        assert len(proxy.heard) > 500
        assert b"CONNECT" not in proxy.heard


def test_a_certificate_of_ours(tmp_path: Path, certificates: Certificates) -> None:
    """Servers may want one."""
    config = f"tls {{ {certificates.tls}, ca_file: '{certificates.ca}', verify: true }}"
    with NatsServer(tmp_path / "nats", config=config) as server:
        ours = TlsConfig(ca=str(certificates.ca), cert=str(certificates.client), key=str(certificates.client))
        settings = NatsConfig((f"tls://127.0.0.1:{server.port}",), tls=ours)
        assert attempt(settings) == "tls"
        assert "nats.tls" in refusal(replace(settings, tls=TlsConfig(ca=str(certificates.ca))))


@pytest.mark.parametrize(
    ("tls", "reason"),
    [
        (TlsConfig(), "is refused: unable to get local issuer certificate"),
        (TlsConfig(hostname="other"), "certificate is not valid for 'other'"),
    ],
)
def test_a_failure_of_tls_is_told(tmp_path: Path, certificates: Certificates, tls: TlsConfig, reason: str) -> None:
    """What is wrong with the certificate, at once; the client itself would wait for ever."""
    with NatsServer(tmp_path / "nats", config=f"tls {{ {certificates.tls} }}") as server:
        ca = str(certificates.ca) if tls.hostname else None
        message = refusal(NatsConfig((f"tls://127.0.0.1:{server.port}",), tls=replace(tls, ca=ca)))
        assert reason in message
        assert "nats.tls." in message


def test_the_next_server_may_have_tls(clear: Proxy, tmp_path: Path, certificates: Certificates) -> None:
    """One of several servers without TLS is passed over."""
    with NatsServer(tmp_path / "nats", config=f"{LOGIN}\ntls {{ {certificates.tls} }}") as server:
        clear.heard = bytearray()
        urls = (f"tls://127.0.0.1:{clear.port}", f"tls://127.0.0.1:{server.port}")
        ca = TlsConfig(ca=str(certificates.ca))
        for order in (urls, urls[::-1]):
            assert attempt(NatsConfig(order, user=USER, password=PASSWORD, tls=ca)) == "tls"
        assert not clear.heard


def test_a_server_that_another_told_of(tmp_path: Path, certificates: Certificates) -> None:
    """Servers of a cluster tell of each other: the one without TLS gets nothing either."""
    here, there = free_port(), free_port()

    async def run(server: NatsServer, proxy: Proxy) -> None:
        client = Client()
        ca = TlsConfig(ca=str(certificates.ca))
        settings = NatsConfig((f"tls://127.0.0.1:{server.port}",), user=USER, password=PASSWORD, tls=ca)
        await connect(client, settings, "test", Silent())
        try:
            told_of = [uri.port for uri in client.discovered_servers]
            assert proxy.port in told_of
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(wait_until, lambda: proxy.connections > 2, "tries at the other server")
            assert not client.is_connected
        finally:
            await client.close()

    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(0))
        config = f"server_name: clear\n{LOGIN}\nclient_advertise: '127.0.0.1:{proxy.port}'\n"
        cluster = f"cluster {{ name: c, listen: '127.0.0.1:{here}', routes: ['nats://127.0.0.1:{there}'] }}"
        proxy.target = stack.enter_context(NatsServer(tmp_path / "clear", config=config + cluster)).port
        proxy.heard = bytearray()
        config = f"server_name: encrypted\n{LOGIN}\ntls {{ {certificates.tls} }}\n"
        cluster = f"cluster {{ name: c, listen: '127.0.0.1:{there}', routes: ['nats://127.0.0.1:{here}'] }}"
        server = stack.enter_context(NatsServer(tmp_path / "encrypted", config=config + cluster))
        other = f"127.0.0.1:{proxy.port}"
        wait_until(lambda: other in introduction(server).get("connect_urls", []), "the cluster")
        asyncio.run(run(server, proxy))
        assert not proxy.heard


# ---- the whole service


def publish(server: NatsServer, certificates: Certificates | None) -> None:
    """One message more for the stream LOGS, which is made if it is missing."""

    async def run() -> None:
        context = ssl.create_default_context(cafile=str(certificates.ca)) if certificates else None
        client = await nats.connect(server.url, user=USER, password=PASSWORD, tls=context)
        await client.jetstream().add_stream(StreamConfig(name="LOGS", subjects=["logs.>"]))
        await client.jetstream().publish("logs.otel", b'{"body": "hello"}')
        await client.close()

    asyncio.run(run())


def environment(proxy: Proxy, certificates: Certificates) -> dict[str, str]:
    """What asks for TLS through the proxy, with a password."""
    return {
        "EVENTWRITER_NATS__URL": f"tls://127.0.0.1:{proxy.port}",
        "EVENTWRITER_NATS__TLS__CA": str(certificates.ca),
        "EVENTWRITER_NATS__USER": USER,
        "EVENTWRITER_NATS__PASSWORD": PASSWORD,
    }


@pytest.mark.parametrize("command", [("check", "--output", "json"), ("worker", "--stream", "LOGS")])
def test_commands_refuse_a_server_without_tls(
    world: World, clear: Proxy, certificates: Certificates, command: Sequence[str]
) -> None:
    """Exit status 69 and what to do; nothing was sent."""
    clear.heard = bytearray()
    done = world.run(*command, check=False, **environment(clear, certificates))
    assert done.returncode == UNAVAILABLE
    assert not clear.heard
    told = done.stderr
    if command[0] == "check":
        findings = json.loads(done.stdout)["findings"]
        told = " ".join(finding["text"] for finding in findings if not finding["ok"])
    assert "offers no TLS, and tls:// in nats.url asks for it: nothing was sent" in told


def without_records(octets: bytes) -> bytes:
    """What is left without encrypted records of TLS: a late goodbye to the server that there was before."""
    while octets[:3] == b"\x17\x03\x03":
        octets = octets[5 + int.from_bytes(octets[3:5]) :]
    return octets


def test_a_server_that_comes_back_without_tls(world: World, certificates: Certificates, tmp_path: Path) -> None:
    """A running worker sends it nothing, says so, and goes on when there is TLS again."""
    folder, encrypted = tmp_path / "changing", f"{LOGIN}\ntls {{ {certificates.tls} }}"
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(NatsServer(folder, config=encrypted))
        port = server.port
        proxy = stack.enter_context(Proxy(port))
        publish(server, certificates)
        only_logs = {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in STREAMS if name != "LOGS"}
        listen = {"EVENTWRITER_HTTP__LISTEN": endpoint.address}
        world.start("supervise", **environment(proxy, certificates), **listen, **only_logs)
        wait_until(lambda: world.counts("LOGS")[0] == 1, "the first message")
        server.stop()
        wait_until(lambda: not proxy._links, "the end of what was said to it")
        proxy.heard = bytearray()
        with NatsServer(folder, port=port, config=LOGIN) as server:
            publish(server, None)
            before = proxy.connections
            wait_until(lambda: proxy.connections > before + 3, "further tries")
            told = f"LOGS: NATS cannot be reached (127.0.0.1:{proxy.port} offers no TLS"
            wait_until(partial(endpoint.answers, "/readyz", 503, told), "the reason in /readyz")
            worker = world.worker("LOGS")
            assert worker is not None
            assert [c.status for c in worker.net_connections() if c.raddr and c.raddr.port == proxy.port].count(
                psutil.CONN_ESTABLISHED
            ) < 2
            assert not without_records(bytes(proxy.heard))
            assert world.log.count("offers no TLS") <= 1  # the first cause is told: a connection that ended, perhaps
        with NatsServer(folder, port=port, config=encrypted):
            wait_until(lambda: world.counts("LOGS")[0] == 2, "the second message")
            wait_until(partial(endpoint.answers, "/readyz", 200), "ready again")
            assert len(proxy.heard) > 500
            assert b"CONNECT" not in proxy.heard


def test_a_visit_ends_though_nobody_reads_what_it_says(tmp_path: Path) -> None:
    """It waits for a second; then its connection is closed, not when somebody looks for garbage."""

    async def visit(server: NatsServer) -> bool:
        visit = Visit(NatsConfig(url=(server.url,)), "test")
        await visit.open()
        os.kill(server.pid, signal.SIGSTOP)
        for _ in range(16):  # more than the network holds, and something that is not sent yet
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(visit.client.publish("a", bytes(900_000)), 0.1)
        await visit.close()
        writer = visit.client._transport._io_writer  # type: ignore[union-attr]
        return bool(writer.transport.is_closing())

    with NatsServer(tmp_path) as server:
        try:
            assert asyncio.run(visit(server))
        finally:
            os.kill(server.pid, signal.SIGCONT)
