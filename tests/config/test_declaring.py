"""Streams that the settings themselves tell of: where plugins are, and streams without code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eventwriter import registry
from eventwriter.commands.settings import Settings
from eventwriter.config import declaring, loading
from eventwriter.errors import ConfigurationError

DECLARED = registry.load()
HEAD = '[streams.ALERTS]\ndecoder = "json"\n'
ALERTS = f"""{HEAD}columns = {{ time = "ts", text = "message.text", "odd name" = "/a.b/c" }}
rest = "more"
"""


def load(folder: Path, text: str = "", **environ: str) -> loading.Config:
    """Settings from a file of this content, and from these variables, without their prefix."""
    file = folder / "eventwriter.toml"
    file.write_text(text)
    named = {f"EVENTWRITER_{name}": value for name, value in environ.items()}
    return loading.load(DECLARED, file=file, environ=named, flags={})


def test_a_stream_without_code_is_a_section(tmp_path: Path) -> None:
    """Its settings have the defaults of every stream, of its own name, and may be any of them; it is shown as it was
    read."""
    found = load(tmp_path, ALERTS).streams["ALERTS"]
    assert (found.stream, found.durable, found.subjects, found.table, found.processes) == (
        *("ALERTS", "eventwriter-alerts", ("alerts.>",), "alerts", 1),
    )
    assert found.columns == {"time": "ts", "text": "message.text", "odd name": "/a.b/c"}
    assert (found.decoder, found.rest) == ("json", "more")
    config = load(tmp_path, ALERTS + 'table = "public.notes"\nsubjects = "notes.>"\nprocesses = 3\nlinger = "5ms"\n')
    found = config.streams["ALERTS"]
    assert (found.table, found.subjects, found.processes, found.writer.linger) == (
        "public.notes",
        ("notes.>",),
        3,
        0.005,
    )
    assert load(tmp_path, loading.render(config)) == config
    assert loading.as_dict(config)["streams"]["ALERTS"]["columns"] == found.columns
    assert "decoder" not in loading.render(load(tmp_path))


def test_or_some_variables(tmp_path: Path) -> None:
    """As all settings may be; they go before the file's."""
    environ = {"STREAMS__ALERTS__DECODER": "json", "STREAMS__ALERTS__COLUMNS": "time = ts, text=message.text"}
    assert load(tmp_path, **environ).streams["ALERTS"].columns == {"time": "ts", "text": "message.text"}
    with pytest.raises(ConfigurationError, match="unknown stream ALERTS"):
        load(tmp_path, STREAMS__ALERTS__DECODER="")  # empty is not set
    both = load(tmp_path, ALERTS, **environ).streams["ALERTS"]
    assert (both.columns, both.rest) == ({"time": "ts", "text": "message.text"}, "more")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[streams.ALERTS]\ndecoder = "xml"\ncolumns = { a = "b" }', 'decoder = "xml" (FILE): expected "json"'),
        (HEAD, "columns (default): a stream without code is made of them: expected"),
        (HEAD + 'columns = {}', "columns = {} (FILE): expected columns with the path of"),
        (HEAD + 'columns = ["a"]', 'columns = ["a"] (FILE): expected columns with the path'),
        (HEAD + 'columns = { a = 5 }', 'columns = {"a": 5} (FILE): expected columns with'),
        (HEAD + 'columns = { a = "b..c" }', "for column a: 'b..c' has a key without a name"),
        (HEAD + 'columns = { a = "$now" }', "'$now' is none of $time, $subject, $sequence"),
        (ALERTS.replace('"more"', '"text"'), "rest (FILE): text has a path in streams.ALERTS.columns: expected"),
        (ALERTS + 'omit = ["text"]', "omit (FILE): text is no column of the stream: expected none, for all its"),
        (ALERTS.replace("ALERTS", "alerts"), "alerts (FILE) is no name of a stream: expected capitals, digits and"),
        (ALERTS.replace("ALERTS", "LOGS"), "streams.LOGS.decoder (FILE): LOGS has a decoder of its own: expected a"),
        ('[streams.LOGS]\nrest = "more"', "streams.LOGS.rest (FILE): LOGS has a decoder of its own: expected a"),
        ('[streams.ALERTS]\ncolumns = { a = "b" }', "unknown stream ALERTS in streams.ALERTS.columns.a (FILE)"),
        ('[plugins]\nfolders = 5', "plugins.folders = 5 (FILE): expected a list of folders such as"),
        ('[plugins]\nfolder = "x"', "unknown setting plugins.folder (FILE): did you mean plugins.folders?"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_stream(tmp_path: Path, text: str, said: str) -> None:
    """Is told with its place, and what it would have to be."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert said.replace("FILE", f"file {tmp_path / 'eventwriter.toml'}") in str(caught.value)


def test_folders_are_known_before_all_else(tmp_path: Path, monkeypatch: Any) -> None:
    """From the file and the environment, whatever is wrong with other settings; of none and of an empty one none."""
    file = tmp_path / "eventwriter.toml"
    for text, environ, expected in (
        ('[plugins]\nfolders = ["/a", "/b"]\n[nonsense]\n', {}, ("/a", "/b")),
        ('[plugins]\nfolders = "/a"\n', {"EVENTWRITER_PLUGINS__FOLDERS": "/c,/d"}, ("/c", "/d")),
        ("plugins = 5\n", {"EVENTWRITER_PLUGINS__FOLDERS": ""}, ()),
    ):
        file.write_text(text)
        assert declaring.plugin_folders(file=file, environ=environ) == expected
    assert declaring.plugin_folders(file=None, environ={}) == ()
    monkeypatch.setenv("EVENTWRITER_PLUGINS__FOLDERS", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"plugins\.folders: .* cannot be read"):
        Settings(None, {}).load()
