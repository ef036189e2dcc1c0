"""`eventwriter streams new`: the files of a stream of one's own, made from a payload."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import click

from eventwriter import plugins, values
from eventwriter.commands import options
from eventwriter.commands.settings import Settings
from eventwriter.config import declaring
from eventwriter.errors import UsageError
from eventwriter.stream import Message, PgType

EXAMPLE = b'{"time": "2026-01-01T00:00:00Z", "text": "disk is slow", "level": 3}'
"""What the stream is made for where nobody gives a payload."""
_LONGEST = 4096
_CONVERT: Mapping[PgType, str] = {
    "text": "values.text",
    "bigint": "values.integer",
    "double precision": "values.real",
    "boolean": "values.boolean",
    "timestamptz": "values.time",
    "jsonb": "values.dump_json",
}
_CODE = '''"""{name}: {table}.> into {table}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventwriter import values
from eventwriter.stream import Column, Decoded, Message, Reject, Row, Stream


def _maybe(convert: Callable[[Any], Any], value: Any) -> Any:
    """The value as its column takes it, or NULL; raises values.Unfit for one that does not fit."""
    return None if value is None else convert(value)


def _row(record: Any, message: Message) -> Row:
    """The values of a record, in the order of the columns; raises values.Unfit if it cannot become a row."""
    if not isinstance(record, dict):
        raise values.Unfit("malformed", f"{{values.shown(record)}} is not an object")
    rest = dict(record)
    return (
{cells}
        values.dump_json(rest) if rest else None,
    )


def decode(message: Message) -> Decoded:
    """A row, or why there is none, for a JSON object or each object of an array."""
    repairs: list[str] = []
    try:
        found = values.parse_json(message.payload, repairs)
    except values.Unfit as error:
        return Decoded(rejects=[Reject(error.reason, str(error))])
    rows, rejects = [], []
    for index, record in enumerate(found if isinstance(found, list) else [found]):
        try:
            rows.append(_row(record, message))
        except values.Unfit as error:
            rejects.append(Reject(error.reason, str(error), index))
    return Decoded(rows, rejects, repairs)


STREAM = Stream(
    name="{name}",
    subjects=("{table}.>",),
    table="{table}",
    columns=(
{columns}
    ),
    decode=decode,
)
'''
_SQL = """-- With TimescaleDB: hypertable by {time}
CREATE TABLE IF NOT EXISTS "{table}" (
{columns}
);
"""
_TEST = '''"""What payloads of {name} become: python -m pytest test_{table}.py"""

from eventwriter.stream import Decoded, Message

import {table}


def decode(payload: bytes) -> Decoded:
    return {table}.STREAM.decode(Message("{table}.example", payload, 1, 1_700_000_000_000_000_000))


def test_the_sample_becomes_rows() -> None:
    assert decode(SAMPLE) == Decoded({rows}, [], {repairs})


def test_what_is_no_json_is_a_dead_letter() -> None:
    assert [reject.reason for reject in decode(b"{{").rejects] == ["malformed"]


def test_a_bad_record_is_a_dead_letter_and_its_neighbours_are_rows() -> None:
    decoded = decode(b"[" + SAMPLE.strip().removeprefix(b"[").removesuffix(b"]") + b", 5]")
    assert (len(decoded.rows), len(decoded.rejects)) == ({count}, 1)


