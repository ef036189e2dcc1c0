"""Looks for what the suite's own examples do not find: runs the property tests again and again, each round with a seed
of its own. The suite tries the same examples in every run; what this finds becomes an example of its test. With
--guided it fuzzes the targets of tests/fuzz/targets.py, guided by what of the code their inputs reach.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".data" / "fuzz"
"""Where the inputs of each target are that reached something new, and those that found something."""
PASSED, FAILED, NOTHING_RAN = 0, 1, 5
"""Exit statuses of pytest: https://docs.pytest.org/en/stable/reference/exit-codes.html"""


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="scripts/fuzz",
        description=__doc__,
        epilog="A seed that found something finds it again: scripts/fuzz --minutes 0 --seed SEED TESTS. "
        "Exit status: 0 nothing was found, 1 something was, 2 the tests could not run.",
    )
    parser.add_argument("--minutes", type=float, default=10, help="no round begins after this; default: 10")
    parser.add_argument("--seed", type=int, help="of the first round, the next ones count on from it; default: random")
    parser.add_argument("--processes", default="auto", help="how many search at once; default: one a core")
    parser.add_argument("--guided", action="store_true", help="fuzz targets: TESTS are their names, MINUTES for each")
    parser.add_argument("tests", nargs="*", help="files or node ids, as for pytest; default: all")
    return parser.parse_args(argv)


def one_round(seed: int, tests: Sequence[str], processes: str) -> subprocess.CompletedProcess[str]:
    """Every property once, with examples that follow from the seed."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "profiles", "-m", "hypothesis and not slow", "-q", "--tb=short"),
            *("--hypothesis-profile=fuzz", f"--hypothesis-seed={seed}", "-n", processes, *tests),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "support"), "EXAMPLES": "all"},
        capture_output=True,
        text=True,
        check=False,
    )


def guided(target: str, seconds: float, seed: int, *options: str, kept: Path = KEPT) -> bool:
    """Fuzzes one target for so long, or with 0 tries what is kept of it; says what was done, and whether all held."""
    folder = kept / target
    folder.mkdir(parents=True, exist_ok=True)
    limit = f"-max_total_time={max(1, round(seconds))}" if seconds else "-runs=0"
    done = subprocess.run(
        [
            *(sys.executable, "tests/fuzz/guided.py", target, str(folder), limit, f"-seed={seed % 2**32 or 1}"),
            *("-timeout=60", "-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={folder}/", *options),
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    told = dict(re.findall(r"^stat::(\w+): +(\d+)$", done.stderr, re.MULTILINE))
    began = re.search(r"INITED .*rss: (\d+)Mb", done.stderr)
    print(
        f"{target}, seed {seed}: {int(told.get('number_of_executed_units', 0)):,} inputs, slowest "
        f"{told.get('slowest_unit_time_sec', '?')} s, {began[1] if began else '?'} MB at first, "
        f"{told.get('peak_rss_mb', '?')} MB at most",
        flush=True,
    )
    if done.returncode:
        what = re.search(r"^==\d+== ERROR.*", done.stderr, re.MULTILINE | re.DOTALL)
        print(done.stdout, what[0] if what else done.stderr, sep="\n")
        print(f"again, for what was found is kept: scripts/fuzz --guided --minutes 0 {target}")
    return done.returncode == 0


def findings(report: str) -> list[str]:
    """What failed, each with its error and its smallest example, from the report of pytest."""
    found = []
    for section in re.split(r"^_{3,} (?=.* _{3,}$)", report, flags=re.MULTILINE)[1:]:
        told = (line.removeprefix("E   ") for line in section.splitlines() if line.startswith("E   "))
        found.append("\n".join([section.partition(" ___")[0], *told]))
    return found


def guided_all(names: Sequence[str], seconds: float, seed: int) -> int:
    """The targets of these names, or each, one after the other; stops at the first that found something."""
    if importlib.util.find_spec("atheris") is None:
        print("this needs atheris: pip install 'eventwriter[fuzz]'", file=sys.stderr)
        return 2
    sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "fuzz")]
    known = list(importlib.import_module("targets").TARGETS)
    if strange := {*names} - {*known}:
        print(f"no targets: {', '.join(sorted(strange))}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    return 0 if all(guided(name, seconds, seed) for name in names or known) else 1


def main(argv: Sequence[str] | None = None) -> int:
    """Runs rounds until the time is over or something is found."""
    options = arguments(argv)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    if options.guided:
        return guided_all(options.tests, options.minutes * 60, seed)
    end = time.monotonic() + options.minutes * 60
    number = 0
    while True:
        number, begun = number + 1, time.monotonic()
        done = one_round(seed, options.tests or ["tests"], options.processes)
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
