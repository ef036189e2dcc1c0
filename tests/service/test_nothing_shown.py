"""Secrets of a session that goes wrong in some forty ways are in nothing that it says."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from urllib.parse import quote

import nkeys  # type: ignore[import-untyped]
import psutil
import pytest

from eventwriter.embedded import PostgresServer, free_port
from fix_monitor import Endpoint
from fix_service import World, new_world, only, wait_until
from nats_jwt import Account, Key

PASSWORD = "pgS3cretOne pgS3cretTwo'pgS3cretThree"
"""With what connection strings quote; no part of it may be seen."""
LOGIN, TOKEN = "natsS3cretOne", "tokenS3cretOne"
SEED = Key(nkeys.PREFIX_BYTE_USER).seed.decode()
CREDENTIALS = Account().user()[1]
SECRETS = [*re.split("[ ']", PASSWORD), LOGIN, TOKEN, SEED[2:20], SEED[-20:]]
SECRETS += re.findall(r"eyJ[\w-]{20}|SU\w{20}", CREDENTIALS)
QUOTED = PASSWORD.replace("'", r"\'")
NOBODY = "127.0.0.1:1"

POSTGRES = {
    "refused": f"host=127.0.0.1 port=1 user=u password='{QUOTED}'",
    "uri": f"postgresql://u:{quote(PASSWORD)}@{NOBODY}/d",
    "no such host": f"postgresql://u:{quote(PASSWORD)}@no-such-host.invalid/d",
    "unquoted": f"host=127.0.0.1 port=1 password={PASSWORD}",
    "not closed": f"host=127.0.0.1 password='{PASSWORD} port=1",
    "passwd": f"host=127.0.0.1 passwd='{QUOTED}'",
    "Pwd": f"host=127.0.0.1 Pwd={PASSWORD}",
    "driver": f"postgresql+psycopg://u:{quote(PASSWORD)}@{NOBODY}/d",
    "escaped name": f"postgresql://{NOBODY}/d?pass%77ord={quote(PASSWORD)}",
    "not escaped": f"postgresql://u:{PASSWORD}@{NOBODY}/d",
    "sslmode": f"host=127.0.0.1 sslmode=soon password='{QUOTED}'",
    "port": f"host=127.0.0.1 port=none password='{QUOTED}'",
    "root certificate": f"host=127.0.0.1 sslmode=verify-full sslrootcert=/gone password='{QUOTED}'",
    "service": f"service=gone password='{QUOTED}'",
    "database": f"{{dsn}} dbname=gone password='{QUOTED}'",
    "role": f"{{dsn}} user=gone password='{QUOTED}'",
    "method": f"{{dsn}} require_auth=scram-sha-256 password='{QUOTED}'",
}
NATS: dict[str, dict[str, str]] = {
    "password": {"USER": "u", "PASSWORD": LOGIN},
    "token": {"TOKEN": TOKEN},
    "nkey": {"NKEY": SEED, "URL": f"nats://{NOBODY}"},
    "damaged nkey": {"NKEY": f"{SEED[:-1]}{'B' if SEED[-1] == 'A' else 'A'}"},
    "half a login": {"PASSWORD": LOGIN},
    "two logins": {"TOKEN": TOKEN, "NKEY": SEED},
    "nobody": {"URL": f"nats://u:{LOGIN}@{NOBODY}"},
    "token in the URL": {"URL": f"nats://{TOKEN}@{NOBODY}"},
    "no TLS": {"URL": f"{{tls}}u:{LOGIN}@{{nats}}"},
    "slash in the URL": {"URL": f"nats://u:{LOGIN}/x@{NOBODY}"},
    "scheme": {"URL": f"http://u:{LOGIN}@{NOBODY}"},
    "websocket": {"URL": f"wss://u:{LOGIN}@{NOBODY}"},
    "credentials as text": {"CREDENTIALS": CREDENTIALS},
    "seed as a path": {"CREDENTIALS": SEED},
    "secret as a path": {"PASSWORD_FILE": LOGIN, "USER": "u"},
    "seed of another": {"CREDENTIALS": "{folder}/half.creds"},
    "empty": {"CREDENTIALS": "{folder}/seed.creds"},
}
FILES = {
    "syntax": f"[nats]\npassword = {LOGIN}\n",
    "quotes": f'[nats]\npassword = "{LOGIN}\nuser = "u"\n',
    "unknown": f'[nats]\npasswort = "{LOGIN}"\n',
    "type": f'[postgres]\npassword = ["{SECRETS[0]}"]\n',
    "section": f'[postgres.dsn]\npassword = "{SECRETS[0]}"\n',
    "twice": f'[http]\ntoken = "{TOKEN}"\ntoken = "{TOKEN}"\n',
    "short": f'[http]\nlisten = "0.0.0.0:x"\ntoken = "{TOKEN}"\n',
}


def seen(text: str) -> list[str]:
    """The secrets in a text."""
    return [secret for secret in SECRETS if secret in text]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """A server that knows one login."""
    users = f"{{user: admin, password: a}}, {{user: u, password: '{TOKEN}'}}"
    config = f"authorization: {{users: [{users}]}}\nno_auth_user: admin\n"
    with new_world(tmp_path_factory.mktemp("shown"), postgres_server, template, config) as world:
        world.environment |= only("LOGS")
        lines = CREDENTIALS.splitlines()
        (world.folder / "half.creds").write_text("\n".join([*lines[:-2], lines[-2][:30]]))
        (world.folder / "seed.creds").write_text(SEED)
        yield world


def ways(world: World) -> Iterator[tuple[str, Mapping[str, str]]]:
    """What is wrong, and the environment in which it is."""
    for name, dsn in POSTGRES.items():
        yield f"postgres {name}", {"EVENTWRITER_POSTGRES__DSN": dsn.replace("{dsn}", world.dsn)}
    for name, settings in NATS.items():
        places = {"nats": world.nats.url.partition("://")[2], "tls": "tls://", "folder": str(world.folder)}
        values = {key: value.format(**places) for key, value in settings.items()}
        yield f"nats {name}", {f"EVENTWRITER_NATS__{key}": value for key, value in values.items()}
    for name, text in FILES.items():
        path = world.folder / f"{name}.toml"
        path.write_text(text)
        yield f"file {name}", {"EVENTWRITER_CONFIG": str(path)}


def test_commands_that_fail_show_none(world: World) -> None:
    """`check` or a worker says what is wrong, and `config show` what there is, without any of it."""
    count = 0
    for name, environment in ways(world):
        meets = ("worker", "--stream", "LOGS") if name.startswith("nats") else ("check",)
        for command in (meets, ("config", "show", "--origin")):
            done = world.run(*command, check=False, **environment)
            assert not seen(done.stdout + done.stderr), (name, command)
            assert "Traceback" not in done.stderr, (name, command)
            if command[0] != "config":
                assert done.returncode in (69, 77, 78), (name, command, done)
                assert done.stdout + done.stderr
        count += 1
    assert count > 30


def test_a_service_that_loses_everything_shows_none(world: World, tmp_path: Path) -> None:
    """Log, probes, status, metrics, page and the list of processes, while servers refuse it and its file is spoilt."""
    endpoint, file = Endpoint(f"127.0.0.1:{free_port()}"), tmp_path / "service.toml"
    good = (
        f'[nats]\nurl = "{world.nats.url}"\nuser = "u"\npassword = "{TOKEN}"\n[http]\nlisten = "{endpoint.address}"\n'
        f'[postgres]\ndsn = "{world.writer}"\npassword = "{PASSWORD}"\n'
    )
    file.write_text(good)
    for name in ("NATS__URL", "POSTGRES__DSN", "HTTP__LISTEN"):  # the file has them
        world.environment.pop(f"EVENTWRITER_{name}")
    service = world.start("--config", str(file), "supervise", EVENTWRITER_LOG__LEVEL="debug")
    wait_until(partial(endpoint.answers, "/readyz", 200), "readiness", 15)
    said: list[str] = []

    def look() -> None:
        said.extend(endpoint.get(path)[1] for path in ("/", "/status", "/readyz", "/metrics", "/livez", "/nothing"))
        parents = psutil.Process(service.pid)
        said.extend(" ".join([each.name(), *each.cmdline()]) for each in (parents, *parents.children(recursive=True)))

    def config_error() -> str:
        return str(json.loads(endpoint.get("/status")[1])["config_error"])

    def other(reason: str) -> bool:
        return config_error() != reason

    look()
    world.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename <> current_user")
    world.nats._config = world.nats._config.replace(TOKEN, LOGIN)
    world.nats.stop()
    world.nats.start()
    wait_until(partial(endpoint.answers, "/readyz", 503, "Authorization Violation"), "the refusal", 20)
    look()
    for text in (good.replace(f'"{TOKEN}"', TOKEN), good + f'token = "{TOKEN}"\npasswort = "{LOGIN}"\n'):
        reason = config_error()
        file.write_text(text)
        os.kill(service.pid, signal.SIGHUP)
        wait_until(partial(other, reason), "what is wrong with the file")
        look()
    assert world.stop(service) == 0
    assert not seen("".join(said) + world.log)
