"""What commands have in common on the command line: options, and how they print."""

from __future__ import annotations

import sys
from typing import Any

import click

from eventwriter import terminal
from eventwriter.config import units
from eventwriter.config.kind import Kind

output = click.option(
    *("--output", "as_json"),
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
    callback=lambda context, option, value: value == "json",
)
stream = click.option("--stream", "name", required=True, help="The stream, such as LOGS.")


class Duration(click.ParamType[float]):
    """Seconds, written with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            seconds = units.parse_duration(value)
        except ValueError as error:
            self.fail(f"{error}: write 30d, 12h or 30s", param, ctx)
        return seconds


def setting(kind: Kind) -> Any:
    """Has an option read as a setting is."""

    def read(context: click.Context, option: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else kind.parse(kind.from_text(value))
        except ValueError:
            raise click.BadParameter(f"expected {kind.expected}") from None

    return read


def say_exactly(text: str) -> None:
    """Prints what other programs read, as it is; only a terminal gets nothing that it would obey."""
    # With a colour that is asked for click takes no sequences out of it.
    click.echo(terminal.lines(text) if sys.stdout.isatty() else text, color=True)


def say(text: str, nothing: str = "") -> None:
    """Prints, nothing that a terminal would obey; that there is nothing to print is said where it gets into no pipe."""
    if text:
        click.echo(terminal.readable(text))
    elif nothing:
        click.echo(nothing, err=True)
