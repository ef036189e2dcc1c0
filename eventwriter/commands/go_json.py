"""Reads the JSON of a db-event-writer configuration, whatever is in it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from eventwriter.config.kind import Kind


def section(source: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object of the file; empty if there is none."""
    value = source.get(key)
    return value if isinstance(value, dict) else {}


def text(source: Mapping[str, Any], key: str) -> str:
    """A text of the file; empty if there is none that can be shown."""
    value = source.get(key)
    return value.strip() if isinstance(value, str) and value.isprintable() else ""


def path(holder: Mapping[str, Any], tls: Mapping[str, Any], key: str) -> str:
    """A file of a ``tls`` object; relative names are in the ``cert_dir`` beside it."""
    name = text(tls, key)
    return posixpath.join(text(holder, "cert_dir"), name) if name else ""


def valid(kind: Kind, value: object) -> bool:
    """Whether a setting of ours takes this value."""
    try:
        kind.parse(value)
    except ValueError:
        return False
    return True
