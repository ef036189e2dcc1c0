"""[nats] and [postgres] from a db-event-writer configuration."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from eventwriter.commands import go_json
from eventwriter.config import kinds
from eventwriter.config.naming import one_line
from eventwriter.config.rendering import toml
from eventwriter.config.units import format_duration, parse_duration

_SSL = {"ca_file": "sslrootcert", "cert_file": "sslcert", "key_file": "sslkey"}
_NOT_CARRIED = ("min_connections", "max_conn_lifetime", "health_check_period")


def nats(source: Mapping[str, Any], notes: list[str]) -> list[str]:
    """The lines of [nats] and [nats.tls]; appends to ``notes`` what a person has to look at."""
    lines = ["[nats]"]
    urls = [url.strip() for url in go_json.text(source, "nats_url").split(",") if url.strip()]
    shown = [_without_login(url) for url in urls]
    if shown != urls:
        notes.append(
            "nats_url holds a login, which is not carried over: set EVENTWRITER_NATS__USER and "
            "EVENTWRITER_NATS__PASSWORD_FILE, or EVENTWRITER_NATS__TOKEN_FILE"
        )
    if go_json.valid(kinds.URLS, shown):
        lines.append(f"url = {toml(shown)}")
    else:
        notes.append("nats_url is missing or no NATS URL: set nats.url, or nats://127.0.0.1:4222 is used")
    if go_json.valid(kinds.FILE, go_json.text(source, "nats_creds_file")):
        lines.append(f"credentials = {toml(go_json.text(source, 'nats_creds_file'))}")
    elif go_json.text(source, "nats_creds_file"):
        notes.append("nats_creds_file is no path of a file: set nats.credentials")
    if go_json.valid(kinds.NAME, go_json.text(source, "domain")):
        lines.append(f"domain = {toml(go_json.text(source, 'domain'))}")
    elif source.get("domain"):
        notes.append("domain is no name of a JetStream domain: set nats.domain")
    security = go_json.section(source, "nats_security")
    mode = go_json.text(security, "mode") or "none"
    if mode == "mtls":
        lines += ["", *_nats_tls(security, notes)]
    elif mode == "spiffe":
        notes.append(
            "nats_security mode spiffe is not supported: have a SPIFFE helper write certificate and key to files and "
            "name those in [nats.tls]"
        )
    elif mode != "none" or security.keys() - {"mode"}:
        notes.append(f"nats_security is left out: its mode is {toml(mode)}, and only mtls is carried over")
    return [*lines, ""]


def _nats_tls(security: Mapping[str, Any], notes: list[str]) -> list[str]:
    tls = go_json.section(security, "tls")
    files = {new: go_json.path(security, tls, f"{new}_file") for new in ("ca", "cert", "key")}
    for new, file in files.items():
        if file and not go_json.valid(kinds.FILE, file):
            notes.append(f"nats_security.tls.{new}_file is no path of a file: set nats.tls.{new}")
            files[new] = ""
    if bool(files["cert"]) != bool(files["key"]):
        notes.append("nats_security.tls has only one of cert_file and key_file: set nats.tls.cert and nats.tls.key")
        files["cert"] = files["key"] = ""
    if go_json.text(tls, "client_ca_file") not in ("", go_json.text(tls, "ca_file")):
        notes.append("nats_security.tls.client_ca_file is left out: nats.tls.ca is the one that signs the servers")
    files["hostname"] = go_json.text(security, "server_name")
    return ["[nats.tls]", *(f"{key} = {toml(value)}" for key, value in files.items() if value)]


def _without_login(url: str) -> str:
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def postgres(database: Mapping[str, Any], notes: list[str]) -> list[str]:
    """The lines of [postgres], and of [writer] as far as they follow, for a ``cnpg`` object; appends to ``notes``."""
    dsn = ""
    for key, value in _conninfo(database, notes).items():
        more = f"{dsn} {key}={_escaped(value)}".lstrip() if value else dsn
        if go_json.valid(kinds.DSN, more):
            dsn = more
        else:
            notes.append(f"cnpg: what would be {key} is left out: it cannot be that in a connection string")
    lines = ["[postgres]", f"dsn = {toml(dsn)}", "# The password: EVENTWRITER_POSTGRES__PASSWORD_FILE names its file."]
    if go_json.text(database, "password"):
        notes.append(
            "cnpg.password is not carried over: put it into a file that only eventwriter can read, and set "
            "EVENTWRITER_POSTGRES__PASSWORD_FILE to its path"
        )
    else:
        notes.append(
            "cnpg holds no password: if it came from CNPG_PASSWORD_FILE, set EVENTWRITER_POSTGRES__PASSWORD_FILE to "
            "the same path; eventwriter reads no CNPG_ variables"
        )
    if "max_connections" in database:
        notes.append("cnpg.max_connections is left out: postgres.pool_size counts the connections of each worker")
    notes += [f"cnpg.{key} is left out: eventwriter has no such setting" for key in _NOT_CARRIED if key in database]
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
    tls, parameters = go_json.section(database, "tls"), go_json.section(database, "runtime_params")
    port = database.get("port")
    found = {
        "host": go_json.text(database, "host"),
        "port": str(port) if type(port) is int and 0 < port < 2**16 else "5432",
        "dbname": go_json.text(database, "database"),
        "user": go_json.text(database, "username"),
        "application_name": go_json.text(database, "application_name") or go_json.text(parameters, "application_name"),
        "sslmode": go_json.text(database, "ssl_mode") or go_json.text(parameters, "sslmode"),
    }
    notes += [f"cnpg.{key} is missing: set it in postgres.dsn" for key in ("host", "database", "username")
              if not go_json.text(database, key)]  # fmt: skip
    if port and found["port"] != str(port):
        notes.append("cnpg.port is no number of a port: 5432 is used")
    found["sslmode"] = found["sslmode"] or ("verify-full" if tls else "disable")
    if tls and found["sslmode"] == "disable":
        notes.append("cnpg has tls files and ssl_mode disable, which the Go writer refused: correct postgres.dsn")
    for old, new in _SSL.items():
        found[new] = go_json.path(database, tls, old) or go_json.text(parameters, new)
    options = []
    for name, value in parameters.items():
        key = str(name)  # YAML has others than text: on is true
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
    elif isinstance(value, int | float) and value < 1e15:  # no float has 10**400
        seconds = round(value / 1e9, 6)
    if 0.001 <= seconds <= 86_000:
        return seconds
    notes.append("cnpg.statement_timeout is left out: it is no time from 1 ms to a day; eventwriter always has a limit")
    return None
