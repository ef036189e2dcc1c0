"""Turns the JSON configuration of the Go db-event-writer into ours, and says what a person has to look at."""

from __future__ import annotations

import contextlib
import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from typing import Any

from eventwriter.config import kinds, subjects
from eventwriter.config.naming import one_line
from eventwriter.config.rendering import toml
from eventwriter.config.units import format_duration, parse_duration
from eventwriter.errors import ConfigurationError

TABLES = {
    "timeseries_metrics": "TELEMETRY",
    "events": "EVENTS",
    "sweep_host_states": "SWEEP",
    "netflow_metrics": "NETFLOW",
    "otel_metrics": "OTEL_METRICS",
    "otel_traces": "OTEL_TRACES",
    "logs": "LOGS",
}
"""The stream that writes each table the Go writer may name."""

_IGNORED = {
    "listen_addr": "eventwriter has no gRPC health service; health and metrics are served over HTTP, see [http]",
    "security": "it protected the gRPC health service, which eventwriter does not have",
    "logging": "the log level is --log-level or EVENTWRITER_LOG_LEVEL; logs go to standard error",
    "tenant_id": "eventwriter has no tenants: choose them by the subjects of a stream",
    **dict.fromkeys(("partition", "agent_id", "poller_id", "gateway_id", "kv_address"), "the Go writer ignored it too"),
}
_SSL = {"ca_file": "sslrootcert", "cert_file": "sslcert", "key_file": "sslkey"}
_NOT_CARRIED = ("min_connections", "max_conn_lifetime", "health_check_period")
# What later Go writers make of these subjects by themselves.
_WIDENED = {
    **dict.fromkeys(("otel.traces", "otel.traces.raw"), ("otel.traces", "otel.traces.raw")),
    **dict.fromkeys(("otel.metrics", "otel.metrics.raw"), ("otel.metrics", "otel.metrics.>")),
}


def convert(text: str) -> tuple[str, list[str]]:
    """Our TOML for a db-event-writer JSON file, and notes on what needs attention; neither holds a secret.

    Raises ConfigurationError if the text is not such a file.
    """
    try:
        source = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"not a db-event-writer configuration: {error}") from None
    if not isinstance(source, dict):
        raise ConfigurationError("not a db-event-writer configuration: expected a JSON object")
    notes: list[str] = []
    lines = ["# Converted from a db-event-writer configuration.", ""]
    lines += _nats(source, notes)
    lines += _postgres(_object(source, "cnpg"), notes)
    lines += _streams(source, notes)
    used = {"nats_url", "nats_creds_file", "nats_security", "cnpg", "stream_name", "consumer_name", "subject", "table"}
    used |= {"streams", "domain"}
    notes += [
        f"{one_line(toml(key))} is left out: {_IGNORED.get(key, 'eventwriter knows no such setting')}"
        for key in source
        if key not in used
    ]
    return "\n".join(lines) + "\n", notes


# ---- [nats]


def _nats(source: Mapping[str, Any], notes: list[str]) -> list[str]:
    lines = ["[nats]"]
    urls = [url.strip() for url in _text(source, "nats_url").split(",") if url.strip()]
    shown = [_without_login(url) for url in urls]
    if shown != urls:
        notes.append(
            "nats_url holds a login, which is not carried over: set EVENTWRITER_NATS__USER and "
            "EVENTWRITER_NATS__PASSWORD_FILE, or EVENTWRITER_NATS__TOKEN_FILE"
        )
    if _valid(kinds.URLS, shown):
        lines.append(f"url = {toml(shown)}")
    else:
        notes.append("nats_url is missing or no NATS URL: set nats.url, or nats://127.0.0.1:4222 is used")
    if _text(source, "nats_creds_file"):
        lines.append(f"credentials = {toml(_text(source, 'nats_creds_file'))}")
    if _text(source, "domain"):
        notes.append(
            f"domain {toml(_text(source, 'domain'))} is left out: name servers of that JetStream domain in nats.url, "
            "because eventwriter uses the domain of the server it is connected to"
        )
    security = _object(source, "nats_security")
    mode = _text(security, "mode") or "none"
    if mode == "mtls":
        lines += ["", *_nats_tls(security, notes)]
    elif mode == "spiffe":
        notes.append(
            "nats_security mode spiffe is not supported: have a SPIFFE helper write certificate and key to files and "
            "name those in [nats.tls]"
        )
    elif mode != "none" or security.get("tls"):
        notes.append(f"nats_security is left out: its mode is {toml(mode)}, and only mtls is carried over")
    return [*lines, ""]


