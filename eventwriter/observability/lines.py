"""The lines of the log on their way to standard error, whoever reads it: none of them keeps a process waiting."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import sys
from time import monotonic

PATIENCE = 0.2
"""Seconds to wait for a reader who is behind, once; after that lines are left out until there is room again."""


class Lines(logging.Handler):
    """Writes each record to a descriptor; what cannot be written at once, or never, is left out, and that is told.

    All processes of a service share one standard error. Whether it blocks is not decided for others who have it too,
    such as the shell: a pipe or a terminal is opened once more for that, and a socket is asked each time.
    """

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._fd = fd
        self._socket: socket.socket | None = None
        self._own = -1
        self._most = sys.maxsize
        mode = os.fstat(fd).st_mode
        if stat.S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            try:
                self._own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
            except OSError:  # another user's, or nobody reads any more: then no more at a time than there is room for
                self._most = select.PIPE_BUF
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._pid = os.getpid()
        self._rest = b""
        """What is left of a line that was begun."""
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Writes it, or counts it."""
        try:
            line = self._line(record)
        except Exception:  # noqa: BLE001 - a mistake in a call: told as the logging module does it
            self.handleError(record)
            return
        if self._pid != os.getpid():  # forked: the rest, and the count, are the parent's
            self._pid, self._rest, self._left_out = os.getpid(), b"", 0
        deadline = monotonic() + (0 if self._left_out else PATIENCE)
        self._rest = self._written(self._rest, deadline)
        if self._left_out:
            line = self._line(_notice(self._left_out)) + line
        rest = line if self._rest else self._written(line, deadline)
        if len(rest) == len(line):
            self._left_out += 1
        else:
            self._left_out, self._rest = 0, rest

    def close(self) -> None:
        """Closes what was opened here, and nothing else."""
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.close()
            elif self._own >= 0:
                os.close(self._own)
        self._own = -1
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _written(self, data: bytes, deadline: float) -> bytes:
        """Writes as much as is taken before the deadline; returns the rest."""
        while data:
            if not self._poll.poll(max(0.0, deadline - monotonic()) * 1000):
                return data
            try:
                data = data[self._send(data[: self._most]) :]
            except BlockingIOError:  # another process was quicker
                if monotonic() >= deadline:
                    return data
            except OSError:  # closed, or the disk is full: there is no place to say so
                return b""
        return data

    def _send(self, data: bytes) -> int:
        if self._socket is not None:
            return self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        return os.write(self._fd if self._own < 0 else self._own, data)


def _notice(lines: int) -> logging.LogRecord:
    told = f"{lines} lines were left out here: nobody read standard error"
    return logging.makeLogRecord(
        {"name": "eventwriter.log", "levelno": logging.WARNING, "levelname": "WARNING", "msg": told}
    )
