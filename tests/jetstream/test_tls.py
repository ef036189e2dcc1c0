"""Both sides of a connection to NATS prove who they are; what fails is told at once, and nothing is given away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import nkeys  # type: ignore[import-untyped]
import pytest

from beside import beside
from clients import Silent, attempt, refusal
from eventwriter.config.loading import NatsConfig, TlsConfig
from eventwriter.config.secrets import FromFile
from eventwriter.embedded import NatsServer, PostgresServer, free_port
from eventwriter.errors import AUTHENTICATION, CONFIGURATION, UNAVAILABLE, AuthenticationError, ConfigurationError
from eventwriter.jetstream.connection import Client, connect, words
from fix_monitor import Endpoint
from fix_service import World, new_world, wait_until
from fix_tls import Certificates
from nats_jwt import Account, Key
from patience import PATIENCE
from proxy import Proxy

USER, PASSWORD = "writer", "pass-w0rd"
LOGIN = f"authorization {{ user: {USER}, password: '{PASSWORD}' }}\n"


def tls(certificate: Path, authority: Path | None = None) -> str:
    """A server's TLS; with ``authority`` it wants a certificate of its clients."""
    wanted = f", ca_file: '{authority}', verify: true" if authority else ""
    return f"tls {{ cert_file: '{certificate}', key_file: '{certificate}'{wanted} }}\n"


WRONG = {
    "authority": ("is refused: unable to get local issuer certificate", UNAVAILABLE),
    "expired": ("is refused: certificate has expired; renew it", UNAVAILABLE),
    "host": ("certificate is not valid for '127.0.0.1'", UNAVAILABLE),
    "plain": ("offers no TLS", UNAVAILABLE),
    "none of ours": ("the server asks for a certificate of ours: check nats.tls.cert and nats.tls.key", UNAVAILABLE),
    "a foreign one": ("refuses our certificate, nats.tls.cert: ", UNAVAILABLE),
    "an expired one": ("refuses our certificate, nats.tls.cert: certificate expired", UNAVAILABLE),
    "password": ("'Authorization Violation': check nats.user", AUTHENTICATION),
    "revoked": ("'Authorization Violation': check nats.user", AUTHENTICATION),
    "no file": ("nats.tls.cert: cannot read the file /gone.pem: No such file or directory", CONFIGURATION),
    "another key": ("nats.tls.key: ", CONFIGURATION),
}
"""What is wrong → what is said, and the exit code."""


