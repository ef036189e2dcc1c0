"""`eventwriter config`: the settings as they are, and what becomes of those of other writers."""

from __future__ import annotations

from typing import IO

import click

from eventwriter import terminal
from eventwriter.commands import go_import, options
from eventwriter.commands.settings import Settings
from eventwriter.errors import ConfigurationError


@click.group("config")
def group() -> None:
    """The settings."""


@group.command("show")
@click.option("--origin", is_flag=True, help="Say where each value comes from.")
@options.output
@click.pass_obj
def _show(settings: Settings, origin: bool, as_json: bool) -> None:
    """Print the effective settings, secrets masked.

    \b
        eventwriter config show --origin
    """
    options.say(settings.shown(origins=origin, as_json=as_json))


@group.command("import")
@click.argument("file", type=click.File("rb"))
@click.option(
    *("--env", "environments"),
    type=click.File("rb"),
    multiple=True,
    help="A file with the environment that the writer runs with: lines of NAME=VALUE, compose, a manifest.",
)
@click.pass_obj
def _import(settings: Settings, file: IO[bytes], environments: tuple[IO[bytes], ...]) -> None:
    """Turn the configuration of the Go db-event-writer, or of the Elixir writer, into ours.

    FILE is the JSON of the Go writer; or YAML with it, such as a ConfigMap or the values of helm; or the environment of
    the Elixir writer (EVENT_WRITER_…), as lines of NAME=VALUE or within a manifest or compose file. What has no
    counterpart is a comment in the result, and a note on standard error.

    \b
        eventwriter config import db-event-writer.json --env compose.yaml > eventwriter.toml
    """
    text, notes = go_import.convert(_read(file), [*map(_read, environments)], settings.streams())
    click.echo(text, nl=False)
    for note in notes:
        options.tell(f"note: {terminal.one_line(note)}")


def _read(file: IO[bytes]) -> str:
    try:
        return file.read().decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file.name} is not UTF-8: {error.reason} at byte {error.start}") from None
