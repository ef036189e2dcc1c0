"""NETFLOW: flow records in protobuf (goflow2 and its relatives) or JSON become rows of ``netflow_metrics``.

The bytes say which: JSON is what parses as JSON, one value or one object per line; all else is protobuf. Either may be
gzip or zlib, and either may be the data of a CloudEvent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

from eventwriter import values
from eventwriter.stream import Column, Decoded, Message, Reject, Row, Stream
from eventwriter.values import EPOCH, Unfit, shown
from workers._flow import fast, json_form, read, rows
from workers._guard import total
from workers._json.cloudevents import data_of, envelope_in, envelope_of, is_event
from workers._json.count import Shape
from workers._json.payload import parse, unpack
from workers._limits import RECORDS_MAX, Room, TooLarge, too_many

COLUMNS = (
    Column("timestamp", "timestamptz"),
    Column("gateway_id", "text", aliases=("poller_id",)),
    Column("agent_id", "text"),
    Column("device_id", "text"),
    Column("flow_direction", "text"),
    Column("src_addr", "text"),
    Column("dst_addr", "text"),
    Column("src_port", "integer"),
    Column("dst_port", "integer"),
    Column("protocol", "integer"),
    Column("packets", "bigint"),
    Column("octets", "bigint"),
    Column("sampler_address", "text"),
    Column("input_snmp", "integer"),
    Column("output_snmp", "integer"),
    Column("metadata", "jsonb"),
)


_NOT_PLAIN = frozenset(b"{[ \t\r\n\xef\x1f\x78")
"""First bytes of JSON and of gzip and zlib; protobuf may begin with them too."""
_SHAPE = Shape({}, events=1)
_lines = re.compile(rb"\S[^\n]*+").finditer
_lines_of_objects = re.compile(rb"^[^\S\n]*+\{[^\n]*+", re.MULTILINE).finditer


class _Records:
    """What has become of the records of one message."""

    def __init__(self, received: int) -> None:
        self.received = received
        self.room = Room()
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []
        self.repairs: list[str] = []

    def reject(self, reason: str, detail: str) -> None:
        self.rejects.append(Reject(reason, detail[:500], len(self.rows) + len(self.rejects)))

    def check(self, more: int) -> None:
        """Raises TooLarge if with so many more there are too many records."""
        if len(self.rows) + len(self.rejects) + more > RECORDS_MAX:
            raise too_many()

    def take_octets(self, octets: bytes, envelope: Mapping[str, Any] | None) -> None:
        """JSON, JSON lines or protobuf; raises Unfit if it is none of them."""
        first, _, more = octets.partition(b"\n")
        if more and _is_object(first) and more.strip():
            return self.take_lines(octets, envelope)
        try:
            value = parse(octets, self.repairs, _SHAPE)
        except Unfit:
            try:
                flows = read.read(octets)
            except (Unfit, TooLarge):
                if not any(_is_object(line[0]) for line in islice(_lines_of_objects(more), RECORDS_MAX)):
                    raise
                return self.take_lines(octets, envelope)
            return self.take_flows(flows, envelope)
        if not isinstance(value, dict | list):
            raise Unfit("malformed", f"JSON, but not an object or array: {shown(value)}")
        return self.take_json(value, envelope)

    def take_lines(self, octets: bytes, envelope: Mapping[str, Any] | None) -> None:
        if octets.count(b"\n") >= RECORDS_MAX:  # nothing is made of them before
            self.check(sum(1 for _ in islice(_lines(octets), RECORDS_MAX + 1)))
        for line in _lines(octets):
            self.check(1)
            try:
                self.take_record(parse(line[0], self.repairs, _SHAPE), envelope)
            except Unfit as error:
                self.reject(error.reason, str(error))

    def take_json(self, value: Any, envelope: Mapping[str, Any] | None) -> None:
        records = value if isinstance(value, list) else (value,)
        self.check(len(records))
        for record in records:
            self.check(1)
            self.take_record(record, envelope)

    def take_record(self, record: Any, envelope: Mapping[str, Any] | None) -> None:
        """One object: a flow, or an event around some; in an event's data there is no other."""
        if not isinstance(record, dict):
            self.reject("malformed", f"a flow is a JSON object, not {shown(record)}")
            return
        try:
            if envelope is not None or not is_event(record):
                received = self.received if envelope is None else _time_in(envelope, self.received)
                self.rows.append(json_form.row(record, envelope, received, self.repairs))
                return
            data = data_of(record, self.repairs, _SHAPE, self.room)
            if isinstance(data, bytes):
                self.take_octets(data, envelope_of(record))
            elif isinstance(data, dict | list):
                self.take_json(data, envelope_of(record))
            else:
                self.reject("malformed", f"the data of the CloudEvent is {shown(data)}")
        except Unfit as error:
            self.reject(error.reason, str(error))

    def take_flows(self, flows: read.Flows, envelope: Mapping[str, Any] | None) -> None:
        received = self.received if envelope is None else _time_in(envelope, self.received)
        self.check(len(flows))
        for flow in flows:
            if flow is None:
                self.reject("malformed", "not a FlowMessage of the length before it")
                continue
            try:
                self.rows.append(rows.row(flow, received, self.repairs, envelope))
            except Unfit as error:
                self.reject(error.reason, str(error))


def _time_in(envelope: Mapping[str, Any], received: int) -> int:
    """The time of an event, which stands in for a missing time of a flow; ``received`` if it has none."""
    try:
        return values.time(envelope["time"])
    except (KeyError, Unfit):  # a bad one is kept in metadata
        return received


def _is_object(line: bytes) -> bool:
    try:
        return line.lstrip()[:1] == b"{" and isinstance(parse(line, [], _SHAPE), dict)
    except Unfit:
        return False


@total
def decode(message: Message) -> Decoded:
    """The rows of one message; see stream.Stream.decode."""
    _, payload, _, time, headers = message
    received = time // 1000 - EPOCH
    if headers or not payload or payload[0] in _NOT_PLAIN:
        return _any(payload, received, headers)
    try:
        flows = read.read(payload)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),))
    flow = flows[0]
    if len(flows) == 1 and flow is not None:  # the commonest message
        repairs: list[str] = []
        try:
            row = rows.row(flow, received, repairs)
        except Unfit as error:
            return Decoded((), (Reject(error.reason, str(error)[:500], 0),), repairs)
        return Decoded((row,), (), repairs)
    records = _Records(received)
    records.take_flows(flows, None)
    return Decoded(records.rows, records.rejects, records.repairs)


def _any(payload: bytes, received: int, headers: Mapping[str, str] | None) -> Decoded:
    """The rows of a message that may be anything."""
    records = _Records(received)
    try:
        envelope = envelope_in(headers, records.repairs) if headers else None
        if not payload or payload[0] in _NOT_PLAIN:
            records.take_octets(_unpacked(payload, records.room), envelope)
        else:
            records.take_flows(read.read(payload), envelope)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),), records.repairs)
    return Decoded(records.rows, records.rejects, records.repairs)


def _unpacked(payload: bytes, room: Room) -> bytes:
    try:
        return unpack(payload, room)
    except Unfit as error:
        if error.reason == "malformed" and payload:  # lengths of 30, 31 and 120 bytes look like compression
            return payload
        raise


STREAM = Stream(
    name="NETFLOW",
    subjects=("netflow.>",),
    table="netflow_metrics",
    columns=COLUMNS,
    decode=decode,
    quick=fast.typed_rows,
)
