"""`eventwriter schema check`: what becomes of rows in the tables that are there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psycopg import Connection

from eventwriter.commands.findings import Finding, tables
from eventwriter.config.loading import Config, StreamConfig
from eventwriter.errors import EventWriterError, remedy_for_omitted
from eventwriter.postgres.catalog import read_plan
from eventwriter.postgres.connection import connect
from eventwriter.postgres.errors import translated
from eventwriter.postgres.fates import bystanders
from eventwriter.stream import Stream


def check(settings: Config, declared: Mapping[str, Stream]) -> list[Finding]:
    """One finding for each enabled stream: can its rows be written to the live table?"""
    with connect(settings.postgres, "eventwriter check") as connection:
        return [finding for stream, declaration in tables(settings, declared)
                for finding in [check_table(connection, stream, declaration)]]  # fmt: skip


def check_table(connection: Connection[Any], stream: StreamConfig, declaration: Stream) -> Finding:
    """Can rows of this stream be written to its table, and how?"""
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
