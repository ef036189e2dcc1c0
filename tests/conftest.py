"""Where pytest finds the fixtures, what it passes on, and how hypothesis goes about it."""

import gc
import signal

import pytest

import memory
import profiles  # noqa: F401 - scripts/fuzz chooses the other one

memory.use_memory()  # before anybody asks for a temporary folder

pytest_plugins = ["fix_servers", "fix_service", "fix_proxy", "fix_tls", "fix_failover", "fix_sinks", "fix_pgbouncer"]


LONGEST = (
    "test_filters", "test_consumers", "test_rewind", "test_oversized", "test_hosts", "test_outage", "test_verify",
    "test_jetstream", "test_locks", "test_crashing", "test_service", "test_schema_apply", "test_dlq", "test_check",
    "test_structure", "test_ledger", "test_permissions", "test_tls", "test_table_changes", "test_page", "test_runbook",
    "test_columns_service", "test_continues", "test_sink", "test_roles", "test_monitor", "test_foreign_tables",
    "test_fuzz", "test_altered_tables", "test_pause", "test_message_limits", "test_documented", "test_losses",
    "test_server", "test_demo", "test_connection", "test_ledger_gone", "test_outage_log", "test_chaos", "test_status",
    "test_schema_versions", "test_restoring", "test_columns", "test_constraints", "test_turn", "test_hostile",
    "test_crash", "test_least_privilege", "test_prefixes", "test_bench", "test_suite", "test_hostile_tables",
    "test_errors", "test_scale", "test_copy", "test_otlp_push", "test_plugins", "test_watching", "test_nothing_shown",
    "test_process", "test_page_service", "test_timescale", "test_otlp", "test_migration",
)  # fmt: skip
"""Modules that take eight seconds or more, the longest first: what runs last should not be long."""


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
