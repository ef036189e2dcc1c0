"""What is watched for changes: the configuration file, and the folders of plugins."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

State = tuple[str, int, int, int]
"""The name of a file, and what tells it from what it was before."""


class Watched:
    """Files that may change: edited in place, replaced, or swapped by a link, as ConfigMaps are."""

    def __init__(self, path: Path | None, folders: Iterable[str] = ()) -> None:
        """A file, and all of some folders that a stream may be made of."""
        self._path = path
        self._folders = tuple(folders)
        self._seen = self._latest = self._state()

    @property
    def empty(self) -> bool:
        """Whether there is nothing in the file at this moment, as while somebody writes it anew."""
        state = self._path and _state(self._path)
        return bool(state and not state[2])

    def watch(self, folders: Iterable[str]) -> None:
        """From now on these folders, as they are; the file as before."""
        if self._folders != (folders := tuple(folders)):
            self._folders = folders
            found = self._state()[1]
            self._seen, self._latest = (self._seen[0], found), (self._latest[0], found)

    def changed(self) -> bool:
        """Whether a file is another one, or has other contents, than before, and has been so since this was last asked.

        A file that is replaced may be missing for a moment, and one that is rewritten in place is empty, then half.
        """
        state, before = self._state(), self._latest
        self._latest = state
        if (self._path and state[0] is None) or state == self._seen or state != before:
            return False
        self._seen = state
        return True

    def _state(self) -> tuple[State | None, tuple[State, ...]]:
        return _state(self._path) if self._path else None, tuple(
            state for folder in self._folders for path in _files(Path(folder)) if (state := _state(path))
        )


def _files(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in folder.iterdir() if path.suffix in (".py", ".sql"))
    except OSError:
        return


def _state(path: Path) -> State | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
