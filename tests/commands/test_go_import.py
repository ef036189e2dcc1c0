"""A Go writer's configuration becomes ours: nothing is dropped without a note, and no secret is carried along."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventwriter.commands import check_settings, go_import
from eventwriter.commands.go_streams import TABLES
from eventwriter.config import loading, subjects
from eventwriter.embedded import PostgresServer
from eventwriter.errors import ConfigurationError
from eventwriter.stream import Decoded, Message, Stream
from fix_service import World, new_world, wait_until
from profiles import examples
from traffic import Traffic


def _decode(message: Message) -> Decoded:
    return Decoded()


DECLARED = {name: Stream(name, (f"{name.lower()}.>",), table, (), _decode) for table, name in TABLES.items()}

CERTIFICATES = "/etc/serviceradar/certs"
TLS = {"cert_file": "writer.pem", "key_file": "writer-key.pem", "ca_file": "root.pem"}
FULL: dict[str, Any] = {
    "listen_addr": "0.0.0.0:50041",
    "nats_url": "tls://nats:4222",
    "nats_creds_file": "/etc/serviceradar/creds/platform.creds",
    "stream_name": "events",
    "consumer_name": "db-event-writer",
    "domain": "edge",
    "streams": [
        {"subject": "events.syslog.processed", "table": "events"},
        {"subject": "events.otel.logs", "table": "logs"},
        {"subject": "events.otel.traces", "table": "otel_traces"},
        {"subject": "events.otel.metrics", "table": "otel_metrics"},
        {"subject": "events.otel.metrics.raw", "table": "otel_metrics"},
    ],
    "nats_security": {"mode": "mtls", "cert_dir": CERTIFICATES, "server_name": "nats.serviceradar", "tls": TLS},
    "cnpg": {
        "host": "cnpg-rw",
        "port": 5432,
        "database": "telemetry",
        "username": "writer",
        "ssl_mode": "verify-full",
        "cert_dir": CERTIFICATES,
        "tls": TLS,
        "max_connections": 8,
        "statement_timeout": "30s",
        "runtime_params": {"search_path": "public"},
    },
    "logging": {"level": "info"},
}
SHORT: dict[str, Any] = {
    "listen_addr": ":50041",
    "nats_url": "nats://127.0.0.1:4222",
    "stream_name": "events",
    "consumer_name": "w",
    "subject": "events.poller.health",
    "table": "events",
    "cnpg": {"host": "localhost", "database": "telemetry", "username": "writer", "statement_timeout": 30_000_000_000},
}


def converted(source: dict[str, Any]) -> tuple[loading.Config, str, str]:
    """What the converted file means, its text, and the notes as one text."""
    text, notes = go_import.convert(json.dumps(source))
    assert all("\n" not in note for note in notes)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.toml"
        file.write_text(text, encoding="utf-8")
        found = loading.load(DECLARED, file=file, environ={}, flags={})
    assert all(finding.ok for finding in check_settings.look(found, DECLARED, file))
    return found, text, "\n".join(notes)


def cnpg(**changes: Any) -> dict[str, Any]:
    """The short file with other database settings."""
    return SHORT | {"cnpg": SHORT["cnpg"] | changes}


def test_the_full_file() -> None:
    """Connections, TLS files, subjects, durables and limits are carried over."""
    found, _, notes = converted(FULL)
    assert found.nats.url == ("tls://nats:4222",)
    assert found.nats.credentials == "/etc/serviceradar/creds/platform.creds"
    assert found.nats.tls == loading.TlsConfig(
        ca=f"{CERTIFICATES}/root.pem",
        cert=f"{CERTIFICATES}/writer.pem",
        key=f"{CERTIFICATES}/writer-key.pem",
        hostname="nats.serviceradar",
    )
    assert found.postgres.dsn == (
        "host=cnpg-rw port=5432 dbname=telemetry user=writer sslmode=verify-full "
        f"sslrootcert={CERTIFICATES}/root.pem sslcert={CERTIFICATES}/writer.pem sslkey={CERTIFICATES}/writer-key.pem "
        "options='-c search_path=public'"
    )
    assert found.postgres.statement_timeout == 30.0
    enabled = {name: stream for name, stream in found.streams.items() if stream.enabled}
    assert sorted(enabled) == ["EVENTS", "LOGS", "OTEL_METRICS", "OTEL_TRACES"]
    assert {stream.stream for stream in enabled.values()} == {"events"}
    assert enabled["OTEL_METRICS"].subjects == ("events.otel.metrics", "events.otel.metrics.raw")
    assert enabled["OTEL_METRICS"].durable == "db-event-writer-otel_metrics"
    assert found.nats.domain == "edge"
    for word in ("listen_addr", "logging", "max_connections", "durable", "CNPG_PASSWORD_FILE"):
        assert word in notes


def test_the_legacy_pair() -> None:
    """A file with one subject and table enables that stream only; a number of nanoseconds is a time."""
    found, _, notes = converted(SHORT)
    assert [name for name, stream in found.streams.items() if stream.enabled] == ["EVENTS"]
    assert found.streams["EVENTS"].subjects == ("events.poller.health",)
    assert found.streams["EVENTS"].durable == "w-events"
    assert found.postgres.dsn == "host=localhost port=5432 dbname=telemetry user=writer sslmode=disable"
    assert found.postgres.statement_timeout == 30.0
    assert 'the old consumer "w" is neither used nor deleted' in notes


def test_secrets_stay_behind() -> None:
    """Neither the file nor the notes hold a password, wherever it stood; a note says where it goes."""
    source = cnpg(password="s3cret", runtime_params={"password": "s3cret"})
    source |= {"nats_url": "nats://u:s3cret@h:4222,nats://s3cret@i"}
    source["logging"] = {"otel": {"headers": {"x-api-key": "s3cret"}}}
    found, text, notes = converted(source)
    assert "s3cret" not in text + notes
    assert found.nats.url == ("nats://h:4222", "nats://i")
    assert found.postgres.password is None
    assert "# The password: EVENTWRITER_POSTGRES__PASSWORD_FILE names its file." in text
    assert "cnpg.password is not carried over" in notes
    assert "EVENTWRITER_NATS__PASSWORD_FILE" in notes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("30s", 30.0), ("1m30s", 90.0), ("500ms", 0.5), (1_500_000_000, 1.5), (None, 60.0), ("0", 60.0), ("x", 60.0)],
)
def test_statement_timeout(value: object, seconds: float) -> None:
    """Go's durations and nanoseconds; what is no limit leaves ours, with a note."""
    found, _, notes = converted(cnpg(statement_timeout=value))
    assert found.postgres.statement_timeout == seconds
    assert ("statement_timeout" in notes) is (value in ("0", "x"))


