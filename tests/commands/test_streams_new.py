"""`eventwriter streams new`: what it writes is a stream, its table takes its rows, and its tests pass."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from eventwriter import cli, registry
from eventwriter.postgres.catalog import read_plan

SAMPLES: dict[str, Any] = {
    "nothing": None,
    "an alert": {"ts": "2000-01-01T00:00:00Z", "host": {"name": "a"}, "cpuLoad": 0.5, "up": True, "n": 2**40},
    "several": [{"n": 1, "x": "2026-01-01T00:00:00Z", "y": "a"}, {"n": 1.5, "x": "soon", "y": 5, "z": None}, {}],
    "odd names": {"order": "x", "2x": 1, "a.b": 1, "a b": 2, "rest": 3, "time": "soon", "ünï'\"{}\\": 4, "": None},
    "hostile texts": {"text": "'''\"\"\"\\ {x} \0 %s", "large": 2**70, "list": [1, {"a": None}]},
}


def run(*arguments: str) -> Result:
    """The command, in this process."""
    return CliRunner().invoke(cli.cli, ["streams", "new", *arguments])


def test_the_files_are_a_stream(tmp_path: Path, monkeypatch: Any, connection: psycopg.Connection[Any]) -> None:
    """Whatever the sample is like: it loads, has a table that fits, and passes the test that is written with it."""
    for number, (what, sample) in enumerate(SAMPLES.items()):
        folder, table = tmp_path / str(number), f"alerts_{number}"
        file = tmp_path / "sample.json"
        file.write_text(json.dumps(sample))
        found = run(table, "--folder", str(folder), *(["--sample", str(file)] if sample else []))
        assert found.exit_code == 0, (what, found.output)
        assert sorted(path.name for path in folder.iterdir()) == [f"{table}.py", f"{table}.sql", f"test_{table}.py"]
        assert f'folders = ["{folder}"]' in found.output

        stream = registry.load([str(folder)])[table.upper()]
        connection.execute(registry.definition(stream))
        assert not read_plan(connection, stream, table).omitted
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        spec = importlib.util.spec_from_file_location(f"test_{table}", folder / f"test_{table}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        tests = [test for name, test in vars(module).items() if name.startswith("test_")]
        assert len(tests) == 3
        for test in tests:
            test()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["logs"], "there is a stream LOGS already"),
        (["my-alerts"], "MY-ALERTS is no name of a stream: expected letters, digits and single _"),
        (["alerts", "--sample", "-"], "--sample: not JSON"),
        (["alerts", "--folder", "/proc/none"], "cannot be written"),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: list[str], said: str) -> None:
    """Says why, and writes nothing."""
    found = run("--folder", str(tmp_path), *arguments)
    assert said in str(found.exception)
    assert not [*tmp_path.iterdir()]


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: Any) -> None:
    """The folder is that of the settings; if one of the files is there, none is written."""
    monkeypatch.setenv("EVENTWRITER_PLUGINS__FOLDERS", str(tmp_path))
    (tmp_path / "test_alerts.py").write_text("mine")
    found = run("alerts")
    assert "test_alerts.py exists, and nothing is overwritten" in str(found.exception)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]
    assert run("alarms").exit_code == 0
    assert "ALARMS" in registry.load([str(tmp_path)])