def _nats_tls(security: Mapping[str, Any], notes: list[str]) -> list[str]:
    tls = _object(security, "tls")
    files = {new: _path(security, tls, f"{new}_file") for new in ("ca", "cert", "key")}
    if bool(files["cert"]) != bool(files["key"]):
        notes.append("nats_security.tls has only one of cert_file and key_file: set nats.tls.cert and nats.tls.key")
        files["cert"] = files["key"] = ""
    if _text(tls, "client_ca_file") not in ("", _text(tls, "ca_file")):
        notes.append("nats_security.tls.client_ca_file is left out: nats.tls.ca is the one that signs the servers")
    files["hostname"] = _text(security, "server_name")
    return ["[nats.tls]", *(f"{key} = {toml(value)}" for key, value in files.items() if value)]


def _without_login(url: str) -> str:
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


# ---- [postgres]


def _postgres(database: Mapping[str, Any], notes: list[str]) -> list[str]:
    dsn = " ".join(f"{key}={_escaped(value)}" for key, value in _conninfo(database, notes).items() if value)
    lines = ["[postgres]", f"dsn = {toml(dsn)}", "# The password: EVENTWRITER_POSTGRES__PASSWORD_FILE names its file."]
    if _text(database, "password"):
        notes.append(
            "cnpg.password is not carried over: put it into a file that only eventwriter can read, and set "
            "EVENTWRITER_POSTGRES__PASSWORD_FILE to its path"
        )
    else:
        notes.append(
            "cnpg holds no password: if it came from CNPG_PASSWORD_FILE, set EVENTWRITER_POSTGRES__PASSWORD_FILE to "
            "the same path; eventwriter reads no CNPG_ variables"
        )
    if database.get("max_connections"):
        notes.append("cnpg.max_connections is left out: postgres.pool_size counts the connections of each worker")
    notes += [f"cnpg.{key} is left out: eventwriter has no such setting" for key in _NOT_CARRIED if database.get(key)]
    seconds = _go_duration(database.get("statement_timeout"), notes)
    if seconds is not None:
        lines.append(f"statement_timeout = {toml(format_duration(seconds))}")
    lines.append("")
    if seconds is not None and seconds >= 120:
        notes.append("writer.stall_timeout was raised, because it must exceed cnpg.statement_timeout")
        lines += ["[writer]", f"stall_timeout = {toml(format_duration(seconds + 60))}", ""]
    return lines


def _conninfo(database: Mapping[str, Any], notes: list[str]) -> dict[str, str]:
    """libpq's keywords for the ``cnpg`` object."""
    tls, parameters = _object(database, "tls"), _object(database, "runtime_params")
    port = database.get("port")
    found = {
        "host": _text(database, "host"),
        "port": str(port) if isinstance(port, int) and port else "5432",
        "dbname": _text(database, "database"),
        "user": _text(database, "username"),
        "application_name": _text(database, "application_name") or _text(parameters, "application_name"),
        "sslmode": _text(database, "ssl_mode") or _text(parameters, "sslmode"),
    }
    notes += [f"cnpg.{key} is missing: set it in postgres.dsn" for key in ("host", "database", "username")
              if not _text(database, key)]  # fmt: skip
    found["sslmode"] = found["sslmode"] or ("verify-full" if tls else "disable")
    if tls and found["sslmode"] == "disable":
        notes.append("cnpg has tls files and ssl_mode disable, which the Go writer refused: correct postgres.dsn")
    for old, new in _SSL.items():
        found[new] = _path(database, tls, old) or _text(parameters, new)
    options = []
    for key, value in parameters.items():
        if key in found:
            continue
        if key == "statement_timeout":
            notes.append("cnpg.runtime_params.statement_timeout is left out: set postgres.statement_timeout")
        elif (
            not str(value).isprintable()
            or not re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", key)
            or re.search("password|secret|key", key)
        ):
            notes.append(
                f"cnpg.runtime_params.{one_line(toml(key))} is left out: it is no parameter of a PostgreSQL session"
            )
        else:
            options.append(f"-c {key}=" + re.sub(r"([\s\\])", r"\\\1", str(value)))
    return found | {"options": " ".join(options)}


def _escaped(value: str) -> str:
    """A value in a conninfo string (PostgreSQL documentation, 34.1.1.1)."""
    if re.fullmatch(r"[\w.:/@,+-]+", value):
        return value
    return "'" + re.sub(r"(['\\])", r"\\\1", value) + "'"


def _go_duration(value: object, notes: list[str]) -> float | None:
    """Seconds of a Go duration, text or nanoseconds; None if there is none that can be carried over."""
    if value is None:
        return None
    seconds = 0.0
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            seconds = parse_duration(value)
    elif isinstance(value, int | float):
        seconds = round(value / 1e9, 6)
    if 0.001 <= seconds <= 86_000:
        return seconds
    notes.append("cnpg.statement_timeout is left out: it is no time from 1 ms to a day; eventwriter always has a limit")
    return None


# ---- [streams.NAME]


