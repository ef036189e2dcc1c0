"""The next pull, and what becomes of it: with a fake connection, a fake clock and no server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from consumers import GAP, STREAM
from eventwriter.config.loading import NatsConfig
from eventwriter.errors import ConfigurationError, ConsumerEditedError, EventWriterError, UnavailableError
from eventwriter.jetstream.binding import Binding
from eventwriter.jetstream.buffer import Gap
from eventwriter.jetstream.claims import Claims
from eventwriter.jetstream.handover import Handover
from eventwriter.jetstream.permissions import Permissions
from eventwriter.jetstream.progress import Progress
from eventwriter.jetstream.puller import IDLE, REFUSED, SHORTEST, SILENCES, UNKNOWN, Puller
from eventwriter.jetstream.wire import Delivery

MESSAGES, BYTES = STREAM.writer.batch_messages, STREAM.writer.batch_bytes
NEXT = "$JS.API.CONSUMER.MSG.NEXT.LOGS.eventwriter-logs"
CONFIG: dict[str, Any] = {"ack_policy": "explicit", "filter_subject": "logs.>"}


class JetStream:
    """The server's side: what it answers is for the test to say, and what was pulled for it to see."""

    def __init__(self) -> None:
        self.is_connected = True
        self.created = "2025-01-01T00:00:00Z"
        self.config: dict[str, Any] | None = CONFIG
        self.silent = False
        self.looks = 0
        self.pulls: list[dict[str, int]] = []
        self.replies: list[str] = []

    async def publish(self, subject: str, payload: bytes, reply: str) -> None:
        assert subject == NEXT
        self.pulls.append(json.loads(payload))
        self.replies.append(reply)

    async def request(self, subject: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """As ``Api.request``."""
        if self.silent:
            raise UnavailableError("JetStream does not answer")
        if subject.startswith("STREAM.INFO"):
            self.looks += 1
            return {"created": self.created, "state": {"first_seq": 1, "last_seq": 9, "messages": 0}}
        if self.config is None:
            return {"error": {"code": 404, "err_code": 10014}}
        position = {"stream_seq": 0, "consumer_seq": 0}
        return {
            "config": self.config,
            "ack_floor": position,
            "delivered": position,
            "num_pending": 0,
            "num_ack_pending": 0,
        }


class Bench:
    """A puller whose consumer is bound, about to make its first pull."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.server = JetStream()
        self.handover = Handover(STREAM)
        self.binding = Binding(self.server.request, STREAM, self.handover)
        self.permissions = Permissions(NatsConfig(), STREAM)
        self.passed: list[str] = []
        self.puller = Puller(
            self.server,
            self.binding,
            STREAM,
            self.handover,
            self.permissions,
            Progress(STREAM),
            at=self.passed.append,
            clock=lambda: self.now,
        )
        self.puller.pull.inbox = "inbox"
        asyncio.run(self.binding.open())
        self.binding.limits = asyncio.run(self.binding.bind(1)).limits
        self.server.looks = 0
        self.sequence = 0

    def step(self) -> float:
        """What ``step`` tells to wait for."""
        return asyncio.run(self.puller.step())

    def pulls(self) -> bool:
        """Whether the next step pulls."""
        before = len(self.server.pulls)
        assert self.step() == 0
        return len(self.server.pulls) > before

    def deliver(self, count: int, pending: int = 0, size: int = 10) -> None:
        """So many messages come, with ``pending`` more behind them."""
        found: list[Delivery] = []
        for left in reversed(range(pending, pending + count)):
            self.sequence += 1
            reply = b"$JS.ACK.LOGS.eventwriter-logs.1.%d.%d.1.%d" % (self.sequence, self.sequence, left)
            found.append((b"logs.x", b"x" * size, reply, None))
        self.puller.deliver(found, count * size)

    def told(self, status: str, text: str = "", reply: str | None = None) -> None:
        """The latest pull, or another one, is answered without a message."""
        self.puller.told(reply or self.server.replies[-1], status, text)

    def written(self) -> list[Gap | int]:
        """All that waits is taken: gaps, and how many messages each batch has."""
        found: list[Gap | int] = []
        while not self.handover.buffer.empty:
            taken = self.handover.buffer.take()
            found.append(taken if isinstance(taken, Gap) else sum(len(each.messages) for each in taken))
        return found


@pytest.fixture
def bench() -> Bench:
    """One that has the durable for itself."""
    return Bench()


def test_one_pull_at_a_time_for_two_batches(bench: Bench) -> None:
    """The next when all that was asked for has come; a heartbeat changes nothing."""
    assert bench.pulls()
    assert bench.server.pulls == [
        {"batch": 2 * MESSAGES, "expires": 30_000_000_000, "idle_heartbeat": 5_000_000_000, "max_bytes": 2 * BYTES}
    ]
    assert bench.passed == ["after_pull"]
    bench.told("100")
    bench.deliver(2 * MESSAGES - 1)
    assert not bench.pulls()
    assert not bench.puller.wake.is_set()
    bench.deliver(1)
    assert bench.puller.wake.is_set()
    assert bench.written() == [MESSAGES, MESSAGES]
    assert bench.pulls()
    assert bench.server.replies == ["inbox.1", "inbox.2"]


def test_no_pull_until_there_is_room_for_half_a_batch(bench: Bench) -> None:
    """Then for as much as there is room for."""
    assert bench.pulls()
    bench.deliver(2 * MESSAGES)
    assert not bench.pulls()
    bench.handover.buffer.take()
    assert bench.pulls()
    assert bench.server.pulls[-1]["batch"] == MESSAGES


def test_a_pull_whose_bytes_are_used_up_is_over(bench: Bench) -> None:
    """The server ends it without a word."""
    assert bench.pulls()
    bench.deliver(4, size=BYTES // 2)
    assert bench.puller.pull.idle
    bench.written()
    assert bench.pulls()


@pytest.mark.parametrize("what", ["holding", "stopping", "disconnected", "refused", "unseen"])
def test_no_pull_that_would_be_in_vain(bench: Bench, what: str) -> None:
    """During an outage, at the end, without a connection, without permission, or when the consumer cannot be asked."""
    if what == "disconnected":
        bench.server.is_connected = False
    elif what == "refused":
        bench.permissions.note(f'nats: permissions violation for publish to "{NEXT}"')
    elif what == "unseen":
        bench.handover.claims = Claims(most=1)
        bench.handover.claims.add(GAP)
    else:
        setattr(bench.handover, what, True)
    assert not bench.pulls()
    if what == "unseen":
        bench.handover.claims.seen()
        assert bench.pulls()


def test_pulls_that_end_with_nothing_do_not_follow_each_other_at_once(bench: Bench) -> None:
    """However short a consumer makes them."""
    assert bench.pulls()
    bench.now += SHORTEST / 4
    bench.told("408", "Request Timeout")
    assert bench.step() == pytest.approx(SHORTEST * 3 / 4)
    bench.now += SHORTEST
    assert bench.pulls()
    assert bench.server.looks == 0


def test_the_end_of_a_pull_that_was_given_up_changes_nothing(bench: Bench) -> None:
    """Another one is under way."""
    assert bench.pulls()
    bench.puller.interrupt()
    assert bench.pulls()
    bench.told("408", "Request Timeout", reply="inbox.1")
    assert not bench.puller.pull.idle
    assert not bench.pulls()


def test_a_message_that_is_larger_than_a_pull_is_asked_for_alone(bench: Bench) -> None:
    """Without a limit of bytes; afterwards all is as before. A pull that brought something may just be at its end."""
    assert bench.pulls()
    bench.deliver(1)
    bench.told("409", "Message Size Exceeds MaxBytes")
    assert bench.pulls()
    assert bench.server.pulls[-1]["batch"] == 2 * MESSAGES - 1
    bench.told("409", "Message Size Exceeds MaxBytes")
    assert bench.pulls()
    assert "max_bytes" not in bench.server.pulls[-1]
    assert bench.server.pulls[-1]["batch"] == 1
    bench.deliver(1, size=BYTES * 5)
    bench.written()
    assert bench.pulls()
    assert bench.server.pulls[-1]["batch"] == 2 * MESSAGES


def test_limits_that_somebody_sets_are_asked_for_and_kept(bench: Bench) -> None:
    """As soon as a pull is refused for asking for more."""
    assert bench.pulls()
    bench.server.config = CONFIG | {"max_batch": 7}
    bench.told("409", "Exceeded MaxRequestBatch of 7")
    assert bench.pulls()
    assert bench.server.pulls[-1]["batch"] == 7
    assert bench.written() == [Gap.PAUSE]


def test_a_pull_that_is_refused_is_an_interruption(bench: Bench) -> None:
    """No leader, no JetStream: after a while the stream is looked at, and the next pull may not continue this one."""
    assert bench.pulls()
    bench.told("503")
    assert bench.step() == pytest.approx(REFUSED)
    bench.now += REFUSED
    bench.server.silent = True
    assert bench.step() == UNKNOWN
    bench.server.silent = False
    assert bench.pulls()
    assert (bench.server.looks, bench.written()) == (1, [Gap.LOST])


def test_a_server_that_goes_is_not_told_of_twice(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The connection ends with it, and tells: a line here for each stream would be one more."""
    caplog.set_level("INFO")
    for text, lines in (("Server Shutdown", 0), ("Leadership Change", 1)):
        bench.step()
        bench.told("409", text)
        assert len(caplog.records) == lines, caplog.text


def test_after_a_pause_the_stream_is_looked_at_first(bench: Bench) -> None:
    """Nothing can have been lost, but the stream may be another one."""
    assert bench.pulls()
    bench.deliver(2 * MESSAGES)
    bench.now += 2 * IDLE
    bench.written()
    assert bench.pulls()
    assert (bench.server.looks, bench.written()) == (1, [Gap.PAUSE])


def test_a_new_connection_is_an_interruption(bench: Bench) -> None:
    """The pull is gone, and deliveries may be."""
    assert bench.pulls()
    bench.server.is_connected = False
    bench.puller.interrupt()
    assert not bench.pulls()
    bench.server.is_connected = True
    bench.puller.interrupt()
    assert bench.pulls()
    assert bench.server.looks == 1
    assert bench.written() == [Gap.LOST] * 3


def ends(bench: Bench, kind: type[EventWriterError], match: str) -> None:
    """After an interruption the puller ends with this error, and does not pull."""
    bench.puller.interrupt()
    with pytest.raises(kind, match=match):
        bench.step()
    assert len(bench.server.pulls) == 1


def recreate(server: JetStream) -> None:
    """The stream is another one of the same name."""
    server.created = "2025-02-02T00:00:00Z"


def delete(server: JetStream) -> None:
    """The consumer is gone."""
    server.config = None


def strip(server: JetStream) -> None:
    """The consumer delivers without payloads."""
    server.config = CONFIG | {"headers_only": True}


def replace(server: JetStream) -> None:
    """The consumer is one that cannot serve us."""
    server.config = CONFIG | {"deliver_subject": "somewhere"}


@pytest.mark.parametrize(
    ("change", "kind", "match"),
    [
        (recreate, UnavailableError, "was created anew"),
        (delete, UnavailableError, "was deleted"),
        (strip, ConsumerEditedError, r"was changed \(headers_only\)"),
        (replace, ConfigurationError, "is a push consumer"),
    ],
)
def test_what_no_longer_fits_the_ledger_is_not_pulled(
    bench: Bench, change: Callable[[JetStream], None], kind: type[EventWriterError], match: str
) -> None:
    """Found before anything is delivered."""
    assert bench.pulls()
    change(bench.server)
    ends(bench, kind, match)


@pytest.mark.parametrize(
    ("status", "text", "match"),
    [
        ("400", "Bad Request", "refuses our pull request: Bad Request"),
        ("409", "Consumer Deleted", "was deleted"),
        ("409", "Consumer is push based", "is a push consumer"),
    ],
)
def test_some_refusals_end_the_worker(bench: Bench, status: str, text: str, match: str) -> None:
    """The main thread is told, and woken."""
    assert bench.pulls()
    bench.told(status, text)
    assert match in str(bench.handover.failure)
    assert bench.handover._arrived.is_set()


def test_silence_is_a_lost_pull_and_in_the_end_a_lost_connection(bench: Bench) -> None:
    """Heartbeats, or anything else, are signs of life."""
    assert bench.pulls()
    bench.told("100")
    bench.puller.silence()
    assert not bench.puller.pull.idle
    for _ in range(SILENCES - 1):
        bench.step()
        bench.puller.silence()
        assert bench.pulls()
    assert Gap.LOST in bench.written()
    with pytest.raises(UnavailableError, match="NATS is silent although connected"):
        bench.puller.silence()


def test_without_a_connection_silence_is_no_news(bench: Bench) -> None:
    """The client says when there is one again."""
    assert bench.pulls()
    bench.server.is_connected = False
    for _ in range(2 * SILENCES):
        bench.puller.silence()


class Turn:
    """A turn that the test deals out."""

    def __init__(self, *, mine: bool) -> None:
        self.mine = mine
        self.asked = 0

    def ask(self, got: Callable[[], object]) -> None:
        self.asked += 1

    def give(self) -> None:
        self.mine = False

    def leave(self) -> None:
        self.give()


@pytest.fixture
def turn(bench: Bench) -> Turn:
    """Its turn is another process's."""
    turn = Turn(mine=False)
    bench.puller._order._turn = turn  # type: ignore[assignment]
    return turn


def test_in_its_turn_a_process_pulls_one_batch_of_a_backlog(bench: Bench, turn: Turn) -> None:
    """And then it is the next one's turn; without a backlog it goes on."""
    assert not bench.pulls()
    assert (turn.asked, bench.puller.standby) == (1, True)
    turn.mine = True
    assert bench.pulls()
    assert bench.server.pulls[-1]["batch"] == MESSAGES
    bench.deliver(MESSAGES)
    bench.written()
    assert bench.pulls()
    bench.deliver(MESSAGES, pending=1)
    bench.written()
    assert not bench.pulls()
    assert (turn.mine, bench.puller.standby) == (False, True)


def test_whoever_wants_nothing_gives_its_turn(bench: Bench, turn: Turn) -> None:
    """During an outage of its PostgreSQL, for one."""
    turn.mine = True
    bench.handover.holding = True
    assert not bench.pulls()
    assert (turn.mine, turn.asked) == (False, 0)


def test_whoever_stands_still_in_its_turn_is_not_waited_for(bench: Bench, turn: Turn) -> None:
    """All pull, until the consumer goes on."""
    assert not bench.pulls()
    bench.puller.stuck(True)
    assert bench.puller.wake.is_set()
    assert bench.pulls()
    bench.told("408")
    bench.now += SHORTEST
    bench.puller.stuck(False)
    assert not bench.pulls()
    assert not turn.mine


def test_what_happens_wakes_who_waits_for_it(bench: Bench) -> None:
    """``run`` pulls again at once, not when it has waited for long enough."""

    async def two_pulls() -> None:
        running = asyncio.create_task(bench.puller.run())
        while not bench.server.pulls:
            await asyncio.sleep(0)
        bench.told("404", "No Messages")
        while len(bench.server.pulls) < 2:
            await asyncio.sleep(0)
        running.cancel()

    asyncio.run(asyncio.wait_for(two_pulls(), 5))
