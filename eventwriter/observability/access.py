"""Who may see what over HTTP: this machine all, who has the token all, everybody else the probes or nothing."""

from __future__ import annotations

import base64
import hmac
import ipaddress
from collections.abc import Mapping

from eventwriter.config.model import HttpConfig
from eventwriter.observability.server import TEXT, Answer

PROBES = ("/livez", "/readyz")
"""Asked by who has no token; with one, the reasons of /readyz are told to its holders alone."""


class Access:
    """What the settings allow."""

    def __init__(self, settings: HttpConfig) -> None:
        self._settings = settings
        self._token = settings.token.encode() if settings.token is not None else None

    def refusal(self, path: str, headers: Mapping[str, str]) -> Answer | None:
        """The answer for who may not see this; None: the path is to be answered."""
        if path in PROBES or self.trusts(headers):
            return None
        if self._settings.public and path == "/metrics":
            return None
        if self._token is not None:
            text = "this needs http.token, as a bearer token or as a password\n"
            more = 'WWW-Authenticate: Bearer realm="eventwriter"\r\nWWW-Authenticate: Basic realm="eventwriter"\r\n'
            return Answer(401, TEXT, text.encode(), more)
        if not self._settings.is_local:
            text = "http.public serves /livez, /readyz and /metrics alone: set http.token for the page and /status\n"
            return Answer(403, TEXT, text.encode())
        text = "this name is not that of http.listen: ask 127.0.0.1 or localhost, or set http.token\n"
        return Answer(421, TEXT, text.encode())

    def tells(self, headers: Mapping[str, str]) -> bool:
        """Whether reasons are told to who asks for a probe."""
        return self._settings.public or self.trusts(headers)

    def trusts(self, headers: Mapping[str, str]) -> bool:
        """Whether who asks may see everything."""
        if self._token is not None:
            return hmac.compare_digest(_token(headers.get("authorization", "")), self._token)
        return self._settings.is_local and self._is_ours(headers.get("host", ""))

    def _is_ours(self, host: str) -> bool:
        """Not a name that somebody else lets point to this machine, to have a browser ask in a page of his."""
        name = host.rpartition(":")[0] if ":" in host.rpartition("]")[2] else host
        name = name.lower().removeprefix("[").removesuffix("]")
        try:
            return bool(ipaddress.ip_address(name))
        except ValueError:
            return name in ("", "localhost", self._settings.address[0].lower())


def _token(authorization: str) -> bytes:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "basic":  # what browsers ask for; of whatever user
        try:
            return base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return value.strip().encode("latin-1") if scheme.lower() == "bearer" else b""
