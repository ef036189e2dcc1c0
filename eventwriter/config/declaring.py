"""Which streams there are, as far as the settings tell: that is known before the settings of each can be read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from eventwriter.config.model import PluginsConfig, kinds_of
from eventwriter.config.naming import PREFIX, one_line, variable_of
from eventwriter.config.sources import checked, from_text, tree
from eventwriter.errors import ConfigurationError
from eventwriter.stream import Message, Stream

_NAME = re.compile("[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_DECODER = re.compile(f"{PREFIX}STREAMS__(.+)__DECODER")


def plugin_folders(*, file: Path | None, environ: Mapping[str, str]) -> tuple[str, ...]:
    """``plugins.folders`` alone; raises ConfigurationError."""
    key, kind = "plugins.folders", kinds_of(PluginsConfig)["folders"]
    section = tree(file).get("plugins") if file is not None else None
    found: tuple[str, ...] = ()
    if isinstance(section, dict) and "folders" in section:
        found = checked(key, section["folders"], f"file {file}", kind).value
    if text := environ.get(variable_of(key)):
        found = from_text(key, text, f"environment {variable_of(key)}", kind).value
    return found


def without_code(
    given: Mapping[str, Any], file: Path | None, environ: Mapping[str, str], declared: Mapping[str, Stream]
) -> dict[str, Stream]:
    """Streams that have a ``decoder`` in the file or the environment and are not declared, with the defaults of their
    settings; raises ConfigurationError for a name that cannot be one."""
    section = given.get("streams")
    sections = section if isinstance(section, dict) else {}
    found = {name: f"file {file}" for name, each in sections.items() if isinstance(each, dict) and "decoder" in each}
    variables = {
        match[1]: f"environment {match[0]}" for match in map(_DECODER.fullmatch, filter(environ.get, environ)) if match
    }
    for name, origin in (found | variables).items():
        if not _NAME.fullmatch(name):
            wanted = "expected capitals, digits and single _, such as ALERTS"
            raise ConfigurationError(f"{one_line(name)} ({origin}) is no name of a stream: {wanted}")
    return {
        name: Stream(name, (f"{name.lower()}.>",), name.lower(), (), _undecided)
        for name in found | variables
        if name not in declared
    }


def _undecided(message: Message) -> NoReturn:
    raise NotImplementedError("the registry makes the stream, of its settings")
