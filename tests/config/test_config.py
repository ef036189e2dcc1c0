"""Settings: where they come from, which source wins, and how every mistake is told."""

from __future__ import annotations

import dataclasses
import json
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg.conninfo import make_conninfo

from eventwriter import masking
from eventwriter.commands import running
from eventwriter.config import loading
from eventwriter.config.model import all_kinds
from eventwriter.errors import CONFIGURATION, ConfigurationError
from eventwriter.observability.access import Access
from eventwriter.stream import Column, Decoded, Message, Stream
from profiles import examples


def _decode(message: Message) -> Decoded:
    return Decoded()


def stream(name: str, table: str, *subjects: str) -> Stream:
    """A declaration with what the settings look at."""
    columns = (
        Column("body", "text"),
        Column("source", "text", ("origin",), core=False),
        Column("n", "bigint", core=False),
    )
    return Stream(name, subjects, table, columns if name == "LOGS" else columns[:1], _decode)


DECLARED = {
    "EVENTS": stream("EVENTS", "events", "events.>"),
    "LOGS": stream("LOGS", "logs", "logs.>"),
    "OTEL_TRACES": stream("OTEL_TRACES", "otel_traces", "otel.traces", "otel.traces.>"),
}
STREAMS = "The streams are EVENTS, LOGS, OTEL_TRACES"


def load(
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    file: Path | None = None,
) -> loading.Config:
    """Settings from these sources only."""
    return loading.load(DECLARED, file=file, environ=environ or {}, flags=flags or {})


def load_text(folder: Path, text: str) -> loading.Config:
    """Settings from a file of this content."""
    file = folder / "eventwriter.toml"
    file.write_text(text, encoding="utf-8")
    return load(file=file)


def refusal(**sources: Any) -> str:
    """The one line that refuses these sources."""
    with pytest.raises(ConfigurationError) as caught:
        load(**sources)
    assert caught.value.exit_code == CONFIGURATION
    message = str(caught.value)
    assert "\n" not in message
    return message


def refusal_of(folder: Path, text: str) -> str:
    """The one line that refuses a file of this content."""
    file = folder / "eventwriter.toml"
    file.write_text(text, encoding="utf-8")
    return refusal(file=file).replace(str(folder), "")


# ---- values


def test_defaults_need_no_source() -> None:
    """Without file, environment and flags everything has the documented value."""
    found = load()
    assert found.nats == loading.NatsConfig()
    assert found.nats.url == ("nats://127.0.0.1:4222",)
    assert found.postgres == loading.PostgresConfig(dsn="", pool_size=2, statement_timeout=60.0, connect_timeout=10.0)
    assert found.writer == loading.WriterConfig(10_000, 8 * 2**20, 0.01, "each", 10.0, 25.0, 120.0)
    assert found.http.address == ("127.0.0.1", 9465)
    assert list(found.streams) == list(DECLARED)
    assert found.streams["OTEL_TRACES"] == loading.StreamConfig(
        name="OTEL_TRACES",
        stream="OTEL_TRACES",
        durable="eventwriter-otel_traces",
        subjects=("otel.traces", "otel.traces.>"),
        table="otel_traces",
    )