def test_a_long_statement_timeout_needs_more_patience() -> None:
    """A worker must not be killed during a statement that the settings allow."""
    found, _, notes = converted(cnpg(statement_timeout="5m"))
    assert found.postgres.statement_timeout < found.writer.stall_timeout
    assert "stall_timeout" in notes


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tls": TLS}, "sslmode=verify-full sslrootcert=root.pem"),
        ({"tls": {"ca_file": "/ca.pem"}, "cert_dir": "/c"}, "sslmode=verify-full sslrootcert=/ca.pem"),
        ({"ssl_mode": "require"}, "sslmode=require"),
        ({"runtime_params": {"sslmode": "prefer"}}, "sslmode=prefer"),
        ({"port": 0}, "port=5432"),
        ({"port": 6432}, "port=6432"),
        ({"application_name": "it's a \\ name"}, r"application_name='it\'s a \\ name'"),
        ({"runtime_params": {"search_path": "a, b"}}, r"options='-c search_path=a,\\ b'"),
    ],
)
def test_the_connection_string(changes: dict[str, Any], part: str) -> None:
    """Defaults and quoting are those of the Go writer and of libpq."""
    assert part in converted(cnpg(**changes))[0].postgres.dsn


def test_unknown_tables_and_bad_subjects_are_told() -> None:
    """What no stream of ours writes is left out by name; overlapping subjects would be refused by JetStream."""
    pairs = [
        ("x", "ocsf_events"),
        ("a..b", "logs"),
        ("logs.*", "logs"),
        ("logs.a", "logs"),
        ("*.a", "logs"),
        ("t", "other.logs"),
        (1, "a"),
    ]
    found, _, notes = converted(with_streams(*pairs))
    assert found.streams["LOGS"].subjects == ("logs.*", "t")
    assert found.streams["LOGS"].table == "logs"
    for expected in (
        'subject "x" is left out: no stream of eventwriter writes a table "ocsf_events"',
        'subject "a..b" of table "logs" is left out: it has an empty token',
        'subject "*.a" is left out: it overlaps "logs.*" of the same stream',
        'subject "t" goes to "logs", not "other.logs"',
        "entry 7 of streams is left out",
    ):
        assert expected in notes
    assert "logs.a" not in notes  # nothing of it is lost


