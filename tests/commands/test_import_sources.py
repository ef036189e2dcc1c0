"""What `config import` finds: in manifests, values, compose files and environments; and nothing of it gets lost."""

from __future__ import annotations

import itertools
import json
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from test_go_import import FULL, SHORT

from eventwriter import cli, registry
from eventwriter.commands import check_settings, go_import
from eventwriter.commands.go_sources import look
from eventwriter.config import loading
from eventwriter.errors import ConfigurationError
from profiles import examples

DECLARED = registry.load()


def imported(text: str, *environments: str) -> tuple[loading.Config, str, str]:
    """What the result means, its text, and the notes as one text: each of them is a comment in it."""
    result, notes = go_import.convert(text, environments, DECLARED)
    for note in notes:
        assert f"\n# - {note}\n" in result
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.toml"
        file.write_text(result, encoding="utf-8")
        found = loading.load(DECLARED, file=file, environ={}, flags={})
    assert all(finding.ok for finding in check_settings.look(found, DECLARED, file))
    return found, result, "\n".join(notes)


OTHERS = {"netflow.json": json.dumps({"nats_url": "x", "stream_name": "goflow2"}), "readme": "{no JSON", "n": "1"}
CONFIG_MAP = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "consumers"}}
CONTAINER = {
    "name": "db-event-writer",
    "env": [
        {"name": "CNPG_HOST", "value": "cnpg-rw"}, {"name": "CNPG_PORT", "value": 6432},
        {"name": "DB_EVENT_WRITER_NATS_URL", "value": "nats://$(NATS_HOST):4222"},
        {"name": "NATS_HOST", "value": "nats-0"},
        {"name": "CNPG_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
    ],
}  # fmt: skip
DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": "writers"},
    "spec": {"template": {"spec": {"containers": [{"name": "zen", "env": [{"name": "CNPG_HOST", "value": "no"}]},
                                                  CONTAINER]}}},
}  # fmt: skip
PLACES: dict[str, Any] = {
    "ConfigMap": [CONFIG_MAP | {"data": {"db-event-writer.json": json.dumps(FULL, indent=2)}}],
    "ConfigMap beside others": [CONFIG_MAP | {"data": {**OTHERS, "db-event-writer.json": json.dumps(FULL)}}],
    "List of manifests": [
        {"kind": "List", "items": [{"kind": "Service"}, CONFIG_MAP | {"data": {"a": json.dumps(FULL)}}]}
    ],
    "values": [{"global": {"x": 1}, "dbEventWriter": {"enabled": True, "config": FULL}}],
    "values with text": [{"dbEventWriter": {"config": json.dumps(FULL)}}],
    "many documents": [{"kind": "Service"}, None, CONFIG_MAP | {"data": {"w.json": json.dumps(FULL)}}],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["YAML", "JSON"])
def test_the_configuration_is_found_wherever_it_stands(place: str, form: str) -> None:
    """And means what it means alone; a note says where it was."""
    documents = PLACES[place]
    text = json.dumps({"items": documents}) if form == "JSON" else yaml.safe_dump_all(documents)
    found, _, notes = imported(text)
    assert found == imported(json.dumps(FULL))[0]
    assert "read from " in notes


def test_more_than_one_is_told_with_their_places() -> None:
    """Which to take is not guessed."""
    both = {"a": {"event-writer-1": json.dumps(FULL), "event-writer-2": json.dumps(SHORT)}}
    with pytest.raises(ConfigurationError, match=r"2 configurations, a.event-writer-1, a.event-writer-2: put the one"):
        look(yaml.safe_dump(both))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: ConfigMap\ndata: {a: b}", "there is none in it"),
        ("a: [", "nor YAML that holds one, line 1"),
        ("a:\n  x: |\n    {\"nats_url\": \"x\", \"cnpg\": {{ .Values.cnpg }} }", "a.x is not JSON: it is a template"),
        ("{{ if .Values.x }}\na: 1\n{{ end }}", "it is a template: print what it becomes with `helm template`"),
        ("{\"cnpg\": {{ .Values.cnpg }}}", "it is a template"),
        ("a:\n  x.json: '{\"nats_url\": \"x\", \"cnpg\": }'", "a.x.json is not JSON: Expecting value"),
        ("just a text", "there is none in it"),
        ("A=1\nB=2", "an environment without EVENT_WRITER_"),
        ("!!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
)  # fmt: skip
def test_what_holds_none_says_so(text: str, why: str) -> None:
    """With the reason and, where there is one, a remedy."""
    with pytest.raises(ConfigurationError) as raised:
        go_import.convert(text)
    assert why in str(raised.value)
    assert "\n" not in str(raised.value)


