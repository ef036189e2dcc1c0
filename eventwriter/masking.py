"""Hides the secrets in connection strings. When in doubt it hides more."""

from __future__ import annotations

import re

HIDDEN = "***"

_SECRET = r"(?:password|sslpassword|oauth_client_secret|scram_client_key|scram_server_key)"
_PARAMETER = re.compile(rf"([?&]{_SECRET}=)[^&]*", re.IGNORECASE)
_KEYWORD = re.compile(rf"(\b{_SECRET}\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s\\]|\\.)*)", re.IGNORECASE | re.DOTALL)
# The first form is libpq's own reading; the second catches passwords with an unescaped "/", which libpq refuses,
# but not the port of "host:5432/name?x=a@b".
_USER = re.compile(r"^(\w+://[^:/@]*):[^/]*@", re.DOTALL)
_ODD_USER = re.compile(r"^(\w+://[^:/@]*):(?![0-9]+(?:[/?,]|$)).*@", re.DOTALL)


def whole(text: str) -> str:
    """Nothing of it."""
    return HIDDEN


def dsn(text: str) -> str:
    """A libpq connection string, URI or keywords, without its passwords (PostgreSQL documentation, 34.1.1)."""
    if "://" not in text.split("=", 1)[0]:
        return _KEYWORD.sub(rf"\g<1>{HIDDEN}", text)
    for pattern in (_USER, _ODD_USER):
        if pattern.search(text):
            text = pattern.sub(rf"\g<1>:{HIDDEN}@", text)
            break
    return _PARAMETER.sub(rf"\g<1>{HIDDEN}", text)


def url(text: str) -> str:
    """A NATS URL without its password, or without its token when there is no user."""
    credentials, at, host = text.rpartition("@")
    if not at:
        return text
    scheme, separator, user = credentials.partition("://") if "://" in credentials else ("", "", credentials)
    name, colon, _ = user.partition(":")
    return f"{scheme}{separator}{name + colon if colon else ''}{HIDDEN}@{host}"