def wrong(what: str, pem: Certificates, folder: Path) -> tuple[str, dict[str, str]]:
    """The configuration of a server, and settings of ours that do not go with it."""
    password = {"USER": USER, "PASSWORD": PASSWORD}
    if what in ("authority", "expired", "host"):
        return tls({"authority": pem.foreign, "expired": pem.expired, "host": pem.elsewhere}[what]) + LOGIN, password
    if what in ("none of ours", "a foreign one", "an expired one"):
        ours = {"a foreign one": pem.foreign, "an expired one": pem.expired}.get(what)
        certificate = {"TLS__CERT": str(ours), "TLS__KEY": str(ours)} if ours else {}
        return tls(pem.server, pem.ca) + LOGIN, password | certificate
    if what == "revoked":
        account = Account()
        key, credentials = account.user()
        (folder / "revoked.creds").write_text(credentials)
        return tls(pem.server) + account.config(key), {"CREDENTIALS": str(folder / "revoked.creds")}
    if what == "no file":
        return LOGIN, password | {"TLS__CERT": "/gone.pem", "TLS__KEY": "/gone.pem"}
    if what == "another key":
        return LOGIN, password | {"TLS__CERT": str(pem.client), "TLS__KEY": str(pem.server)}
    return (LOGIN, password) if what == "plain" else (tls(pem.server) + LOGIN, password | {"PASSWORD": "0ther"})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A world for commands that come no further than to a server of NATS."""
    with new_world(tmp_path_factory.mktemp("tls"), postgres_server, template) as world:
        yield world


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_told_in_words_within_seconds(
    shared: World, tmp_path: Path, certificates: Certificates, what: str
) -> None:
    """By `check` and by a worker that starts, once, with the right exit code; no credential is on the wire."""
    told, status = WRONG[what]
    config, ours = wrong(what, certificates, tmp_path)
    with NatsServer(tmp_path / "other", config=config) as server, Proxy(server.port) as proxy:
        proxy.heard = bytearray()
        ours |= {"URL": f"tls://127.0.0.1:{proxy.port}", "TLS__CA": str(certificates.ca)}
        environment = {f"EVENTWRITER_NATS__{name}": value for name, value in ours.items()}
        for command in (("check", "--output", "json"), ("worker", "--stream", "LOGS")):
            begun = time.monotonic()
            done = shared.run(*command, check=False, **environment)
            assert time.monotonic() - begun < 5 * PATIENCE
            assert done.returncode == status, done.stderr
            said = done.stderr
            if command[0] == "check":
                findings = json.loads(done.stdout)["findings"]
                said = "".join(each["text"] for each in findings if not each["ok"])
            assert said.count(told) == 1, said
            shown = done.stdout + done.stderr
            assert not [secret for secret in (PASSWORD, "0ther", "eyJ", "Traceback") if secret in shown]
        for secret in (b"CONNECT", PASSWORD.encode(), b"eyJ"):
            assert secret not in proxy.heard


def test_a_supervised_worker_tells_it(world: World, tmp_path: Path, certificates: Certificates) -> None:
    """In the same words, to whoever asks why nothing is written; and it tries on until the certificate is renewed."""
    endpoint, pem = Endpoint(f"127.0.0.1:{free_port()}"), tmp_path / "server.pem"
    shutil.copy(certificates.expired, pem)
    with NatsServer(tmp_path / "other", config=tls(pem) + LOGIN) as server:
        settings = {
            "EVENTWRITER_NATS__URL": f"tls://127.0.0.1:{server.port}",
            "EVENTWRITER_NATS__TLS__CA": str(certificates.ca),
            "EVENTWRITER_NATS__USER": USER,
            "EVENTWRITER_NATS__PASSWORD": PASSWORD,
            "EVENTWRITER_HTTP__LISTEN": endpoint.address,
        }
        world.start("supervise", **settings)
        wait_until(partial(endpoint.answers, "/readyz", 503, "certificate has expired; renew it"), "why", 5)
        assert PASSWORD not in world.log + endpoint.get("/readyz")[1] + endpoint.get("/status")[1]
        shutil.copy(certificates.server, pem)
    with NatsServer(tmp_path / "other", port=server.port, config=tls(pem) + LOGIN):
        wait_until(partial(endpoint.answers, "/readyz", 503, "LOGS: ", "stream LOGS"), "the answer of the server", 20)


def test_both_sides_have_a_certificate(tmp_path: Path, certificates: Certificates) -> None:
    """A server that verifies ours, and is verified."""
    with NatsServer(tmp_path / "nats", config=tls(certificates.server, certificates.ca) + LOGIN) as server:
        ours = TlsConfig(str(certificates.ca), str(certificates.client), str(certificates.client))
        settings = NatsConfig((f"tls://127.0.0.1:{server.port}",), user=USER, password=PASSWORD, tls=ours)
        assert attempt(settings) == "tls"


def test_tls_that_nobody_asked_for(tmp_path: Path, certificates: Certificates) -> None:
    """A server demands it from somebody who knows no authority of its: told, as any other failure of TLS."""
    with NatsServer(tmp_path / "nats", config=tls(certificates.server)) as server:
        assert "unable to get local issuer certificate" in refusal(NatsConfig((f"nats://127.0.0.1:{server.port}",)))


@pytest.mark.parametrize("what", ["authority", "expired", "host", "none of ours", "a foreign one"])
def test_the_same_where_tls_comes_first(tmp_path: Path, certificates: Certificates, what: str) -> None:
    """With nats.tls.handshake_first, for which the server is set so."""
    config, ours = wrong(what, certificates, tmp_path)
    with NatsServer(tmp_path / "nats", config=config.replace("tls {", "tls { handshake_first: true,")) as server:
        files = {key: ours.get(f"TLS__{key.upper()}") for key in ("cert", "key")}
        first = TlsConfig(str(certificates.ca), handshake_first=True, **files)
        settings = NatsConfig((f"tls://127.0.0.1:{server.port}",), user=USER, password=PASSWORD, tls=first)
        assert WRONG[what][0] in refusal(settings)


GREETINGS = {
    b"": "no answer in time",
    b"SSH-2.0-OpenSSH_9.6\r\n": "is no NATS server",
    b"J\0\0\0\n8.0": "is no NATS server",
    b"INFO []\r\n": "is no NATS server",
    b"INFO {\r\n": "is no NATS server",
    b"x" * 300_000: "is no NATS server",
    b"INFO {}\r\n": "no answer in time",
    b'INFO {"tls_required": true}\r\n': "no answer in time",
    b"INFO {}\r\n-ERR 'User Authentication Expired'\r\n": "nats.credentials",
}
"""What a server says first → what we say of it."""


@pytest.mark.parametrize("greeting", GREETINGS, ids=lambda greeting: greeting[:40])
def test_servers_of_another_kind(greeting: bytes) -> None:
    """They, and who says nothing, are not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as stack:

        def greet(ended: object) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection = stack.enter_context(server.accept()[0])
                    connection.sendall(greeting)

        with beside(greet):
            kind = AuthenticationError if b"-ERR" in greeting else None
            settings = NatsConfig((f"nats://127.0.0.1:{server.getsockname()[1]}",))
            message = refusal(settings, kind) if kind else refusal(settings)
            server.shutdown(socket.SHUT_RDWR)
    assert GREETINGS[greeting] in message


