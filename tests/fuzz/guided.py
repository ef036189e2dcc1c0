"""Fuzzes one target, or each of them by turns, guided by what of the code its inputs reach; started by scripts/fuzz.

    python tests/fuzz/guided.py TARGET|all FOLDER [options of libFuzzer] [inputs]

FOLDER keeps what reached something new; with inputs only those are tried. Needs the extra ``fuzz``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(ROOT / "tests" / "fuzz")]

with atheris.instrument_imports(include=["eventwriter", "workers", "nats.protocol"]):
    import targets


def each(data: bytes) -> None:
    """The first byte chooses the target."""
    if data:
        names = list(targets.TARGETS)
        targets.TARGETS[names[data[0] % len(names)]].run(data[1:])


def seeds(name: str) -> list[bytes]:
    """What a target begins with."""
    if name != "all":
        return [*targets.TARGETS[name].seeds()]
    return [bytes((place,)) + seed for place, each in enumerate(targets.TARGETS) for seed in seeds(each)]


def main(name: str, folder: Path, *options: str) -> None:
    """Writes the seeds into the folder and hands over to libFuzzer, which ends the process."""
    for number, seed in enumerate(seeds(name)):
        (folder / f"seed-{number:03}").write_bytes(seed)
    inputs = [str(folder)] if all(option.startswith("-") for option in options) else []
    run = each if name == "all" else targets.TARGETS[name].run
    atheris.Setup([sys.argv[0], *options, *inputs], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
