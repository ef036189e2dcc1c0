"""The Elixir writer's environment (EVENT_WRITER_*) as a source of settings, in the terms of the Go writer's."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from eventwriter.config.naming import one_line
from eventwriter.config.rendering import toml

_CERTIFICATES = "/etc/serviceradar/certs"
_PREFIX = "EVENT_WRITER_"
_TRUE = ("true", "1", "yes")


class _Source(NamedTuple):
    """What the Elixir writer takes, and which stream of ours would."""

    stream: str
    subjects: tuple[str, ...]
    table: str
    name: str | None


_SOURCES = (
    _Source("events", ("events.>",), "ocsf_events", "OCSF_EVENTS"),
    _Source("falco_events", ("falco.>",), "logs and ocsf_events", "FALCO"),
    _Source("trivy_reports", ("trivy.report.>",), "trivy_reports and trivy_findings", None),
    _Source("events", ("bmp.events.>", "siem.events.>"), "bmp_routing_events and ocsf_events", None),
    _Source("ARANCINI_CAUSAL", ("arancini.updates.>",), "bmp_routing_events and ocsf_events", "BMP"),
    _Source("events", ("flows.raw.sflow", "flows.raw.netflow"), "ocsf_network_activity", "FLOWS"),
)
_LOST = ("otel.metrics.>", "otel.traces.>")
"""The Elixir writer acknowledges these and writes nothing."""
_DATABASE = {
    "host": ("CNPG_HOST", ""),
    "port": ("CNPG_PORT", "5432"),
    "database": ("CNPG_DATABASE", "serviceradar"),
    "username": ("CNPG_USERNAME", "serviceradar"),
    "ssl_mode": ("CNPG_SSL_MODE", "disable"),
}
_FILES = {"ca_file": ("CNPG_CA_FILE", "root.pem"), "cert_file": ("CNPG_CERT_FILE", "workstation.pem"),
          "key_file": ("CNPG_KEY_FILE", "workstation-key.pem")}  # fmt: skip


def is_one(environment: Mapping[str, str]) -> bool:
    """Whether it is an environment of the Elixir writer."""
    return any(name.startswith(_PREFIX) for name in environment)


def source(environment: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """The connections as a configuration of the Go writer would have them; notes what has no counterpart."""
    if environment.get(f"{_PREFIX}ENABLED") not in _TRUE:
        notes.append(f'{_PREFIX}ENABLED is not "true": this writer did not run, or ran with its defaults')
    for name in sorted(environment):
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _READ:
            reason = _WITHOUT.get(name.removeprefix(_PREFIX), "the Elixir writer knows no such variable either")
            notes.append(f"{one_line(name)} is left out: {reason}")
    result: dict[str, Any] = {
        "nats_url": _nats_url(environment.get(f"{_PREFIX}NATS_URL") or "nats://localhost:4222", notes)
    }
    result["nats_creds_file"] = environment.get(f"{_PREFIX}NATS_CREDS_FILE", "")
    if environment.get(f"{_PREFIX}NATS_USER") and not result["nats_creds_file"]:
        notes.append(
            f"{_PREFIX}NATS_USER and {_PREFIX}NATS_PASSWORD are not carried over: set EVENTWRITER_NATS__USER and "
            "EVENTWRITER_NATS__PASSWORD_FILE"
        )
    if environment.get(f"{_PREFIX}NATS_TLS") in _TRUE:
        files = {"ca_file": "root.pem", "cert_file": "core.pem", "key_file": "core-key.pem"}
        folder = environment.get("SPIFFE_CERT_DIR") or _CERTIFICATES
        result["nats_security"] = {"mode": "mtls", "cert_dir": folder, "server_name": "nats.serviceradar", "tls": files}
    result["cnpg"] = _database(environment, notes)
    return result


_READ = {"ENABLED", "NATS_URL", "NATS_CREDS_FILE", "NATS_USER", "NATS_PASSWORD", "NATS_TLS"}
_WITHOUT = {
    "BATCH_SIZE": "it had no effect on any stream; batches are as large as the backlog makes them, see [writer]",
    "BATCH_TIMEOUT": "it had no effect on any stream; a message is written at once, see writer.linger",
    "CONSUMER_NAME": "the consumers that it names are push consumers; eventwriter makes others, delete the old ones "
    "when nothing needs them",
}


def _nats_url(text: str, notes: list[str]) -> str:
    """Host and port, which is all that the Elixir writer reads of it."""
    scheme, found, rest = text.partition("://")
    rest = (rest if found else text).rpartition("@")[2].rstrip("/")
    if found and scheme != "nats":
        notes.append(
            f"{_PREFIX}NATS_URL: the Elixir writer ignores its scheme {one_line(scheme)}; TLS is {_PREFIX}NATS_TLS"
        )
    if "@" in text:
        notes.append(f"{_PREFIX}NATS_URL: the Elixir writer ignores the login in it")
    return f"nats://{rest}" if re.search(r":\d+$", rest) else f"nats://{rest}:4222"


def _database(environment: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    url = environment.get("DATABASE_URL")
    result: dict[str, Any] = {
        key: environment.get(variable) or default for key, (variable, default) in _DATABASE.items()
    }
    if url:
        try:
            parts = urlsplit(url)
            result |= {"host": unquote(parts.hostname or ""), "port": str(parts.port or 5432)}
            result |= {"username": unquote(parts.username or ""), "database": unquote(parts.path.lstrip("/"))}
            if parts.password:
                result["password"] = "x"  # that there is one, not what it is
            if parts.query:
                notes.append("DATABASE_URL: what stands behind its ? is left out: see postgres.dsn")
        except ValueError:
            notes.append("DATABASE_URL is left out: it is no URL")
    elif environment.get("CNPG_PASSWORD_FILE"):
        path = one_line(environment["CNPG_PASSWORD_FILE"])
        notes.append(f"CNPG_PASSWORD_FILE: set EVENTWRITER_POSTGRES__PASSWORD_FILE to {path}")
    elif environment.get("CNPG_PASSWORD"):
        result["password"] = "x"
    if result["port"].isascii() and result["port"].isdecimal():
        result["port"] = int(result["port"])
    if result["ssl_mode"] != "disable":
        result["cert_dir"] = environment.get("CNPG_CERT_DIR") or _CERTIFICATES
        result["tls"] = {key: environment.get(variable) or name for key, (variable, name) in _FILES.items()}
    result["runtime_params"] = {"search_path": environment.get("CNPG_SEARCH_PATH") or "platform, public, ag_catalog"}
    name = environment.get("CNPG_TLS_SERVER_NAME")
    if name and name != result["host"]:
        notes.append(
            "CNPG_TLS_SERVER_NAME is left out: PostgreSQL's library checks the certificate against host: in "
            f"postgres.dsn say host={one_line(name)} and hostaddr= the address"
        )
    if environment.get("POOL_SIZE"):
        notes.append("POOL_SIZE is left out: postgres.pool_size counts the connections of each worker")
    return result


def streams(declared: Container[str], names: Iterable[str], notes: list[str]) -> list[str]:
    """The lines of every [streams.NAME]: on is what the Elixir writer takes and a stream of ours is for."""
    lines: list[str] = []
    taken: set[str] = set()
    for each in _SOURCES:
        if each.name is not None and each.name in declared:
            taken.add(each.name)
            lines += [
                f"[streams.{each.name}]",
                f"stream = {toml(each.stream)}",
                f"subjects = {toml([*each.subjects])}",
                "",
            ]
        else:
            notes.append(
                f"{' and '.join(each.subjects)} of the JetStream stream {each.stream} are left out: no stream of "
                f"eventwriter writes {each.table}; the Elixir writer has to go on with them"
            )
    notes.append(
        f"{' and '.join(_LOST)} are left out as well: the Elixir writer acknowledges them and writes nothing; "
        "streams.OTEL_METRICS and streams.OTEL_TRACES write them if they are enabled"
    )
    for name in names:
        if name not in taken:
            lines += [f"[streams.{name}]", "enabled = false", ""]
    return lines[:-1]
