"""Which dead letters a command is about: what the command line says, and its SQL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import click
from psycopg import sql

from eventwriter.commands.settings import Loaded
from eventwriter.config.units import parse_duration
from eventwriter.errors import UsageError

_F = TypeVar("_F", bound=Callable[..., Any])
_CENTURY = 100 * 365.25 * 86_400

LETTERS = sql.SQL(
    "eventwriter.dead_letter_records r JOIN eventwriter.dead_letter_messages m USING (ledger_id, sequence) "
    "JOIN eventwriter.ledger l ON l.id = r.ledger_id"
)
"""What ``Selection.where`` is about."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Some of the dead letters; what is None selects nothing."""

    numbers: tuple[int, ...] = ()
    stream: str | None = None
    reason: str | None = None
    sqlstate: str | None = None
    since: datetime | timedelta | None = None
    """Kept since this time, or for so long at most."""
    before: datetime | timedelta | None = None
    """Kept before this time, or for longer than that."""
    replayed: bool = False
    """Those that were replayed, instead of those that still wait."""

    @property
    def everything(self) -> bool:
        """Whether nothing is selected, so that it is about all that wait, or all that were replayed."""
        chosen = (self.stream, self.reason, self.sqlstate, self.since, self.before)
        return not self.numbers and all(each is None for each in chosen)

    def where(self) -> tuple[sql.Composed, dict[str, Any]]:
        """The condition on ``LETTERS``, and its values."""
        conditions = [sql.SQL("r.replayed_at IS " + ("NOT NULL" if self.replayed else "NULL"))]
        values: dict[str, Any] = {}
        for name, value, condition in (
            ("numbers", [*self.numbers] or None, "r.id = ANY(%(numbers)s)"),
            ("stream", self.stream, "l.logical_stream = %(stream)s"),
            ("reason", self.reason, "r.reason = %(reason)s"),
            ("sqlstate", self.sqlstate, "r.sqlstate = %(sqlstate)s"),
            ("since", self.since, "m.created_at >= " + _moment(self.since, "since")),
            ("before", self.before, "m.created_at < " + _moment(self.before, "before")),
        ):
            if value is not None:
                conditions.append(sql.SQL(condition))
                values[name] = value
        return sql.SQL(" AND ").join(conditions), values

    def __str__(self) -> str:
        """For a question to a person."""
        parts = [f"of {self.stream or 'all streams'}"]
        parts += [f"with the numbers {', '.join(map(str, self.numbers))}"] if self.numbers else []
        parts += [f"with the reason {self.reason}"] if self.reason is not None else []
        parts += [f"with SQLSTATE {self.sqlstate}"] if self.sqlstate is not None else []
        parts += [f"kept since {_told(self.since)}"] if self.since is not None else []
        parts += [f"kept before {_told(self.before)}"] if self.before is not None else []
        return ", ".join(parts) + (", that were replayed" if self.replayed else "")


def _moment(value: datetime | timedelta | None, name: str) -> str:
    """Of an age by the clock of the database, which the letters' times are of."""
    return f"now() - %({name})s" if isinstance(value, timedelta) else f"%({name})s"


def _told(value: datetime | timedelta) -> str:
    return f"{value} ago" if isinstance(value, timedelta) else f"{value:%Y-%m-%d %H:%M:%S%z}"


def moment(text: str, option: str) -> datetime | timedelta:
    """A time such as 2026-05-03T09:20:00Z, or an age such as 30m; raises UsageError that names the option."""
    try:
        seconds = parse_duration(text)
        if seconds > _CENTURY:
            raise UsageError(f"{option} {text}: expected at most a hundred years")
        return timedelta(seconds=seconds)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text}: expected an age such as 30m, 12h or 7d, or a time such as 2026-05-03T09:20:00Z"
        ) from None


def options(command: _F) -> _F:
    """The options with which commands select; their values come as the argument ``selected``."""
    for option in reversed(
        (
            click.option("--stream", help="Only of this stream, such as LOGS."),
            click.option("--reason", help="Only with this reason, such as malformed."),
            click.option("--sqlstate", help="Only with this SQLSTATE, such as 22003."),
            click.option("--since", metavar="WHEN", help="Only kept since then: an age such as 2h or 7d, or a time."),
            click.option("--older-than", metavar="WHEN", help="Only kept before then: an age or a time."),
        )
    ):
        command = option(command)
    return command


def selection(
    loaded: Loaded,
    numbers: tuple[int, ...] = (),
    *,
    stream: str | None,
    reason: str | None,
    sqlstate: str | None,
    since: str | None,
    older_than: str | None,
    replayed: bool = False,
) -> Selection:
    """What the options say; raises UsageError."""
    return Selection(
        numbers,
        None if stream is None else loaded.stream(stream).name,
        reason,
        sqlstate,
        None if since is None else moment(since, "--since"),
        None if older_than is None else moment(older_than, "--older-than"),
        replayed,
    )