def test_a_file_sets_everything(tmp_path: Path) -> None:
    """Every table of the file is read, with units; a stream takes over [writer] except what it overrides."""
    found = load_text(
        tmp_path,
        """
        [nats]
        url = ["nats://a:4222", "tls://b"]
        user = "u"
        password = "p"
        tls = { ca = "ca.pem", cert = "c.pem", key = "k.pem", hostname = "n", handshake_first = true }
        [postgres]
        dsn = "host=db"
        statement_timeout = "1m"
        [writer]
        linger = "20ms"
        batch_bytes = "1MiB"
        [http]
        listen = "[::]:80"
        public = true
        [streams.LOGS]
        subjects = "logs.syslog, logs.otel.>"
        exclude = ["logs.*.raw"]
        processes = 3
        linger = 0
        """,
    )
    assert found.nats.url == ("nats://a:4222", "tls://b")
    assert found.nats.tls == loading.TlsConfig("ca.pem", "c.pem", "k.pem", "n", True)
    assert (found.nats.user, found.nats.password) == ("u", "p")
    assert found.postgres.statement_timeout == 60.0
    assert found.http.address == ("::", 80)
    logs = found.streams["LOGS"]
    assert logs.subjects == ("logs.syslog", "logs.otel.>")
    assert logs.exclude == ("logs.*.raw",)
    assert logs.processes == 3
    assert logs.writer == dataclasses.replace(found.writer, linger=0.0)
    assert found.streams["EVENTS"].writer == found.writer == loading.WriterConfig(batch_bytes=2**20, linger=0.02)


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("NATS__URL", "nats://a, nats://b", "nats.url", ("nats://a", "nats://b")),
        ("NATS__TLS__HANDSHAKE_FIRST", "yes", "nats.tls.handshake_first", True),
        ("NATS__TOKEN", "123", "nats.token", "123"),
        ("POSTGRES__POOL_SIZE", "4", "postgres.pool_size", 4),
        ("WRITER__LINGER", "0.5", "writer.linger", 0.5),
        ("WRITER__BATCH_BYTES", "1000", "writer.batch_bytes", 1000),
        ("WRITER__ACK", "all", "writer.ack", "all"),
        ("POSTGRES__DSN", "", "postgres.dsn", ""),
        ("LOG__FORMAT", "json", "log.format", "json"),
        ("LOG_LEVEL", "debug", "log.level", "debug"),
        ("WRITER__ACK", "", "writer.ack", "each"),
    ],
)
def test_the_environment_is_text(variable: str, text: str, path: str, value: object) -> None:
    """Numbers, truth values and lists are read from text; an empty variable is one that is not set."""
    found: Any = load({f"EVENTWRITER_{variable}": text})
    for level in path.split("."):
        found = getattr(found, level)
    assert found == value


def test_a_stream_is_set_from_the_environment() -> None:
    """A stream's own settings and its overrides have variables, whatever underscores its name has."""
    environ = {"EVENTWRITER_STREAMS__OTEL_TRACES__TABLE": "x.y", "EVENTWRITER_STREAMS__OTEL_TRACES__LINGER": "1s"}
    found = load(environ).streams["OTEL_TRACES"]
    assert (found.table, found.writer.linger) == ("x.y", 1.0)


def test_variables_that_are_no_settings_are_tolerated() -> None:
    """What the command line reads, what Kubernetes injects, and what others own."""
    names = [
        "EVENTWRITER_CONFIG",
        "EVENTWRITER_SERVICE_HOST",
        "EVENTWRITER_PORT_9465_TCP_ADDR",
    ]
    names += ["EVENTWRITER_DB_SERVICE_PORT_HTTP", "PGHOST", "HOME", "eventwriter_x"]
    assert load(dict.fromkeys(names, "x")) == load()


# ---- precedence


def test_each_source_goes_before_the_next(tmp_path: Path) -> None:
    """Flag over environment over file over default, and the origin of each is known."""
    file = tmp_path / "x.toml"
    file.write_text('[writer]\nbatch_messages = 1\nlinger = 2\nack_wait = "3s"\n[streams.LOGS]\nlinger = 1\n')
    environ = {"EVENTWRITER_WRITER__BATCH_MESSAGES": "11", "EVENTWRITER_WRITER__LINGER": "0.5s"}
    flags = {"writer.batch_messages": 21, "streams.LOGS.processes": "2", "nats.url": None}
    found, origins = loading.load_with_origins(DECLARED, file=file, environ=environ, flags=flags)
    assert found.writer == loading.WriterConfig(batch_messages=21, linger=0.5, ack_wait=3.0)
    assert found.streams["LOGS"].writer.linger == 1.0
    assert found.streams["EVENTS"].writer.linger == 0.5
    assert found.streams["LOGS"].processes == 2
    assert origins["writer.batch_messages"] == origins["streams.LOGS.batch_messages"] == "flag"
    assert origins["writer.linger"] == "environment EVENTWRITER_WRITER__LINGER"
    assert origins["writer.ack_wait"] == f"file {file}"
    assert origins["streams.LOGS.linger"] == f"file {file}"
    assert origins["streams.EVENTS.linger"] == "environment EVENTWRITER_WRITER__LINGER"
    assert origins["nats.url"] == "default"


