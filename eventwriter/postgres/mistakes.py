"""What libpq says of its own settings, by which no connection can ever be made. PostgreSQL, src/interfaces/libpq."""

from __future__ import annotations

import re
from collections.abc import Collection

_SAID = re.compile(
    r"""
    invalid\ (?:"?\w+"?\ value:|port\ number|integer\ value\ .*\ for\ connection\ option|SSL\ protocol\ version)
    | bad\ value\ for\ connect_timeout | could\ not\ match\ \d+ | could\ not\ parse\ network\ address
    | weak\ sslmode | value\ "[^"]*"\ invalid\ when\ \w+\ support\ is\ not\ compiled\ in
    | definition\ of\ service\ .*\ not\ found | service\ file\ .*\ not\ found | syntax\ error\ in\ service\ file
    | root\ certificate\ file\ .*\ does\ not\ exist | could\ not\ (?:read|load|stat|open)\ (?:root\ )?certificate
    | private\ key\ file
    | unsupported\ startup\ parameter
    """,
    re.VERBOSE,
)
_NOT_A_STANDBY = re.compile("session is not read-only|server is not in hot standby mode")
STANDBY = (
    "postgres.dsn, or what libpq takes from its environment: target_session_attrs asks for a server that takes no "
    "writes: read-write finds the one that does"
)
_OPTIONS = {"42704", "22023", "0A000"}
"""SQLSTATEs of a setting that a server does not know, or not with this value; 0A000 of its encoding, which has no way
from UTF-8."""


def told(text: str, codes: Collection[str]) -> str:
    """What is wrong with the settings of a connection of which libpq, and a server with these SQLSTATEs, says this.

    Empty if anything else is.
    """
    if _NOT_A_STANDBY.search(text):
        return STANDBY
    if not _SAID.search(text) and _OPTIONS.isdisjoint(codes):
        return ""
    line = " ".join(text.split())
    said = re.split(r"connection is bad: |\d failed: ", line)[-1].removeprefix("FATAL: ").strip()
    if "unsupported startup parameter" in said:
        said += ", says the pooler: leave it out, or name it in ignore_startup_parameters of PgBouncer"
    return f"postgres.dsn, or what libpq takes from its environment: {said}"
