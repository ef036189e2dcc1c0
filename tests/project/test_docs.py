"""The documentation: what it shows exists, and what exists is shown."""

from __future__ import annotations

import configparser
import re
import runpy
from pathlib import Path

import click
import pytest

from eventwriter import cli, errors, plugins, registry
from eventwriter.config import loading
from eventwriter.config.model import SECTIONS, kinds_of, stream_kinds
from fix_service import ROOT

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
LINKING = [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md"]


def commands(group: click.Group, prefix: str = "") -> list[str]:
    """Every command with its group's name."""
    found = []
    for name, command in group.commands.items():
        found += commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else [f"{prefix}{name}"]
    return found


def test_every_setting_is_documented() -> None:
    """docs/configuration.md has a row for each key, in the section it belongs to."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    sections = dict(re.findall(r"^## \[([^\]]+)\]\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    for name, section in SECTIONS:
        for key in kinds_of(section):
            assert f"`{key}`" in sections[name], f"{name}.{key}"
    for key in stream_kinds():
        assert f"`{key}`" in sections["streams.NAME"] + sections["writer"], f"streams.NAME.{key}"


def ini(document: str) -> configparser.ConfigParser:
    """The block of such text in a document."""
    (block,) = re.findall(r"```ini\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)
    found = configparser.ConfigParser(interpolation=None)
    found.optionxform = str  # type: ignore[assignment,method-assign]
    found.read_string(block)
    return found


def test_ini_in_the_documents_is_what_it_is_for(tmp_path: Path) -> None:
    """A credential of systemd is read where it lies, and entry points are of our group."""
    unit = ini("deploy/README.md")["Service"]
    name, value = unit["Environment"].split("=")
    credential = unit["LoadCredential"].partition(":")[0]
    assert value == f"%d/{credential}"
    (tmp_path / credential).write_text("secret\n")
    environ = {name: value.replace("%d", str(tmp_path))}
    settings = loading.load(registry.load(), file=None, environ=environ, flags={})
    assert settings.postgres.password == "secret"
    assert plugins.GROUP in ini("streams.md")["options.entry_points"]


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(document: Path, text: str) -> list[tuple[str, Path, str]]:
    """What a document links to: the link, its file and the anchor; addresses elsewhere are left out."""
    found = re.findall(r"\]\(([^)\s]*)\)|^\[[^\]]+\]: (\S+)|<a href=\"([^\"]*)\"", prose(text), re.MULTILINE)
    targets = ["".join(each) for each in found if "://" not in "".join(each)]
    parted = [(target, *target.partition("#")) for target in targets]
    return [(link, document.parent / path if path else document, anchor) for link, path, _, anchor in parted]


def anchors(text: str) -> set[str]:
    """Those of its headings, as repositories and our site make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        times = found[anchor] = found.get(anchor, -1) + 1
        if times:
            found[f"{anchor}-{times}"] = 0
    return {*found}


def dead(document: Path, text: str) -> list[str]:
    """Links of a document to files and anchors that are not there."""
    return [
        link
        for link, path, anchor in links(document, text)
        if not path.exists() or (anchor and anchor not in anchors(text if path == document else path.read_text()))
    ]


@pytest.mark.parametrize("document", LINKING, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    """A link names a file that exists, and a heading in it."""
    assert dead(document, document.read_text()) == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("[x](no.md)", ["no.md"]),
        ("[x](docs/tables.md#none)", ["docs/tables.md#none"]),
        ("[x](#none) and [y](#a-b_c-d)\n\n# A [b_c](LICENSE): D", ["#none"]),
        ("[x][y]\n\n[y]: gone/", ["gone/"]),
        ("[x](#two-1) [x](#two-2)\n# Two\n# `Two`\n```sh\n# Two\n```", ["#two-2"]),
        ("[x](docs/tables.md#timescaledb) [x](LICENSE) [x](https://example.org/no.md#none)", []),
    ],
)
def test_a_link_that_leads_nowhere_is_found(text: str, left: list[str]) -> None:
    """Files, anchors of another page and of this one, headings that occur twice, and what is code."""
    assert dead(ROOT / "README.md", text) == left


def test_package_indexes_get_a_description_without_relative_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside README's files nothing else is there: what names one stays as text."""
    described: dict[str, str] = {}
    monkeypatch.setattr("setuptools.setup", described.update)
    runpy.run_path(str(ROOT / "setup.py"))
    text = described["long_description"]
    assert links(ROOT / "README.md", text) == []
    assert "docs/guarantees.md" in text
    assert "](https://docs.nats.io/nats-concepts/jetstream)" in text


def test_every_page_is_found_from_the_readme() -> None:
    """By links, over the index of docs/; and the index has each page of docs/ itself."""
    found, new = {ROOT / "README.md"}, [ROOT / "README.md"]
    while new:
        page = new.pop()
        for _, path, _ in links(page, page.read_text()):
            if path.suffix == ".md" and path.resolve() not in found:
                found.add(path.resolve())
                new.append(path.resolve())
    assert {*LINKING} <= found
    index = ROOT / "docs" / "README.md"
    listed = {path.resolve() for _, path, _ in links(index, index.read_text())} | {index}
    assert {*DOCUMENTS} - {ROOT / "README.md"} <= listed


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_scripts_exist(document: Path) -> None:
    """`eventwriter …` and `scripts/…` in code are real."""
    known = commands(cli.cli)
    groups = {name.split()[0] for name in known}
    for words in re.findall(r"(?:^|`)eventwriter ((?:[a-z]+ ?)+)", document.read_text(), re.MULTILINE):
        first = words.split()[0]
        assert first in groups, words
    for script in re.findall(r"scripts/([a-z_]+)(?![\w.])", document.read_text()):
        assert (ROOT / "scripts" / script).exists(), script


def test_exit_codes_are_those_of_the_code() -> None:
    """The README's table and eventwriter.errors agree."""
    table = (ROOT / "README.md").read_text().partition("## Exit codes")[2].partition("##")[0]
    shown = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert shown == {value for name, value in vars(errors).items() if name.isupper() and isinstance(value, int)}


def test_every_command_explains_itself() -> None:
    """`--help` of each command has a sentence."""

    def check(group: click.Group) -> None:
        for name, command in group.commands.items():
            assert command.help, name
            if isinstance(command, click.Group):
                check(command)

    check(cli.cli)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    """A module named in code, or in a picture, is where the text says; README's eighth stream is not there yet."""
    for name in set(re.findall(r"[\w/]*\b\w+/\w+\.(?:py|sql|proto)\b", document.read_text())):
        folders = [ROOT, ROOT / "eventwriter"]
        assert "alerts" in name or any((folder / name).is_file() for folder in folders), name
