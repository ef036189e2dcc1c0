"""What is observed: a board of shared memory on which every process writes its own state, and which the monitor reads.

The supervisor makes the board before it forks, one slot for each process name. There are no files, so nothing piles up
when processes die, and a slot outlives its process, so counters go on where they were.
"""

from __future__ import annotations

import mmap
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import TypeVar, cast

import msgspec

from eventwriter.errors import ConfigurationError

T = TypeVar("T")

SLOTS = 512
_HEADER = struct.Struct("<QII")  # number of the write, length, CRC-32 of both and of the data
_HALF = 64 * 1024  # pages that nobody touches cost nothing
_PAIR = 2 * _HALF
_SIZE = 2 * _PAIR
"""A slot, and what its writer has to say more seldom, which has a place of the same size behind it."""
LARGEST = _HALF - _HEADER.size
"""Bytes of JSON that fit into a slot."""

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
        self.reserve([name])
        return Slot(self._memory, self._places[name] * _SIZE)

    def reserve(self, names: Iterable[str]) -> None:
        """A place for each of these names, or for none of them: raises ConfigurationError when there are too few.

        A place stays that of its name, wanted or not: what its process has counted is told for as long as we live.
        """
        wanted = dict.fromkeys(names)
        earlier = len(self._places.keys() - wanted.keys())
        if earlier + len(wanted) > SLOTS:
            text = f"too many processes and streams: there is room for {SLOTS} of them"
            if len(wanted) <= SLOTS:
                text += (
                    f", and {earlier} keep what was counted under earlier settings: a restart of the service ends that"
                )
            raise ConfigurationError(text)
        for name in wanted:
            self._places.setdefault(name, len(self._places))

    def read(self, kind: type[T] | UnionType, *, beside: bool = False) -> Iterator[T]:
        """The latest state, of this kind, of every slot made before this process was forked. It tells whose it is.

        Or what is ``beside`` it.
        """
        for place in self._places.values():
            slot = Slot(self._memory, place * _SIZE)
            state: T | None = (slot.beside if beside else slot).read(kind)
            if state is not None:
                yield state


class Slot:
    """One process's place: two halves, written in turn, so that the one before is whole while one is written.

    A half counts only if its checksum fits. So a reader never meets half a state, and a writer that is killed in the
    middle leaves the state before.
    """

    def __init__(self, memory: mmap.mmap, start: int) -> None:
        self._memory = memory
        self._start = start
        self._writes: int | None = None

    @property
    def beside(self) -> Slot:
        """The place for what is written more seldom, of another kind."""
        return Slot(self._memory, self._start + _PAIR)

    def write(self, state: object) -> bool:
        """Replaces the state, if the new one fits; whether it does."""
        data = msgspec.json.encode(state)
        if len(data) > LARGEST:
            return False
        if self._writes is None:
            self._writes = self._latest()[0]
        self._writes += 1
        start = self._start + self._writes % 2 * _HALF
        begin = start + _HEADER.size
        self._memory[begin : begin + len(data)] = data
        _HEADER.pack_into(self._memory, start, self._writes, len(data), _checksum(self._writes, data))
        return True

    def read(self, kind: type[T] | UnionType) -> T | None:
        """The latest state, which is of this kind; None if there is none."""
        data = self._latest()[1]
        return cast("T", _decoder(kind).decode(data)) if data else None

    def _latest(self) -> tuple[int, bytes]:
        """(number of the write, its data) of the newest state; (0, b"") if there is none.

        A writer overwrites the older half. So if the newer one is not whole, it became the older one meanwhile: the
        other is newer now, and is looked up again. To take whichever is whole could take a state that is older than
        one read before. Only a writer that was killed leaves a half that stays torn.
        """
        for _ in range(100):
            found = self._half(max((0, 1), key=self._number))
            if found[0] >= 0:
                return found
        return max((0, b""), self._half(0), self._half(1))

    def _number(self, half: int) -> int:
        number: int = _HEADER.unpack_from(self._memory, self._start + half * _HALF)[0]
        return number

    def _half(self, half: int) -> tuple[int, bytes]:
        """(number of the write, its data) of a half; number 0: never written, -1: not whole."""
        start = self._start + half * _HALF
        number, length, checksum = _HEADER.unpack_from(self._memory, start)
        begin = start + _HEADER.size
        data = self._memory[begin : begin + min(length, LARGEST)]
        return (number, data) if not number or _checksum(number, data) == checksum else (-1, b"")


_MAKING = threading.Lock()
_DECODERS: dict[object, msgspec.json.Decoder[object]] = {}


def _decoder(kind: object) -> msgspec.json.Decoder[object]:
    """One thread makes it: what msgspec knows of a Struct is there for others while it is made, and ends a process that
    decodes by half of it."""
    with _MAKING:
        if kind not in _DECODERS:
            _DECODERS[kind] = msgspec.json.Decoder(cast("type[object]", kind))
        return _DECODERS[kind]


def _checksum(number: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(number.to_bytes(8, "little")))
