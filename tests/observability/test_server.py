"""The server of the page: who may see what, and that nobody keeps it from answering."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import resource
import shutil
import socket
import ssl
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from eventwriter.config.model import HttpConfig, HttpTlsConfig
from eventwriter.embedded import free_port
from eventwriter.errors import AUTHENTICATION, CONFIGURATION, OK
from eventwriter.observability.access import Access
from eventwriter.observability.server import CONNECTIONS, DEADLINE, POLICY, TEXT, Answer, Server
from fix_monitor import Endpoint
from fix_service import World, wait_until
from fix_tls import Certificates
from patience import PATIENCE

TOKEN = "t0ken-of-the-page"
BEARER = f"Bearer {TOKEN}"
BASIC = f"Basic {base64.b64encode(f'anybody:{TOKEN}'.encode()).decode()}"
LOCAL, PUBLIC = HttpConfig(), HttpConfig("0.0.0.0:9465", public=True)
SECRET, BOTH = HttpConfig("0.0.0.0:9465", TOKEN), HttpConfig("0.0.0.0:9465", TOKEN, public=True)
PATHS = ("/", "/page.js", "/status", "/metrics", "/readyz", "/livez", "/other")


@pytest.mark.parametrize(
    ("settings", "headers", "allowed", "status", "told"),
    [
        (LOCAL, {}, PATHS, 0, True),
        (LOCAL, {"host": "127.0.0.1:9465"}, PATHS, 0, True),
        (LOCAL, {"host": "[::1]:9465"}, PATHS, 0, True),
        (LOCAL, {"host": "LocalHost"}, PATHS, 0, True),
        (LOCAL, {"host": "attacker.example:9465"}, ("/readyz", "/livez"), 421, False),
        (LOCAL, {"host": "localhost.attacker.example"}, ("/readyz", "/livez"), 421, False),
        (LOCAL, {"host": "127.0.0.1.attacker.example:80"}, ("/readyz", "/livez"), 421, False),
        (HttpConfig("127.0.0.1:9465", TOKEN), {}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"host": "127.0.0.1"}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"authorization": "Bearer"}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"authorization": f"Bearer {TOKEN}x"}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"authorization": "Basic ÿ=="}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"authorization": TOKEN}, ("/readyz", "/livez"), 401, False),
        (SECRET, {"authorization": BEARER, "host": "any.example"}, PATHS, 0, True),
        (SECRET, {"authorization": BASIC}, PATHS, 0, True),
        (PUBLIC, {"host": "127.0.0.1"}, ("/metrics", "/readyz", "/livez"), 403, True),
        (PUBLIC, {"authorization": "Bearer "}, ("/metrics", "/readyz", "/livez"), 403, True),
        (BOTH, {}, ("/metrics", "/readyz", "/livez"), 401, True),
        (BOTH, {"authorization": BASIC}, PATHS, 0, True),
    ],
)
def test_who_may_see_what(
    settings: HttpConfig, headers: dict[str, str], allowed: tuple[str, ...], status: int, told: bool
) -> None:
    """By where it listens, the token, and the name by which it is asked."""
    access = Access(settings)
    refused = {path: answer for path in PATHS if (answer := access.refusal(path, headers))}
    assert set(refused) == {*PATHS} - {*allowed}
    assert {answer.status for answer in refused.values()} <= {status}
    assert access.tells(headers) == told


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "metrics.example:1", "localhost.example:1"])
def test_an_address_that_others_reach_is_refused_unless_it_is_meant(world: World, listen: str) -> None:
    """By every command, with what to do; not an address of this machine alone."""
    listening: Any = {"EVENTWRITER_HTTP__LISTEN": listen}
    done = world.run("config", "show", check=False, **listening)
    assert done.returncode == CONFIGURATION
    assert f"http.listen (environment EVENTWRITER_HTTP__LISTEN): {listen} can be reached from other" in done.stderr
    assert "http.token" in done.stderr
    assert "http.public" in done.stderr
    if listen == "0.0.0.0:1":
        meant: Any
        for meant in ({"EVENTWRITER_HTTP__TOKEN": TOKEN}, {"EVENTWRITER_HTTP__PUBLIC": "true"}):
            assert TOKEN not in world.run("config", "show", **listening, **meant).stdout
        for local in ("127.1.2.3:1", "[::1]:1", "localhost:1"):
            world.run("config", "show", EVENTWRITER_HTTP__LISTEN=local)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One that answers with what it was asked."""

    def answer(path: str, headers: object) -> Answer:
        return Answer(404 if path == "/no" else 200, TEXT, path.encode() * (100_000 if path == "/long" else 1))

    found = Server(("127.0.0.1", 0), HttpTlsConfig(), answer)
    found.start()
    yield found
    found.stop()


