"""A second host, whose network can be cut as a power failure or a pulled cable does: nobody is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import hosts


@contextmanager
def second_host() -> Iterator[hosts.Host]:
    """The host while it exists; where network namespaces cannot be had, the test is skipped."""
    if not hosts.possible():
        pytest.skip("no network namespace can be made here")
    with hosts.Host() as host:
        yield host
