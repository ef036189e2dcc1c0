"""The commands. Thin: each reads the settings, calls one thing, and turns errors into one line and an exit code."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from eventwriter import __version__, errors, registry, values, worker
from eventwriter.commands import admin, bookkeeping, dlq, go_import, status_table
from eventwriter.commands import decode as decoding
from eventwriter.config import loading, units
from eventwriter.jetstream.turn import Turns
from eventwriter.observability import logs, monitor, report
from eventwriter.observability.board import SUPERVISOR, Board
from eventwriter.observability.children import Children
from eventwriter.processes.supervisor import Child, Supervisor
from eventwriter.processes.systemd import Notifier, Watched
from eventwriter.stream import Message, Stream

log = logging.getLogger("eventwriter.supervisor")

EXAMPLES = """\b
Examples, one per encoding:
  eventwriter decode --stream LOGS --lines app.jsonl              JSON lines
  eventwriter decode --stream TELEMETRY metric.json               a JSON object or array
  eventwriter decode --stream EVENTS event.json                   a CloudEvent, structured or a batch
  eventwriter decode --stream EVENTS --header ce-specversion=1.0 --header ce-id=1 \\
      --header ce-source=/a --header ce-type=t data.json          a CloudEvent in binary mode
  eventwriter decode --stream LOGS --subject logs.syslog gelf.json  GELF
  eventwriter decode --stream OTEL_TRACES --base64 request.b64    OTLP protobuf
  eventwriter decode --stream OTEL_METRICS request.json           OTLP/JSON
  eventwriter decode --stream NETFLOW --hex flow.hex              FlowMessage protobuf
  eventwriter decode --stream SWEEP summary.json.gz               gzip, of any of them
