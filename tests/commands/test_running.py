"""What a command asks of a service that runs: whoever answers instead, and whatever that says."""

from __future__ import annotations

import base64
import copy
import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from boards import running, settings, trouble
from eventwriter import registry
from eventwriter.commands import check_service, status_table
from eventwriter.commands.findings import Finding
from eventwriter.commands.running import Service, _document, fetch
from eventwriter.errors import UnavailableError
from eventwriter.observability.board import Board
from eventwriter.observability.monitor import Monitor


class Other(ThreadingHTTPServer):
    """Somebody else's server: answers everything alike, and keeps the headers that it was sent."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.answer = status, headers, body
        self.seen: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Other

    def do_GET(self) -> None:
        """Answers."""
        self.server.seen.append(dict(self.headers))
        status, headers, body = self.server.answer
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


@contextmanager
def other(status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"") -> Iterator[Other]:
    """One that serves."""
    with Other(status, headers or {}, body) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def answered() -> dict[str, Any]:
    """What a service of one stream says, which has seen trouble."""
    board, names = Board(), [name for name in registry.load() if name != "LOGS"]
    config = settings(**{f"STREAMS__{name}__ENABLED": "false" for name in names})
    children, reports = running(board, config)
    trouble(reports["LOGS"])
    reports["LOGS"].waits(UnavailableError("PostgreSQL cannot be reached"), 1.0)
    reports["LOGS"].omits("logs", ["source"])
    children.reloaded("wrong")
    monitor = Monitor(board, config)
    monitor.sample()
    return monitor.status()


def test_what_a_service_says_is_handed_on_as_it_is() -> None:
    """Of whatever version: also what no command reads."""
    document = answered() | {"more": [1, None]}
    with other(body=json.dumps(document).encode()) as server:
        assert fetch(Service(server.url)) == document


OTHERS = [
    b"[]",
    b'"streams"',
    b"null",
    b"1",
    b"{}",
    b'{"streams": []}',
    b'{"streams": {}}',
    b'{"streams": {"LOGS": 1}}',
    b"\xff",
    b"[" * 100_000,
    b'{"streams": 1' + b"0" * 5000 + b"}",
]


@pytest.mark.parametrize("body", OTHERS, ids=range(len(OTHERS)))
def test_who_answers_something_else_is_no_service(body: bytes) -> None:
    """It is told so, and `check` finds what it finds without it."""
    with other(body=body) as server:
        with pytest.raises(UnavailableError, match=r"what answers at .* is no eventwriter: is this"):
            fetch(Service(server.url))
        findings: list[Finding] = []
        check_service.look(settings(HTTP__LISTEN=server.url.removeprefix("http://")), findings)
    assert findings == []


def places(value: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """Where anything stands in a document; of a list the first."""
    for step, each in list(value.items() if isinstance(value, dict) else enumerate(value[:1])):
        yield (*above, step)
        if isinstance(each, dict | list):
            yield from places(each, *above, step)


def changed(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The document with something else, or nothing, in each of its places."""
    others: list[Any] = [None, -1e300, "x", []]
    for *above, last in places(document):
        for other in (*others, {"a": 1}):
            found = copy.deepcopy(document)
            holder: Any = found
            for step in above:
                holder = holder[step]
            holder[last] = other
            yield found
        del holder[last]
        yield found


def test_what_is_taken_for_a_service_can_be_shown() -> None:
    """A document of which anything is missing, or is something else, is refused or shown, by `check` as well."""
    stream, counts = settings().streams["LOGS"], [0, 0]
    for document in changed(answered()):
        try:
            found = _document(json.dumps(document).encode(), "there")
        except UnavailableError:
            counts[0] += 1
            continue
        counts[1] += 1
        status_table.render(found, 140)
        for each in found["streams"].values():
            [*check_service.written(stream, each.get("batch_durations") or {})]
    assert min(counts) > 50


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_goes_to_nobody_else(status: int) -> None:
    """Who is asked may name another: that one is not asked, but told."""
    with ExitStack() as stack:
        elsewhere = stack.enter_context(other(body=b'{"streams": {}}'))
        asked = stack.enter_context(other(status, {"Location": f"{elsewhere.url}/status"}))
        with pytest.raises(UnavailableError, match="leads on to") as caught:
            fetch(Service(asked.url, "s3cret"))
        assert [each["Authorization"] for each in asked.seen] == ["Basic " + base64.b64encode(b":s3cret").decode()]
        assert elsewhere.seen == []
    assert elsewhere.url in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://127.0.0.1:9\n", "hunter2-very-s3cret"),
        ("http://127.0.0.1:9", "s3cret-p€ss"),
        ("http://u:s3cret@127.0.0.1", "t"),
        ("//u:s3cret@127.0.0.1", "t"),
        ("u:s3cret@127.0.0.1:9", "t"),
    ],
)
def test_what_cannot_be_asked_shows_no_secret(url: str, token: str) -> None:
    """What Python says of a header or a URL quotes it: that is not told."""
    with pytest.raises(UnavailableError) as caught:
        fetch(Service(url, token))
    assert "s3cret" not in str(caught.value)
    assert "expected a URL" in str(caught.value) or "no service answers" in str(caught.value)
