"""`eventwriter dlq`: the dead letters, for people: list and look at them, replay, remove, and keep them in a file."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import IO, Any

import click

from eventwriter import terminal
from eventwriter.commands import (
    dlq_fates,
    dlq_files,
    dlq_letters,
    dlq_replay,
    dlq_selection,
    dlq_view,
    options,
)
from eventwriter.commands.progress import INTERRUPTED, progress
from eventwriter.commands.settings import Loaded, Settings
from eventwriter.errors import BAD_DATA, CONFIGURATION, OK, SchemaError, UsageError
from eventwriter.postgres.errors import needing


@click.group("dlq")
def group() -> None:
    """The dead letters: what could not become a row, and why."""


def _chosen(loaded: Loaded, numbers: tuple[int, ...], **selected: Any) -> dlq_selection.Selection:
    """What the options say; raises UsageError, also for a number that no dead letter has."""
    dlq_letters.check(loaded.config.postgres, numbers)
    return dlq_selection.selection(loaded, numbers, **selected)


@group.command("list")
@dlq_selection.options
@click.option("--replayed", is_flag=True, help="Those that were replayed, instead of those that wait.")
@click.option("--summary", is_flag=True, help="How many of each stream, reason and SQLSTATE.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=50, show_default=True, help="At most so many, latest first."
)
@options.output
@click.pass_obj
@needing("reader")
def _list(settings: Settings, /, summary: bool, limit: int, as_json: bool, **selected: Any) -> None:
    """List the dead letters that wait, one line for each record that was rejected, the latest first.

    \b
        eventwriter dlq list --summary
        eventwriter dlq list --stream LOGS --reason refused --since 2h
    """
    loaded = settings.load()
    chosen, postgres = dlq_selection.selection(loaded, **selected), loaded.config.postgres
    if summary:
        text = dlq_view.summed(dlq_letters.summary(postgres, chosen), as_json=as_json)
    else:
        text = dlq_view.listed(dlq_letters.find(postgres, chosen, limit), as_json=as_json)
    options.say(text, "no dead letters")


@group.command("show")
@click.argument("number", type=int)
@click.option("--full", is_flag=True, help="The whole payload, and all records.")
@options.output
@click.pass_obj
@needing("reader")
def _show(settings: Settings, /, number: int, full: bool, as_json: bool) -> None:
    """Show one dead letter: why, which record, its payload, and what that decodes to now.

    \b
        eventwriter dlq show 4711
    """
    loaded = settings.load()
    letter, message = dlq_letters.read(loaded.config.postgres, number)
    stream = None
    if letter["logical_stream"] in loaded.declared:
        with suppress(SchemaError):  # it is shown all the same
            stream = loaded.decoding(letter["logical_stream"])
    if as_json:
        options.say(dlq_view.document(letter, message, stream))
    else:
        click.echo(dlq_view.shown(letter, message, stream, full=full))


@group.command("replay")
@click.argument("numbers", type=int, nargs=-1)
@dlq_selection.options
@click.option("--dry-run", is_flag=True, help="Try it, and take it back.")
@options.output
@click.pass_obj
@needing("operator")
def _replay(settings: Settings, /, numbers: tuple[int, ...], dry_run: bool, as_json: bool, **selected: Any) -> None:
    """Write dead letters that wait: all, or those selected, by the present decoder into the present table.

    Rows go in and their letters are marked as replayed in the same transaction, beside the running service, so every
    record becomes a row once, however often this is interrupted and begun again. What is rejected again waits as
    before; then this ends with 65.

    \b
        eventwriter dlq replay --dry-run
        eventwriter dlq replay --stream LOGS --reason refused
        eventwriter dlq replay 4711 4712
    """
    loaded = settings.load()
    chosen, result = _chosen(loaded, numbers, **selected), dlq_fates.Result()
    interrupted = False
    try:
        with progress("replaying") as tell:
            dlq_replay.replay(loaded, chosen, dry_run=dry_run, result=result, tell=tell)
    except KeyboardInterrupt:
        interrupted = True
        options.tell("interrupted: what is told here is committed, the rest waits as before")
    finally:
        if result.selected or sys.exc_info()[0] is None:
            options.say(dlq_view.replayed(result, dry_run=dry_run, as_json=as_json))
    if interrupted:
        sys.exit(INTERRUPTED)
    sys.exit(CONFIGURATION if result.problems else BAD_DATA if result.left else OK)


@group.command("purge")
@click.argument("numbers", type=int, nargs=-1)
@dlq_selection.options
@click.option("--replayed", is_flag=True, help="Those that were replayed, instead of those that wait.")
@click.option("--all", "everything", is_flag=True, help="All of them, where nothing else selects.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
@needing("operator")
def _purge(settings: Settings, /, numbers: tuple[int, ...], everything: bool, yes: bool, **selected: Any) -> None:
    """Remove dead letters for good.

    \b
        eventwriter dlq purge --stream LOGS --older-than 30d
        eventwriter dlq purge --replayed --all --yes
    """
    loaded = settings.load()
    chosen, postgres = _chosen(loaded, numbers, **selected), loaded.config.postgres
    if chosen.everything != everything:
        raise UsageError(
            "--all is for where nothing else selects: leave one of them out"
            if everything
            else "which dead letters? Select some, such as by --stream LOGS or --older-than 30d, or say --all"
        )
    if not yes:
        count = dlq_letters.count(postgres, chosen)
        try:
            click.confirm(f"Remove {count} dead letters {terminal.one_line(str(chosen))}, for good?", abort=True)
        except click.Abort as abort:
            if isinstance(abort.__context__, EOFError):
                options.tell("\nnobody answers, so they stay: --yes removes them without being asked")
            raise
    options.say(f"removed {dlq_files.purge(postgres, chosen)} dead letters")


@group.command("export")
@click.argument("numbers", type=int, nargs=-1)
@dlq_selection.options
@click.option("--replayed", is_flag=True, help="Those that were replayed, instead of those that wait.")
@click.pass_obj
@needing("reader")
def _export(settings: Settings, /, numbers: tuple[int, ...], **selected: Any) -> None:
    """Print dead letters with all that is known of them, a line of JSON for each message.

    \b
        eventwriter dlq export --stream LOGS > letters.jsonl
    """
    loaded = settings.load()
    chosen = _chosen(loaded, numbers, **selected)
    total = dlq_letters.count(loaded.config.postgres, chosen) if sys.stderr.isatty() else 0
    done = 0
    with progress("exporting") as tell:
        for line, count in dlq_files.exported(loaded.config.postgres, chosen):
            click.echo(line)
            done += count
            tell(done, total)
    options.tell(f"exported {done} dead letters")


@group.command("import")
@click.argument("file", type=click.File("rb"))
@click.pass_obj
@needing("operator")
def _import(settings: Settings, file: IO[bytes]) -> None:
    """Bring back what `dlq export` printed: all of FILE or nothing, and nothing twice.

    A dead letter belongs to the ledger of its message's consumer. What that ledger does not know as done is left out:
    the service gets the message again. Where there is no such ledger, such as in a database for trying a decoder, the
    letters get one of their own.

    \b
        eventwriter dlq import letters.jsonl
    """
    with progress("importing") as tell:
        found = dlq_files.load(settings.load().config.postgres, file, lambda lines: tell(lines, None))
    options.say(f"imported {found.imported} dead letters" + (f", {found.known} were there" if found.known else ""))
    if found.undone:
        options.tell(
            f"{found.undone} are left out: the ledger does not know their messages as done, so the service gets them "
            "again from the stream"
        )
