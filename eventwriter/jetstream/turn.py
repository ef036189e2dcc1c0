"""Whose turn it is to pull: of the processes that share a durable, one at a time.

JetStream deals messages out to the pulls that wait, one by one. With eight of them a batch is an eighth as large, so
PostgreSQL has eight times as many transactions, and of a backlog each has every eighth message, so the ledger has
thousands of ranges. In turns, one process is enough for what arrives while the others stand by, and of a backlog each
gets a piece.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from fcntl import LOCK_EX, LOCK_UN, lockf


class Turns:
    """Made before the processes are forked: a file without a name, of which each durable has a byte to lock."""

    def __init__(self) -> None:
        self._file = os.memfd_create("eventwriter") if hasattr(os, "memfd_create") else _unnamed_file()
        self._places: dict[str, int] = {}

    def of(self, name: str) -> Turn:
        """That of the processes of this name."""
        return Turn(self._file, self._places.setdefault(name, len(self._places)))


def _unnamed_file() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Turn:
    """One process's way to its turn, which passes on when it is given, or when the process ends, however it does."""

    def __init__(self, file: int, place: int) -> None:
        self._file = file
        self._place = place
        self._waits = False
        self._got: Callable[[], object] | None = None
        self.mine = False

    def ask(self, got: Callable[[], object]) -> None:
        """Asks for it, unless it is ours; ``got`` is called when it is, in a thread that waits for it."""
        self._got = got
        if not self._waits and not self.mine:
            self._waits = True
            threading.Thread(target=self._wait, name="turn", daemon=True).start()

    def _wait(self) -> None:
        lockf(self._file, LOCK_EX, 1, self._place)
        self.mine, self._waits = True, False
        got = self._got
        if got is None:
            self.give()
        else:
            got()

    def give(self) -> None:
        """The next one, if it is ours."""
        if self.mine:
            self.mine = False
            lockf(self._file, LOCK_UN, 1, self._place)

    def leave(self) -> None:
        """Gives it, and does not want it any more, until it is asked for again."""
        self._got = None
        self.give()


class Order:
    """Whether a process pulls when it wants to: in turns, or always if it has the durable for itself."""

    def __init__(self, turn: Turn | None) -> None:
        self._turn = turn
        self.backlog = False
        """Whether more waits than the latest pull brought."""
        self.stuck = False
        """Whether whoever's turn it is seems to have stopped in it: then all pull, as if there were no turns."""

    @property
    def shared(self) -> bool:
        """Whether there are others."""
        return self._turn is not None

    @property
    def mine(self) -> bool:
        """Whether it is nobody else's turn."""
        return self._turn is None or self._turn.mine

    def admits(self, *, wanted: bool, idle: bool, got: Callable[[], object]) -> bool:
        """Whether to pull now, if that is ``wanted``; if not, ``got`` is called, in another thread, when it may.

        With a backlog, or nothing wanted, a process whose pull is over (``idle``) lets the others have their turn.
        """
        if self._turn is None:
            return wanted
        if idle and (self.backlog or not wanted):
            self.backlog = False
            self._turn.give()
        if wanted:
            self._turn.ask(got)
        return wanted and (self._turn.mine or self.stuck)
