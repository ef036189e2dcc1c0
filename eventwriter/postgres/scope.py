"""Which messages are a ledger's business: those its filters match, beside what was done under earlier filters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from eventwriter.config import subjects
from eventwriter.coverage import Past, believed, wanted
from eventwriter.stream import Batch, Message

_MANY_SUBJECTS = 10_000
"""Subjects to remember as ours: to look each up in a set costs a tenth of matching it."""


class Scope:
    """The filters that a ledger's row is believed for, and the past under others."""

    def __init__(self, patterns: Sequence[str], past: Sequence[Past] = ()) -> None:
        """``patterns`` are beliefs as ``coverage`` has them."""
        self.past = tuple(past)
        self.filters = wanted(patterns, past)
        """What is missing is looked for by these."""
        self.wants = subjects.matcher(believed(patterns)[0])
        """Whether a subject matches the filters."""
        self.delivered = 0
        """What the consumer had delivered when we began: again, it may deliver what earlier filters matched."""
        self.past_last = max((last for entry in self.past for _, last in entry.done), default=0)
        """The highest sequence that was done under earlier filters, 0 if none."""
        self._subjects: set[str] = set()
        self._of_past = [(self._matcher(entry), entry.done) for entry in self.past]

    def reaches_back(self, batch: Batch) -> bool:
        """Whether any of its messages may be of earlier or of others' filters, which ``record`` does not look at."""
        strange = {message.subject for message in batch.messages} - self._subjects
        if strange:
            if len(self._subjects) > _MANY_SUBJECTS:
                self._subjects.clear()
            self._subjects.update(filter(self.wants, strange))
            if not strange <= self._subjects:
                return True
        last = max(self.past_last, self.delivered)
        if batch.span is not None and batch.span[0] > last:  # as is usual: no need to look at each
            return False
        return min(message.sequence for message in batch.messages) <= last

    def in_past(self, message: Message) -> bool:
        """Whether it was done under earlier filters."""
        return message.sequence <= self.past_last and any(
            matches(message.subject) and any(first <= message.sequence <= last for first, last in done)
            for matches, done in self._of_past
        )

    @staticmethod
    def _matcher(entry: Past) -> Callable[[str], bool]:
        filters, left_out = map(subjects.matcher, believed(entry.filters))
        return lambda subject: filters(subject) and not left_out(subject)
