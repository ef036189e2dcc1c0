"""Measures how near eventwriter comes to PostgreSQL's own COPY on this machine, in the same run and the same tables.

For each stream and encoding: messages wait in JetStream, a worker writes them, and then psql's \\copy writes exactly
the rows that it wrote into a table with the same columns and indexes. Rounds are interleaved, medians are printed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import operator
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nats
import psutil
import psycopg
from nats.aio.client import Client
from nats.js.api import StreamConfig
from psycopg import sql
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from eventwriter import registry
from eventwriter.embedded import NatsServer, PostgresServer
from eventwriter.processes.process import die_with_parent
from traffic import ENCODINGS, NUMBER, Traffic

ROOT = Path(__file__).resolve().parent.parent
console = Console(stderr=True)
_WIDTH = 100
"""Columns of the table."""


@dataclass
class Result:
    """One stream and encoding; figures are medians over the rounds."""

    stream: str
    encoding: str
    ack: str
    processes: int
    messages: int
    rows: int
    rows_per_s: float
    copy_rows_per_s: float
    ratio: float
    client_cpu_us_per_message: float | None
    client_cpu_us_per_row: float | None
    server_cpu_us_per_row: float | None
    nats_cpu_us_per_message: float | None
    rss_mib: float
    pss_mib: float
    pss_growth: float | None
    """(last quarter − first quarter) / first quarter of the run; None if it was too short to tell."""
    commits: int
    ledger_ranges: int
    """The most that the ledger was seen to hold."""
    spread: float
    """(largest − smallest) / median of the ratio."""


@dataclass
class Round:
    """One measurement of one worker."""

    seconds: float
    client_cpu: float
    postgres_cpu: float
    nats_cpu: float
    memory: list[tuple[float, float]]
    """RSS and PSS in MiB, every two seconds and at the end."""
    commits: int
    ledger_ranges: int


def cpu(*pids: int) -> float:
    """CPU seconds of processes and their children so far; of processes that are not on this machine, NaN."""
    total = 0.0 if pids else math.nan
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(OSError):  # clock_getcpuclockid(3): cpu_times() counts hundredths of a second
                    total += time.clock_gettime(~each.pid << 3 | 2)
            times = process.cpu_times()
            total += times.children_user + times.children_system
    return total


@dataclass
class Servers:
    """Where to measure; the pids are known when the servers are ours."""

    nats_url: str
    dsn: str
    psql: str
    nats_pids: tuple[int, ...] = ()
    postgres_pids: tuple[int, ...] = ()


class Bench:
    """The servers and what is measured on them."""

    def __init__(
        self, servers: Servers, ack: str, processes: int, settings: list[str], apart: tuple[set[int], set[int]] | None
    ) -> None:
        """``apart``: the cores of PostgreSQL, and those of NATS and the workers."""
        self.servers, self.nats_url, self.dsn = servers, servers.nats_url, servers.dsn
        self.ack, self.processes, self.apart = ack, processes, apart
        self.declared = registry.load()
        self.environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("EVENTWRITER_", "PG", "NATS_"))
        } | {
            "EVENTWRITER_NATS__URL": self.nats_url,
            "EVENTWRITER_POSTGRES__DSN": self.dsn,
            "EVENTWRITER_WRITER__ACK": ack,
            "EVENTWRITER_HTTP__LISTEN": "127.0.0.1:0",
        }
        for setting in settings:
            key, _, value = setting.partition("=")
            self.environment["EVENTWRITER_" + key.upper().replace(".", "__")] = value

    def command(self, *arguments: str) -> list[str]:
        """The command line of eventwriter."""
        return [sys.executable, "-m", "eventwriter", "--log-level", "warning", *arguments]

    def start(self, environment: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
        """Starts eventwriter, which ends when this process does, however that happens."""
        parent = os.getpid()

        def first() -> None:
            die_with_parent(parent=parent)
            if self.apart is not None:
                os.sched_setaffinity(0, self.apart[1])

        return subprocess.Popen(self.command(*arguments), cwd=ROOT, env=environment, preexec_fn=first)

    def serving(self, streams: Collection[str]) -> dict[str, str]:
        """The settings for so many workers on these streams, and none on the others."""
        return {
            f"EVENTWRITER_STREAMS__{name}__{key}": value
            for name in self.declared
            for key, value in (
                ("ENABLED", "true" if name in streams else "false"),
                ("PROCESSES", str(self.processes)),
            )
        }

    def query(self, text: str) -> Any:
        """The rows of a query."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return connection.execute(text).fetchall()

    def execute(self, text: str) -> None:
        """Runs a statement."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute(text)

    async def preload(self, stream: str, encoding: str, messages: int, records: int) -> int:
        """A fresh stream with ``messages``; the number of records in them."""
        client = await nats.connect(self.nats_url, pending_size=1 << 30)
        context = client.jetstream()
        with contextlib.suppress(Exception):
            await context.delete_stream(stream)
        await context.add_stream(StreamConfig(name=stream, subjects=list(self.declared[stream].subjects)))
        traffic = Traffic(stream, records=records, only=encoding)
        sent = 0
        while sent < messages:
            for _ in range(min(1000, messages - sent)):
                publication = traffic.next()
                await client.publish(publication.subject, publication.payload)
                sent += 1
            await client.flush(30)
            while (await context.stream_info(stream)).state.last_seq < sent:
                await asyncio.sleep(0.005)
        await client.close()
        return traffic.number

    async def drain(self, streams: dict[str, int]) -> Round:
        """Runs the workers until every message is acknowledged; ``streams`` tells the last sequence of each."""
        client = await nats.connect(self.nats_url)
        arguments = ["worker", "--stream", next(iter(streams))]
        if len(streams) > 1 or self.processes > 1:
            arguments = ["supervise"]
        process = self.start(self.environment | self.serving(streams), *arguments)
        commits = self.commits()
        ranges = 0
        begun = 0.0
        before = now = self.used(process.pid)
        used: list[tuple[float, float]] = []
        polls = 0
        left = dict(streams)
        while left:
            if process.poll() is not None:
                raise RuntimeError(f"the worker ended with {process.returncode}")
            near = not begun
            if not begun:  # the first messages come behind ``before``, and all of few may be done here
                before, now = now, self.used(process.pid)
            for name, last in [*left.items()]:
                delivered, acknowledged = await progress(client, name)
                if delivered and not begun:
                    begun = time.perf_counter()
                near = near or acknowledged >= 0.95 * last
                if acknowledged >= last:
                    del left[name]
            polls += 1
            if begun and polls % 20 == 0 and len(streams) == 1:  # reading page tables takes milliseconds a process
                used.append(memory(process.pid))
            if begun and polls % 5 == 0:
                ranges = max(ranges, self.ledger_ranges())
            # Looking costs the server and this process time that the worker lacks: seldom, but for beginning and end.
            await asyncio.sleep(0.01 if near else 0.1)
        seconds = time.perf_counter() - begun
        client_cpu, postgres_cpu, nats_cpu = map(operator.sub, self.used(process.pid), before)
        used.append(memory(process.pid))
        result = Round(
            seconds,
            client_cpu,
            postgres_cpu,
            nats_cpu,
            used,
            self.commits() - commits,
            ranges,
        )
        process.terminate()
        process.wait(30)
        await client.close()
        return result

    def used(self, worker: int) -> tuple[float, float, float]:
        """CPU seconds of the workers, of PostgreSQL and of NATS so far."""
        return cpu(worker), self.postgres_cpu(), cpu(*self.servers.nats_pids)

    def postgres_cpu(self) -> float:
        """CPU seconds of PostgreSQL so far."""
        return cpu(*self.servers.postgres_pids)

    def ledger_ranges(self) -> int:
        """How many ranges the ledger's rows hold together."""
        return int(self.query("SELECT count(*) FROM eventwriter.ledger, unnest(done)")[0][0])

    def commits(self) -> int:
        """How many transactions there were so far."""
        return int(self.query("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")[0][0])

    def reference(self, stream: str, folder: Path) -> tuple[int, float]:
        """(rows, seconds) of \\copy of the rows of a stream's table into a table like it, connection not counted."""
        table = self.declared[stream].table
        file = folder / f"{table}.copy"
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            columns = [
                row[0]
                for row in connection.execute(
                    "SELECT column_name FROM information_schema.columns WHERE table_name = %s "
                    "AND column_name <> 'created_at' ORDER BY ordinal_position",
                    [table],
                )
            ]
            names = ", ".join(f'"{name}"' for name in columns)
            statement = sql.SQL(f"COPY {table} ({names}) TO STDOUT (FORMAT BINARY)")
            with file.open("wb") as target, connection.cursor() as cursor, cursor.copy(statement) as copy:
                for data in copy:
                    target.write(data)
            connection.execute(
                sql.SQL(f"DROP TABLE IF EXISTS reference; CREATE TABLE reference (LIKE {table} INCLUDING ALL)")
            )
            connection.execute("CHECKPOINT")
        done = subprocess.run(
            [self.servers.psql, "-X", "-q", "-d", self.dsn, "-c", "\\timing on", "-c",
             f"\\copy reference ({names}) FROM '{file}' WITH (FORMAT binary)"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        match = re.search(r"Time: ([0-9.]+) ms", done.stdout)
        assert match, done.stdout + done.stderr
        rows = int(self.query("SELECT count(*) FROM reference")[0][0])
        return rows, float(match.group(1)) / 1000

    def clear(self, streams: list[str]) -> None:
        """Empties the tables, so that every round meets the same."""
        tables = ", ".join(self.declared[name].table for name in streams)
        self.execute(f"TRUNCATE {tables}, eventwriter.ledger, eventwriter.dead_letter_messages CASCADE")
        self.execute("CHECKPOINT")

    def check(self, stream: str, records: int) -> None:
        """Every record once, or the figures mean nothing."""
        table, number = self.declared[stream].table, NUMBER[stream]
        found = self.query(f"SELECT count(*), count(DISTINCT {number}) FROM {table}")[0]
        if found != (records, records):
            raise RuntimeError(f"{stream}: {found[0]} rows, {found[1]} different, {records} expected")


async def progress(client: Client, stream: str) -> tuple[int, int]:
    """(messages delivered, sequence up to which all are acknowledged) of our consumer; zeros while there is none."""
    # Without the classes of nats-py, which take ten times as long to fill.
    answer = await client.request(f"$JS.API.CONSUMER.INFO.{stream}.eventwriter-{stream.lower()}", timeout=30)
    info = json.loads(answer.data)
    return (0, 0) if "error" in info else (info["delivered"]["consumer_seq"], info["ack_floor"]["stream_seq"])


def memory(pid: int) -> tuple[float, float]:
    """(RSS, PSS) in MiB of a process and its children."""
    rss = pss = 0.0
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        process = psutil.Process(pid)
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError):
                full = each.memory_full_info()
                rss += full.rss / 2**20
                pss += full.pss / 2**20
    return rss, pss


def measure(bench: Bench, stream: str, encoding: str, messages: int, records: int, rounds: int, folder: Path) -> Result:
    """Rounds of a worker and of \\copy, one after the other."""
    workers: list[Round] = []
    copies: list[float] = []
    rows = 0
    for number in range(rounds):
        console.print(f"{stream} {encoding}: round {number + 1} of {rounds}, {messages:,} messages …")
        expected = asyncio.run(bench.preload(stream, encoding, messages, records))
        bench.clear([stream])
        workers.append(asyncio.run(bench.drain({stream: messages})))
        bench.check(stream, expected)
        rows, seconds = bench.reference(stream, folder)
        copies.append(seconds)
    ratios = [copied / worked.seconds for copied, worked in zip(copies, workers, strict=True)]
    median = statistics.median

    return Result(
        stream=stream,
        encoding=encoding,
        ack=bench.ack,
        processes=bench.processes,
        messages=messages,
        rows=rows,
        rows_per_s=round(rows / median(each.seconds for each in workers)),
        copy_rows_per_s=round(rows / median(copies)),
        ratio=round(median(ratios), 3),
        client_cpu_us_per_message=_per([each.client_cpu for each in workers], messages),
        client_cpu_us_per_row=_per([each.client_cpu for each in workers], rows),
        server_cpu_us_per_row=_per([each.postgres_cpu for each in workers], rows),
        nats_cpu_us_per_message=_per([each.nats_cpu for each in workers], messages),
        rss_mib=round(max(rss for each in workers for rss, _ in each.memory), 1),
        pss_mib=round(max(pss for each in workers for _, pss in each.memory), 1),
        pss_growth=_growth([pss for _, pss in workers[-1].memory]),
        commits=round(median(each.commits for each in workers)),
        ledger_ranges=max(each.ledger_ranges for each in workers),
        spread=_spread(ratios),
    )


def _per(seconds: list[float], count: int) -> float | None:
    """The median in µs for each of ``count``; None if it is not known."""
    found = statistics.median(seconds) / count * 1e6
    return None if math.isnan(found) else round(found, 2)


def _spread(ratios: list[float]) -> float:
    return round((max(ratios) - min(ratios)) / statistics.median(ratios), 3)


def _growth(used: list[float]) -> float | None:
    quarter = len(used) // 4
    if quarter < 2:
        return None
    first, last = statistics.mean(used[:quarter]), statistics.mean(used[-quarter:])
    return round((last - first) / first, 3)


def measure_all(bench: Bench, messages: int, rounds: int, folder: Path) -> dict[str, float | None]:
    """All streams at once from a backlog, against \\copy of the same rows one after the other."""
    names = list(bench.declared)
    workers: list[Round] = []
    copies: list[float] = []
    rows = 0
    for number in range(rounds):
        console.print(f"all streams: round {number + 1} of {rounds} …")
        counts = {name: messages // _records(name, 50) for name in names}
        expected = {
            name: asyncio.run(bench.preload(name, ENCODINGS[name][0], count, _records(name, 50)))
            for name, count in counts.items()
        }
        bench.clear(names)
        workers.append(asyncio.run(bench.drain(counts)))
        for name in names:
            bench.check(name, expected[name])
        references = [bench.reference(name, folder) for name in names]
        rows = sum(count for count, _ in references)
        copies.append(sum(seconds for _, seconds in references))
    ratios = [copied / worked.seconds for copied, worked in zip(copies, workers, strict=True)]
    median = statistics.median

    return {
        "rows": rows,
        "rows_per_s": round(rows / median(each.seconds for each in workers)),
        "copy_rows_per_s": round(rows / median(copies)),
        "ratio": round(median(ratios), 3),
        "spread": _spread(ratios),
        "client_cpu_us_per_row": _per([each.client_cpu for each in workers], rows),
        "server_cpu_us_per_row": _per([each.postgres_cpu for each in workers], rows),
        "nats_cpu_us_per_row": _per([each.nats_cpu for each in workers], rows),
    }


def _records(stream: str, many: int) -> int:
    return many if stream.startswith("OTEL_") else 1


async def naive(bench: Bench, stream: str, messages: int) -> float:
    """Messages/s of the loop that everybody writes first: fetch, executemany, ack one by one."""
    client = await nats.connect(bench.nats_url)
    context = client.jetstream()
    subscription = await context.pull_subscribe(bench.declared[stream].subjects[0], "naive", stream=stream)
    declared = bench.declared[stream]
    names = ", ".join(column.name for column in declared.columns)
    marks = ", ".join(
        "'2000-01-01Z'::timestamptz + %s * interval '1 microsecond'"
        if column.type == "timestamptz"
        else f"%s::{column.type}"
        for column in declared.columns
    )
    from eventwriter.stream import Message

    done = 0
    begun = time.perf_counter()
    async with await psycopg.AsyncConnection.connect(bench.dsn) as connection:
        while done < messages:
            fetched = await subscription.fetch(100, timeout=5)
            rows = []
            for msg in fetched:
                meta = msg.metadata
                message = Message(msg.subject, msg.data, meta.sequence.stream, int(meta.timestamp.timestamp() * 1e9))
                rows += [
                    [value.decode() if isinstance(value, bytes) else value for value in row]
                    for row in declared.decode(message).rows
                ]
            async with connection.cursor() as cursor:
                await cursor.executemany(f"INSERT INTO {declared.table} ({names}) VALUES ({marks})", rows)
            await connection.commit()
            for msg in fetched:
                await msg.ack()
            done += len(fetched)
    await client.close()
    return messages / (time.perf_counter() - begun)


async def latency(bench: Bench, names: list[str], rate: float, seconds: float) -> dict[str, float | None]:
    """Publish → visible, by the commit timestamp of each row, at a steady rate over these streams."""
    client = await nats.connect(bench.nats_url)
    context = client.jetstream()
    for name, declared in bench.declared.items():
        with contextlib.suppress(Exception):
            await context.delete_stream(name)
        await context.add_stream(StreamConfig(name=name, subjects=list(declared.subjects)))
    process = bench.start(bench.environment | bench.serving(names), "supervise")
    traffic = {name: Traffic(name, only=ENCODINGS[name][0]) for name in names}
    sent: dict[str, dict[int, float]] = {name: {} for name in names}
    await asyncio.sleep(3 + bench.processes)
    before, commits, ranges, looked = bench.postgres_cpu(), bench.commits(), 0, time.time()
    begun, count = time.time(), 0
    while (elapsed := time.time() - begun) < seconds:
        while count < elapsed * rate:
            name = names[count % len(names)]
            publication = traffic[name].next()
            for number in publication.records:
                sent[name][number] = time.time()
            await client.publish(publication.subject, publication.payload)
            count += 1
        if time.time() - looked > 2:
            ranges, looked = max(ranges, bench.ledger_ranges()), time.time()
        await asyncio.sleep(0.001)
    await asyncio.sleep(2)
    used, commits = bench.postgres_cpu() - before, bench.commits() - commits
    rows, deadline = sum(map(len, sent.values())), time.monotonic() + 60
    counts = " + ".join(f"(SELECT count(*) FROM {bench.declared[name].table})" for name in names)
    while bench.query(f"SELECT {counts}")[0][0] < rows and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    process.terminate()
    process.wait(30)
    await client.close()
    ages: list[float] = []
    for name in names:
        table = bench.declared[name].table
        found = bench.query(
            f"SELECT {NUMBER[name]}, extract(epoch FROM pg_xact_commit_timestamp(xmin))::float8 FROM {table}"
        )
        ages += [(committed - sent[name][number]) * 1000 for number, committed in found if number in sent[name]]
    if len(ages) != rows:
        raise RuntimeError(f"{len(ages)} of {rows} rows arrived")
    ages.sort()

    def at(share: float) -> float:
        return round(ages[min(len(ages) - 1, int(len(ages) * share))], 2)

    return {
        "rate": rate,
        "messages": count,
        "p50_ms": at(0.5),
        "p95_ms": at(0.95),
        "p99_ms": at(0.99),
        "max_ms": round(ages[-1], 2),
        "server_cpu_us_per_message": _per([used], count),
        "commits": commits,
        "ledger_ranges": ranges,
    }


def start_and_idle(bench: Bench) -> dict[str, float]:
    """Seconds from `supervise` to the first row, then CPU and memory of all processes when nothing happens."""
    asyncio.run(bench.preload("LOGS", "json", 1, 1))
    bench.clear(list(bench.declared))
    begun = time.perf_counter()
    process = bench.start(bench.environment, "supervise")
    while not bench.query("SELECT 1 FROM logs LIMIT 1"):
        time.sleep(0.01)
    first = time.perf_counter() - begun
    time.sleep(5)
    before, at = cpu(process.pid), time.perf_counter()
    time.sleep(20)
    share = (cpu(process.pid) - before) / (time.perf_counter() - at)
    rss, pss = memory(process.pid)
    process.terminate()
    process.wait(30)
    return {
        "first_row_s": round(first, 2),
        "idle_cpu_percent": round(share * 100, 2),
        "idle_rss_mib": round(rss, 1),
        "idle_pss_mib": round(pss, 1),
    }


def main() -> int:
    """Runs what the arguments ask for."""
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        prog="scripts/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--streams",
        help="comma separated, 'all' or 'none' (default LOGS,TELEMETRY,NETFLOW,OTEL_TRACES; --latency: all)",
    )
    parser.add_argument("--payload", help="only this encoding, such as json or otlp")
    parser.add_argument("--messages", type=int, default=400_000, help="rows to write per round (default %(default)s)")
    parser.add_argument("--records", type=int, default=100, help="records of an OTLP message (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ack", choices=("each", "all"), default="each")
    parser.add_argument("--processes", type=int, default=1, help="workers on each stream (default %(default)s)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting, such as writer.batch_messages=500"
    )
    parser.add_argument(
        "--apart", action="store_true", help="PostgreSQL on half of the cores, NATS and the workers on the other half"
    )
    parser.add_argument("--together", action="store_true", help="also all seven streams at once")
    parser.add_argument("--naive", action="store_true", help="also the naive loop, on LOGS")
    parser.add_argument("--latency", action="store_true", help="publish → visible, instead of throughput")
    parser.add_argument("--idle", action="store_true", help="start-up time, idle CPU and memory, instead of throughput")
    parser.add_argument("--rate", type=float, default=1000, help="messages/s for --latency (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=20, help="duration of --latency (default %(default)s)")
    parser.add_argument("--nats-url", help="measure on this NATS instead of one of our own; its streams are replaced")
    parser.add_argument("--postgres-dsn", help="and on this PostgreSQL; --latency needs track_commit_timestamp = on")
    parser.add_argument("--overwrite", action="store_true", help="even if streams or tables exist there: they are lost")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    chosen = arguments.streams or ("all" if arguments.latency else "LOGS,TELEMETRY,NETFLOW,OTEL_TRACES")
    names = {"all": [*ENCODINGS], "none": []}.get(chosen, chosen.split(","))
    if unknown := set(names) - set(ENCODINGS):
        parser.error(f"--streams: no stream {', '.join(sorted(unknown))}; there are {', '.join(ENCODINGS)}")
    report: dict[str, Any] = {"results": []}
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="eventwriter-bench-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        servers = _given(arguments, parser) or _own(stack, folder)
        apart = _apart(servers, parser) if arguments.apart else None
        bench = Bench(servers, arguments.ack, arguments.processes, arguments.set, apart)
        subprocess.run(
            bench.command("schema", "apply"), cwd=ROOT, env=bench.environment, check=True, stdout=subprocess.DEVNULL
        )
        if arguments.latency:
            report["latency"] = asyncio.run(latency(bench, names, arguments.rate, arguments.seconds))
        elif arguments.idle:
            asyncio.run(_all_streams(bench))
            report["idle"] = start_and_idle(bench)
        else:
            for name in names:
                for encoding in ENCODINGS[name]:
                    if arguments.payload and encoding != arguments.payload:
                        continue
                    records = arguments.records if encoding == "otlp" else 1
                    result = measure(
                        bench, name, encoding, arguments.messages // records, records, arguments.rounds, folder
                    )
                    report["results"].append(asdict(result))
            if arguments.together:
                report["together"] = measure_all(bench, arguments.messages, arguments.rounds, folder)
            if arguments.naive:
                count = min(20_000, arguments.messages)
                asyncio.run(bench.preload("LOGS", "json", count, 1))
                bench.clear(["LOGS"])
                rate = asyncio.run(naive(bench, "LOGS", count))
                report["naive"] = {"stream": "LOGS", "messages_per_s": round(rate)}
                for each in report["results"]:
                    if (each["stream"], each["encoding"]) == ("LOGS", "json"):
                        report["naive"]["ours_is_times_faster"] = round(each["rows_per_s"] / rate, 1)
    if arguments.output == "json":
        print(json.dumps(report))
    else:
        _print(report)
    return 0


def _own(stack: contextlib.ExitStack, folder: Path) -> Servers:
    settings = {"track_commit_timestamp": "on", "max_wal_size": "8GB", "shared_buffers": "1GB"}
    postgres = stack.enter_context(PostgresServer(folder / "postgres", settings=settings))
    nats_server = stack.enter_context(NatsServer(folder / "nats"))
    psql = str(postgres.binaries / "psql")
    return Servers(nats_server.url, postgres.create_database("bench"), psql, (nats_server.pid,), (postgres.pid,))


def _apart(servers: Servers, parser: argparse.ArgumentParser) -> tuple[set[int], set[int]]:
    """Gives PostgreSQL half of the cores and NATS the others, as if they were different machines."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2 or not servers.postgres_pids:
        parser.error("--apart needs two cores, and servers that are ours")
    halves = set(cores[: len(cores) // 2]), set(cores[len(cores) // 2 :])
    for pids, half in zip((servers.postgres_pids, servers.nats_pids), halves, strict=True):
        for pid in pids:
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    for thread in each.threads():
                        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
                            os.sched_setaffinity(thread.id, half)
    return halves


def _given(arguments: argparse.Namespace, parser: argparse.ArgumentParser) -> Servers | None:
    if not arguments.nats_url and not arguments.postgres_dsn:
        return None
    if not arguments.nats_url or not arguments.postgres_dsn:
        parser.error("--nats-url and --postgres-dsn belong together")
    psql = shutil.which("psql")
    if psql is None:
        parser.error("psql is needed for the reference: install PostgreSQL's client")
    declared = registry.load()
    with psycopg.connect(arguments.postgres_dsn) as connection:
        tables = [stream.table for stream in declared.values()]
        found = connection.execute("SELECT t FROM unnest(%s::text[]) t WHERE to_regclass(t) IS NOT NULL", [tables])
        used = [f"table {row[0]}" for row in found]
    used += [f"stream {name}" for name in asyncio.run(_streams(arguments.nats_url)) if name in declared]
    if used and not arguments.overwrite:
        parser.error(f"{', '.join(used)} would be emptied: use servers of their own, or --overwrite")
    return Servers(arguments.nats_url, arguments.postgres_dsn, psql)


async def _streams(url: str) -> list[str]:
    client = await nats.connect(url)
    names = [str(info.config.name) for info in await client.jetstream().streams_info()]
    await client.close()
    return names


async def _all_streams(bench: Bench) -> None:
    client = await nats.connect(bench.nats_url)
    for name, declared in bench.declared.items():
        await client.jetstream().add_stream(StreamConfig(name=name, subjects=list(declared.subjects)))
    await client.close()


def _print(report: dict[str, Any]) -> None:
    out = Console()
    if out.width < _WIDTH:
        out = Console(width=_WIDTH)  # figures that are cut off are worse than lines that a narrow terminal breaks
    if report["results"]:
        table = Table(
            title="against psql \\copy of the same rows, in the same run",
            title_justify="left",
            box=SIMPLE_HEAD,
            pad_edge=False,
            padding=0,
        )
        for heading in ("stream", "encoding", "ack"):
            table.add_column(heading)
        for heading in ("rows/s", "\\copy\nrows/s", "ratio", "spread", "worker\nµs/row", "PostgreSQL\nµs/row",
                        "NATS\nµs/msg", "PSS\nMiB", "commits"):  # fmt: skip
            table.add_column(heading, justify="right")
        for each in report["results"]:
            table.add_row(
                each["stream"],
                each["encoding"],
                each["ack"],
                f"{each['rows_per_s']:,}",
                f"{each['copy_rows_per_s']:,}",
                f"{each['ratio']:.2f}",
                f"{each['spread']:.2f}",
                *(
                    "–" if each[name] is None else f"{each[name]:.1f}"
                    for name in ("client_cpu_us_per_row", "server_cpu_us_per_row", "nats_cpu_us_per_message")
                ),
                f"{each['pss_mib']:.0f}",
                str(each["commits"]),
            )
        out.print(table)
    for name in ("together", "naive", "latency", "idle"):
        if name in report:
            out.print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in report[name].items()))


if __name__ == "__main__":
    sys.exit(main())