"""

_output = click.option(
    "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print."
)


class _Settings:
    """Reads the settings when a command needs them."""

    def __init__(self, file: Path | None, flags: Mapping[str, object]) -> None:
        self.file = file
        self.flags = flags

    def load(
        self, extra: Mapping[str, object] | None = None
    ) -> tuple[loading.Config, Mapping[str, str], dict[str, Stream]]:
        """The effective settings, where each came from, and the streams that exist."""
        declared = registry.load()
        flags = {**self.flags, **(extra or {})}
        settings, origins = loading.load_with_origins(declared, file=self.file, environ=os.environ, flags=flags)
        return settings, origins, declared


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="eventwriter")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="EVENTWRITER_CONFIG",
    help="TOML file with settings (or EVENTWRITER_CONFIG).",
)
@click.option("--nats-url", help="NATS servers, comma separated (or EVENTWRITER_NATS__URL, NATS_URL).")
@click.option("--postgres-dsn", help="PostgreSQL connection string (or EVENTWRITER_POSTGRES__DSN, PG*).")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    envvar="EVENTWRITER_LOG_LEVEL",
    show_default=True,
)
@click.pass_context
def cli(
    context: click.Context, file: Path | None, nats_url: str | None, postgres_dsn: str | None, log_level: str
) -> None:
    """Moves messages from NATS JetStream into PostgreSQL / TimescaleDB tables, every message exactly once.

    Without any settings it connects to NATS and PostgreSQL on this machine and serves its seven streams:

    \b
        eventwriter schema apply     create the tables
        eventwriter check            say what each stream would do
        eventwriter supervise        do it
    """
    logs.configure(log_level)
    flags = {"nats.url": nats_url, "postgres.dsn": postgres_dsn}
    context.obj = _Settings(file, {key: value for key, value in flags.items() if value is not None})


@cli.command()
@click.pass_obj
def supervise(settings: _Settings) -> None:
    """Run the service: one process per enabled stream, restarted when it dies.

    SIGTERM or SIGINT drains all workers and ends with status 0; a second one ends at once. A changed configuration
    file, or SIGHUP, restarts only the workers whose settings changed; a wrong one changes nothing.
    """
    current, _, declared = settings.load()
    watched = Watched(settings.file)
    notifier = Notifier(os.environ)

    board, turns = Board(), Turns()
    children = Children(board.slot(SUPERVISOR))

    def tick() -> bool:
        notifier.send("WATCHDOG=1")
        children.kill_stalled(board)
        return watched.changed()

    def reload() -> list[Child] | None:
        try:
            changed, _, streams = settings.load()
            return _children(changed, streams, board, turns, children)
        except errors.EventWriterError as error:
            log.error("the configuration is wrong, everything stays as it is: %s", error)
            return None

    gc.collect()
    gc.freeze()  # the workers share these pages as long as no collection touches them
    supervisor = Supervisor(
        _children(current, declared, board, turns, children),
        drain_timeout=_drain_timeout(current),
        restart_maximum=10.0,
        on_reload=reload,
        on_tick=tick,
        tick=min(1.0, notifier.period or 1.0),
        on_state=notifier.send,
        observer=children,
    )
    sys.exit(supervisor.run())


def _drain_timeout(current: loading.Config) -> float:
    # The worker's own deadline comes first, so that it can still say what it left behind.
    return max([stream.writer.drain_timeout for stream in current.streams.values()], default=25.0) + 3.0


def _children(
    current: loading.Config, declared: Mapping[str, Stream], board: Board, turns: Turns, noted: Children
) -> list[Child]:
    children = []
    stall_timeouts = {}
    for name, stream in current.streams.items():
        if stream.enabled:
            board.slot(monitor.history_name(name))
        for number in range(1, stream.processes + 1 if stream.enabled else 1):
            title = name if stream.processes == 1 else f"{name}/{number}"
            stall_timeouts[title] = stream.writer.stall_timeout
            slot = board.slot(title)
            turn = turns.of(name) if stream.processes > 1 else None
            run = partial(worker.run, current, declared[name], supervised=True, name=title, slot=slot, turn=turn)
            passing = partial(report.passing, slot)
            children.append(Child(title, run, (current.nats, current.postgres, stream), passing=passing))
    if not children:
        raise errors.ConfigurationError("no stream is enabled: set streams.<NAME>.enabled = true for at least one")
    serve = partial(monitor.run, board, current, board.slot(monitor.NAME))
    children.append(Child(monitor.NAME, serve, current, essential=False))
    noted.stall_timeouts = {**stall_timeouts, monitor.NAME: monitor.HUNG}
    return children


@cli.command("worker")
@click.option("--stream", "name", required=True, help="The stream to write, such as LOGS.")
@click.pass_obj
def worker_command(settings: _Settings, name: str) -> None:
    """Run the worker of one stream in the foreground."""
    current, _, declared = settings.load()
    sys.exit(worker.run(current, _declared(declared, name)))


def _declared(declared: Mapping[str, Stream], name: str) -> Stream:
    if name.upper() not in declared:
        raise errors.UsageError(f"there is no stream {name}; the streams are {', '.join(declared)}")
    return declared[name.upper()]


@cli.command()
@_output
@click.pass_obj
def check(settings: _Settings, output: str) -> None:
    """Look at everything and change nothing: settings, NATS, streams, consumers, PostgreSQL, tables."""
    current, _, declared = settings.load()
    findings = admin.check(current, declared)
    if output == "json":
        click.echo(json.dumps({"ok": all(f.ok for f in findings), "findings": [f.as_dict() for f in findings]}))
    else:
        for finding in findings:
            click.echo(f"{finding.mark} {finding.subject:<14}{finding.text}")
    sys.exit(max((finding.exit_code for finding in findings), default=errors.OK))


@cli.command("status")
@click.option("--url", help="Where the service answers; default: http.listen of the settings.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@_output
@click.pass_obj
def status_command(settings: _Settings, url: str | None, watch: bool, output: str) -> None:
    """Show what a running service does: each stream's state, rate, lag, latency, dead letters and restarts.

    Exits 0 if every stream is being written, 69 if one is not or if no service answers.
    """
    if url is None:
        host, port = settings.load()[0].http.address
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if watch:
        status_table.watch(url, as_json=output == "json")
        return
    document = status_table.fetch(url)
    if output == "json":
        click.echo(json.dumps(document))
    else:
        status_table.show(document)
    sys.exit(errors.OK if document["ready"] else errors.UNAVAILABLE)


@cli.group()
def schema() -> None:
    """The tables that rows go to, and eventwriter's own."""


@schema.command("sql")
@click.pass_obj
def schema_sql(settings: _Settings) -> None:
    """Print the SQL that `schema apply` runs."""
    current, _, declared = settings.load()
    for name, text in admin.schema_sql(current, declared):
        click.echo(f"-- {name}\n{text}")


@schema.command("apply")
@click.option("--wait", "seconds", type=float, default=0.0, help="Wait this many seconds for PostgreSQL to answer.")
@click.pass_obj
def schema_apply(settings: _Settings, seconds: float) -> None:
    """Create or extend the tables of all enabled streams. Running it again changes nothing."""
    current, _, declared = settings.load()
    for line in admin.schema_apply(current, declared, wait=seconds):
        click.echo(line)


