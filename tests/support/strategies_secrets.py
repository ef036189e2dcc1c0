"""Secrets that strings may be cut in, and the parts of them of which none may be seen."""

from __future__ import annotations

from hypothesis import strategies as st

TOKENS = ("Qzx7Wv", "40271", "Kpp3Jt")
"""One of them could be a port."""
ODD = "@/:?#%&='\"\\,;+ \t\n[](){}$!~^|<>`0ä"


def secrets(odd: str = ODD) -> st.SearchStrategy[str]:
    """Tokens, with characters of ``odd`` between them."""
    parts = st.lists(st.tuples(st.sampled_from(TOKENS), st.text(odd, max_size=3)), min_size=1, max_size=4)
    return parts.map(lambda pairs: "".join(token + between for token, between in pairs))


def seen(text: str) -> list[str]:
    """The tokens in a text."""
    return [token for token in TOKENS if token in text]


_AT = "127.0.0.1:1"
_KEYWORDS = [
    *("password={}", "passwd={}", "Pwd={}", "PASSWORD = {}", "password:{}", "password {}", "password='{}'"),
    *('password="{}"', "password='{}", "sslpassword={} password={}", "options='-c x.password={}'", "pass={}"),
    *("host=127.0.0.1;port=1;password={}", "Host=127.0.0.1;Password={}", "host=127.0.0.1, port=1, password={}"),
    *("port=1;password={}", "dbname=d;password={}", "sslmode=disable;password={}", "user=u,password={}"),
    *("dbname=postgresql://u:{}@127.0.0.1:1/d", "user=u:{}@127.0.0.1", "host=u:{}@127.0.0.1", "u:{}@127.0.0.1:1/d"),
    *("connect_timeout=1;password={}", "application_name=a;password={}", "service=s;password={}", "jdbc:{}"),
]
_SCHEMES = [
    *("postgresql://", "postgres://", "postgress://", "postgre://", "POSTGRESQL://", "pgsql://", "postgresql:/"),
    *("postgresql+psycopg://", "jdbc:postgresql://", "//", "", "postgresql:///", " postgresql://", '"postgresql://'),
]
_URIS = [
    *(f"u:{{}}@{_AT}/d", f":{{}}@{_AT}", f"u:{{}}@{_AT}?sslmode=disable", f"{_AT}/d?user=u&password={{}}"),
    *(f"{_AT}/d?pass%77ord={{}}", f"{_AT}/d?pwd={{}}", f"{_AT}/d?sslpassword={{}}", f"{_AT}/d;password={{}}"),
    *(f"{_AT}/d&password={{}}", f"u@{_AT}:{{}}@{_AT}/d", f"{_AT}/d#password={{}}"),
]
DSN_TEMPLATES = [
    *(f"host=127.0.0.1 port=1 {each}" for each in _KEYWORDS),
    *_KEYWORDS,
    *(f"{scheme}{uri}" for scheme in _SCHEMES for uri in _URIS),
]
"""Connection strings, few of them as libpq has them, with ``{}`` where the password stands."""

URL_TEMPLATES = [
    *("nats://u:{}@127.0.0.1:1", "tls://{}@127.0.0.1:1", "u:{}@127.0.0.1:1", "{}@127.0.0.1", "NATS://u:{}@127.0.0.1:1"),
    *(
        "nats//u:{}@127.0.0.1:1",
        "http://u:{}@127.0.0.1",
        "nats:/u:{}@127.0.0.1",
        "nats://127.0.0.1:1,nats://{}@127.0.0.1:1",
    ),
    *(
        "nats://127.0.0.1:1;password={}",
        "nats://u:p:{}@127.0.0.1:1",
        "nats://u:{}@127.0.0.1:1/",
        "ws://u:{}@127.0.0.1:1",
    ),
]
"""The same for the addresses of NATS, with its passwords and tokens."""
