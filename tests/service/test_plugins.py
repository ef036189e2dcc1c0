"""Streams that do not come with eventwriter: from a folder, from an installed package, and without code."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eventwriter import registry
from eventwriter.embedded import free_port
from eventwriter.errors import ConfigurationError
from eventwriter.postgres.attempt import fast_rows
from eventwriter.stream import Message
from fix_monitor import Endpoint
from fix_servers import WRITER
from fix_service import ROOT, World, only, wait_until

CODE = '''
"""As somebody writes it who trusts his producers."""
import json
from eventwriter.stream import Column, Decoded, Reject, Stream

def decode(message):
    record = json.loads(message.payload)
    return Decoded([(record["n"], record["text"])])

STREAM = Stream("{name}", ("{table}.>",), "{table}", (Column("n", "bigint"), Column("text", "text")), decode)
'''
ODD = """
import json
from eventwriter.stream import Column, Decoded, Reject, Stream

def decode(message):
    kind, number = json.loads(message.payload)
    odd = {"long": "r" * 15_000, "lone": "\\ud800", "nul": "a\\0b", "many": chr(number + 200) * 100}[kind]
    record = () if kind == "long" else [(number, "good")]
    return Decoded(record, [Reject(odd, odd * 9, len(record), odd)], [odd])

STREAM = Stream("{name}", ("{table}.>",), "{table}", (Column("n", "bigint"), Column("text", "text")), decode)
"""
NOTES = """
[streams.NOTES]
decoder = "json"
columns = { n = "n", text = "text" }
"""
SQL = "CREATE TABLE IF NOT EXISTS {table} (n bigint, text text);"


def write(folder: Path, table: str, code: str = CODE) -> Path:
    """A stream in a folder, and the definition of its table."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{table}.py"
    path.write_text(code.replace("{name}", table.upper()).replace("{table}", table))
    (folder / f"{table}.sql").write_text(SQL.format(table=table))
    return path


def message(payload: bytes) -> Message:
    """One of these bytes."""
    return Message("alerts.x", payload, 7, 1_700_000_000 * 10**9)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("json.loads(message.payload)['text']", "KeyError: "),
        ("[][0]", "IndexError"),
        ("b'\\xff'.decode()", "UnicodeDecodeError"),
        ("decode(message)", "RecursionError"),
        ("None", "decode returned None, not Decoded"),
        ("[(1, 'a')]", "not Decoded"),
        ("Decoded([(1,)])", "not a tuple of 2 values"),
        ("Decoded([[1, 'a']])", "not a tuple of 2 values"),
        ("Decoded((n, 'a') for n in range(2))", "has no len"),
        ("Decoded(None)", "not iterable"),
        ("Decoded(rejects=['bad'])", "not a Reject"),
        ("Decoded(rejects=[Reject('bad', None)])", "not a Reject"),
        ("Decoded([(1, 'a')], [Reject('bad', 'no place')])", "not a place of its own"),
        ("Decoded((), [Reject('bad', 'x', 0), Reject('bad', 'y', 0)])", "not a place of its own"),
        ("Decoded([(1, 'a')], [Reject('bad', 'x', 9)])", "not a place of its own"),
        ("Decoded([(1, 'a')], repairs=[1])", "not words"),
    ],
)
def test_whatever_a_decoder_does_its_message_is_a_reject(tmp_path: Path, returned: str, said: str) -> None:
    """With the reason ``internal``, and what was wrong."""
    write(tmp_path, "alerts", CODE.replace('Decoded([(record["n"], record["text"])])', returned))
    stream = registry.load([str(tmp_path)])["ALERTS"]
    rows, (reject,), repairs = stream.decode(message(b'{"n": 1}'))
    assert (rows, repairs, reject.reason, reject.record_index) == ((), (), "internal", None)
    assert said in reject.detail


