"""What libpq says of its own settings, by which no connection can ever be made. PostgreSQL, src/interfaces/libpq."""

from __future__ import annotations

import re

_SAID = re.compile(
    r"""
    invalid\ (?:"?\w+"?\ value:|port\ number|integer\ value\ .*\ for\ connection\ option|SSL\ protocol\ version)
    | bad\ value\ for\ connect_timeout | could\ not\ match\ \d+ | could\ not\ parse\ network\ address
    | weak\ sslmode | value\ "[^"]*"\ invalid\ when\ \w+\ support\ is\ not\ compiled\ in
    | definition\ of\ service\ .*\ not\ found | service\ file\ .*\ not\ found | syntax\ error\ in\ service\ file
    | root\ certificate\ file\ .*\ does\ not\ exist | could\ not\ (?:read|load|stat|open)\ (?:root\ )?certificate
    | private\ key\ file
    | FATAL:\ +(?:unrecognized\ configuration\ parameter|invalid\ value\ for\ parameter)
    """,
    re.VERBOSE,
)


def told(text: str) -> str:
    """What is wrong with the settings of a connection of which libpq says this; empty if anything else is."""
    if not _SAID.search(text):
        return ""
    line = " ".join(text.split())
    said = re.split(r"connection is bad: |\d failed: ", line)[-1].removeprefix("FATAL: ").strip()
    return f"postgres.dsn, or what libpq takes from its environment: {said}"
