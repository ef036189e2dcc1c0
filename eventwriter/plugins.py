"""Streams that others write: files in the folders of ``plugins.folders``, and entry points of installed packages."""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

from eventwriter.errors import ConfigurationError
from eventwriter.stream import Column, PgType, Stream

GROUP = "eventwriter.streams"
"""Entry points of this group are streams, each under its name in lower case: ``alerts = "acme.alerts:STREAM"``."""
NOT_STREAMS = ("_", "test_", "conftest.")
"""What the names of files begin with that lie beside streams and are none."""
NAME = re.compile("[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""Of a stream, in small letters."""


class Found(NamedTuple):
    """A stream, and where it was found, for people."""

    place: str
    stream: Stream


def in_folder(folder: str) -> Iterator[Found]:
    """The stream of each file in a folder, read anew: ``alerts.py``, with ``<table>.sql`` beside it."""
    try:
        files = sorted(path for path in Path(folder).iterdir() if path.suffix == ".py")
    except OSError as error:
        raise ConfigurationError(f"plugins.folders: {folder} cannot be read: {error.strerror}") from None
    for path in files:
        if not path.name.startswith(NOT_STREAMS):
            stream = _declared(f"plugins.folders: {path}", path.stem, _run(path))
            yield Found(str(path), with_table(stream, path.parent))


def in_packages() -> Iterator[Found]:
    """The streams of installed packages."""
    importlib.invalidate_caches()  # one may have been installed since
    for point in sorted(entry_points(group=GROUP)):
        place = f"entry point {point.name} = {point.value} of {point.dist.name if point.dist else 'a package'}"
        try:
            found = point.load()
            folder = Path(str(sys.modules[point.module].__file__)).parent
        except (Exception, SystemExit) as error:
            raise ConfigurationError(f"{place} cannot be loaded: {_told(error)}") from error
        yield Found(place, with_table(_declared(place, point.name, found), folder))


def _run(path: Path) -> ModuleType:
    """The module that a file is, without looking for what was compiled of it before: that may be as old as it likes."""
    try:
        text = path.read_bytes()
        module = ModuleType(f"eventwriter_plugin_{path.stem}")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module  # where dataclasses look for it
        exec(compile(text, path, "exec"), module.__dict__)  # noqa: S102 - what the operator put there
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"plugins.folders: {path} cannot be loaded: {_told(error)}") from error
    if isinstance(stream := getattr(module, "STREAM", None), Stream):
        module.__dict__["STREAM"] = replace(stream, code=hashlib.sha256(text).hexdigest())
    return module


def _told(error: BaseException) -> str:
    """An error in one line, with the line of the file that raised it."""
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        line = line or (trace.tb_lineno if trace.tb_next is None else None)
        trace = trace.tb_next
    text = error.msg if isinstance(error, SyntaxError) else str(error)  # the whole of which has the line as well
    return f"{type(error).__name__}: {' '.join(text.split())}" + (f" (line {line})" if line else "")


def with_table(stream: Stream, folder: Path) -> Stream:
    """The stream with the definition of its table, if that lies in the folder: ``<table>.sql``."""
    if stream.sql is not None:
        return stream
    path = folder / f"{stream.table}.sql"
    try:
        return replace(stream, sql=path.read_text(encoding="utf-8") if path.exists() else "")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None


def _declared(place: str, name: str, found: Any) -> Stream:
    """What a module, or an entry point, declares; raises ConfigurationError that says what is wrong with it."""
    stream: Any = getattr(found, "STREAM", None) if isinstance(found, ModuleType) else found
    if stream is None:
        raise ConfigurationError(f"{place} declares no STREAM; what is none begins with {' or '.join(NOT_STREAMS[:2])}")
    if not isinstance(stream, Stream):
        raise ConfigurationError(f"{place}: STREAM is {type(stream).__name__}, not eventwriter.stream.Stream")
    if not isinstance(stream.name, str) or not NAME.fullmatch(name) or stream.name != name.upper():
        wanted = "letters, digits and single _, and the stream is called the same in capitals"
        raise ConfigurationError(f"{place} declares the stream {stream.name}: its own name has {wanted}")
    if problem := next(_problems(stream), None):
        raise ConfigurationError(f"{place}: {problem}")
    declared: Stream = stream
    return declared


def _problems(stream: Any) -> Iterator[str]:
    """What a type checker would have told."""
    if not _all_are(str, stream.subjects):
        yield 'subjects is not a tuple of texts such as ("alerts.>",)'
    if not isinstance(stream.table, str) or not stream.table:
        yield "table is not the name of a table"
    if not _all_are(Column, stream.columns):
        yield 'columns is not a tuple of columns such as (Column("text", "text"),)'
    else:
        types = get_args(PgType)
        for column in stream.columns:
            if column.type not in types:
                yield f"column {column.name} has the type {column.type}: expected one of {', '.join(types)}"
        known = [column.name for column in stream.columns]
        for name in (*stream.key, *stream.former_key):
            if name not in known:
                yield f"its key has {name}, and it has no such column"
    if not callable(stream.decode):
        yield "decode is not a function"


def _all_are(kind: type, values: Any) -> bool:
    return isinstance(values, tuple) and bool(values) and all(isinstance(value, kind) for value in values)
