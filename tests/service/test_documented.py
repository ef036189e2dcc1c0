"""Each line of shell in README and docs is run, as it stands there but for numbers, files and addresses."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from documents import BLOCKS
from eventwriter import cli
from eventwriter.embedded import free_port
from fix_service import ROOT, World, only

GROUPS = {name for name, command in cli.cli.commands.items() if isinstance(command, click.Group)}
ENDLESS = {"supervise", "worker", "tap", "--watch", "--retention"}
"""What does not end, or needs TimescaleDB: its options are looked at here, and tests of its own run it."""
ELSEWHERE = {
    "echo": "tests/service/test_decode_command.py",
    "eval": "tests/commands/test_main.py",
    "_EVENTWRITER_COMPLETE=fish_source": "tests/commands/test_main.py",
    "export": "tests/config/test_config.py",
    "honcho": "tests/service/test_service.py",
    "pip": ".ci/run",
}
"""What has a test of its own."""
NOT_HERE = {"docker", "helm", "install", "kubectl", "python3.11", "systemctl", "/opt/eventwriter/bin/pip"}
"""What takes daemons that no test has, or folders of the machine: the files that it names are there."""
STATUS = {"decode": 65, "dlq replay": 65}
"""Exit codes that a command may have as well, for what there is to be done here."""


def lines() -> Iterator[tuple[str, str]]:
    """Each line of shell with the document that has it."""
    for block in BLOCKS:
        if block.kind == "sh":
            for line in filter(str.strip, block.text.replace("\\\n", " ").splitlines()):
                yield block.document, line.strip()


def parsed(words: list[str]) -> None:
    """Raises click.UsageError if the command does not take these words."""
    command: click.Command = cli.cli
    context: click.Context | None = None
    name: str | None = "eventwriter"
    while isinstance(command, click.Group):
        context = command.make_context(name, words, parent=context)
        name, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found
    command.make_context(name, words, parent=context)


class Reader:
    """Somebody who types what the documents show, beside a service with dead letters."""

    def __init__(self, world: World, folder: Path) -> None:
        self.world = world
        self.folder = folder
        self.durables = ["eventwriter-logs"]
        migration = (ROOT / "docs" / "migration.md").read_text()
        (settings,) = re.findall(r"```json\n(.*?)```", migration, re.DOTALL)
        (compose, _) = re.findall(r"```yaml\n(.*?)```", migration, re.DOTALL)
        manifest = {"kind": "ConfigMap", "data": {"db-event-writer.json": settings}}
        self.files = {"db-event-writer.json": settings, "compose.yaml": compose, "configmap.yaml": json.dumps(manifest)}
        self.files |= {"eventwriter.toml": "", "request.b64": "AAAA", "flow.hex": "0801"}

    def run(self, line: str) -> None:
        """A line with eventwriter in it."""
        command, _, target = line.partition(" | ")[0].partition(" > ")
        words = [self.own(word) for word in shlex.split(command, comments=True)[1:]]
        name = " ".join(words[:2]) if words[0] in GROUPS else words[0]
        if {name, *words} & ENDLESS:
            return parsed(words)
        if name == "streams new" and "--folder" not in words:
            words += ["--folder", str(self.folder / "new")]
        if name == "dlq purge" and "--yes" not in words:
            words.append("--yes")
        done = self.world.run(*words, check=False)
        assert done.returncode in (0, STATUS.get(name)), (line, done.stdout, done.stderr)
        if target:
            (self.folder / target.strip()).write_text(done.stdout)
        return None

    def own(self, word: str) -> str:
        """What stands here for a number, a file or an address of the documents."""
        if word in ("4711", "4712"):
            (letters,) = self.world.query("SELECT array_agg(id ORDER BY id) FROM eventwriter.dead_letters")
            return str(letters[0][int(word) - 4711])
        if word == "http://10.0.0.7:9465":
            return f"http://{self.world.environment['EVENTWRITER_HTTP__LISTEN']}"
        if word == "logs-2":  # after which the durable of before writes nothing any more
            self.durables.append(f"logs-{len(self.durables) + 1}")
        if word in ("eventwriter-logs", "logs-2"):
            return self.durables[-1]
        name = word.rpartition("/")[2]
        if word == "/etc/eventwriter/streams":
            return str(self.folder / "streams")
        if re.fullmatch(r"[\w.-]+\.(json|jsonl|toml|yaml|b64|hex|json\.gz)", name):
            path = self.folder / name
            if not path.exists():
                path.write_text(self.files.get(name, "{}"))
            return str(path)
        return {"old.logs": "logs_of_old", "3": "1"}.get(word, word)


def test_what_the_documents_show(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One service for all of it."""
    world.environment["EVENTWRITER_HTTP__LISTEN"] = f"127.0.0.1:{free_port()}"
    world.environment |= only("LOGS", "EVENTS")
    world.execute("CREATE TABLE logs_of_old (LIKE logs)")
    world.traffic(["LOGS", "EVENTS"], 40, broken=0.5)
    world.start()
    world.wait_settled()
    reader = Reader(world, tmp_path)
    helps: dict[str, set[str]] = {}
    once = {re.split(r" +#", line)[0]: document for document, line in lines()}
    for line, document in sorted(once.items(), key=lambda each: "ledger copy" in each[0]):
        word = line.split()[0]
        if word == "eventwriter":
            reader.run(line)
        elif word == "curl":
            path = line.split()[1].partition(":9465")[2]
            with urllib.request.urlopen(f"http://{world.environment['EVENTWRITER_HTTP__LISTEN']}{path}") as answer:
                assert answer.status == 200, line
        elif word.startswith("scripts/"):
            script = word.removeprefix("scripts/")
            assert (ROOT / word).is_file(), line
            if options := set(re.findall(r"--[a-z-]+", line)):
                helps[script] = helps.get(script) or shown(script, capsys)
                assert options <= helps[script], line
        elif word == "(umask":
            subprocess.run(["bash", "-c", line.replace("docs/deploy", str(tmp_path))], check=True)
            folder = tmp_path / "secrets"
            compose = (ROOT / "docs" / "deploy" / "compose.yaml").read_text()
            assert {each.name for each in folder.iterdir()} == {*re.findall(r"{file: secrets/([\w-]+)}", compose)}
            assert folder.stat().st_mode & 0o777 == 0o700
            assert {each.stat().st_mode & 0o777 for each in folder.iterdir()} == {0o644}
            assert all(re.fullmatch(r"[0-9a-f]{32}\n", each.read_text()) for each in folder.iterdir())
        elif word in NOT_HERE:
            for name in re.findall(r"(?<![\w./])(?:docs|requirements)/[\w./-]+", line):
                assert (ROOT / name).exists(), (document, line)
        else:
            assert (ROOT / ELSEWHERE.get(word, "no test runs this")).is_file(), (document, line)


def shown(script: str, capsys: pytest.CaptureFixture[str]) -> set[str]:
    """The options in the help of a script."""
    module: Any = importlib.import_module(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [script, "--help"])
        with pytest.raises(SystemExit):
            module.main()
    return {*re.findall(r"--[a-z-]+", capsys.readouterr().out)}
