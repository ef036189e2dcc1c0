"""What commands have in common on the command line: options, and how they print."""

from __future__ import annotations

import re
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


class _Text(click.types.StringParamType):
    """Text; bytes that are none in the encoding of the locale, of which Python makes half surrogate pairs, are not."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        text = super().convert(value, param, ctx)
        if not text.isprintable() and re.search("[\ud800-\udfff]", text):
            self.fail(f"{terminal.one_line(text)} is no text in the encoding of this terminal", param, ctx)
        return text


def texts(command: click.Command) -> None:
    """Has all options and arguments of a command, and of those in it, that take a text take nothing else."""
    for parameter in command.params:
        if parameter.type is click.STRING:
            parameter.type = _Text()
    for each in command.commands.values() if isinstance(command, click.Group) else ():
        texts(each)


def say_exactly(text: str) -> None:
    """Prints what other programs read, as it is; only a terminal gets nothing that it would obey."""
    # With a colour that is asked for click takes no sequences out of it.
    _print(terminal.lines(text) if sys.stdout.isatty() else text, color=True)


def say(text: str, nothing: str = "") -> None:
    """Prints, nothing that a terminal would obey; that there is nothing to print is said where it gets into no pipe."""
    if text:
        _print(terminal.readable(text))
    elif nothing:
        tell(nothing)


def tell(text: str) -> None:
    """Says something beside what is printed."""
    _print(text, err=True)


def _print(text: str, *, err: bool = False, color: bool | None = None) -> None:
    """Prints it if somebody reads; otherwise the command goes on all the same, and ends with its own status."""
    try:
        click.echo(text, err=err, color=color)
    except BrokenPipeError:
        terminal.let_go()
