"""`eventwriter check`: everything that the workers will meet, before they start, within seconds."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import NoReturn

import psycopg

from eventwriter.commands import check_nats, check_postgres, check_service, check_settings, options
from eventwriter.commands.findings import Finding, exit_code, shown
from eventwriter.commands.settings import Settings
from eventwriter.config import dsn
from eventwriter.config.loading import Config
from eventwriter.errors import UNAVAILABLE

LONGEST = 8.0
"""Seconds for everything, whatever is wrong."""
_ASKING = 7.0
"""Seconds for NATS, which says itself what it was late with."""


class Part(threading.Thread):
    """One side that is looked at beside the others; it is left alone where it takes too long."""

    def __init__(self, work: Callable[[Part], None]) -> None:
        super().__init__(daemon=True)
        self.findings: list[Finding] = []
        self.doing = ""
        """What it is at, for people."""
        self._work = work
        self._failure: Exception | None = None

    def run(self) -> None:
        """Raises nothing: ``ended`` does."""
        try:
            self._work(self)
        except Exception as error:  # noqa: BLE001 - raised again by who waits
            self._failure = error

    def at(self, doing: str) -> None:
        """Notes what it is at."""
        self.doing = doing

    def ended(self, deadline: float) -> bool:
        """Whether it ended in time."""
        self.join(max(0.0, deadline - monotonic()))
        if self._failure is not None:
            raise self._failure
        return not self.is_alive()


def check(settings: Settings, *, offline: bool) -> list[Finding]:
    """Everything the workers will meet; changes nothing. With ``offline`` nobody is asked."""
    config, declared = settings.load()
    findings = [*check_settings.look(config, declared, settings.file)]
    if not offline:
        deadline = monotonic() + LONGEST
        nats = Part(lambda part: check_nats.look(config, declared, part.findings, _ASKING))
        postgres = Part(lambda part: check_postgres.look(config, declared, part.findings, part.at))
        service = Part(lambda part: check_service.look(config, part.findings))
        parts = (nats, postgres, service)
        for part in parts:
            part.start()
        for part in parts:
            late = not part.ended(deadline)
            findings += [*part.findings]
            if late and part is postgres:
                text = f"PostgreSQL at {_address(config)} does not answer within {LONGEST:.0f} s, while {part.doing}"
                remedy = "check postgres.dsn, and what the server does (pg_stat_activity)"
                findings.append(Finding("postgres", f"{text}: {remedy}", UNAVAILABLE))
    order = {name: number for number, name in enumerate(("settings", "nats", "postgres", *config.streams))}
    return sorted(findings, key=lambda found: order.get(found.subject, len(order)))


def _address(settings: Config) -> str:
    try:
        found = dsn.parse(settings.postgres.dsn)
    except dsn.Unreadable:
        return "postgres.dsn"
    defaults = {option.keyword: option.val for option in psycopg.pq.Conninfo.get_defaults()}
    host, port = (found.get(key) or (defaults[key.encode()] or b"").decode() for key in ("host", "port"))
    return f"{host or 'the socket of this machine'}:{port}"


def end_with(settings: Settings, *, offline: bool, as_json: bool) -> NoReturn:
    """Prints what is found, and ends the process as that says."""
    findings = check(settings, offline=offline)
    options.say(shown(findings, as_json=as_json))
    sys.stdout.flush()
    if threading.active_count() > 1:  # Python would wait for a name server that does not answer
        os._exit(exit_code(findings))
    sys.exit(exit_code(findings))