def with_streams(*pairs: tuple[Any, str]) -> dict[str, Any]:
    """The full file with other subjects and tables."""
    return FULL | {"streams": [{"subject": subject, "table": table} for subject, table in pairs]}


@pytest.mark.parametrize(
    "pairs", [["logs.a", "logs.>"], ["logs.>", "logs.a"], ["logs.a", "logs.*", "logs.b", "logs.>"]]
)
def test_a_wider_subject_takes_the_place_of_narrower_ones(pairs: list[str]) -> None:
    """In whatever order they come, none is lost."""
    found, _, notes = converted(with_streams(*((subject, "logs") for subject in pairs)))
    assert found.streams["LOGS"].subjects == ("logs.>",)
    assert "logs." not in notes


def test_subjects_of_two_streams_are_told() -> None:
    """The Go writer had one consumer, and a message went to one table; with one consumer each it goes to both."""
    found, _, notes = converted(with_streams(("otel.metrics.special", "logs"), ("otel.metrics.raw", "otel_metrics")))
    assert found.streams["LOGS"].subjects == ("otel.metrics.special",)
    assert '"otel.metrics.special" of LOGS and "otel.metrics.>" of OTEL_METRICS have subjects in common' in notes


@pytest.mark.parametrize(
    ("given", "table", "expected"),
    [
        (["otel.traces"], "otel_traces", {"otel.traces", "otel.traces.raw"}),
        (["otel.traces.raw"], "otel_traces", {"otel.traces", "otel.traces.raw"}),
        (["otel.traces", "otel.traces.raw"], "otel_traces", {"otel.traces", "otel.traces.raw"}),
        (["otel.traces.raw", "otel.traces.>"], "otel_traces", {"otel.traces", "otel.traces.>"}),
        (["otel.traces.>", "otel.traces.raw"], "otel_traces", {"otel.traces", "otel.traces.>"}),
        (["otel.metrics"], "otel_metrics", {"otel.metrics", "otel.metrics.>"}),
        (["otel.metrics.raw"], "otel_metrics", {"otel.metrics", "otel.metrics.>"}),
        (["otel.metrics.raw", "otel.metrics"], "otel_metrics", {"otel.metrics", "otel.metrics.>"}),
        (["otel.metrics.>", "otel.metrics.raw"], "otel_metrics", {"otel.metrics", "otel.metrics.>"}),
        (["otel.metrics.derived"], "otel_metrics", {"otel.metrics.derived"}),
        (["otel.>", "otel.metrics.raw"], "otel_metrics", {"otel.>"}),
        (["events.otel.metrics"], "otel_metrics", {"events.otel.metrics"}),
    ],
)
def test_subjects_are_widened_as_the_go_writer_does(given: list[str], table: str, expected: set[str]) -> None:
    """The bare OTLP subjects mean more than what the file says; what was added is told."""
    found, _, notes = converted(with_streams(*((subject, table) for subject in given)))
    patterns = found.streams[TABLES[table]].subjects
    assert set(patterns) == expected
    assert len(patterns) == len(expected)
    for pattern in expected:
        assert (f'"{pattern}"' in notes) is (pattern not in given)


