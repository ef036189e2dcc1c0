"""A table that changes while it is written: followed at once, nothing written wrongly, nothing a dead letter for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import TableError
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Stream

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")


def decode(message: Message) -> Decoded:
    """One row for each element of a JSON list."""
    numbers = json.loads(message.payload)
    return Decoded([(n, f"v{n}", f"x{n}", f"y{n}", message.time // 1000) for n in numbers])


COLUMNS = (
    Column("k", "bigint"),
    Column("v", "text"),
    Column("x", "text", core=False),
    Column("y", "text", core=False),
    Column("received_at", "timestamptz", core=False),
)
PLAIN = Stream("NUMBERS", ("numbers.>",), "numbers", COLUMNS, decode)
KEYED = replace(PLAIN, key=("k",))
TABLE = "CREATE TABLE numbers (k bigint, v text, x text, y text, received_at timestamptz)"
KEY = "ALTER TABLE numbers ADD PRIMARY KEY (k)"


def batch(first: int, count: int = 10) -> Batch:
    """Messages with one number each, which is their sequence."""
    messages = [Message("numbers.x", b"[%d]" % n, n, n * 1_000_000) for n in range(first, first + count)]
    return Batch(messages, [message.sequence for message in messages])


Opened = tuple[Sink, list[tuple[str, ...]]]


@pytest.fixture
def opened(connection: psycopg.Connection[Any], database: str) -> Iterator[Callable[..., Opened]]:
    """Opens sinks, and closes them at the end; with each what its plans left out."""
    sinks = []

    def open_one(stream: Stream = PLAIN, **more: Any) -> Opened:
        told: list[tuple[str, ...]] = []
        sink = Sink(
            PostgresConfig(dsn=database, pool_size=1),
            stream,
            "numbers",
            planned=lambda plan: told.append(plan.omitted),
            **more,
        )
        sinks.append(sink)
        sink.open()
        sink.begin(Opening(IDENTITY, (">",)))
        return sink, told

    yield open_one
    for sink in sinks:
        sink.close()


def rows(connection: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """The table's rows in order, without times."""
    found = connection.execute("SELECT to_jsonb(n) - 'received_at' FROM numbers n ORDER BY k").fetchall()
    return [row for (row,) in found]


def whole(*numbers: int) -> list[dict[str, Any]]:
    """What rows with all columns look like."""
    return [{"k": n, "v": f"v{n}", "x": f"x{n}", "y": f"y{n}"} for n in numbers]


@pytest.mark.parametrize("keyed", [False, True], ids=["copy", "upsert"])
@pytest.mark.parametrize("ahead", [False, True], ids=["", "prepared"])
def test_a_column_that_goes_and_comes_is_followed_at_once(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], keyed: bool, ahead: bool
) -> None:
    """The very next batch is written without it, and with it again; also one that was prepared with the plan before."""
    connection.execute(TABLE)
    if keyed:
        connection.execute(KEY)
    sink, told = opened(KEYED if keyed else PLAIN)

    def write(first: int, change: str) -> None:
        following = batch(first)
        if ahead:
            while sink.prepare(following):
                pass
        connection.execute(change)
        outcome = sink.write(following)
        assert (outcome.written, outcome.rows, outcome.deadlettered) == (10, 10, 0)

    write(1, "SELECT 1")
    write(11, "ALTER TABLE numbers DROP COLUMN x")
    write(21, "ALTER TABLE numbers ADD COLUMN x text")
    write(31, "ALTER TABLE numbers DROP COLUMN received_at")
    lacking = [row | {"x": None} for row in whole(*range(1, 21))]
    assert rows(connection) == lacking + whole(*range(21, 41))
    assert told == [(), ("x",), (), ("received_at",)]
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[1,41)}",)


