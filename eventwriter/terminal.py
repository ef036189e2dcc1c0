"""``eventwriter status``: the status document of a running service as a table in the terminal."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from eventwriter.errors import UnavailableError

PATIENCE = 5.0
"""Seconds to wait for an answer."""
_MARKS = {
    "running": ("●", "green"),
    "starting": ("◐", "yellow"),
    "draining": ("◐", "yellow"),
    "waiting": ("◌", "yellow"),
    "disconnected": ("◌", "yellow"),
    "restarting": ("↻", "red"),
    "stalled": ("■", "red"),
    "parked": ("■", "red"),
}
_BARS = " ▁▂▃▄▅▆▇█"
_WIDTH = 12


def fetch(url: str) -> dict[str, Any]:
    """The status document of the service at this address; raises UnavailableError."""
    address = url.rstrip("/")
    try:
        with urllib.request.urlopen(f"{address}/status", timeout=PATIENCE) as answer:
            document: dict[str, Any] = json.loads(answer.read())
    except (OSError, ValueError, urllib.error.HTTPError) as error:
        why = getattr(error, "reason", None) or error
        raise UnavailableError(
            f"no service answers at {address}: {why}; is `eventwriter supervise` running, and is this its http.listen?"
        ) from None
    return document


def show(document: Mapping[str, Any]) -> None:
    """Prints the document."""
    Console().print(_render(document))


def watch(url: str, *, as_json: bool) -> None:
    """Shows the document again every second until Ctrl-C; goes on when the service does not answer."""
    console = Console()
    try:
        if as_json:
            while True:
                console.out(json.dumps(fetch(url)), highlight=False)
                time.sleep(1)
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                try:
                    live.update(_render(fetch(url)), refresh=True)
                except UnavailableError as error:
                    live.update(Text(str(error), style="bold red"), refresh=True)
                time.sleep(1)
    except KeyboardInterrupt:
        return


def _render(document: Mapping[str, Any]) -> Group:
    streams: Mapping[str, Any] = document["streams"]
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("stream", "state", "rows/s", "15 min", "waiting", "lag", "age p50", "p99", "batch"):
        table.add_column(name, justify="left" if name in ("stream", "state", "15 min") else "right", no_wrap=True)
    for name in ("last commit", "rows", "dead", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, stream in streams.items():
        mark, style = _MARKS.get(stream["state"], ("?", "red"))
        rates = stream["history"]["rows_per_s"]
        committed = stream["last_commit"]
        dead = stream["messages"]["deadlettered"]
        table.add_row(
            name,
            Text(f"{mark} {stream['state']}", style=style),
            _number(rates[-1] if rates else None),
            Text(sparkline(rates), style="cyan"),
            _number(stream["consumer_pending"]),
            _seconds(stream["lag_seconds"]),
            _seconds(stream["event_age_p50"]),
            _seconds(stream["event_age_p99"]),
            _number(stream["batch_messages"]),
            "–" if committed is None else f"{_seconds(max(0.0, document['now'] - committed))} ago",
            _number(stream["rows_written"]),
            Text(_number(dead), style="yellow" if dead else ""),
            Text(_number(stream["restarts"]), style="yellow" if stream["restarts"] else ""),
        )
    uptime = _seconds(document["now"] - document["started"])
    if document["ready"]:
        verdict = Text(f"ready: all {len(streams)} streams are being written", style="bold green")
    else:
        verdict = Text(f"not ready: {len(document['problems'])} of {len(streams)} streams", style="bold red")
    head = Text.assemble(verdict, f"   eventwriter {document['version']}, up {uptime}")
    problems = [
        Text.from_markup(f"  [red]{escape(problem['stream'])}[/]: {escape(_safe(problem['text']))}")
        for problem in document["problems"]
    ]
    letters = sorted(
        ((letter["time"], name, letter) for name, stream in streams.items() for letter in stream["dead_letters"]),
        key=lambda each: -each[0],
    )[:3]
    if letters:
        problems.append(Text("latest dead letters (`eventwriter dlq list` has all):", style="dim"))
    problems += [
        Text(
            f"  {_seconds(document['now'] - when)} ago  {name} {letter['sequence']}  {letter['reason']}: "
            f"{_safe(letter['detail'])}",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        for when, name, letter in letters
    ]
    return Group(head, Text(), table, Text(), *problems)


def sparkline(values: Sequence[float | None], width: int = _WIDTH) -> str:
    """The values, oldest first, as one line of bars, the latest at its right end; unknown ones are blank."""
    size = max(1, -(-len(values) // width))
    groups = [values[max(0, end - size) : end] for end in range(len(values), 0, -size)][::-1]
    means = [_mean([value for value in group if value is not None]) for group in groups]
    top = max((mean for mean in means if mean), default=0.0)
    bars = "".join(
        " " if mean is None else _BARS[1] if not top or not mean else _BARS[1 + min(7, int(mean / top * 7.999))]
        for mean in means
    )
    return bars.rjust(width)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _safe(text: str) -> str:
    """Text from a message without what a terminal would obey."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h"
