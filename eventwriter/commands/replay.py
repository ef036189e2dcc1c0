"""`eventwriter replay`: writes what a stream still holds and the ledger lacks, at once, while the service runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import click

from eventwriter import replaying, terminal
from eventwriter.commands import options
from eventwriter.commands.dlq_selection import moment
from eventwriter.commands.progress import INTERRUPTED, Tell, progress
from eventwriter.commands.settings import Settings, declared
from eventwriter.commands.verify import Verified, gap_text, verify
from eventwriter.config.loading import StreamConfig
from eventwriter.errors import MISSING, OK, UsageError
from eventwriter.jetstream import holdings
from eventwriter.jetstream.visitor import Visitor, visiting
from eventwriter.postgres import looking
from eventwriter.postgres.errors import needing
from eventwriter.replaying import Replay

_SHOWN = 20
"""Gaps that are shown to a person; a program gets all of them."""


def _first(
    replay: Replay, visitor: Visitor, stream: StreamConfig, first: int | None, since: datetime | timedelta | None
) -> int:
    """The first sequence that shall be the ledger's business, if it is not anyway; UsageError beyond the stream's end
    where there is no ledger: a new one would begin there, and leave out all that the stream holds. A consumer that is
    there already goes on where it is."""
    info, begin = visitor.stream_info(), first or 1
    if since is not None:
        time = datetime.now(UTC) - since if isinstance(since, timedelta) else since
        begin = visitor.ask(lambda request: holdings.since(request, stream, info, time))
    if begin > max(info.last_sequence, 1) and (first or not visitor.consumer_info()) and _is_new(replay):
        given = f"--from-seq {first}" if first else "--since: no message is as late"
        raise UsageError(f"{given}: the last sequence of stream {info.name} is {info.last_sequence}")
    return begin


def _is_new(replay: Replay) -> bool:
    """Whether it would make the ledger."""
    with replay.sink.session.connection() as connection:
        return looking.look_up(connection, replay.identity).row is None


def _verified(replay: Replay, visitor: Visitor, stream: StreamConfig, tell: Tell) -> Verified:
    with replay.sink.session.connection() as connection:
        return verify(connection, visitor, stream, tell, letters=False)


def _document(name: str, before: Verified, after: Verified, *, interrupted: bool) -> str:
    """For a program."""
    return terminal.exact({
        "ok": not after.gaps,
        "stream": name,
        "missing": before.missing,
        "written": before.missing - after.missing,
        "left": after.missing,
        "interrupted": interrupted,
        "gaps": [[gap.first, gap.last] for gap in before.gaps],
    })  # fmt: skip


def _text(name: str, before: Verified, after: Verified) -> str:
    """For a person."""
    if not before.gaps:
        return f"{name}: nothing is missing of {before.checked} messages"
    lines = [f"{name}: {before.missing - after.missing} of {before.missing} missing messages are written"]
    lines += [f"    {gap_text(gap)}" for gap in before.gaps[:_SHOWN]]
    lines += [f"    … and {len(before.gaps) - _SHOWN} more gaps"] if len(before.gaps) > _SHOWN else []
    return "\n".join(lines)


@click.command("replay")
@options.stream
@click.option("--from-seq", "first", type=click.IntRange(1), help="From this sequence on; default: the first.")
@click.option("--since", metavar="WHEN", help="The same by when it was received: an age such as 2h or 7d, or a time.")
@options.output
@click.pass_obj
@needing("writer")
def command(settings: Settings, name: str, first: int | None, since: str | None, as_json: bool) -> None:
    """Write what the stream still holds and the ledger lacks, also from before there was a ledger.

    By the ordinary transaction, beside the running service or without it; the durable is not touched, and what the
    ledger knows is not written again. --from-seq and --since leave alone what is older and from before the ledger. What
    was written stays so when this is interrupted: begin it again. Exits 1 if something is missing still.

    \b
        eventwriter replay --stream LOGS
        eventwriter replay --stream LOGS --from-seq 120000
        eventwriter replay --stream LOGS --since 2026-05-03T09:20:00Z
    """
    if first is not None and since is not None:
        raise UsageError("--from-seq and --since say the same: leave one of them out")
    when = moment(since, "--since") if since else None
    loaded = settings.load()
    stream = loaded.stream(name)
    ended = True
    opened = replaying.opened(loaded.config, stream, declared(loaded.declared, name))
    with visiting(loaded.config.nats, "replay") as visit, opened as replay:
        visitor = visit(stream)
        replay.begin(_first(replay, visitor, stream, first, when))
        with progress("looking for what is missing") as tell:
            before = after = _verified(replay, visitor, stream, tell)
        if before.gaps:
            with progress("replaying") as tell:
                ended = replay.run([(gap.first, gap.last) for gap in before.gaps], tell)
            with progress("looking for what is missing still") as tell:
                after = _verified(replay, visitor, stream, tell)
    told = (
        _document(stream.name, before, after, interrupted=replay.interrupted)
        if as_json
        else _text(stream.name, before, after)
    )
    options.say(told)
    if replay.interrupted:
        options.tell("interrupted: what is written stays so; begin it again for the rest")
        sys.exit(INTERRUPTED)
    sys.exit(OK if ended and not after.gaps else MISSING)