def test_nats_url_ranks_below_our_own_variable(tmp_path: Path) -> None:
    """NATS_URL goes before the file and after EVENTWRITER_NATS__URL."""
    file = tmp_path / "x.toml"
    file.write_text('[nats]\nurl = "nats://file"\n')
    environ = {"NATS_URL": "nats://theirs"}
    assert load(environ, file=file).nats.url == ("nats://theirs",)
    assert load(environ | {"EVENTWRITER_NATS__URL": "nats://ours"}, file=file).nats.url == ("nats://ours",)


# ---- secrets


def test_secrets_come_from_files(tmp_path: Path) -> None:
    """A variable may name the file that holds a secret; white space around it is not part of it."""
    secret = tmp_path / "secret"
    secret.write_text(" s3cret\n")
    found, origins = loading.load_with_origins(
        DECLARED, file=None, environ={"EVENTWRITER_POSTGRES__PASSWORD_FILE": str(secret)}, flags={}
    )
    assert found.postgres.password == "s3cret"
    assert origins["postgres.password"] == "environment EVENTWRITER_POSTGRES__PASSWORD_FILE"


def test_a_secret_given_twice_is_a_mistake() -> None:
    """Which of the two was meant, nobody can know."""
    name = "EVENTWRITER_NATS__TOKEN"
    message = refusal(environ={name: "a", f"{name}_FILE": "/b"})
    assert message == f"{name} and {name}_FILE are both set: unset one of them"


def test_unreadable_secrets_say_why(tmp_path: Path) -> None:
    """A file that is missing, empty, a folder or no text is named, with the reason."""
    variable = "EVENTWRITER_POSTGRES__DSN_FILE"
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff")
    assert (
        refusal(environ={variable: "/no/such"})
        == f"{variable}: cannot read the file /no/such: No such file or directory"
    )
    assert refusal(environ={variable: str(tmp_path)}).endswith(": Is a directory")
    assert refusal(environ={variable: str(empty)}).endswith("/empty is empty")
    assert refusal(environ={variable: str(binary)}).endswith(": it is not a UTF-8 text file")


SECRETS = {
    "nats.url": "nats://u:s3cret@h,nats://s3cret@h",
    "nats.user": "u",
    "nats.password": "s3cret",
    "postgres.dsn": "postgresql://u:s3cret@h/d?sslpassword=s3cret",
    "postgres.password": "s3cret",
}


def test_secrets_are_never_shown() -> None:
    """Neither TOML nor JSON nor repr() holds a secret, and TOML stays valid."""
    found = load(flags=SECRETS)
    shown = loading.render(found)
    assert "s3cret" not in shown + json.dumps(loading.as_dict(found)) + repr(found)
    tree = tomllib.loads(shown)
    assert tree["nats"]["url"] == ["nats://u:***@h", "nats://***@h"]
    assert tree["postgres"] == loading.as_dict(found)["postgres"] | {
        "dsn": "user=u password=*** dbname=d host=h sslpassword=***",
        "password": "***",
        "statement_timeout": "60s",
        "connect_timeout": "10s",
    }
    assert load(flags=SECRETS | {"postgres.dsn": tree["postgres"]["dsn"]}).postgres.dsn == tree["postgres"]["dsn"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://h:4222", "nats://h:4222"),
        ("nats://u:s3@cret@h", "nats://u:***@h"),
        ("nats://s3cret@h", "nats://***@h"),
        ("s3cret@h", "***@h"),
    ],
)
def test_logins_in_nats_urls(url: str, shown: str) -> None:
    """Passwords and tokens are hidden; a user's name is not."""
    assert masking.url(url) == shown


@pytest.mark.parametrize(
    "flags",
    [
        {"nats.url": "http://u:s3cret@h"},
        {"nats.url": "nats://u:s3cret"},
        {"nats.url": "nats://u:12/s3cret@h"},
        {"nats.url": "nats://u:12?s3cret@h"},
        {"nats.url": "nats://12#s3cret@h"},
        {"nats.url": "nats://u:12,s3cret@h"},
        {"nats.url": "nats://u:12 s3cret@h"},
        {"nats.url": "nats://h;password=s3cret"},
        {"nats.url": "nats//u:s3cret@h"},
        {"nats.url": "u:a://s3cret@h"},
        {"nats.url": ["nats://a:s3cret@b", "x y"]},
        {"nats.url": {"password": "s3cret"}},
        {"nats.token": ["s3cret"]},
        {"nats.password": "s3cret\0"},
        {"postgres.dsn": "password=s3cret\0"},
        {"postgres.dsn": {"password": "s3cret"}},
    ],
)
def test_a_refused_secret_is_not_told(flags: Mapping[str, object]) -> None:
    """Where the secret begins in what cannot be read, nobody knows: nothing of it is told."""
    message = refusal(flags=flags)
    assert "s3cret" not in message
    assert message.startswith(f"{next(iter(flags))} = *** (flag): expected ")


