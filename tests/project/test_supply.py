"""What the project is made of: pinned, with hashes, as setup.cfg asks for it; audited, and its licences told."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import audit
import licences

ROOT = Path(__file__).resolve().parents[2]


def asked(*extras: str, service: bool = True) -> Iterator[Requirement]:
    """What setup.cfg asks for."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"]] if service else []
    texts += [config["options.extras_require"][extra] for extra in extras]
    yield from (Requirement(line) for text in texts for line in text.split("\n") if line)


def pinned(name: str) -> dict[str, list[Requirement]]:
    """What a file of requirements/ pins, by name; each with hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    found: dict[str, list[Requirement]] = {}
    lines = re.sub(r"\\\n", "", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    for line in lines:
        requirement, *hashes = line.split(" --hash=")
        assert hashes, line
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each.strip()) for each in hashes), line
        each = Requirement(requirement)
        assert re.fullmatch(r"==[^*]+", str(each.specifier)), line
        found.setdefault(canonicalize_name(each.name), []).append(each)
    return found


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("service", ()),
        ("otel", ("otel",)),
        ("development", ("embedded", "otel", "test", "fuzz")),
        ("docs", ("docs",)),
        ("supply", ("supply",)),
        ("deploy", ("deploy",)),
    ],
)
def test_what_is_asked_for_is_pinned(name: str, extras: tuple[str, ...]) -> None:
    """In a version that fits; the files agree where they have the same."""
    pins, development = pinned(name), pinned("development")
    for each in asked(*extras):
        versions = [str(pin.specifier).removeprefix("==") for pin in pins[canonicalize_name(each.name)]]
        assert any(each.specifier.contains(version) for version in versions), each
    for package in {*pins} & {*development}:
        assert {str(pin.specifier) for pin in pins[package]} <= {str(pin.specifier) for pin in development[package]}


def test_what_builds_is_pinned() -> None:
    """And is there before what it builds."""
    built = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for each in map(Requirement, built):
        (pin,) = pinned("build")[each.name]
        assert each.specifier.contains(str(pin.specifier).removeprefix("=="))
        assert pinned("development")[each.name] == [pin]


def test_what_installs_is_pinned() -> None:
    """Alone, for it comes first."""
    (each,) = asked("lock", service=False)
    ((name, (pin,)),) = pinned("lock").items()
    assert name == each.name
    assert each.specifier.contains(str(pin.specifier).removeprefix("=="))


@pytest.mark.parametrize(
    "path", ["scripts/_venv", "scripts/lock", "scripts/audit", "scripts/docs", "scripts/sbom", ".ci/run"]
)
def test_nothing_is_installed_that_has_no_hash(path: str) -> None:
    """But for what lies here already."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ")
    for command in re.findall(r"pip (?:install|wheel) .*", text):
        assert "--no-deps" in command
        assert "--require-hashes" in command or re.search(r"(--editable \.|--wheel-dir \S+ \.|--no-index)", command)


# What pip-audit prints.
FINE = {"name": "click", "version": "8.1", "vulns": []}
BAD = {"name": "yaml", "version": "5.3", "vulns": [{"id": "PYSEC-1", "fix_versions": ["5.4"], "description": "x"}]}
UNKNOWN = {"name": "rich", "skip_reason": "Dependency not found"}


@pytest.mark.parametrize(
    ("found", "status", "said"),
    [
        ([FINE, FINE], 0, "nothing is known against 2 packages"),
        ([FINE, UNKNOWN], 0, "nothing is known against 1 packages; nothing is known of 1 others"),
        ([UNKNOWN, UNKNOWN], 0, "skipped, for the database of pip-audit knows none of these packages here"),
        (
            [UNKNOWN, FINE, BAD],
            1,
            "yaml 5.3: PYSEC-1, mended in 5.4\nscripts/lock --upgrade-package NAME takes a newer",
        ),
        (None, 0, "skipped, for the database of pip-audit cannot be had: no route"),
    ],
)
def test_what_the_audit_says(found: list[object] | None, status: int, said: str) -> None:
    """Known against a package, known against none, and nobody to be asked."""
    output = "" if found is None else json.dumps({"dependencies": found, "fixes": []})
    told = audit.verdict(output, "Traceback\nno route\n")
    assert told[0] == status
    assert told[1].startswith(said)


def test_the_licences_are_those_that_the_packages_name() -> None:
    """`scripts/lock` writes the page."""
    page = licences.page()
    assert (ROOT / "docs" / "licences.md").read_text(encoding="utf-8") == page
    assert {canonicalize_name(each.name) for each in asked("otel")} <= {
        *re.findall(r"^\| ([\w-]+) \| \S", page, re.MULTILINE)
    }
