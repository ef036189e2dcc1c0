"""The settings that a command goes by, and the streams that it may be asked about."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from eventwriter import registry
from eventwriter.config import declaring, dsn, loading
from eventwriter.config.model import Config, StreamConfig
from eventwriter.errors import UsageError
from eventwriter.observability import logs
from eventwriter.postgres.catalog import fitted
from eventwriter.postgres.connection import connect, overridden
from eventwriter.postgres.errors import translated
from eventwriter.stream import Stream


class Loaded(NamedTuple):
    """The effective settings, and the streams that exist."""

    config: Config
    declared: dict[str, Stream]

    def stream(self, name: str) -> StreamConfig:
        """The settings of a stream, in whatever case it is written; UsageError if there is none."""
        return self.config.streams[declared(self.declared, name).name]

    def decoding(self, name: str) -> Stream:
        """The stream, ready to decode; of one without code PostgreSQL is asked what its table is like."""
        stream = declared(self.declared, name)
        if stream.fit is None:
            return stream
        with translated(), connect(self.config.postgres, "eventwriter") as connection:
            return fitted(connection, stream, self.config.streams[stream.name].table)


class Settings:
    """Reads the settings when a command needs them."""

    def __init__(self, file: Path | None, flags: Mapping[str, object]) -> None:
        self.file = file
        self._flags = flags

    def load(self) -> Loaded:
        """All there is to know, which also says how the log is written; raises ConfigurationError."""
        streams, config, _ = self._load()
        logs.configure(config.log)
        return Loaded(config, streams)

    def decoding(self, name: str) -> Stream:
        """The stream, ready to decode. Where it has code, nothing else has to be right."""
        streams = self.streams()
        return streams[name.upper()] if name.upper() in streams else self.load().decoding(name)

    def streams(self) -> dict[str, Stream]:
        """The streams that have code, whatever the settings of each are; raises ConfigurationError."""
        return registry.load(declaring.plugin_folders(file=self.file, environ=os.environ))

    def shown(self, *, origins: bool, as_json: bool) -> str:
        """The effective settings, secrets masked, as TOML or JSON; with ``origins`` also where each comes from."""
        _, config, found = self._load()
        libpq = dsn.environment(os.environ, overridden(config.postgres)) if origins else {}
        if not as_json:
            return loading.render(config, found if origins else None, libpq).removesuffix("\n")
        told = {"origins": dict(found), "libpq": libpq} if origins else {}
        return json.dumps({"settings": loading.as_dict(config), **told})

    def _load(self) -> tuple[dict[str, Stream], Config, Mapping[str, str]]:
        streams = self.streams()
        config, origins = loading.load_with_origins(streams, file=self.file, environ=os.environ, flags=self._flags)
        for each in config.streams.values():
            if each.decoder is not None:
                streams[each.name] = registry.without_code(
                    each.name, each.subjects, each.table, each.columns or {}, each.rest
                )
        return streams, config, origins


def declared(streams: Mapping[str, Stream], name: str) -> Stream:
    """The stream of this name, in whatever case it is written; UsageError if there is none."""
    if name.upper() not in streams:
        raise UsageError(f"there is no stream {name}; the streams are {', '.join(streams)}")
    return streams[name.upper()]
