"""TLS to a real server, which PgBouncer is, both ways: what is wrong is told in words, at once; what is right works."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from eventwriter.config.model import PostgresConfig
from eventwriter.embedded import PostgresServer
from eventwriter.errors import UnavailableError
from eventwriter.postgres import connection
from fix_pgbouncer import PgBouncer
from fix_servers import temporary_folder
from fix_tls import Certificates
from patience import PATIENCE

Serve = Callable[..., PgBouncer]


@pytest.fixture(scope="module")
def serve(postgres_server: PostgresServer, certificates: Certificates) -> Iterator[Serve]:
    """Starts servers with one of the certificates; they ask for one of the client, or do not."""
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        running: dict[tuple[str, str], PgBouncer] = {}

        def start(certificate: str, mode: str = "require") -> PgBouncer:
            if (certificate, mode) not in running:
                pem, ca = folder / f"{certificate}.pem", folder / "ca.pem"
                shutil.copyfile(getattr(certificates, certificate), pem)
                shutil.copyfile(certificates.ca, ca)
                files = {"cert": pem, "key": pem, "ca": ca}
                config = "".join(f"client_tls_{name}_file = {path}\n" for name, path in files.items())
                config += f"client_tls_sslmode = {mode}\n"
                server = PgBouncer(folder / f"{certificate}-{mode}", postgres_server, config)
                running[certificate, mode] = stack.enter_context(server)
            return running[certificate, mode]

        yield start


def tried(server: PgBouncer, certificates: Certificates, options: str) -> str:
    """What comes of a connection with these options; empty if it is made."""
    names = {name: getattr(certificates, name) for name in ("ca", "stranger", "client", "foreign", "expired")}
    dsn = f"{server.dsn('host=127.0.0.1 user=postgres dbname=postgres')} {options.format(**names)}"
    begun = time.monotonic()
    try:
        connection.connect(PostgresConfig(dsn=dsn), "test").close()
    except UnavailableError as error:
        told = str(error)
    else:
        return ""
    assert time.monotonic() - begun < 5 * PATIENCE
    assert "\n" not in told
    return told


FULL = "sslmode=verify-full sslrootcert={ca}"
REFUSED = "the certificate of the server is refused: "
SIGNED = "; sslrootcert has to hold the certificate of who signed it"
OURS = "the server refuses our certificate, sslcert in postgres.dsn: "


@pytest.mark.parametrize(
    ("server", "mode", "options", "told"),
    [
        ("server", "require", FULL, []),
        ("server", "verify-full", f"{FULL} sslcert={{client}} sslkey={{client}}", []),
        ("server", "require", "sslmode=verify-full sslrootcert={stranger}", [REFUSED, SIGNED]),
        ("server", "require", "sslmode=verify-full sslrootcert=system", [REFUSED, SIGNED]),
        ("foreign", "require", FULL, [REFUSED, SIGNED]),
        ("foreign", "require", FULL.replace("full", "ca"), [REFUSED, SIGNED]),
        ("expired", "require", FULL, [f"{REFUSED}certificate has expired; renew it"]),
        ("elsewhere", "require", FULL, ['certificate for "elsewhere.example" does not match host name "127.0.0.1"']),
        ("server", "disable", FULL, ["server does not support SSL, but SSL was required"]),
        ("server", "disable", "sslmode=require sslnegotiation=direct", ["sslnegotiation=postgres asks for it"]),
        ("server", "verify-full", FULL, ["the server asks for a certificate of ours: sslcert and sslkey"]),
        ("server", "verify-full", f"{FULL} sslcert={{foreign}} sslkey={{foreign}}", [f"{OURS}unknown ca"]),
        ("server", "verify-full", f"{FULL} sslcert={{expired}} sslkey={{expired}}", [f"{OURS}certificate expired"]),
    ],
)
def test_what_is_wrong_is_told(
    serve: Serve, certificates: Certificates, server: str, mode: str, options: str, told: list[str]
) -> None:
    """Exit code 69, one line, within five seconds."""
    for name in ("client", "foreign", "expired"):
        getattr(certificates, name).chmod(0o600)
    found = tried(serve(server, mode), certificates, options)
    assert bool(told) == bool(found)
    for part in told:
        assert part in found
