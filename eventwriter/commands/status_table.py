"""``eventwriter status``: the status document of a running service as a table in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from eventwriter import terminal
from eventwriter.commands.running import Service, fetch
from eventwriter.errors import OK, UNAVAILABLE, AuthenticationError, UnavailableError, listed
from eventwriter.observability import causes
from eventwriter.terminal import one_line

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
_SPIKE = "▲"
_WIDTH = 12


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of the table."""

    title: str
    rank: int
    """Where there is not room for all columns, those of the highest rank are left out."""
    cell: Callable[[str, Mapping[str, Any], float], Text]
    """From the name of a stream, its part of the document, and the document's time."""
    left: bool = False


def _state(stream: Mapping[str, Any]) -> Text:
    mark, style = _MARKS.get(stream["state"], ("?", "red"))
    return Text(f"{mark} {stream['state']}", style)


def _rates(stream: Mapping[str, Any]) -> Sequence[float | None]:
    rates: Sequence[float | None] = stream["history"]["rows_per_s"]
    return rates


def _notable(count: int) -> Text:
    return Text(_number(count), "yellow" if count else "")


COLUMNS = (
    _Column("stream", 0, lambda name, stream, now: Text(one_line(name)), left=True),
    _Column("state", 0, lambda name, stream, now: _state(stream), left=True),
    _Column("rows/s", 0, lambda name, stream, now: Text(_number(_rates(stream)[-1] if _rates(stream) else None))),
    _Column("trend", 5, lambda name, stream, now: Text(sparkline(_rates(stream)), "cyan"), left=True),
    _Column("waiting", 4, lambda name, stream, now: Text(_number(stream["consumer_pending"]))),
    _Column("lag", 1, lambda name, stream, now: Text(_seconds(stream["lag_seconds"]))),
    _Column("age p50", 7, lambda name, stream, now: Text(_seconds(stream["event_age_p50"]))),
    _Column("age p99", 3, lambda name, stream, now: Text(_seconds(stream["event_age_p99"]))),
    _Column("batch", 9, lambda name, stream, now: Text(_number(stream["batch_messages"]))),
    _Column("last commit", 6, lambda name, stream, now: Text(_ago(stream["last_commit"], now))),
    _Column("rows", 8, lambda name, stream, now: Text(_number(stream["rows_written"]))),
    _Column("dead", 2, lambda name, stream, now: _notable(stream["messages"]["deadlettered"])),
    _Column("dead/min", 7, lambda name, stream, now: _notable(stream.get("dead_letters_per_minute") or 0)),
    _Column("restarts", 2, lambda name, stream, now: _notable(stream["restarts"])),
)


def show(service: Service, *, as_json: bool) -> int:
    """Prints the document once; the exit status: whether every stream is being written."""
    console = Console()
    document = fetch(service)
    _print(console, document, as_json=as_json)
    return OK if document["ready"] else UNAVAILABLE


