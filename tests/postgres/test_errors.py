"""What each kind of PostgreSQL error means: a dead letter for its row, a batch held, or a stream that stops."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psutil
import psycopg
import pytest

from eventwriter.config.loading import PostgresConfig
from eventwriter.errors import (
    AuthenticationError,
    ConfigurationError,
    OversizedError,
    SchemaError,
    UnavailableError,
)
from eventwriter.postgres import errors, policy
from eventwriter.postgres.busy import BusyConnection
from eventwriter.postgres.ledger import Identity
from eventwriter.postgres.ledgers import Opening
from eventwriter.postgres.sink import Sink
from eventwriter.stream import Batch, Column, Decoded, Message, Reject, Stream
from fix_proxy import last_words
from fix_service import World, only, wait_until
from proxy import Proxy

IDENTITY = Identity("NUMBERS", "numbers", datetime(2026, 1, 1, tzinfo=UTC), "writer")
BAD = 13

DOUBTFUL = ["XX000", "0A000", "55000", "21000", "38000", "20000", "27000", "HV000", "MY001", "U0000", "99999", "TS001"]
"""PostgreSQL's own, those of functions in other languages, and such as it has no meaning for."""
ABOUT_THE_ROW = [
    "22000", "22001", "22003", "22007", "22008", "22012", "22021", "22P02", "22P05", "23502", "23503", "23505", "23514",
    "23P01", "44000", "54000", "54001", "P0001", "P0002", "P0004", *DOUBTFUL,
]  # fmt: skip
PASSING = [
    "08000", "08003", "08006", "40001", "40P01", "53000", "53100", "53300", "55006", "55P03", "57000", "57P01", "57P02",
    "57P03", "57P05", "58000", "58030", "25006", "26000", "XX001", "53200", "53400", "57014", "25P04",
]  # fmt: skip
LESS_AT_ONCE = ["53200", "53400", "57014", "25P04"]
NEVER_BY_ITSELF = ["42501", "42703", "42P01", "42804", "42883", "0A001", "3F000"]


def decode(message: Message) -> Decoded:
    """A row with the message's number."""
    if message.payload == b"no number":
        return Decoded(rejects=[Reject("malformed", "no number")])
    return Decoded([(int(message.payload),)])


STREAM = Stream("NUMBERS", ("numbers.>",), "numbers", (Column("n", "bigint"),), decode)


def batch(count: int, start: int = 1) -> Batch:
    """Messages whose numbers are their sequences."""
    messages = [Message("numbers.x", str(n).encode(), n, n) for n in range(start, start + count)]
    return Batch(messages, [message.sequence for message in messages])


@pytest.fixture
def connection(connection: psycopg.Connection[Any]) -> psycopg.Connection[Any]:
    """A table whose trigger raises what the table ``trouble`` says, for one number or for all."""
    connection.execute("CREATE TABLE numbers (n bigint)")
    connection.execute("CREATE TABLE trouble (code text)")
    connection.execute(
        "CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE c text; BEGIN "
        f"IF NEW.n = {BAD} THEN SELECT code INTO c FROM trouble; "
        "IF FOUND THEN RAISE EXCEPTION 'trouble' USING ERRCODE = c; END IF; END IF; RETURN NEW; END $$"
    )
    connection.execute("CREATE TRIGGER t BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION trouble()")
    return connection


def open_sink(dsn: str) -> Sink:
    """A worker's sink, begun."""
    sink = Sink(PostgresConfig(dsn=dsn), STREAM, "numbers")
    sink.open()
    sink.begin(Opening(IDENTITY, (">",)))
    return sink


@pytest.fixture
def sink(connection: Any, database: str) -> Iterator[Sink]:
    """A sink for the table of the test."""
    sink = open_sink(database)
    yield sink
    sink.close()


def numbers(connection: Any) -> list[int]:
    """What is in the table."""
    return [row[0] for row in connection.execute("SELECT n FROM numbers ORDER BY n")]


