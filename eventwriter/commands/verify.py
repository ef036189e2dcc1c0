"""`eventwriter verify`: what JetStream still holds, against the ledger and the dead letters. Changes nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click
from psycopg import Connection

from eventwriter import terminal
from eventwriter.commands import against, options
from eventwriter.commands.dlq_selection import moment
from eventwriter.commands.progress import Tell, progress
from eventwriter.commands.settings import Loaded, Settings
from eventwriter.config import kinds
from eventwriter.config.loading import StreamConfig
from eventwriter.coverage import beliefs
from eventwriter.errors import MISSING, OK, EventWriterError, UsageError
from eventwriter.jetstream import continuity, holdings
from eventwriter.jetstream.api import Request
from eventwriter.jetstream.holdings import Held
from eventwriter.jetstream.visitor import Visitor, visiting
from eventwriter.postgres import looking
from eventwriter.postgres.connection import check_server, connect
from eventwriter.postgres.errors import needing, translated
from eventwriter.postgres.ledger import Identity

_SHOWN = 20
"""Gaps that are shown to a person; a program gets all of them."""


@dataclass(slots=True)
class Verified:
    """What was found of one stream. checked = done + dead_letters + missing."""

    checked: int = 0
    """Messages of ours that the stream holds, up to where the consumer has come."""
    done: int = 0
    dead_letters: int = 0
    """Messages of which something is a dead letter that waits."""
    missing: int = 0
    waiting: int = 0
    """Messages that the consumer has yet to deliver, or that are not acknowledged yet."""
    before: int = 0
    """Messages from before the ledger, of which it does not know whether they are written."""
    begins: int = 0
    """Sequences up to here are from before it."""
    gaps: list[Held] = field(default_factory=list)
    times: list[tuple[datetime | None, ...]] = field(default_factory=list)
    """When the first and the last message of the first gaps were received."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        counts = ("checked", "done", "dead_letters", "missing", "waiting", "before")
        return {name: getattr(self, name) for name in counts} | {
            "gaps": [[each.first, each.last] for each in self.gaps]
        }


def verify(
    connection: Connection[Any], visitor: Visitor, stream: StreamConfig, tell: Tell, *, letters: bool = True
) -> Verified:
    """Compares. What is behind is asked first: stream, consumer, ledger.

    Without ``letters`` dead letters are done as well, and nobody has to be permitted to read them.
    """
    info = visitor.stream_info()
    consumer = visitor.consumer_info()
    with translated():
        known = looking.look_up(connection, Identity(stream.name, info.name, info.created, stream.durable))
    visitor.ask(lambda request: continuity.check(request, stream, known.highest, known.newest))
    # Where there is no consumer, a new one begins with what is missing; so far it is.
    last = holdings.passed(info, consumer) if consumer else known.highest
    first = max(info.first_sequence, known.begins + 1, 1)

    def counted(begin: int, end: int) -> int:
        return visitor.ask(lambda request: holdings.count(request, stream, stream.subjects, begin, end))

    found = Verified(checked=counted(first, last), before=counted(info.first_sequence, min(known.begins, last)))
    found.begins = known.begins
    found.waiting = consumer.pending + consumer.ack_pending if consumer else counted(last + 1, info.last_sequence)
    missing = known.missing(beliefs(stream.subjects, stream.exclude), first, last)
    whole = found.checked == last - first + 1
    found.gaps = visitor.ask(lambda request: holdings.gaps_of(request, stream, missing, whole=whole, tell=tell))
    found.missing = sum(each.messages for each in found.gaps)
    found.checked = max(found.checked, found.missing)
    if letters and known.row is not None:
        with translated():
            found.dead_letters = looking.dead_letters(connection, known.row, first, last)
    found.done = max(0, found.checked - found.missing - found.dead_letters)
    found.times = visitor.ask(lambda request: _times(request, stream, found.gaps[:_SHOWN]))
    return found


async def _times(request: Request, stream: StreamConfig, gaps: Sequence[Held]) -> list[tuple[datetime | None, ...]]:
    ends = [(gap.first, gap.last) for gap in gaps]
    return [tuple([await holdings.time_of(request, stream, sequence) for sequence in pair]) for pair in ends]


