"""A configuration file that is watched for changes."""

from __future__ import annotations

from pathlib import Path


class Watched:
    """A file that may change: edited in place, replaced, or swapped by a link, as ConfigMaps are."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._latest = self._state()

    @property
    def empty(self) -> bool:
        """Whether there is nothing in it at this moment, as while somebody writes it anew."""
        state = self._state()
        return state is not None and not state[1]

    def changed(self) -> bool:
        """Whether it is another file, or has other contents, than before, and has been so since it was last asked.

        A file that is replaced may be missing for a moment, and one that is rewritten in place is empty, then half.
        """
        state, before = self._state(), self._latest
        self._latest = state
        if state is None or state == self._seen or state != before:
            return False
        self._seen = state
        return True

    def _state(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