def letters(connection: Any) -> list[tuple[int, str]]:
    """Sequence and SQLSTATE of the dead letters."""
    rows: list[tuple[int, str]] = connection.execute(
        "SELECT sequence, sqlstate FROM eventwriter.dead_letters ORDER BY 1"
    ).fetchall()
    return rows


def test_what_is_about_the_row_is_a_dead_letter(connection: Any, sink: Sink) -> None:
    """Classes 22, 23, 44, 54 and P0, and what is not said of all: that row alone; its neighbours are written."""
    for number, code in enumerate(ABOUT_THE_ROW):
        connection.execute("TRUNCATE trouble, numbers")
        connection.execute("INSERT INTO trouble VALUES (%s)", [code])
        start = 1 + number * 20
        messages = [m._replace(sequence=start + i) for i, m in enumerate(batch(20).messages)]
        sink.write(Batch(messages, [m.sequence for m in messages]))
        assert numbers(connection) == [n for n in range(1, 21) if n != BAD], code
        assert letters(connection)[-1] == (start + BAD - 1, code)
    assert len(letters(connection)) == len(ABOUT_THE_ROW)


def test_what_passes_is_tried_again(connection: Any, sink: Sink) -> None:
    """Connection, resources, operator, locks, deadlock: nothing is written, nothing is a dead letter, and then all."""
    for number, code in enumerate(PASSING):
        connection.execute("TRUNCATE trouble, numbers")
        connection.execute("INSERT INTO trouble VALUES (%s)", [code])
        start = 1 + number * 20
        messages = [m._replace(sequence=start + i) for i, m in enumerate(batch(20).messages)]
        again = Batch(messages, [m.sequence for m in messages])
        for _ in range(2):
            with pytest.raises(UnavailableError, match=f"trouble .{code}."):
                sink.write(again)
        assert numbers(connection) == [], code
        connection.execute("TRUNCATE trouble")
        assert sink.write(again).written == 20
        assert numbers(connection) == list(range(1, 21)), code
    assert letters(connection) == []


def test_what_there_may_be_too_much_of_is_told_from_other_trouble(connection: Any, sink: Sink) -> None:
    """Out of locks, limits, time: nothing is written, and half of it may be; alone it is as above."""
    for code in PASSING:
        connection.execute("TRUNCATE trouble")
        connection.execute("INSERT INTO trouble VALUES (%s)", [code])
        with pytest.raises(UnavailableError) as caught:
            sink.write(batch(20))
        assert isinstance(caught.value, OversizedError) is (code in LESS_AT_ONCE), code


def test_what_does_not_pass_by_itself_stops_the_stream(connection: Any, sink: Sink) -> None:
    """Schema, permissions, configured limits: an error for a person, and no dead letter that a person must repair."""
    for code in NEVER_BY_ITSELF:
        connection.execute("TRUNCATE trouble, numbers")
        connection.execute("INSERT INTO trouble VALUES (%s)", [code])
        with pytest.raises(SchemaError, match=f"trouble .{code}."):
            sink.write(batch(20))
        assert numbers(connection) == [], code
    connection.execute("TRUNCATE trouble")
    assert sink.write(batch(20)).written == 20
    assert letters(connection) == []


@pytest.mark.parametrize(
    ("before", "code"),
    [
        pytest.param(before, code, marks=[] if before or code == DOUBTFUL[0] else [pytest.mark.long])
        for code in DOUBTFUL
        for before in ([], [7])
    ],
)
def test_a_row_alone_is_told_from_its_table(connection: Any, sink: Sink, before: list[int], code: str) -> None:
    """With no neighbour in its batch: another row would be taken, so this one is to blame; or none is, and it waits."""
    for number in before:
        sink.write(batch(1, number))
    connection.execute("INSERT INTO trouble VALUES (%s)", [code])
    connection.execute(
        "CREATE FUNCTION always() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'always' USING ERRCODE = '{code}'; END $$"
    )
    connection.execute("CREATE TRIGGER z AFTER INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION always()")
    for work in (batch(1, BAD), batch(5, 20)):
        with pytest.raises((UnavailableError, SchemaError), match=f"(trouble|always) .{code}."):
            sink.write(work)
    assert (numbers(connection), letters(connection)) == (before, [])
    connection.execute("DROP TRIGGER z ON numbers")
    assert sink.write(batch(1, BAD)).deadlettered == 1
    assert sink.write(batch(5, 20)).written == 5
    assert (numbers(connection), letters(connection)) == ([*before, *range(20, 25)], [(BAD, code)])


