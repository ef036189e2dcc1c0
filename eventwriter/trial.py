"""Tries in a child process what was delivered before: it may be what killed the worker that had it in hand.

JetStream remembers the deliveries, so there is no note to keep: whoever gets a message that was in somebody's hand, on
whatever host, after whatever end, lets a child decode it first. A child that dies takes nothing with it, tells how far
it came, and leaves no doubt who ended it: a worker that people kill, an outage, the memory of others prove nothing.
"""

from __future__ import annotations

import gc
import logging
import mmap
import os
import resource
import select
import signal
import struct
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple, NoReturn

from eventwriter.config.loading import StreamConfig
from eventwriter.errors import UnavailableError
from eventwriter.postgres.rehearsal import rehearse
from eventwriter.postgres.sink import Sink
from eventwriter.processes.child import how
from eventwriter.processes.process import die_with_parent
from eventwriter.processes.signals import STOP_SIGNALS, reset_signals
from eventwriter.stream import Batch, Decoded, Message, Reject, Stream

log = logging.getLogger("eventwriter.worker")

DEATHS = 3
"""So often a message has to end the process that decodes nothing else, until it is a dead letter."""
MEMORY = 2**30
"""Bytes that a child may have beyond what its worker has: then it ends, and not the machine."""
_GROWN = 64 * 2**20
"""Bytes that a child has to have taken for its kill to be its own doing: it may have been the system's, for memory."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
                 signal.SIGUSR2, signal.SIGALRM, signal.SIGPIPE, signal.SIGCONT)  # fmt: skip
"""Signals that others send: an end by one of these is no proof."""
_BUSY = 20.0
"""Seconds of a processor after which a message is not believed to come to an end; the largest take a quarter of it."""
_BEAT = 0.25
"""Seconds between two signs of life while a child is at work."""
_NOTE = struct.Struct("<QII")  # place, one of the following, length of the text
_AT_WORK, _PASSED, _STARVED = range(3)
_TEXT = 400


class Death(NamedTuple):
    """How a child ended that did not come to the end of its messages."""

    place: int
    """The message that it was at, or the first of a few."""
    cause: str


class Trial:
    """Of one worker, whose ``sink`` does all that it does with messages but to write them."""

    def __init__(
        self,
        sink: Sink,
        config: StreamConfig,
        beat: Callable[[], None] = lambda: None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """A message may take ``stall_timeout``, or what _BUSY tells; ``beat`` is called all the while."""
        self._sink = sink
        self._timeout = config.writer.stall_timeout
        self._beat = beat
        self._stopping = stopping
        self._extra = {"stream": config.name}
        self._tried: Batch | None = None
        self._unable = False

    def due(self, batch: Batch) -> bool:
        """Whether somebody had some of it in hand before, and it was not tried yet."""
        return bool(batch.redelivered or batch.reread) and batch is not self._tried and not self._unable

    def crashing(self, batch: Batch, done: Collection[int]) -> Mapping[int, str]:
        """The sequences of those that cannot be decoded in any process, with the cause; nearly always none.

        Those that are ``done`` are not tried. Raises UnavailableError if a child ended by what others did, or it is
        time to end.
        """
        found: Mapping[int, str] = {}
        try:
            found = self._found([each for each in batch.messages if each.sequence not in done])
        except OSError as error:
            self._unable = True
            log.warning("messages cannot be tried in a child process: %s", error, extra=self._extra)
        self._tried = batch
        return found

    def _found(self, messages: Sequence[Message]) -> dict[int, str]:
        found: dict[int, str] = {}
        while messages and (death := self._try(messages)):
            message = messages[death.place]
            log.warning(
                "message %d was delivered before and ended a process, %s: trying it alone",
                *(message.sequence, death.cause),
                extra=self._extra,
            )
            if cause := self._alone(message, deaths=0 if death.place else 1):
                found[message.sequence] = cause
            messages = messages[death.place + 1 :]
        return found

    def _alone(self, message: Message, deaths: int) -> str | None:
        """What ends each process that has it alone in hand, as ``deaths`` did already; None if something does not."""
        while (death := self._try([message])) is not None:
            deaths += 1
            if deaths >= DEATHS:
                log.error("message %d is a dead letter: %s", message.sequence, death.cause, extra=self._extra)
                return death.cause
        return None

    def _try(self, messages: Sequence[Message]) -> Death | None:
        """Lets a child decode them; None if it came to their end. Raises UnavailableError, as ``crashing`` tells."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # inherited as ignored, nobody could learn how it ends
        resident, parent = _statm(1), os.getpid()
        with mmap.mmap(-1, _NOTE.size + _TEXT) as note:
            ended, end = os.pipe()
            try:
                pid = os.fork()
                if not pid:
                    _live(rehearse(self._sink, messages), note, parent)
            finally:
                os.close(end)
            try:
                late = self._wait(pid, note, ended)
            finally:
                os.close(ended)
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)  # not its doing: what is looked at is what it was before
                _, wait_status, usage = os.wait4(pid, 0)
            place, state, length = _NOTE.unpack_from(note)
            text = note[_NOTE.size : _NOTE.size + length].decode("utf-8", "replace")
        if state == _PASSED:
            return None
        if late:
            return Death(place, f"no end after {late:.3g} s")
        status = os.waitstatus_to_exitcode(wait_status)
        killed = status < 0 and -status in _FROM_OUTSIDE and usage.ru_maxrss * 1024 - resident < _GROWN
        if killed or state == _STARVED:
            cause = "no memory is left" if state == _STARVED else how(status)
            raise UnavailableError(f"a process that tries messages which were delivered before was ended: {cause}")
        return Death(place, text or how(status))

    def _wait(self, pid: int, note: mmap.mmap, ended: int) -> float:
        """Waits for the end of a child; the seconds that a message took if that is too long, else 0.

        While we stood still, so did the child.
        """
        before, silent, at, busy = -1, 0.0, time.monotonic(), 0.0
        while silent <= self._timeout and _cpu(pid) - busy <= _BUSY:
            if select.select([ended], [], [], _BEAT)[0]:
                return 0.0
            if self._stopping():
                raise UnavailableError("told to end while messages that were delivered before are tried")
            self._beat()
            place, now = _NOTE.unpack_from(note)[0], time.monotonic()
            if place != before:
                before, silent, busy = place, 0.0, _cpu(pid)
            silent, at = silent + min(now - at, 4 * _BEAT), now
        return silent