SAMPLE = {sample}
'''


class _Column(NamedTuple):
    name: str
    type: PgType
    key: str | None
    """Of its value in a record; None for the time of the message, where records have none."""


_REST = _Column("rest", "jsonb", None)
_BOTH: Mapping[frozenset[PgType], PgType] = {
    frozenset(["bigint", "double precision"]): "double precision",
    frozenset(["text", "timestamptz"]): "text",
}
"""What a column is whose values are of both."""


def _columns(records: list[dict[str, Any]]) -> list[_Column]:
    """The columns for these records: the first time comes first, and every row has it."""
    found: dict[str, _Column] = {}
    keys = dict.fromkeys(key for record in records for key in record)
    for key in keys:
        name = re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key).lower()).strip("_")[:50]
        name = f"_{name}" if not name or name[0].isdigit() else name
        while name in found or name == "rest":
            name += "_2"
        types = frozenset(_type_of(record[key]) for record in records if record.get(key) is not None) or frozenset(
            ["text"]
        )
        if types in _BOTH:
            types = frozenset([_BOTH[types]])
        found[name] = _Column(name, next(iter(types)) if len(types) == 1 else "jsonb", key)
    time = next((each for each in found.values() if each.type == "timestamptz"), None)
    time = time or _Column("received_at" if "time" in found else "time", "timestamptz", None)
    return [time, *(each for each in found.values() if each != time)]


def _type_of(value: Any) -> PgType:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int) and values.INT8_MIN <= value <= values.INT8_MAX:
        return "bigint"
    if isinstance(value, int | float):
        return "double precision"
    if isinstance(value, str):
        try:
            values.time_from_text(value)
        except values.Unfit:
            return "text"
        return "timestamptz"
    return "jsonb"


def _cell(column: _Column, *, first: bool) -> str:
    """The expression for the value of a column."""
    received = "values.time_from_nanos(message.time)"
    if column.key is None:
        return received
    if first:
        return f"values.time(time) if (time := rest.pop({column.key!r}, None)) is not None else {received}"
    return f"_maybe({_CONVERT[column.type]}, rest.pop({column.key!r}, None))"


def files(name: str, payload: bytes) -> dict[str, str]:
    """The text of each file by its name; raises UsageError for a payload that holds no JSON objects."""
    try:
        found = values.parse_json(payload, [])
    except values.Unfit as error:
        raise UsageError(f"--sample: {error}") from None
    records = found if isinstance(found, list) else [found]
    if not records or not all(isinstance(record, dict) for record in records):
        raise UsageError("--sample: expected a JSON object, or an array of some")
    if len(payload) > _LONGEST:
        raise UsageError(f"--sample: {len(payload)} bytes, and it goes into the test: expected {_LONGEST} at most")
    table, columns = name.lower(), _columns(records)
    code = _CODE.format(
        name=name,
        table=table,
        cells="\n".join(f"        {_cell(each, first=each is columns[0])}," for each in columns),
        columns="\n".join(f'        Column("{each.name}", "{each.type}"),' for each in (*columns, _REST)),
    )
    known: dict[str, Any] = {"__name__": table}
    exec(compile(code, f"{table}.py", "exec"), known)  # noqa: S102 - what was just written
    rows, _, repairs = known["decode"](Message(f"{table}.example", payload, 1, 1_700_000_000 * 10**9))
    fields = [f'    "{each.name}" {each.type}' for each in (*columns, _REST)]
    fields[0] += " NOT NULL"
    return {
        f"{table}.py": code,
        f"{table}.sql": _SQL.format(table=table, time=columns[0].name, columns=",\n".join(fields)),
        f"test_{table}.py": _TEST.format(
            name=name, table=table, rows=rows, repairs=repairs, count=len(rows), sample=repr(payload)
        ),
    }


def write(folder: Path, texts: Mapping[str, str]) -> Iterator[Path]:
    """Writes the files, the code last; raises UsageError before any if one is there, or cannot be written."""
    if there := [name for name in texts if (folder / name).exists()]:
        raise UsageError(f"{folder / there[0]} exists, and nothing is overwritten: choose another name or folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in sorted(texts, key=lambda name: (name.endswith(".py"), name.startswith("test_") is False)):
            (folder / name).write_text(texts[name], encoding="utf-8")
            yield folder / name
    except OSError as error:
        raise UsageError(f"{error.filename or folder} cannot be written: {error.strerror}") from None


@click.command("new")
@click.argument("name")
@click.option("--sample", type=click.File("rb"), help="A payload in JSON, whose keys become columns; - reads it.")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False),
              help="Where to write; default: the first of plugins.folders, else here.")  # fmt: skip
@click.pass_obj
def command(settings: Settings, name: str, sample: IO[bytes] | None, folder: Path | None) -> None:
    """Write a stream of your own: its decoder, its table, and a test of both with a sample payload.

    NAME in small letters is what files, table and subjects are called. Nothing is overwritten.

    \b
        eventwriter streams new ALERTS
        eventwriter streams new ALERTS --sample alert.json --folder /etc/eventwriter/streams
    """
    name = name.upper()
    if not plugins.NAME.fullmatch(name.lower()):
        raise UsageError(f"{name} is no name of a stream: expected letters, digits and single _, such as ALERTS")
    if name in settings.streams():
        raise UsageError(f"there is a stream {name} already: choose another name")
    folders = declaring.plugin_folders(file=settings.file, environ=os.environ)
    folder = folder or Path(folders[0] if folders else ".")
    for path in write(folder, files(name, sample.read() if sample else EXAMPLE)):
        options.say(f"wrote {path}")
    if str(folder) not in folders:
        options.say(f'add to the settings: [plugins] folders = ["{folder.resolve()}"]')
    options.say(f"then: eventwriter streams create --stream {name}, eventwriter schema apply --only {name}")