def test_what_postgresql_adds_is_told(connection: Any, sink: Sink) -> None:
    """DETAIL and HINT, one line; not the row, which is kept anyway and may hold what nobody is to see."""
    connection.execute(
        "CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN CASE NEW.n "
        "WHEN 1 THEN RAISE 'one' USING ERRCODE = 'XX000', DETAIL = E'that\nrow', HINT = 'try two'; "
        "WHEN 2 THEN RAISE 'two' USING ERRCODE = 'P0001', HINT = 'try three'; ELSE RETURN NEW; END CASE; END $$"
    )
    connection.execute("CREATE TRIGGER u BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION tell()")
    connection.execute("ALTER TABLE numbers ADD CHECK (n <> 3)")
    sink.write(batch(1, 2))
    sink.write(batch(3, 3))
    sink.write(batch(1, 1))
    details = [row[0] for row in connection.execute("SELECT detail FROM eventwriter.dead_letters ORDER BY sequence")]
    assert details == [
        "one: that row, hint: try two",
        "two, hint: try three",
        'new row for relation "numbers" violates check constraint "numbers_n_check"',
    ]
    connection.execute(
        "CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'stop' USING ERRCODE = '42501', DETAIL = 'not you', HINT = 'ask'; END $$"
    )
    connection.execute("CREATE TRIGGER v BEFORE INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION stop()")
    with pytest.raises(SchemaError, match=r"stop .42501.: not you, hint: ask: `eventwriter schema check`"):
        sink.write(batch(1, 30))


@pytest.mark.parametrize(
    "code", ["40001", "08006", *(pytest.param(code, marks=pytest.mark.long) for code in ("57P03", "40P01", "55P03"))]
)
@pytest.mark.parametrize("alone", [False, True], ids=["among others", "alone"])
def test_what_a_trigger_raises_may_mean_its_row(connection: Any, sink: Sink, code: str, alone: bool) -> None:
    """Though it would pass if PostgreSQL said it: after some tries, when another row would get in."""
    connection.execute("INSERT INTO trouble VALUES (%s)", [code])
    work = batch(1, BAD) if alone else batch(20)
    for _ in range(policy._TRIES - 1):
        with pytest.raises(UnavailableError, match=f"trouble .{code}."):
            sink.write(work)
    assert (numbers(connection), letters(connection)) == ([], [])
    assert sink.write(work).deadlettered == 1
    assert numbers(connection) == ([] if alone else [n for n in range(1, 21) if n != BAD])
    assert letters(connection) == [(BAD, code)]


def test_what_a_trigger_raises_for_all_is_no_matter_of_rows(connection: Any, sink: Sink) -> None:
    """Nobody gets in, nor would anybody: it is tried again, for as long as it takes."""
    connection.execute(
        "CREATE FUNCTION always() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'always' USING ERRCODE = '40001'; END $$; "
        "CREATE TRIGGER z AFTER INSERT ON numbers FOR EACH ROW EXECUTE FUNCTION always()"
    )
    for _ in range(2 * policy._TRIES + 1):
        with pytest.raises(UnavailableError, match=r"always .40001."):
            sink.write(batch(5))
    connection.execute("DROP TRIGGER z ON numbers")
    assert sink.write(batch(5)).written == 5
    assert letters(connection) == []


