"""The kinds of settings there are: how a value is read from TOML or from text, checked, written back, and masked."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from eventwriter import masking
from eventwriter.config import dsn, subjects, units
from eventwriter.config.kind import Expected, Kind
from eventwriter.values import Unfit, parse_path


def _text(check: Callable[[str], bool] = lambda text: bool(text)) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if isinstance(value, str) and check(value):
            return value
        raise ValueError

    return parse


def _bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError


def _bool_from_text(text: str) -> object:
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    return words.get(text.strip().lower(), text)


def integer(least: int, most: int) -> Kind:
    """A whole number within bounds."""

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
            return value
        raise ValueError

    def from_text(text: str) -> object:
        return int(text) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", text) else text

    return Kind(f"a whole number from {least} to {most}", parse, from_text)


def duration(least: float = 0.001, most: float = 86_400.0) -> Kind:
    """A time span, at most a day unless told otherwise; held as seconds, shown with a unit."""

    def parse(value: object) -> float:
        if isinstance(value, str):
            seconds: float = units.parse_duration(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value
        else:
            raise ValueError
        if least <= seconds <= most:
            return round(float(seconds), 9) + 0.0  # finer than any clock, and short to write; -0.0 is 0
        raise ValueError

    bounds = f"{units.format_duration(least)} to {units.format_duration(most)}"
    return Kind(
        f'a duration such as "20ms", "1.5s", "2m" or a number of seconds ({bounds})', parse, show=units.format_duration
    )


def size(least: int, most: int) -> Kind:
    """A number of bytes; shown with a unit."""

    def parse(value: object) -> int:
        amount = units.parse_size(value) if isinstance(value, str) else value
        if isinstance(amount, int) and not isinstance(amount, bool) and least <= amount <= most:
            return amount
        raise ValueError

    bounds = f"{units.format_size(least)} to {units.format_size(most)}"
    return Kind(f'a size such as "8MiB", "512KiB" or a number of bytes ({bounds})', parse, show=units.format_size)


def choice(*words: str) -> Kind:
    """One of some words."""
    return Kind(" or ".join(f'"{word}"' for word in words), _text(lambda text: text in words))


def _dsn(value: object) -> str:
    text = _text(lambda text: True)(value)
    try:
        dsn.parse(text)
    except dsn.Unreadable as error:
        raise Expected(f"a libpq connection string: {error}") from None
    return text


def _list(value: object) -> list[str]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
        raise ValueError
    return [part.strip() for item in items for part in item.split(",") if part.strip()]


def _urls(value: object) -> tuple[str, ...]:
    urls = _list(value)
    if not urls:
        raise ValueError
    # Not a login with a comma in it, cut in two.
    if any("@" in url and "://" not in url for url in urls[1:]):
        raise Expected("a list of NATS URLs, in which each login stands behind a scheme")
    return tuple(map(_nats_url, urls))


def _nats_url(url: str) -> str:
    """The URL, its scheme in small letters, as nats-py wants it; raises Expected."""
    scheme, separator, rest = url.partition("://") if "://" in url else ("nats", "", url)
    parts = urlsplit(f"{scheme}://{rest}")
    if parts.scheme in ("ws", "wss"):  # where its client finds other servers, nats-py goes on without TLS
        raise Expected("nats:// or tls://, and the port for clients of the server: WebSockets are not used")
    if parts.scheme not in ("nats", "tls") or not url.isprintable() or " " in url:
        raise ValueError
    beyond = parts.query or parts.fragment or parts.path not in ("", "/")
    if beyond or re.search(r"[;&]\s*(pass\w*|pwd|token)\s*=", url, re.IGNORECASE):
        # What was meant as a password would be taken for host and port.
        raise Expected(
            "a NATS URL that ends with host and port: a login with / ? or # goes to nats.user, nats.password"
        )
    if not re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", parts.hostname or "") or parts.port == 0:
        raise ValueError
    return f"{parts.scheme}://{rest}" if separator else url


def filters(*, none_allowed: bool) -> Kind:
    """A list of NATS subject filters."""

    def parse(value: object) -> tuple[str, ...]:
        patterns = _list(value)
        for pattern in patterns:
            reason = subjects.invalid(pattern)
            if reason:
                raise Expected(f'a NATS subject such as "logs.>"; in {pattern!r} {reason}')
        for i, pattern in enumerate(patterns):
            for other in patterns[:i]:
                # JetStream refuses such a consumer; among exclusions it says nothing new, but does no harm.
                if not none_allowed and subjects.overlap(pattern, other):
                    raise Expected(f"subjects that do not overlap; {other!r} and {pattern!r} do")
        if not patterns and not none_allowed:
            raise ValueError
        return tuple(patterns)

    amount = "a list of" if none_allowed else "a list of one or more"
    return Kind(f'{amount} NATS subjects such as ["logs.>"]', parse, show=list)


def _is_listen(text: str) -> bool:
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@]+):([0-9]{1,5})", text)
    return match is not None and int(match[2]) <= 65535


_IDENTIFIER = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+")'

TEXT = Kind("a text that is not empty", _text())
FILE = Kind(
    "the path of a file, not what stands in it",
    _text(lambda text: bool(text) and text.isprintable() and "-----" not in text and masking.text(text) == text),
    mask=str,  # a path is shown; what else was written there is not
)
BOOL = Kind("true or false", _bool, _bool_from_text)
SECRET = Kind("a text that is not empty", _text(), mask=masking.whole, from_file=True)
TOKEN = Kind(
    "a token without line breaks and other control characters",
    _text(lambda text: re.fullmatch(r"[^\x00-\x1f\x7f]+", text) is not None),
    mask=masking.whole,
    from_file=True,
)
NKEY = Kind(
    "the seed of a user's nkey: SU and 56 more capitals and digits",
    _text(lambda text: re.fullmatch(r"SU[A-Z2-7]{56}", text) is not None),
    mask=masking.whole,
    from_file=True,
)
DSN = Kind("a libpq connection string", _dsn, mask=dsn.show, from_file=True)
URLS = Kind(
    'a NATS URL such as "nats://127.0.0.1:4222", or a list of them', _urls, show=list, mask=masking.url
)  # fmt: skip
NAME = Kind(
    "a JetStream name: no white space, no '.', '*', '>', '/' or '\\'",
    _text(lambda text: re.fullmatch(r"[^\s.*>/\\]{1,255}", text) is not None and text.isprintable()),
)
PREFIX = Kind(
    'the beginning of subjects such as "JS.hub.API": tokens with dots between them, no wildcard, no dot at the end',
    _text(lambda text: len(text) <= 255 and subjects.invalid(text) is None and not {"*", ">"} & set(text)),
)
TABLE = Kind(
    'a table name such as "logs" or "public.logs"',
    _text(lambda text: re.fullmatch(rf"{_IDENTIFIER}(?:\.{_IDENTIFIER})?", text) is not None),
)
COLUMNS = Kind('a list of column names such as ["source"]', lambda value: tuple(_list(value)), show=list)
FOLDERS = Kind('a list of folders such as ["/etc/eventwriter/streams"]', lambda value: tuple(_list(value)), show=list)


def _paths(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not value or not all(isinstance(path, str) for path in value.values()):
        raise ValueError
    for column, path in value.items():
        try:
            parse_path(path)
        except Unfit as error:
            raise Expected(f"the path of a value in JSON for column {column}: {error}") from None
    return dict(value)


def _paths_from_text(text: str) -> object:
    pairs = [part.partition("=") for part in text.split(",")]
    return (
        {column.strip(): path.strip() for column, _, path in pairs} if all(equals for _, equals, _ in pairs) else text
    )


PATHS = Kind(
    'columns with the path of what fills each, such as { time = "ts", text = "message.text" }', _paths, _paths_from_text
)
LISTEN = Kind('host and port such as "127.0.0.1:9465" or "[::]:9465"', _text(_is_listen))
