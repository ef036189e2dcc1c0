"""The rooms of the project: who may import whom. Kept by reading the import statements of every module."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

ENGINE = "eventwriter."
MAY_IMPORT: dict[str, set[str]] = {
    # the contract
    "stream": set(),
    "values": set(),
    "errors": {"masking"},
    "registry": {"stream", "errors"},
    # JetStream
    "connection": {"config", "errors", "masking"},
    "durable": {"config"},
    "limits": {"units"},
    "consumer": {"config", "deliveries", "durable", "errors", "limits", "stream"},
    "gaps": {"config", "consumer", "coverage", "durable", "stream", "wire"},
    "permissions": {"config", "errors"},
    "progress": {"config", "consumer"},
    "source": {
        *("stream", "errors", "config", "connection", "consumer", "coverage", "buffer", "deliveries", "wire", "ackall"),
        *("rereading", "gaps", "masking", "durable", "progress", "limits", "permissions", "turn", "claims"),
    },
    "rereading": {"stream", "errors", "config", "consumer", "coverage", "deliveries", "gaps", "subjects", "wire"},
    "buffer": {"deliveries"},
    "deliveries": {"stream", "wire"},
    "wire": {"stream"},
    "ackall": {"errors"},
    "claims": {"coverage", "stream"},
    "turn": set(),
    # PostgreSQL
    "dsn": {"masking"},
    "postgres": {"stream", "errors", "config", "dsn"},
    "catalog": {"stream", "errors"},
    "definition": {"stream", "errors", "catalog"},
    "coverage": {"subjects"},
    "ledger": {"coverage", "errors", "stream", "subjects"},
    "ledgers": {"coverage", "errors", "ledger"},
    "deadletters": {"stream", "values"},
    "staging": {"catalog"},
    "attempt": {"stream", "catalog", "coverage", "postgres"},
    "sink": {
        *("stream", "errors", "config", "attempt", "postgres", "catalog", "ledger", "ledgers", "deadletters"),
        "staging",
    },
    # the loop and the processes
    "pipeline": {"stream", "errors"},
    "backoff": set(),
    "signals": {"errors"},
    "process": {"errors"},
    "supervisor": {"errors", "config", "backoff", "signals", "process"},
    "notify": set(),
    "metrics": {"errors"},
    "watchdog": {"metrics"},
    "report": {"errors", "metrics", "stream", "values"},
    "status": {"config", "metrics"},
    "terminal": {"errors"},
    "exposition": {"metrics"},
    "monitor": {"config", "errors", "exposition", "metrics", "process", "status"},
    "logs": {"masking"},
    "masking": set(),
    "embedded": {"errors", "process"},
}
"""Module of ``eventwriter`` → modules of ours that it may import. Those not listed put the others together."""

ONLY_THESE_IMPORT = {
    "nats": {"source", "connection", "rereading", "wire"},
    "psycopg": {
        *("sink", "attempt", "postgres", "dsn", "catalog", "ledger", "ledgers", "deadletters", "staging"),
        *("admin", "bookkeeping", "definition", "dlq"),
    },
    "psycopg_pool": {"sink", "postgres"},
    "click": {"cli"},
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, with its dots."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def modules(package: str) -> list[Path]:
    """The Python files of a package, generated ones left out."""
    return [path for path in sorted((ROOT / package).glob("*.py")) if not path.stem.endswith("_pb2")]


def names(package: str) -> set[str]:
    """The modules of a package."""
    return {path.stem for path in modules(package)}


@pytest.mark.parametrize("name", sorted(MAY_IMPORT))
def test_a_module_imports_only_what_it_may(name: str) -> None:
    """The table above holds."""
    found = {
        each.removeprefix(ENGINE) for each in imports(ROOT / "eventwriter" / f"{name}.py") if each.startswith(ENGINE)
    }
    assert found & names("eventwriter") <= MAY_IMPORT[name]


@pytest.mark.parametrize("library", sorted(ONLY_THESE_IMPORT))
def test_a_library_stays_in_its_room(library: str) -> None:
    """Only these modules know NATS, PostgreSQL and the command line."""
    users = {
        path.stem
        for path in modules("eventwriter")
        if any(each == library or each.startswith(f"{library}.") for each in imports(path))
    }
    assert users <= ONLY_THESE_IMPORT[library]


@pytest.mark.parametrize("path", modules("workers"), ids=lambda path: path.stem)
def test_decoders_know_nothing_of_the_engine(path: Path) -> None:
    """A worker module imports the contract, the conversions and helpers beside it."""
    allowed = {"eventwriter.stream", "eventwriter.values"}
    found = {each for each in imports(path) if each.split(".")[0] in ("eventwriter", "schemas", "scripts", "tests")}
    assert all(any(each == a or each.startswith(f"{a}.") for a in allowed) for each in found - {"eventwriter"}), found


def test_nobody_imports_the_command_line() -> None:
    """cli.py is where everything comes together."""
    for package in ("eventwriter", "workers", "schemas"):
        for path in modules(package):
            if path.stem != "__main__":
                assert "eventwriter.cli" not in imports(path), path


def test_property_tests_go_by_one_profile() -> None:
    """conftest.py alone decides what the machine may decide: a test says how many examples are worth its time."""
    profile = settings()
    assert (profile.derandomize, profile.deadline, profile.database) == (True, None, None)
    assert HealthCheck.too_slow in profile.suppress_health_check
    for path in modules("tests"):
        if path.stem != "conftest" and {"hypothesis.settings", "hypothesis.HealthCheck"} & imports(path):
            assert "hypothesis.HealthCheck" not in imports(path) or path == Path(__file__), path
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "settings":
                    given = {keyword.arg for keyword in node.keywords}
                    assert given <= {"max_examples", "stateful_step_count"}, f"{path}:{node.lineno}"