@pytest.mark.parametrize("key", [(), ("n",)], ids=["append", "upsert"])
def test_a_row_that_a_policy_forbids(connection: Any, database: str, key: tuple[str, ...]) -> None:
    """Row security refuses it with the SQLSTATE of a missing privilege: a dead letter, unless no row is allowed."""
    role = f"writer_{connection.info.dbname}_{len(key)}"
    connection.execute(
        f"DROP TRIGGER t ON numbers; ALTER TABLE numbers ADD PRIMARY KEY (n), ADD v text; CREATE ROLE {role} LOGIN; "
        f"GRANT ALL ON numbers TO {role}; GRANT USAGE ON SCHEMA eventwriter TO {role}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA eventwriter TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA eventwriter "
        f"TO {role}; ALTER TABLE numbers ENABLE ROW LEVEL SECURITY; "
        f"CREATE POLICY readable ON numbers FOR SELECT USING (true); "
        f"CREATE POLICY changeable ON numbers FOR UPDATE USING (true); "
        f"CREATE POLICY allowed ON numbers FOR INSERT WITH CHECK (n % 10 <> 3)"
    )
    dsn = psycopg.conninfo.make_conninfo(database, user=role)
    columns = (*STREAM.columns, Column("v", "text"))
    stream = replace(STREAM, key=key, columns=columns, decode=lambda message: Decoded([(int(message.payload), "v")]))
    sink = Sink(PostgresConfig(dsn=dsn), stream, "numbers")
    sink.open()
    sink.begin(Opening(IDENTITY, (">",)))
    assert sink.write(batch(25)).deadlettered == 3
    assert letters(connection) == [(3, "42501"), (13, "42501"), (23, "42501")]
    connection.execute("DROP POLICY allowed ON numbers")
    with pytest.raises(SchemaError, match="row-level security"):
        sink.write(batch(5, 40))
    connection.execute("CREATE POLICY allowed ON numbers FOR INSERT WITH CHECK (true)")
    assert sink.write(batch(5, 40)).written == 5
    sink.close()
    connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


LAST_WORDS = [
    *itertools.product(
        ["FATAL"],
        [
            *ABOUT_THE_ROW,
            *(code for code in PASSING if code != "25P04"),
            *NEVER_BY_ITSELF,
            "42710",
            "28P01",
            "3D000",
            "99999",
        ],
    ),
    *itertools.product(["PANIC", "ERROR"], ["22003", "23505", "P0001", "42710", "42501", "28000", "53400"]),
]
"""Severity and SQLSTATE of what a session says before it ends; after an ERROR it should not, but may."""


LEDGER = b"{["
"""In its update, which the driver prepares after some times and then names only: the sequences."""


STATEMENTS = (b'"numbers"', b"PGCOPY", LEDGER, b"dead_letter_records", b"COMMIT")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        *((statement, LAST_WORDS[place :: len(STATEMENTS)]) for place, statement in enumerate(STATEMENTS)),
        *(pytest.param(statement, LAST_WORDS, marks=pytest.mark.long) for statement in STATEMENTS),
    ],
)
def test_what_ends_the_session_is_an_outage(
    connection: Any, database: str, statement: bytes, words: list[tuple[str, str]]
) -> None:
    """Whatever it says and whenever: nothing is written, nothing is a dead letter, and with the next session all is."""
    with Proxy(int(str(psycopg.conninfo.conninfo_to_dict(database)["port"]))) as proxy:
        sink = open_sink(psycopg.conninfo.make_conninfo(database, port=proxy.port))
        for number, (severity, code) in enumerate(words):
            start = 1 + number * 20
            messages = [m._replace(sequence=start + i) for i, m in enumerate(batch(20).messages)]
            messages[7] = messages[7]._replace(payload=b"no number")
            work = Batch(messages, [m.sequence for m in messages])
            proxy.lose(statement, "before", last_words(severity, code))
            with pytest.raises(UnavailableError, match=f"ended the session: last words .{code}."):
                sink.write(work)
            assert len(numbers(connection)) == number * 19, (severity, code)
            assert sink.write(work).written == 19
        sink.close()
    assert len(numbers(connection)) == len(words) * 19
    assert [code for _, code in letters(connection)] == [None] * len(words)