def test_a_column_that_comes_while_a_batch_is_written_is_not_missed(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], database: str
) -> None:
    """The plan is compared in the transaction that writes, behind its lock: there is no moment in between."""
    connection.execute("CREATE TABLE numbers (k bigint PRIMARY KEY, v text, y text)")
    points: list[str] = []

    def at(point: str) -> None:
        points.append(point)
        # Rows whose key is there already are sent to a temporary table first: the table itself is not locked yet.
        if points.count("after_decode") == 3 and point == "after_decode":
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("ALTER TABLE numbers ADD COLUMN x text")

    sink, told = opened(KEYED, at=at)
    sink.write(batch(1))
    again = [message._replace(sequence=message.sequence + 10) for message in batch(1).messages]
    assert sink.write(Batch(again, range(11, 21))).written == 10
    assert points.count("after_decode") > 3
    assert rows(connection) == whole(*range(1, 11))
    assert told == [("x", "received_at"), ("received_at",)]


def test_what_was_prepared_is_prepared_anew(connection: psycopg.Connection[Any], opened: Callable[..., Opened]) -> None:
    """Above all where as many columns of the same types are there: its values would land in the wrong ones."""
    connection.execute("CREATE TABLE numbers (k bigint, v text, x text)")
    sink, _ = opened()
    following = batch(11)
    while sink.prepare(following):
        pass
    connection.execute("ALTER TABLE numbers DROP COLUMN x, ADD COLUMN y text")
    sink.write(batch(1))
    sink.write(following)
    assert rows(connection) == [{"k": n, "v": f"v{n}", "y": f"y{n}"} for n in range(1, 21)]


def test_rows_that_are_staged_get_what_came(connection: psycopg.Connection[Any], opened: Callable[..., Opened]) -> None:
    """The temporary table of before, which lives as long as the session, has not their columns."""
    connection.execute("CREATE TABLE numbers (k bigint PRIMARY KEY, v text, y text)")
    sink, _ = opened(KEYED)
    sink.write(batch(1))
    for first, change in (
        (11, "ADD COLUMN x text"),
        (21, "ADD COLUMN received_at timestamptz"),
        (31, "ADD COLUMN z int"),
    ):
        again = [message._replace(sequence=first + place) for place, message in enumerate(batch(1).messages)]
        assert sink.write(Batch(again, range(first, first + 10))).deadlettered == 0
        connection.execute(f"ALTER TABLE numbers {change}")
    assert rows(connection) == [row | {"z": None} for row in whole(*range(1, 11))]


