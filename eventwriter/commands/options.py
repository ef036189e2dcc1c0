"""What commands have in common on the command line: options, and how they print."""

from __future__ import annotations

import sys

import click

from eventwriter import terminal

output = click.option(
    *("--output", "as_json"),
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
    callback=lambda context, option, value: value == "json",
)
stream = click.option("--stream", "name", required=True, help="The stream, such as LOGS.")


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