def test_row_by_row_too(connection: Any, database: str) -> None:
    """The way that finds refused rows takes the end of a session for an outage as well."""
    with Proxy(int(str(psycopg.conninfo.conninfo_to_dict(database)["port"]))) as proxy:
        sink = open_sink(psycopg.conninfo.make_conninfo(database, port=proxy.port))
        connection.execute("ALTER TABLE numbers ADD CHECK (n % 10 <> 3)")
        for number, statement in enumerate([b"eventwriter_stage", b"insert_each", LEDGER, b"COMMIT"]):
            work = batch(20, 1 + number * 20)
            proxy.lose(statement, "before", last_words("FATAL", "22003"))
            with pytest.raises(UnavailableError, match="ended the session"):
                sink.write(work)
            outcome = sink.write(work)
            assert (outcome.written, outcome.deadlettered) == (18, 2)
        sink.close()
    assert [code for _, code in letters(connection)] == ["23514"] * 8


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, UnavailableError) for code in ("42710", "42501", "22023", "53300", "57P03", "0A000", "XX000")),
        ("28P01", AuthenticationError), ("28000", AuthenticationError), ("3D000", ConfigurationError),
    ],
)  # fmt: skip
def test_what_ends_the_first_session(connection: Any, database: str, code: str, expected: type[Exception]) -> None:
    """A worker that begins is told of credentials and databases, as a pooler does it; all else may pass."""
    with Proxy(int(str(psycopg.conninfo.conninfo_to_dict(database)["port"]))) as proxy:
        sink = Sink(PostgresConfig(dsn=psycopg.conninfo.make_conninfo(database, port=proxy.port)), STREAM, "numbers")
        proxy.lose(b"to_regclass", "before", last_words("FATAL", code))
        with pytest.raises(expected, match="last words"):
            sink.open()


def test_what_the_driver_says_without_the_server_is_no_outage(connection: Any, sink: Sink) -> None:
    """A value that has no form for PostgreSQL is refused; the session lives."""
    with pytest.raises(errors.RowRefused, match="cannot contain NUL"), sink.session.connection() as ours:
        ours.execute("SELECT %s::text", ["a\0b"])
    assert sink.write(batch(3)).written == 3
    with sink.session.connection() as ours:
        pass
    ours.close()
    with pytest.raises(UnavailableError, match="the connection is closed"), errors.translated():
        ours.execute("SELECT 1")


@pytest.mark.parametrize("hosts", ["host=127.0.0.1 port=1", "host=/nowhere", "host=127.0.0.1,127.0.0.1 port=1,2"])
def test_nobody_is_asked_whether_the_server_runs(hosts: str) -> None:
    """As libpq asks in its second line: the reason is told, and what follows it is not put behind a question."""
    with pytest.raises(psycopg.OperationalError, match="Is the server running") as caught:
        BusyConnection.connect(f"{hosts} dbname=none user=nobody").close()
    said = str(errors.classify(caught.value))
    assert said.startswith("PostgreSQL cannot be reached: connection to server ")
    assert said.endswith(("Connection refused", "No such file or directory"))
    assert "?" not in said


@pytest.mark.parametrize("code", ["42501", pytest.param("0A000", marks=pytest.mark.long)])
def test_only_the_stream_with_the_wrong_table_stops(world: World, code: str) -> None:
    """Its worker exits 78 and is not started again; another stream is written, and nothing is acknowledged wrongly."""
    world.execute(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION 'not for you' USING ERRCODE = '{code}'; END $$; "
        "CREATE TRIGGER no BEFORE INSERT ON logs FOR EACH ROW EXECUTE FUNCTION no()"
    )
    world.traffic(["LOGS", "EVENTS"], count=50, broken=0)
    service = world.start(**only("LOGS", "EVENTS"))
    wait_until(lambda: world.counts("EVENTS")[0] == 50, "the events")
    wait_until(lambda: "parked: exit status 78" in world.log, "the parked stream")
    assert f"not for you ({code})" in world.log
    assert world.counts("LOGS") == (0, 0)
    world.execute("DROP TRIGGER no ON logs")
    assert world.stop(service) == 0
    world.start(**only("LOGS", "EVENTS"))
    world.wait_settled()
    world.assert_exact()