def shown(name: str, found: Verified) -> str:
    """For a person: what was compared, and each gap."""
    line = f"{name:<14}{found.checked} messages checked: {found.done} done, {found.dead_letters} dead letters, "
    line += f"{found.missing} missing" + (f"; {found.waiting} are waiting" if found.waiting else "")
    lines = [("✗ " if found.gaps else "✓ ") + line]
    for gap, times in zip(found.gaps, found.times, strict=False):
        lines.append(f"    missing: {gap_text(gap)}{_received(times)}")
    if len(found.gaps) > _SHOWN:
        lines.append(f"    … and {len(found.gaps) - _SHOWN} more gaps: --output json has all")
    if found.gaps:
        only = f" --from-seq {found.begins + 1}" if found.before else ""
        lines.append(f"    `eventwriter replay --stream {name}{only}` writes what is missing")
    if found.before:
        lines.append(
            f"    {found.before} messages are from before the ledger, which does not know whether they are written: if "
            f"they are not, `eventwriter replay --stream {name}` writes them, too"
        )
    return "\n".join(lines)


def gap_text(gap: Held) -> str:
    """One gap, in words."""
    if gap.messages == 1:
        return f"1 message, sequence {gap.first}"
    return f"{gap.messages} messages, sequences {gap.first} to {gap.last}"


def _received(times: Sequence[datetime | None]) -> str:
    known = [f"{time:%Y-%m-%d %H:%M:%S}Z" for time in times if time is not None]
    return f", received {' to '.join(dict.fromkeys(known))}" if known else ""


@click.command("verify")
@click.option("--stream", "name", help="Only this stream, such as LOGS.")
@click.option("--against", metavar="TABLE", callback=options.setting(kinds.TABLE),
              help="Also compare with this table, which another writer fills.")  # fmt: skip
@click.option("--since", metavar="WHEN", help="With --against: only rows since then, an age such as 2h or a time.")
@click.option("--until", metavar="WHEN", help="With --against: only rows before then, an age or a time.")
@options.output
@click.pass_obj
def command(
    settings: Settings, name: str | None, against: str | None, since: str | None, until: str | None, as_json: bool
) -> None:
    """Compare what JetStream still holds with the ledger and the dead letters, and print what is missing.

    Every message counts, but none is transferred, so it takes seconds for millions of them, beside the running service,
    and the durable is not touched. What is not delivered or not acknowledged yet is waiting, not missing. Exits 1 if
    something is missing; `eventwriter replay` writes it.

    --against compares the rows of a stream with a table that another writer fills beside us: how many there are of each
    hour, and where both have a key, which ones. Exits 1 if they differ. The hour that is just under way may.

    \b
        eventwriter verify
        eventwriter verify --stream LOGS --against old.logs --since 2h --until 5m
    """
    loaded = settings.load()
    if against is None and (since or until):
        raise UsageError("--since and --until are for --against")
    if against is not None and name is None:
        raise UsageError("--against compares one stream with a table: name it with --stream")
    streams = [loaded.stream(name)] if name else [each for each in loaded.config.streams.values() if each.enabled]
    window = moment(since, "--since") if since else None, moment(until, "--until") if until else None
    sys.exit(_run(loaded, streams, against, window, as_json=as_json))


@needing("reader")
def _run(
    loaded: Loaded, streams: Sequence[StreamConfig], table: str | None, window: against.Window, *, as_json: bool
) -> int:
    results: dict[str, dict[str, Any]] = {}
    lines, errors, differs = [], [], False
    postgres, nats = loaded.config.postgres, loaded.config.nats
    with connect(postgres, "eventwriter verify") as connection, visiting(nats, "verify") as visitor:
        with translated():
            check_server(connection)
        for stream in streams:
            try:
                with needing("reader"), progress(f"verifying {stream.name}") as tell:
                    found = verify(connection, visitor(stream), stream, tell)
                connection.rollback()
                results[stream.name] = found.as_dict()
                lines.append(shown(stream.name, found))
                differs = differs or bool(found.gaps)
                if table is not None:
                    with needing("reader", "SELECT on both tables"):
                        beside = against.compare(connection, loaded.declared[stream.name], stream.table, table, *window)
                    results[stream.name]["against"] = beside.as_dict()
                    lines.append(against.shown(beside))
                    differs = differs or not beside.same
            except EventWriterError as error:
                connection.rollback()
                errors.append(error)
                results[stream.name] = {"error": str(error)}
                lines.append(f"✗ {stream.name:<14}{error}")
    if as_json:
        options.say(terminal.exact({"ok": not differs and not errors, "streams": results}))
    else:
        options.say("\n".join(lines))
    return max((each.exit_code for each in errors), default=MISSING if differs else OK)
