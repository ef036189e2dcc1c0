"""From the bytes of a message on LOGS, OTEL_TRACES or OTEL_METRICS to its records, in whatever encoding they come.

JSON is told from protobuf by parsing it: a protobuf request may well begin like JSON. Objects are OTLP/JSON requests,
CloudEvents around anything else, summaries with the original request in base64, or flat records; arrays hold any of
them.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from google.protobuf.message import DecodeError

from eventwriter import values
from eventwriter.stream import Decoded, Message, Reject, Row
from eventwriter.values import EPOCH, Unfit, shown
from workers._json.cloudevents import data_of, envelope_in, envelope_of, is_event
from workers._json.flat import MANY, trimming
from workers._json.payload import parse, unpack
from workers._json.records import moment
from workers._limits import COUNTED_FROM, RECORDS_MAX, Room, too_many
from workers._otlp.json_form import build_request
from workers._otlp.request_count import check_request, shape_of
from workers._otlp.values import M, check_empty, clean_text, parse_request

_JSON = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*[\[{]")
_MAX_DEPTH = 8
"""Envelopes within envelopes."""


Context = tuple[str, int, Mapping[str, Any] | None, list[str]]
"""What a record has besides itself: the subject; the timestamptz that stands in for missing times; the context
attributes of the CloudEvent around it; the list of repairs. A bare tuple, for one is made per message."""


@dataclass(frozen=True, slots=True)
class Signal(Generic[M]):
    """How one signal's records become rows."""

    request: type[M]
    otlp_rows: Callable[[M, Context], list[Row]]
    """All records of a request, in order; never raises."""
    flat_row: Callable[[Mapping[str, Any], Context], Row]
    """One flat JSON record; raises Unfit if it cannot become a row."""
    groups: tuple[str, str]
    """The names by which OTLP/JSON requests are known, such as ``resourceLogs`` and ``resource_logs``."""
    text_field: str | None = None
    """The field of a flat record that plain text in a CloudEvent stands for; None: text is no record."""
    fast_rows: Callable[[bytes, Context], list[Row]] | None = None
    """The fast path for protobuf requests without envelope: the same rows and repairs, or ValueError or DecodeError."""


def decode_message(signal: Signal[M], message: Message) -> Decoded:
    """What a message of this signal holds; raises TooLarge for too many records."""
    subject, payload, _, time, headers = message
    repairs: list[str] = []
    context: Context = (subject, time // 1000 - EPOCH, None, repairs)
    try:
        if payload[:1] == b"{" and not headers and len(payload) <= COUNTED_FROM:
            value = values.parse_json(payload, repairs)
            if _is_flat(value, signal.groups):  # by far the most frequent JSON
                return Decoded((signal.flat_row(value, context),), (), repairs)
            records = _Records(signal)
            records.take(value, context, 0)
        else:
            records = _Records(signal)
            if headers and (envelope := envelope_in(headers, repairs)):
                context = _within(context, envelope)
            records.read(payload, context, 0)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),), repairs)
    return Decoded(records.rows, records.rejects, repairs)


