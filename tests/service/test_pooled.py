"""A whole service behind PgBouncer, and what `check` says of how the server is reached."""

from __future__ import annotations

import os
import re
import signal

import psycopg
from psycopg import conninfo

from eventwriter.embedded import PostgresServer
from eventwriter.errors import CONFIGURATION, UNAVAILABLE
from fix_pgbouncer import PgBouncer
from fix_servers import running, temporary_folder
from fix_service import ROOT, World, only, wait_until

POOLED = "✓ postgres      a pooler is in between"


def test_everything_arrives_through_a_pooler(world: World, pgbouncer: PgBouncer) -> None:
    """Seven streams share two sessions, and a worker dies; commands work there as well."""
    direct = world.environment["EVENTWRITER_POSTGRES__DSN"]
    assert POOLED not in world.run("check").stdout
    world.environment["EVENTWRITER_POSTGRES__DSN"] = pgbouncer.dsn(direct)
    world.run("schema", "apply")
    assert POOLED in world.run("check").stdout
    with world.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
        assert "55P03" in world.run("check", check=False).stdout  # it waits for nobody, there as well
    world.traffic(count=80, broken=0.05)
    service = world.start()
    wait_until(lambda: world.counts("LOGS")[0] > 0 and world.counts("EVENTS")[0] > 0, "some of it")
    for name in ("LOGS", "EVENTS"):
        if worker := world.worker(name):
            worker.send_signal(signal.SIGKILL)
    world.traffic(count=80, broken=0.05, seed=7)
    world.wait_settled()
    world.assert_exact()
    assert "parked" not in world.log
    assert world.stop(service) == 0
    again = world.run("dlq", "replay", "--stream", "LOGS", check=False)
    letters = sum(message.rejects for message in world.published["LOGS"])
    assert f"0 of {letters} dead letters replayed" in again.stdout
    world.assert_exact()
    world.execute("DROP INDEX idx_logs_trace_id")
    world.run("schema", "apply", "--indexes")
    assert world.query("SELECT to_regclass('idx_logs_trace_id') IS NOT NULL") == [(True,)]
    with psycopg.connect(pgbouncer.dsn(direct), autocommit=True, prepare_threshold=None) as anybody:
        settings = "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        assert {anybody.execute(settings).fetchone() for _ in range(4)} == {("0", "0")}


def test_what_cannot_be_behind_a_pooler_is_told(world: World, pgbouncer: PgBouncer) -> None:
    """By `check` and by the worker: 78, and what to do."""
    world.environment |= only("LOGS") | {"EVENTWRITER_STREAMS__LOGS__ACK": "all"}
    assert world.run("check").returncode == 0
    through = {"EVENTWRITER_POSTGRES__DSN": pgbouncer.dsn(world.environment["EVENTWRITER_POSTGRES__DSN"])}
    for command in (("check",), ("worker", "--stream", "LOGS")):
        done = world.run(*command, check=False, **through)
        assert done.returncode == CONFIGURATION
        told = (done.stdout + done.stderr).replace("\\", "")
        assert 'behind a pooler there is none: let postgres.dsn lead to PostgreSQL itself, or set ack = "each"' in told


def test_check_looks_whether_what_is_written_is_kept(world: World) -> None:
    """A session that only reads is an outage; tables that a crash empties are a warning, each by its name."""
    world.environment |= only("LOGS", "EVENTS")
    world.execute('CREATE TABLE "Odd logs" (LIKE logs INCLUDING DEFAULTS) PARTITION BY RANGE (timestamp)')
    world.execute('CREATE UNLOGGED TABLE part PARTITION OF "Odd logs" DEFAULT')
    world.execute("ALTER TABLE eventwriter.dead_letter_records SET UNLOGGED; ALTER TABLE events SET UNLOGGED")
    done = world.run("check", EVENTWRITER_STREAMS__LOGS__TABLE='"Odd logs"')
    found = [line for line in done.stdout.splitlines() if "UNLOGGED" in line]
    assert sorted(line[:10] for line in found) == ["! EVENTS  ", "! LOGS    ", "! postgres"]
    assert "table eventwriter.dead_letter_records is UNLOGGED" in done.stdout
    several = conninfo.make_conninfo(world.dsn, host="127.0.0.1,127.0.0.1")
    port = conninfo.conninfo_to_dict(world.dsn)["port"]
    assert (
        f"✓ postgres      of several hosts the workers now use 127.0.0.1 port {port}"
        in world.run("check", EVENTWRITER_POSTGRES__DSN=several).stdout
    )
    reading = conninfo.make_conninfo(world.dsn, options="-c default_transaction_read_only=on")
    done = world.run("check", check=False, EVENTWRITER_POSTGRES__DSN=reading)
    assert done.returncode == UNAVAILABLE
    assert "✗ postgres      PostgreSQL takes no writes here" in done.stdout


def test_the_settings_of_the_documents(postgres_server: PostgresServer) -> None:
    """PgBouncer takes them as they are."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    (block,) = re.findall(r"```ini\n(.*?)```", text, re.DOTALL)
    settings = block.partition("[pgbouncer]\n")[2]
    shown = dict(line.split(" = ") for line in settings.splitlines())
    assert shown["pool_mode"] == "transaction"
    with temporary_folder() as folder:
        for server in running(PgBouncer(folder, postgres_server, settings), "CI" in os.environ):
            console = conninfo.make_conninfo("host=127.0.0.1 user=postgres dbname=pgbouncer", port=server.port)
            with psycopg.connect(console, autocommit=True) as connection:
                said = {row[0]: row[1] for row in connection.execute("SHOW CONFIG")}
    assert shown.items() <= said.items()