@schema.command("check")
@_output
@click.pass_obj
def schema_check(settings: _Settings, output: str) -> None:
    """Compare the live tables with what the streams write."""
    current, _, declared = settings.load()
    findings = admin.schema_check(current, declared)
    if output == "json":
        click.echo(json.dumps({"ok": all(f.ok for f in findings), "findings": [f.as_dict() for f in findings]}))
    else:
        for finding in findings:
            click.echo(f"{finding.mark} {finding.subject:<14}{finding.text}")
    sys.exit(max((finding.exit_code for finding in findings), default=errors.OK))


@cli.command(epilog=EXAMPLES)
@click.option("--stream", "name", required=True, help="The stream whose decoder to use.")
@click.option("--subject", help="Subject of the messages; default: one that the stream's filter matches.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A NATS header; may be repeated.")
@click.option("--base64", "form", flag_value="base64", help="Each file is one payload in base64.")
@click.option("--hex", "form", flag_value="hex", help="Each file is one payload in hexadecimal.")
@click.option("--lines", "form", flag_value="lines", help="Each line of a file is one payload (JSON lines).")
@click.option("--raw", "form", flag_value="raw", default=True, help="Each file is one payload as it is (the default).")
@click.option("--time", "received", help="When JetStream received the messages, RFC 3339; default: now.")
@click.argument("files", type=click.File("rb"), nargs=-1)
def decode(
    name: str,
    subject: str | None,
    headers: tuple[str, ...],
    form: decoding.Form,
    received: str | None,
    files: tuple[IO[bytes], ...],
) -> None:
    """Show what would become of payloads: a dry run without NATS and PostgreSQL.

    Reads FILES, or standard input, and prints a line of JSON for each record: {"row": {column: value}} or
    {"reject": {"reason", "detail", "record_index"}}. Exits 65 if anything was rejected.
    """
    stream = _declared(registry.load(), name)
    try:
        micros = values.time_from_text(received) if received else int(time.time() * 1e6) - values.EPOCH
    except values.Unfit as error:
        raise errors.UsageError(f"--time: {error}") from None
    nanos = (micros + values.EPOCH) * 1000
    parsed = dict(decoding.header(text) for text in headers) or None
    rejected = False
    sequence = 0
    inputs: Sequence[IO[bytes]] = files or (sys.stdin.buffer,)
    for file in inputs:
        for payload in decoding.payloads(file.read(), form):
            sequence += 1
            message = Message(subject or decoding.default_subject(stream), payload, sequence, nanos, parsed)
            for record in decoding.decode(stream, message):
                rejected = rejected or "reject" in record
                click.echo(decoding.to_line(record))
    sys.exit(errors.BAD_DATA if rejected else errors.OK)


@cli.group("dlq")
def dlq_group() -> None:
    """The dead letters: what could not become a row, and why."""


@dlq_group.command("list")
@click.option("--stream", help="Only of this stream.")
@click.option("--reason", help="Only with this reason, such as malformed.")
@click.option("--limit", default=50, show_default=True, help="At most so many, the latest first.")
@_output
@click.pass_obj
def dlq_list(settings: _Settings, stream: str | None, reason: str | None, limit: int, output: str) -> None:
    """List the latest dead letters, one line for each record that was rejected."""
    current, _, declared = settings.load()
    name = None if stream is None else _declared(declared, stream).name
    letters = dlq.find(current.postgres, stream=name, reason=reason, limit=limit)
    if output == "json":
        click.echo(json.dumps(letters))
        return
    for letter in letters:
        index = "" if letter["record_index"] is None else f"[{letter['record_index']}]"
        code = f" {letter['sqlstate']}" if letter["sqlstate"] else ""
        place = f"{letter['logical_stream']} {letter['sequence']}{index}"
        click.echo(
            f"{letter['id']:>8}  {place:<24} {letter['reason']}{code}: {letter['detail']}  ({letter['subject']})"
        )
    if not letters:
        click.echo("no dead letters", err=True)


@dlq_group.command("show")
@click.argument("number", type=int)
@click.pass_obj
def dlq_show(settings: _Settings, number: int) -> None:
    """Print one dead letter as JSON, with its payload."""
    click.echo(json.dumps(dlq.show(settings.load()[0].postgres, number), indent=2, ensure_ascii=False))


