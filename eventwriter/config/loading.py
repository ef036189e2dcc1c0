"""Reads the settings: flag over environment over TOML file over default, every mistake told in one line.

The names, types and defaults are in :mod:`eventwriter.config.model`. In the environment a setting is called
``EVENTWRITER_NATS__URL``, two underscores per level; an empty variable counts as not set, and a secret may be given as
the name of a file, ``EVENTWRITER_POSTGRES__PASSWORD_FILE``. ``NATS_URL`` is read where ``EVENTWRITER_NATS__URL`` is
not set, and ``EVENTWRITER_LOG_LEVEL`` where ``EVENTWRITER_LOG__LEVEL`` is not. libpq reads its own ``PG*`` variables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from eventwriter.config import secrets
from eventwriter.config.checking import check
from eventwriter.config.declaring import without_code
from eventwriter.config.kind import Kind
from eventwriter.config.model import (
    SECTIONS,
    Config,
    DeadLettersConfig,
    HttpConfig,
    HttpTlsConfig,
    LogConfig,
    NatsConfig,
    PluginsConfig,
    PostgresConfig,
    StreamConfig,
    TlsConfig,
    WriterConfig,
    all_kinds,
    kinds_of,
)
from eventwriter.config.naming import PREFIX, known, unknown, variable_of
from eventwriter.config.rendering import as_dict, render
from eventwriter.config.sources import Value, checked, from_text, tree
from eventwriter.errors import ConfigurationError
from eventwriter.stream import Stream

__all__ = [
    "Config",
    "DeadLettersConfig",
    "HttpConfig",
    "NatsConfig",
    "PostgresConfig",
    "StreamConfig",
    "TlsConfig",
    "WriterConfig",
    "as_dict",
    "load",
    "load_with_origins",
    "render",
]

_NOT_SETTINGS = frozenset({"EVENTWRITER_CONFIG", "EVENTWRITER_LOG_LEVEL", "EVENTWRITER_CRASH_AT"})
_ALSO = {"NATS_URL": "nats.url", "EVENTWRITER_LOG_LEVEL": "log.level"}
"""Variables that are read where the setting's own is not set."""
# Kubernetes sets these in every pod beside a service whose name begins with "eventwriter".
_SERVICE_LINK = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)


_Values = dict[str, Value]


def load(
    declared: Mapping[str, Stream], *, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> Config:
    """The effective settings; ``declared`` gives the streams, ``flags`` has dotted keys, None meaning not given.

    Raises ConfigurationError, one line that names key, place and remedy, at the first mistake in any source, even if
    another source overrides it.
    """
    return load_with_origins(declared, file=file, environ=environ, flags=flags)[0]


def load_with_origins(
    declared: Mapping[str, Stream], *, file: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]
) -> tuple[Config, Mapping[str, str]]:
    """As :func:`load`, with the origin of every setting by its dotted key; streams without code are among those of the
    settings, and not among the ``declared``.

    An origin is "default", "file PATH", "environment NAME" or "flag". What a stream takes over from [writer] has the
    origin it has there.
    """
    found = tree(file) if file is not None else {}
    declared = {**declared, **without_code(found, file, environ, declared)}
    kinds = all_kinds(declared)
    values = _defaults(declared)
    given = _from_tree(found, f"file {file}", kinds, declared)
    given |= _from_environment(environ, kinds, declared)
    given |= _from_flags(flags, kinds, declared)
    values |= {key: value for key, value in given.items() if not key.startswith("streams.")}
    for name in declared:
        for key in kinds_of(WriterConfig):
            values[f"streams.{name}.{key}"] = values[f"writer.{key}"]
    values |= given
    config = _build(values, declared)
    check(config, {key: value.origin for key, value in values.items()}, declared)
    return config, {key: values[key].origin for key in kinds}


def _defaults(declared: Mapping[str, Stream]) -> _Values:
    found: dict[str, Any] = {}
    for section_name, section in SECTIONS:
        defaults = {field.name: field.default for field in fields(section)}
        found |= {f"{section_name}.{key}": defaults[key] for key in kinds_of(section)}
    for name, stream in declared.items():
        own = {"enabled": True, "stream": name, "durable": f"eventwriter-{name.lower()}", "exclude": (), "omit": ()}
        own |= {"continues": None, "subjects": stream.subjects, "table": stream.table, "processes": 1}
        own |= {"decoder": None, "columns": None, "rest": None}
        found |= {f"streams.{name}.{key}": value for key, value in own.items()}
    return {key: Value(value, "default") for key, value in found.items()}