# What was shipped, first with the versions that had events.… subjects, then with later ones.
_PROCESSED = [(f"logs.{name}.processed", "logs") for name in ("syslog", "snmp", "otel", "internal")]
_METRICS = [("otel.metrics", "otel_metrics"), ("otel.metrics.raw", "otel_metrics")]
_FALCO = ("falco.logs.processed", "logs")
_EARLY: list[tuple[str, str]] = [
    ("events.poller.health", "events"), ("events.syslog.processed", "events"), ("events.snmp.processed", "events"),
    ("events.otel.logs", "logs"), ("events.otel.traces", "otel_traces"),
    ("events.otel.metrics", "otel_metrics"), ("events.otel.metrics.raw", "otel_metrics"),
]  # fmt: skip
_LATER = [("events.ocsf.processed", "ocsf_events"), *_PROCESSED, *_METRICS]
SHIPPED = {
    "early": _EARLY,
    "early, Kubernetes": [*_EARLY, ("events.devices.lifecycle", "events")],
    "both traces": [*_LATER, ("otel.traces", "otel_traces"), ("otel.traces.raw", "otel_traces")],
    "compose": [*_LATER, ("otel.traces", "otel_traces")],
    "package": [*_LATER, ("otel.traces.raw", "otel_traces")],
    "helm": [*_LATER, _FALCO, ("otel.traces.raw", "otel_traces")],
}
_PUBLISHED = sorted(
    {subject for pairs in SHIPPED.values() for subject, _ in pairs}
    | {"otel.metrics.derived", "otel.metrics.raw.processed", "otel.metrics.a.b", "otel.traces.derived", "otel"}
)


_ASKED = {
    "otel.traces": ["otel.traces", "otel.traces.raw"],
    "otel.traces.raw": ["otel.traces", "otel.traces.raw"],
    "otel.metrics": ["otel.metrics", "otel.metrics.>"],
    "otel.metrics.raw": ["otel.metrics", "otel.metrics.>"],
}
"""What the consumer of the Go writer asks for instead of these subjects."""


def taken_by_go(pairs: list[tuple[str, str]], subject: str) -> str | None:
    """The table in which the Go writer puts a message of this subject; None if its consumer does not ask for it.

    The first entry that is the message's subject, or with which it begins or ends, names the table; a message that
    none is, but that is asked for, shall go where that entry says for whose sake it is.
    """
    asked = [t for given, t in pairs if any(subjects.subject_matches(p, subject) for p in _ASKED.get(given, [given]))]
    if not asked:
        return None
    fits = [t for given, t in pairs if f"{subject}.".startswith(f"{given}.") or subject.endswith(f".{given}")]
    return [*fits, *asked][0]


@pytest.mark.parametrize("which", SHIPPED)
def test_no_shipped_subject_is_lost(which: str) -> None:
    """Each message that the Go writer took into a table of ours is taken, and by that table's stream."""
    pairs = SHIPPED[which]
    found, _, notes = converted(with_streams(*pairs))
    taken = [subject for subject in _PUBLISHED if taken_by_go(pairs, subject)]
    assert len(taken) >= len(pairs)
    if pairs[0] == _LATER[0]:
        assert {"otel.metrics.derived", "otel.traces.raw", "otel.traces"} <= set(taken)
    assert_taken(pairs, found, notes)


