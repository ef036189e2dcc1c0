"""The numbers on deliveries: quick for the usual run of first deliveries, and the same one by one for all others."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from eventwriter.coverage import runs as runs_of
from eventwriter.jetstream.buffer import Buffer, Gap
from eventwriter.jetstream.deliveries import Portion, Sequencer, read
from eventwriter.jetstream.wire import Delivery
from eventwriter.stream import Message

SIZES = st.integers(1, 120)


def delivery(times: int, sequence: int, number: int, *, domain: bool = False, token: str = "") -> Delivery:
    """A delivery with these numbers on it, in the first or the second version of the reply subject."""
    place = "hub.A1B2." if domain else ""
    reply = f"$JS.ACK.{place}LOGS.eventwriter-logs.{times}.{sequence}.{number}.{1_700_000_000 + sequence}.5{token}"
    headers = b"NATS/1.0\r\na: b\r\n\r\n" if sequence % 5 == 0 else None
    return b"logs.\xff" if sequence % 3 == 0 else b"logs.x", b"x" * (sequence % 4), reply.encode(), headers


def portion(*deliveries: Delivery) -> Portion:
    """These deliveries, read."""
    return read(deliveries, sum(len(payload) for _, payload, _, _ in deliveries))


def taken(buffer: Buffer) -> list[Portion]:
    """The next batch of a buffer in which there is something, and no gap first."""
    found = buffer.take()
    assert isinstance(found, list)
    assert found
    return found


def one_by_one(deliveries: list[tuple[int, int, int]]) -> list[int]:
    """The first sequence that each accounts for, by the rule itself."""
    firsts, previous = [], None
    for times, sequence, number in deliveries:
        first = sequence
        if times == 1 and previous and previous[0] + 1 == number and previous[1] < sequence:
            first = previous[1] + 1
        previous = (number, sequence) if times == 1 else None
        firsts.append(first)
    return firsts


@st.composite
def runs(draw: st.DrawFn) -> list[tuple[int, int, int]]:
    """Deliveries as a consumer makes them: mostly the next message, with gaps, sometimes one again, some lost."""
    found = []
    sequence, number = 0, draw(st.integers(0, 3))
    for _ in range(draw(st.integers(1, 40))):
        number += draw(st.sampled_from([1] * 9 + [2]))
        if draw(st.integers(0, 9)) == 0:
            found.append((draw(st.integers(2, 5)), draw(st.integers(1, sequence + 1)), number))
        else:
            sequence += draw(st.sampled_from([1] * 9 + [3]))
            found.append((1, sequence, number))
    return found


@given(
    runs(),
    st.lists(st.integers(1, 15), max_size=10),
    st.integers(1, 20),
    st.booleans(),
    st.sampled_from(["", ".x7", ".42"]),
)
def test_batches_say_the_same_as_one_by_one(
    deliveries: list[tuple[int, int, int]], cuts: list[int], most: int, domain: bool, token: str
) -> None:
    """However the deliveries arrive and are cut into batches, and whatever the form of their reply subjects."""
    sequencer = Sequencer(lambda: None)
    made = [delivery(*numbers, domain=domain, token=token if domain else "") for numbers in deliveries]
    buffer = Buffer(most, 1 << 30)
    left = made
    for cut in [*cuts, len(made)]:
        if arrived := left[:cut]:
            buffer.put(portion(*arrived))
        left = left[cut:]
    messages: list[Message] = []
    firsts: list[int] = []
    replies: list[bytes] = []
    size = again = 0
    while not buffer.empty:
        batch = sequencer.batch(taken(buffer))
        messages += batch.messages
        firsts += batch.each_first()
        replies += b"\n".join(batch.reply_subjects).split(b"\n")
        size += batch.size
        if batch.span:
            sequences = [message.sequence for message in batch.messages]
            assert runs_of(batch.each_first(), sequences) == [batch.span]
        again += batch.redelivered
    assert firsts == one_by_one(deliveries)
    assert [message.sequence for message in messages] == [sequence for _, sequence, _ in deliveries]
    assert [message.time for message in messages] == [1_700_000_000 + sequence for _, sequence, _ in deliveries]
    assert [message.headers for message in messages] == [
        {"a": "b"} if sequence % 5 == 0 else None for _, sequence, _ in deliveries
    ]
    assert {message.subject for message in messages} <= {"logs.x", "logs.�"}
    assert size == sum(len(message.payload) for message in messages)
    assert again == sum(int(times > 1) for times, _, _ in deliveries)
    assert replies == [reply for _, _, reply, _ in made]


def test_a_run_of_first_deliveries_has_a_span() -> None:
    """Also when messages of others lie between; not when one of it came before, or comes twice."""
    sequencer = Sequencer(lambda: None)
    assert sequencer.batch([portion(delivery(1, 5, 1), delivery(1, 6, 2))]).span == (5, 6)
    assert sequencer.batch([portion(delivery(1, 9, 3)), portion(delivery(1, 12, 4))]).span == (7, 12)
    assert sequencer.batch([portion(delivery(1, 13, 5), delivery(2, 14, 6))]).span is None
    assert sequencer.batch([portion(delivery(1, 15, 7), delivery(1, 15, 8))]).span is None
    assert sequencer.batch([portion(delivery(1, 16, 9)), portion(delivery(1, 16, 10))]).span is None
    assert sequencer.batch([portion(delivery(1, 17, 11)), portion(delivery(1, 19, 13))]).span is None


def test_reply_subjects_of_both_versions_may_be_mixed() -> None:
    """A cluster that is being upgraded sends both."""
    both = portion(delivery(1, 7, 1), delivery(1, 9, 2, domain=True), delivery(1, 10, 3))
    batch = Sequencer(lambda: None).batch([both])
    assert [message.sequence for message in batch.messages] == [7, 9, 10]
    assert list(batch.each_first()) == [7, 8, 10]


def test_counting_from_the_beginning_again_is_told() -> None:
    """The consumer was created anew: nothing follows from what came before, in one batch or the next."""
    told: list[bool] = []
    sequencer = Sequencer(lambda: told.append(True))
    sequencer.batch([portion(delivery(1, 5, 8), delivery(1, 6, 9))])
    assert list(sequencer.batch([portion(delivery(1, 9, 1), delivery(1, 12, 2))]).each_first()) == [9, 10]
    assert told == [True]
    assert list(sequencer.batch([portion(delivery(1, 13, 3)), portion(delivery(1, 1, 1))]).each_first()) == [13, 1]
    assert told == [True, True]


def test_after_an_interruption_nothing_is_concluded() -> None:
    """Deliveries may have been lost with a connection."""
    sequencer = Sequencer(lambda: None)
    sequencer.batch([portion(delivery(1, 5, 8))])
    sequencer.interrupted()
    assert list(sequencer.batch([portion(delivery(1, 9, 9))]).each_first()) == [9]


def test_what_a_delivery_says_is_pending() -> None:
    """In both versions of the reply subject, after the last."""
    assert portion(delivery(1, 6, 1), delivery(1, 7, 1)).pending == 5
    assert portion(delivery(1, 7, 1, domain=True, token=".x7")).pending == 5


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.lists(st.integers(1, 9)), st.integers(1, 9), SIZES)
@example([2, 0], [], 2, 2)  # nothing more is taken when it is full, not even what is empty
def test_a_batch_has_so_many_messages_and_bytes_and_one_more(
    sizes: list[int], cuts: list[int], most: int, bound: int
) -> None:
    """Nothing is lost or changes its place, and the accounts are those of what waits."""
    buffer = Buffer(most, bound)
    made = [(b"logs.x", b"x" * size, f"$JS.ACK.L.c.1.{n}.{n}.{n}.5".encode(), None) for n, size in enumerate(sizes, 1)]
    left: list[Delivery] = [*made]
    for cut in [*cuts, len(made)]:
        if arrived := left[:cut]:
            buffer.put(portion(*arrived))
        left = left[cut:]
    found: list[int] = []
    while not buffer.empty:
        assert (len(buffer), buffer.size) == (len(made) - len(found), sum(sizes[len(found) :]))
        full = buffer.full
        portions = taken(buffer)
        messages = [message for each in portions for message in each.messages]
        assert len(messages) <= most
        assert sum(len(message.payload) for message in messages[:-1]) < bound
        assert full == (len(messages) == most or sum(len(message.payload) for message in messages) >= bound)
        found += [message.sequence for message in messages]
    assert found == [*range(1, len(made) + 1)]
    assert (len(buffer), buffer.size, buffer.full) == (0, 0, False)


def test_a_batch_ends_at_a_gap() -> None:
    """Which is told before what follows it."""
    buffer = Buffer(100, 1000)
    buffer.put(portion(delivery(1, 5, 1)))
    buffer.mark(Gap.LOST)
    buffer.put(portion(delivery(1, 6, 2)))
    buffer.put(portion(delivery(1, 7, 3)))
    seen = [buffer.gap]
    assert [len(each.messages) for each in taken(buffer)] == [1]
    seen.append(buffer.gap)
    assert buffer.take() is Gap.LOST
    assert [*seen, buffer.gap] == [True, True, False]
    assert [len(each.messages) for each in taken(buffer)] == [1, 1]
    assert buffer.empty