@pytest.mark.parametrize(
    ("token", "expected"),
    [("s3cret\n", "a token without"), ("s3\tcret", "a token without"), ("s3cret\x7f", "a token without"),
     ("s3cret\udcff", "text in UTF-8")],
)  # fmt: skip
def test_a_token_that_nobody_can_show_is_refused(token: str, expected: str) -> None:
    """Neither in a header nor as a password; it is not told."""
    message = refusal(environ={"EVENTWRITER_HTTP__TOKEN": token})
    assert message.startswith(f"http.token = *** (environment EVENTWRITER_HTTP__TOKEN): expected {expected}")
    assert "s3" not in message


@pytest.mark.parametrize("token", ["my s3cret", " s3cret ", "pässs3cret", "p€s3cret"])
def test_a_token_may_be_what_people_type(token: str) -> None:
    """As a password it reaches the service as it is, and so the command shows it."""
    found = load({"EVENTWRITER_HTTP__TOKEN": token}).http
    ((_, shown),) = running.Service("http://127.0.0.1", found.token).opener().addheaders
    assert Access(found).trusts({"authorization": shown})
    assert not Access(found).trusts({"authorization": shown[:-4]})


def test_a_token_in_a_file_may_end_its_line(tmp_path: Path) -> None:
    """As every secret in a file."""
    file = tmp_path / "token"
    file.write_text("!s3cret~+/=\n")
    assert load({"EVENTWRITER_HTTP__TOKEN_FILE": str(file)}).http.token == "!s3cret~+/="


@pytest.mark.parametrize("text", ["x\udcff", "x\0"])
def test_text_that_no_program_takes_is_refused_whatever_its_kind(text: str) -> None:
    """Such as bytes of the environment that are no UTF-8, which would end the process that is to use them."""
    for kind in all_kinds(DECLARED).values():
        for value in (text, [text], {"a": text}, {text: "a"}):
            with pytest.raises(ValueError):  # noqa: PT011 - Expected, or what the kind itself says
                kind.parse(value)
    message = refusal(environ={"EVENTWRITER_POSTGRES__PASSWORD": f"s3cret{text}"})
    place = "environment EVENTWRITER_POSTGRES__PASSWORD"
    assert message == f"postgres.password = *** ({place}): expected text in UTF-8, without NUL"
    for key in (
        "nats.user",
        "nats.password",
        "nats.token",
        "nats.tls.hostname",
        "plugins.folders",
        "streams.LOGS.omit",
    ):
        assert refusal(flags={key: text}).endswith(" (flag): expected text in UTF-8, without NUL")


def test_a_secret_in_place_of_its_file_is_not_told() -> None:
    """A password, or a connection string, where the name of a file belongs."""
    for variable in ("EVENTWRITER_POSTGRES__PASSWORD_FILE", "EVENTWRITER_POSTGRES__DSN_FILE"):
        for text in ("s3cret", "postgresql://u:s3cret@h/d", "/s3cret@h"):
            assert (
                refusal(environ={variable: text}) == f"{variable}: cannot read the file ***: No such file or directory"
            )


