"""The tables of others that eventwriter meets, as they were from each of these days on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

SAMPLES = Path(__file__).resolve().parent / "samples"
_FIRST = ("2025_12", "2026_01_08")
_LATER = ("2026_01_17", "2026_01_18", "2026_02_01", "2026_02_03", "2026_02_15", "2026_03_06", "2026_05_03")


def _grown(days: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {day.replace("_", "-"): days[:count] for count, day in enumerate(days, 1)}


FILES = _grown(_FIRST) | _grown(_LATER)
"""Each generation with what its tables are made of, one on top of the other."""


def create(connection: psycopg.Connection[Any], generation: str) -> None:
    """Makes the tables; sessions that begin later find them by name."""
    for days in FILES[generation]:
        connection.execute((SAMPLES / f"tables_{days}.sql").read_text())
    if FILES[generation][0] == _LATER[0]:
        name = sql.Identifier(connection.info.dbname)
        connection.execute(sql.SQL("ALTER DATABASE {} SET search_path = platform, public").format(name))
        connection.execute("SET search_path = platform, public")
