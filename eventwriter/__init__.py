"""Moves messages from NATS JetStream into PostgreSQL / TimescaleDB tables, every message exactly once."""

__version__ = "0.1.0"