@dlq_group.command("purge")
@click.option("--stream", help="Only of this stream.")
@click.option("--reason", help="Only with this reason.")
@click.option("--older-than", default="0s", show_default=True, help="Only those older than this, such as 30m or 12h.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def dlq_purge(settings: _Settings, stream: str | None, reason: str | None, older_than: str, yes: bool) -> None:
    """Remove dead letters for good."""
    current, _, declared = settings.load()
    name = None if stream is None else _declared(declared, stream).name
    try:
        age = units.parse_duration(older_than)
    except ValueError as error:
        raise errors.UsageError(f"--older-than {older_than}: {error}") from None
    if not yes:
        click.confirm(f"Remove dead letters of {name or 'all streams'} for good?", abort=True)
    removed = dlq.purge(current.postgres, stream=name, reason=reason, older_than=age)
    click.echo(f"removed {removed} dead letters")


@cli.group("ledger")
def ledger_group() -> None:
    """The ledger: which messages are done."""


@ledger_group.command("accept")
@click.option("--stream", "name", required=True, help="The stream, such as LOGS.")
@_output
@click.pass_obj
def ledger_accept(settings: _Settings, name: str, output: str) -> None:
    """Take note of messages that are missing and gone from the stream, so that nobody is told of them any more.

    \b
        eventwriter ledger accept --stream LOGS
    """
    current, _, declared = settings.load()
    found = bookkeeping.accept(current.postgres, current.streams[_declared(declared, name).name])
    if output == "json":
        click.echo(json.dumps([[loss.first, loss.last] for loss in found]))
        return
    for loss in found:
        click.echo(f"accepted: {loss}")
    if not found:
        click.echo("nothing is missing", err=True)


@ledger_group.command("copy")
@click.option("--stream", "name", required=True, help="The stream, such as LOGS.")
@click.option("--from", "old", required=True, help="The durable whose ledger to go on with.")
@click.option("--to", "new", required=True, help="The durable that shall go on with it.")
@click.option(
    "--through",
    type=click.IntRange(0),
    help="Only up to this sequence: the last that a restored stream has in common with the ledger.",
)
@click.pass_obj
def ledger_copy(settings: _Settings, name: str, old: str, new: str, through: int | None) -> None:
    """Let another durable go on with a ledger, so that nothing is written twice; the old one writes nothing any more.

    streams.NAME.continues does the same when the new durable begins. With --through for a JetStream stream that was
    restored to an earlier state, where sequences beyond that one hold other messages than the ledger knows.

    \b
        eventwriter ledger copy --stream LOGS --from eventwriter-logs --to logs-2
    """
    current, _, declared = settings.load()
    bookkeeping.copy(current.postgres, current.streams[_declared(declared, name).name], old, new, through)
    click.echo(f"durable {new} knows what {old} knows" + ("" if through is None else f" up to sequence {through}"))


@cli.command()
@click.option("--stream", "name", required=True, help="The stream, such as LOGS.")
@click.option(
    "--from-seq", "first", type=click.IntRange(1), default=1, show_default=True, help="From this sequence on."
)
@click.pass_obj
def replay(settings: _Settings, name: str, first: int) -> None:
    """Have the past written: what the stream still holds and the ledger lacks, also from before there was a ledger.

    The running service does it within seconds, beside what arrives; messages_reread_total counts. What the ledger
    knows is not written again.

    \b
        eventwriter replay --stream LOGS --from-seq 120000
    """
    current, _, declared = settings.load()
    bookkeeping.replay(current.postgres, current.streams[_declared(declared, name).name], first)
    click.echo(f"the service writes what {name.upper()} holds from sequence {first} on and the ledger lacks")


@cli.group("config")
def config_group() -> None:
    """The settings."""


@config_group.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@_output
@click.pass_obj
def config_show(settings: _Settings, origin: bool, output: str) -> None:
    """Print the effective settings, secrets masked."""
    current, origins, _ = settings.load()
    if output == "json":
        shown: dict[str, Any] = {"settings": loading.as_dict(current)}
        if origin:
            shown["origins"] = dict(origins)
        click.echo(json.dumps(shown))
    else:
        click.echo(loading.render(current, origins if origin else None), nl=False)


@config_group.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
def config_import(file: Any) -> None:
    """Turn the JSON configuration of the Go db-event-writer into ours; notes go to standard error."""
    text, notes = go_import.convert(file.read())
    click.echo(text, nl=False)
    for note in notes:
        click.echo(f"note: {note}", err=True)


def main() -> NoReturn:
    """Runs a command; every error that is not a bug ends in one line and its exit code."""
    try:
        status = cli.main(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(errors.USAGE)
    except click.ClickException as error:
        click.echo(f"eventwriter: {error.format_message()}", err=True)
        sys.exit(errors.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(errors.OK)
    except errors.EventWriterError as error:
        click.echo(f"eventwriter: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(status if isinstance(status, int) else errors.OK)
