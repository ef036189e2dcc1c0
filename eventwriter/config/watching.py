"""A configuration file that is watched for changes."""

from __future__ import annotations

from pathlib import Path


class Watched:
    """A file that may change: edited in place, replaced, or swapped by a link, as ConfigMaps are."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = self._state()

    def changed(self) -> bool:
        """Whether it is another file, or has other contents, than when last asked."""
        state = self._state()
        if state == self._seen or state is None:  # a file that is being replaced may be missing for a moment
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
