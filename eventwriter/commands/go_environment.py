"""What the container of the Go writer makes of its configuration before it starts, and placeholders in it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from eventwriter.config.naming import one_line

_PREFIX = "DB_EVENT_WRITER_"
_PLACEHOLDER = re.compile(r"\$\((\w+)\)|\$\{(\w+)(?::?-([^{}]*))?\}|\{\{.*?\}\}")
_CERTIFICATES = "/etc/serviceradar/certs"
_PLAIN = {
    "nats_url": (f"{_PREFIX}NATS_URL", "NATS_URL"),
    "nats_creds_file": (f"{_PREFIX}NATS_CREDS_FILE", "NATS_CREDS_FILE"),
    **{
        key: (_PREFIX + key.upper(),)
        for key in ("listen_addr", "stream_name", "consumer_name", "agent_id", "gateway_id")
    },
}
"""Key → the variables that replace it, the first that is set."""
_DATABASE = {
    "host": (("CNPG_HOST",), "cnpg"),
    "port": (("CNPG_PORT",), "5432"),
    "database": (("CNPG_DATABASE",), "serviceradar"),
    "username": (("CNPG_USERNAME",), "serviceradar"),
    "ssl_mode": (("CNPG_SSL_MODE", "CNPG_SSLMODE"), "verify-full"),
    "max_connections": ((f"{_PREFIX}CNPG_MAX_CONNECTIONS", "CNPG_MAX_CONNECTIONS"), "8"),
    "min_connections": ((f"{_PREFIX}CNPG_MIN_CONNECTIONS", "CNPG_MIN_CONNECTIONS"), "0"),
}
"""Key of ``cnpg`` → the variables that replace it, and what does where none is set: that of the file never counts."""
_FILES = {
    "ca_file": ("CNPG_CA_FILE", "root.pem"),
    "cert_file": ("CNPG_CERT_FILE", "cnpg-client.pem"),
    "key_file": ("CNPG_KEY_FILE", "cnpg-client-key.pem"),
}


def entered(source: Mapping[str, Any], environment: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    """The configuration as the entry point of the container leaves it; notes what it replaces. Empty is not set."""
    result = dict(source)
    for key, variables in _PLAIN.items():
        name = _first(environment, variables)
        if name is not None:
            result[key] = environment[name]
            notes.append(f"{key} is that of {name}, with which the entry point of the container replaces it")
    result["cnpg"] = _database(source.get("cnpg"), environment, notes)
    streams = environment.get(f"{_PREFIX}STREAMS_JSON")
    if streams:
        try:
            result["streams"] = json.loads(streams)
            notes.append(f"streams are those of {_PREFIX}STREAMS_JSON, which replaces the list of the file")
        except (ValueError, RecursionError) as error:
            notes.append(
                f"{_PREFIX}STREAMS_JSON is left out, the streams are those of the file: it is not JSON: {error}"
            )
    for variable, keys in (
        ("DISABLE_SECURITY", ("security", "nats_security")),
        ("DISABLE_NATS_SECURITY", ("nats_security",)),
    ):
        if environment.get(_PREFIX + variable) == "true":
            there = [key for key in keys if result.pop(key, None) is not None]
            notes += [f"{key} is left out: {_PREFIX}{variable} is true" for key in there]
    if environment.get(f"{_PREFIX}OTEL_ENABLED"):
        notes.append(f"{_PREFIX}OTEL_ENABLED is left out: eventwriter sends no telemetry of its own")
    return result


def _database(given: Any, environment: Mapping[str, str], notes: list[str]) -> dict[str, Any]:
    result = dict(given) if isinstance(given, dict) else {}
    for key, (variables, default) in _DATABASE.items():
        name = _first(environment, variables)
        value: Any = default if name is None else environment[name]
        if key in ("port", "max_connections", "min_connections") and value.isascii() and value.isdecimal():
            value = int(value)
        if name is not None or result.get(key) != value:
            default_of = f"the entry point of the container, for {variables[0]} is not set"
            notes.append(f"cnpg.{key} is {f'that of {name}' if name else f'the default of {default_of}'}")
        result[key] = value
    if result["ssl_mode"] in ("disable", "allow", "prefer"):
        if result.pop("tls", None):
            notes.append(f"cnpg.tls is left out: the entry point of the container drops it for {result['ssl_mode']}")
    else:
        # Names without a folder are in cert_dir, as everywhere.
        result["cert_dir"] = environment.get("CNPG_CERT_DIR") or _CERTIFICATES
        result["tls"] = {key: environment.get(variable) or name for key, (variable, name) in _FILES.items()}
        notes.append("cnpg.tls is that of CNPG_CERT_DIR and CNPG_…_FILE, with which the entry point replaces it")
    password = environment.get("CNPG_PASSWORD_FILE")
    if password:
        result.pop("password", None)
        notes.append(f"CNPG_PASSWORD_FILE: set EVENTWRITER_POSTGRES__PASSWORD_FILE to {one_line(password)}")
    elif environment.get("CNPG_PASSWORD"):
        result["password"] = "x"  # that there is one, not what it is
    else:
        notes.append("the password was in /etc/serviceradar/credentials/cnpg-password, if that file is there")
    return result


def _first(environment: Mapping[str, str], variables: tuple[str, ...]) -> str | None:
    return next((name for name in variables if environment.get(name)), None)


def filled(value: Any, environment: Mapping[str, str], notes: list[str], path: str = "") -> Any:
    """``value`` with its placeholders replaced as far as that is known; notes each of them."""
    if isinstance(value, dict):
        return {key: filled(each, environment, notes, f"{path}.{key}".lstrip(".")) for key, each in value.items()}
    if isinstance(value, list):
        return [filled(each, environment, notes, f"{path}[{number}]") for number, each in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replaced(match: re.Match[str]) -> str:
        name, default = match[1] or match[2], match[3]
        shown = match[0] if default is None else f"${{{name}}}"  # what it is by default may be a secret
        known = (environment.get(name) or default) if name else None
        if known is None:
            notes.append(f"{one_line(path)} holds the placeholder {one_line(shown)}: put its value there")
            return match[0]
        whence = "its default" if not environment.get(name) else "the environment"
        notes.append(f"{one_line(path)} holds the placeholder {one_line(shown)}, which is filled in from {whence}")
        return known

    return _PLACEHOLDER.sub(replaced, value)