_ANY_PAIRS = st.sampled_from(
    [
        *(pair for pairs in SHIPPED.values() for pair in pairs),
        ("otel.traces.>", "otel_traces"), ("otel.metrics.>", "otel_metrics"), ("otel.metrics.*", "otel_metrics"),
        ("otel.>", "otel_traces"), ("otel.>", "otel_metrics"), ("logs.>", "logs"), ("logs.*.processed", "logs"),
    ]
)  # fmt: skip


def test_what_begins_with_an_entry_is_not_left_to_wildcards() -> None:
    """The Go writer had one consumer: what it asked for with one entry went to the table of another."""
    found, _, notes = converted(with_streams(("otel.traces", "otel_traces"), ("otel.>", "otel_metrics")))
    assert found.streams["OTEL_TRACES"].subjects == ("otel.traces", "otel.traces.>")
    assert found.streams["OTEL_METRICS"].subjects == ("otel.>",)
    assert found.streams["OTEL_METRICS"].exclude == ("otel.traces.>", "otel.traces")
    assert "streams.OTEL_METRICS leaves" in notes
    assert "in common" not in notes


@pytest.mark.parametrize(
    "pairs",
    [
        [("otel.*.raw", "otel_traces"), ("otel.traces", "otel_traces"), ("otel.>", "otel_metrics")],
        [("otel.traces.special", "otel_metrics"), ("otel.traces", "otel_traces"), ("otel.>", "otel_metrics")],
    ],
)
def test_nothing_is_left_to_a_stream_that_does_not_take_it(pairs: list[tuple[str, str]]) -> None:
    """Rather both write it."""
    found, _, _ = converted(with_streams(*pairs))
    for subject in ("otel.traces", "otel.traces.raw", "otel.traces.special", "otel.traces.other"):
        takers = [
            stream
            for stream in found.streams.values()
            if any(subjects.subject_matches(p, subject) for p in stream.subjects)
            and not any(subjects.subject_matches(p, subject) for p in stream.exclude)
        ]
        assert takers, subject


@settings(max_examples=examples(200))
@given(st.lists(_ANY_PAIRS, max_size=8))
@example([("otel.traces", "otel_traces"), ("otel.>", "otel_metrics")])
def test_no_subject_is_lost(pairs: list[tuple[str, str]]) -> None:
    """Nor of any other file; and its filters do not overlap, or it would not load."""
    found, _, notes = converted(with_streams(*pairs))
    assert_taken(pairs, found, notes)


def assert_taken(pairs: list[tuple[str, str]], found: loading.Config, notes: str) -> None:
    """Whatever the Go writer takes into a table of ours, the table's stream takes."""
    for subject in _PUBLISHED:
        table = taken_by_go(pairs, subject)
        name = TABLES.get(table or "")
        if name is not None:
            stream = found.streams[name]
            assert stream.enabled
            assert any(subjects.subject_matches(p, subject) for p in stream.subjects), (subject, stream.subjects, notes)
            assert not any(subjects.subject_matches(p, subject) for p in stream.exclude), (subject, stream.exclude)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer, template: str) -> Iterator[World]:
    """One for all shipped files, each of which begins with a stream of its own."""
    with new_world(tmp_path_factory.mktemp("shipped"), postgres_server, template) as world:
        yield world


