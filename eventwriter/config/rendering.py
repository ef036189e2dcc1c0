"""Shows settings as TOML or as JSON, secrets hidden."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from eventwriter import masking
from eventwriter.config import kinds
from eventwriter.config.kind import Kind
from eventwriter.config.model import SECTIONS, Config, StreamConfig, WriterConfig, kinds_of


def render(config: Config, origins: Mapping[str, str] | None = None, libpq: Mapping[str, str] | None = None) -> str:
    """The settings as TOML that can be loaded again, as far as there are no secrets in them; those are ``***``.

    With ``origins`` (by dotted key) each line ends with a comment that says where its value comes from. A stream shows
    of [writer] what differs there. ``libpq`` is what it takes from its own variables, which are shown with [postgres].
    """
    return "\n".join(_lines(config, origins or {}, libpq or {}))


def toml(value: bool | int | float | str | list[str] | dict[str, str]) -> str:
    """A value in TOML."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{_bare(name)} = {toml(each)}' for name, each in value.items())} }}"
    # A JSON string is a TOML basic string, but TOML (1.0, "String") wants U+007F escaped, and what lies beyond U+FFFF
    # by an escape of its own.
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def as_dict(config: Config) -> dict[str, Any]:
    """The settings as the file nests them, for JSON: durations in seconds, sizes in bytes, secrets as ``***``.

    A stream holds all its [writer] values, its own or those it took over.
    """
    shown: dict[str, Any] = {}
    for name, values in _sections(config):
        *above, last = name.split(".")
        target = shown
        for level in above:
            target = target[level]
        target[last] = {key: _json(_masked(value, kind)) for key, value, kind in values}
    shown["streams"] = {
        stream.name: {key: _json(_masked(value, kind)) for key, value, kind in _stream(stream)}
        for stream in config.streams.values()
    }
    return shown


def summary(config: Config) -> str:
    """Which streams go from where to where, in one line without secrets."""
    streams = ", ".join(stream.name for stream in config.streams.values() if stream.enabled)
    dsn = kinds.DSN.show(_masked(config.postgres.dsn, kinds.DSN)) or "as libpq finds it"
    return f"streams {streams}; NATS {', '.join(map(masking.url, config.nats.url))}; PostgreSQL {dsn}"


def _sections(config: Config) -> Iterator[tuple[str, list[tuple[str, Any, Kind]]]]:
    for name, section in SECTIONS:
        value: Any = config
        for level in name.split("."):
            value = getattr(value, level)
        yield name, [(key, getattr(value, key), kind) for key, kind in kinds_of(section).items()]


def _stream(stream: StreamConfig, writer: WriterConfig | None = None) -> list[tuple[str, Any, Kind]]:
    """A stream's settings; with ``writer`` without those that are the same there."""
    own = [(key, getattr(stream, key), kind) for key, kind in kinds_of(StreamConfig).items()]
    if stream.decoder is None:  # it has code, and nothing to say of how it is decoded
        own = [item for item in own if item[0] not in ("decoder", "columns", "rest")]
    overrides = [(key, getattr(stream.writer, key), kind) for key, kind in kinds_of(WriterConfig).items()]
    return own + [item for item in overrides if writer is None or item[1] != getattr(writer, item[0])]


def _lines(config: Config, origins: Mapping[str, str], libpq: Mapping[str, str]) -> Iterator[str]:
    tables = list(_sections(config))
    tables += [(f"streams.{_bare(s.name)}", _stream(s, config.writer)) for s in config.streams.values()]
    for name, values in tables:
        yield f"[{name}]"
        for key, value, kind in values:
            # TOML has no null.
            line = f"# {key} is not set" if value is None else f"{key} = {toml(kind.show(_masked(value, kind)))}"
            origin = origins.get(f"{name}.{key}")
            if origin is not None and value is not None:
                line += f"  # {origin if origin.isprintable() else json.dumps(origin)}"
            yield line
        for variable, value in libpq.items() if name == "postgres" else ():
            yield f"# {variable} = {toml(value)}  # environment, read by libpq"
        yield ""


def _bare(name: str) -> str:
    return name if name.replace("_", "").replace("-", "").isalnum() and name.isascii() else toml(name)


def _masked(value: Any, kind: Kind) -> Any:
    if kind.mask is None or value is None:
        return value
    return tuple(map(kind.mask, value)) if isinstance(value, tuple) else kind.mask(value)


def _json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