def test_placeholders_are_pointed_out() -> None:
    """Wherever they stand; what is known of them is filled in."""
    source = SHORT | {
        "nats_url": "nats://$(NATS_HOST):4222",
        "stream_name": "${STREAM:-events}",
        "consumer_name": "{{ c }}",
    }
    source |= {"cnpg": SHORT["cnpg"] | {"host": "${CNPG_HOST}", "database": "x$(DB)y", "password": "${P:-s3cret}"}}
    found, text, notes = imported(json.dumps(source))
    for name in ("nats_url holds the placeholder $(NATS_HOST): put", "consumer_name holds the placeholder {{ c }}: put",
                 "cnpg.host holds the placeholder ${CNPG_HOST}: put", "cnpg.database holds the placeholder $(DB): put",
                 "stream_name holds the placeholder ${STREAM}, which is filled in from its default"):  # fmt: skip
        assert name in notes
    assert "s3cret" not in text
    assert found.streams["EVENTS"].stream == "events"
    assert "host='${CNPG_HOST}'" in found.postgres.dsn
    filled = imported(json.dumps(source), "NATS_HOST=n1\nSTREAM=other\nEMPTY=")[0]
    assert filled.nats.url == ("nats://n1:4222",)
    assert filled.streams["EVENTS"].stream == "other"


def test_the_entry_point_of_the_container_replaces() -> None:
    """What it always does, what it does if a variable is set, and its defaults; all of it is told."""
    environment = (
        "# of the container\nCNPG_HOST=db\nexport CNPG_PORT=6432\nCNPG_DATABASE='a b'\nCNPG_SSL_MODE=\n"
        "CNPG_SSLMODE=require\nCNPG_CERT_FILE=db-client.pem\nCNPG_KEY_FILE=/k/db-key.pem\nCNPG_USERNAME=\n"
        "CNPG_PASSWORD_FILE=/run/secrets/p\nNATS_URL=nats://one:4222\nDB_EVENT_WRITER_NATS_URL=nats://two:4222 # this\n"
        'DB_EVENT_WRITER_STREAM_NAME=other\nDB_EVENT_WRITER_STREAMS_JSON=[{"subject": "x.y", "table": "logs"}]\n'
        "DB_EVENT_WRITER_DISABLE_NATS_SECURITY=true\nDB_EVENT_WRITER_OTEL_ENABLED=true\n"
    )
    found, _, notes = imported(json.dumps(FULL), environment)
    assert found.nats.url == ("nats://two:4222",)
    others = go_import.convert(json.dumps(FULL), (), {*DECLARED, "ALERTS"})[0]
    assert others.endswith("[streams.ALERTS]\nenabled = false\n")  # a stream that the Go writer has not
    assert found.nats.tls == loading.TlsConfig()
    assert found.postgres.dsn == (
        "host=db port=6432 dbname='a b' user=serviceradar sslmode=require sslrootcert=/etc/serviceradar/certs/root.pem "
        "sslcert=/etc/serviceradar/certs/db-client.pem sslkey=/k/db-key.pem options='-c search_path=public'"
    )
    enabled = {name: stream for name, stream in found.streams.items() if stream.enabled}
    assert [*enabled] == ["LOGS"]
    assert enabled["LOGS"].subjects == ("x.y",)
    assert enabled["LOGS"].stream == "other"
    for part in (
        "nats_url is that of DB_EVENT_WRITER_NATS_URL", "cnpg.host is that of CNPG_HOST",
        "cnpg.username is the default of the entry point of the container, for CNPG_USERNAME is not set",
        "streams are those of DB_EVENT_WRITER_STREAMS_JSON", "DISABLE_NATS_SECURITY is true",
        "set EVENTWRITER_POSTGRES__PASSWORD_FILE to /run/secrets/p", "OTEL_ENABLED is left out",
    ):  # fmt: skip
        assert part in notes


def test_without_an_environment_nothing_is_replaced() -> None:
    """The file may be the one that the entry point has made."""
    assert "entry point" not in imported(json.dumps(FULL))[2]


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer"])
def test_the_entry_point_drops_tls_where_it_is_not_asked_for(mode: str) -> None:
    """And with it the names of files that libpq would look for."""
    found, _, notes = imported(json.dumps(FULL), f"CNPG_SSL_MODE={mode}")
    assert f"sslmode={mode}" in found.postgres.dsn
    assert "sslrootcert" not in found.postgres.dsn
    assert f"cnpg.tls is left out: the entry point of the container drops it for {mode}" in notes


