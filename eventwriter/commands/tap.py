"""`eventwriter tap`: what flows through a stream now, as the rows that it becomes; the durable is not touched."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import click
import orjson

from eventwriter import terminal, viewing
from eventwriter.commands import options
from eventwriter.commands.dlq_selection import moment
from eventwriter.commands.settings import Settings
from eventwriter.config import subjects
from eventwriter.config.loading import StreamConfig
from eventwriter.errors import ConfigurationError, UsageError
from eventwriter.jetstream import holdings
from eventwriter.jetstream.visitor import Visitor, visiting
from eventwriter.stream import Message, Stream

View = Literal["all", "rows", "rejects", "raw"]
_COLOURS = {"row": "green", "reject": "red", "repairs": "yellow"}


def records(stream: Stream, message: Message, view: View, excluded: Callable[[str], bool]) -> Iterator[dict[str, Any]]:
    """What there is to see of a message: each record of it, or the whole as it came."""
    place = {
        "sequence": message.sequence,
        "time": datetime.fromtimestamp(message.time // 1000 / 1e6, UTC).isoformat(timespec="microseconds"),
        "subject": message.subject,
    }
    if view == "raw":
        yield place | {"headers": viewing.headers(message.headers) or None} | viewing.payload(message.payload)
    elif excluded(message.subject):
        if view == "all":
            yield place | {"excluded": True}
    else:
        wanted = {"rows": ("row",), "rejects": ("reject",)}.get(view, tuple(_COLOURS))
        yield from (place | each for each in viewing.records(stream, message) if any(name in each for name in wanted))


def coloured(record: Mapping[str, Any]) -> str:
    """One record for a terminal, which obeys nothing of it: what is NULL is left out."""
    time = record["time"][11:23]
    head = click.style(f"{record['sequence']} {time}Z ", dim=True)
    head += click.style(terminal.one_line(record["subject"]), bold=True)
    kind = next((name for name in _COLOURS if name in record), "")
    if not kind:
        rest = record.get("payload", record.get("payload_base64", "excluded: acknowledged and not written"))
        return f"{head} {terminal.one_line(rest)}"
    values = {name: value for name, value in record[kind].items() if value is not None}
    text = terminal.one_line(orjson.dumps(values, default=str).decode())
    return f"{head} {click.style(kind, fg=_COLOURS[kind])} {text}"


def _first(visitor: Visitor, stream: StreamConfig, since: datetime | timedelta | None) -> int:
    info = visitor.stream_info()
    if since is None:
        return info.last_sequence + 1
    time = datetime.now(UTC) - since if isinstance(since, timedelta) else since
    return visitor.ask(lambda request: holdings.since(request, stream, info, time))


@click.command("tap")
@options.stream
@click.option("--subject", help="Only messages of this subject; * and > stand for tokens.")
@click.option("--rows", "view", flag_value="rows", help="Only what becomes rows.")
@click.option("--rejects", "view", flag_value="rejects", help="Only what becomes dead letters.")
@click.option("--raw", "view", flag_value="raw", help="The messages as they came.")
@click.option("--since", metavar="WHEN", help="Begin with what was received then: an age such as 5m, or a time.")
@click.option("--limit", type=click.IntRange(1), help="End after so many lines.")
@options.output
@click.pass_obj
def command(
    settings: Settings, name: str, subject: str | None, view: View | None, since: str | None, limit: int | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show what flows through a stream now, as the rows and dead letters that it becomes, until Ctrl-C.

    Read by a consumer of its own, which the server forgets soon afterwards; nothing is acknowledged, written or kept
    from the service. In a terminal with colours, elsewhere a line of JSON for each record.

    \b
        eventwriter tap --stream LOGS
        eventwriter tap --stream EVENTS --subject 'events.syslog.>' --rejects --since 1h
        eventwriter tap --stream LOGS --since 5m --limit 100 | jq .row.body
    """
    if subject is not None and (why := subjects.invalid(subject)):
        raise UsageError(f"--subject {subject}: {why}")
    when = moment(since, "--since") if since else None
    loaded = settings.load()
    stream, config = loaded.decoding(name), loaded.stream(name)
    show = _json if as_json or not sys.stdout.isatty() else coloured
    excluded = subjects.matcher(config.exclude)
    with visiting(loaded.config.nats, "tap") as visit, suppress(KeyboardInterrupt):
        visitor = visit(config)
        tap = visitor.tap([subject] if subject else config.subjects)
        messages = tap.messages(_first(visitor, config, when))
        shown = 0
        while limit is None or shown < limit:
            lines = [
                show(record)
                for message in _next(visitor, messages, config)
                for record in records(stream, message, view or "all", excluded)
            ][: None if limit is None else limit - shown]
            shown += len(lines)
            if lines:
                click.echo("\n".join(lines))


def _json(record: Mapping[str, Any]) -> str:
    return viewing.to_line(record).decode()


def _next(visitor: Visitor, messages: Any, config: StreamConfig) -> list[Message]:
    try:
        found: list[Message] = visitor.run(anext(messages))
        return found
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}: a work-queue stream allows none beside {config.durable}; of any other, see its limits"
        ) from None
