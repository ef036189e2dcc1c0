"""`eventwriter schema`: the tables that rows go to, and eventwriter's own."""

from __future__ import annotations

import sys
from typing import Any

import click

from eventwriter.commands import findings, options, schema_apply, schema_check, schema_roles, schema_version
from eventwriter.commands.settings import Settings
from eventwriter.postgres.errors import needing
from eventwriter.postgres.steps import Wanted


def _interval(context: click.Context, option: click.Parameter, seconds: float | None) -> str:
    """As PostgreSQL reads it; empty if nothing is asked for."""
    if seconds is None:
        return ""
    if seconds < 1:
        raise click.BadParameter("must be a second or more", context, option)
    days, rest = divmod(seconds, 86400)
    return f"{days:.0f} day{'s' * (days > 1)}" if not rest else f"{seconds:.0f} seconds"


_INTERVAL: Any = {"type": options.Duration(), "callback": _interval}


@click.group("schema")
def group() -> None:
    """The tables that rows go to, and eventwriter's own."""


@group.command("sql")
@click.option("--roles", is_flag=True, help="Print roles instead, and what each must be granted.")
@click.pass_obj
def _sql(settings: Settings, roles: bool) -> None:
    """Print the SQL that `schema apply` runs.

    \b
        eventwriter schema sql > tables.sql
        eventwriter schema sql --roles
    """
    if roles:
        for line in schema_roles.roles(*settings.load()):
            options.say_exactly(line)
        return
    for name, text in schema_apply.files(*settings.load()):
        options.say_exactly(f"-- {name}\n{text}")


@group.command("apply")
@click.option("--dry-run", is_flag=True, help="Print the statements that would run, and change nothing.")
@click.option("--only", multiple=True, metavar="NAME", help="Only the table of this stream; may be repeated.")
@click.option("--ledger-only", is_flag=True, help="Only eventwriter's own tables: ledger and dead letters.")
@click.option("--indexes", is_flag=True, help="Build missing indexes also of tables with rows, beside their writers.")
@click.option("--new-keys", is_flag=True, help="Give tables with a key of earlier releases the present one.")
@click.option("--chunk-interval", **_INTERVAL, help="TimescaleDB: the time that a chunk covers.")
@click.option("--compress-after", **_INTERVAL, help="TimescaleDB: compress chunks older than that.")
@click.option("--retention", **_INTERVAL, help="TimescaleDB: drop chunks older than that.")
@click.option("--migrate-data", is_flag=True, help="TimescaleDB: move the rows of large tables into hypertables, too.")
@click.option(
    "--lock-wait", type=options.Duration(), default="30s", show_default=True, help="How long to try for locks."
)
@click.option("--wait", type=options.Duration(), default="0s", help="Wait so long for PostgreSQL to answer.")
@click.pass_obj
def _apply(settings: Settings, /, wait: float, lock_wait: float, **wanted: Any) -> None:
    """Create or extend the tables of all enabled streams. Running it again changes nothing.

    Each table by itself: one that cannot be extended does not keep the others from it, and is named at the end.
    Writers wait for a second at most where it tries for a lock that it cannot have.

    \b
        eventwriter schema apply --dry-run
        eventwriter schema apply --only LOGS --wait 60s
    """
    if wanted["only"] and wanted["ledger_only"]:
        raise click.UsageError("--only and --ledger-only exclude each other")
    for line in schema_apply.apply(*settings.load(), Wanted(**wanted), wait=wait, lock_wait=lock_wait):
        options.say(line)


@group.command("version")
@options.output
@click.pass_obj
@needing("reader")
def _version(settings: Settings, as_json: bool) -> None:
    """Show which version of eventwriter's own tables the database has; exits 78 if `schema apply` is needed.

    \b
        eventwriter schema version
    """
    found = schema_version.read(settings.load().config)
    options.say(schema_version.shown(found, as_json=as_json))
    sys.exit(schema_version.exit_code(found))


@group.command("check")
@options.output
@click.pass_obj
def _check(settings: Settings, as_json: bool) -> None:
    """Compare the live tables with what the streams write.

    \b
        eventwriter schema check
    """
    findings.end_with(schema_check.check(*settings.load()), as_json=as_json)
