"""Runs one server in the foreground, as a Procfile wants it."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from eventwriter.embedded.nats import NatsServer
from eventwriter.embedded.postgres import PostgresServer
from eventwriter.embedded.server import Server
from eventwriter.errors import INTERNAL, USAGE, ConfigurationError, UnavailableError


class _Parser(argparse.ArgumentParser):
    """Ends with the exit code that every command of ours has for arguments that it does not take."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"{self.prog}: error: {message}\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one server in the foreground until SIGTERM or SIGINT."""
    parser = _Parser(allow_abbrev=False, prog="python -m eventwriter.embedded", description=main.__doc__)
    parser.add_argument("server", choices=("nats", "postgres"))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="where its data lives")
    options = parser.parse_args(arguments)
    folder = options.folder.resolve()
    server: Server
    if options.server == "nats":
        server = NatsServer(folder, port=options.port)
    else:
        server = PostgresServer(folder, port=options.port)
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server.start()
    except (UnavailableError, ConfigurationError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    where = server.url if isinstance(server, NatsServer) else server.dsn() if isinstance(server, PostgresServer) else ""
    sys.stdout.write(f"ready: {where}\n")
    sys.stdout.flush()
    while not stopping:
        time.sleep(0.1)
        if server.ended():
            sys.stderr.write(f"{server.name} ended by itself\n")
            return INTERNAL
    server.stop()
    return 0