def spared(stream: Stream, crashing: Mapping[int, str]) -> Stream:
    """The stream, with a dead letter for each of these messages instead of what decoding them would do."""

    def decode(message: Message) -> Decoded:
        if message.sequence not in crashing:
            return stream.decode(message)
        detail = f"ended the process that decoded it alone {DEATHS} times: {crashing[message.sequence]}"
        return Decoded((), (Reject("crashes", detail),))

    return replace(stream, decode=decode, fast=None)


def _live(places: Iterator[int], note: mmap.mmap, parent: int) -> NoReturn:
    """The whole life of a child. What it says, it writes into the note: it shares all files with its parent."""
    place, state, text = 0, _PASSED, ""
    try:
        die_with_parent(signal.SIGKILL, parent)
        reset_signals()
        for number in STOP_SIGNALS:  # of a whole process group: it is for the parent to decide
            signal.signal(number, signal.SIG_IGN)
        gc.disable()
        _limit(resource.RLIMIT_CORE, 0)
        _limit(resource.RLIMIT_AS, _statm(0) + MEMORY)
        for place in places:
            _NOTE.pack_into(note, 0, place, _AT_WORK, 0)
    except MemoryError:
        state, text = _AT_WORK, "MemoryError"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it would have ended the worker
        state, text = _AT_WORK, f"{type(error).__name__}: {error}"
    if text == "MemoryError":
        try:
            mmap.mmap(-1, _GROWN).close()
        except OSError:
            state = _STARVED  # now that its memory is free again, there is none for anybody: not its doing
    data = text.encode("utf-8", "replace")[:_TEXT]
    note[_NOTE.size : _NOTE.size + len(data)] = data
    _NOTE.pack_into(note, 0, place, state, len(data))
    os._exit(1)


def _limit(which: int, value: int) -> None:
    soft, hard = resource.getrlimit(which)
    if not 0 <= soft <= value:  # RLIM_INFINITY is below 0
        resource.setrlimit(which, (value, hard))


def _statm(field: int) -> int:
    """Bytes of memory of this process: 0 its addresses, 1 what is resident. Where nobody tells, more than there is."""
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[field]) * resource.getpagesize()
    return 1 << 46


def _cpu(pid: int) -> float:
    """Seconds of a processor that a process has had. Where nobody tells, none."""
    with suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)  # as clock_getcpuclockid(3)
    return 0.0
