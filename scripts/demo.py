"""The whole service on this machine: servers, seven streams, mixed traffic, a live table, and accounts at the end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import difflib
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import psycopg
from nats.js.api import StreamConfig
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from eventwriter import registry
from eventwriter.embedded import NatsServer, PostgresServer
from eventwriter.errors import USAGE
from traffic import NUMBER, Traffic

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Published:
    """What went into a stream."""

    messages: int = 0
    broken: int = 0
    numbers: set[int] = field(default_factory=set)


class Publisher(threading.Thread):
    """Publishes mixed traffic on all streams at a steady rate until told to stop."""

    def __init__(self, url: str, streams: list[str], rate: float, broken: float) -> None:
        super().__init__(name="publisher", daemon=True)
        self.url, self.rate = url, rate
        self.traffic = {name: Traffic(name, broken=broken, records=5) for name in streams}
        self.published = {name: Published() for name in streams}
        self.ready = threading.Event()
        self.stop = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        """Runs until ``stop`` is set."""
        try:
            asyncio.run(self._run())
        except Exception as error:  # noqa: BLE001 - told by the main thread
            self.error = error
            self.ready.set()

    async def _run(self) -> None:
        client = await nats.connect(self.url)
        stream = client.jetstream()
        for name, declared in registry.load().items():
            await stream.add_stream(StreamConfig(name=name, subjects=list(declared.subjects)))
        self.ready.set()
        names = list(self.traffic)
        begun, sent = time.monotonic(), 0
        while not self.stop.is_set():
            due = min(int((time.monotonic() - begun) * self.rate), sent + 5000)  # soon heard to stop, whatever the rate
            batch = []
            for number in range(sent, due):
                name = names[number % len(names)]
                message = self.traffic[name].next()
                published = self.published[name]
                published.messages += 1
                published.broken += not message.records
                published.numbers.update(message.records)
                batch.append(stream.publish(message.subject, message.payload, headers=message.headers))
            sent = max(sent, due)
            for start in range(0, len(batch), 500):
                await asyncio.gather(*batch[start : start + 500])
            await asyncio.sleep(0.02)
        await client.close()


@dataclass
class State:
    """One line of the live table."""

    written: int = 0
    dead: int = 0
    rows: int = 0
    pending: int = 0


class Service:
    """`eventwriter supervise` as a child process, of the code in ``root``; ``prefix`` starts it somewhere else."""

    def __init__(self, environment: dict[str, str], log: Path, prefix: Sequence[str] = (), root: Path = ROOT) -> None:
        self.log = log
        self.page = f"http://{environment['EVENTWRITER_HTTP__LISTEN']}/"
        self.restarts: Counter[str] = Counter()
        self.notes: list[str] = []
        self.serving = threading.Event()
        """Set once the address of the page is known, or will never be."""
        self.process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "eventwriter", "supervise"],
            cwd=root,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it through us, after the publisher has stopped
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.log.open("w") as log:
            for line in self.process.stderr:
                log.write(line)
                with contextlib.suppress(ValueError):
                    record = json.loads(line)
                    if "restarting" in record["message"]:
                        self.restarts[str(record.get("stream", "")).partition("/")[0]] += 1
                    if record["message"].startswith("serving http"):  # the port, if that was 0
                        self.page = record["message"].split()[1]
                        self.serving.set()
                    if record["level"] in ("error", "critical"):
                        self.notes.append(record["message"])
        self.serving.set()

    def end(self, timeout: float) -> int:
        """Sends SIGTERM and returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def read_state(connection: psycopg.Connection[Any]) -> dict[str, State]:
    """What the ledgers say, by stream."""
    return {
        row[0]: State(int(row[1]), int(row[2]), int(row[3]))
        for row in connection.execute(
            "SELECT logical_stream, sum(messages_written), sum(messages_deadlettered), sum(rows_written) "
            "FROM eventwriter.ledger GROUP BY 1"
        )
    }


def live_table(
    publisher: Publisher, service: Service, state: dict[str, State], rates: dict[str, float], left: str
) -> Table:
    """The table that the terminal shows."""
    table = _table(f"eventwriter demo · {service.page} · {left}")
    table.add_column("stream", no_wrap=True)
    for name in ("published", "written", "rows", "rows/s", "lag", "dead", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, published in publisher.published.items():
        now = state.get(name, State())
        lag = max(0, published.messages - now.written - now.dead)
        table.add_row(
            name,
            f"{published.messages:,}",
            f"{now.written:,}",
            f"{now.rows:,}",
            f"{rates.get(name, 0):,.0f}",
            f"{lag:,}",
            f"{now.dead:,}",
            str(service.restarts[name]),
        )
    return table


def _table(title: str) -> Table:
    """Narrow: millions are to fit into 80 columns."""
    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)


