"""The documents of the project, and the blocks of code in them."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")] + sorted(
    (ROOT / "docs").rglob("*.md")
)


class Block(NamedTuple):
    """What stands between two fences."""

    document: str
    line: int
    kind: str
    text: str


def parted(document: str, text: str) -> Iterator[Block]:
    """The blocks of a text; a fence that none closes is an error."""
    opened: tuple[int, str] | None = None
    inside: list[str] = []
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        fence = re.match(r" *(?:```+|~~~+) *(.*)", line)
        if not fence:
            inside.append(line)
        elif opened is None:
            opened, inside = (number, fence[1].strip()), []
        else:
            assert not fence[1], f"{document}:{number}: a block begins within that of line {opened[0]}"
            yield Block(document, *opened, textwrap.dedent("".join(inside)))
            opened = None
    assert opened is None, f"{document}:{opened}: this block has no end"


BLOCKS = [
    block for path in DOCUMENTS for block in parted(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
]
