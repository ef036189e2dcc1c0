"""Settings of libpq by which no connection can be made end a start; secrets in files may be replaced while it runs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg import conninfo

from beside import beside
from eventwriter.config.model import PostgresConfig
from eventwriter.config.secrets import FromFile
from eventwriter.embedded import PostgresServer
from eventwriter.errors import CONFIGURATION, AuthenticationError, ConfigurationError, UnavailableError
from eventwriter.postgres import connection
from fix_proxy import last_words
from fix_service import World, wait_until
from fix_tls import Certificates
from patience import PATIENCE
from proxy import Proxy


@pytest.fixture(scope="module")
def encrypted() -> Iterator[int]:
    """A port at which TLS is agreed to, and no more: libpq looks at its files then."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def agree(ended: object) -> None:
            with contextlib.suppress(OSError):
                while True:
                    with server.accept()[0] as client, contextlib.suppress(OSError):
                        client.recv(100)
                        client.sendall(b"S")
                        client.recv(1000)

        with beside(agree):
            yield server.getsockname()[1]
            server.shutdown(socket.SHUT_RDWR)


VALUES = [
    *("sslmode=requier", "port=99999", "port=0", "port=1,2", "channel_binding=maybe", "gssencmode=maybe"),
    *("target_session_attrs=best", "ssl_min_protocol_version=TLSv9", "load_balance_hosts=yes", "connect_timeout=x"),
    *("keepalives=x", "tcp_user_timeout=x", "require_auth=x", "sslcertmode=x", "hostaddr=999.1.1.1", "service=nope"),
    "sslrootcert=system sslmode=require",
]
FILES = [
    ("sslmode=verify-full sslrootcert=/gone.pem", 'root certificate file "/gone.pem" does not exist'),
    ("sslmode=verify-ca sslrootcert={junk}", 'could not read root certificate file "{junk}"'),
    ("sslmode=require sslcert={cert} sslkey={open}", 'private key file "{open}" has group or world access'),
    ("sslmode=require sslcert={cert} sslkey=/gone.key", 'but not private key file "/gone.key"'),
    ("sslmode=require sslcert={cert} sslkey={other}", 'could not load private key file "{other}": key values mismatch'),
    ("sslmode=require sslcert={junk} sslkey={key}", 'could not read certificate file "{junk}"'),
]


def refusal(dsn: str) -> str:
    """What is said of a string by which no connection can be made."""
    with pytest.raises(ConfigurationError) as caught:
        connection.connect(PostgresConfig(dsn=dsn), "test")
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("value", VALUES)
def test_values_that_libpq_does_not_know(database: str, value: str) -> None:
    """They are no outage that passes; the value is told."""
    wrong = value.split()[0].partition("=")[2]
    message = refusal(f"{database} password=s3cret {value}")
    assert message.startswith("postgres.dsn")
    assert wrong in message or "could not match 2 port numbers" in message or "weak sslmode" in message


@pytest.mark.parametrize(("value", "told"), FILES)
def test_files_that_libpq_cannot_use(
    encrypted: int, certificates: Certificates, tmp_path: Path, value: str, told: str
) -> None:
    """Each by its name."""
    files = {name: tmp_path / name for name in ("cert", "key", "open", "other", "junk")}
    for name, file in files.items():
        source = certificates.foreign if name == "other" else certificates.client
        file.write_bytes(b"junk" if name == "junk" else source.read_bytes())
        file.chmod(0o644 if name == "open" else 0o600)
    message = refusal(f"host=127.0.0.1 port={encrypted} user=u password=s3cret {value.format(**files)}")
    assert told.format(**files) in message


@pytest.mark.parametrize("dsn", ["host=127.0.0.1 port=1", "host=127.0.0.1 port=1 dbname=invalid user=value"])
def test_a_server_that_is_away_is_no_mistake(dsn: str) -> None:
    """That passes."""
    with pytest.raises(UnavailableError):
        connection.connect(PostgresConfig(dsn=dsn), "test")


MEANT: dict[type[Exception], tuple[str, ...]] = {
    AuthenticationError: ("28P01", "28000"),
    ConfigurationError: ("3D000", "42501", "42704", "22023"),
    UnavailableError: ("57P03", "53300", "08P01"),
}


