"""Turns the configuration of the Go db-event-writer, or of the Elixir writer, into ours, and says what needs a look."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from eventwriter.commands import elixir_import, go_json
from eventwriter.commands.go_connections import nats, postgres
from eventwriter.commands.go_environment import entered, filled
from eventwriter.commands.go_sources import look
from eventwriter.commands.go_streams import TABLES, streams
from eventwriter.config.naming import one_line
from eventwriter.config.rendering import toml
from eventwriter.errors import ConfigurationError

_IGNORED = {
    "listen_addr": "eventwriter has no gRPC health service; health and metrics are served over HTTP, see [http]",
    "security": "it protected the gRPC health service, which eventwriter does not have",
    "logging": "the level is log.level; logs go to standard error",
    "tenant_id": "eventwriter has no tenants: choose them by the subjects of a stream",
    **dict.fromkeys(("partition", "agent_id", "poller_id", "gateway_id", "kv_address"), "the Go writer ignored it too"),
}
_USED = {"nats_url", "nats_creds_file", "nats_security", "cnpg", "stream_name", "consumer_name", "subject", "table"}
_USED |= {"streams", "domain"}
_TLS = {"ca_file", "cert_file", "key_file"}
_WITHIN: dict[str, set[str]] = {
    "nats_security": {"mode", "cert_dir", "server_name", "tls"},
    "nats_security.tls": {*_TLS, "client_ca_file"},
    "cnpg": {
        *("host", "port", "database", "username", "password", "application_name", "ssl_mode", "cert_dir", "tls"),
        *("max_connections", "min_connections", "max_conn_lifetime", "health_check_period"),
        *("statement_timeout", "runtime_params"),
    },
    "cnpg.tls": _TLS,
    "streams[]": {"subject", "table"},
}
"""What is read, or told of, in the parts of the file."""


def convert(text: str, environments: Sequence[str] = (), declared: Collection[str] = ()) -> tuple[str, list[str]]:
    """Our TOML for what a file holds (see ``go_sources``), and notes, which are comments in it, too; without secrets.

    ``environments`` are the texts of files with the environment that the writer runs with: .env, compose, manifests.
    ``declared`` are the names of our streams. Raises ConfigurationError if there is nothing to import.
    """
    found = look(text)
    notes = found.notes
    others = [look(each) for each in environments]
    if not all(each.environment for each in others):
        raise ConfigurationError("a file of --env holds no environment: expected lines of NAME=VALUE, or YAML")
    environment: dict[str, str] = {}
    for each in sorted([found, *others], key=lambda each: not each.lines):
        environment = _settled(each.environment, environment, notes)
    for each in others:
        notes += each.notes
    if found.config is not None:
        source = filled(found.config, environment, notes)
        if environment:
            source = entered(source, environment, notes)
        what = "a db-event-writer configuration"
    elif elixir_import.is_one(environment):
        source = elixir_import.source(environment, notes)
        what = "the environment of the Elixir writer"
    else:
        raise ConfigurationError(
            "not a db-event-writer configuration, but an environment without EVENT_WRITER_…: name the configuration, "
            "and this file with --env"
        )
    body = nats(source, notes) + postgres(go_json.section(source, "cnpg"), notes)
    if found.config is not None:
        body += streams(source, notes)
        for name in sorted({*declared} - {*TABLES.values()}):
            body += ["", f"[streams.{name}]", "enabled = false"]
        notes += _left_out(source)
    else:
        body += elixir_import.streams(declared, sorted({*declared} or TABLES.values()), notes)
    notes[:] = dict.fromkeys(map(one_line, notes))
    head = [f"# Converted from {what}. To be looked at:", "#", *(f"# - {note}" for note in notes), ""]
    return "\n".join([*head, *body]) + "\n", notes


def _settled(block: Mapping[str, str], outer: Mapping[str, str], notes: list[str]) -> dict[str, str]:
    """The environment of a container, in which values may name variables of its own, or those of who starts it."""
    result = dict(outer)
    for name, value in block.items():
        known = {other: each for other, each in block.items() if other != name} | dict(outer)
        result[name] = filled(value, known, notes, name)
    return result


def _left_out(source: Mapping[str, Any]) -> Iterator[str]:
    """A note for each line that has no counterpart, as far as none was made of it; none shows a value."""
    for key in source:
        if key not in _USED:
            yield f"{one_line(toml(str(key)))} is left out: {_IGNORED.get(key, 'eventwriter knows no such setting')}"
    parts: list[tuple[str, Any]] = [(key, go_json.section(source, key)) for key in ("nats_security", "cnpg")]
    parts += [(f"{key}.tls", go_json.section(part, "tls")) for key, part in parts]
    listed = source.get("streams")
    parts += [("streams[]", each) for each in (listed if isinstance(listed, list) else []) if isinstance(each, dict)]
    for path, part in parts:
        for key in part:
            if key not in _WITHIN[path]:
                yield f"{path}.{one_line(toml(str(key)))} is left out: eventwriter knows no such setting"
