"""From a message to its records, whatever they are wrapped in: arrays, CloudEvents, compression, groups of records.

One walk for all streams, with one set of limits (_limits.py). A record becomes a row or a reject of its own. What a
stream's records are, and what else its messages hold, is its Kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from eventwriter import values
from eventwriter.stream import Decoded, Message, Reject, Row
from eventwriter.values import EPOCH, Unfit, shown
from workers._guard import total
from workers._json.cloudevents import data_of, envelope_in, envelope_of, is_event, is_text
from workers._json.convert import moment, same, trimmed
from workers._json.payload import read_json, unpack
from workers._limits import COUNTED_FROM, RECORDS_MAX, Room, is_large, too_many

_MAX_DEPTH = 8
"""Envelopes within envelopes."""
_MANY = 1000
"""Rows of a message from which on it counts how much memory each takes."""

Origin = tuple[Message, int, int, Mapping[str, Any] | None, list[str]]
"""What a record has besides itself: its message; when that was received, as timestamptz; what stands in for a missing
time, that of the CloudEvent around the record or else the former; the context attributes of that event; the list of
repairs. A bare tuple, for one is made per message."""


@dataclass(frozen=True)
class Kind:
    """What the records of a stream are; the methods are for streams whose messages hold more than records."""

    row_of: Callable[[Mapping[str, Any], Origin], Row]
    """The row of one record; raises Unfit if it cannot become one."""
    groups: tuple[str, ...] = ()
    """Keys of objects that may stand for several records: ``take_group`` is asked about them."""
    opens: bool = True
    """Whether CloudEvents are opened; if not, they are records as they are."""
    text_field: str | None = None
    """The field of a record that plain text in a CloudEvent stands for; None: text is no record."""

    @cached_property
    def marks(self) -> frozenset[str]:
        """Keys of objects that may be more than a record: those, and that of a CloudEvent."""
        return frozenset(("specversion", *self.groups))

    def rows_of(self, payload: bytes, origin: Origin) -> Sequence[Row]:
        """All rows of a payload that has nothing around it, if there is a fast path for it; else none."""
        return ()

    def take_group(self, records: Records, value: Mapping[str, Any], origin: Origin, depth: int) -> bool:
        """Takes the records of an object that has one of the ``groups``; False if it is a record itself."""
        return False

    def read(self, records: Records, octets: bytes, origin: Origin, depth: int) -> None:
        """Takes the records of bytes that are a payload; raises Unfit before any if they are none."""
        records.take(read_json(octets, origin[4], records)[1], origin, depth)

    def read_data(self, records: Records, octets: bytes, origin: Origin, depth: int) -> None:
        """The same of bytes in a CloudEvent that are not JSON."""
        raise Unfit("malformed", "the data of the CloudEvent is not JSON")


def decoder(kind: Kind) -> Callable[[Message], Decoded]:
    """The decode function of a stream with such records."""
    return total(partial(decode_records, kind))


def decode_records(kind: Kind, message: Message) -> Decoded:
    """What a message holds: a row or a reject per record, in order. Raises TooLarge for too many of them."""
    _, payload, _, nanos, headers = message
    repairs: list[str] = []
    received = nanos // 1000 - EPOCH
    origin: Origin = (message, received, received, None, repairs)
    value = None
    if payload[:1] in (b"{", b"[") and not headers and len(payload) <= COUNTED_FROM:  # nearly always one record
        try:
            value = values.parse_json(payload, repairs)
        except Unfit:  # bytes that begin so may be something else
            pass
        else:
            if type(value) is dict and value.keys().isdisjoint(kind.marks):
                try:
                    return Decoded((kind.row_of(value, origin),), (), repairs)
                except Unfit as error:
                    return Decoded((), (Reject(error.reason, str(error)[:500], 0),), repairs)
    elif not headers and (rows := kind.rows_of(payload, origin)):
        return Decoded(rows, [], repairs)
    records = Records(kind)
    try:
        if headers and (envelope := envelope_in(headers, repairs)):
            origin = within(origin, envelope)
            if kind.text_field and is_text(envelope):
                value = {kind.text_field: _text(unpack(payload, records), repairs)}
        if value is None:
            kind.read(records, payload, origin, 0)
        else:
            records.take(value, origin, 0)
    except Unfit as error:
        return Decoded((), (Reject(error.reason, str(error)[:500]),), repairs)
    return Decoded(records.rows, records.rejects, repairs)


def _text(octets: bytes, repairs: list[str]) -> str:
    try:
        return values.clean(octets.decode(), repairs)
    except UnicodeDecodeError:
        raise Unfit("malformed", "a CloudEvent whose data is not the text that it is said to be") from None


class Records(Room):
    """The records of a message, as they are found. Its methods raise Unfit only before they have added any."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        super().__init__()
        self.rows: list[Row] = []
        self.rejects: list[Reject] = []

    @property
    def count(self) -> int:
        """How many there are, which is the number of the next one."""
        return len(self.rows) + len(self.rejects)

    def check(self, more: int) -> None:
        """Raises TooLarge if with so many more there are too many."""
        if self.count + more > RECORDS_MAX:
            raise too_many()

    def reject(self, error: Unfit) -> None:
        """Adds the reject of one record."""
        self.rejects.append(Reject(error.reason, str(error)[:500], self.count))

    def take(self, value: Any, origin: Origin, depth: int) -> None:
        """Takes the records of a JSON value."""
        kind = self.kind
        if type(value) is dict:
            if "specversion" in value and kind.opens and is_event(value):
                self.open(value, origin, depth + 1)
            elif value.keys().isdisjoint(kind.groups) or not kind.take_group(self, value, origin, depth):
                self.add(value, origin)
        elif type(value) is list:
            self.take_each(value, origin, depth)
        else:
            raise Unfit("malformed", f"{shown(value)} is not an object")

    def take_each(self, elements: Sequence[Any], origin: Origin, depth: int) -> None:
        """Takes the records of each of several objects."""
        self.check(len(elements))
        others = after_first(origin, len(elements)) if len(elements) > 1 else origin
        marks, row_of, add = self.kind.marks, self.kind.row_of, self.rows.append
        few, before = len(self.rows) + len(elements) <= _MANY, self.count
        for element in elements:
            try:
                if type(element) is not dict:
                    raise Unfit("malformed", f"{shown(element)} is not an object")
                if few and element.keys().isdisjoint(marks):
                    add(row_of(element, origin))  # as ``take`` would, without its calls
                else:
                    self.take(element, origin, depth)
                    self.check(0)  # it may hold many
            except Unfit as error:
                self.reject(error)
            if origin is not others and self.count > before:
                origin = others
        self.check(0)  # those behind one that held many

    def open(self, event: Mapping[str, Any], origin: Origin, depth: int) -> None:
        """Takes the records in a CloudEvent."""
        check_depth(depth)
        data = data_of(event, origin[4], self)
        origin = within(origin, envelope_of(event))
        if data is None:
            raise Unfit("malformed", "a CloudEvent without data")
        if type(data) is bytes:
            self.kind.read_data(self, data, origin, depth)
        elif type(data) is str and self.kind.text_field:
            self.add({self.kind.text_field: data}, origin)
        else:
            self.take(data, origin, depth)

    def add(self, record: Mapping[str, Any], origin: Origin) -> None:
        """Adds the row of a record, or its reject."""
        try:
            row = self.kind.row_of(record, origin)
        except Unfit as error:
            self.reject(error)
            return
        if len(self.rows) > _MANY:
            row = tuple([trimmed(value) if type(value) is bytes else value for value in row])
        self.rows.append(row)


def check_depth(depth: int) -> None:
    """Raises Unfit for more envelopes within each other than are opened."""
    if depth > _MAX_DEPTH:
        raise Unfit("malformed", f"more than {_MAX_DEPTH} envelopes within each other")


def after_first(origin: Origin, records: int) -> Origin:
    """That of the others of so many records: the first alone has a large envelope. Raises TooLarge as is_large()."""
    if origin[3] is None or not is_large(origin[3], records):
        return origin
    message, received, time, _, repairs = origin
    return message, received, time, None, repairs


def within(origin: Origin, envelope: Mapping[str, Any]) -> Origin:
    """The origin of a record in a CloudEvent, whose time is nearer to the record than the broker's. Of events within
    each other it has the attributes of all: ``id`` is that of the innermost, ``outer.id`` another one around it."""
    message, received, time, outer, repairs = origin
    try:
        nearer = moment(envelope.get("time"), repairs=repairs)
        time = time if nearer is None else nearer
    except Unfit:
        repairs.append("bad_time")
    if outer is not None:
        envelope = {**envelope}
        for name, value in outer.items():
            while not same(envelope.get(name, value), value):
                name = f"outer.{name}"
            envelope[name] = value
    return message, received, time, envelope, repairs
