"""Compression that gives the same bytes in every run: gzip writes the time of day unless told otherwise."""

from __future__ import annotations

import gzip


def gz(data: bytes, level: int = 9) -> bytes:
    """The data in one gzip member (RFC 1952) without a time."""
    return gzip.compress(data, level, mtime=0)