# ---- mistakes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nats]\nurls = 1", "unknown setting nats.urls (file /eventwriter.toml): did you mean nats.url?"),
        ("[writer]\nstatement_timeout = 1",
         "unknown setting writer.statement_timeout (file /eventwriter.toml): did you mean postgres.statement_timeout?"),
        ("[natz]\nurl = 1", "unknown setting natz.url (file /eventwriter.toml): did you mean nats.url?"),
        ("linger = 1", "unknown setting linger (file /eventwriter.toml): did you mean writer.linger?"),
        ("[nats.tls]\nca_file = 1", "unknown setting nats.tls.ca_file (file /eventwriter.toml): "
         "did you mean nats.tls.ca?"),
        ("[streams.LOGS]\ntabel = 1", "unknown setting streams.LOGS.tabel (file /eventwriter.toml): "
         "did you mean streams.LOGS.table?"),
        ("[nats]\nqqq = 1", "unknown setting nats.qqq (file /eventwriter.toml): "
         "there are url, credentials, user, password, token, nkey, domain, api_prefix, inbox_prefix, tls"),
        ("[qqq]", "unknown setting qqq (file /eventwriter.toml): "
         "there are nats, postgres, writer, http, log, dead_letters, plugins, streams"),
        ("[streams.LOGZ]", "unknown stream LOGZ in streams.LOGZ (file /eventwriter.toml): "
         f"did you mean LOGS? {STREAMS}"),
        ("[streams.logs]\ntable = 1", "unknown stream logs in streams.logs.table (file /eventwriter.toml): "
         f"did you mean LOGS? {STREAMS}"),
        ("[streams.FOO]\nx = 1", f"unknown stream FOO in streams.FOO.x (file /eventwriter.toml): {STREAMS}"),
        ("nats = 1", "nats (file /eventwriter.toml) is not a table: expected [nats] with settings in it"),
        ("[[streams]]", "streams (file /eventwriter.toml) is not a table: expected [streams] with settings in it"),
        ('"nats.url" = "nats://a"\n[nats]\nurl = "nats://b"',
         '"nats.url" (file /eventwriter.toml) is one name with a dot in it: '
         "expected nats.url, without quotation marks"),
        ('[nats.tls]\nca = "a"\n[nats]\n"tls.ca" = "b"',
         'nats."tls.ca" (file /eventwriter.toml) is one name with a dot in it: '
         "expected nats.tls.ca, without quotation marks"),
        ('["streams.LOGS"]\nprocesses = 1', '"streams.LOGS" (file /eventwriter.toml) is one name with a dot in it: '
         "expected streams.LOGS, without quotation marks"),
        ('"plugins.folders" = []', '"plugins.folders" (file /eventwriter.toml) is one name with a dot in it: '
         "expected plugins.folders, without quotation marks"),
        ("a = 1\nb = \n", "configuration file /eventwriter.toml, line 2, column 5: Invalid value"),
    ],
)  # fmt: skip
def test_unknown_settings_in_the_file(tmp_path: Path, text: str, message: str) -> None:
    """The key, where it stands, and the nearest valid name; a syntax error has its line."""
    assert refusal_of(tmp_path, text) == message


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("NATS_URL", "did you mean EVENTWRITER_NATS__URL?"),
        ("WRITER__LINGR", "did you mean EVENTWRITER_WRITER__LINGER?"),
        ("BATCH_MESSAGES", "did you mean EVENTWRITER_WRITER__BATCH_MESSAGES?"),
        ("POSTGRES__PASSWRD_FILE", "did you mean EVENTWRITER_POSTGRES__PASSWORD_FILE?"),
        ("NATS__USER_FILE", "did you mean EVENTWRITER_NATS__USER?"),
        ("STREAMS__LOGS__TABEL", "did you mean EVENTWRITER_STREAMS__LOGS__TABLE?"),
        ("nats__url", "did you mean EVENTWRITER_NATS__URL?"),
        ("QQQ", "after EVENTWRITER_ there are NATS, POSTGRES, WRITER, HTTP, LOG, DEAD_LETTERS, PLUGINS, STREAMS"),
    ],
)
def test_unknown_variables(variable: str, hint: str) -> None:
    """A variable of ours that does not exist is told, with the one that was meant."""
    name = f"EVENTWRITER_{variable}"
    assert refusal(environ={name: "x"}) == f"unknown setting {name} (environment): {hint}"


def test_unknown_stream_in_the_environment() -> None:
    """The known streams are listed."""
    name = "EVENTWRITER_STREAMS__LOG__TABLE"
    assert refusal(environ={name: "x"}) == f"unknown stream LOG in {name} (environment): did you mean LOGS? {STREAMS}"


