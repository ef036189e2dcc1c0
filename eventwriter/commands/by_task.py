"""`eventwriter --help`: commands in the order in which one needs them, below what they are for."""

from __future__ import annotations

import click

TASKS = {
    "Set up": ("config", "streams", "schema", "check"),
    "Run": ("supervise", "worker", "status"),
    "Look at messages": ("tap", "decode"),
    "Find and make good what is missing": ("verify", "replay", "dlq", "ledger"),
}


class ByTask(click.Group):
    """A group whose commands are shown by task."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes them; what has no task comes last."""
        others = [name for name in self.list_commands(ctx) if not any(name in names for names in TASKS.values())]
        room = formatter.width - 6 - max(map(len, self.commands))
        for task, names in {**TASKS, "More": others}.items():
            if names:
                with formatter.section(task):
                    formatter.write_dl([(name, self.commands[name].get_short_help_str(room)) for name in names])
