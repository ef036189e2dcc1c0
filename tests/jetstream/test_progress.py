"""When a consumer counts as in trouble, and why; the clock is the test's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from consumers import STREAM
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.limits import Limits
from eventwriter.jetstream.progress import Progress

FACTS = ConsumerInfo(created=False, ack_floor=0, pending=0, ack_pending=0, delivered=0, limits=Limits())
WAITING = replace(FACTS, pending=7)


def watched(
    looks: Sequence[ConsumerInfo | None], progress: Progress | None = None, *, eager: bool = True, **more: Any
) -> list[str]:
    """The trouble after each look, one every three seconds."""
    progress = progress or Progress(STREAM)
    found = []
    for number, info in enumerate(looks):
        progress.look(
            info, 3.0 * number, connected=more.get("connected", True), eager=eager, silent=more.get("silent", "")
        )
        found.append(progress.trouble)
    return found


def test_messages_that_wait_and_do_not_come() -> None:
    """Told within ten seconds, not for what has just begun; over as soon as one is delivered."""
    found = watched([FACTS, *[WAITING] * 3, replace(WAITING, deliveries=1)])
    assert found[:3] == [""] * 3
    assert found[3] == (
        "messages wait, and consumer eventwriter-logs of stream LOGS delivers none: look at it with nats consumer info"
    )
    assert found[4] == ""


@pytest.mark.parametrize(
    "looks",
    [
        [FACTS] * 9,
        [replace(WAITING, deliveries=number) for number in range(9)],
    ],
    ids=["nothing waits", "others get them"],
)
def test_what_is_no_stall(looks: list[ConsumerInfo]) -> None:
    """An idle stream, and one that other workers write."""
    assert watched(looks) == [""] * 9


def test_a_worker_that_does_not_want_any_is_not_stalled() -> None:
    """PostgreSQL is away, or the buffer is full: that is told elsewhere."""
    assert watched([WAITING] * 9, eager=False) == [""] * 9


def test_the_reason_of_a_stall(caplog: pytest.LogCaptureFixture) -> None:
    """What the server said of the last pull, or a limit that is reached."""
    progress = Progress(STREAM)
    for _ in range(3):
        progress.refused("409 Exceeded MaxWaiting", "JetStream ended a pull (409 Exceeded MaxWaiting)")
    assert caplog.messages == ["JetStream ended a pull (409 Exceeded MaxWaiting): trying again"], "told once"
    assert "refuses our pulls (409 Exceeded MaxWaiting)" in watched([WAITING] * 4, progress)[-1]
    progress.accepted()
    full = replace(WAITING, ack_pending=5, max_ack_pending=5)
    assert "as many as its max_ack_pending (5) are not acknowledged" in watched([full] * 4)[-1]


def test_a_pause_is_told_at_once() -> None:
    """With its remedy, whether anything waits or not."""
    found = watched([replace(FACTS, paused="2099-01-01T00:00:00Z"), FACTS])
    assert found[0].endswith("resume it (nats consumer resume LOGS eventwriter-logs)")
    assert found[1] == ""


def test_a_jetstream_that_does_not_answer() -> None:
    """The connection is there, and that is all."""
    found = watched([None] * 4, silent="JetStream does not answer")
    assert found == [
        "",
        "",
        "",
        "JetStream tells nothing of our consumer: JetStream does not answer",
    ]
    assert watched([None] * 4, silent="x", connected=False) == [""] * 4
    progress = Progress(STREAM)
    for now in (0.0, 7.0):
        progress.look(None, now, connected=True, eager=False, silent="forbidden", full=True)
    told = "JetStream tells nothing of our consumer, and no more is pulled until it does: forbidden"
    assert progress.trouble == told


def test_acks_without_confirmation() -> None:
    """Counted from the first; any that is confirmed shows that there is a way."""
    progress = Progress(STREAM)
    progress.look(FACTS, 0.0, connected=True, eager=True)
    unacknowledged = replace(FACTS, ack_pending=1)
    progress.sent(1.0)
    progress.sent(6.0)
    progress.look(unacknowledged, 7.0, connected=True, eager=True)
    assert progress.trouble == ""
    progress.look(unacknowledged, 8.0, connected=True, eager=True)
    assert "does not confirm acks" in progress.trouble
    progress.confirmed()
    progress.look(unacknowledged, 9.0, connected=True, eager=True)
    assert progress.trouble == ""
    progress.sent(10.0)
    progress.look(FACTS, 20.0, connected=True, eager=True)
    assert progress.trouble == "", "none is missing"
