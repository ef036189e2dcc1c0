"""A board as the processes of a running service leave it, made without any of them."""

from __future__ import annotations

import os
import time
from typing import Any

from eventwriter import registry
from eventwriter.config import loading
from eventwriter.config.loading import Config
from eventwriter.errors import UnavailableError
from eventwriter.observability.board import SUPERVISOR, Board, Slot
from eventwriter.observability.children import Children
from eventwriter.observability.report import Report
from eventwriter.stream import Batch, Message, Outcome, Reject

STAGES = {"decode": 0.002, "copy": 0.003, "commit": 0.001}


def settings(**environ: str) -> Config:
    """The effective settings with these environment variables, such as ``STREAMS__LOGS__PROCESSES``."""
    named = {f"EVENTWRITER_{name}": value for name, value in environ.items()}
    return loading.load_with_origins(registry.load(), file=None, environ=named, flags={})[0]


def noted(slot: Slot) -> dict[str, Any]:
    """What a slot holds, whatever that is; {} if nothing."""
    return slot.read(dict) or {}


def batch(count: int, subject: str = "logs.app", age: float = 0.03) -> Batch:
    """Messages that JetStream received ``age`` seconds ago."""
    received = int((time.time() - age) * 1e9)
    messages = [Message(subject, b"{}", number, received) for number in range(1, count + 1)]
    return Batch(messages, range(1, count + 1), (), 2 * count, 0)


def write(report: Report, count: int = 10, **outcome: Any) -> None:
    """A batch of so many messages, taken and written."""
    taken = batch(count)
    report.took(taken, 0.01)
    fates: dict[str, Any] = {"written": count, "rows": count, "seconds": STAGES} | outcome
    report.wrote(taken, Outcome(**fates))
    report.acknowledged(0.004)


def running(board: Board, settings: Config) -> tuple[Children, dict[str, Report]]:
    """Every process of these settings notes that it runs and has written; all with the pid of this one."""
    children = Children(board.slot(SUPERVISOR))
    reports = {}
    for name, stream in settings.streams.items():
        for number in range(1, stream.processes + 1):
            title = name if stream.processes == 1 else f"{name}/{number}"
            children.started(title, os.getpid())
            reports[title] = Report(title, name, board.slot(title))
            reports[title].ready()
            reports[title].consumer(True, 0, 0)
            write(reports[title])
    return children, reports


def trouble(report: Report) -> None:
    """Of everything that is counted, something."""
    message = batch(1).messages[0]
    write(
        report,
        5,
        written=1,
        deadlettered=2,
        already_done=1,
        excluded=1,
        skipped={"identical": 1, "dropped": 2},
        rejects={"malformed": 2},
        repairs={"nul_replaced": 3},
        latest=[(message, Reject("malformed", "not JSON"))],
    )
    report.waits(UnavailableError("PostgreSQL cannot be reached"), 0.1)
    report.answered()
    report.beat(force=True)