def test_what_is_right_passes(tmp_path: Path) -> None:
    """Rows, and rejects of records and of a message; of a fast path what has the width of a row."""
    code = CODE.replace(
        '[(record["n"], record["text"])]',
        "*[[tuple(x)for x in y]if y and len(y[0])<3 else[Reject(*x)for x in y]for y in record]",
    )
    fast = (
        "import dataclasses\nSTREAM = dataclasses.replace(STREAM, fast=lambda all: [(1, 'a'), (1,), None][:len(all)])\n"
    )
    write(tmp_path, "alerts", code + fast)
    stream = registry.load([str(tmp_path)])["ALERTS"]
    decoded = stream.decode(message(b'[[[1, "a"], [2, "b"]], [["bad", "x", 1]]]'))
    assert decoded.rows == [(1, "a"), (2, "b")]
    assert [reject.record_index for reject in decoded.rejects] == [1]
    assert stream.decode(message(b'[[], [["bad", "all of it", null]]]')).rejects[0].record_index is None
    assert fast_rows(stream, [message(b"")] * 3) == [(1, "a"), None, None]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("alerts.py", "import nothing_like_this", r"alerts.py cannot be loaded: ModuleNotFoundError: .* \(line 1\)"),
        ("alerts.py", "x = 1\nx.y\n", r"AttributeError: .* \(line 2\)"),
        ("alerts.py", "def decode(:\n", r"SyntaxError: [^()]* \(line 1\)"),
        ("alerts.py", "raise SystemExit", "SystemExit"),
        ("alerts.py", "\0", "alerts.py cannot be loaded"),
        ("alerts.py", "", "declares no STREAM"),
        ("alerts.py", "STREAM = 'ALERTS'", "STREAM is str, not"),
        ("alarms.py", CODE, "declares the stream"),
        ("logs.py", CODE.replace("{name}", "LOGS"), r"two streams are called LOGS: workers/logs.py and .*logs.py"),
        ("alerts.py", CODE.replace('("{table}.>",)', '"alerts.>"'), "subjects is not a tuple"),
        ("alerts.py", CODE.replace('"bigint"', '"numeric"'), "column n has the type numeric: expected one of text,"),
        ("alerts.py", CODE.replace('(Column("n", "bigint"), ', '("n", '), "columns is not a tuple"),
        ("alerts.py", CODE.replace(", decode)", ", decode, key=('m',))"), "its key has m, and it has no such column"),
        ("my-alerts.py", CODE.replace("{name}", "MY-ALERTS"), "its own name has letters"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_stream_is_refused(tmp_path: Path, name: str, text: str, said: str) -> None:
    """In one line that names the file, and what is wrong with it."""
    (tmp_path / name).write_text(text.replace("{name}", "ALERTS").replace("{table}", "alerts"))
    with pytest.raises(ConfigurationError, match=said) as caught:
        registry.load([str(tmp_path)])
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """And what lies beside streams in one that is there is left alone."""
    with pytest.raises(ConfigurationError, match=r"plugins\.folders: .*/none cannot be read: No such file"):
        registry.load([str(tmp_path / "none")])
    for name in ("_shared.py", "test_alerts.py", "conftest.py", "alerts.sql", "README"):
        (tmp_path / name).write_text("raise SystemExit")
    assert registry.load([str(tmp_path), str(tmp_path)]) == registry.load()


def installed(folder: Path) -> Path:
    """A folder with eventwriter and a package beside it that declares TICKETS, as pip leaves both."""
    folder.mkdir()
    for package in ("eventwriter", "workers", "schemas"):
        (folder / package).symlink_to(ROOT / package)
    write(folder / "acme", "tickets")
    (folder / "acme" / "__init__.py").touch()
    info = folder / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[eventwriter.streams]\ntickets = acme.tickets:STREAM\n")
    return folder


@contextmanager
def published(world: World, names: list[str]) -> Iterator[list[int]]:
    """Publishes numbers to these streams beside the test; tells at the end how many."""
    count: list[int] = []
    over = threading.Event()

    async def publish(client: Any) -> None:
        number = 0
        while not over.is_set():
            for name in names:
                payload = json.dumps({"n": number, "text": f"the {number}th"}).encode()
                await client.jetstream().publish(f"{name.lower()}.x", payload)
            number += 1
            over.wait(0.02)
        count.append(number)

    thread = threading.Thread(target=world.call, args=(publish,))
    thread.start()
    try:
        yield count
    finally:
        over.set()
        thread.join()
    assert count, "what publishes has failed"


def publish(world: World, name: str, *payloads: bytes) -> None:
    """These to a stream, one after the other."""

    async def send(client: Any) -> None:
        for payload in payloads:
            await client.jetstream().publish(f"{name.lower()}.x", payload)

    world.call(send)


def test_streams_of_others_are_written_exactly_once(world: World, tmp_path: Path) -> None:
    """One of an installed package; one from a folder, and one without code, which come while the service runs and
    change then; while their workers are killed. What a decoder raises is a dead letter, and restarts nothing."""
    world.root = installed(tmp_path / "installed")
    folder, file = tmp_path / "streams", tmp_path / "eventwriter.toml"
    settings = f'[plugins]\nfolders = ["{folder}"]\n'
    file.write_text(settings + NOTES)
    code = write(folder, "alerts")
    world.environment |= {"EVENTWRITER_CONFIG": str(file), "EVENTWRITER_WRITER__ACK_WAIT": "1s"} | only()
    with world.connect() as connection:
        connection.execute("CREATE TABLE notes (n bigint NOT NULL, text text, more jsonb)")
    world.run("streams", "create")
    world.run("schema", "apply")
    code.unlink()
    file.write_text(settings)
    service = world.start()
    wait_until(lambda: world.worker("TICKETS"), "the stream of a package")
    assert not world.worker("ALERTS")
    assert not world.worker("NOTES")

    write(folder, "alerts")
    file.write_text(settings + NOTES)
    wait_until(lambda: world.worker("ALERTS") and world.worker("NOTES"), "the others, which come while it runs")
    names = ["ALERTS", "NOTES", "TICKETS"]
    with published(world, names) as count:
        for name in names * 2:
            written = sum(world.counts(name))
            wait_until(lambda: sum(world.counts(name)) > written, f"{name} is written")  # noqa: B023
            wait_until(lambda: world.worker(name), "its worker").kill()  # noqa: B023
    for name in names:
        wait_until(lambda: sum(world.counts(name)) >= count[0], f"all of {name}\n{world.log}")  # noqa: B023
        assert world.query(f"SELECT n FROM {name} ORDER BY n") == [(n,) for n in range(count[0])]

    # What a decoder raises, and what does not fit.
    before = {name: wait_until(lambda: world.worker(name), "the worker").pid for name in names}  # noqa: B023
    publish(world, "ALERTS", b"no JSON", b'{"n": 1}', b"[]", b'{"n": "x", "text": "x"}', b'{"n": -1, "text": "good"}')
    publish(world, "NOTES", b"no JSON", b'[{"n": -1}, {"n": "x"}, {"text": "x"}, 5]', b'{"n": -2, "text": {"a": 1}}')
    wait_until(lambda: world.counts("ALERTS") == (count[0] + 1, 4), "the dead letters")
    wait_until(lambda: world.counts("NOTES") == (count[0] + 1, 2), "the dead letters")
    letters = (
        "SELECT reason, detail FROM eventwriter.dead_letters WHERE logical_stream = %s ORDER BY sequence, record_index"
    )
    found = world.query(letters, "ALERTS")
    assert [reason for reason, _ in found[:3]] == ["internal"] * 3
    assert "JSONDecodeError" in found[0][1]
    assert "KeyError" in found[1][1]
    assert [reason for reason, _ in world.query(letters, "NOTES")] == [
        "malformed", "bad_value", "missing_field", "malformed", "bad_value"
    ]  # fmt: skip

    # A file that is wrong changes nothing; one that is right, its stream.
    write(folder, "alerts", CODE + "\nnothing_like_this\n")
    wait_until(lambda: "NameError" in world.log, "the complaint")
    assert {name: world.worker(name).pid for name in names} == before  # type: ignore[union-attr]
    write(folder, "alerts", CODE.replace('record["text"]', 'record["text"].upper()'))
    file.write_text(f'{settings}{NOTES}rest = "more"\n')
    for name in ("ALERTS", "NOTES"):
        wait_until(lambda: (at := world.worker(name)) and at.pid != before[name], "another worker")  # noqa: B023
        publish(world, name, b'{"n": -3, "text": "loud", "x": 1}')
    wait_until(lambda: world.query("SELECT text FROM alerts WHERE n = -3") == [("LOUD",)], "the new code")
    wait_until(lambda: world.query("SELECT more FROM notes WHERE n = -3") == [({"x": 1},)], "the new column")
    assert world.worker("TICKETS").pid == before["TICKETS"]  # type: ignore[union-attr]
    (folder / "alerts.py").unlink()
    wait_until(lambda: world.worker("ALERTS") is None, "its end")
    assert not re.search("Traceback", world.log)
    assert world.stop(service) == 0


def test_reasons_may_be_any(world: World, tmp_path: Path) -> None:
    """Long, many, or what no text is: each dead letter has its reason, cut, the board tells all, and no worker ends."""
    write(tmp_path / "streams", "alerts", ODD)
    world.environment |= {"EVENTWRITER_PLUGINS__FOLDERS": str(tmp_path / "streams")} | only()
    world.run("streams", "create")
    world.run("schema", "apply")
    world.execute(f"GRANT INSERT ON alerts TO {WRITER}")
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(EVENTWRITER_HTTP__LISTEN=endpoint.address)
    pid = wait_until(lambda: world.worker("ALERTS"), "the worker").pid
    sent = [("long", n) for n in range(5)] + [("lone", 5), ("nul", 6)] + [("many", n) for n in range(7, 150)]
    publish(world, "ALERTS", *(json.dumps(each).encode() for each in sent))
    told = {"written": 145, "deadlettered": 5}
    wait_until(lambda: told.items() <= endpoint.status()["streams"]["ALERTS"]["messages"].items(), lambda: world.log)
    assert [child.pid for child in [world.worker("ALERTS")] if child] == [pid]
    assert endpoint.status()["streams"]["ALERTS"]["restarts"] == 0
    query = "SELECT reason, count(*) FROM eventwriter.dead_letter_records GROUP BY 1"
    reasons: dict[str, int] = dict(world.query(query))
    assert {"r" * 100, "\ufffd", "a\ufffdb", chr(207) * 100, chr(349) * 100} <= reasons.keys()
    assert reasons["r" * 100] == 5
    assert sum(reasons.values()) == len(sent)
    assert world.stop(service) == 0
