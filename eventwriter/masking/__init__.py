"""Hides secrets: in settings that are shown, and in every text that leaves. When in doubt it hides more."""

from __future__ import annotations

import re

HIDDEN = "***"

_LOGIN = re.compile(r"(://)[^\s\"'<>]*@")
_ASSIGNED = re.compile(
    r"((?:passw?o?r?d|passwd|pwd|secret|token)\s*=\s*)('(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?|[^\s\"']+)",
    re.IGNORECASE | re.DOTALL,
)

# Seeds of nkeys, JWTs, and what a header shows.
_KEYS = re.compile(
    r"\bS[ACNOU][A-Z2-7]{56}\b|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=Authorization: )\w+ \S+|(?<=\bBearer )\S+"
)


def whole(value: str) -> str:
    """Nothing of it."""
    return HIDDEN


def text(message: str) -> str:
    """An error or a line of the log, without the logins of URLs, keys, and what is assigned to a secret's name."""
    message = _KEYS.sub(HIDDEN, _LOGIN.sub(rf"\g<1>{HIDDEN}@", message))
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", message)


def url(address: str) -> str:
    """A NATS URL without its password, or without its token when there is no user."""
    credentials, at, host = address.rpartition("@")
    if not at:
        return address
    scheme, separator, user = credentials.partition("://") if "://" in credentials else ("", "", credentials)
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name + colon if colon else ''}{HIDDEN}@{host}"
