"""`eventwriter schema version`: which version of eventwriter's own schema a database has."""

from __future__ import annotations

import json
from typing import Any

from eventwriter import __version__, registry
from eventwriter.config.loading import Config
from eventwriter.errors import CONFIGURATION, OK
from eventwriter.postgres import versions
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated


def read(settings: Config) -> dict[str, Any]:
    """What is there, and what this release knows."""
    latest = len(registry.own_versions())
    with connect(settings.postgres, "eventwriter schema") as connection, translated():
        found = versions.read(connection)
        current = found.number == latest and versions.unchanged(connection, found)
    return {
        "release": __version__,
        "latest": latest,
        "version": found.number,
        "applied_at": found.applied.isoformat() if found.applied else None,
        "applied_by": found.release or None,
        "current": current,
    }


def shown(found: dict[str, Any], *, as_json: bool) -> str:
    """For a terminal or a program."""
    if as_json:
        return json.dumps(found)
    what = f"version {found['version']}" if found["version"] else "not there"
    if found["applied_at"]:
        what += f", applied {found['applied_at']} by release {found['applied_by']}"
    elif found["version"]:
        what += ", of a release that kept no record"
    if found["current"]:
        todo = "nothing to do"
    elif found["version"] > found["latest"]:
        todo = f"this release ({found['release']}) knows version {found['latest']}: use the later one that made it"
    else:
        todo = f"`eventwriter schema apply` brings it to version {found['latest']}"
    return f"schema eventwriter: {what}; {todo}"


def exit_code(found: dict[str, Any]) -> int:
    """78 if the schema is not what this release expects."""
    return OK if found["current"] else CONFIGURATION
