"""What the commands around the service do: create and compare tables, and look at everything before it starts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from psycopg import Connection, sql

from eventwriter import registry
from eventwriter.commands.bookkeeping import losses
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import CONFIGURATION, OK, EventWriterError, UnavailableError, remedy_for_omitted
from eventwriter.jetstream.consumer import ConsumerInfo
from eventwriter.jetstream.durable import begins_anew
from eventwriter.jetstream.source import Source
from eventwriter.postgres import definition
from eventwriter.postgres.catalog import read_plan
from eventwriter.postgres.connection import check_server, connect, exposed
from eventwriter.postgres.errors import translated
from eventwriter.postgres.fates import bystanders
from eventwriter.postgres.ledgers import predecessors
from eventwriter.stream import Stream


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    subject: str
    """A stream, ``nats`` or ``postgres``."""
    text: str
    exit_code: int = OK
    """What a process that meets this ends with."""
    warning: bool = False

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return self.exit_code == OK

    @property
    def mark(self) -> str:
        """How a terminal shows it."""
        return "✗" if not self.ok else "!" if self.warning else "✓"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"subject": self.subject, "ok": self.ok, "warning": self.warning, "text": self.text}


def shown(findings: Sequence[Finding], *, as_json: bool) -> str:
    """The findings for a terminal, one a line, or for a program."""
    if as_json:
        return json.dumps({"ok": all(found.ok for found in findings), "findings": [f.as_dict() for f in findings]})
    return "\n".join(f"{found.mark} {found.subject:<14}{found.text}" for found in findings)


def exit_code(findings: Sequence[Finding]) -> int:
    """What a command that found this ends with."""
    return max((found.exit_code for found in findings), default=OK)


def _tables(settings: Config, declared: Mapping[str, Stream]) -> Iterator[tuple[StreamConfig, Stream]]:
    for name, stream in settings.streams.items():
        if stream.enabled:
            yield stream, declared[name]


def schema_sql(settings: Config, declared: Mapping[str, Stream]) -> list[tuple[str, str]]:
    """(name, SQL) of eventwriter's own tables and those of every enabled stream, in the order to run them."""
    files = [(registry.OWN_SCHEMA, registry.table_sql(registry.OWN_SCHEMA))]
    for stream, declaration in _tables(settings, declared):
        if stream.table == declaration.table:
            files.append((stream.table, registry.table_sql(stream.table)))
    return files


def schema_apply(
    settings: Config, declared: Mapping[str, Stream], *, wait: float = 0.0, new_keys: bool = False
) -> Iterator[str]:
    """Runs the SQL of ``schema_sql``, each file in a transaction of its own, and yields what was done, line by line.

    A table of ours that is there already gets the columns that it lacks, and with ``new_keys`` its present key. A
    stream whose table has another name than ours writes into a table that somebody else created: left alone.
    """
    streams = {declaration.table: declaration for _, declaration in _tables(settings, declared)}
    deadline = time.monotonic() + wait
    while True:
        try:
            connection = connect(settings.postgres, "eventwriter schema")
            break
        except UnavailableError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)
    with connection:
        for name, text in schema_sql(settings, declared):
            with translated():
                # One at a time: two of them at once would meet in the catalog (23505, "tuple concurrently updated").
                connection.execute("SELECT pg_advisory_xact_lock(hashtext('eventwriter schema'))")
                # Before the file, whose indexes need all columns.
                extend = partial(definition.extend, connection, text=text, new_keys=new_keys)
                lines = list(extend(streams[name])) if name in streams else []
                connection.execute(sql.SQL(cast(Any, text)))
                connection.commit()
            yield from (*lines, f"applied {name}")


def schema_check(settings: Config, declared: Mapping[str, Stream]) -> list[Finding]:
    """One finding for each enabled stream: can its rows be written to the live table?"""
    with connect(settings.postgres, "eventwriter check") as connection:
        return [finding for stream, declaration in _tables(settings, declared)
                for finding in [_check_table(connection, stream, declaration)]]  # fmt: skip


def _check_table(connection: Connection[Any], stream: StreamConfig, declaration: Stream) -> Finding:
    try:
        with translated():
            plan = read_plan(connection, declaration.leaving_out(stream.omit), stream.table)
            others = bystanders(connection, plan.table)
    except EventWriterError as error:
        if connection.broken:
            raise  # nothing to ask about the other tables
        connection.rollback()
        return Finding(stream.name, str(error), error.exit_code)
    how = "COPY"
    if plan.mode == "upsert":
        how = f"the latest row of ({', '.join(plan.keys[0])}) replaces"
    if len(others.keys) > (plan.mode == "upsert"):
        how += f"; a row that meets another one by {', '.join(others.keys)} becomes a dead letter"
    if others.meddlers:
        how += f"; what {', '.join(others.meddlers)} may leave out becomes a dead letter"
    text = f"{stream.table}: {len(plan.targets)} columns, {how}"
    keyless = bool(declaration.key and not plan.keys)
    if keyless:
        text += f", and none replaces another, for there is no key ({', '.join(declaration.key)})"
    if plan.omitted:
        text += f"; written without {', '.join(plan.omitted)}: {remedy_for_omitted(stream.name)}"
    if stream.omit:
        text += f"; as streams.{stream.name}.omit says, without {', '.join(stream.omit)}"
    return Finding(stream.name, text, warning=keyless or bool(plan.omitted))


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
            if exposure := exposed(connection):
                findings.append(Finding("postgres", exposure, warning=True))
            try:
                with translated():
                    check_server(connection)
            except EventWriterError as error:
                findings.append(Finding("postgres", str(error), error.exit_code))
            for each in _tables(settings, declared):
                findings.append(_check_table(connection, *each))
                findings += _check_ledger(connection, each[0])
    except EventWriterError as error:
        findings.append(Finding("postgres", str(error), error.exit_code))
    for stream, _ in _tables(settings, declared):
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
