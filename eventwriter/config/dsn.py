"""libpq's connection strings: read as libpq does, refused without a word of theirs, shown without what is secret."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import psycopg
from psycopg import conninfo, pq

from eventwriter.masking import HIDDEN

_SECRET = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
_FREE = frozenset({"options", "sslkey"})
"""Settings whose values may hold settings of their own, even secret ones."""
_INNER = re.compile(r"(pass\w*|pwd|pin-value|\w*secret|\w*token)\s*=", re.IGNORECASE)
_URI = ("postgresql://", "postgres://")
_ENCODE = "@, :, / and % in the user, the password or the database of a URI are written %40, %3A, %2F and %25"
_SCHEME = "a URI begins with postgresql:// or postgres://"

# What libpq says quotes from the string; this is told instead. PostgreSQL, src/interfaces/libpq/fe-connect.c.
_REASONS = (
    ('missing "="', f"a value with a blank in it stands in single quotes, and {_SCHEME}"),
    ("invalid connection option", "a keyword in it is none of libpq's, in which a password is called password"),
    ("invalid URI query parameter", "a parameter after ? is none of libpq's"),
    ("unterminated quoted string", "a quote is not closed"),
    ("unexpected spaces", "a blank in a URI is written %20"),
    ("percent-encoded token", _ENCODE),
    ("forbidden value", "%00 cannot be part of it"),
    ("key/value separator", "a parameter after ? is a name, =, and a value in which = and & are written %3D and %26"),
    ("IPv6", "an IPv6 address in a URI stands in brackets"),
)


class Unreadable(ValueError):
    """The string cannot be used; the text says why and holds nothing of it."""


def parse(text: str) -> dict[str, str]:
    """What the string sets; raises Unreadable, also for what libpq takes but nobody means: most hold a password."""
    try:
        options = pq.Conninfo.parse(text.encode())
        values = {each.keyword.decode(): each.val.decode() for each in options if each.val is not None}
    except UnicodeError:
        raise Unreadable("it is not UTF-8") from None
    except psycopg.Error as error:
        raise Unreadable(_why(text, str(error))) from None
    if text.startswith(_URI):
        # As libpq reads it: the login ends at the first "@", if no "/" comes before.
        authority, _, path = text.partition("://")[2].partition("/")
        hosts = authority.partition("@")[2].partition("?")[0]
        misread = "@" in text and fault("port", values.get("port", ""))
        if "@" in hosts or re.search("[@:/]", path.partition("?")[0]) or misread:
            raise Unreadable(_ENCODE)
    for keyword, value in values.items():
        if why := fault(keyword, value):
            raise Unreadable(why)
    return values


def _why(text: str, said: str) -> str:
    """What libpq said about the string, in words of ours."""
    if "://" in text.partition("=")[0] and not text.startswith(_URI):
        return _SCHEME
    return next((why for part, why in _REASONS if part in said), "libpq cannot read it")


def fault(keyword: str, value: str) -> str:
    """Why a setting of libpq cannot be meant, if so; whoever writes such a thing may have put a password into it."""
    if keyword in _SECRET or keyword in _FREE:
        return ""
    if re.search(r"[\x00-\x1f\x7f]", value):
        return f"{keyword} has a line break or another control character in it"
    if _INNER.search(value):
        return f"{keyword} has another setting in its value: settings are separated by blanks, in a URI by &"
    if keyword in ("host", "hostaddr", "dbname", "user", "service") and re.search(r":[^@]*@", value):
        return f"{keyword} has a login in its value: a URI stands alone in postgres.dsn"
    if keyword == "host" and not all(map(_is_host, value.split(","))):
        return f"{keyword} is not the name of a host"
    if keyword == "port" and not re.fullmatch(r"[0-9, ]*", value):
        return f"{keyword} is no number"
    return ""


def _is_host(name: str) -> bool:
    """Whether this may be a name, an address, the folder of a socket ("/…") or an abstract socket ("@…")."""
    if name.startswith("/"):
        return True
    try:
        name.encode("idna")  # how psycopg looks it up
    except UnicodeError:
        return False
    return not re.search(r".@|[\s=;]", name)


def show(text: str) -> str:
    """What libpq reads in the string, as a string, with ``***`` for what is secret; all of it if that is not known."""
    try:
        values = parse(text)
    except Unreadable:
        return HIDDEN
    # Not the string itself, though nothing in it be secret: what is set a second time is not in what libpq reads.
    for keyword, value in values.items():
        if keyword in _SECRET or (keyword in _FREE and _INNER.search(value)):
            values[keyword] = HIDDEN
    return conninfo.make_conninfo("", **values)


def environment(environ: Mapping[str, str], overridden: Collection[str]) -> dict[str, str]:
    """The variables that libpq takes a value from, which it has nowhere else from, not even from a service; no secrets.

    ``overridden`` are the keywords that a connection gets from us.
    """
    found = {}
    for option in pq.Conninfo.get_defaults():
        keyword, name = option.keyword.decode(), (option.envvar or b"").decode()
        value = environ.get(name, "")
        if value and keyword not in overridden and value.encode() == option.val:
            secret = keyword in _SECRET or (keyword in _FREE and _INNER.search(value)) or fault(keyword, value)
            found[name] = HIDDEN if secret else value
    return found


def told(error: psycopg.Error) -> str:
    """What an error says; of a connection, without values that cannot be meant.

    Those do not come from the settings, which were refused then, but from a service file or the environment.
    """
    text = str(error).strip() or type(error).__name__
    if error.sqlstate is not None:
        return text
    if "host None" in text:  # psycopg looks the name up, and tells that of the string alone
        hosts = [option.val for option in pq.Conninfo.get_defaults() if option.keyword == b"host"]
        text = text.replace("host None", f"host {(hosts[0] or b'').decode(errors='replace')!r}")
    for option in _used(error):
        keyword, value = option.keyword.decode(), (option.val or b"").decode(errors="replace")
        for part in (value, *value.split(",")):
            if fault(keyword, part):
                for form in (part, repr(part)[1:-1]):
                    text = text.replace(form, HIDDEN)
    return text


def _used(error: psycopg.Error) -> Iterator[pq.ConninfoOption]:
    """The settings of a connection that was not made, and those that libpq finds in the environment."""
    if error.pgconn is not None:
        yield from error.pgconn.info
    yield from pq.Conninfo.get_defaults()