@pytest.mark.parametrize("words", ["Passwort ist falsch", "база данных не существует", "认证失败"])
def test_what_a_server_says_in_another_language(postgres_server: PostgresServer, words: str) -> None:
    """As ``lc_messages`` may have it: the SQLSTATE tells what it is, and is told."""
    with Proxy(postgres_server.port) as proxy:
        settings = PostgresConfig(dsn=conninfo.make_conninfo(postgres_server.dsn(), port=proxy.port))
        for expected, codes in MEANT.items():
            for code in codes:
                proxy.lose(b"user\0", "before", last_words("FATAL", code, words))
                with pytest.raises(expected, match=rf"{words} \({code}\)"):
                    connection.connect(settings, "test")


def test_commands_end_at_once(world: World) -> None:
    """`check` and a worker that starts: 78, and which setting it is."""
    dsn = f"{world.environment['EVENTWRITER_POSTGRES__DSN']} sslmode=requier"
    for command in (("check",), ("worker", "--stream", "LOGS")):
        begun = time.monotonic()
        done = world.run(*command, check=False, EVENTWRITER_POSTGRES__DSN=dsn)
        assert done.returncode == CONFIGURATION, done.stderr
        assert 'invalid sslmode value: "requier"' in (done.stdout + done.stderr).replace("\\", "")
        assert time.monotonic() - begun < 5 * PATIENCE


@pytest.mark.parametrize(
    ("address", "sslmode", "encrypted_", "told"),
    [
        ("", "prefer", False, ""),
        ("/run/postgresql", "prefer", False, ""),
        ("127.0.0.1", "prefer", False, ""),
        ("::1", "disable", False, ""),
        ("10.1.2.3", "verify-full", True, ""),
        ("10.1.2.3", "prefer", False, "nothing is encrypted"),
        ("fd00::1", "require", True, "nobody proves to be the server (sslmode=require)"),
        ("10.1.2.3", "verify-ca", True, "nobody proves to be the server (sslmode=verify-ca)"),
    ],
)
def test_a_connection_that_others_may_read_is_told(address: str, sslmode: str, encrypted_: bool, told: str) -> None:
    """`check` warns of it."""
    found = connection.exposure(address, sslmode, encrypted=encrypted_)
    assert told in found
    assert bool(found) == bool(told)


def test_this_machine_is_not_the_network(database: str) -> None:
    """What the server is asked with is what is looked at."""
    with connection.connect(PostgresConfig(dsn=database), "test") as found:
        assert connection.exposed(found) == ""


@pytest.mark.parametrize("key", ["password", "dsn"])
def test_a_password_that_is_replaced_is_used_at_the_next_connection(database: str, tmp_path: Path, key: str) -> None:
    """Without a restart; while its file is missing PostgreSQL counts as away, and the file is named."""
    file, role = tmp_path / "secret", f"rotating_{os.getpid()}_{key}"
    base = conninfo.make_conninfo(database, user=role)

    def written(password: str) -> str:
        text = password if key == "password" else conninfo.make_conninfo(base, password=password)
        file.write_text(f"{text}\n")
        return text

    with psycopg.connect(database, autocommit=True) as owner:
        (hba,) = owner.execute("SHOW hba_file").fetchone() or ("",)
        rules = Path(hba).read_text()
        owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'f1rst'")
        try:
            Path(hba).write_text(f"host all {role} all scram-sha-256\nlocal all {role} scram-sha-256\n{rules}")
            owner.execute("SELECT pg_reload_conf()")
            first = FromFile(written("f1rst"), str(file))
            settings = PostgresConfig(dsn=base, password=first) if key == "password" else PostgresConfig(dsn=first)
            with connection.open_pool(settings, "test", 1) as pool:
                owner.execute(f"ALTER ROLE {role} PASSWORD 'sec0nd'")
                owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [role])
                file.unlink()
                away = str(connection.unreachable(settings, "test"))
                assert f"cannot read the file {file}: No such file" in away
                written("sec0nd")

                def works() -> bool:
                    with contextlib.suppress(psycopg.Error), pool.connection(timeout=1.0) as found:
                        return bool(found.execute("SELECT 1").fetchone())
                    return False

                wait_until(works, "a connection with the new password", 15)
        finally:
            Path(hba).write_text(rules)
            owner.execute("SELECT pg_reload_conf()")
            wait_until(partial(_gone, owner, role), "the end of its connections", 10)
            owner.execute(f"DROP ROLE {role}")


def _gone(owner: psycopg.Connection[object], role: str) -> bool:
    return not owner.execute("SELECT FROM pg_stat_activity WHERE usename = %s", [role]).fetchone()
