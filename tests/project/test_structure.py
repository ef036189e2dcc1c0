"""The rooms of the project: who may import whom. Kept by reading the import statements of every module."""

from __future__ import annotations

import ast
import configparser
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[2]

GROUND = {"errors", "masking", "stream", "terminal", "values"}
"""Imported by everybody; of ours they import each other alone."""
SIDES = {"jetstream", "postgres", "observability"}
"""The three sides of a worker: none imports another."""

ROOMS: dict[str, set[str]] = {
    "errors": {"masking"},
    "masking": set(),
    "terminal": set(),
    "stream": set(),
    "values": set(),
    "plugins": set(),
    "registry": {"plugins", "schemas", "workers"},
    "pipeline": set(),
    "viewing": set(),
    "coverage": {"config"},
    "config": set(),
    "processes": set(),
    "embedded": {"processes"},
    "outage": set(),
    "jetstream": {"config", "coverage", "outage"},
    "postgres": {"config", "coverage"},
    "observability": {"__init__", "config", "outage", "processes"},
    "losses": {"config", "coverage", "jetstream", "postgres"},
    "reconcile": {"config", "coverage", "jetstream", "losses", "postgres"},
    "trial": {"config", "postgres", "processes"},
    "writing": {"config", "observability", "postgres", "reconcile", "trial"},
    "worker": {
        *(
            "config",
            "coverage",
            "outage",
            "pipeline",
            "processes",
            "reconcile",
            "registry",
            "trial",
            "viewing",
            "writing",
        ),
        *SIDES,
    },
    "replaying": {"config", "coverage", "pipeline", "processes", "reconcile", "trial", "writing", *SIDES},
    "service": {"__init__", "config", "outage", "processes", "worker", *SIDES},
    "commands": {"__init__", "config", "coverage", "plugins", "registry", "replaying", "viewing", *SIDES},
    "cli": {"__init__", "commands", "observability", "processes", "registry", "service", "worker"},
    "__init__": set(),
    "__main__": {"cli"},
}
"""Folder or module of ``eventwriter`` → those that it may import, beside the ground and itself."""

LIBRARIES = {
    "nats": {"jetstream"},
    # dsn.py asks libpq how it reads a connection string; nothing else of config knows PostgreSQL
    "psycopg": {"postgres", "commands", "config/dsn.py"},
    "psycopg_pool": {"postgres"},
    "prometheus_client": {"observability"},
    "opentelemetry": {"observability"},
    "requests": {"observability"},
    "setproctitle": {"processes"},
    "click": {"cli", "commands"},
    "rich": {"cli", "commands"},
}
"""Library → the only rooms, or files, that import it."""

DECODER_ROOMS: dict[str, set[str]] = {
    "_limits": set(),
    "_wire": set(),
    "_guard": {"_limits"},
    "_json": {"_guard", "_limits"},
    "_otlp": {"_json", "_limits", "_wire"},
    "_flow": {"_json", "_limits", "_wire"},
    "__init__": set(),
}
"""The same for ``workers``: a stream may import all of these, and no other stream."""


MODULE, CLASS, FUNCTION = 250, 200, 60
"""Lines, documentation included, that each may have: what outgrows that holds two ideas."""
TOO_LONG: set[str] = set()
"""What is longer still, as ``too_long`` names it; goes when it is split."""


def modules(package: str) -> list[Path]:
    """The Python files of a package and its rooms, generated ones left out."""
    return [path for path in sorted((ROOT / package).rglob("*.py")) if not path.stem.endswith("_pb2")]


