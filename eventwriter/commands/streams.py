"""`eventwriter streams`: the JetStream streams that messages come from."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import click

from eventwriter.commands import options, streams_new
from eventwriter.commands.settings import Settings
from eventwriter.config import kinds
from eventwriter.config.loading import NatsConfig, StreamConfig
from eventwriter.errors import OK, ConfigurationError, EventWriterError, ForbiddenError, UnavailableError
from eventwriter.jetstream import creation
from eventwriter.jetstream.creation import Wanted
from eventwriter.jetstream.visit import Visit


class Made(NamedTuple):
    """What became of a stream."""

    stream: Wanted
    was_there: bool
    command: str
    """How NATS's own command would make it."""
    error: EventWriterError | None = None
    """Why it could not be created."""


def create(
    settings: NatsConfig, wanted: Sequence[tuple[Wanted, StreamConfig]], *, dry_run: bool, wait: float
) -> list[Made]:
    """Creates those that are missing; with ``dry_run`` none. Each comes with a stream of ours that needs it.

    What one is refused for keeps no other from being created.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            return asyncio.run(_create(settings, wanted, dry_run=dry_run))
        except UnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


async def _create(settings: NatsConfig, wanted: Sequence[tuple[Wanted, StreamConfig]], *, dry_run: bool) -> list[Made]:
    visit, made = Visit(settings, "eventwriter streams"), []
    try:
        await visit.open()
        for stream, config in wanted:
            api, _ = visit.questions(config)
            missing, error = True, None
            try:
                missing = await creation.missing(api, stream.name)
                if missing and not dry_run:
                    missing = await creation.create(api, stream)
            except (ConfigurationError, ForbiddenError) as refused:
                error = refused
            made.append(Made(stream, not missing, stream.command(settings), error))
    finally:
        await visit.close()
    return made


def shown(made: Sequence[Made], *, dry_run: bool, as_json: bool) -> str:
    """What became of them, each with the command of NATS that does the same; or for a program."""
    if as_json:
        return json.dumps({"streams": {each.stream.name: _as_dict(each, dry_run=dry_run) for each in made}})
    lines = []
    for stream, was_there, command, error in made:
        if error is not None:
            lines.append(f"refused  {error}")
        elif was_there:
            lines.append(f"exists   {stream.name}: left as it is")
        else:
            verb = "missing" if dry_run else "created"
            lines += [f"{verb}  {stream.name}: {', '.join(stream.subjects)}", f"         {command}"]
    return "\n".join(lines)


def _as_dict(made: Made, *, dry_run: bool) -> dict[str, Any]:
    created = not (made.was_there or dry_run or made.error)
    found: dict[str, Any] = {"exists": made.was_there or created, "created": created}
    found |= {"error": str(made.error)} if made.error else {}
    return found | {"subjects": [*made.stream.subjects], "command": made.command}


@click.group("streams")
def group() -> None:
    """The JetStream streams that messages come from."""


group.add_command(streams_new.command)


@group.command("create")
@click.option("--stream", "name", help="For this stream of ours alone, such as LOGS; default: all that are enabled.")
@click.option("--dry-run", is_flag=True, help="Say what is missing, and create nothing.")
@click.option("--max-age", metavar="TIME", default="7d", show_default=True, help="How long they hold a message.",
              callback=options.setting(kinds.duration(1.0, 100 * 365 * 86_400.0)))  # fmt: skip
@click.option("--max-bytes", metavar="SIZE", help="How much each holds at most; then the oldest goes, read or not.",
              callback=options.setting(kinds.size(1, 2**62)))  # fmt: skip
@click.option("--replicas", type=click.IntRange(1, 5), default=1, show_default=True, help="On how many servers.")
@click.option("--wait", type=options.Duration(), default="0s", help="Wait so long for NATS to answer.")
@options.output
@click.pass_obj
def _create_command(
    settings: Settings,
    name: str | None,
    dry_run: bool,
    max_age: float,
    max_bytes: int | None,
    replicas: int,
    wait: float,
    as_json: bool,
) -> None:
    """Create the JetStream streams that are missing. One that exists is never touched.

    They hold messages in files for --max-age, with the subjects of all streams of ours that share them. The line of
    NATS's own command that does the same is printed with each.

    \b
        eventwriter streams create --dry-run
        eventwriter streams create --stream LOGS --max-age 3d --replicas 3
    """
    loaded = settings.load()
    enabled = [stream for stream in loaded.config.streams.values() if stream.enabled]
    asked = enabled if name is None else [loaded.stream(name)]
    first = {stream.stream: stream for stream in reversed(asked)}
    wanted = [
        (replace(each, max_age=max_age, max_bytes=max_bytes or -1, replicas=replicas), first[each.name])
        for each in creation.wanted([*asked, *enabled])
        if each.name in first
    ]
    made = create(loaded.config.nats, wanted, dry_run=dry_run, wait=wait)
    options.say(shown(made, dry_run=dry_run, as_json=as_json), "no stream is enabled")
    sys.exit(max((each.error.exit_code for each in made if each.error), default=OK))
