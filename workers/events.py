"""EVENTS: syslog, SNMP traps, state changes and other events in JSON become rows of ``events``."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from itertools import dropwhile
from typing import Any

from eventwriter import values
from eventwriter.masking.community import masked
from eventwriter.stream import Decoded, Message, Reject, Row, Stream
from eventwriter.values import EPOCH, REPLACEMENT, Unfit, dump_json, shown, usual_time
from workers._guard import total
from workers._json.cloudevents import data_of, envelope_in, is_event, is_text
from workers._json.event_shapes import LEVELS, facts_of, level_of, timestamp_of
from workers._json.events_fast import AnyEvent, Envelope, GelfEvent, any_columns, gelf_columns
from workers._json.fast import fast_path, in_turn
from workers._json.payload import read_json, unpack
from workers._json.table import Field, Table
from workers._limits import RECORDS_MAX, Room, too_many

TABLE = Table(
    Field("event_timestamp", "timestamptz", own=True),
    Field("specversion", "text"),
    Field("id", "text"),
    Field("source", "text"),
    Field("type", "text"),
    Field("datacontenttype", "text"),
    Field("subject", "text"),
    Field("remote_addr", "text"),
    Field("host", "text"),
    Field("level", "integer", own=True),
    Field("severity", "text"),
    Field("short_message", "text"),
    Field("version", "text"),
    Field("raw_data", "text", own=True),
    Field("received_at", "timestamptz", given=False, core=False),
)
_ID, _SOURCE, _SUBJECT = (TABLE.at[name] for name in ("id", "source", "subject"))
_OTEL = {"logs": "LOGS", "traces": "OTEL_TRACES", "metrics": "OTEL_METRICS"}
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")


@total
def decode(message: Message) -> Decoded:
    """The rows of one message: CloudEvents in any mode, GELF, traps, OCSF, or any JSON object; arrays of them, where
    ``raw_data`` is the text of the element, or it would grow with the square of the payload."""
    subject, payload, _, _, headers = message
    repairs: list[str] = []
    rows: list[Row] = []
    rejects: list[Reject] = []
    try:
        if ("otel" in subject or "netflow" in subject) and (owner := _owner(subject)):
            raise Unfit("wrong_stream", f"subject {shown(subject)} belongs to stream {owner}, not to EVENTS")
        if "\0" in subject:
            message = message._replace(subject=values.clean(subject, repairs))
        found, raw = _event_in(payload, headers, repairs)
        events = [found] if type(found) is dict else found
        if type(events) is not list:
            raise Unfit("malformed", f"{shown(found)} is not an object")
        if len(events) > RECORDS_MAX:
            raise too_many()
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),), repairs)
    room = Room()
    for index, event in enumerate(events):
        try:
            if type(event) is not dict:
                raise Unfit("malformed", f"{shown(event)} is not an object")
            rows.append(_row(event, raw if event is found else dump_json(event), index, message, repairs, room))
        except Unfit as error:
            rejects.append(Reject(error.reason, str(error)[:500], index))
    return Decoded(rows, rejects if type(found) is list else tuple(rejects), repairs)


def _row(event: Mapping[str, Any], raw: bytes, index: int, message: Message, repairs: list[str], room: Room) -> Row:
    """The row of an event, the ``index``-th of its message, from its JSON and its text."""
    received = message.time // 1000 - EPOCH
    get = event.get
    wrapped = is_event(event)
    data = get("data") if wrapped else event
    facts = facts_of(data, wrapped=wrapped) if type(data) is dict else _facts_of_other(event, repairs, room)
    time, remote_addr, host, level, severity, short_message, version = facts

    timestamp = usual_time(time) or timestamp_of(time, get("time") if wrapped else None, received, wrapped, repairs)
    source = get("source")
    if source is None and not wrapped and get("class_uid") is not None:
        source = get("log_provider")
    if level is not None:
        is_named, level = not wrapped and severity is None and type(level) is not bool, level_of(level, repairs)
        if is_named and level is not None and 0 <= level < len(LEVELS):
            severity = LEVELS[level]
    row = [timestamp, get("specversion"), get("id"), source, get("type"), get("datacontenttype"),
           get("subject") or None, remote_addr, host, level, severity, short_message, version,
           masked(raw).decode("utf-8", "replace"), received]  # fmt: skip
    TABLE.fill(row, {}, repairs)  # raw_data has what does not fit
    if not row[_ID] or REPLACEMENT in f"{row[_ID]}{row[_SOURCE]}":  # what was another one before may be the same now
        row[_ID] = f"{message.sequence}-{message.time}-{index}"
    row[_SOURCE] = row[_SOURCE] or ""  # it is part of the key
    row[_SUBJECT] = row[_SUBJECT] or message.subject
    return tuple(row)


def _owner(subject: str) -> str | None:
    """The stream that a subject below ``events`` belongs to in truth: OTLP and flow records have their own tables."""
    below = [*dropwhile("events".__ne__, subject.split(".")), "", "", ""]
    if below[1] == "netflow":
        return "NETFLOW"
    return _OTEL.get(below[2], "LOGS, OTEL_TRACES or OTEL_METRICS") if below[1] == "otel" else None


def _event_in(payload: bytes, headers: Mapping[str, str] | None, repairs: list[str]) -> tuple[Any, bytes]:
    """The JSON of a payload, an event or several, and its text."""
    try:
        if (envelope := envelope_in(headers, repairs)) is not None:
            return _binary_event(envelope, payload, repairs)
        raw, event = read_json(payload, repairs)
    except Unfit as error:
        raise Unfit(error.reason, f"{error}; an event is JSON") from None
    if repairs and type(event) is dict:  # a number beyond float64 is as it came in raw_data
        repairs[:] = [reason for reason in repairs if reason != "number_as_text"]
    return event, raw


def _binary_event(envelope: Mapping[str, Any], payload: bytes, repairs: list[str]) -> tuple[dict[str, Any], bytes]:
    """An event in binary mode as if it were structured, and the text of its payload; if the envelope has more than
    columns take, that of the structured event, with JSON data as they came."""
    data: Any = None
    raw, inner = b"", b"null"
    if payload:
        try:
            if is_text(envelope):
                raise Unfit("malformed", "it is text")
            raw, data = read_json(payload, repairs)
            inner = raw.removeprefix(codecs.BOM_UTF8)
        except Unfit as error:
            data = _plain_text(unpack(payload))
            if data is None:
                raise Unfit(error.reason, f"a CloudEvent whose data is neither JSON nor text: {error}") from None
            raw, inner = data.encode(), dump_json(data)
    if not envelope.keys() <= set(Envelope.__struct_fields__):
        raw = b'%b,"data":%b}' % (dump_json(envelope)[:-1], inner)
    return {**envelope, "data": data}, raw


def _plain_text(octets: bytes) -> str | None:
    """The text that bytes are in UTF-8; None if they are something else."""
    try:
        text = octets.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _facts_of_other(event: Mapping[str, Any], repairs: list[str], room: Room) -> tuple[Any, ...]:
    """The facts of a CloudEvent whose data is not an object as it stands."""
    data = data_of(event, repairs, room)
    if type(data) is dict:
        return facts_of(data, wrapped=True)
    if type(data) is bytes:
        data = _plain_text(data)
    return None, None, None, None, None, data if type(data) is str else None, None


STREAM = Stream(
    name="EVENTS",
    subjects=("events.>",),
    table="events",
    columns=TABLE.columns,
    decode=decode,
    fast=in_turn(
        fast_path(TABLE.columns, GelfEvent, b'"short_message"', gelf_columns),
        fast_path(TABLE.columns, AnyEvent, b'"specversion"', any_columns),
    ),
    key=("event_timestamp", "id", "source"),
    former_key=("event_timestamp", "id"),
)
