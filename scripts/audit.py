"""Runs pip-audit on requirements/service.txt; tells what is known against a package from not having been told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def verdict(output: str, error: str = "") -> tuple[int, str]:
    """Exit status, and what to say of the JSON that pip-audit printed."""
    try:
        found: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except ValueError:
        last = error.strip().rpartition("\n")[2]
        return 0, f"skipped, for the database of pip-audit cannot be had: {last}"
    asked = [each for each in found if "skip_reason" not in each]
    if not asked:
        return 0, "skipped, for the database of pip-audit knows none of these packages here"
    bad = [(each, problem) for each in asked for problem in each["vulns"]]
    if not bad:
        more = f"; nothing is known of {len(found) - len(asked)} others" if len(asked) < len(found) else ""
        return 0, f"nothing is known against {len(asked)} packages{more}"
    lines = [
        f"{each['name']} {each['version']}: {problem['id']}, mended in {', '.join(problem['fix_versions']) or 'none'}"
        for each, problem in bad
    ]
    return 1, "\n".join([*lines, "scripts/lock --upgrade-package NAME takes a newer version"])


def main() -> int:
    """Asks, and says what came of it."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pip_audit", "--requirement", "requirements/service.txt", "--require-hashes"),
            *("--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "5"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    status, said = verdict(done.stdout, done.stderr)
    print(f"audit: {said}")
    return status


if __name__ == "__main__":
    sys.exit(main())
