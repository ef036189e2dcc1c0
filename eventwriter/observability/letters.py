"""The latest dead letters of a worker as people see them, handed to the monitor, which has no database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from msgspec import Struct, field
from msgspec.structs import replace

from eventwriter import values
from eventwriter.masking import community
from eventwriter.observability.board import Board, Slot
from eventwriter.observability.states import DeadLetter
from eventwriter.stream import Message, Reject

LATEST = 5
_PAUSE = 1.0
"""Seconds between two looks at the latest: each is decoded again for it, and there may be thousands a second."""

View = Callable[[Message, Reject], str]
"""What people see of a letter, in 4 KiB at most: five of them have to fit into a slot."""


class Views(Struct):
    """What a worker writes beside its state."""

    stream: str
    letters: list[DeadLetter] = field(default_factory=list)


class Letters:
    """Makes the views, while nothing else waits for longer than that takes."""

    def __init__(self, stream: str, view: View, slot: Slot) -> None:
        self._view = view
        self._slot = slot.beside
        self._views = self._slot.read(Views) or Views(stream)
        self._new: list[tuple[DeadLetter, Message, Reject]] = []
        self._next = 0.0

    def add(self, letters: Sequence[tuple[DeadLetter, Message, Reject]]) -> None:
        """Those of a commit, the latest first."""
        self._new = [*letters, *self._new][:LATEST]

    def tell(self, *, now: bool = False) -> None:
        """Makes the views of those that have none yet, if it is time to."""
        moment = time.monotonic()
        if not self._new or (moment < self._next and not now):
            return
        self._next = moment + _PAUSE
        shown = [self._shown(*each) for each in self._new]
        self._views.letters = [*shown, *self._views.letters][:LATEST]
        self._new = []
        self._slot.write(self._views)

    def _shown(self, letter: DeadLetter, message: Message, reject: Reject) -> DeadLetter:
        with suppress(Exception):  # a decoder of others: what cannot be shown must not end the worker
            return replace(letter, view=self._view(message, reject))
        return letter


def letter(now: float, message: Message, reject: Reject) -> DeadLetter:
    """What people see of one in a line."""
    return DeadLetter(
        time=now,
        reason=reject.reason,
        detail=values.clean(community.text(reject.detail[:1000])[:300], []),
        subject=message.subject[:200],
        sequence=message.sequence,
    )


def views(board: Board) -> dict[tuple[str, float, int], str]:
    """What is known of the latest letters, by stream, time and sequence."""
    return {
        (each.stream, letter.time, letter.sequence): letter.view
        for each in board.read(Views, beside=True)
        for letter in each.letters
    }