def test_the_environment_of_a_manifest_goes_with_its_configuration() -> None:
    """That of our container alone; what comes from a secret is told, and a value may name another."""
    manifests = yaml.safe_dump_all([CONFIG_MAP | {"data": {"w.json": json.dumps(FULL)}}, DEPLOYMENT])
    found, _, notes = imported(manifests)
    assert found.nats.url == ("nats://nats-0:4222",)
    assert found.postgres.dsn.startswith("host=cnpg-rw port=6432 dbname=serviceradar")
    assert "CNPG_PASSWORD comes from a secret" in notes
    assert "spec.template.spec.containers[db-event-writer]" in notes
    assert imported(json.dumps(FULL), yaml.safe_dump(DEPLOYMENT))[0] == found


def test_the_environment_of_a_compose_file() -> None:
    """A mapping or a list; variables of who starts it have their defaults."""
    for environment in (
        {
            "CNPG_HOST": "${CNPG_HOST:-cnpg}",
            "CNPG_PORT": 5433,
            "CNPG_SSL_MODE": "${MODE:-disable}",
            "WAIT_FOR_NATS": True,
        },
        ["CNPG_HOST=${CNPG_HOST:-cnpg}", "CNPG_PORT=5433", "CNPG_SSL_MODE=${MODE:-disable}", "FROM_OUTSIDE"],
    ):
        services = {"nats": {"image": "nats"}, "db-event-writer": {"environment": environment}}
        compose = yaml.safe_dump({"services": services})
        assert imported(json.dumps(FULL), compose)[0].postgres.dsn.startswith("host=cnpg port=5433 dbname=serviceradar")
        other = imported(json.dumps(FULL), "MODE=require\nCNPG_HOST=h", compose)[0]
        assert other.postgres.dsn.startswith("host=h port=5433")
        assert "sslmode=require" in other.postgres.dsn


ELIXIR = """
EVENT_WRITER_ENABLED=true
EVENT_WRITER_NATS_URL=tls://user:s3cret@nats-1
EVENT_WRITER_NATS_TLS=1
EVENT_WRITER_NATS_CREDS_FILE=/etc/nats.creds
EVENT_WRITER_BATCH_SIZE=100
EVENT_WRITER_CONSUMER_NAME=mine
CNPG_HOST=db
CNPG_SSL_MODE=verify-full
CNPG_TLS_SERVER_NAME=db.internal
CNPG_PASSWORD=s3cret
POOL_SIZE=10
"""


def test_the_environment_of_the_elixir_writer() -> None:
    """Connections are carried over; of its streams those that a stream of ours is for, and the others are told."""
    found, text, notes = imported(ELIXIR)
    assert "s3cret" not in text
    assert found.nats.url == ("nats://nats-1:4222",)
    assert found.nats.credentials == "/etc/nats.creds"
    folder = "/etc/serviceradar/certs"
    assert found.nats.tls == loading.TlsConfig(
        ca=f"{folder}/root.pem", cert=f"{folder}/core.pem", key=f"{folder}/core-key.pem", hostname="nats.serviceradar"
    )
    assert found.postgres.dsn.startswith("host=db port=5432 dbname=serviceradar user=serviceradar sslmode=verify-full")
    assert f"sslcert={folder}/workstation.pem" in found.postgres.dsn
    assert "search_path=platform" in found.postgres.dsn
    taken = {"OCSF_EVENTS", "FALCO", "BMP", "FLOWS"}
    assert {name for name, stream in found.streams.items() if stream.enabled} == taken & set(DECLARED)
    for part in (
        "BATCH_SIZE is left out", "CONSUMER_NAME is left out", "ignores its scheme tls", "ignores the login",
        "CNPG_TLS_SERVER_NAME is left out", "POOL_SIZE is left out", "trivy.report.>", "otel.metrics.>",
        "EVENTWRITER_POSTGRES__PASSWORD_FILE",
    ):  # fmt: skip
        assert part in notes


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("EVENT_WRITER_ENABLED=True", 'EVENT_WRITER_ENABLED is not "true"'),
        ("EVENT_WRITER_NATS_USER=u\nEVENT_WRITER_NATS_PASSWORD=s3cret", "set EVENTWRITER_NATS__USER"),
        ("EVENT_WRITER_SOMETHING=s3cret", "EVENT_WRITER_SOMETHING is left out: the Elixir writer knows no such"),
        ("EVENT_WRITER_ENABLED=1\nDATABASE_URL=ecto://u:s3cret@h:6432/d?ssl=true", "cnpg.password is not carried over"),
        ("EVENT_WRITER_ENABLED=1", "cnpg.host is missing"),
    ],
)
def test_what_is_told_of_the_elixir_writer(text: str, part: str) -> None:
    """Also of what was never read; no secret is carried along."""
    found, result, notes = imported(text)
    assert part in notes
    assert "s3cret" not in result
    assert found.nats.url == ("nats://localhost:4222",)
    if "DATABASE_URL" in text:
        assert "host=h port=6432 dbname=d user=u" in found.postgres.dsn


