"""How hypothesis goes about property tests: the same examples in every run, or fresh ones for a search."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings


def examples(count: int, least: int = 12) -> int:
    """How many a property gets of those that are worth its time: all in a search, a quarter in the suite."""
    return count if "EXAMPLES" in os.environ else min(count, max(least, count // 4))


# How long an example takes says how busy the machine is, or that hypothesis is building its tables of Unicode, which it
# does inside the first example of a fresh clone. Fixtures of a test may be shared by its examples: such a test begins
# each with what it needs.
settings.register_profile(
    "same",
    max_examples=examples(100),
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile("fuzz", settings.get_profile("same"), derandomize=False)
settings.load_profile("same")