def test_who_hangs_up_is_no_server_that_agrees() -> None:
    """After the greeting, and after our CONNECT."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up(ended: object) -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        connection.sendall(b"INFO {}\r\n")
                        connection.recv(4096)
                        connection.shutdown(socket.SHUT_WR)
                        connection.recv(4096)

        with beside(hang_up):
            assert "closed the connection" in refusal(NatsConfig((f"nats://127.0.0.1:{server.getsockname()[1]}",)))
            server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ConnectionResetError(104, "reset by peer")])
def test_a_connection_that_breaks_is_told_in_words(error: OSError) -> None:
    """As a server does that refuses our certificate when we have written already."""
    assert words(error) == "the server closed the connection before it said why: is nats.tls.cert what it wants?"


# ---- what is replaced while a client runs

Change = tuple[str, NatsConfig, Callable[[], str]]
"""A server's configuration, settings of ours in files, and what replaces the files and gives the next configuration."""


def change(what: str, pem: Certificates, folder: Path) -> Change:
    """Of one kind of credential."""
    file = folder / "secret"

    def replaced(text: str, config: str) -> str:
        file.write_text(text)
        return config

    if what == "credentials":
        account, other = Account(), Account()
        file.write_text(account.user()[1])
        return account.config(), NatsConfig(credentials=str(file)), lambda: replaced(other.user()[1], other.config())
    if what == "certificates":
        ca = folder / "ca.pem"
        shutil.copy(pem.ca, ca)
        shutil.copy(pem.client, file)

        def renew() -> str:
            shutil.copy(pem.stranger, ca)
            shutil.copy(pem.foreign, file)
            return tls(pem.foreign, pem.stranger)

        return tls(pem.server, pem.ca), NatsConfig(tls=TlsConfig(str(ca), str(file), str(file))), renew
    if what == "nkey":
        keys = [Key(nkeys.PREFIX_BYTE_USER) for _ in range(2)]
        first, second = (f"authorization {{ users: [{{ nkey: {key.public} }}] }}" for key in keys)
        seeds = [key.seed.decode() for key in keys]
        return first, NatsConfig(nkey=FromFile(seeds[0], str(file))), lambda: replaced(seeds[1], second)
    form = {"password": f"user: {USER}, password", "token": "token"}[what]
    first, second = (f"authorization {{ {form}: '{secret}' }}" for secret in ("f1rst", "sec0nd"))
    secret = {what: FromFile("f1rst", str(file))}
    settings = NatsConfig(user=USER if what == "password" else None, **secret)  # type: ignore[arg-type]
    return first, settings, lambda: replaced("sec0nd\n", second)


@pytest.mark.parametrize("what", ["password", "token", "nkey", "credentials", "certificates"])
def test_what_is_replaced_is_used_at_the_next_connection(tmp_path: Path, certificates: Certificates, what: str) -> None:
    """Without a restart of ours; a file that is missing for a moment is told by its name, and waited for."""
    first, settings, replace_files = change(what, certificates, tmp_path)
    errors: list[str] = []

    class Noting(Silent):
        async def on_error(self, error: Exception) -> None:
            errors.append(str(error))

    async def until(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10 * PATIENCE):
            while not condition():
                await asyncio.sleep(0.05)

    async def run() -> None:
        with NatsServer(tmp_path / "nats", config=first) as server:
            port = server.port
            client = Client()
            if not (tmp_path / "secret").exists():
                replaced = first.split("'")[1] if "'" in first else settings.nkey or ""
                (tmp_path / "secret").write_text(replaced)
            await connect(client, replace(settings, url=(f"nats://127.0.0.1:{port}",)), "test", Noting())
        try:
            await until(lambda: not client.is_connected)
            (tmp_path / "secret").rename(tmp_path / "away")
            with NatsServer(tmp_path / "again", port=port, config=first):
                await until(lambda: any(f"{tmp_path / 'secret'}: No such file" in each for each in errors))
            second = replace_files()
            with NatsServer(tmp_path / "nats", port=port, config=second):
                await until(lambda: client.is_connected)
                await client.flush()
        finally:
            await client.close()

    asyncio.run(run())


@pytest.mark.parametrize("setting", ["nkey", "credentials"])
def test_a_seed_that_is_damaged(tmp_path: Path, setting: str) -> None:
    """Found before a server is asked, and not shown; the client that it ends without a connection can be closed."""
    key, credentials = Account().user()
    seed, file = key.seed.decode(), tmp_path / "damaged.creds"
    damaged = f"{seed[:-1]}{'A' if seed[-1] != 'A' else 'B'}"
    file.write_text(credentials.replace(seed, damaged))
    value = damaged if setting == "nkey" else str(file)
    settings = NatsConfig(("nats://127.0.0.1:1",), **{setting: value})  # type: ignore[arg-type]

    async def run() -> str:
        client = Client()
        with pytest.raises(ConfigurationError) as caught:
            await connect(client, settings, "test", Silent())
        await client.close()
        return str(caught.value)

    message = asyncio.run(run())
    assert re.search(rf"nats\.{setting}(: \S+)? holds no NKEY seed", message), message
    assert damaged not in message
