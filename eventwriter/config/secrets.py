"""Secrets in files: read when the settings are, and again at each connection, for they may have been replaced."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from eventwriter.config.naming import one_line
from eventwriter.errors import ConfigurationError
from eventwriter.masking import HIDDEN

_LARGEST = 2**20
"""Bytes of a file of secrets; what is larger is none."""


class FromFile(str):
    """The secret as it was when the settings were read, and the file in which it stands."""

    path: str

    def __new__(cls, text: str, path: str) -> Self:
        """``text`` was in the file ``path``."""
        new = super().__new__(cls, text)
        new.path = path
        return new


def read(path: str) -> bytes:
    """All that a file holds, which can be read again; raises OSError, also for a pipe, on which one would wait."""
    file = Path(path)
    if file.exists() and not file.is_file() and not file.is_dir():
        raise OSError(0, "it is not a file")
    return _bytes(path)


def _bytes(path: str) -> bytes:
    with open(path, "rb") as opened:
        return opened.read(_LARGEST)


def text_of(name: str, path: str) -> str:
    """The secret in a file that the setting or variable ``name`` names; raises ConfigurationError."""
    try:
        text = _bytes(path).decode().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not a UTF-8 text file"
        raise ConfigurationError(f"{name}: cannot read the file {_named(path)}: {reason}") from None
    if not text:
        raise ConfigurationError(f"{name}: the file {_named(path)} is empty")
    return FromFile(text, path) if Path(path).is_file() else text  # of a pipe there is nothing more to come


def current(name: str, value: str) -> str:
    """The secret of the setting ``name`` as it is now; raises ConfigurationError if its file has become unreadable."""
    return text_of(name, value.path) if isinstance(value, FromFile) else value


def _named(path: str) -> str:
    """A path for people, unless it might be the secret itself, put in its place."""
    return one_line(path) if path.startswith(("/", "./", "../")) and "@" not in path else HIDDEN
