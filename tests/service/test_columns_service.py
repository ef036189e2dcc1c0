"""A column that is dropped under the running service: it says so wherever it speaks, and goes on when it is back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from beside import beside
from eventwriter.embedded import free_port
from fix_monitor import Endpoint
from fix_service import World, only, wait_until
from traffic import NUMBER

AGAIN = 20.0
"""Seconds within which a parked stream has looked again for the first or second time."""


@contextmanager
def load(world: World, stream: str, size: int = 20) -> Iterator[None]:
    """Publishes in a thread of its own, batch after batch, until the block ends."""

    def publish(ended: threading.Event) -> None:
        while not ended.wait(0.05):
            world.traffic([stream], count=size, broken=0.01)

    with beside(publish):
        yield


def lines(world: World, *words: str) -> list[dict[str, Any]]:
    """What was logged with these words in it."""
    found = map(json.loads, world.log.splitlines())
    return [line for line in found if all(word in line["message"] for word in words)]


def test_a_dropped_core_column_stops_its_stream_until_it_is_back(world: World) -> None:
    """Under load: the line, /readyz and `check` name it; `schema apply` brings it back, and the rest goes by itself."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(**only("TELEMETRY", "EVENTS"), EVENTWRITER_HTTP__LISTEN=endpoint.address)
    lacks = "table timeseries_metrics lacks the column value of stream TELEMETRY: run `eventwriter schema apply`"
    with load(world, "TELEMETRY"):
        wait_until(lambda: world.counts("TELEMETRY")[0] > 300, "load")
        wait_until(partial(endpoint.answers, "/readyz", 200), "readiness")
        world.execute(
            "LOCK TABLE timeseries_metrics; CREATE TABLE kept AS SELECT value FROM timeseries_metrics; "
            "ALTER TABLE timeseries_metrics DROP COLUMN value"
        )
        wait_until(partial(endpoint.answers, "/readyz", 503, f"TELEMETRY: {lacks}"), "the name of the column")
    wait_until(lambda: lines(world, "parked: exit status 78, looking again in"), "the parked stream")
    world.traffic(["EVENTS"], count=20)
    wait_until(lambda: sum(world.counts("EVENTS")) == 20, "the events")
    checked = world.run("check", check=False)
    assert checked.returncode == 78
    assert f"✗ TELEMETRY     {lacks}" in checked.stdout
    shown = world.run("status", "--url", f"http://{endpoint.address}", check=False)
    assert "parked" in shown.stdout
    wait_until(lambda: len(lines(world, "parked: exit status 78")) > 1, "another look", AGAIN)
    assert endpoint.answers("/readyz", 503, f"TELEMETRY: {lacks}")
    kept = world.query("SELECT count(*) FROM kept")
    assert world.query("SELECT count(*) FROM timeseries_metrics") == kept, "nothing is written without it"

    applied = world.run("schema", "apply").stdout
    assert "added column value to timeseries_metrics without NOT NULL: " in applied
    assert "contains null values" in applied
    wait_until(partial(endpoint.answers, "/readyz", 200), "the stream again", AGAIN)
    world.wait_settled()
    # The rows of before lost their values with the column.
    assert world.query("SELECT count(*) FROM timeseries_metrics WHERE value IS NULL") == kept
    world.execute(
        "DELETE FROM timeseries_metrics WHERE value IS NULL; "
        "INSERT INTO timeseries_metrics (timestamp, gateway_id, metric_name, metric_type, value) "
        "SELECT now(), '', '', '', value FROM kept"
    )
    world.assert_exact()
    assert world.stop(service) == 0
    assert world.run("schema", "apply").stdout.count("added") == 0


def test_another_dropped_column_is_shown_until_it_is_back(world: World) -> None:
    """Under load, without a restart: written without it, shown in log, `check`, status and /status; then with it."""
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    service = world.start(**only("LOGS"), EVENTWRITER_HTTP__LISTEN=endpoint.address)
    with load(world, "LOGS"):
        wait_until(lambda: world.counts("LOGS")[0] > 300, "load")
        worker = wait_until(lambda: world.worker("LOGS"), "the worker")
        world.execute("ALTER TABLE logs DROP COLUMN source, DROP COLUMN event_name")
        written = world.counts("LOGS")[0]
        wait_until(lambda: world.counts("LOGS")[0] > written + 200, "what is written without them")
        without = "written without event_name, source"
        (line,) = lines(world, f"table logs is {without}: `eventwriter schema apply`")
        assert (line["level"], line["stream"]) == ("warning", "LOGS")
        assert endpoint.status()["streams"]["LOGS"]["columns_omitted"] == ["event_name", "source"]
        assert endpoint.answers("/readyz", 200)
        for command in ("check", "schema check", "status"):
            url = ("--url", f"http://{endpoint.address}") if command == "status" else ()
            assert without in " ".join(world.run(*command.split(), *url).stdout.split()), command
        applied = world.run("schema", "apply").stdout.splitlines()
        assert [line for line in applied if "added" in line or "logs" in line] == [
            "added column event_name to logs",
            "added column source to logs",
            "applied logs",
        ]
        number = world.query(f"SELECT max({NUMBER['LOGS']}) FROM logs")[0][0]
        wait_until(lambda: world.query(f"SELECT max({NUMBER['LOGS']}) FROM logs")[0][0] > number + 300, "more")
    world.wait_settled()
    world.assert_exact()
    assert endpoint.status()["streams"]["LOGS"]["columns_omitted"] == []
    world.traffic(["LOGS"], count=20, broken=0)
    world.wait_settled()
    last = min(number for message in world.published["LOGS"][-20:] for number in message.records)
    sources = world.query(f"SELECT source FROM logs WHERE {NUMBER['LOGS']} >= {last}")
    assert sources
    assert all(source for (source,) in sources), sources
    assert lines(world, "table logs is written with all columns again")
    assert len(lines(world, without)) == 1
    assert world.worker("LOGS") == worker, "nobody started it again"
    assert world.stop(service) == 0