def room(path: Path) -> str:
    """The room of a module: its folder, or its own name if it lies on the street."""
    return path.relative_to(ROOT).parts[1].removesuffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    """A file, parsed."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that a file imports, with its dots."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def neighbours(path: Path, package: str) -> Iterator[str]:
    """The rooms of a package from which a module imports."""
    for each in imports(path):
        parts = each.split(".")
        if parts[0] == package:
            below = ROOT / package / parts[1] if len(parts) > 1 else Path()
            yield parts[1] if below.is_dir() or below.with_suffix(".py").is_file() else "__init__"


@pytest.mark.parametrize("path", modules("eventwriter"), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_its_room_may(path: Path) -> None:
    """The table above holds, and has a row for every module."""
    own = room(path)
    assert own in ROOMS, f"no row for {own}"
    allowed = ROOMS[own] | GROUND - {own} if own not in GROUND else ROOMS[own]
    assert {*neighbours(path, "eventwriter")} - {own} <= allowed
    others = {each.split(".")[0] for each in imports(path)} & {"schemas", "workers", "scripts", "tests"}
    assert others <= ROOMS[own]


@pytest.mark.parametrize("library", sorted(LIBRARIES))
def test_a_library_stays_in_its_room(library: str) -> None:
    """Only these rooms know NATS, PostgreSQL and the command line."""
    for path in modules("eventwriter"):
        if any(each.split(".")[0] == library for each in imports(path)):
            assert {room(path), str(path.relative_to(ROOT / "eventwriter"))} & LIBRARIES[library], path


@pytest.mark.parametrize("path", modules("workers"), ids=lambda path: str(path.relative_to(ROOT)))
def test_decoders_know_nothing_of_the_engine(path: Path) -> None:
    """A worker module imports the contract, the conversions and the rooms beside it, never another stream."""
    own = room(path)
    found = imports(path)
    of_engine = {".".join(each.split(".")[:2]) for each in found if each.split(".")[0] == "eventwriter"}
    assert of_engine <= {"eventwriter.masking", "eventwriter.stream", "eventwriter.values"}
    assert not {each.split(".")[0] for each in found} & {"schemas", "scripts", "tests"}
    shared = {*DECODER_ROOMS} - {"__init__"}
    assert {*neighbours(path, "workers")} - {own} <= DECODER_ROOMS.get(own, shared), path


def test_the_table_names_what_there_is() -> None:
    """No row for a room that is gone."""
    assert {room(path) for path in modules("eventwriter")} == {*ROOMS}
    assert {*DECODER_ROOMS} <= {room(path) for path in modules("workers")}


def too_long(path: Path) -> Iterator[str]:
    """What of a module is too long: its path, or path:name of a class or function. Tables are no code."""
    nodes = tree(path).body
    tables = sum(_lines(node) for node in nodes if isinstance(node, ast.Assign | ast.AnnAssign) and _lines(node) > 1)
    where = str(path.relative_to(ROOT))
    if len(path.read_text(encoding="utf-8").splitlines()) - tables > MODULE:
        yield where
    for node in ast.walk(tree(path)):
        limit = CLASS if isinstance(node, ast.ClassDef) else FUNCTION
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _lines(node) > limit:
            yield f"{where}:{node.name}"


def _lines(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def test_nothing_is_too_long() -> None:
    """No module, class or function, but for those that are known to be; and none of these is not."""
    every = (path for package in ("eventwriter", "workers") for path in modules(package))
    assert {each for path in every for each in too_long(path)} == TOO_LONG


def test_every_room_is_in_the_wheel() -> None:
    """setup.cfg lists each package."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    found = (
        path.parent
        for package in ("eventwriter", "workers", "schemas")
        for path in (ROOT / package).rglob("__init__.py")
    )
    listed = config["options"]["packages"].split()
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in found)


def test_property_tests_go_by_one_profile() -> None:
    """profiles.py alone decides what the machine may decide: a test says how many examples are worth its time."""
    profile = settings()
    assert (profile.derandomize, profile.deadline, profile.database) == (True, None, None)
    assert HealthCheck.too_slow in profile.suppress_health_check
    for path in modules("tests"):
        if path.stem != "profiles" and {"hypothesis.settings", "hypothesis.HealthCheck"} & imports(path):
            assert "hypothesis.HealthCheck" not in imports(path) or path == Path(__file__), path
            for node in ast.walk(tree(path)):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "settings":
                    given = {keyword.arg for keyword in node.keywords}
                    assert given <= {"max_examples", "stateful_step_count"}, f"{path}:{node.lineno}"


def test_the_sdist_carries_what_its_tests_need(tmp_path: Path) -> None:
    """All that is in the checkout but what a run leaves behind."""
    parts = ("eventwriter", "workers", "schemas", "scripts", "tests", "docs", "requirements", ".ci")
    for part in parts:
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name not in (".git", ".coverage")]
    for path in files:
        shutil.copy(path, tmp_path)
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    build = "import sys; from setuptools.build_meta import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path / "dist"], cwd=tmp_path, check=True, capture_output=True)
    (sdist,) = (tmp_path / "dist").iterdir()
    with tarfile.open(sdist) as archive:
        assert there <= {name.partition("/")[2] for name in archive.getnames()}
