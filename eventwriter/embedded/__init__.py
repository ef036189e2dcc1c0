"""Real NATS and PostgreSQL servers from wheels, for demo, tests and benchmarks: nothing to install, no orphans.

``python -m eventwriter.embedded nats|postgres --port N --folder D`` runs one in the foreground. Start servers from the
main thread: they end when the *thread* that started them does (prctl(2), PR_SET_PDEATHSIG).
"""

from eventwriter.embedded.foreground import main
from eventwriter.embedded.nats import NatsServer
from eventwriter.embedded.postgres import PostgresServer, free_port
from eventwriter.embedded.server import Server

__all__ = ["NatsServer", "PostgresServer", "Server", "free_port", "main"]
