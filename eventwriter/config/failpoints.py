"""Failpoints: places at which a test lets a process die."""

from __future__ import annotations

import os
from collections.abc import Callable

FAILPOINT = "EVENTWRITER_CRASH_AT"
"""For tests of exactly once: ``LOGS:after_commit`` kills what writes that stream, without any clean-up, at that point.
"""


def failpoint(stream: str) -> Callable[[str], None] | None:
    """What is told of each point that is come to; None if the environment asks for none in this stream."""
    name, _, point = os.environ.get(FAILPOINT, "").partition(":")
    if name != stream:
        return None

    def at(here: str) -> None:
        if here == point:
            os._exit(86)

    return at
