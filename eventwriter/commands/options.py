"""What commands have in common on the command line: options, and how they print."""

from __future__ import annotations

import click

from eventwriter.commands import terminal

output = click.option(
    *("--output", "as_json"),
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="How to print.",
    callback=lambda context, option, value: value == "json",
)
stream = click.option("--stream", "name", required=True, help="The stream, such as LOGS.")


def say(text: str, nothing: str = "") -> None:
    """Prints, nothing that a terminal would obey; that there is nothing to print is said where it gets into no pipe."""
    if text:
        click.echo(terminal.readable(text))
    elif nothing:
        click.echo(nothing, err=True)
