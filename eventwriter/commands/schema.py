"""`eventwriter schema`: the tables that rows go to, and eventwriter's own."""

from __future__ import annotations

import click

from eventwriter.commands import findings, options, schema_apply, schema_check
from eventwriter.commands.settings import Settings


@click.group("schema")
def group() -> None:
    """The tables that rows go to, and eventwriter's own."""


@group.command("sql")
@click.pass_obj
def _sql(settings: Settings) -> None:
    """Print the SQL that `schema apply` runs."""
    for name, text in schema_apply.files(*settings.load()):
        click.echo(f"-- {name}\n{text}")


@group.command("apply")
@click.option("--wait", "seconds", type=float, default=0.0, help="Wait this many seconds for PostgreSQL to answer.")
@click.option("--new-keys", is_flag=True, help="Give tables with a key of earlier releases the present one.")
@click.pass_obj
def _apply(settings: Settings, seconds: float, new_keys: bool) -> None:
    """Create or extend the tables of all enabled streams. Running it again changes nothing."""
    for line in schema_apply.apply(*settings.load(), wait=seconds, new_keys=new_keys):
        click.echo(line)


@group.command("check")
@options.output
@click.pass_obj
def _check(settings: Settings, as_json: bool) -> None:
    """Compare the live tables with what the streams write."""
    findings.end_with(schema_check.check(*settings.load()), as_json=as_json)