@pytest.mark.parametrize("which", SHIPPED)
def test_a_shipped_file_against_real_streams(shared: World, which: str) -> None:
    """It is imported and passes ``check``; then all that the Go writer would have taken is written, nothing else."""
    pairs, world, stream = SHIPPED[which], shared, f"events_{[*SHIPPED].index(which)}"
    expected: Counter[str] = Counter()

    async def publish(client: Any) -> None:
        for info in await client.jetstream().streams_info():
            await client.jetstream().delete_stream(info.config.name)
        await client.jetstream().add_stream(name=stream, subjects=_PUBLISHED)
        for number, subject in enumerate(_PUBLISHED):
            name = TABLES.get(taken_by_go(pairs, subject) or "")
            expected[name or ""] += 1
            source = Traffic(name or "LOGS", seed=1, broken=0.0, records=1, number=number)
            await client.jetstream().publish(subject, source.next().payload)

    world.call(publish)
    del expected[""]  # what goes to no table of ours
    local = {"nats_creds_file": "", "nats_security": {}, "domain": "", "stream_name": stream}
    file, ours = world.folder / f"{stream}.json", world.folder / f"{stream}.toml"
    file.write_text(json.dumps(with_streams(*pairs) | local))
    ours.write_text(world.run("config", "import", str(file)).stdout)
    for options in (["--offline"], []):
        found = world.run("--config", str(ours), "check", *options).stdout
        assert "✗" not in found
        assert "never comes" not in found
    service = world.start("--config", str(ours), "supervise")
    done = f"""SELECT logical_stream, messages_written::int, messages_deadlettered::int
               FROM eventwriter.ledger WHERE stream = '{stream}' ORDER BY 1"""
    wanted = [(name, count, 0) for name, count in sorted(expected.items())]
    wait_until(lambda: world.query(done) == wanted, lambda: f"{wanted}\n{world.log}")
    assert world.stop(service) == 0
    assert world.query(done) == wanted


@pytest.mark.parametrize(
    ("source", "note"),
    [
        ({"nats_security": {"mode": "spiffe", "tls": TLS}}, "spiffe is not supported"),
        ({"nats_security": {"mode": "MTLS", "tls": TLS}}, 'its mode is "MTLS"'),
        ({"nats_security": {"mode": "mtls", "tls": {"cert_file": "c"}}}, "only one of cert_file and key_file"),
        ({"nats_security": {"mode": "mtls", "tls": TLS | {"client_ca_file": "x"}}}, "client_ca_file"),
        ({"security": {"mode": "mtls"}}, '"security" is left out'),
        ({"tenant_id": "t"}, '"tenant_id" is left out'),
        ({"something": 1}, '"something" is left out: eventwriter knows no such setting'),
        ({"stream_name": "a.b"}, "stream_name is missing or no JetStream name"),
        ({"consumer_name": None}, "consumer_name is missing"),
        ({"nats_url": "http://x"}, "nats_url is missing or no NATS URL"),
        ({"cnpg": {}}, "cnpg.host is missing"),
        ({"cnpg": {"tls": TLS, "ssl_mode": "disable"}}, "which the Go writer refused"),
        ({"domain": "a.b"}, "domain is no name of a JetStream domain"),
        ({"domain": 5}, "domain is no name of a JetStream domain"),
        ({"subject": ""}, "all streams are disabled"),
    ],
)
def test_notes(source: dict[str, Any], note: str) -> None:
    """What cannot be carried over is told, and the file loads all the same."""
    assert note in converted(SHORT | source)[2]


@pytest.mark.parametrize("text", ["", "{", "[]", "1"])
def test_what_is_no_configuration(text: str) -> None:
    """Anything but a JSON object is a configuration error of one line."""
    with pytest.raises(ConfigurationError, match="not a db-event-writer configuration"):
        go_import.convert(text)


_ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=[]), max_size=8)
    | st.just("events"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["subject", "table", "mode"]), inner),
    max_leaves=4,
)
_OBJECT = st.fixed_dictionaries({}, optional=dict.fromkeys(["mode", "cert_dir", "server_name", "tls"], _ANY))
_DATABASE = st.dictionaries(st.sampled_from([*FULL["cnpg"], "password", "application_name"]), _ANY)


@settings(max_examples=examples(100))
@given(st.dictionaries(st.sampled_from([*FULL, "subject", "table"]), _ANY), _OBJECT, _DATABASE)
@example({}, {}, {"port": True})
@example({}, {}, {"port": -1})
def test_whatever_the_file_holds_the_result_loads(source: dict[str, Any], tls: Any, database: Any) -> None:
    """No JSON object makes a file that is refused."""
    converted({"nats_security": tls, "cnpg": database} | source)
    converted(source | {"nats_security": tls | {"mode": "mtls"}, "cnpg": database})