def test_unknown_flags() -> None:
    """A dotted key that does not exist is told like any other."""
    assert refusal(flags={"nats.ulr": "x"}) == "unknown setting nats.ulr (flag): did you mean nats.url?"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("nats.url", 1), ("nats.url", []), ("nats.url", ""), ("nats.url", "http://h"), ("nats.url", "nats://"),
        ("nats.url", "nats://h:x"), ("nats.url", "nats://h:70000"), ("nats.url", "nats://h 2"),
        ("nats.url", ["nats://h", 1]),
        ("nats.url", "nats://[::1"), ("nats.credentials", ""), ("nats.token", 1), ("nats.tls.handshake_first", 1),
        ("nats.tls.handshake_first", "maybe"), ("postgres.dsn", 1), ("postgres.pool_size", 0),
        ("postgres.pool_size", 2.0),
        ("postgres.pool_size", True), ("postgres.pool_size", "two"), ("postgres.statement_timeout", 0),
        ("postgres.statement_timeout", -1), ("postgres.statement_timeout", True), ("postgres.connect_timeout", "1 s"),
        ("postgres.connect_timeout", float("nan")), ("postgres.connect_timeout", float("inf")),
        ("postgres.connect_timeout", "25h"), ("writer.batch_messages", 0), ("writer.batch_messages", "5k"),
        ("writer.batch_bytes", 0), ("writer.batch_bytes", "8M"), ("writer.batch_bytes", "2TiB"), ("writer.ack", "none"),
        ("writer.linger", -0.1), ("writer.drain_timeout", 0), ("writer.drain_timeout", "0s"),
        ("http.listen", "127.0.0.1"),
        ("http.listen", ":9465"), ("http.listen", "h:x"), ("http.listen", "h:65536"), ("http.listen", "::1:80"),
        ("streams.LOGS.enabled", 1), ("streams.LOGS.stream", "a.b"), ("streams.LOGS.stream", ""),
        ("streams.LOGS.durable", "a b"), ("streams.LOGS.durable", "a>"), ("streams.LOGS.subjects", []),
        ("streams.LOGS.subjects", ["a", 1]), ("streams.LOGS.table", "a.b.c"), ("streams.LOGS.table", "a;b"),
        ("streams.LOGS.processes", 0), ("streams.LOGS.exclude", {"a": 1}),
        ("streams.LOGS.omit", 1), ("streams.LOGS.omit", [1]),
    ],
)  # fmt: skip
def test_wrong_values(key: str, value: object) -> None:
    """One line names the key, the value, its place and what is expected."""
    message = refusal(flags={key: value})
    assert message.startswith(f"{key} = ")
    assert " (flag): expected " in message


@pytest.mark.parametrize("pattern", ["a..b", "a.>.b", "a b", "a*", "x.", "a>"])
@pytest.mark.parametrize("key", ["subjects", "exclude"])
def test_filters_must_be_subjects(key: str, pattern: str) -> None:
    """The filter that is wrong, and why, are told."""
    message = refusal(flags={f"streams.LOGS.{key}": ["ok.>", pattern]})
    assert f"expected a NATS subject such as \"logs.>\"; in '{pattern}' " in message


@pytest.mark.parametrize(
    ("stream", "columns", "why"),
    [
        ("LOGS", "sorce", "sorce is no column of the stream: expected some of source, n"),
        ("LOGS", "n,body", "body is core: without it rows lose what they are about: expected some of source, n"),
        ("LOGS", ["source", "a\nb"], '"a\\nb" is no column of the stream: expected some of source, n'),
        ("LOGS", "origin", "origin is no column of the stream: expected "),
        ("LOGS", "Source", "Source is no column of the stream: expected "),
        (
            "EVENTS",
            "body",
            "body is core: without it rows lose what they are about: expected none, for all its columns",
        ),
    ],
)
def test_only_columns_that_a_stream_can_do_without_are_left_out(stream: str, columns: object, why: str) -> None:
    """Anything else is refused by its name, and what may be is told."""
    assert refusal(flags={f"streams.{stream}.omit": columns}).startswith(f"streams.{stream}.omit (flag): {why}")


def test_columns_that_are_left_out_are_a_list() -> None:
    """In the environment with commas."""
    assert load(environ={"EVENTWRITER_STREAMS__LOGS__OMIT": "source, n"}).streams["LOGS"].omit == ("source", "n")


