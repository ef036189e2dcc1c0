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

_DEEPEST = 50
"""Tables and lists in each other that are read; no setting needs five."""


class Value(NamedTuple):
    """A checked value and where it came from."""

    value: Any
    origin: str


def tree(file: Path) -> dict[str, Any]:
    """What stands in a TOML file; raises ConfigurationError if it cannot be read."""
    try:
        found = tomllib.loads(file.read_bytes().decode("utf-8-sig"))
        if _depth(found) > _DEEPEST:
            raise RecursionError
    except FileNotFoundError:
        raise ConfigurationError(f"configuration file {file} does not exist") from None
    except OSError as error:
        raise ConfigurationError(f"configuration file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"configuration file {file} is not UTF-8: byte {error.start}") from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        raise ConfigurationError(f"configuration file {file}, {place.rstrip(')')}: {one_line(message)}") from None
    except ValueError:  # sys.set_int_max_str_digits()
        raise ConfigurationError(f"configuration file {file}: a number in it has thousands of digits") from None
    except RecursionError:
        raise ConfigurationError(f"configuration file {file}: what stands in it is nested too deeply") from None
    return found


def _depth(found: dict[str, Any]) -> int:
    """How many tables and lists stand in each other, up to one more than there may be."""
    depth = 0
    level: list[Any] = [found]
    while level and depth <= _DEEPEST:
        depth += 1
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for several in inner for each in several if isinstance(each, dict | list)]
    return depth


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
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # sys.set_int_max_str_digits(), which hexadecimal ones get around when they are read
        text = "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:97]}..."
