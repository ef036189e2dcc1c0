"""How a batch is tried next, without a server: when rows are staged, and what follows a refusal."""

from __future__ import annotations

import time

import pytest
from psycopg import sql

from eventwriter.errors import SchemaError
from eventwriter.postgres.attempt import Attempt
from eventwriter.postgres.errors import RowRefused
from eventwriter.postgres.plan import Plan, plan_of, target_of
from eventwriter.postgres.policy import Sizes, StagingPolicy, collides, following
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream
from workers._limits import RECORDS_MAX, REJECTS_MAX

STREAM = Stream("NUMBERS", (">",), "numbers", (Column("n", "bigint"),), lambda message: ROWS[message.payload])
ROWS: dict[bytes, Decoded] = {
    b"one": Decoded([(1,)]),
    b"none": Decoded(),
    b"two": Decoded([(2,), (3,)], [Reject("malformed", "the first of three", 0)]),
}


@pytest.mark.parametrize(
    ("collisions", "staged"),
    [
        ([], 0),
        ([0], 2),
        ([0, 0], 4),
        ([0, 0, 0], 8),
        ([0, 1], 2),  # one batch straight in makes up for it
        ([0, 0, 1], 4),
        ([0, 0, 2], 2),
        ([0] * 20, 1024),
    ],
)
def test_batches_are_staged_for_longer_the_sooner_it_is_needed_again(collisions: list[int], staged: int) -> None:
    """Each collision comes after so many batches that were written straight in; then how many are staged."""
    policy = StagingPolicy()
    for before in collisions:
        while policy.due:
            policy.wrote(staged=True)
        for _ in range(before):
            policy.wrote(staged=False)
        policy.collided()
    for _ in range(staged):
        assert policy.due
        policy.wrote(staged=True)
    assert not policy.due


def tries(limit: int, messages: int, sizes: Sizes) -> list[int]:
    """The sizes in which so many messages are tried where ``limit`` at most get through at once."""
    found, left = [], messages
    while left:
        found.append(min(left, sizes.most))
        if found[-1] > limit:
            sizes.failed(found[-1])
        else:
            sizes.wrote(found[-1])
            left -= found[-1]
    return found


def test_the_size_that_works_is_found_and_kept() -> None:
    """What is too much is halved; larger sizes are tried ever more seldom while that does not work."""
    sizes = Sizes()
    assert tries(300, 1000, sizes)[:3] == [1000, 500, 250]
    later = tries(300, 100_000, sizes)
    assert later.count(500) < 12
    assert set(later) == {250, 500}


def test_larger_sizes_come_back() -> None:
    """At once where something else was in the way, however small the parts had become; soon after a long time, too."""
    sizes = Sizes()
    for size in (1000, 500, 250, 125, 62, 31, 15, 7, 3, 1, 1, 1):
        sizes.failed(size)
    assert tries(10**6, 2000, sizes)[:10] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]
    tries(300, 100_000, sizes)
    assert max(tries(10**6, 300_000, sizes)) > 50_000


def test_small_batches_say_nothing_of_large_ones() -> None:
    """However many of them are written."""
    sizes = Sizes()
    sizes.failed(1000)
    for _ in range(100):
        sizes.wrote(10)
    assert sizes.most == 500


@pytest.mark.parametrize("span", [None, (3, 30)])
def test_a_part_of_a_batch_accounts_for_what_lies_before_its_messages(span: tuple[int, int] | None) -> None:
    """With the parts one has the ranges of the whole."""
    messages = [Message("a", b"12", number, 0) for number in (5, 10, 20, 30)]
    whole = Batch(messages, None if span else [3, 6, 11, 21], span=span, reread=True)
    assert whole.part(0, 4) is whole
    parts = [whole.part(0, 1), whole.part(1, 2), whole.part(3, 9)]
    assert [[message.sequence for message in part.messages] for part in parts] == [[5], [10, 20], [30]]
    assert [[*part.each_first()] for part in parts] == [[3], [6, 11], [21]]
    assert [part.span for part in parts] == ([(3, 5), (6, 20), (21, 30)] if span else [None] * 3)
    assert [Attempt(part).ranges() for part in parts] == [[(3, 5)], [(6, 20)], [(21, 30)]]
    assert [(part.size, part.reread) for part in parts] == [(2, True), (4, True), (2, True)]