def test_an_idle_stream_notices_what_becomes_of_its_table(world: World) -> None:
    """Without a message: shown within seconds, and forgotten within seconds; a warning again at each start."""
    world.execute("ALTER TABLE otel_traces DROP COLUMN flags")
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    listening = only("OTEL_TRACES", "EVENTS") | {"EVENTWRITER_HTTP__LISTEN": endpoint.address}

    def omitted() -> Any:
        return endpoint.status()["streams"]["OTEL_TRACES"]["columns_omitted"]

    for starts in (1, 2):
        service = world.start(**listening)
        wait_until(partial(endpoint.answers, "/readyz", 200), "readiness")
        wait_until(lambda: omitted() == ["flags"], "what is left out", 5)
        assert len(lines(world, "otel_traces is written without flags")) == starts
        assert endpoint.value("columns_omitted", stream="OTEL_TRACES") == 1
        if starts == 1:
            assert world.stop(service) == 0
    world.execute("ALTER TABLE otel_traces ADD COLUMN flags bigint")
    wait_until(lambda: omitted() == [], "what is back", 5)
    world.execute("ALTER TABLE otel_traces DROP COLUMN name")
    wait_until(
        partial(endpoint.answers, "/readyz", 503, "OTEL_TRACES: table otel_traces lacks the column name"), "that", 5
    )
    assert world.stop(service) == 0


def test_a_service_whose_tables_come_later_starts_by_itself(world: World) -> None:
    """Alone and without its table it does not end, as with a wrong setting; nothing is to be told to it."""
    world.execute("DROP TABLE events")
    world.traffic(["EVENTS"], count=20)
    others = {f"EVENTWRITER_STREAMS__{name}__ENABLED": "false" for name in NUMBER if name != "EVENTS"}
    service = world.start(**others)
    wait_until(lambda: lines(world, "parked: exit status 78, looking again in"), "the parked stream")
    world.run("schema", "apply")
    wait_until(world.settled, "what waited", AGAIN)
    world.assert_exact()
    assert world.stop(service) == 0


def test_what_is_left_out_on_purpose_is_told_no_more(world: World) -> None:
    """A file that names it is read: neither log nor page, `check`, status or metric speak of it, but of others."""
    world.execute("ALTER TABLE otel_traces DROP COLUMN flags")
    file = world.folder / "eventwriter.toml"
    file.write_text("")
    endpoint = Endpoint(f"127.0.0.1:{free_port()}")
    world.environment |= {"EVENTWRITER_CONFIG": str(file), "EVENTWRITER_HTTP__LISTEN": endpoint.address}
    service = world.start(**only("OTEL_TRACES"))
    gauge = partial(endpoint.value, "columns_omitted", stream="OTEL_TRACES")
    wait_until(lambda: gauge() == 1, "what is left out")
    remedy = "streams.OTEL_TRACES.omit names what is not wanted"
    assert remedy in lines(world, "is written without flags")[0]["message"]
    assert "written without flags: `eventwriter schema apply`" in world.run("check").stdout
    file.write_text('[streams.OTEL_TRACES]\nomit = ["flags", "schema_url"]\n')
    wait_until(lambda: gauge() == 0, "that it is wanted so")
    world.traffic(["OTEL_TRACES"], count=50, broken=0)
    world.wait_settled()
    world.assert_exact()
    assert world.query("SELECT count(*) FROM otel_traces WHERE schema_url IS NOT NULL") == [(0,)]
    checked = world.run("check").stdout
    assert "✓ OTEL_TRACES   otel_traces: " in checked
    assert "✓ OTEL_TRACES   as streams.OTEL_TRACES.omit says, without flags, schema_url" in checked
    world.execute("ALTER TABLE otel_traces DROP COLUMN trace_state")
    wait_until(lambda: gauge() == 1, "another", 5)
    assert endpoint.status()["streams"]["OTEL_TRACES"]["columns_omitted"] == ["trace_state"]
    world.execute("ALTER TABLE otel_traces ADD COLUMN trace_state text, ADD COLUMN flags bigint")
    wait_until(lambda: gauge() == 0, "it is back", 5)
    assert len(lines(world, "is written without")) == 2
    file.write_text('[streams.OTEL_TRACES]\nomit = ["trace_id"]\n')
    wait_until(lambda: "streams.OTEL_TRACES.omit (file " in world.log, "that a core column cannot be left out")
    assert world.stop(service) == 0