def account(connection: psycopg.Connection[Any], publisher: Publisher) -> dict[str, dict[str, int]]:
    """Compares every table with what was published, record by record."""
    state = read_state(connection)
    declared = registry.load()
    result = {}
    for name, published in publisher.published.items():
        now = state.get(name, State())
        numbers = [row[0] for row in connection.execute(f"SELECT {NUMBER[name]} FROM {declared[name].table}")]
        result[name] = {
            "published": published.messages,
            "written": now.written,
            "dead_letters": now.dead,
            "missing": published.messages - now.written - now.dead,
            "rows": len(numbers),
            "rows_missing": len(published.numbers - set(numbers)),
            "rows_duplicated": len(numbers) - len(set(numbers)),
            "broken": published.broken,
        }
    return result


def adds_up(streams: dict[str, dict[str, int]]) -> bool:
    """Whether every message is in its table once, or a dead letter because it was broken."""
    return all(
        line["missing"] == line["rows_missing"] == line["rows_duplicated"] == 0
        and line["dead_letters"] == line["broken"]
        for line in streams.values()
    )


def _ticks(seconds: float | None, stop: threading.Event, period: float = 0.5) -> Iterator[str]:
    begun = time.monotonic()
    while not stop.is_set():
        elapsed = time.monotonic() - begun
        if seconds is not None and elapsed >= seconds:
            return
        yield f"{elapsed:.0f} s" + (f" of {seconds:.0f} s" if seconds is not None else ", Ctrl-C ends it")
        stop.wait(period)


def number(least: float, most: float) -> Callable[[str], float]:
    """Reads a number above ``least``, up to ``most``."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least < value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number above {least:g}, up to {most:,.0f}")
        return value

    return read


def share(text: str) -> float:
    """Reads a share."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no share of all: 0 is none, 0.01 one of a hundred, 1 all of them"
        )
    return value


def address(text: str) -> str:
    """Reads an address at which nobody listens yet."""
    host, _, port = text.rpartition(":")
    free = "--listen 127.0.0.1:0 takes a free port"
    try:
        family, _, _, _, where = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except (ValueError, OverflowError, socket.gaierror):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address and a port, such as 127.0.0.1:9465") from None
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot listen at {text}, {error.strerror}: {free}") from None
    return text


def read_arguments() -> argparse.Namespace:
    """What the command line asks for; what cannot be meant ends it in one line, with exit status 64."""
    parser = argparse.ArgumentParser(
        prog="scripts/demo", description=__doc__, allow_abbrev=False, exit_on_error=False, usage="%(prog)s [options]"
    )
    told = "(default %(default)s)"
    parser.add_argument("--seconds", type=number(0, 1e6), help="end by itself after this time (default: Ctrl-C)")
    parser.add_argument("--rate", type=number(0, 1e6), default=1000.0, help=f"messages/s over all streams {told}")
    parser.add_argument("--broken", type=share, default=0.01, help=f"share of broken messages {told}")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    parser.add_argument("--listen", type=address, default="127.0.0.1:9465", help=f"address of the page {told}")
    try:
        arguments, unknown = parser.parse_known_args()
    except argparse.ArgumentError as error:
        sys.stderr.write(f"scripts/demo: {error}\n")
        sys.exit(USAGE)
    if unknown:
        near = difflib.get_close_matches(unknown[0], parser._option_string_actions, 1, 0.5)
        hint = f" (did you mean {near[0]}?)" if near else ""
        sys.stderr.write(f"scripts/demo: there is no option {' '.join(unknown)}{hint}; --help shows all\n")
        sys.exit(USAGE)
    return arguments


def verdict(streams: dict[str, dict[str, int]], status: int, error: Exception | None) -> str:
    """What is wrong, if anything: that it does not add up only where all was published and the service ended well."""
    if error is not None:
        return f"the publisher failed, and nobody knows what it has published: {error or type(error).__name__}"
    accounts = "" if adds_up(streams) else "IT DOES NOT ADD UP"
    if status:
        return f"{accounts or 'every message is accounted for'}, and the service ended with exit status {status}"
    return accounts


