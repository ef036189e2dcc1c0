"""`eventwriter check`: everything that the workers will meet, before they start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from psycopg import Connection

from eventwriter.commands.bookkeeping import losses
from eventwriter.commands.findings import Finding, tables
from eventwriter.commands.schema_check import check_role, check_table
from eventwriter.commands.surroundings import surroundings
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import CONFIGURATION, EventWriterError
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.durable import begins_anew
from eventwriter.jetstream.source import Source
from eventwriter.postgres.connection import check_server, connect
from eventwriter.postgres.errors import translated
from eventwriter.postgres.ledgers import predecessors
from eventwriter.stream import Stream


def _check_ledger(connection: Connection[Any], stream: StreamConfig) -> list[Finding]:
    try:
        with translated():
            found = losses(connection, stream)
            others = predecessors(connection, stream.name, stream.stream, stream.durable)
    except EventWriterError:  # said already: the schema of another release, or none
        connection.rollback()
        return []
    remedy = f"`eventwriter ledger accept --stream {stream.name}` takes note"
    anew = [Finding(stream.name, begins_anew(stream, old), warning=True) for old in others[:1]]
    return ([] if stream.continues else anew) + [
        Finding(stream.name, f"missing from the ledger and gone from the stream: {loss}; {remedy}", warning=True)
        for loss in found
    ]


def check(settings: Config, declared: Mapping[str, Stream]) -> list[Finding]:
    """Everything the workers will meet; changes nothing."""
    findings: list[Finding] = []
    try:
        with connect(settings.postgres, "eventwriter check") as connection:
            info = connection.info
            version = info.server_version
            findings.append(
                Finding(
                    "postgres",
                    f"PostgreSQL {version // 10000}.{version % 10000}, database {info.dbname} as {info.user}",
                )
            )
            findings += surroundings(connection, settings, declared)
            try:
                with translated():
                    check_server(connection)
            except EventWriterError as error:
                findings.append(Finding("postgres", str(error), error.exit_code))
            findings += check_role(connection, settings)
            for each in tables(settings, declared):
                findings += check_table(connection, *each)
                findings += _check_ledger(connection, each[0])
    except EventWriterError as error:
        findings.append(Finding("postgres", str(error), error.exit_code))
    for stream, _ in tables(settings, declared):
        try:
            findings += _check_stream(settings, stream)
        except EventWriterError as error:
            findings.append(Finding(stream.name, str(error), error.exit_code))
            if "cannot connect" in str(error):
                break
    return findings


def _check_stream(settings: Config, stream: StreamConfig) -> list[Finding]:
    source = Source(settings.nats, stream)
    try:
        info = source.open()
        consumer = source.consumer_info()
        if consumer is None or consumer.changes:
            source.check_create()
    finally:
        source.close(2.0)
    held = info.last_sequence - info.first_sequence + 1 if info.last_sequence else 0
    where = f"stream {info.name} holds {held} messages"
    if consumer is None:
        return [Finding(stream.name, f"{where}; consumer {stream.durable} will be created")]
    text = f"{where}; consumer {stream.durable}: {consumer.pending} waiting, {consumer.ack_pending} unacknowledged"
    return [Finding(stream.name, text), *_check_consumer(stream, consumer)]


def _check_consumer(stream: StreamConfig, consumer: ConsumerInfo) -> Iterator[Finding]:
    name = f"consumer {stream.durable}"
    if consumer.refusal:
        yield Finding(stream.name, consumer.refusal, CONFIGURATION)
        return
    if consumer.paused:
        yield Finding(stream.name, f"{name} is paused until {consumer.paused}: nothing is delivered", warning=True)
    for each in consumer.warnings:
        yield Finding(stream.name, each, warning=True)
    if consumer.changes:
        how = ", which kept messages or their payloads back" if consumer.incomplete else ""
        changes = ", ".join(consumer.changes)
        yield Finding(stream.name, f"{name}: the worker will change {changes}{how}", warning=bool(consumer.incomplete))
    if limits := str(consumer.limits):
        yield Finding(stream.name, f"{name} limits a pull to {limits}: the worker keeps to that, and is slower")
