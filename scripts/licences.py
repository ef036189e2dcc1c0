"""Writes docs/licences.md: the licence of each package that the service runs with, as it says itself."""

from __future__ import annotations

import re
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Licences

It is itself under the [Apache License 2.0](../LICENSE). This is what it runs with, in the versions of
[requirements/service.txt](../requirements/service.txt); none of it is in the wheel. `scripts/lock` writes this page.

psycopg and its parts are under the LGPL, orjson is in part under the MPL. All are used as they are published, and are
files of their own that `pip install` replaces by other versions: who passes on an image with them in it has to leave
that possible, and to pass on what he changes of their own code. psycopg-binary brings libpq (PostgreSQL License) and
OpenSSL (Apache-2.0). All else asks for no more than its notice, which each has beside its code.
"""
TABLE = """
| package | licence |
|---|---|
"""
EXTRA = """
With `eventwriter[otel]`, which pushes metrics, come those of [requirements/otel.txt](../requirements/otel.txt) as well.
certifi, which brings the certificates of public authorities, is under the MPL: for it holds what holds for orjson.
"""


def names(file: str) -> list[str]:
    """The packages in a file of requirements/, on this kind of machine."""
    text = (ROOT / "requirements" / f"{file}.txt").read_text(encoding="utf-8")
    return re.findall(r"^([\w.-]+)==(?!.*sys_platform == 'win32')", text, re.MULTILINE)


def licence(name: str) -> str:
    """What a package says of itself, in one of the three places that there are for it."""
    told = metadata(name)
    if "License-Expression" in told:
        return told["License-Expression"]
    free = told["License"].strip() if "License" in told else ""
    classifiers = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier", []) if "License ::" in each]
    return free if 0 < len(free) < 40 else " and ".join(classifiers)


def table(packages: list[str]) -> str:
    """Their licences."""
    return TABLE + "".join(f"| {name} | {licence(name)} |\n" for name in packages)


def page() -> str:
    """The whole page."""
    service = names("service")
    return HEAD + table(service) + EXTRA + table([name for name in names("otel") if name not in service])


if __name__ == "__main__":
    print(page(), end="")