def test_the_elixir_writer_in_a_manifest() -> None:
    """As in values-demo: the environment of one container among others."""
    container = {"name": "core", "env": [{"name": "EVENT_WRITER_ENABLED", "value": "true"},
                                         {"name": "EVENT_WRITER_NATS_URL", "value": "nats://n:4333"}]}  # fmt: skip
    found, _, notes = imported(yaml.safe_dump({"spec": {"containers": [container, {"name": "x", "env": {"A": "b"}}]}}))
    assert found.nats.url == ("nats://n:4333",)
    assert "containers[core]" in notes


def test_the_environment_may_be_the_data_of_a_config_map() -> None:
    """Which a container takes with envFrom; other data are none."""
    data = CONFIG_MAP | {"data": {"EVENT_WRITER_ENABLED": "true", "EVENT_WRITER_NATS_URL": "nats://n:4333"}}
    assert imported(yaml.safe_dump(data))[0].nats.url == ("nats://n:4333",)
    with pytest.raises(ConfigurationError, match="there is none in it"):
        go_import.convert(yaml.safe_dump(CONFIG_MAP | {"data": {"EVENT_WRITER.md": "x"}}))


def test_the_command(tmp_path: Path) -> None:
    """The result goes to standard output, the notes to standard error as well, and nothing of them hurts a terminal."""
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(PLACES["ConfigMap"][0] | {"extra": "\\e"}))
    (tmp_path / "env").write_text("CNPG_HOST=h\nCNPG_PASSWORD_FILE=/run/\x1b[31m\n")
    arguments = ["config", "import", str(tmp_path / "map.yaml"), "--env", str(tmp_path / "env")]
    done = CliRunner().invoke(cli.cli, arguments)
    assert done.exit_code == 0
    assert (
        done.stdout
        == go_import.convert((tmp_path / "map.yaml").read_text(), [(tmp_path / "env").read_text()], DECLARED)[0]
    )
    assert all(map(str.isprintable, done.output.splitlines()))
    assert "note: cnpg.host is that of CNPG_HOST" in done.stderr


def test_every_line_without_a_counterpart_is_a_comment() -> None:
    """On every level; none shows a value, for it may be a secret."""
    source = json.loads(json.dumps(FULL))
    source |= {"new": "s3cret"}
    source["cnpg"] |= {"new": "s3cret", "min_connections": 0, "max_conn_lifetime": "1h"}
    source["cnpg"]["tls"] |= {"new": "s3cret"}
    source["nats_security"] |= {"role": "s3cret"}
    source["nats_security"]["tls"] |= {"skip_verify": True}
    source["streams"][0]["new"] = "s3cret"
    _, text, _ = imported(json.dumps(source))
    keys = ['"new"', 'cnpg."new"', "cnpg.min_connections", "cnpg.max_conn_lifetime", 'cnpg.tls."new"']
    keys += [
        "max_connections",
        'nats_security."role"',
        'nats_security.tls."skip_verify"',
        'streams[]."new"',
        '"logging"',
    ]
    for key in keys:
        assert any(line.startswith("# - ") and key in line for line in text.splitlines()), key
    assert "s3cret" not in text


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_NAMES = [
    *("CNPG_HOST", "CNPG_PORT", "CNPG_SSL_MODE", "CNPG_CERT_DIR", "CNPG_KEY_FILE", "CNPG_SEARCH_PATH", "DATABASE_URL"),
    *("EVENT_WRITER_NATS_URL", "EVENT_WRITER_NATS_TLS", "EVENT_WRITER_ENABLED", "EVENT_WRITER_NATS_CREDS_FILE"),
    *("DB_EVENT_WRITER_NATS_URL", "DB_EVENT_WRITER_STREAMS_JSON", "DB_EVENT_WRITER_STREAM_NAME", "SPIFFE_CERT_DIR"),
]
_VALUES = _TEXT | st.sampled_from(
    [
        *("true", "1", "disable", "$(CNPG_HOST)", "${X:-y}", "[]", "[1]", "{}", "nats://h:1", "\x1b[2J"),
        *("ecto://u@h/d", "ecto://[", "ecto://h:x/d"),
    ]
)


