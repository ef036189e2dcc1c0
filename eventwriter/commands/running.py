"""A service that runs: where it answers, and what it says of itself."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec

from eventwriter import masking
from eventwriter.config.model import HttpConfig
from eventwriter.errors import AuthenticationError, UnavailableError
from eventwriter.observability.states import DeadLetter
from eventwriter.terminal import one_line

PATIENCE = 5.0
"""Seconds to wait for an answer."""


_Time = Annotated[float, msgspec.Meta(ge=0, le=2**36)]
"""Seconds since 1970, of which the time of the day can be told."""


class _History(msgspec.Struct):
    rows_per_s: list[float | None]


class _Messages(msgspec.Struct):
    deadlettered: int


class _Stream(msgspec.Struct):
    state: str
    table: str
    history: _History
    messages: _Messages
    rows_written: int
    batch_messages: int
    consumer_pending: int | None
    lag_seconds: float | None
    event_age_p50: float | None
    event_age_p99: float | None
    last_commit: float | None
    restarts: int
    missing: int
    dead_letters: list[DeadLetter]
    stream: str = ""
    durable: str = ""
    dead_letters_per_minute: int | None = None
    columns_omitted: list[str] = []
    batch_durations: dict[str, list[int]] | None = None


class _Problem(msgspec.Struct):
    stream: str
    text: str
    since: _Time | None = None


class _Cause(msgspec.Struct):
    who: str
    text: str
    streams: list[str]
    since: _Time | None


class _Document(msgspec.Struct):
    """What the commands read of the status document; what earlier versions do not tell may be missing."""

    version: str
    now: _Time
    started: float
    ready: bool
    problems: list[_Problem]
    streams: dict[str, _Stream]
    uptime: float | None = None
    causes: list[_Cause] | msgspec.UnsetType = msgspec.UNSET


@dataclass(frozen=True, slots=True)
class Service:
    """Where a service answers, and what it asks for."""

    url: str
    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    """That of the service itself, in a file: whatever name stands in it. None: whoever the system trusts."""
    patience: float = PATIENCE

    @classmethod
    def of(cls, settings: HttpConfig, url: str | None) -> Service:
        """The service with these settings, on this machine; or that at ``url``, with their token."""
        if url is not None:
            return cls(url, settings.token)
        return cls(address(settings), settings.token, settings.tls.cert)

    def opener(self) -> urllib.request.OpenerDirector:
        """What opens URLs there. No proxy, which would ask its own localhost; no redirect, which would take the token
        elsewhere; no other scheme."""
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = self.certificate is None
        opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=context),
            urllib.request.UnknownHandler(),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            opener.add_handler(handler)
        if self.token is not None:  # as a password: a header by itself has neither blanks around nor all characters
            shown = base64.b64encode(f":{self.token}".encode()).decode()
            opener.addheaders = [("Authorization", f"Basic {shown}")]
        return opener


def fetch(service: Service) -> dict[str, Any]:
    """The status document of a service; raises UnavailableError, or AuthenticationError."""
    address = masking.url(service.url.rstrip("/"))
    try:
        return _asked(service, address)
    except (OSError, http.client.IncompleteRead) as error:
        why = one_line(str(getattr(error, "reason", None) or error))
        hint = "is `eventwriter supervise` running, and is this its http.listen?"
        raise UnavailableError(f"no service answers at {address}: {why}; {hint}") from None
    except (http.client.InvalidURL, ValueError):  # what they say quotes headers, and logins of URLs
        raise UnavailableError(f"{address} cannot be asked: expected a URL such as http://127.0.0.1:9465") from None
    except http.client.HTTPException:
        raise _other(address) from None


def _asked(service: Service, address: str) -> dict[str, Any]:
    try:
        with service.opener().open(f"{service.url.rstrip('/')}/status", timeout=service.patience) as answer:
            return _document(answer.read(), address)
    except urllib.error.HTTPError as error:
        with error:
            if 300 <= error.code < 400:
                where = masking.url(one_line(error.headers.get("location", "nowhere")[:200]))
                text = f"{address} leads on to {where}, where the token is not shown: ask the service itself"
                raise UnavailableError(text) from None
            if error.code not in (401, 403, 421):
                raise _other(address, f" (it answers {error.code})") from None
            said = one_line(error.read(200).decode(errors="replace").strip())
            raise AuthenticationError(f"the service at {address} answers {error.code}: {said}") from None


def _document(text: bytes, address: str) -> dict[str, Any]:
    """What was answered, if it is what a service says."""
    try:
        msgspec.json.decode(text, type=_Document)
        document: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise _other(address) from None
    return document


def _other(address: str, more: str = "") -> UnavailableError:
    return UnavailableError(f"what answers at {address} is no eventwriter{more}: is this the service's http.listen?")


def address(config: HttpConfig) -> str:
    """The URL at which a service with these settings answers on this machine."""
    host, port = config.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what is listened on is not where to ask
    scheme = "https" if config.tls.cert else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