@pytest.mark.parametrize(
    "context",
    [
        "COPY numbers, line 13",
        "COPY numbers2, Zeile 13, Spalte n",
        "PL/pgSQL-Funktion f() Zeile 5 bei RAISE\nCOPY numbers, Zeile 13",
        "функция PL/pgSQL f(), строка 5, оператор RAISE\nCOPY numbers, строка 13, столбец n",
        "COPY numbers, línea 13, columna n",
        "COPY numbers, 行 13",
    ],
)
def test_the_line_of_a_copy_in_any_language(context: str) -> None:
    """It costs one attempt instead of some; where the word is not understood, the rows are tried."""
    found = errors._COPY_LINE.search(context)
    assert found is not None
    assert found.group(1) == "13"


def cost(connection: Any, sink: Sink, work: Batch) -> float:
    """Seconds of CPU that a batch takes, here and in PostgreSQL: what else the machine does changes little of it."""
    sessions = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'"
    working = [psutil.Process(), *(psutil.Process(pid) for (pid,) in connection.execute(sessions))]
    before = [process.cpu_times() for process in working]
    sink.write(work)
    pairs = zip(before, (process.cpu_times() for process in working), strict=True)
    return sum(now.user + now.system - then.user - then.system for then, now in pairs)


def test_one_bad_row_of_5000_costs_at_most_three_clean_batches(connection: Any, sink: Sink) -> None:
    """PostgreSQL names the line, so the second attempt leaves it out."""
    connection.execute("INSERT INTO trouble VALUES ('22003')")
    sink.write(batch(5000, 100_000))
    clean = dirty = 0.0
    for place in range(12):  # by turns, for one is hardly more than what times of processes are told in
        clean += cost(connection, sink, batch(5000, 200_000 + 5000 * place))
        messages = list(batch(5000, 300_000 + 5000 * place).messages)
        messages[place * 400] = messages[place * 400]._replace(payload=str(BAD).encode())
        dirty += cost(connection, sink, Batch(messages, [m.sequence for m in messages]))
    ratio = dirty / clean
    print(f"one bad row of 5,000: {ratio:.2f} times a clean batch ({clean * 1000 / 12:.0f} ms of CPU)")
    assert len(letters(connection)) == 12
    assert ratio < 3 * 1.5  # shared caches


def test_500_bad_rows_of_5000_cost_a_bounded_number_of_round_trips(connection: Any, database: str) -> None:
    """PostgreSQL isolates them by itself: no round trip for each."""
    connection.execute("ALTER TABLE numbers ADD CHECK (n % 10 <> 3)")
    port = int(str(psycopg.conninfo.conninfo_to_dict(database)["port"]))
    with Proxy(port) as proxy:
        sink = open_sink(psycopg.conninfo.make_conninfo(database, port=proxy.port))
        sink.write(batch(2))
        before = proxy.sent
        outcome = sink.write(batch(5000, 10_000))
        pieces = proxy.sent - before
        sink.close()
    print(f"500 bad rows of 5,000: at most {pieces} round trips")
    assert (outcome.written, outcome.deadlettered) == (4500, 500)
    assert len(letters(connection)) == 500
    assert pieces < 60


def test_no_statement_tries_more_than_a_thousand_rows(connection: Any, sink: Sink) -> None:
    """Each has a time limit, and each row that is refused takes a while, however many there are in a message."""
    connection.execute(
        "CREATE FUNCTION refused() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE check_violation USING MESSAGE = statement_timestamp(); END $$"
    )
    connection.execute("ALTER TABLE numbers ADD CHECK (n % 10 = 3 OR refused())")
    outcome = sink.write(batch(2_503))
    assert (outcome.written, outcome.deadlettered) == (251, 2_252)
    refused = "SELECT count(*) FROM eventwriter.dead_letters GROUP BY detail ORDER BY min(sequence)"
    assert connection.execute(refused).fetchall() == [(1,), (900,), (900,), (451,)]  # the first of all ended a COPY
    assert numbers(connection) == list(range(3, 2_504, 10))


