"""Where settings stand: the file as a tree, and single values, checked, with where they came from."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from eventwriter.config.kind import Expected, Kind
from eventwriter.config.naming import one_line
from eventwriter.errors import ConfigurationError
from eventwriter.masking import HIDDEN


class Value(NamedTuple):
    """A checked value and where it came from."""

    value: Any
    origin: str


def tree(file: Path) -> dict[str, Any]:
    """What stands in a TOML file; raises ConfigurationError if it cannot be read."""
    try:
        return tomllib.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"configuration file {file} does not exist") from None
    except OSError as error:
        raise ConfigurationError(f"configuration file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"configuration file {file} is not UTF-8: byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        raise ConfigurationError(f"configuration file {file}, {place.rstrip(')')}: {one_line(message)}") from None


def from_text(key: str, text: str, origin: str, kind: Kind) -> Value:
    """The value that a text of the environment or the command line stands for; raises ConfigurationError."""
    return checked(key, kind.from_text(text), origin, kind)


def checked(key: str, value: object, origin: str, kind: Kind) -> Value:
    """The value that was given; raises ConfigurationError if it is not of its kind."""
    try:
        return Value(kind.parse(value), origin)
    except Expected as error:
        expected = str(error)
    except ValueError:
        expected = kind.expected
    raise ConfigurationError(f"{key} = {_shown(value, kind)} ({origin}): expected {expected}")


def _shown(value: object, kind: Kind) -> str:
    if kind.mask is not None:  # a value that cannot be read: where its secret begins and ends, nobody knows
        return HIDDEN
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 100 else f"{text[:97]}..."
