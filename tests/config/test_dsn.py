"""Connection strings: what cannot be read is refused when the settings are, and nothing of it is ever shown."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from eventwriter.cli import cli
from eventwriter.config import dsn, loading
from eventwriter.config.loading import PostgresConfig
from eventwriter.embedded import free_port
from eventwriter.errors import CONFIGURATION, UNAVAILABLE, ConfigurationError, EventWriterError, UnavailableError
from eventwriter.postgres import connection
from fix_monitor import Endpoint
from fix_service import World, wait_until
from profiles import examples
from strategies_secrets import DSN_TEMPLATES, ODD, secrets, seen


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("host=h user=u", "user=u host=h"),
        ("dbname=d;password=s3cret dbname=d", "dbname=d"),
        ("host=h password=s3cret user=u", "user=u password=*** host=h"),
        (r"password = 's3 \'cret' host=h", "password=*** host=h"),
        (r"password=s3\ cret host=h", "password=*** host=h"),
        ("host=h\npassword=s3cret", "password=*** host=h"),
        ("passfile=/x host=h", "passfile=/x host=h"),
        ("host=@socket dbname='my db'", "dbname='my db' host=@socket"),
        ("host='/run/my folder,h' port=1,2", "host='/run/my folder,h' port=1,2"),
        ("user=first.last@example.com", "user=first.last@example.com"),
        ("sslkey=pkcs11:object=k;pin-value=s3cret", "sslkey=***"),
        ("options='-c my.password=s3cret' host=h", "host=h options=***"),
        ("options='-c my.setting=1' host=h", "host=h options='-c my.setting=1'"),
        ("scram_client_key=s3cret oauth_client_secret=s3cret", "scram_client_key=*** oauth_client_secret=***"),
        ("postgres://u@h/d", "user=u dbname=d host=h"),
        ("postgres://u:s3cret@h:1/d", "user=u password=*** dbname=d host=h port=1"),
        ("postgres://u:s3?cret@h/d", "user=u password=*** dbname=d host=h"),
        ("postgres://u:s3%40cr%2Fet@h,[::1]:2/d", "user=u password=*** dbname=d host=h,::1 port=,2"),
        ("postgres://h:5432/d?application_name=a@b", "dbname=d host=h port=5432 application_name=a@b"),
        ("postgres://h/d?user=u&password=s3cret", "user=u password=*** dbname=d host=h"),
        ("postgres://h/d?pass%77ord=s3cret", "password=*** dbname=d host=h"),
    ],
)
def test_what_is_read_is_shown_without_secrets(text: str, shown: str) -> None:
    """As what libpq reads in it; it is a string that sets the same but for the secrets."""
    assert dsn.show(text) == shown
    again = psycopg.conninfo.conninfo_to_dict(shown)
    assert dsn.parse(text) == {key: dsn.parse(text)[key] if value == "***" else value for key, value in again.items()}


QUOTES = "a value with a blank in it stands in single quotes, and a URI begins with postgresql:// or postgres://"
SCHEME = "a URI begins with postgresql:// or postgres://"
KEYWORD = "a keyword in it is none of libpq's, in which a password is called password"
ENCODE = "@, :, / and % in the user, the password or the database of a URI are written %40, %3A, %2F and %25"
INSIDE = "has another setting in its value: settings are separated by blanks, in a URI by &"

REFUSED = [
    ("password=top s3cret", QUOTES),
    ("u:s3cret@h/db", QUOTES),
    ("host=h\npassword=x\ns3cret", QUOTES),
    (" postgresql://u:s3cret@h", SCHEME),
    ("postgress://u:s3cret@h", SCHEME),
    ("postgress://u:s3cret@h/d?sslmode=require", SCHEME),
    ("postgresql+psycopg://u:s3cret@h/d", SCHEME),
    ("jdbc:postgresql://h/d?user=u&password=s3cret", SCHEME),
    ("POSTGRES://u:s3cret@h/d", SCHEME),
    ("password=top s3cret=x", KEYWORD),
    ("passwd=s3cret", KEYWORD),
    ("Pwd=s3cret", KEYWORD),
    ("password='top's3cret=", KEYWORD),
    ("password='s3cret", "a quote is not closed"),
    ("postgresql://u:top s3cret@h/d", "a blank in a URI is written %20"),
    ("postgresql://u:top%00s3cret@h/d", "%00 cannot be part of it"),
    ("postgresql://u:top%s3cret@h/d", ENCODE),
    ("postgresql://u:top@s3cret@h/d", ENCODE),
    ("postgresql://u:top/s3cret@h/d", ENCODE),
    ("postgresql://u:12/s3cret@h/d", ENCODE),
    ("postgresql://u@h:s3cret@h/d", ENCODE),
    ("postgresql://u:s3cret", "port is no number"),
    ("postgresql://u:top%ffs3cret@h/d", "it is not UTF-8"),
    ("postgresql://u:s3cret\udc80@h/d", "it is not UTF-8"),
    ("postgresql://u:s3cret@[::1/d", "an IPv6 address in a URI stands in brackets"),
    ("postgresql://h/d?pwd=s3cret", "a parameter after ? is none of libpq's"),
    ("postgresql://h/d?password=top&s3cret", "a parameter after ? is a name, =, and a value in which = and & are "),
    ("postgresql://h/d?password=top=s3cret", "a parameter after ? is a name, =, and a value in which = and & are "),
    ("postgresql://h/d\n?password=s3cret", "dbname has a line break or another control character in it"),
    ("host=h;password=s3cret", f"host {INSIDE}"),
    ("host=h,password=s3cret", f"host {INSIDE}"),
    ("dbname=d;pwd=s3cret", f"dbname {INSIDE}"),
    ("sslmode=require;password=s3cret", f"sslmode {INSIDE}"),
    ("postgresql://h/d;password=s3cret", f"dbname {INSIDE}"),
    ("postgresql://h/d&password=s3cret", f"dbname {INSIDE}"),
    ("dbname=postgresql://u:s3cret@h/d", "dbname has a login in its value: a URI stands alone in postgres.dsn"),
    ("host=u:s3cret@h", "host has a login in its value: a URI stands alone in postgres.dsn"),
    ("host=s3cret@h", "host is not the name of a host"),
    (f"host={'s3cret' * 11}", "host is not the name of a host"),
    ("port=5432;s3cret", "port is no number"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_what_cannot_be_read_is_refused_without_a_word_of_it(text: str, reason: str) -> None:
    """One line names the key, its place and what is wrong; it is shown as ``***``, and no connection is tried."""
    with pytest.raises(ConfigurationError) as caught:
        loading.load({}, file=None, environ={"EVENTWRITER_POSTGRES__DSN": text}, flags={})
    message = str(caught.value)
    place = "environment EVENTWRITER_POSTGRES__DSN"
    assert message.startswith(f"postgres.dsn = *** ({place}): expected a libpq connection string: {reason}")
    assert "\n" not in message
    assert "s3cret" not in message
    assert dsn.show(text) == "***"
    with pytest.raises(ConfigurationError) as caught:
        connection.connect(PostgresConfig(dsn=text), "test")
    assert "s3cret" not in str(caught.value)


# ---- any string

STRINGS = st.builds(
    lambda template, secret, end: template.replace("{}", secret) + end,
    st.sampled_from(DSN_TEMPLATES),
    secrets(f"{ODD}\udc80"),
    st.sampled_from(["", "", "\n", "'", '"', " ", " dbname=d"]),
)


@settings(max_examples=examples(600))
@given(STRINGS)
def test_no_part_of_a_password_is_seen(text: str) -> None:
    """However a string is mistaken: not in the error that refuses it, not when it is shown, not when it is used."""
    refusal = ""
    try:
        loaded = loading.load({}, file=None, environ={}, flags={"postgres.dsn": text})
    except ConfigurationError as error:
        refusal = str(error)
    if refusal:
        assert not seen(refusal)
        return
    assert not seen(loading.render(loaded) + json.dumps(loading.as_dict(loaded)) + repr(loaded))
    with pytest.raises(EventWriterError) as caught:
        connection.connect(loaded.postgres, "test").close()
    assert not seen(str(caught.value))
    assert not seen(str(connection.unreachable(loaded.postgres, "test")))


# ---- what comes from elsewhere


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service file with mistakes."""
    file = tmp_path / "services.conf"
    file.write_text(
        "[blank]\nhost=127.0.0.1 password=t0p s3cret\n[port]\nhost=127.0.0.1\nport=1;password=s3cret\n"
        "[mode]\nhost=127.0.0.1\nport=1\nsslmode=disable;pwd=s3cret\n[at]\nhost=s3cret@127.0.0.1\n"
        "[uri]\nhost=127.0.0.1\nport=1\ndbname=postgresql://u:s3cret@h/d\n[unknown]\npasswd=s3cret\n[odd]\ns3cret\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    return file


@pytest.mark.parametrize("service", ["blank", "port", "mode", "at", "uri", "unknown", "odd"])
def test_mistakes_in_service_files(services: Path, service: str) -> None:
    """libpq quotes values of the file in what it says of a connection."""
    with pytest.raises(EventWriterError) as caught:
        connection.connect(PostgresConfig(dsn=f"service={service}"), "test")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("PGHOST", "postgresql://u:s3cret@h/d"),
        ("PGHOST", "s3cret@h"),
        ("PGHOST", "127.0.0.1,s3cret@h"),
        ("PGPORT", "5432;password=t0p s3cret"),
        ("PGPORT", "s3cret"),
        ("PGSSLMODE", "require;password=t0p s3cret"),
        ("PGSERVICE", "postgresql://u:s3cret@h/d"),
    ],
)
def test_mistakes_in_the_environment(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    """The same for libpq's own variables."""
    for name, value in {"PGHOST": "127.0.0.1", "PGPORT": "1", variable: text}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(EventWriterError) as caught:
        connection.connect(PostgresConfig(), "test")
    assert "s3cret" not in str(caught.value)


def test_a_database_named_like_a_uri(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the server quotes, it quotes from us."""
    given = psycopg.conninfo.conninfo_to_dict(database)
    given.pop("dbname")
    monkeypatch.setenv("PGDATABASE", "postgresql://u:s3cret@h/d")
    with pytest.raises(ConfigurationError) as caught:
        connection.connect(PostgresConfig(dsn=psycopg.conninfo.make_conninfo("", **given)), "test")
    assert "does not exist" in str(caught.value)
    assert "s3cret" not in str(caught.value)


# ---- what libpq reads itself


@pytest.mark.parametrize(
    ("text", "environ", "shown"),
    [
        ("", {"PGHOST": "db", "PGPORT": "5433", "PGUSER": "u"}, {"PGUSER": "u", "PGHOST": "db", "PGPORT": "5433"}),
        ("host=h", {"PGHOST": "db", "PGSSLMODE": "require"}, {"PGSSLMODE": "require"}),
        ("postgres://u@h:1/d", {"PGHOST": "db", "PGPORT": "2", "PGUSER": "v", "PGDATABASE": "e"}, {}),
        ("", {"PGHOST": "", "PGCONNECT_TIMEOUT": "1", "PGAPPNAME": "a", "PGCLIENTENCODING": "LATIN1"}, {}),
        ("", {"PGPASSWORD": "s3cret", "PGOPTIONS": "-c a.password=s3cret"}, {"PGPASSWORD": "***", "PGOPTIONS": "***"}),
        ("", {"PGHOST": "u:s3cret@h"}, {"PGHOST": "***"}),
        ("", {"PGSERVICE": "s", "PGUSER": "u"}, {"PGSERVICE": "s", "PGUSER": "u"}),
        ("", {"PGSERVICE": "s", "PGHOST": "db"}, {"PGSERVICE": "s"}),
    ],
)
def test_what_libpq_reads_is_shown(
    text: str, environ: dict[str, str], shown: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With the settings: its variables, as far as nothing else says otherwise, and nothing that is secret."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    (tmp_path / "services").write_text("[s]\nhost=elsewhere\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name, value in {"EVENTWRITER_POSTGRES__DSN": text, **environ}.items():
        monkeypatch.setenv(name, value)
    show = ["config", "show", "--origin"]
    assert json.loads(CliRunner().invoke(cli, [*show, "--output", "json"]).stdout)["libpq"] == shown
    section = CliRunner().invoke(cli, show).stdout.partition("[postgres]")[2].partition("[")[0]
    assert re.findall(r'^# (PG\w+) = "(.*)"  # environment, read by libpq$', section, re.MULTILINE) == [*shown.items()]
    assert "PG" not in CliRunner().invoke(cli, show[:2]).stdout


@pytest.mark.parametrize(
    ("host", "told"),
    [("nowhere.invalid", "'nowhere.invalid'"), ("a.invalid,b.invalid", "'b.invalid'"), ("ü.invalid", "'ü.invalid'")],
)
def test_a_host_that_is_not_found_is_named(host: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it stands in the environment."""
    monkeypatch.setenv("PGHOST", host)
    with pytest.raises(UnavailableError, match=f"failed to resolve host {told}"):
        connection.connect(PostgresConfig(connect_timeout=2.0), "test")


# ---- the whole service

COMMANDS = [
    ("config", "show"),
    ("check", "--output", "json"),
    ("supervise",),
    ("worker", "--stream", "LOGS"),
    ("schema", "apply"),
    ("dlq", "list"),
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_it(world: World, command: tuple[str, ...]) -> None:
    """Exit status 78 and one line, whatever was to be done."""
    done = world.run(*command, check=False, EVENTWRITER_POSTGRES__DSN="postgresql://u:t0p@s3cret@127.0.0.1:1/d")
    assert done.returncode == CONFIGURATION
    assert re.fullmatch(r"eventwriter: postgres\.dsn = \*\*\* \(.*\): expected .* %40.*\n", done.stderr)
    assert not done.stdout


def test_nothing_is_seen_of_a_running_service(world: World, services: Path, tmp_path: Path) -> None:
    """Readiness, status, page, metrics, log and `check`, with mistakes in a service file and then in the settings."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    file = tmp_path / "eventwriter.toml"
    file.write_text("[writer]\nlinger = 0\n")
    environment = {"EVENTWRITER_POSTGRES__DSN": "service=blank", "PGSERVICEFILE": str(services)}
    world.start("--config", str(file), "supervise", **environment, EVENTWRITER_HTTP__LISTEN=endpoint.address)
    wait_until(partial(endpoint.answers, "/readyz", 503, "streams: PostgreSQL cannot be reached: "), "the reason", 20)
    with file.open("a") as settings:
        settings.write('[postgres]\ndsn = "password=t0p s3cret"\n')
    wait_until(lambda: "postgres.dsn = ***" in world.log, "the refusal of the changed file")
    pages = [endpoint.get(path)[1] for path in ("/readyz", "/status", "/metrics", "/")]
    done = world.run("check", check=False, **environment)
    assert done.returncode == UNAVAILABLE
    assert "✗ postgres" in done.stdout
    for text in (*pages, world.log, done.stdout, done.stderr):
        assert "t0p" not in text
        assert "s3cret" not in text
