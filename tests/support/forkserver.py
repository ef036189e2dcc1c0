"""Commands of eventwriter as processes of their own, forked by one that has imported it all.

An interpreter and its imports take half a second of a core, a fork a hundredth of that; all else is as if the command
were started anew: its own environment, standard streams, signals and exit status.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
_LONGEST = 2**17
"""Bytes of arguments and environment that fit into one message."""


class Forked:
    """A process that somebody else is the parent of; behaves as subprocess.Popen does."""

    def __init__(self, args: Sequence[str], channel: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._channel = channel
        self.pid = int(channel.recv(64))

    def poll(self) -> int | None:
        """The exit status, or the negative number of a signal; None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """The same when it has ended; raises subprocess.TimeoutExpired."""
        status = self._wait(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return status

    def send_signal(self, number: int) -> None:
        """Signals it if it runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def _wait(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
            self.returncode = int(self._channel.recv(64))
            self._channel.close()
        return self.returncode


class _Server:
    """The process that forks, with the code below ``root``; it ends with this one, and what it has started goes on."""

    def __init__(self, root: Path) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine = str(Path(__file__).parent)
        path = mine if root == ROOT else f"{root}{os.pathsep}{mine}"  # also where the wheel is tested, safely
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                cwd=root,
                env=os.environ | {"PYTHONPATH": path},
            )

    def start(self, args: Sequence[str], environment: Mapping[str, str], streams: Sequence[IO[Any]]) -> Forked:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asked = json.dumps([[*args], {**environment}]).encode()
        with theirs:
            socket.send_fds(self._channel, [asked], [theirs.fileno(), *(stream.fileno() for stream in streams)])
        return Forked(["eventwriter", *args], ours)

    def end(self) -> None:
        self._channel.close()
        self._process.wait()


_servers: dict[Path, _Server] = {}


def _server(root: Path) -> _Server:
    if root not in _servers:
        _servers[root] = _Server(root)
    return _servers[root]


def end(root: Path) -> None:
    """Nothing more is started of the code below ``root``, which may go."""
    if root in _servers:
        _servers.pop(root).end()


def started(
    args: Sequence[str], environment: Mapping[str, str], stdout: IO[Any], stderr: IO[Any], root: Path = ROOT
) -> Forked:
    """``eventwriter`` with these arguments, in the root of the project or of a copy, in the background.

    If the first of them is the path of a script, it is the script with the others.
    """
    with Path(os.devnull).open("rb") as nothing:
        return _server(root).start(args, environment, (nothing, stdout, stderr))


def run(
    args: Sequence[str], environment: Mapping[str, str], given: bytes = b"", seconds: float = 60, root: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """``eventwriter`` with these arguments, to its end; raises subprocess.TimeoutExpired."""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        process = _server(root).start(args, environment, (stdin, stdout, stderr))
        try:
            status = process.wait(seconds * PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        stdout.seek(0)
        stderr.seek(0)
        return subprocess.CompletedProcess(process.args, status, stdout.read().decode(), stderr.read().decode())


def _serve(channel: socket.socket) -> list[str]:
    """Forks for whoever asks; returns in each child, with its arguments, and ends the process in the server."""
    waiting = selectors.DefaultSelector()
    waiting.register(channel, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            if key.fileobj is channel:
                asked, files, _, _ = socket.recv_fds(channel, _LONGEST, 4)
                if not asked:
                    os._exit(0)
                args, environment = json.loads(asked)
                assert threading.active_count() == 1
                teller = socket.socket(fileno=files[0])
                pid = os.fork()
                for number, file in enumerate(files[1:]):
                    if not pid:
                        os.dup2(file, number)
                    os.close(file)
                if not pid:
                    teller.close()
                    _close(waiting)
                    os.environ.clear()
                    os.environ.update(environment)
                    return [*map(str, args)]
                teller.send(str(pid).encode())
                waiting.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, teller))
            else:
                pid, teller = key.data
                waiting.unregister(key.fileobj)
                os.close(key.fd)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with teller, contextlib.suppress(BrokenPipeError):  # nobody waits for it
                    teller.send(str(status).encode())


def _close(waiting: selectors.BaseSelector) -> None:
    """Closes what is the server's own."""
    for key in [*waiting.get_map().values()]:
        if key.data is None:
            key.fileobj.close()  # type: ignore[union-attr] # the channel
        else:
            os.close(key.fd)
            key.data[1].close()
    waiting.close()


def _leave(status: object) -> None:
    """Ends the process, but for taking its modules apart: that copies what it shares with the server, page by page.

    Returns if there is more to be done than to end.
    """
    import atexit

    if threading.active_count() == 1 and (status is None or isinstance(status, int)):
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)


def _import_all() -> None:
    import importlib
    import pkgutil

    import eventwriter
    import workers

    for package in (eventwriter, workers):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)


if __name__ == "__main__":
    import gc
    import runpy

    if not sys.flags.safe_path:
        sys.path[0] = str(Path.cwd())
    _import_all()
    # Now, for it asks where the environment is, which each child replaces.
    sys.modules["eventwriter.processes.process"].set_title("eventwriter: fork server")
    gc.freeze()
    sys.argv = ["eventwriter", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    # Those of the server remember what can be done with its own files.
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    from eventwriter.cli import main

    try:
        if sys.argv[1:] and sys.argv[1].endswith(".py"):
            sys.argv.pop(0)
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
        else:
            main()
    except SystemExit as ended:
        _leave(ended.code)
        raise