def said(server: Server, request: bytes) -> bytes:
    """All that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE * 2) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer, contextlib.suppress(ConnectionResetError):
            return answer.read()
    return b""


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n", 200),
        (b"GET /x?a=b HTTP/1.0\n\n", 200),
        (b"HEAD /x HTTP/1.1\r\n\r\n", 200),
        (b"GET /no HTTP/1.1\r\n\r\n", 404),
        (b"POST /x HTTP/1.1\r\n\r\n", 405),
        (b"GET\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /x HTTP/1.1\r\nnonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 20_000, 431),
        (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000, 431),
    ],
)
def test_every_answer_has_the_headers_that_protect_it(server: Server, request_: bytes, status: int) -> None:
    """Also refusals; whatever was asked."""
    head, _, body = said(server, request_).partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0].startswith(f"HTTP/1.1 {status} ")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers["Content-Security-Policy"] == POLICY
    assert "frame-ancestors 'none'" in POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"
    assert (body == b"") == request_.startswith(b"HEAD")
    assert request_.startswith(b"HEAD") or int(headers["Content-Length"]) == len(body)


def test_who_is_slow_is_hung_up_on(server: Server) -> None:
    """Not for being slow between two bytes, but as a whole; also for not reading the answer."""
    begun = time.monotonic()
    with (
        socket.create_connection(("127.0.0.1", server.port)) as silent,
        socket.create_connection(("127.0.0.1", server.port)) as dripping,
    ):
        silent.settimeout(DEADLINE * 2 * PATIENCE)
        with contextlib.suppress(OSError):
            for _ in range(1000):
                dripping.sendall(b"a")
                time.sleep(0.1)
        assert DEADLINE - 1 < time.monotonic() - begun < (DEADLINE + 2) * PATIENCE
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""


def test_thousands_of_slow_connections_silence_nobody(world: World) -> None:
    """/livez and /readyz answer within a second, rows are written, and the monitor's memory and files stay bounded."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    host, port = endpoint.address.split(":")
    service = world.start(EVENTWRITER_HTTP__LISTEN=endpoint.address)
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness", 15)
    children = psutil.Process(service.pid).children()
    (monitor,) = (each for each in children if " ".join(each.cmdline()).strip() == "eventwriter: monitor")
    before, longest = monitor.memory_info().rss, 0.0
    with contextlib.ExitStack() as stack:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for number in range(min(5000, hard - 500)):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            if number % 2:
                with contextlib.suppress(OSError):
                    connection.sendall(b"GET /livez HTTP/1.1\r\nX-Slow: ")
            if number % 500 == 499:
                world.traffic(["LOGS"], count=10, broken=0, seed=number)
                for path in ("/livez", "/readyz"):
                    begun = time.monotonic()
                    assert endpoint.answers(path, 200)
                    longest = max(longest, time.monotonic() - begun)
                assert monitor.num_fds() < CONNECTIONS + 100
        assert longest < 1.0 * PATIENCE
        assert monitor.memory_info().rss - before < 50e6
        world.wait_settled()
    assert monitor.is_running()
    assert monitor.num_threads() < 5
    world.assert_exact()


def test_a_page_with_tls_and_a_token(world: World, tmp_path: Path, certificates: Certificates) -> None:
    """`status` shows its token, nobody else gets in; a certificate that is replaced is used."""
    port, pem, token = free_port(), tmp_path / "page.pem", tmp_path / "token"
    shutil.copy(certificates.server, pem)
    token.write_text(f"{TOKEN}\n")
    settings = {
        "EVENTWRITER_HTTP__LISTEN": f"127.0.0.1:{port}",
        "EVENTWRITER_HTTP__TLS__CERT": str(pem),
        "EVENTWRITER_HTTP__TLS__KEY": str(pem),
    }
    world.start(**settings, EVENTWRITER_HTTP__TOKEN_FILE=str(token))

    def answered(authorization: str, ca: Path) -> int:
        context = ssl.create_default_context(cafile=str(ca))
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5 * PATIENCE, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/status", headers={"Authorization": authorization})
            answer = connection.getresponse()
            answer.read()
            return answer.status

    def serves(ca: Path) -> bool:
        try:
            return answered(BEARER, ca) == 200
        except OSError:
            return False

    wait_until(partial(serves, certificates.ca), "the service", 15)
    assert answered(BASIC, certificates.ca) == 200
    assert answered("Bearer other", certificates.ca) == 401
    pinned = {**settings, "EVENTWRITER_HTTP__TLS__CERT": str(certificates.ca)}

    def shown(**more: str) -> int:
        done = world.run("status", "--output", "json", check=False, **pinned, **more)
        assert done.returncode or json.loads(done.stdout)["ready"]
        assert TOKEN not in done.stdout + done.stderr
        return done.returncode

    wait_until(lambda: shown(EVENTWRITER_HTTP__TOKEN=TOKEN) == OK, "a ready service", 15)
    assert shown() == AUTHENTICATION
    shutil.copy(certificates.foreign, pem)
    wait_until(partial(serves, certificates.stranger), "the new certificate", 10)
    assert TOKEN not in world.log


def test_files_that_cannot_be_used_are_named(world: World) -> None:
    """Once, and the writers go on."""
    listen = {"EVENTWRITER_HTTP__LISTEN": f"127.0.0.1:{free_port()}"}
    world.start(**listen, EVENTWRITER_HTTP__TLS__CERT="/gone.pem", EVENTWRITER_HTTP__TLS__KEY="/gone.key")
    wait_until(lambda: "http.tls.cert /gone.pem" in world.log, "the complaint", 10)
    time.sleep(2.5)  # it tries again meanwhile
    assert world.log.count("/gone.pem, http.tls.key /gone.key: no such file or directory; trying again") == 1