class _Records(Generic[M]):
    """Collects the records of a message. Its methods raise Unfit only before they have added any."""

    def __init__(self, signal: Signal[M]) -> None:
        self.signal = signal
        self.flat_row = signal.flat_row
        self.room = Room()
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []

    def read(self, payload: bytes, context: Context, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise Unfit("malformed", f"more than {_MAX_DEPTH} envelopes within each other")
        if _JSON.match(payload):
            try:
                value = parse(payload, context[3], shape_of(self.signal.request.DESCRIPTOR))
            except Unfit:
                if payload[:1] != b"\n":  # where a protobuf request begins
                    raise
            else:
                self.take(value, context, depth)
                return
        elif payload and payload[:1] != b"\n" and (inflated := unpack(payload, self.room)) is not payload:
            self.read(inflated, context, depth + 1)
            return
        check_request(payload, self.signal.request.DESCRIPTOR)
        if not self.take_fast(payload, context):
            self.take_request(parse_request(self.signal.request, payload, context[3]), context, checked=False)

    def take_fast(self, payload: bytes, context: Context) -> bool:
        """The records of a protobuf request if the fast path knows it, and it has any; else False: nothing is done."""
        subject, received, envelope, repairs = context
        if envelope is not None or self.signal.fast_rows is None:
            return False
        noted: list[str] = []
        try:
            rows = self.signal.fast_rows(payload, (subject, received, None, noted))
        except (ValueError, DecodeError):
            return False
        if "text_replaced" in noted:
            return False
        if rows:
            self.rows.extend(rows)
            repairs.extend(noted)
        return bool(rows)

    def take(self, value: Any, context: Context, depth: int) -> None:
        """The records of a JSON value."""
        if isinstance(value, list):
            if len(self.rows) + len(self.rejects) + len(value) > RECORDS_MAX:
                raise too_many()
            if len(value) > MANY:
                self.flat_row = trimming(self.signal.flat_row)
            for element in value:
                index = len(self.rows) + len(self.rejects)
                if index >= RECORDS_MAX:  # some were in payloads of their own
                    raise too_many()
                try:
                    if not isinstance(element, dict):
                        raise Unfit("malformed", f"{shown(element)} is not an object")
                    self.take(element, context, depth)
                except Unfit as error:
                    self.rejects.append(Reject(error.reason, str(error)[:500], index))
        elif not isinstance(value, dict):
            raise Unfit("malformed", f"{shown(value)} is not an object")
        elif _is_flat(value, self.signal.groups):
            self.rows.append(self.flat_row(value, context))
        elif is_event(value):
            self.open(value, context, depth + 1)
        elif self.signal.groups[0] in value or self.signal.groups[1] in value:
            request, rejects = build_request(self.signal.request, value, context[3])
            self.take_request(request, context, rejects)
        elif value:
            self.read(_octets(value["raw_payload"], "raw_payload"), context, depth + 1)
        else:
            raise Unfit("missing_field", "an empty object")

    def take_request(
        self, request: M, context: Context, rejects: Sequence[Reject] = (), *, checked: bool = True
    ) -> None:
        """The records of an OTLP request; ``rejects`` are those that it had besides."""
        repairs = context[3]
        before = len(repairs)
        rows = self.signal.otlp_rows(request, context)
        if "text_replaced" in repairs[before:]:
            # As in JSON, text is cleaned before anything is made of it: keys that become the same are one that is
            # repeated, and are in the order that they have then, which is part of what tells a series.
            del repairs[before:]
            clean_text(request, repairs)
            rows = self.signal.otlp_rows(request, context)
        if not rows and not checked:
            check_empty(request)
        first = len(self.rows) + len(self.rejects)
        for reject in rejects:
            self.rejects.append(reject._replace(record_index=first + (reject.record_index or 0)))
        self.rows.extend(rows)

    def open(self, event: Mapping[str, Any], context: Context, depth: int) -> None:
        """What a CloudEvent holds."""
        if depth > _MAX_DEPTH:
            raise Unfit("malformed", f"more than {_MAX_DEPTH} envelopes within each other")
        data = data_of(event, context[3], shape_of(self.signal.request.DESCRIPTOR), self.room)
        context = _within(context, envelope_of(event))
        if data is None:
            raise Unfit("missing_field", "a CloudEvent without data")
        if isinstance(data, bytes):
            self.read(data, context, depth)
        elif isinstance(data, str) and self.signal.text_field:
            self.rows.append(self.flat_row({self.signal.text_field: data}, context))
        else:
            self.take(data, context, depth)


def _is_flat(value: Mapping[str, Any], groups: tuple[str, str]) -> bool:
    return not (
        ("specversion" in value and is_event(value))
        or groups[0] in value
        or groups[1] in value
        or ("raw_payload" in value and "resource_metric_count" in value)
        or not value
    )


def _within(context: Context, envelope: Mapping[str, Any]) -> Context:
    """The context of a record in a CloudEvent, whose time is nearer to the record than the broker's."""
    subject, received, outer, repairs = context
    try:
        given = moment(envelope.get("time"))
        received = received if given is None else given
    except Unfit:
        repairs.append("bad_time")
    return subject, received, {**(outer or {}), **envelope}, repairs


def _octets(text: Any, name: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (TypeError, ValueError, Base64Error):
        raise Unfit("malformed", f"{name} is {shown(text)}, not base64") from None