TABLE_OF_OURS = "eventwriter.ledger", "eventwriter.dead_letter_messages", "eventwriter.dead_letter_records"


@pytest.mark.parametrize("way", ["CHECK", "trigger", "column"])
@pytest.mark.parametrize("table", TABLE_OF_OURS)
def test_what_our_own_tables_refuse_is_about_no_row(connection: Any, sink: Sink, table: str, way: str) -> None:
    """It is told in one line, with what to do and nothing of the message; when it is gone all is written."""
    what = {
        "CHECK": f"ALTER TABLE {table} ADD CONSTRAINT c CHECK (false) NOT VALID",
        "trigger": "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not here'; END $$; "
        f"CREATE TRIGGER c BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION no()",
        "column": f"ALTER TABLE {table} ADD c bigint, ADD CONSTRAINT c CHECK (c IS NOT NULL) NOT VALID",
    }
    connection.execute(what[way])
    messages = [*batch(3).messages]
    messages[1] = messages[1]._replace(payload=b"no number", headers={"Authorization": "Bearer s3cret"})
    work = Batch(messages, [1, 2, 3])
    with pytest.raises(SchemaError, match=r"own tables refuse what it writes there: .*: drop what") as caught:
        sink.write(work)
    assert "\n" not in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("number", b"no number".hex(), "s3cret", "Failing row"))
    kind = "TRIGGER c ON" if way == "trigger" else "TABLE"
    connection.execute(f"DROP TRIGGER c ON {table}" if kind != "TABLE" else f"ALTER TABLE {table} DROP CONSTRAINT c")
    assert sink.write(work).written == 2
    assert numbers(connection) == [1, 3]


def test_a_ledger_that_cannot_be_begun(connection: Any, database: str) -> None:
    """So it is for a worker that starts."""
    connection.execute("ALTER TABLE eventwriter.ledger ADD CONSTRAINT c CHECK (false) NOT VALID")
    with pytest.raises(SchemaError, match="own tables refuse what it writes there"):
        open_sink(database)


def test_a_limit_of_the_server_passes(connection: Any, sink: Sink) -> None:
    """Such as a queue of notifications that is full at COMMIT: no row is to blame, and the batch comes again."""
    connection.execute(
        "CREATE FUNCTION full_queue() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000'; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON eventwriter.ledger DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION full_queue()"
    )
    for _ in range(3):
        with pytest.raises(UnavailableError, match=r"too many notifications in the NOTIFY queue \(54000\)"):
            sink.write(batch(5))
    connection.execute("DROP TRIGGER late ON eventwriter.ledger")
    assert sink.write(batch(5)).written == 5
    assert not letters(connection)


def test_a_statement_that_somebody_cancels_is_not_too_much(connection: Any, sink: Sink) -> None:
    """The batch is tried again as it is."""
    with connection.transaction():
        connection.execute("LOCK TABLE numbers")
        with ThreadPoolExecutor() as pool:
            written = pool.submit(sink.write, batch(3))
            waiting = (
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            wait_until(lambda: connection.execute(waiting).fetchone(), "it waits for the lock")
            with pytest.raises(UnavailableError, match="user request") as caught:
                written.result()
    assert not isinstance(caught.value, OversizedError)
    assert sink.write(batch(3)).written == 3


def test_what_postgresql_warns_of_at_commit_is_told(
    connection: Any, sink: Sink, caplog: pytest.LogCaptureFixture
) -> None:
    """That what is committed is on no standby yet, for one; not what it warns of before, which may be once a row."""
    connection.execute(
        "CREATE FUNCTION warns() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "RAISE WARNING 'canceling wait for %', TG_NAME USING DETAIL = 'It is committed.'; RETURN NEW; END $$; "
        "CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON eventwriter.ledger DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION warns(); "
        "CREATE TRIGGER early BEFORE UPDATE ON eventwriter.ledger FOR EACH ROW EXECUTE FUNCTION warns()"
    )
    assert sink.write(batch(3)).written == 3
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == ["PostgreSQL at COMMIT: canceling wait for late: It is committed"]