def main() -> int:
    """Runs the demo; 0 only if every message is accounted for."""
    arguments = read_arguments()
    console = Console(stderr=True)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    begun = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="eventwriter-demo-", ignore_cleanup_errors=True))
        )
        folder.chmod(0o755)
        console.print("starting PostgreSQL and NATS …")
        postgres = stack.enter_context(PostgresServer(folder / "postgres"))
        server = stack.enter_context(NatsServer(folder / "nats"))
        dsn = postgres.create_database("eventwriter")
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("EVENTWRITER_", "PG", "NATS_"))} | {
            "EVENTWRITER_NATS__URL": server.url,
            "EVENTWRITER_POSTGRES__DSN": dsn,
            "EVENTWRITER_HTTP__LISTEN": arguments.listen,
        }
        subprocess.run(
            [sys.executable, "-m", "eventwriter", "schema", "apply"],
            cwd=ROOT,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        publisher = Publisher(server.url, list(registry.load()), arguments.rate, arguments.broken)
        publisher.start()
        publisher.ready.wait(30)
        if publisher.error:
            raise publisher.error
        service = Service(environment, folder / "service.log")
        stack.callback(service.process.kill)
        console.print(f"NATS        {server.url}", f"PostgreSQL  {dsn}", sep="\n", soft_wrap=True, highlight=False)
        service.serving.wait(30)
        console.print(f"page        {service.page}", f"publishing  {arguments.rate:.0f} messages/s", sep="\n")
        connection = stack.enter_context(psycopg.connect(dsn, autocommit=True))
        _watch(console, connection, publisher, service, arguments, stop)
        publisher.stop.set()
        publisher.join()
        _settle(console, connection, publisher)
        status = service.end(35)
        streams = account(connection, publisher)
    wrong = verdict(streams, status, publisher.error)
    result = {
        "ok": not wrong,
        "seconds": round(time.monotonic() - begun, 1),
        "exit_status": status,
        "restarts": sum(service.restarts.values()),
        "streams": streams,
    }
    if arguments.output == "json":
        print(json.dumps(result))
    else:
        _print_accounts(streams, wrong)
    for note in service.notes:
        console.print(f"service: {note}", markup=False)
    return 1 if wrong else 0


def _watch(
    console: Console,
    connection: psycopg.Connection[Any],
    publisher: Publisher,
    service: Service,
    arguments: argparse.Namespace,
    stop: threading.Event,
) -> None:
    before: dict[str, State] = {}
    before_at = time.monotonic()
    rates: dict[str, float] = {}
    shown = console.is_terminal and arguments.output == "text"
    with Live(console=console, auto_refresh=False) if shown else contextlib.nullcontext() as live:
        for left in _ticks(arguments.seconds, stop):
            if publisher.error or service.process.poll() is not None:
                return
            state, now = read_state(connection), time.monotonic()
            for name, line in state.items():
                fresh = (line.rows - before.get(name, State()).rows) / max(0.001, now - before_at)
                rates[name] = 0.6 * rates.get(name, fresh) + 0.4 * fresh
            before, before_at = state, now
            if live is not None:
                live.update(live_table(publisher, service, state, rates, left), refresh=True)


def _settle(console: Console, connection: psycopg.Connection[Any], publisher: Publisher) -> None:
    """Waits until everything that was published is accounted for, or nothing has moved for 15 s."""
    console.print("publishing has stopped; waiting for the rest to arrive …")
    last, moved = -1, time.monotonic()
    while time.monotonic() - moved < 15:
        done = sum(state.written + state.dead for state in read_state(connection).values())
        if done == sum(published.messages for published in publisher.published.values()):
            return
        if done != last:
            last, moved = done, time.monotonic()
        time.sleep(0.1)


def _print_accounts(streams: dict[str, dict[str, int]], wrong: str) -> None:
    table = _table("messages published = written + dead letters; then their rows")
    table.add_column("stream", no_wrap=True)
    headings = {
        "published": "published",
        "written": "written",
        "dead_letters": "dead",
        "missing": "lost",
        "rows": "rows",
        "rows_missing": "lost",
        "rows_duplicated": "twice",
    }
    for heading in headings.values():
        table.add_column(heading, justify="right", no_wrap=True)
    for stream, line in streams.items():
        table.add_row(stream, *(f"{line[name]:,}" for name in headings))
    console = Console()
    console.print(table)
    console.print(wrong or "every message is accounted for", style="bold red" if wrong else "green", markup=False)


if __name__ == "__main__":
    sys.exit(main())