def _print(console: Console, document: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.out(terminal.exact(document), highlight=False)
    else:
        console.print(render(document, console.width))


def watch(service: Service, *, as_json: bool) -> None:
    """Shows the document again every second until Ctrl-C; on a terminal also when the service does not answer."""
    console = Console()
    try:
        while as_json or not console.is_terminal:
            _print(console, fetch(service), as_json=as_json)
            time.sleep(1)
        with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
            while True:
                try:
                    live.update(render(fetch(service), console.width), refresh=True)
                except (AuthenticationError, UnavailableError) as error:
                    live.update(Text(f"{error}\n\nTrying again every second.", style="bold red"), refresh=True)
                time.sleep(1)
    except KeyboardInterrupt:
        return


def render(document: Mapping[str, Any], width: int) -> Group:
    """What is shown in a terminal so many characters wide."""
    now, streams = document["now"], document["streams"]
    if document["ready"]:
        verdict = Text(f"ready: all {len(streams)} streams are being written", style="bold green")
    else:
        verdict = Text(
            f"not ready: {sum(p['stream'] in streams for p in document['problems'])} of {len(streams)} streams",
            style="bold red",
        )
    head = Text.assemble(verdict, f"   eventwriter {document['version']}, up {_seconds(_uptime(document))}")
    lines = [Text.assemble("  ", (one_line(who), "red"), f": {one_line(text)}") for who, text in causes.lines(document)]
    lines += [
        Text.assemble(
            "  ",
            (one_line(name), "red"),
            f": up to {_number(stream['missing'])} messages are missing and gone: `eventwriter check` tells",
        )
        for name, stream in streams.items()
        if stream["missing"]
    ]
    lines += [
        Text.assemble(
            "  ", (one_line(name), "yellow"), f": {one_line(stream['table'])} is written without {_without(stream)}"
        )
        for name, stream in streams.items()
        if stream.get("columns_omitted")
    ]
    letters = sorted(
        ((letter["time"], name, letter) for name, stream in streams.items() for letter in stream["dead_letters"]),
        key=lambda each: -each[0],
    )[:3]
    if letters:
        lines.append(Text("latest dead letters (`eventwriter dlq list` has all):", style="dim"))
    lines += [
        Text(
            f"  {_ago(when, now)}  {one_line(name)} {letter['sequence']}  {one_line(letter['reason'])}: "
            f"{one_line(letter['detail'])}",
            style="dim",
            overflow="ellipsis",
            no_wrap=True,
        )
        for when, name, letter in letters
    ]
    return Group(head, Text(), _table(streams, now, width), Text(), *lines)


def _uptime(document: Mapping[str, Any]) -> float:
    known: float | None = document.get("uptime")  # by a clock that nobody sets; not told by earlier versions
    return max(0.0, document["now"] - document["started"]) if known is None else known


def _without(stream: Mapping[str, Any]) -> str:
    return one_line(listed(stream["columns_omitted"]))


def _table(streams: Mapping[str, Any], now: float, width: int) -> Table:
    """One line a stream, with as many columns as there is room for: none is ever cut."""
    cells = [[column.cell(name, stream, now) for column in COLUMNS] for name, stream in streams.items()]
    widths = [
        2 + max([len(column.title), *(line[place].cell_len for line in cells)]) for place, column in enumerate(COLUMNS)
    ]
    kept = sorted(range(len(COLUMNS)), key=lambda place: COLUMNS[place].rank)
    while sum(widths[place] for place in kept) > width and COLUMNS[kept[-1]].rank:
        kept.pop()
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for place in sorted(kept):
        justify: Literal["left", "right"] = "left" if COLUMNS[place].left else "right"
        table.add_column(COLUMNS[place].title, justify=justify, no_wrap=True)
    for line in cells:
        table.add_row(*(line[place] for place in sorted(kept)))
    return table


def sparkline(values: Sequence[float | None], width: int = _WIDTH) -> str:
    """The values, oldest first, as one line of bars, the latest at its right end; unknown ones are blank.

    A rare one that is far higher than the others is marked, rather than make all others look like nothing.
    """
    size = max(1, -(-len(values) // width))
    groups = [values[max(0, end - size) : end] for end in range(len(values), 0, -size)][::-1]
    means = [_mean([value for value in group if value is not None]) for group in groups]
    top = _top([mean for mean in means if mean is not None])
    bars = "".join(
        " "
        if mean is None
        else _SPIKE
        if mean > top
        else _BARS[1 + min(7, int(mean / top * 7.999))]
        if top
        else _BARS[1]
        for mean in means
    )
    return bars.rjust(width)


def _top(known: Sequence[float]) -> float:
    """What the highest bar stands for: the highest value, or what nine of ten do not exceed where that is far below."""
    highest = max(known, default=0.0)
    usual = sorted(known)[int(0.9 * (len(known) - 1))] if known else 0.0
    return 1.25 * usual if 0 < 3 * usual < highest else highest


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ago(then: float | None, now: float) -> str:
    return "–" if then is None else f"{_seconds(max(0.0, now - then))} ago"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value * 1000:.0f} ms" if value else "0 s"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h"
