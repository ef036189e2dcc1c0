"""Where pytest finds the fixtures, what it passes on, and how hypothesis goes about it."""

import gc
import signal

import pytest

import memory
import profiles  # noqa: F401 - scripts/fuzz chooses the other one

memory.use_memory()  # before anybody asks for a temporary folder

pytest_plugins = ["fix_servers", "fix_service", "fix_proxy", "fix_tls", "fix_failover", "fix_sinks", "fix_pgbouncer"]


LONGEST = (
    "test_rewind", "test_service", "test_bench", "test_outage", "test_consumers", "test_jetstream", "test_verify",
    "test_dlq", "test_hostile", "test_crashing", "test_page", "test_runbook", "test_chaos", "test_filters",
    "test_monitor", "test_hosts", "test_message_limits", "test_tls", "test_permissions", "test_embedded",
    "test_supervisor", "test_locks", "test_crash", "test_columns_service", "test_errors", "test_constraints",
    "test_copy", "test_plugins",
)  # fmt: skip
"""Modules that take ten seconds or more, the longest first: what runs last should not be long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules first; all others as they are."""
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: who looks for garbage from now on need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Lets Ctrl-C reach what the tests start, also when a shell runs them in the background, with SIGINT ignored.

    Who is started inherits what is ignored, but not a handler. For pytest itself nothing changes.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: None)
