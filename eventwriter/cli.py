"""The command line. Thin: a command reads the settings, makes one call, and prints; errors end in one line."""

from __future__ import annotations

import io
import os
import sys
import traceback
from pathlib import Path
from typing import IO, Any, NoReturn

import click

from eventwriter import __version__, errors, masking, service, terminal, worker
from eventwriter.commands import (
    bookkeeping,
    configuring,
    dlq,
    options,
    replay,
    running,
    schema,
    status_table,
    streams,
    tap,
    verify,
)
from eventwriter.commands import check as checking
from eventwriter.commands import decode as decoding
from eventwriter.commands.by_task import ByTask
from eventwriter.commands.settings import Settings, declared
from eventwriter.observability import logs
from eventwriter.processes import output, process, room


@click.group(cls=ByTask, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="Default: info.")
@click.option("--log-format", type=click.Choice(["auto", "text", "json"]), help="Default: text on a terminal.")
@click.pass_context
def cli(
    context: click.Context,
    file: Path | None,
    nats_url: str | None,
    postgres_dsn: str | None,
    log_level: str | None,
    log_format: str | None,
) -> None:
    """Moves messages from NATS JetStream into PostgreSQL / TimescaleDB tables, every message exactly once.

    Without any settings it connects to NATS and PostgreSQL on this machine and serves its seven streams:

    \b
        eventwriter streams create   create the JetStream streams that are missing
        eventwriter schema apply     create the tables
        eventwriter check            say what each stream would do
        eventwriter supervise        do it
    """
    logs.configure()
    flags = {"nats.url": nats_url, "postgres.dsn": postgres_dsn, "log.level": log_level, "log.format": log_format}
    context.obj = Settings(file, {key: value for key, value in flags.items() if value is not None})


@cli.command()
@click.pass_obj
def supervise(settings: Settings) -> None:
    """Run the service: one process per enabled stream, restarted when it dies.

    SIGTERM or SIGINT drains all workers and ends with status 0; a second one ends at once. A changed configuration
    file, or SIGHUP, restarts only the workers whose settings changed; a wrong one changes nothing.

    \b
        eventwriter --config /etc/eventwriter.toml supervise
    """
    sys.exit(service.supervise(settings.load, settings.file, os.environ))


@cli.command("worker")
@click.option("--stream", "name", required=True, help="The stream to write, such as LOGS.")
@click.pass_obj
def worker_command(settings: Settings, name: str) -> None:
    """Run the worker of one stream in the foreground.

    \b
        eventwriter worker --stream LOGS
    """
    config, streams = settings.load()
    sys.exit(worker.run(config, declared(streams, name)))


@cli.command()
@click.option("--offline", is_flag=True, help="Look at the settings alone, and ask nobody.")
@options.output
@click.pass_obj
def check(settings: Settings, offline: bool, as_json: bool) -> None:
    """Look at everything and change nothing: settings, NATS, streams, consumers, PostgreSQL, tables.

    Each finding says what is wrong and what to do. It takes a few seconds, and 10 at most, whatever is wrong.

    \b
        eventwriter check
        eventwriter --config eventwriter.toml check --offline
    """
    checking.end_with(settings, offline=offline, as_json=as_json)


@cli.command("status")
@click.option("--url", help="Where the service answers; default: http.listen of the settings.")
@click.option("--watch", is_flag=True, help="Again every second, until Ctrl-C.")
@options.output
@click.pass_obj
def status_command(settings: Settings, url: str | None, watch: bool, as_json: bool) -> None:
    """Show what a running service does: each stream's state, rate, lag, latency, dead letters and restarts.

    Exits 0 if every stream is being written, 69 if one is not or if no service answers.

    \b
        eventwriter status --watch
        eventwriter status --url http://10.0.0.7:9465 --output json
    """
    service = running.Service.of(settings.load().config.http, url)
    if watch:
        status_table.watch(service, as_json=as_json)
    else:
        sys.exit(status_table.show(service, as_json=as_json))


@cli.command(epilog=decoding.EXAMPLES)
@click.option("--stream", "name", required=True, help="The stream whose decoder to use.")
@click.option("--subject", help="Subject of the messages; default: one that the stream's filter matches.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A NATS header; may be repeated.")
@click.option("--base64", "form", flag_value="base64", help="Each file is one payload in base64.")
@click.option("--hex", "form", flag_value="hex", help="Each file is one payload in hexadecimal.")
@click.option("--lines", "form", flag_value="lines", help="Each line of a file is one payload (JSON lines).")
@click.option("--raw", "form", flag_value="raw", default=True, help="Each file is one payload as it is (the default).")
@click.option("--time", "received", help="When JetStream received the messages, RFC 3339; default: now.")
@click.argument("files", type=click.File("rb"), nargs=-1)
@click.pass_obj
def decode(
    settings: Settings,
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
    stream, read = settings.decoding(name), files or (sys.stdin.buffer,)
    options: dict[str, Any] = {"form": form, "subject": subject, "headers": headers, "received": received}
    sys.exit(decoding.run(stream, read, click.echo, **options))


cli.add_command(configuring.group)
cli.add_command(dlq.group)
cli.add_command(schema.group)
cli.add_command(streams.group)
cli.add_command(bookkeeping.group)
cli.add_command(replay.command)
cli.add_command(tap.command)
cli.add_command(verify.command)
options.texts(cli)


def main() -> NoReturn:
    """Runs a command; every error that is not a bug ends in one line and its exit code."""
    process.settle()
    stdout = sys.stdout
    try:
        status = cli.main(standalone_mode=False)
    except click.UsageError as error:
        said = io.StringIO()
        error.show(said)
        options.tell(terminal.lines(said.getvalue().removesuffix("\n")))
        sys.exit(errors.USAGE)
    except click.ClickException as error:
        options.tell(f"eventwriter: {terminal.lines(error.format_message())}")
        sys.exit(errors.USAGE)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except SystemExit as ended:
        # What is printed for nobody click, which replaces standard output then, and rich would end with 1.
        if isinstance(ended.__context__, BrokenPipeError) or (sys.stdout is not stdout and terminal.let_go()):
            sys.exit(errors.OK)
        raise
    except errors.EventWriterError as error:
        options.tell(f"eventwriter: {terminal.lines(str(error))}")
        sys.exit(error.exit_code)
    except Exception as error:  # noqa: BLE001 - a bug: whoever reports it needs all that is known
        if told := room.explained(error) or output.explained(error):
            options.tell(f"eventwriter: {told}")
            sys.exit(errors.UNAVAILABLE)
        options.tell(f"eventwriter: internal error\n{masking.text(traceback.format_exc()).removesuffix(chr(10))}")
        sys.exit(errors.INTERNAL)
    sys.exit(status if isinstance(status, int) else errors.OK)
