"""Which messages are a ledger's business, told without a server."""

from __future__ import annotations

import pytest

from eventwriter.coverage import Past
from eventwriter.postgres import scope
from eventwriter.postgres.scope import Scope
from eventwriter.stream import Batch, Message


def message(sequence: int, subject: str = "a.x") -> Message:
    """One without a payload."""
    return Message(subject, b"", sequence, 0)


def batch(*messages: Message) -> Batch:
    """One whose sequences nobody has told."""
    return Batch(messages, [each.sequence for each in messages])


PAST = (Past(("b.>",), ((3, 5), (8, 8))), Past(("c",), ((1, 10),)))


@pytest.mark.parametrize(
    ("subject", "sequence", "done"),
    [
        ("b.x", 2, False),
        ("b.x", 3, True),
        ("b.x", 6, False),
        ("b.x", 8, True),
        ("c", 6, True),
        ("c", 11, False),
        ("a.x", 4, False),  # nothing was done of it then, whatever lies around it
    ],
)
def test_what_was_done_under_earlier_filters_is_told_by_subject_and_sequence(
    subject: str, sequence: int, done: bool
) -> None:
    """A range says nothing of subjects that its filters did not match."""
    assert Scope(("a.>",), PAST).in_past(message(sequence, subject)) is done


def test_a_batch_reaches_back_to_the_past_and_to_what_was_delivered() -> None:
    """Up to the last sequence of either; beyond both no question has to be asked."""
    found = Scope(("a.>",), PAST)
    assert found.past_last == 10
    assert found.reaches_back(batch(message(12), message(10)))
    assert not found.reaches_back(batch(message(12), message(11)))
    assert not found.reaches_back(Batch([message(12)], None, span=(11, 12)))
    assert found.reaches_back(Batch([message(12), message(10)], None, span=(9, 12)))
    found.delivered = 20
    assert found.reaches_back(batch(message(20)))
    assert not found.reaches_back(batch(message(21)))


def test_subjects_of_others_reach_back_however_many_of_ours_were_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new subject is matched once; what is remembered has a bound."""
    monkeypatch.setattr(scope, "_MANY_SUBJECTS", 3)
    found = Scope(("a.>",))
    for number in range(1, 10):
        assert not found.reaches_back(batch(message(number, f"a.{number}")))
        assert found.reaches_back(batch(message(number, f"a.{number}"), message(100, "b")))
        assert len(found._subjects) <= 4