def _build(values: _Values, declared: Mapping[str, Stream]) -> Config:
    def take(prefix: str, section: type) -> dict[str, Any]:
        return {key: values[f"{prefix}.{key}"].value for key in kinds_of(section)}

    streams = {
        name: StreamConfig(
            name=name,
            writer=WriterConfig(**take(f"streams.{name}", WriterConfig)),
            **take(f"streams.{name}", StreamConfig),
        )
        for name in declared
    }
    return Config(
        nats=NatsConfig(**take("nats", NatsConfig), tls=TlsConfig(**take("nats.tls", TlsConfig))),
        postgres=PostgresConfig(**take("postgres", PostgresConfig)),
        writer=WriterConfig(**take("writer", WriterConfig)),
        http=HttpConfig(**take("http", HttpConfig), tls=HttpTlsConfig(**take("http.tls", HttpTlsConfig))),
        log=LogConfig(**take("log", LogConfig)),
        dead_letters=DeadLettersConfig(**take("dead_letters", DeadLettersConfig)),
        plugins=PluginsConfig(**take("plugins", PluginsConfig)),
        streams=MappingProxyType(streams),
    )


# ---- sources


def _from_tree(
    found: Mapping[str, Any], origin: str, kinds: Mapping[str, Kind], declared: Mapping[str, Stream]
) -> _Values:
    return {
        key: checked(key, value, origin, known(key, origin, kinds, declared))
        for key, value in _leaves(found, "", kinds, origin)
    }


def _leaves(tree: Mapping[str, Any], prefix: str, kinds: Mapping[str, Kind], origin: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if "." in name and (key in kinds or _is_table(key, kinds)):  # TOML has it beside the setting, as another one
            wanted = f"expected {key}, without quotation marks"
            raise ConfigurationError(f'{prefix}"{name}" ({origin}) is one name with a dot in it: {wanted}')
        if isinstance(value, dict) and key not in kinds:
            if not value:  # an empty table is nothing to say, if there is such a table
                yield from (() if _is_table(key, kinds) else ((key, value),))
            yield from _leaves(value, f"{key}.", kinds, origin)
        elif _is_table(key, kinds):
            raise ConfigurationError(f"{key} ({origin}) is not a table: expected [{key}] with settings in it")
        else:
            yield key, value


def _is_table(key: str, kinds: Iterable[str]) -> bool:
    return any(other.startswith(f"{key}.") for other in kinds)


def _from_environment(environ: Mapping[str, str], kinds: Mapping[str, Kind], declared: Mapping[str, Stream]) -> _Values:
    names = {variable_of(key): key for key in kinds}
    files = {f"{variable_of(key)}_FILE": key for key, kind in kinds.items() if kind.from_file}
    found: _Values = {}
    for variable, key in _ALSO.items():
        if environ.get(variable):
            found[key] = from_text(key, environ[variable], f"environment {variable}", kinds[key])
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable in _NOT_SETTINGS:
            continue
        text, origin = environ[variable], f"environment {variable}"
        if variable in names:
            key = names[variable]
            if text:
                found[key] = from_text(key, text, origin, kinds[key])
        elif variable in files:
            key = files[variable]
            if text and environ.get(variable_of(key)):
                raise ConfigurationError(f"{variable_of(key)} and {variable} are both set: unset one of them")
            if text:
                found[key] = from_text(key, secrets.text_of(variable, text), origin, kinds[key])
        elif not _SERVICE_LINK.fullmatch(variable):
            raise unknown(variable, origin, kinds, declared)
    return found


def _from_flags(flags: Mapping[str, object], kinds: Mapping[str, Kind], declared: Mapping[str, Stream]) -> _Values:
    found: _Values = {}
    for key, value in flags.items():
        if value is not None:
            kind = known(key, "flag", kinds, declared)
            found[key] = checked(key, kind.from_text(value) if isinstance(value, str) else value, "flag", kind)
    return found
