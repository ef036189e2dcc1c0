"""An outage in the log: a handful of lines, however long it lasts, how often something is tried, and for how many."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, lockf
from time import monotonic, sleep
from typing import Any

from eventwriter.errors import listed

CAUSES = 5
"""So many causes are told when they are first met; most often the second is the one that a reader looks for."""
SUMMARY = 60.0
"""Seconds between two lines while it lasts."""
JOINING = 5.0
"""Seconds after which is told whom else it concerns."""
_GONE = 2 * SUMMARY
"""Seconds after which nobody waits any more who did not try meanwhile: its process is another one, or not wanted."""
_TRIES, _PAUSE = 20, 0.001
"""For the lock; who has it may have been stopped, and is not waited for."""

KINDS = {
    "NATS": ("no NATS", "NATS is back"),
    "PostgreSQL": ("no PostgreSQL", "PostgreSQL is back"),
    "messages": ("messages do not flow", "messages flow again"),
}
"""What processes can be in together, and how that and its end are told."""
_COUNTED = re.compile(r"\b\d[\d.,]*(?= (?:messages|s)\b)|(?<=\bpid )\d+")
"""What differs from stream to stream and from second to second although the cause is the same."""

_State = dict[str, Any]


class Together:
    """Where the processes of a service note what they cannot reach, so that one of them tells of it for all.

    Made before they are forked: files without a name, one for each kind of outage. A lock goes with its process.
    """

    def __init__(self) -> None:
        self._files = {what: _unnamed() for what in KINDS}

    def member(self, name: str) -> Member:
        """What a process of this name notes."""
        return Member(name, self._files)


class Member:
    """One process's way to what all note."""

    def __init__(self, name: str, files: Mapping[str, int]) -> None:
        self.name = name
        self._files = files

    @contextlib.contextmanager
    def noted(self, what: str) -> Iterator[_State | None]:
        """What is noted of one kind, to be changed; None if it cannot be had now."""
        file = self._files[what]
        if not _locked(file):
            yield None
            return
        try:
            state = _read(file)
            yield state
            data = json.dumps(state).encode()
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))
        finally:
            lockf(file, LOCK_UN)


class Outage:
    """What a worker cannot do. A cause is told once, then how long it lasts, at last that it is over.

    Of all that are in it together one tells this, and soon who they are.
    """

    def __init__(
        self,
        log: logging.Logger,
        what: str,
        extra: Mapping[str, object],
        clock: Callable[[], float] = monotonic,
        member: Member | None = None,
        level: int = logging.ERROR,
        own: Iterable[str] = (),
    ) -> None:
        """``what`` is missing, such as PostgreSQL; without a ``member`` we are alone. ``own`` names only we have."""
        self._log = log
        self._what = what
        self._missing, self._back = KINDS.get(what, (f"no {what}", f"{what} is back"))
        self._extra = extra
        self._clock = clock
        self._member = member
        self._level = level
        self._name = member.name if member else ""
        self._stream = str(extra.get("stream", ""))
        self._own = (self._stream, *own)
        self._alone: _State = {}
        # Who was before us under this name may have been in one, and died in it.
        self._away = member is not None

    def failed(self, cause: str, then: str = "trying again", *, tried: bool = True, began: float | None = None) -> None:
        """It could not be done, perhaps for the first time; ``tried`` just now, and not since it ``began``."""
        with self._noted() as state:
            told, ours = self._news(state, cause, then, tried, began)
        self._away = True
        if told:
            self._log.log(self._level, "%s", told, extra=self._extra if ours else {})

    def over(self) -> None:
        """It can be done, perhaps again."""
        if not self._away:
            return
        self._away = False
        with self._noted() as state:
            waiting = state.get("waiting", {})
            if waiting.pop(self._name, None) is None or waiting:
                return
            lasted, streams = self._clock() - state["since"], sorted(state["streams"])
            state.clear()
        whose = f" ({listed(streams)})" if len(streams) > 1 else ""
        self._log.info("%s after %.1f s%s", self._back, lasted, whose, extra={} if whose else self._extra)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[_State]:
        """What all know, or if that cannot be had, what we know alone."""
        if self._member is None:
            yield self._alone
            return
        with self._member.noted(self._what) as state:
            yield self._alone if state is None else state

    def _news(self, state: _State, cause: str, then: str, tried: bool, began: float | None) -> tuple[str, bool]:
        """Notes a failure; what is to be told of it, if anything, and whether that is of our stream alone."""
        now = self._clock()
        waiting = state.setdefault("waiting", {})
        for name in [name for name, (_, latest) in waiting.items() if now - latest > _GONE]:
            del waiting[name]
        if not waiting:
            since = now if began is None else began
            state.update(since=since, told=now, tries=0, causes=[], streams=[], named=[])
        waiting[self._name] = self._stream, now
        state["tries"] += tried
        if self._stream not in state["streams"]:
            state["streams"].append(self._stream)
        causes, named = state["causes"], state["named"]
        alike = general(cause, self._own)
        if alike not in causes and len(causes) < CAUSES:
            causes.append(alike)
            named.append(self._stream)
            return f"{cause}: {then}", True
        away = sorted({stream for stream, _ in waiting.values()})
        joined = not named or not set(away) <= set(named)
        if now - state["told"] < (JOINING if joined else SUMMARY):
            return "", True
        state["told"], state["named"] = now, away
        shared = len(away) > 1
        whose = f" ({listed(away)})" if shared else ""
        why = nameless(cause, self._own) if shared else cause
        tries = f", {state['tries']} tries" if state["tries"] else ""
        return f"{self._missing} for {now - state['since']:.0f} s{whose}{tries}: {why}", not shared


def general(text: str, own: Iterable[str]) -> str:
    """What is told without what is of one stream alone: the names that are its own, and what differs by the second."""
    return _COUNTED.sub("…", nameless(text, own))


def nameless(text: str, own: Iterable[str]) -> str:
    """Without the names that are one stream's own."""
    for each in sorted(filter(None, own), key=len, reverse=True):
        text = re.sub(rf"(?<![\w.-]){re.escape(each)}(?![\w-])", "…", text)
    return text


def _unnamed() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("eventwriter")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _locked(file: int) -> bool:
    for _ in range(_TRIES):
        with contextlib.suppress(OSError):
            lockf(file, LOCK_EX | LOCK_NB)
            return True
        sleep(_PAUSE)
    return False


def _read(file: int) -> _State:
    """What is noted; nothing, if who wrote it was killed meanwhile."""
    try:
        found = json.loads(os.pread(file, os.fstat(file).st_size, 0) or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