def _streams(source: Mapping[str, Any], notes: list[str]) -> list[str]:
    taken = _subjects_by_stream(source, notes)
    stream, consumer = _text(source, "stream_name"), _text(source, "consumer_name")
    if not _valid(kinds.NAME, stream):
        notes.append("stream_name is missing or no JetStream name: set stream in each [streams.…]")
        stream = ""
    if not _valid(kinds.NAME, consumer):
        notes.append("consumer_name is missing or no JetStream name: consumers get the names eventwriter gives them")
        consumer = ""
    lines = []
    for name in sorted(TABLES.values()):
        lines.append(f"[streams.{name}]")
        if name in taken:
            table, patterns = taken[name]
            lines += [f"stream = {toml(stream)}"] if stream else []
            lines += [f"durable = {toml(f'{consumer}-{name.lower()}')}"] if consumer else []
            lines += [f"subjects = {toml(patterns)}", f"table = {toml(table)}"]
        else:
            lines.append("enabled = false")
        lines.append("")
    if taken:
        notes.append(
            f"each stream gets a durable consumer of its own; the old consumer {toml(consumer) if consumer else ''} is "
            "neither used nor deleted. A new consumer begins with the oldest message that JetStream still holds, so "
            "what the Go writer has written and the stream still holds is written once more: stop the Go writer when "
            "it is up to date, and purge the stream or expect those rows twice. Delete the old consumer yourself when "
            "nothing needs it"
        )
    else:
        notes.append("no subject goes to a table that eventwriter writes: all streams are disabled")
    return lines[:-1]


def _subjects_by_stream(source: Mapping[str, Any], notes: list[str]) -> dict[str, tuple[str, list[str]]]:
    """Table and subjects of each stream that the file mentions."""
    taken: dict[str, tuple[str, list[str]]] = {}
    given: set[str] = set()
    for subject, table in _pairs(source, notes):
        name = TABLES.get(table.rpartition(".")[2])
        reason = subjects.invalid(subject)
        if name is None or not _valid(kinds.TABLE, table):
            notes.append(f"subject {toml(subject)} is left out: no stream of eventwriter writes a table {toml(table)}")
            continue
        if reason:
            notes.append(f"subject {toml(subject)} of table {toml(table)} is left out: {reason}")
            continue
        target, patterns = taken.setdefault(name, (table, []))
        if target != table:
            notes.append(f"subject {toml(subject)} goes to {toml(target)}, not {toml(table)}: one stream has one table")
        for pattern in _WIDENED.get(subject, (subject,)):
            clash = _add(patterns, pattern)
            if clash is not None:
                notes.append(f"subject {toml(pattern)} is left out: it overlaps {toml(clash)} of the same stream")
        given.add(subject)
    for name, (_, patterns) in taken.items():
        more = [pattern for pattern in patterns if pattern not in given]
        if more:
            notes.append(f"streams.{name}.subjects has {toml(more)} as well, which later Go writers take by themselves")
    for (one, (_, left)), (other, (_, right)) in combinations(taken.items(), 2):
        notes += [
            f"{toml(a)} of {one} and {toml(b)} of {other} have subjects in common: both streams write those messages"
            for a, b in product(left, right)
            if subjects.overlap(a, b)
        ]
    return taken


def _add(patterns: list[str], pattern: str) -> str | None:
    """Adds a filter, which takes the place of what it covers; the one with which it cannot be in one consumer."""
    if any(subjects.covers(each, pattern) for each in patterns):
        return None
    others = [each for each in patterns if not subjects.covers(pattern, each)]
    clash = next((each for each in others if subjects.overlap(each, pattern)), None)
    if clash is None:
        patterns[:] = [*others, pattern]
    return clash


def _pairs(source: Mapping[str, Any], notes: list[str]) -> Iterator[tuple[str, str]]:
    listed = source.get("streams")
    if not isinstance(listed, list) or not listed:
        listed = [source] if _text(source, "subject") else []
    for number, item in enumerate(listed, start=1):
        if isinstance(item, dict) and _text(item, "subject") and _text(item, "table"):
            yield _text(item, "subject"), _text(item, "table")
        else:
            notes.append(f"entry {number} of streams is left out: it lacks a subject or a table")


# ---- JSON


def _object(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def _text(source: Mapping[str, Any], key: str) -> str:
    value = source.get(key)
    return value.strip() if isinstance(value, str) and value.isprintable() else ""


def _path(holder: Mapping[str, Any], tls: Mapping[str, Any], key: str) -> str:
    """A file of a ``tls`` object; relative names are in the ``cert_dir`` beside it."""
    name = _text(tls, key)
    return posixpath.join(_text(holder, "cert_dir"), name) if name else ""


def _valid(kind: kinds.Kind, value: object) -> bool:
    try:
        kind.parse(value)
    except ValueError:
        return False
    return True
