"""Looks for what the suite's own examples do not find: runs the property tests again and again, each round with a seed
of its own. The suite tries the same examples in every run; what this finds becomes an example of its test.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PASSED, FAILED, NOTHING_RAN = 0, 1, 5
"""Exit statuses of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description=__doc__,
        epilog="A seed that found something finds it again: scripts/fuzz --minutes 0 --seed SEED TESTS. "
        "Exit status: 0 nothing was found, 1 something was, 2 the tests could not run.",
    )
    parser.add_argument("--minutes", type=float, default=10, help="no round begins after this; default: 10")
    parser.add_argument("--seed", type=int, help="of the first round, the next ones count on from it; default: random")
    parser.add_argument("--processes", default="auto", help="how many search at once; default: one a core")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files or node ids, as for pytest; default: all")
    return parser.parse_args(argv)


def one_round(seed: int, tests: Sequence[str], processes: str) -> subprocess.CompletedProcess[str]:
    """Every property once, with examples that follow from the seed."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "profiles", "-m", "hypothesis and not slow", "-q", "--tb=short"),
            *("--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}", "-n", processes, *tests),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "support")},
        capture_output=True,
        text=True,
        check=False,
    )


def findings(report: str) -> list[str]:
    """What failed, each with its error and its smallest example, from the report of pytest."""
    found = []
    for section in re.split(r"^_{3,} (?=.* _{3,}$)", report, flags=re.MULTILINE)[1:]:
        told = (line.removeprefix("E   ") for line in section.splitlines() if line.startswith("E   "))
        found.append("\n".join([section.partition(" ___")[0], *told]))
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Runs rounds until the time is over or something is found."""
    options = arguments(argv)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    end = time.monotonic() + options.minutes * 60
    number = 0
    while True:
        number, begun = number + 1, time.monotonic()
        done = one_round(seed, options.tests, options.processes)
        summary = done.stdout.strip().rpartition("\n")[2].strip("= ")
        print(f"round {number}, seed {seed}: {summary}", flush=True)
        if done.returncode == FAILED:
            print("\n\n".join(findings(done.stdout)) or done.stdout)
            print(f"\nagain: scripts/fuzz --minutes 0 --seed {seed}, or name the test behind it")
            return 1
        if done.returncode != PASSED:
            print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
            return 2
        seed += 1
        if time.monotonic() + (time.monotonic() - begun) / 2 > end:
            return 0


if __name__ == "__main__":
    sys.exit(main())