def plan(*keys: tuple[str, ...]) -> Plan:
    """For a table with these unique keys."""
    return plan_of(STREAM, sql.Identifier("numbers"), "numbers", [target_of("n", 0, "bigint", "bigint")], keys, 1)


def attempt(*payloads: bytes, staged: bool = False) -> Attempt:
    """At messages with these payloads, whose rows were all encoded."""
    messages = [Message("a", payload, number, 0) for number, payload in enumerate(payloads, 1)]
    found = Attempt(Batch(messages, range(1, len(messages) + 1)), staged=staged)
    for payload in payloads:
        found.ends.append((found.ends or [0])[-1] + len(ROWS[payload].rows))
    return found


@pytest.mark.parametrize(
    ("sqlstate", "staged", "collision"),
    [
        ("23505", False, True),
        ("23P01", False, True),
        ("23505", True, False),
        ("22003", False, False),
        (None, False, False),
    ],
)
def test_only_a_key_that_is_there_is_what_staging_is_for(sqlstate: str | None, staged: bool, collision: bool) -> None:
    """Whatever is known of the table's keys, and if it was not staged already."""
    assert collides(RowRefused(1, sqlstate, "no"), attempt(b"one", staged=staged)) is collision


@pytest.mark.parametrize(("line", "message", "record"), [(1, 0, 0), (2, 2, 1), (3, 2, 2), (4, 3, 0)])
def test_the_first_refused_row_is_left_out(line: int, message: int, record: int) -> None:
    """A line of COPY tells the message and the record, beside those that have no row."""
    then = following(RowRefused(line, "22003", "no"), attempt(b"one", b"none", b"two", b"one"), STREAM, plan())
    assert then.refused == {message: {record: Reject("refused", "no", record, "22003")}}
    assert (then.staged, then.isolate) == (False, False)


def test_to_leave_one_out_of_many_costs_little() -> None:
    """At the limits of a message, where the COPY of its other rows is under way meanwhile."""
    rejects = [Reject("malformed", "no", 9 * number) for number in range(REJECTS_MAX)]
    many = Decoded([(number,) for number in range(RECORDS_MAX - REJECTS_MAX)], rejects)
    ROWS[b"many"] = many
    line = len(many.rows)
    begun = time.process_time()
    then = following(RowRefused(line, "22003", "no"), attempt(b"many"), STREAM, plan())
    assert then.refused == {0: {RECORDS_MAX - 1: Reject("refused", "no", RECORDS_MAX - 1, "22003")}}
    assert then.note(0, many).rows == many.rows[:-1]
    assert time.process_time() - begun < 5


def test_then_postgresql_finds_them() -> None:
    """A second refusal, one without a line, and one while staged: row by row; what is refused there too is an error."""
    once = following(RowRefused(1, "22003", "no"), attempt(b"one", b"one"), STREAM, plan())
    for refusal, before in (
        (RowRefused(1, "22003", "no"), once),
        (RowRefused(None, "22003", "no"), attempt(b"one")),
        (RowRefused(1, "22003", "no"), attempt(b"one", staged=True)),
    ):
        then = following(refusal, before, STREAM, plan())
        assert (then.staged, then.isolate, then.refused) == (True, True, before.refused)
        with pytest.raises(SchemaError, match="table numbers refuses rows one by one: no"):
            following(refusal, then, STREAM, plan())


def test_a_key_that_is_there_is_staged_and_not_isolated() -> None:
    """Whatever line it was."""
    then = following(RowRefused(1, "23505", "there"), attempt(b"one"), STREAM, plan(("n",)))
    assert (then.staged, then.isolate, then.refused) == (True, False, {})
