"""What a command asks of a service that runs: whoever answers instead, and whatever that says."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eventwriter.commands.running import Service, fetch
from eventwriter.errors import UnavailableError


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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_token_goes_to_nobody_else(status: int) -> None:
    """Who is asked may name another: that one is not asked, but told."""
    with ExitStack() as stack:
        elsewhere = stack.enter_context(other(body=b'{"streams": {}}'))
        asked = stack.enter_context(other(status, {"Location": f"{elsewhere.url}/status"}))
        with pytest.raises(UnavailableError, match="leads on to") as caught:
            fetch(Service(asked.url, "s3cret"))
        assert [each["Authorization"] for each in asked.seen] == ["Bearer s3cret"]
        assert elsewhere.seen == []
    assert elsewhere.url in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "token"),
    [
        ("http://127.0.0.1:9", "hunter2-very-s3cret\n"),
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