def test_a_refusal_by_a_key_that_came_is_decided_by_its_new_plan(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """An equal row is there already: no dead letter, though the table refused it when nobody knew of the key."""
    connection.execute("CREATE TABLE numbers (k bigint, v text, x text, y text)")
    sink, _ = opened()
    sink.write(batch(1))
    connection.execute(KEY)
    again = [message._replace(sequence=message.sequence + 10) for message in batch(5).messages]
    assert sink.write(Batch(again, range(15, 25))).deadlettered == 0
    assert rows(connection) == whole(*range(1, 15))


def test_a_core_column_that_goes_stops_the_stream(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """With the line that names it, of which nothing is written; what was not written is written when it is back."""
    connection.execute(TABLE)
    sink, _ = opened()
    sink.write(batch(1))
    connection.execute("ALTER TABLE numbers DROP COLUMN v")
    for meets in (lambda: sink.write(batch(11)), sink.look):
        with pytest.raises(
            TableError, match=r"table numbers lacks the column v of stream NUMBERS: .* ADD COLUMN v text"
        ):
            meets()
    connection.execute("ALTER TABLE numbers ADD COLUMN v text")
    sink.write(batch(11))
    assert rows(connection)[10:] == whole(*range(11, 21))
    assert connection.execute("SELECT count(*) FROM eventwriter.dead_letters").fetchone() == (0,)


@pytest.mark.parametrize("staged", [False, True], ids=["copy", "staged"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("ADD COLUMN tenant text NOT NULL", "tenant text .* NOT NULL"),
        ("ALTER COLUMN k TYPE double precision", "column k .* is double precision"),
        ("ALTER COLUMN v TYPE bytea USING NULL", "column v .* is bytea"),
        ("RENAME TO others", "table numbers .* does not exist"),
    ],
)
def test_another_change_is_no_fault_of_the_rows(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], change: str, words: str, staged: bool
) -> None:
    """Rows that fit before and do not fit now are neither dead letters nor stored as something else."""
    connection.execute(TABLE)
    if staged:
        connection.execute(KEY)
    sink, _ = opened(KEYED if staged else PLAIN)
    sink.write(batch(1))
    connection.execute("TRUNCATE numbers")
    connection.execute(f"ALTER TABLE numbers {change}")
    with pytest.raises(TableError, match=words):
        sink.write(batch(11))
    assert connection.execute("SELECT count(*) FROM eventwriter.dead_letters").fetchone() == (0,)
    assert connection.execute("SELECT done::text FROM eventwriter.ledger").fetchone() == ("{[1,11)}",)


def test_what_looks_like_an_outage_is_looked_at(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """A value of another width makes the server speak of the protocol."""
    connection.execute(TABLE)
    sink, _ = opened()
    connection.execute("ALTER TABLE numbers ALTER COLUMN v TYPE uuid USING NULL")
    with pytest.raises(TableError, match="column v of table numbers is uuid"):
        sink.write(batch(1))


def test_another_width_is_written_as_it_is_now(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """A type that fits in another form, with a row that is refused for itself, and a key that came meanwhile."""
    connection.execute(TABLE)
    sink, _ = opened()
    sink.write(batch(1))
    connection.execute("ALTER TABLE numbers ALTER COLUMN k TYPE integer, ALTER COLUMN x TYPE varchar")
    large = Message("numbers.x", b"[3000000000]", 21, 21_000_000)
    messages = [*batch(11).messages, large]
    outcome = sink.write(Batch(messages, [message.sequence for message in messages]))
    assert (outcome.written, outcome.deadlettered) == (10, 1)
    connection.execute(KEY)
    outcome = sink.write(Batch([*batch(22).messages], range(22, 32)))
    assert outcome.written == 10
    assert rows(connection) == whole(*range(1, 21), *range(22, 32))
    assert connection.execute("SELECT sequence FROM eventwriter.dead_letters").fetchall() == [(21,)]


def test_an_idle_worker_sees_what_changed(connection: psycopg.Connection[Any], opened: Callable[..., Opened]) -> None:
    """Its look reads the plan again if there is another, and only then."""
    connection.execute(TABLE)
    sink, told = opened()
    sink.look()
    assert len(told) == 1
    for change, omitted in (
        ("ALTER TABLE numbers DROP COLUMN x", ("x",)),
        ("ALTER TABLE numbers ADD COLUMN x text", ()),
        ("DROP TABLE numbers; CREATE TABLE numbers (k bigint, v text)", ("x", "y", "received_at")),
    ):
        connection.execute(change)
        before = len(told)
        sink.look()
        assert told[before:] == [omitted]
        connection.execute("ANALYZE numbers")
        sink.look()
        assert len(told) == before + 1


@pytest.mark.parametrize(
    "change",
    [
        KEY,
        "CREATE UNIQUE INDEX ON numbers (v, x)",
        "ALTER TABLE numbers ALTER COLUMN k TYPE integer",
        "ALTER TABLE numbers ALTER COLUMN x TYPE jsonb USING NULL",
        "ALTER TABLE numbers RENAME COLUMN x TO xx",
        "ALTER TABLE numbers ADD COLUMN z int NOT NULL DEFAULT 1",
        "ALTER TABLE numbers ALTER COLUMN y SET NOT NULL",
    ],
)
def test_an_idle_worker_plans_anew(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], change: str
) -> None:
    """For another key, type, name or constraint; if rows do not fit any more, it is told before any is there."""
    connection.execute(TABLE)
    sink, told = opened()
    connection.execute(change)
    if "jsonb" in change:
        with pytest.raises(TableError, match="column x of table numbers is jsonb"):
            sink.look()
        return
    sink.look()
    assert told == [(), ("x",) if "RENAME" in change else ()]
    sink.look()
    assert len(told) == 2
    assert sink.write(batch(1)).rows == 10


@pytest.mark.parametrize("table", [TABLE, "CREATE TABLE numbers (k bigint PRIMARY KEY, v text)"], ids=["there", "not"])
def test_what_is_left_out_on_purpose(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], table: str
) -> None:
    """Is not written where it is there, and not missed where it is not, by COPY and with a key, whatever changes."""
    connection.execute(table)
    sink, told = opened(KEYED.leaving_out(["x", "received_at"]))
    sink.write(batch(1))
    connection.execute("ALTER TABLE numbers DROP COLUMN IF EXISTS x, ADD COLUMN IF NOT EXISTS y text")
    sink.write(batch(11))
    connection.execute("ALTER TABLE numbers ADD COLUMN x text")
    sink.write(batch(21))
    found = connection.execute("SELECT k, x, y FROM numbers ORDER BY k").fetchall()
    missing = table != TABLE
    assert found == [(n, None, None if missing and n <= 10 else f"y{n}") for n in range(1, 31)]
    assert told == [("y",) if missing else (), (), ()]


def test_a_column_that_is_left_out_must_not_have_to_be_filled(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """NOT NULL without a default stops the stream with that line."""
    connection.execute("CREATE TABLE numbers (k bigint, v text, x text NOT NULL)")
    with pytest.raises(TableError, match="column x text of table numbers is NOT NULL without a default"):
        opened(PLAIN.leaving_out(["x"]))


def test_a_key_counts_once_its_index_is_valid(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened]
) -> None:
    """One that is being built, or could not be, is nothing that ON CONFLICT may name."""
    connection.execute(TABLE)
    connection.execute("INSERT INTO numbers (k) VALUES (0), (0)")
    connection.execute("ALTER TABLE numbers ADD CHECK (k NOT IN (3, 5))")
    sink, _ = opened(KEYED)
    with pytest.raises(psycopg.errors.UniqueViolation):
        connection.execute("CREATE UNIQUE INDEX CONCURRENTLY key ON numbers (k)")
    outcome = sink.write(batch(1))  # row by row, as refusals are found
    assert (outcome.written, outcome.rejects) == (8, {"refused": 2})
    connection.execute("DELETE FROM numbers WHERE k = 0")
    connection.execute("REINDEX INDEX CONCURRENTLY key")
    sink.look()
    again = [message._replace(sequence=message.sequence + 10) for message in batch(1).messages]
    outcome = sink.write(Batch(again, range(11, 21)))
    assert (outcome.written, outcome.rejects) == (8, {"refused": 2})
    assert rows(connection) == whole(1, 2, 4, *range(6, 11))


GRANTS = {
    "copy": [("INSERT", "k"), ("INSERT", "x")],
    "upsert": [("INSERT", "v"), ("SELECT", "k"), ("SELECT", "received_at"), ("UPDATE", "y")],
}


@pytest.mark.parametrize("how", GRANTS)
def test_a_grant_that_goes_and_comes(connection: psycopg.Connection[Any], database: str, how: str) -> None:
    """Of the table or of a column: told with the grant to give, by the idle worker too, and nothing is lost."""
    connection.execute(TABLE)
    if how == "upsert":
        connection.execute(KEY)
    role = f"{how}_role"
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        connection.execute(f"CREATE ROLE {role} LOGIN")
    everything = f"INSERT, SELECT, UPDATE ON numbers TO {role}"
    connection.execute(
        f"GRANT USAGE ON SCHEMA eventwriter TO {role}; GRANT ALL ON ALL TABLES IN SCHEMA eventwriter TO {role}; "
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA eventwriter TO {role}; GRANT {everything}"
    )
    dsn = psycopg.conninfo.make_conninfo(database, user=role)
    sink = Sink(PostgresConfig(dsn=dsn, pool_size=1), KEYED if how == "upsert" else PLAIN, "numbers")
    sink.open()
    sink.begin(Opening(IDENTITY, (">",)))
    first = 1
    for privilege, column in GRANTS[how]:
        others = ", ".join({"k", "v", "x", "y", "received_at"} - {column})
        for left in ("", f"; GRANT {privilege} ({others}) ON numbers TO {role}"):
            sink.write(batch(first))
            connection.execute(f"REVOKE {privilege} ON numbers FROM {role}{left}")
            said = f"role {role} lacks {privilege} on table numbers: GRANT {privilege} ON .*numbers.* TO {role}"
            for meets in (lambda first=first: sink.write(batch(first + 10)), sink.look):
                with pytest.raises(TableError, match=said):
                    meets()
            connection.execute(f"GRANT {everything}")
            first += 10
    sink.write(batch(first))
    sink.close()
    assert rows(connection) == whole(*range(1, first + 10))
    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("keyed", [False, True], ids=["copy", "upsert"])
def test_partitions_that_come_and_go(
    connection: psycopg.Connection[Any], opened: Callable[..., Opened], keyed: bool
) -> None:
    """A row for which there is none is a dead letter, its neighbours are written; with one that came it is, too."""
    connection.execute(TABLE + " PARTITION BY RANGE (k)")
    connection.execute("CREATE TABLE low PARTITION OF numbers FOR VALUES FROM (1) TO (16)")
    if keyed:
        connection.execute(KEY)
    sink, told = opened(KEYED if keyed else PLAIN)
    sink.write(batch(1))
    outcome = sink.write(batch(11))
    assert (outcome.written, outcome.rejects) == (5, {"refused": 5})
    connection.execute("CREATE TABLE high PARTITION OF numbers FOR VALUES FROM (16) TO (1000)")
    assert sink.write(batch(21)).written == 10
    connection.execute("ALTER TABLE numbers DETACH PARTITION low")
    assert sink.write(batch(31)).written == 10
    assert rows(connection) == whole(*range(21, 41))
    assert told == [()]


TYPED = Stream(
    "NUMBERS",
    ("numbers.>",),
    "numbers",
    (Column("k", "bigint"), Column("n", "integer"), Column("d", "double precision"), Column("j", "jsonb")),
    lambda message: Decoded([(message.sequence, 9, 2.5, b'{"a": 1}')]),
)


@pytest.mark.parametrize("how", ["copy", "prepared", "staged", "row by row"])
def test_a_type_that_changes(connection: psycopg.Connection[Any], opened: Callable[..., Opened], how: str) -> None:
    """No value is ever read as one of another type: it is stored as what it is, or nothing is stored at all."""
    connection.execute("CREATE TABLE numbers (k bigint PRIMARY KEY, n integer, d double precision, j jsonb)")
    connection.execute("ALTER TABLE numbers ADD CHECK (k::text !~ '^100...$')")
    sink, _ = opened(replace(TYPED, key=("k",)) if how == "staged" else TYPED)
    first = 1
    for column, before, after, fits in (
        ("n", "integer", "real", False),
        ("n", "integer", "bigint", True),
        ("n", "integer", "smallint", True),
        ("n", "integer", "text USING '?'", False),
        ("n", "integer", "oid", False),
        ("d", "double precision", "bigint", False),
        ("d", "double precision", "real", True),
        ("d", "double precision", "numeric", False),
        ("j", "jsonb", "text", True),
        ("j", "jsonb", "json", True),
        ("j", "jsonb", "bytea USING NULL", False),
        ("k", "bigint", "timestamptz USING now()", False),
    ):
        written = [message._replace(payload=b"") for message in batch(first, 3).messages]
        if how == "staged":  # a key that is there already
            connection.execute("INSERT INTO numbers (k) SELECT %s", [first])
        if how == "row by row":
            written.append(written[-1]._replace(sequence=100_000 + first))
        following = Batch(written, [message.sequence for message in written])
        if how == "prepared":
            while sink.prepare(following):
                pass
        connection.execute(f"ALTER TABLE numbers ALTER COLUMN {column} TYPE {after}")
        if fits:
            outcome = sink.write(following)
            assert (outcome.written, outcome.deadlettered) == (3, int(how == "row by row")), after
            told = connection.execute("SELECT n, d, j::jsonb FROM numbers WHERE k = %s", [first]).fetchone()
            assert told == (9, 2.5, {"a": 1}), after
        else:
            with pytest.raises(TableError) as caught:
                sink.write(following)
            kind = after.split()[0].replace("timestamptz", "timestamp with time zone")
            assert f"column {column} of table numbers is {kind}" in str(caught.value)
        connection.execute("TRUNCATE numbers")
        connection.execute(f"ALTER TABLE numbers ALTER COLUMN {column} TYPE {before} USING NULL")
        first += 10