@settings(max_examples=examples(100))
@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES), st.booleans())
def test_whatever_the_environment_holds_the_result_loads(environment: dict[str, str], go: bool) -> None:
    """No environment makes a file that is refused, or that a terminal would obey."""
    container = {
        "name": "event-writer",
        "env": [{"name": n, "value": v} for n, v in (environment | {"EVENT_WRITER_X": ""}).items()],
    }
    text = yaml.safe_dump({"containers": [container]})
    _, result, _ = imported(json.dumps(FULL), text) if go else imported(text)
    assert all(line.isprintable() for line in result.split("\n"))


def test_comments_of_the_file_are_within_reason() -> None:
    """What is imported begins with what to look at, and is TOML after that."""
    _, text, _ = imported(json.dumps(SHORT))
    assert text.startswith(
        textwrap.dedent("""\
        # Converted from a db-event-writer configuration. To be looked at:
        #
        # - """)
    )
    assert "\n\n[nats]\n" in text


def test_a_file_that_is_not_utf_8_is_told(tmp_path: Path) -> None:
    """Such as Windows writes; what it puts before UTF-8 does no harm."""
    file, environment = tmp_path / "x.json", tmp_path / "e"
    environment.write_bytes("A=ä".encode("latin-1"))
    text = json.dumps(FULL)
    for wrong in (text.encode("utf-16"), "# ä\n".encode("latin-1")):
        file.write_bytes(wrong)
        done = CliRunner().invoke(cli.cli, ["config", "import", str(file)])
        assert isinstance(done.exception, ConfigurationError)
        assert f"{file} is not UTF-8" in str(done.exception)
    file.write_text(text, encoding="utf-8-sig")
    done = CliRunner().invoke(cli.cli, ["config", "import", str(file), "--env", str(environment)])
    assert f"{environment} is not UTF-8" in str(done.exception)
    assert CliRunner().invoke(cli.cli, ["config", "import", str(file)]).exit_code == 0
    assert imported(file.read_text(encoding="utf-8"))[1] == imported(text)[1]


def test_what_is_at_the_top_has_a_place() -> None:
    """In the note that says what was read."""
    assert "read from the top of the file" in imported(yaml.safe_dump(FULL))[2]


@pytest.mark.parametrize(
    "database",
    [
        "runtime_params: {on: 1, 2: 3, null: x, jit: off}",
        f"statement_timeout: 1{'0' * 400}",
        "statement_timeout: .inf",
        "statement_timeout: .nan",
    ],
)
def test_values_that_only_yaml_has(database: str) -> None:
    """What cannot be carried over is left out, and told."""
    _, _, notes = imported(f"nats_url: nats://n:4222\nstream_name: events\ncnpg:\n  host: h\n  {database}\n")
    assert " is left out" in notes


@pytest.mark.parametrize(
    "text",
    [
        "a: &a {b: *a, c: *a}",
        "nats_url: x\ncnpg: &a {tls: *a, b: *a}",
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise("abcdefghij")),
        f"nats_url: x\ncnpg: {'[' * 110}{']' * 110}",
        json.dumps({"nats_url": "x", "cnpg": json.loads("[" * 600 + "]" * 600)}),
        f"nats_url: x\ncnpg: {{port: 0x{'f' * 5000}}}",
        "nats_url: x\ncnpg: {port: !!int ''}",
        "nats_url: x\ncnpg: !!bool perhaps",
        "cnpg: !!timestamp soon",
    ],
    ids=itertools.count(),
)
def test_what_no_person_wrote_is_refused_at_once(text: str) -> None:
    """Values that are part of themselves, or of so many others that nobody could look at them all."""
    begun = time.process_time()
    with pytest.raises(ConfigurationError):
        look(text)
    assert time.process_time() - begun < 5
