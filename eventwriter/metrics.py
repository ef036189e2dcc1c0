"""What is observed: a board of shared memory on which every process writes its own state, and which the monitor reads.

The supervisor makes the board before it forks, one slot for each process name. There are no files, so nothing piles up
when processes die, and a slot outlives its process, so counters go on where they were.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Any

import orjson

from eventwriter.errors import ConfigurationError

SLOTS = 512
_HEADER = struct.Struct("<QII")  # writes so far, length of the first half, of the second
_HALF = 48 * 1024  # pages that nobody touches cost nothing
_SIZE = _HEADER.size + 2 * _HALF

AGE_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
"""Upper bounds, in seconds, of the histogram of event ages (broker time → commit); beyond the last: infinity."""

BATCH_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the histograms of what the stages of a batch take."""

FATES = ("written", "deadlettered", "already_done", "excluded", "released")
"""What becomes of a message. At rest, messages taken are the sum of these."""

SUPERVISOR = "supervisor"
"""The name of the slot in which the supervisor notes its children."""

STAGES = ("wait", "decode", "copy", "commit", "ack")
"""Of a batch: waiting for it, decoding, COPY, the rest of its transaction, and until its acks are confirmed."""


class Board:
    """Slots of JSON in anonymous shared memory. Each slot has one writer at a time and any number of readers."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, SLOTS * _SIZE)
        self._places: dict[str, int] = {}

    def slot(self, name: str) -> Slot:
        """The slot of this name, made before its writer is forked; raises ConfigurationError when all are taken."""
        place = self._places.setdefault(name, len(self._places))
        if place >= SLOTS:
            raise ConfigurationError(f"too many processes and streams: there is room for {SLOTS} of them")
        return Slot(self._memory, place * _SIZE)

    def read(self) -> Iterator[dict[str, Any]]:
        """The latest state of every slot made before this process was forked; the writers name themselves in it."""
        for place in self._places.values():
            state = Slot(self._memory, place * _SIZE).read()
            if state:
                yield state


class Slot:
    """One process's place: two halves, written in turn, so that a reader never meets half a state."""

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start

    def write(self, state: dict[str, Any]) -> None:
        """Replaces the state. What does not fit is left as it was: there is nobody to tell."""
        data = orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS)
        if len(data) > _HALF:
            return
        writes, *lengths = _HEADER.unpack_from(self._memory, self._start)
        half = (writes + 1) % 2
        begin = self._start + _HEADER.size + half * _HALF
        self._memory[begin : begin + len(data)] = data
        lengths[half] = len(data)
        _HEADER.pack_into(self._memory, self._start, writes + 1, *lengths)

    def read(self) -> dict[str, Any]:
        """The latest state, {} if there is none."""
        for _ in range(100):
            before = _HEADER.unpack_from(self._memory, self._start)
            half = before[0] % 2
            begin = self._start + _HEADER.size + half * _HALF
            data = self._memory[begin : begin + before[1 + half]]
            if _HEADER.unpack_from(self._memory, self._start) != before:
                continue  # written meanwhile: this half may have been next
            try:
                state = orjson.loads(data) if data else {}
            except orjson.JSONDecodeError:
                continue
            return dict(state)
        return {}
