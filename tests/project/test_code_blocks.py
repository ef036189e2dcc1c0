"""Every block of code in the documents has a language, and is what that says: it runs here, or in a test named here."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml

from documents import BLOCKS, ROOT, Block, parted
from eventwriter import registry
from eventwriter.config import loading
from eventwriter.embedded import PostgresServer
from fix_servers import TEMPLATE, new_database

SHELL = "tests/service/test_documented.py::test_what_the_documents_show"
MIGRATION = "tests/service/test_migration.py::test_from_the_go_writer_to_ours"
INI = "tests/project/test_docs.py::test_ini_in_the_documents_is_what_it_is_for"
ELSEWHERE = {
    ("README.md", "text"): (1, "tests/project/test_code_blocks.py::test_pictures_name_what_there_is"),
    ("docs/internals.md", "text"): (1, "tests/project/test_code_blocks.py::test_pictures_name_what_there_is"),
    ("docs/commands.md", "text"): (24, "tests/commands/test_reference.py::test_the_page_is_that_of_the_commands"),
    ("docs/scaling.md", "text"): (1, "tests/service/test_partitions.py::test_partitions_of_a_stream"),
    ("docs/configuration.md", "ini"): (1, "tests/service/test_pooled.py::test_the_settings_of_the_documents"),
    ("docs/deploy/README.md", "ini"): (1, INI),
    ("docs/streams.md", "ini"): (1, INI),
    ("docs/migration.md", "console"): (5, MIGRATION),
    ("docs/migration.md", "json"): (1, MIGRATION),
    ("docs/migration.md", "sql"): (2, MIGRATION),
    ("docs/migration.md", "yaml"): (2, "tests/service/test_migration.py::test_the_files_of_compose_name_what_there_is"),
}
"""What more than its form counts of: how many blocks of the kind the document has, and which test uses all of them."""
PICTURES = [block for block in BLOCKS if block.kind == "text" and re.search("[─▶]", block.text)]


@pytest.fixture(scope="module")
def connection(postgres_server: PostgresServer) -> Iterator[psycopg.Connection[Any]]:
    """A database with our tables, and a transaction in it."""
    with new_database(postgres_server, TEMPLATE) as dsn, psycopg.connect(dsn) as made:
        yield made


def toml(block: Block, folder: Path) -> None:
    """It is a configuration, and the service takes it."""
    tomllib.loads(block.text)
    path = folder / "example.toml"
    path.write_text(block.text)
    assert loading.load(registry.load(), file=path, environ={}, flags={})


def python(block: Block, folder: Path) -> None:
    """It compiles, and is a stream as it lies in a folder, with its table beside it if the document has that."""
    compile(block.text, block.document, "exec")
    (name,) = re.findall(r'^STREAM = .*?name="(\w+)"', block.text, re.MULTILINE | re.DOTALL)
    (folder / f"{name.lower()}.py").write_text(block.text)
    for other in BLOCKS:
        if other.document == block.document and other.kind == "sql":
            (folder / f"{name.lower()}.sql").write_text(other.text)
    assert registry.load([str(folder)])[name].subjects


def ini(block: Block, folder: Path) -> None:
    """It has sections with keys in them."""
    found = configparser.ConfigParser(interpolation=None)
    found.read_string(block.text)
    assert all(found[section] for section in found.sections())


FORMS: dict[str, Callable[[Block, Path], object]] = {
    "toml": toml,
    "python": python,
    "ini": ini,
    "json": lambda block, folder: json.loads(block.text),
    "yaml": lambda block, folder: yaml.safe_load(block.text)["services"],
}
"""What is looked at of each kind, wherever it stands."""
RUN = {"sh", "sql", "console", "text"}
"""Kinds of which a test makes use, or ``test_sql_is_taken``."""


def named(block: Block) -> str:
    """Where it is, for people."""
    return f"{block.document}:{block.line}"


@pytest.mark.parametrize("block", BLOCKS, ids=named)
def test_a_block_is_what_it_says(block: Block, tmp_path: Path) -> None:
    """It has a language that we know, its form, and what runs it."""
    assert block.kind in {*FORMS, *RUN}, f"{named(block)}: write the language behind the fence, a picture's is text"
    assert block.text.strip(), named(block)
    if block.kind in FORMS:
        FORMS[block.kind](block, tmp_path)
    if block.kind not in ("sh", "sql", "toml", "python"):
        assert (block.document, block.kind) in ELSEWHERE, f"{named(block)}: name the test that uses it"


@pytest.mark.parametrize(
    "block", [each for each in BLOCKS if each.kind == "sql" and (each.document, "sql") not in ELSEWHERE], ids=named
)
def test_sql_is_taken(block: Block, connection: psycopg.Connection[Any]) -> None:
    """By PostgreSQL, where our tables are; nothing of it stays."""
    with connection.transaction(force_rollback=True):
        connection.execute(re.sub(r"^(BEGIN|COMMIT);$", "", block.text, flags=re.MULTILINE))


def test_tests_that_are_named_have_the_blocks() -> None:
    """Each exists and reads the document, or lies beside what writes it; whoever adds a block says that it has it."""
    counts = Counter((block.document, block.kind) for block in BLOCKS)
    assert {key: counts[key] for key in ELSEWHERE} == {key: count for key, (count, _) in ELSEWHERE.items()}
    for document, test in [(document, test) for (document, _), (_, test) in ELSEWHERE.items()] + [("", SHELL)]:
        path, _, name = test.partition("::")
        text = (ROOT / path).read_text(encoding="utf-8")
        assert f"\ndef {name}(" in text, test
        assert Path(document).name in text, (document, test)


def test_pictures_name_what_there_is() -> None:
    """README's has each stream with its subject and table; files that one names are modules of ours."""
    streams = next(block for block in PICTURES if block.document == "README.md").text
    for name, stream in registry.load().items():
        assert re.search(
            rf"^ *{name} +{re.escape(stream.subjects[-1])} .* worker {name} .* {stream.table}$", streams, re.M
        )
    modules = [path.relative_to(ROOT).as_posix() for path in (ROOT / "eventwriter").rglob("*.py")]
    for block in PICTURES:
        for file in re.findall(r"[\w/]+\.py\b", block.text):
            assert any(f"/{module}".endswith(f"/{file}") for module in modules), (named(block), file)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("```\nx\n```\n", [""]),
        ("1. x\n\n    ```sh\n    ls\n    ```\n~~~ini\n~~~\n", ["sh", "ini"]),
        ("````toml\na = 1\n````", ["toml"]),
    ],
)
def test_no_fence_is_missed(text: str, kinds: list[str]) -> None:
    """Within lists, of tildes, and longer ones."""
    assert [block.kind for block in parted("x.md", text)] == kinds


@pytest.mark.parametrize("text", ["```sh\nls\n", "```sh\nls\n```toml\n"])
def test_a_fence_without_an_end_is_found(text: str) -> None:
    """What follows it would be code."""
    with pytest.raises(AssertionError, match=r"x\.md"):
        list(parted("x.md", text))