def test_wrong_values_are_told_even_where_another_source_wins(tmp_path: Path) -> None:
    """A mistake does not hide until the day the override goes away."""
    file = tmp_path / "x.toml"
    file.write_text("[writer]\nlinger = true\n")
    assert "writer.linger = true (file " in refusal(file=file, flags={"writer.linger": "1s"})


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"streams.LOGS.ack": "all", "streams.LOGS.processes": 2}, 'streams.LOGS.ack (flag): "all" with 2 processes'),
        ({"writer.ack": "all", "streams.LOGS.processes": 2}, 'streams.LOGS.ack (flag): "all" with 2 processes'),
        ({"nats.user": "u"}, "nats.user (flag): a user without a password"),
        ({"nats.password": "p"}, "nats.password (flag): a password without a user"),
        (
            {"nats.token": "t", "nats.credentials": "c"},
            "nats.token (flag): both nats.credentials and nats.token are set",
        ),
        ({"nats.url": "wss://h"}, "nats.url = *** (flag): expected nats:// or tls://, and the port for clients"),
        ({"nats.url": "nats://h, WS://h:1/x"}, "nats.url = *** (flag): expected nats:// or tls://, and the port"),
        ({"nats.url": "wss://h", "nats.tls.ca": "c"}, "nats.url = *** (flag): expected nats:// or tls://, and the"),
        ({"nats.tls.cert": "c"}, "nats.tls.cert (flag): a certificate without its key"),
        ({"nats.tls.key": "c"}, "nats.tls.key (flag): a key without its certificate"),
        ({"writer.linger": "10s"}, 'streams.EVENTS.linger (flag): "10s" is not below ack_wait "10s"'),
        ({"streams.LOGS.ack_wait": "1s", "streams.LOGS.linger": 1}, 'streams.LOGS.linger (flag): "1s" is not below'),
        ({"postgres.statement_timeout": "2m"}, 'streams.EVENTS.stall_timeout (default): "2m" would kill a worker'),
        (
            {"streams.LOGS.subjects": ["a.*", "a.b"]},
            'streams.LOGS.subjects = ["a.*", "a.b"] (flag): expected subjects that',
        ),
        (
            {f"streams.{n}.{k}": "x" for n in ("LOGS", "EVENTS") for k in ("stream", "durable")},
            "streams.LOGS.durable (flag): consumer x of stream x is that of streams.EVENTS too",
        ),
    ],
)
def test_combinations_that_cannot_work(flags: Mapping[str, object], message: str) -> None:
    """Settings that contradict each other are refused before anything starts."""
    assert refusal(flags=flags).startswith(message)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, a folder and what is not UTF-8 are named."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"a = '\xff'")
    missing = tmp_path / "missing.toml"
    assert refusal(file=missing) == f"configuration file {missing} does not exist"
    assert refusal(file=tmp_path) == f"configuration file {tmp_path} cannot be read: Is a directory"
    assert refusal(file=binary) == f"configuration file {binary} is not UTF-8: byte 5"


DEEP = {
    "lists": f"[writer]\nlinger = {'[' * 3000}{']' * 3000}",
    "tables": f"[writer]\nlinger = {'{a=' * 3000}1{'}' * 3000}",
    "names": f"a{'.a' * 3000} = 1",
    "a table": f"[a{'.a' * 3000}]",
    "names in a list": f"[writer]\nlinger = [{{ a{'.a' * 3000} = 1 }}]",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, text: str) -> None:
    """In one line, whatever is in whatever."""
    place = "configuration file /eventwriter.toml"
    assert refusal_of(tmp_path, text) == f"{place}: what stands in it is nested too deeply"


@pytest.mark.parametrize("key", ["linger", "batch_messages", "batch_bytes", "ack", "ack_wait"])
def test_a_number_of_any_size_is_refused(tmp_path: Path, key: str) -> None:
    """By the setting if it can be read at all, as hexadecimal ones always can."""
    for sign in ("", "-"):
        message = refusal_of(tmp_path, f"[writer]\n{key} = {sign}1{'0' * 400}")
        assert message.startswith(f"writer.{key} = {sign}1000")
        message = refusal_of(tmp_path, f"[writer]\n{key} = {sign}1{'0' * 5000}")
        assert message == "configuration file /eventwriter.toml: a number in it has thousands of digits"
    for value in (f"0x1{'f' * 5000}", f"[0x1{'f' * 5000}]"):
        message = refusal_of(tmp_path, f"[writer]\n{key} = {value}")
        assert message.startswith(f"writer.{key} = a number of thousands of digits (file ")


