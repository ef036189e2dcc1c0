"""The latest dead letters as the page has them: what `dlq show` says, handed over by workers that go on writing."""

from __future__ import annotations

import gzip
import json

import pytest

from boards import settings
from eventwriter import registry, viewing
from eventwriter.commands import dlq_view
from eventwriter.observability.board import LARGEST, SUPERVISOR, Board
from eventwriter.observability.letters import LATEST, View, views
from eventwriter.observability.monitor import Monitor
from eventwriter.observability.report import Report
from eventwriter.observability.states import WorkerState
from eventwriter.stream import Batch, Message, Outcome, Reject

STREAMS = registry.load()
LOGS = STREAMS["LOGS"]


def of(message: Message, reject: Reject) -> str:
    """What the worker of LOGS tells."""
    return viewing.of_letter(LOGS, message, reject)


def letter(
    sequence: int, payload: bytes, reason: str = "malformed", index: int | None = None
) -> tuple[Message, Reject]:
    """One of LOGS."""
    return Message("logs.x", payload, sequence, 1), Reject(reason, "not JSON: community=hush", index)


def told(board: Board) -> list[tuple[int, str]]:
    """The latest of LOGS, as /status has them."""
    found = Monitor(board, settings()).status()["streams"]["LOGS"]["dead_letters"]
    assert "hush" not in json.dumps(found)
    return [(each["sequence"], each["view"]) for each in found]


def reporting(board: Board, view: View = of) -> Report:
    """A worker of LOGS."""
    board.slot(SUPERVISOR)
    return Report("LOGS", "LOGS", board.slot("LOGS"), view)


def wrote(report: Report, *letters: tuple[Message, Reject]) -> None:
    """A commit of these."""
    batch = Batch([message for message, _ in letters], None)
    report.took(batch, 0.0)
    report.wrote(batch, Outcome(deadlettered=len(letters), rejects={"malformed": len(letters)}, latest=[*letters]))


def test_a_letter_is_shown_as_dlq_show_has_it() -> None:
    """At once, of the next process too; those that follow soon a little later, all together."""
    board = Board()
    report = reporting(board)
    first = letter(7, b'[{"message":"good"},{"message":"bad","timestamp":"no time","community":"hush"}]', index=1)
    wrote(report, first)
    ((sequence, view),) = told(board)
    assert sequence == 7
    assert view.startswith("record 1 of message 7\n")
    assert '"timestamp":"no time","community":"***"' in view
    assert "bad_time" in view
    known = dict.fromkeys(("id", "logical_stream", "stream", "stream_created", "durable", "reason", "sqlstate",
                           "detail", "subject", "message_time", "created_at", "replayed_at"))  # fmt: skip
    shown = dlq_view.shown(known | {"record_index": 1, "sequence": 7}, first[0], LOGS, full=False)
    assert shown.endswith(view.partition("\n")[2])
    for number in range(8, 11):
        wrote(report, letter(number, b"\x00\x01"))
    assert told(board) == [(10, ""), (9, ""), (8, ""), (7, view)]
    report.ended(None)
    reporting(board)
    again = told(board)
    assert again[-1] == (7, view)
    assert all("00000000  00 01" in each for _, each in again[:-1])


def test_the_largest_fit_and_cost_no_batch_anything() -> None:
    """Five of them are on the board, whatever is in them, and none is in the state that each commit writes."""
    board = Board()
    report = reporting(board)
    for payload in (
        b'"\\' * 5000,
        "\u96ea".encode() * 5000,
        b"\x1b" * 5000,
        bytes(range(256)) * 40,
        b'[{"a":1},' * 9999,
    ):
        wrote(report, *(letter(number, payload) for number in range(LATEST)))
        report.ended(None)
        assert [len(view.encode()) <= viewing.BYTES and "payload: " in view for _, view in told(board)] == [
            True
        ] * LATEST
        state = board.slot("LOGS").read(WorkerState)
        assert state is not None
        assert not any(each.view for each in state.dead_letters)
        assert len(json.dumps([*views(board).values()])) < LARGEST


@pytest.mark.parametrize("payload", [b"x" * 2**17, gzip.compress(b" " * 2**24)], ids=["large", "inflated"])
@pytest.mark.parametrize("reason", ["malformed", "crashes"])
def test_what_may_do_harm_is_not_decoded_again(payload: bytes, reason: str) -> None:
    """Nor what is large, and what killed a worker before."""
    for each in (payload, b"{}"):
        given = letter(1, each, reason)
        assert ("decodes now" in of(*given)) == (each == b"{}" and reason == "malformed")


def test_a_decoder_that_raises_ends_no_worker() -> None:
    """The letter is told all the same."""

    def raising(message: Message, reject: Reject) -> str:
        raise RuntimeError

    board = Board()
    wrote(reporting(board, raising), letter(1, b"x"))
    assert told(board) == [(1, "")]