# ---- shown again


def test_no_time_is_less_than_none(tmp_path: Path) -> None:
    """What is shown of a negative zero can be read again."""
    found = load_text(tmp_path, "[writer]\nlinger = -0.0")
    shown = loading.render(found)
    assert 'linger = "0s"' in shown
    assert load_text(tmp_path, shown) == found


def test_origins_are_comments(tmp_path: Path) -> None:
    """Each line says where its value comes from, and the whole is still TOML of the same settings."""
    file = tmp_path / "x.toml"
    file.write_text("[streams.LOGS]\nlinger = '1s'\n")
    found, origins = loading.load_with_origins(DECLARED, file=file, environ={}, flags={"nats.url": "nats://h"})
    shown = loading.render(found, origins)
    assert 'url = ["nats://h"]  # flag\n' in shown
    assert f'linger = "1s"  # file {file}\n' in shown
    assert "pool_size = 2  # default\n" in shown
    assert "# token is not set\n" in shown
    assert load_text(tmp_path, shown) == found


def test_json_has_numbers() -> None:
    """Seconds and bytes for programs; a stream has all it takes over."""
    shown = json.loads(json.dumps(loading.as_dict(load(flags={"streams.LOGS.linger": "20ms"}))))
    assert shown["writer"]["batch_bytes"] == 8 * 2**20
    assert shown["nats"]["tls"]["handshake_first"] is False
    assert shown["streams"]["LOGS"]["linger"] == 0.02
    assert shown["streams"]["LOGS"]["ack_wait"] == 10.0
    assert shown["streams"]["LOGS"]["subjects"] == ["logs.>"]


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12)
_PATH = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=12)
_PRINTABLE = st.text(st.characters(exclude_characters="=:@", exclude_categories=["C"]), max_size=12)
_TIME = st.floats(0.001, 59, allow_nan=False)
_NAME = st.text("abcXYZ_-é1", min_size=1, max_size=8)
_SUBJECTS = st.lists(st.sampled_from(["a.>", "b.*", "c", "d.e.>"]), unique=True)
_WRITER = {
    "batch_messages": st.integers(1, 10**6),
    "batch_bytes": st.integers(1, 2**30),
    "linger": st.floats(0, 0.09) | st.just(0),
    "ack": st.sampled_from(["each", "all"]),
    "ack_wait": st.floats(0.1, 1000),
    "drain_timeout": _TIME,
    "stall_timeout": st.floats(61, 1000),
}
_STREAM = {
    "enabled": st.booleans(),
    "stream": _NAME,
    "subjects": _SUBJECTS.filter(bool),
    "exclude": _SUBJECTS,
    "omit": st.just([]),
    "table": st.sampled_from(["a", "a.b", '"A b"."c.d"', "é_1"]),
}
_SETTINGS = {
    "nats.url": st.lists(st.sampled_from(["nats://a", "tls://b:1", "c:2", "tls://[::1]:3"]), min_size=1),
    "nats.credentials": _PATH,
    "nats.tls.ca": _PATH,
    "nats.tls.hostname": _TEXT,
    "nats.tls.handshake_first": st.booleans(),
    "postgres.dsn": st.builds(make_conninfo, dbname=_PRINTABLE, application_name=_PRINTABLE),
    "postgres.pool_size": st.integers(1, 1000),
    "postgres.statement_timeout": _TIME,
    "postgres.connect_timeout": _TIME,
    "http.listen": st.sampled_from(["localhost:0", "[::1]:65535", "127.9.0.1:80"]),
    "http.public": st.booleans(),
    **{f"writer.{key}": value for key, value in _WRITER.items()},
    **{f"streams.{n}.{key}": value for n in ("LOGS", "OTEL_TRACES") for key, value in (_STREAM | _WRITER).items()},
}


@settings(max_examples=examples(60))
@given(st.fixed_dictionaries({}, optional=_SETTINGS))
def test_what_is_shown_loads_as_the_same(flags: dict[str, object]) -> None:
    """Without secrets, any settings survive being shown and read again."""
    found = load(flags=flags)
    with tempfile.TemporaryDirectory() as folder:
        assert load_text(Path(folder), loading.render(found)) == found
